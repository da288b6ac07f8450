"""`verify_replay` finds nothing where nothing is wrong, and the first row that somebody changed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from activities.replay import verify_replay
from evertune.errors import NotFoundError
from evertune.store import Store
from tests.unit.asking.driving import Drive, cold, new_experiment, warm


@pytest.mark.parametrize("algorithm", ["random", "tpe", "multivariate-tpe", "grid"])
async def test_an_untouched_experiment_is_identical(store: Store, algorithm: str) -> None:
    drive = Drive(store, new_experiment(store, algorithm))
    await drive.run(warm(store), 16, 4)
    replay = verify_replay(store, drive.uid)
    assert replay.identical, str(replay.divergence)
    assert (replay.requests, replay.trials) == (drive.requests, 16)


async def test_an_open_request_is_not_compared(store: Store) -> None:
    drive = Drive(store, new_experiment(store, "tpe"))
    await drive.run(cold(store), 6, 2)
    drive.open(2)
    assert verify_replay(store, drive.uid).trials == 6


@pytest.mark.parametrize("algorithm", ["random", "tpe", "multivariate-tpe", "grid"])
async def test_a_changed_parameter_is_found(store: Store, tmp_path: Path, algorithm: str) -> None:
    drive = Drive(store, new_experiment(store, algorithm))
    await drive.run(warm(store), 12, 3)
    layers = store.trial(drive.uid, 9).parameters["layers"]
    change(tmp_path, drive.uid, 9, layers=8.5)
    divergence = verify_replay(store, drive.uid).divergence
    assert divergence is not None
    assert (divergence.trial, divergence.parameters) == (9, ("layers",))
    assert divergence.stored is not None
    assert divergence.recomputed is not None
    assert (divergence.stored["layers"], divergence.recomputed["layers"]) == (8.5, layers)


async def test_a_whole_number_that_became_a_float_is_a_difference(store: Store, tmp_path: Path) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    await drive.run(warm(store), 4, 2)
    change(tmp_path, drive.uid, 2, layers=float(store.trial(drive.uid, 2).parameters["layers"]))
    divergence = verify_replay(store, drive.uid).divergence
    assert divergence is not None
    assert (divergence.trial, divergence.parameters) == (2, ("layers",))


async def test_a_changed_objective_shows_in_the_trials_that_it_led_to(store: Store, tmp_path: Path) -> None:
    drive = Drive(store, new_experiment(store, "tpe"))
    await drive.run(warm(store), 20, 1)
    assert verify_replay(store, drive.uid).identical
    execute(tmp_path, "update evertune_trials set objective_value = 1 - objective_value")
    divergence = verify_replay(store, drive.uid).divergence
    assert divergence is not None
    assert divergence.trial >= 4, "the first four are random"


async def test_a_lost_trial_and_a_lost_parameter_are_found(store: Store, tmp_path: Path) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    await drive.run(warm(store), 8, 2)
    change(tmp_path, drive.uid, 5, colour="red")
    divergence = verify_replay(store, drive.uid).divergence
    assert divergence is not None
    assert (divergence.trial, divergence.parameters) == (5, ("colour",))
    execute(tmp_path, "delete from evertune_trials where number = 3")
    divergence = verify_replay(store, drive.uid).divergence
    assert divergence is not None
    assert (divergence.trial, divergence.stored) == (3, None)
    assert divergence.recomputed is not None
    change(tmp_path, drive.uid, 2, colour="red")
    divergence = verify_replay(store, drive.uid).divergence
    assert divergence is not None
    assert (divergence.trial, divergence.parameters) == (2, ("colour",)), "the first that differs"


def test_an_unknown_experiment_is_refused(store: Store) -> None:
    with pytest.raises(NotFoundError):
        verify_replay(store, "0" * 32)


def change(home: Path, uid: str, number: int, **values: object) -> None:
    where = "number = ? and experiment_id = (select id from evertune_experiments where uid = ?)"
    ((text,),) = execute(home, f"select parameters from evertune_trials where {where}", number, uid)
    parameters = json.dumps({**json.loads(text), **values})
    execute(home, f"update evertune_trials set parameters = ? where {where}", parameters, number, uid)


def execute(home: Path, statement: str, *values: object) -> list[tuple[str, ...]]:
    """Behind the store's back."""
    with closing(sqlite3.connect(home / "evertune.db")) as database, database:
        return database.execute(statement, values).fetchall()
