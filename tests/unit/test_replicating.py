"""Runs of one trial that are judged together, and trials that have another one's outcome; on a real database."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.ending import record_end
from activities.replicating import aggregated, replicate_of, runs_of
from activities.reusing import reuse
from evertune.domain.labels import REUSED_FROM
from evertune.domain.metrics import Constraint, Further, Objective, ObjectiveType, Point
from evertune.domain.records import Replicates
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, AttemptRef
from evertune.store import Store, open_store
from evertune.testing.store.making import NOW, create, finish, suggest

LOSS = Objective(ObjectiveType.MINIMIZE, "loss", constraints=(Constraint("ms", le=20.0),))
WELL = AttemptEnd(AttemptState.SUCCEEDED, "Succeeded")
THREE = Replicates(count=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'evertune.db'}") as opened:
        yield opened


def begin(store: Store, uid: str, number: int, attempt: int) -> AttemptRef:
    store.open_attempt(uid, number, attempt, home_id="home-1", at=NOW)
    return AttemptRef(uid, number, attempt, f"trial-{number}")


def points(**values: object) -> list[Point]:
    return [Point(metric, str(value), seq) for seq, (metric, value) in enumerate(values.items())]


def with_one(store: Store, objective: Objective = LOSS) -> str:
    uid = create(store, objective=objective).uid
    suggest(store, uid, 0, [Assignment({"layers": 1}), Assignment({"layers": 1}, labels={REUSED_FROM: "0"})])
    return uid


def test_numbers_are_averaged_with_their_deviation_and_texts_are_the_last() -> None:
    runs = [{"loss": "0.1", "genotype": "a"}, {"loss": "0.4", "genotype": "b", "once": "7"}, {"loss": "0.4"}]
    metrics, spread = aggregated(runs, THREE)
    assert float(metrics["loss"]) == pytest.approx(0.3)
    assert (metrics["genotype"], metrics["once"]) == ("b", "7")
    assert spread == {"loss": statistics.stdev([0.1, 0.4, 0.4])}
    assert aggregated(runs, Replicates(count=3, aggregate="median"))[0]["loss"] == "0.4"
    assert aggregated([{"loss": "0.10"}], THREE) == ({"loss": "0.10"}, {})
    assert aggregated([{"loss": "0.5"}, {"loss": "nan"}], THREE) == ({"loss": "0.5"}, {})


def test_the_verdict_is_that_of_the_runs_that_ended_well_and_each_run_is_counted_once(store: Store) -> None:
    uid = with_one(store)
    for attempt, (end, value, run) in enumerate(
        [
            (WELL, 0.2, 0),
            (AttemptEnd(AttemptState.LOST, "HostLost", failure=FailureClass.INFRASTRUCTURE), 99, 1),
            (WELL, 0.4, 1),
            (WELL, 0.6, 2),
        ]
    ):
        ref = begin(store, uid, 0, attempt)
        replicate = replicate_of(store, ref, THREE, seed=7)
        assert replicate is not None
        assert replicate.index == run
        runs = runs_of(store, ref, LOSS, THREE)
        for _ in range(2):  # whoever was killed after the record asks again
            outcome = record_end(
                store,
                ref,
                LOSS,
                end,
                points=points(loss=value, ms=10),
                retry=lambda e: e.failure is not None,
                runs=runs,
            )
            assert outcome.again == (attempt < 3)
    trial = store.trial(uid, 0)
    assert trial.objective_value == pytest.approx(0.4)
    assert trial.spread["loss"] == pytest.approx(0.2)
    assert (trial.state, trial.attempts, trial.told_seq) == (TrialState.SUCCEEDED, 4, 1)
    assert [attempt.charged for attempt in store.attempts(uid, 0)] == [False] * 4


def test_a_run_that_fails_fails_its_trial_and_one_that_is_stopped_leaves_what_the_others_measured(store: Store) -> None:
    for end, state, value in (
        (AttemptEnd(AttemptState.FAILED, "exit 1", failure=FailureClass.PROGRAM), TrialState.FAILED, None),
        (
            AttemptEnd(AttemptState.KILLED, "StoppedByUser: enough", failure=FailureClass.STOPPED),
            TrialState.KILLED,
            0.2,
        ),
    ):
        uid = with_one(store)
        for attempt, (ended, loss) in enumerate([(WELL, 0.2), (end, 99)]):
            ref = begin(store, uid, 0, attempt)
            runs = runs_of(store, ref, LOSS, THREE)
            record_end(store, ref, LOSS, ended, points=points(loss=loss, ms=10), retry=lambda _: False, runs=runs)
        trial = store.trial(uid, 0)
        assert (trial.state, trial.objective_value) == (state, value)


def test_every_run_has_a_seed_of_its_own_that_is_the_same_for_ever(store: Store) -> None:
    uid = with_one(store)
    first, second = (replicate_of(store, AttemptRef(uid, number, 0, "t"), THREE, seed=7) for number in (0, 1))
    assert first is not None
    assert second is not None
    assert first == replicate_of(store, AttemptRef(uid, 0, 0, "t"), THREE, seed=7)
    assert len({first.seed, second.seed}) == 2
    assert 0 <= first.seed < 2**31
    assert replicate_of(store, AttemptRef(uid, 0, 0, "t"), Replicates(), seed=7) is None


def test_without_the_metric_of_a_constraint_a_trial_is_infeasible_and_says_so(store: Store) -> None:
    uid = with_one(store)
    outcome = record_end(store, begin(store, uid, 0, 0), LOSS, WELL, points=points(loss=0.5))
    assert (outcome.trial_state, outcome.value) == (TrialState.SUCCEEDED, 0.5)
    assert outcome.violation > 0
    assert store.trial(uid, 0).message == "ms was not reported as a number, so nobody knows whether ms <= 20"


def test_without_one_of_its_objectives_a_trial_names_the_one_that_is_missing(store: Store) -> None:
    both = Objective(ObjectiveType.MINIMIZE, "loss", further=(Further("latency_ms", ObjectiveType.MINIMIZE),))
    uid = with_one(store, both)
    outcome = record_end(store, begin(store, uid, 0, 0), both, WELL, points=points(loss=0.5, latency=3))
    assert (outcome.trial_state, outcome.objective) == (TrialState.METRICS_UNAVAILABLE, None)
    said = "the trial ended without latency_ms; seen: latency, loss; did you mean latency?"
    assert store.trial(uid, 0).message == said


async def nothing(waits: str) -> None:
    raise AssertionError(f"there is nothing to wait for: {waits}")


async def test_an_outcome_is_copied_once_whoever_asks_again(store: Store) -> None:
    uid = with_one(store)
    record_end(store, begin(store, uid, 0, 0), LOSS, WELL, points=points(loss=0.5, ms=25))
    ref = begin(store, uid, 1, 0)
    outcome = await reuse(store, ref, 0, LOSS, nothing)
    assert outcome == await reuse(store, ref, 0, LOSS, nothing)
    copied, source = store.trial(uid, 1), store.trial(uid, 0)
    assert (copied.state, copied.reason, copied.told_seq) == (TrialState.SUCCEEDED, "Reused", 2)
    assert (copied.objective, copied.metrics, copied.violation) == ("0.5", source.metrics, 5.0)
    assert copied.message == "the outcome of trial 0, which has the same parameters\nms is 25, not <= 20"
    assert outcome is not None
    assert (outcome.value, outcome.told_seq, outcome.violation) == (0.5, 2, 5.0)
    assert store.counts(uid).succeeded == 2


async def test_a_source_that_still_runs_is_waited_for_with_a_reason(store: Store) -> None:
    uid = with_one(store)
    source, ref = begin(store, uid, 0, 0), begin(store, uid, 1, 0)
    said = []

    async def beat(waits: str) -> None:
        said.append(waits)
        record_end(store, source, LOSS, WELL, points=points(loss=0.5, ms=1))

    outcome = await reuse(store, ref, 0, LOSS, beat)
    assert outcome is not None
    assert outcome.value == 0.5
    assert said == ["Reuse: waits for trial 0, which has the same parameters"]


async def test_a_trial_runs_itself_where_its_source_failed_is_unknown_or_it_is_to_stop(store: Store) -> None:
    uid = with_one(store)
    ref = begin(store, uid, 1, 0)
    assert await reuse(store, ref, 17, LOSS, nothing) is None
    store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
    store.request_stop(uid, {1: 0}, "StoppedByUser: enough")
    assert await reuse(store, ref, 0, LOSS, nothing) is None
    finish(store, uid, 0, None, TrialState.FAILED)
    assert await reuse(store, ref, 0, LOSS, nothing) is None
    assert store.trial(uid, 1).state is TrialState.RUNNING
