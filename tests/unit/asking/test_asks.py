"""Warm or cold, retried or not, alone or beside others: the sequence is the same."""

from __future__ import annotations

import pytest

from activities.asks import AskJob, Asks
from activities.problems import problem_of
from evertune.domain.metrics import ObjectiveType
from evertune.domain.records import Budget
from evertune.domain.states import ExperimentState
from evertune.errors import AlgorithmError, NotFoundError
from evertune.protocols import Answer
from evertune.store import Store
from evertune.testing.store.making import NOW, create
from tests.unit.asking.driving import Drive, cold, new_experiment, warm

ALGORITHMS = ("random", "tpe", "multivariate-tpe", "grid")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("parallel", [1, 4])
async def test_kept_sessions_answer_as_rebuilt_ones(store: Store, algorithm: str, parallel: int) -> None:
    warmed, cooled = (Drive(store, new_experiment(store, algorithm)) for _ in range(2))
    assert await warmed.run(warm(store), 18, parallel) == await cooled.run(cold(store), 18, parallel)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_an_answer_that_was_never_committed_is_given_again(store: Store, algorithm: str) -> None:
    drive, control = (Drive(store, new_experiment(store, algorithm)) for _ in range(2))
    ask = warm(store)
    for _ in range(3):
        await drive.run(ask, len(drive.parameters()) + 4, 3)
        job = drive.open(3)
        assert await ask(job) == await ask(job)
        drive.end_one() if drive.running() else None
        drive.commit(await ask(job))
    again = cold(store)
    for _ in range(3):
        await control.run(again, len(control.parameters()) + 4, 3)
        job = control.open(3)
        control.end_one() if control.running() else None
        control.commit(await again(job))
    assert drive.parameters() == control.parameters()


async def test_an_answer_of_another_worker_is_taken_over(store: Store) -> None:
    drive, control = (Drive(store, new_experiment(store, "tpe")) for _ in range(2))
    one, other = warm(store), warm(store)
    for _ in range(4):
        await drive.run(one, len(drive.parameters()) + 2, 2)
        await drive.run(other, len(drive.parameters()) + 3, 2)
    assert drive.parameters() == await control.run(cold(store), 20, 2)


async def test_two_experiments_asked_in_turn_do_not_meet(store: Store) -> None:
    first, second = (Drive(store, new_experiment(store, name, seed=9)) for name in ("tpe", "multivariate-tpe"))
    controls = [Drive(store, new_experiment(store, name, seed=9)) for name in ("tpe", "multivariate-tpe")]
    ask = warm(store)
    for trials in range(1, 15):
        await first.run(ask, trials, 2)
        await second.run(ask, trials, 2)
    for drive, control in zip((first, second), controls, strict=True):
        again = cold(store)
        for trials in range(1, 15):
            await control.run(again, trials, 2)
        assert drive.parameters() == control.parameters()


async def test_maximising_is_not_minimising(store: Store) -> None:
    low, high = (Drive(store, new_experiment(store, "tpe", direction=direction)) for direction in ObjectiveType)
    one, other = await low.run(warm(store), 12, 1), await high.run(warm(store), 12, 1)
    assert one[:4] == other[:4]
    assert one != other


async def test_random_reads_no_history_and_keeps_nothing_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    asks = Asks(store)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("random must not read the database's history or state")

    for name in ("history", "history_since", "algorithm_state"):
        monkeypatch.setattr(store, name, never)

    async def ask(job: AskJob) -> Answer:
        return asks.answer(job)

    await drive.run(ask, 6, 2)
    session = asks._sessions[drive.uid].session
    assert len(session._trials._dynamic_trials) == len(session._trials._ids) == 0  # type: ignore[attr-defined]


def test_an_edit_of_the_budget_changes_no_answer(store: Store) -> None:
    record = create(store, manifest={"spec": {"maxTrialCount": 12, "parallelTrialCount": 2}})
    before = problem_of(record)
    store.set_state(
        record.uid,
        ExperimentState.RUNNING,
        reason="",
        message="",
        budget=Budget(parallel=9, max_trials=99),
        key="edit",
        at=NOW,
    )
    after = store.experiment_by_uid(record.uid)
    assert after.budget.max_trials == 99
    assert problem_of(after) == before
    assert (before.max_trials, before.parallel) == (12, 2)


def test_a_library_that_fails_is_quoted(store: Store) -> None:
    uid = create(store, algorithm="tpe", settings={"gamma": "not a number"}).uid
    with pytest.raises(AlgorithmError, match="tpe failed: ValueError: could not convert string to float"):
        Asks(store).answer(AskJob(uid, 0, 1, 0, 0))


def test_an_experiment_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(NotFoundError, match="0" * 32):
        Asks(store).answer(AskJob("0" * 32, 0, 1, 0, 0))
