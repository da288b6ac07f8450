"""Which checkpoints of local trials are deleted: those that no trial of the plan can go on from any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from activities.runners.local.variables import make_checkpoint_dir
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment
from evertune.protocols import Checkpoints
from evertune.store import open_store
from evertune.testing.store.making import create, finish, suggest
from worker.checkpoints import CheckpointKeeper

RUNGS = [{"bracket": "0", "rung": str(rung), "config": "0"} for rung in (0, 0, 1, 2)]
OPEN = [{"bracket": "1", "rung": "0", "config": "4"}, {"bracket": "1", "rung": "1", "config": "4"}]


def left(tmp_path: Path, algorithm: str, labels: list[dict[str, str]], best: int, running: int = -1) -> set[int]:
    """The trials that keep their checkpoint after all but `running` have ended."""
    with open_store(f"sqlite:///{tmp_path}/evertune.db") as store:
        uid = create(store, algorithm=algorithm).uid
        suggest(store, uid, 0, [Assignment({"layers": 1}, given) for given in labels])
        for number in range(len(labels)):
            place = tmp_path / "trials" / uid / str(number) / "checkpoint"
            place.mkdir(parents=True)
            (place / "state").touch()
            if number != running:
                finish(store, uid, number, 1.0 if number == best else 0.5, TrialState.SUCCEEDED)
        keeper = CheckpointKeeper(store, tmp_path / "trials")
        keeper.tend()
        assert keeper.tend() == 0
        return {
            number for number in range(len(labels)) if (tmp_path / "trials" / uid / str(number) / "checkpoint").exists()
        }


def test_the_last_two_rungs_of_each_bracket_and_the_best_stay(tmp_path: Path) -> None:
    assert left(tmp_path, "hyperband", [*RUNGS, *OPEN], best=1) == {1, 2, 3, 4, 5}


def test_a_trial_that_runs_keeps_its_checkpoint(tmp_path: Path) -> None:
    assert left(tmp_path, "hyperband", RUNGS, best=3, running=0) == {0, 2, 3}


def test_the_last_two_generations_stay(tmp_path: Path) -> None:
    labels = [{"generation": str(number // 2), "member": str(number % 2)} for number in range(8)]
    assert left(tmp_path, "pbt", labels, best=6) == {4, 5, 6, 7}


def test_an_asha_configuration_may_be_promoted_at_any_time(tmp_path: Path) -> None:
    labels = [{"rung": "0", "config": "0"}, {"rung": "0", "config": "1"}]
    labels += [{"rung": str(rung), "config": "0"} for rung in (1, 2)]
    assert left(tmp_path, "asha", labels, best=3) == {1, 2, 3}


@pytest.mark.parametrize("algorithm", ["random", "hyperband"])
def test_trials_that_no_plan_knows_keep_theirs(tmp_path: Path, algorithm: str) -> None:
    assert left(tmp_path, algorithm, [{}, {}], best=0) == {0, 1}


def test_an_inherited_checkpoint_is_a_copy_that_is_made_once_and_whole(tmp_path: Path) -> None:
    parent, attempt = tmp_path / "1/checkpoint", tmp_path / "2/0"
    parent.mkdir(parents=True)
    attempt.mkdir(parents=True)
    (parent / "state").write_text("old")
    given = Checkpoints(parent=str(parent), inherit=True)
    make_checkpoint_dir(attempt, given)
    own = tmp_path / "2/checkpoint"
    (own / "state").write_text("new")
    make_checkpoint_dir(attempt, given)
    assert ((own / "state").read_text(), (parent / "state").read_text()) == ("new", "old")
    assert {each.name for each in (tmp_path / "2").iterdir()} == {"0", "checkpoint"}
