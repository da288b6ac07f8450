"""The contract for suggestions: requests, answers, algorithm states and the history at a cut."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import pytest

from evertune.domain.metrics import Constraint, Further, Objective, ObjectiveType, Point
from evertune.domain.records import Counts
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, Ending
from evertune.errors import AlgorithmError, ConflictError, NotFoundError
from evertune.protocols import Answer
from evertune.store import Store
from evertune.testing.store.making import DOUBLES, LATER, NOW, TEXT, at_once, create, finish, suggest, with_trials


class SuggestionContract:
    def test_a_request_keeps_its_cut_when_it_is_opened_again(self, store: Store) -> None:
        uid = with_trials(store, 3)
        finish(store, uid, 2, 0.5)
        request = store.open_request(uid, 1, 2, 1)
        assert (request.request_no, request.k, request.revision) == (1, 2, 1)
        assert (request.cut, request.first_number, request.committed) == (1, 3, False)
        finish(store, uid, 0, 0.75)
        assert store.open_request(uid, 1, 5, 1) == request
        assert store.request(uid, 1) == request
        with pytest.raises(NotFoundError):
            store.request(uid, 2)

    def test_the_answer_committed_first_stays(self, store: Store) -> None:
        uid = create(store).uid
        store.open_request(uid, 0, 2, 1)
        assignments = (
            Assignment({"lr": 0.1}, {"evertune.io/rung": "1"}, {"cma": [0.1, {"a": TEXT}]}),
            Assignment({"lr": 0.2}),
        )
        trials = store.commit_answer(uid, 0, Answer(assignments=assignments, state={"n": 1}), NOW)
        assert [trial.number for trial in trials] == [0, 1]
        assert [trial.parameters for trial in trials] == [{"lr": 0.1}, {"lr": 0.2}]
        assert [trial.labels for trial in trials] == [{"evertune.io/rung": "1"}, {}]
        assert all(trial.state is TrialState.CREATED and trial.created == NOW for trial in trials)
        other = Answer(assignments=(Assignment({"lr": 0.9}),), state={"n": 2}, exhausted=True)
        assert store.commit_answer(uid, 0, other, LATER) == trials
        assert store.trials_of_request(uid, 0) == trials
        assert store.algorithm_state(uid, 1) == {"n": 1}
        request = store.request(uid, 0)
        assert (request.committed, request.answered, request.exhausted) == (True, 2, False)
        assert store.counts(uid) == Counts(created=2, pending=2)
        assert [trial.meta for trial in store.history(uid, cut=0, first_number=2)] == [{"cma": [0.1, {"a": TEXT}]}, {}]

    def test_one_answer_committed_many_times_at_once_makes_its_trials_once(self, store: Store) -> None:
        uid = create(store).uid
        store.open_request(uid, 0, 3, 1)
        answers = [
            Answer(assignments=tuple(Assignment({"layers": 10 * index + i}) for i in range(3))) for index in range(6)
        ]
        results = at_once([lambda a=answer: store.commit_answer(uid, 0, a, NOW) for answer in answers])  # type: ignore[misc]
        assert all(result == results[0] for result in results), results
        assert store.trials(uid) == results[0]
        assert store.counts(uid).created == 3

    def test_short_waiting_and_exhausted_answers_are_kept(self, store: Store) -> None:
        uid = create(store).uid
        store.open_request(uid, 0, 4, 1)
        assert store.commit_answer(uid, 0, Answer(wait=True, reason=TEXT), NOW) == []
        store.open_request(uid, 1, 4, 1)
        store.commit_answer(uid, 1, Answer(assignments=(Assignment({"lr": 1.0}),), exhausted=True), NOW)
        waiting, last = store.requests(uid)
        assert (waiting.wait, waiting.exhausted, waiting.answered, waiting.reason) == (True, False, 0, TEXT)
        assert (last.wait, last.exhausted, last.answered) == (False, True, 1)
        assert store.commit_answer(uid, 0, Answer(assignments=(Assignment({"lr": 1.0}),)), NOW) == []
        assert store.trials_of_request(uid, 0) == []
        assert len(store.trials_of_request(uid, 1)) == 1

    def test_an_answer_that_breaks_the_order_is_refused_and_changes_nothing(self, store: Store) -> None:
        uid = create(store).uid
        with pytest.raises(NotFoundError):
            store.commit_answer(uid, 0, Answer(), NOW)
        store.open_request(uid, 0, 1, 1)
        store.open_request(uid, 1, 1, 1)
        with pytest.raises(AlgorithmError, match="2 assignments"):
            store.commit_answer(uid, 0, Answer(assignments=(Assignment({}), Assignment({}))), NOW)
        assert store.counts(uid) == Counts()
        store.commit_answer(uid, 0, Answer(assignments=(Assignment({"lr": 1.0}),)), NOW)
        with pytest.raises(ConflictError):
            store.commit_answer(uid, 1, Answer(assignments=(Assignment({"lr": 2.0}),)), NOW)
        assert len(store.trials(uid)) == 1

    def test_trial_names_are_katibs_and_never_repeat(self, store: Store) -> None:
        uid = with_trials(store, 50)
        names = [trial.name for trial in store.trials(uid)]
        assert len(set(names)) == 50
        for name in names:
            prefix, _, suffix = name.rpartition("-")
            assert prefix == "digits"
            assert len(suffix) == 8
            assert set(suffix) <= set("bcdfghjklmnpqrstvwxz2456789")

    def test_states_of_the_last_two_requests_and_every_hundredth_are_kept(self, store: Store) -> None:
        uid = create(store).uid
        for request_no in range(104):
            suggest(store, uid, request_no, [])
        assert store.algorithm_state(uid, 0) is None
        kept = []
        for request_no in range(104):
            try:
                assert store.algorithm_state(uid, request_no + 1) == {"asked": request_no}
                kept.append(request_no)
            except NotFoundError:
                continue
        assert kept == [0, 100, 102, 103]

    def test_the_state_is_that_of_the_last_committed_request_of_the_same_revision(self, store: Store) -> None:
        uid = create(store).uid
        suggest(store, uid, 0, [])
        store.open_request(uid, 1, 1, 1)  # never committed
        store.open_request(uid, 2, 1, 1)
        assert store.algorithm_state(uid, 2) == {"asked": 0}
        store.open_request(uid, 3, 1, 2)
        assert store.algorithm_state(uid, 3) is None
        store.commit_answer(uid, 3, Answer(state=None), NOW)
        store.open_request(uid, 4, 1, 2)
        assert store.algorithm_state(uid, 4) is None
        store.commit_answer(uid, 4, Answer(state={"rng": [1, 2**64, 0.1, math.inf], "text": TEXT}), NOW)
        store.open_request(uid, 5, 1, 2)
        assert store.algorithm_state(uid, 5) == {"rng": [1, 2**64, 0.1, math.inf], "text": TEXT}

    def test_history_at_a_cut_does_not_know_what_was_told_later(self, store: Store) -> None:
        uid = with_trials(store, 5)
        finish(store, uid, 3, 0.5)
        finish(store, uid, 1, None, TrialState.FAILED)
        at_two = store.history(uid, cut=2, first_number=5)
        finish(store, uid, 0, 0.75)
        suggest(store, uid, 1, [Assignment({"layers": 9})])
        assert store.history(uid, cut=2, first_number=5) == at_two
        assert [(trial.number, trial.state, trial.value, trial.told_seq) for trial in at_two] == [
            (0, TrialState.RUNNING, None, None),
            (1, TrialState.FAILED, None, 2),
            (2, TrialState.RUNNING, None, None),
            (3, TrialState.SUCCEEDED, 0.5, 1),
            (4, TrialState.RUNNING, None, None),
        ]
        assert [trial.parameters for trial in at_two] == [{"layers": number} for number in range(5)]
        assert store.history(uid, cut=0, first_number=0) == []

    def test_an_incremental_reader_knows_what_a_full_one_reads(self, store: Store) -> None:
        rng = random.Random(7)  # noqa: S311
        uid = create(store).uid
        known: dict[int, Any] = {}
        after = from_number = 0
        open_trials: list[int] = []
        for request_no in range(12):
            request = store.open_request(uid, request_no, 3, 1)
            changes = store.history_since(
                uid, after=after, from_number=from_number, cut=request.cut, first_number=request.first_number
            )
            assert [trial.number for trial in changes] == sorted(trial.number for trial in changes)
            known |= {trial.number: trial for trial in changes}
            full = store.history(uid, cut=request.cut, first_number=request.first_number)
            assert [known[number] for number in sorted(known)] == full
            after, from_number = request.cut, request.first_number
            answer = Answer(assignments=tuple(Assignment({"lr": rng.random()}) for _ in range(rng.randint(0, 3))))
            open_trials += [trial.number for trial in store.commit_answer(uid, request_no, answer, NOW)]
            rng.shuffle(open_trials)
            for _ in range(rng.randint(0, len(open_trials))):
                finish(store, uid, open_trials.pop(), rng.random())

    def test_parameters_and_objectives_come_back_bit_for_bit(self, store: Store) -> None:
        rng = random.Random(11)  # noqa: S311
        doubles = list(DOUBLES)
        while len(doubles) < 120:
            (value,) = struct.unpack("<d", rng.randbytes(8))
            if math.isfinite(value):
                doubles.append(value)
        assignments = [Assignment({"lr": value, "n": 2**53 + 1, "text": TEXT}) for value in doubles]
        uid = create(store).uid
        suggest(store, uid, 0, assignments)
        for number, value in enumerate(doubles):
            finish(store, uid, number, value)
        history = store.history(uid, cut=len(doubles), first_number=len(doubles))
        for trial, value in zip(history, doubles, strict=True):
            assert struct.pack("<d", trial.parameters["lr"]) == struct.pack("<d", value)
            assert trial.value is not None
            assert struct.pack("<d", trial.value) == struct.pack("<d", value)
            assert type(trial.parameters["n"]) is int
            assert (trial.parameters["n"], trial.parameters["text"]) == (2**53 + 1, TEXT)
        assert [trial.objective for trial in store.trials(uid)] == [str(value) for value in doubles]
        ordered = [trial.objective_value for trial in store.trials(uid, sort="best")]
        assert ordered == sorted(doubles, reverse=True)

    # ------------------------------------------------------------------------------- more than one objective

    def test_the_history_has_all_objectives_and_what_constraints_miss(self, store: Store) -> None:
        uid = with_trials(store, 4, objective=SEVERAL)
        told(store, uid, 0, {"loss": "0.5", "size": "12", "latency": "25.5"})
        told(store, uid, 1, {"loss": "0.25", "size": "many"})
        told(store, uid, 2, {"loss": "0.125", "size": "1", "latency": "1"}, TrialState.FAILED)
        first, second, failed, running = store.history(uid, cut=3, first_number=4)
        assert (first.value, first.values, first.violations) == (0.5, (0.5, 12.0), (5.5, -2.0))
        assert not first.feasible
        assert (second.values, second.violations) == ((0.25, None), (math.inf, math.inf))
        assert (failed.value, failed.values, failed.violations) == (None, (None, None), (math.inf, math.inf))
        assert (running.values, running.violations, running.steps) == ((), (), 0)
        assert store.history_since(uid, after=0, from_number=4, cut=3, first_number=4) == [first, second, failed]

    def test_one_objective_alone_is_told_as_one(self, store: Store) -> None:
        uid = with_trials(store, 1)
        told(store, uid, 0, {"accuracy": "0.5", "loss": "2"})
        (trial,) = store.history(uid, cut=1, first_number=1)
        assert (trial.value, trial.values, trial.violations, trial.steps) == (0.5, (), (), 0)

    def test_a_revised_verdict_changes_no_history_behind_it(self, store: Store) -> None:
        uid = with_trials(store, 1, objective=SEVERAL)
        told(store, uid, 0, {"loss": "0.5", "size": "12", "latency": "25.5"}, TrialState.EARLY_STOPPED, steps=3)
        before = store.history(uid, cut=1, first_number=1)
        assert before[0].steps == 3
        ending = ended({"loss": "0.5", "size": "9", "latency": "19"}, TrialState.EARLY_STOPPED)
        more = [Point("loss", "0.5", seq=100)]
        store.revise(uid, 0, 0, lambda _: ending, points=more)
        assert store.history(uid, cut=1, first_number=1) == before
        (after,) = store.history(uid, cut=2, first_number=1)
        assert (after.values, after.violations, after.steps) == ((0.5, 9.0), (-1.0, 1.0), 4)


SEVERAL = Objective(
    ObjectiveType.MINIMIZE,
    "loss",
    further=(Further("size", ObjectiveType.MAXIMIZE),),
    constraints=(Constraint("latency", le=20.0), Constraint("size", ge=10.0)),
)


def ended(metrics: dict[str, str], state: TrialState) -> Ending:
    objective = next(iter(metrics.values()))
    return Ending(
        end=AttemptEnd(AttemptState(state.value), "Completed", ended=LATER),
        charged=state.counts_as_failed,
        trial_state=state,
        objective=objective,
        objective_value=float(objective),
        metrics=metrics,
    )


def told(
    store: Store,
    uid: str,
    number: int,
    metrics: dict[str, str],
    state: TrialState = TrialState.SUCCEEDED,
    steps: int = 0,
) -> None:
    store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
    metric = next(iter(metrics))
    store.add_points(uid, number, 0, [Point(metric, "0.5", seq=seq) for seq in range(steps)])
    store.end_attempt(uid, number, 0, lambda _: ended(metrics, state))
