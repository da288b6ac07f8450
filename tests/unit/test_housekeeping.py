"""Logs of ended experiments: what a killed worker left is archived, what is past its time is deleted, hourly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import evertune.spec as spec
from activities.launch import LaunchPlans
from evertune import archive
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState
from evertune.store import Store, open_store
from evertune.testing.store.making import LATER, create
from worker.housekeeping import LogKeeper

EXAMPLE = Path(__file__).parents[1] / "data/katib/metrics-collector/file-metrics-collector.yaml"
LONG = b"accuracy=0.5 and some more words\n" * 4000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/evertune.db") as store:
        yield store


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    return tmp_path / "trials"


def keeper(store: Store, trials: Path, days: float | None = None) -> LogKeeper:
    retention = None if days is None else timedelta(days=days)
    return LogKeeper(store, LaunchPlans(store), trials, retention=retention)


def ended(store: Store, name: str = "done") -> ExperimentRecord:
    uid = create(store, name=name, workflow_id=name, manifest=manifest()).uid
    store.set_state(uid, ExperimentState.SUCCEEDED, reason="ExperimentGoalReached", key="end", at=LATER)
    return store.experiment_by_uid(uid)


def manifest() -> dict[str, Any]:
    (document,) = spec.parse_documents(EXAMPLE.read_text(), EXAMPLE.name)
    return dict(document.data or {})


def attempt(trials: Path, uid: str, number: int = 0, *, over: bool = True) -> Path:
    directory = trials / uid / str(number) / "0"
    (directory / "files/katib").mkdir(parents=True)
    for name in ("log", "files/katib/mnist.log", "files/model.bin"):
        (directory / name).write_bytes(LONG)
    if over:
        (directory / "exit").write_text("0 end 1\n")
    return directory


def test_what_a_killed_worker_left_is_archived(store: Store, trials: Path) -> None:
    directory = attempt(trials, ended(store).uid)
    keeper(store, trials).tend()
    assert not (directory / "log").exists()
    assert not (directory / "files/katib/mnist.log").exists()
    assert (directory / "files/model.bin").read_bytes() == LONG
    for name in ("log", "files/katib/mnist.log"):
        assert b"".join(piece.data for piece in archive.read(directory / name)) == LONG


def test_what_runs_or_is_not_known_is_left_alone(store: Store, trials: Path) -> None:
    running = create(store, name="running", workflow_id="running").uid
    directories = [
        attempt(trials, running),
        attempt(trials, ended(store).uid, over=False),
        attempt(trials, "f" * 32),
    ]
    (trials / "live").mkdir()
    keeper(store, trials, days=0.001).tend(LATER + timedelta(days=400))
    for directory in directories:
        assert (directory / "log").read_bytes() == LONG


def test_logs_go_when_their_time_is_over_and_nothing_else_does(store: Store, trials: Path) -> None:
    directory = attempt(trials, ended(store).uid)
    broom = keeper(store, trials, days=30)
    broom.tend(LATER + timedelta(days=29))
    assert archive.exists(directory / "log")
    broom.tend(LATER + timedelta(days=31))
    assert not archive.exists(directory / "log")
    assert not archive.exists(directory / "files/katib/mnist.log")
    assert (directory / "files/model.bin").exists()
    assert (directory / "exit").exists()


def test_without_a_retention_logs_are_kept_for_ever(store: Store, trials: Path) -> None:
    directory = attempt(trials, ended(store).uid)
    keeper(store, trials).tend(LATER + timedelta(days=36500))
    assert archive.exists(directory / "log")


def test_an_experiment_that_was_in_order_is_not_walked_again_until_it_ends_anew(store: Store, trials: Path) -> None:
    record = ended(store)
    attempt(trials, record.uid)
    keeper(store, trials).tend()
    later = attempt(trials, record.uid, 1)
    keeper(store, trials).tend()
    assert (later / "log").exists()
    store.set_state(record.uid, ExperimentState.RUNNING, key="again", at=LATER + timedelta(hours=1))
    store.set_state(record.uid, ExperimentState.SUCCEEDED, key="end again", at=LATER + timedelta(hours=2))
    keeper(store, trials).tend()
    assert not (later / "log").exists()


def test_one_that_fails_is_tried_again_and_the_others_are_done(store: Store, trials: Path) -> None:
    stuck, fine = attempt(trials, ended(store).uid), attempt(trials, ended(store, "fine").uid)
    (stuck / "log.gz.new").mkdir()
    keeper(store, trials).tend()
    assert (stuck / "log").exists()
    assert not (fine / "log").exists()
    (stuck / "log.gz.new").rmdir()
    keeper(store, trials).tend()
    assert not (stuck / "log").exists()


def test_it_is_due_at_first_and_then_not_for_an_hour(store: Store, trials: Path) -> None:
    broom = keeper(store, trials)
    assert [broom.due() for _ in range(3)] == [True, False, False]
    broom.tend()  # without a single trial there is no directory
