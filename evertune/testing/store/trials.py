"""The contract for trials: attempts as leases, their ends, the told order and the best."""

from __future__ import annotations

import math

import pytest

from evertune.domain.metrics import Constraint, Objective, ObjectiveType, Point
from evertune.domain.records import Counts
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, Ending
from evertune.errors import ConflictError, NotFoundError
from evertune.store import Store
from evertune.testing.store.making import LATER, NOW, TEXT, at_once, create, finish, lose, suggest, with_trials


class TrialContract:
    def test_an_attempt_is_a_lease_until_it_ends(self, store: Store) -> None:
        uid = with_trials(store, 2)
        attempt = store.open_attempt(uid, 1, 0, home_id="home-7", at=NOW)
        assert (attempt.number, attempt.attempt, attempt.state) == (1, 0, AttemptState.RUNNING)
        assert (attempt.home_id, attempt.started, attempt.ended) == ("home-7", NOW, None)
        assert store.running_attempts(uid) == [(uid, attempt)]
        assert store.running_attempts(uid, home_id="home-7") == [(uid, attempt)]
        assert store.running_attempts(uid, home_id="home-8") == []
        assert (uid, attempt) in store.running_attempts(home_id="home-7")
        assert (uid, attempt) in store.running_attempts()
        trial = store.trial(uid, 1)
        assert (trial.state, trial.started, trial.attempts) == (TrialState.RUNNING, NOW, 1)
        assert store.counts(uid) == Counts(created=2, pending=1, running=1)
        finish(store, uid, 1, 0.5)
        assert store.running_attempts(uid) == []

    def test_an_attempt_opened_again_is_the_one_that_is_there(self, store: Store) -> None:
        uid = with_trials(store, 1)
        first = store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        assert store.open_attempt(uid, 0, 0, home_id="home-2", at=LATER) == first
        finish(store, uid, 0, 0.5)
        ended = store.open_attempt(uid, 0, 0, home_id="home-1", at=LATER)
        assert (ended.state, ended.ended) == (AttemptState.SUCCEEDED, LATER)
        assert store.counts(uid) == Counts(created=1, succeeded=1)
        assert store.trial(uid, 0).attempts == 1

    def test_one_attempt_opened_many_times_at_once_is_one_lease(self, store: Store) -> None:
        uid = with_trials(store, 1)
        homes = [f"home-{index}" for index in range(8)]
        results = at_once([lambda home=home: store.open_attempt(uid, 0, 0, home_id=home, at=NOW) for home in homes])  # type: ignore[misc]
        assert all(result == results[0] for result in results), results
        assert store.counts(uid) == Counts(created=1, running=1)

    def test_a_trial_never_has_two_running_attempts_nor_one_after_its_end(self, store: Store) -> None:
        uid = with_trials(store, 1)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        with pytest.raises(ConflictError, match="still runs"):
            store.open_attempt(uid, 0, 1, home_id="home-1", at=NOW)
        finish(store, uid, 0, 0.5)
        with pytest.raises(ConflictError, match="has ended"):
            store.open_attempt(uid, 0, 1, home_id="home-1", at=NOW)
        with pytest.raises(NotFoundError):
            store.open_attempt(uid, 1, 0, home_id="home-1", at=NOW)

    def test_an_end_is_recorded_whole_and_a_second_one_changes_nothing(self, store: Store) -> None:
        uid = with_trials(store, 2)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        end = AttemptEnd(
            AttemptState.EARLY_STOPPED, "MedianStop", TEXT, FailureClass.STOPPED, 143, 15, started=NOW, ended=LATER
        )
        ending = Ending(
            end=end,
            trial_state=TrialState.EARLY_STOPPED,
            objective="0.50",
            objective_value=0.5,
            metrics={"accuracy": "0.50", "loss": TEXT},
        )
        recorded = store.end_attempt(uid, 0, 0, lambda _: ending, points=[Point("accuracy", "0.5", 10, 1.5)])
        trial, told_seq = recorded
        assert told_seq == 1
        assert (trial.state, trial.reason, trial.message) == (TrialState.EARLY_STOPPED, "MedianStop", TEXT)
        assert (trial.objective, trial.objective_value, trial.told_seq) == ("0.50", 0.5, 1)
        assert trial.metrics == {"accuracy": "0.50", "loss": TEXT}
        assert (trial.started, trial.ended) == (NOW, LATER)
        (attempt,) = store.attempts(uid, 0)
        assert (attempt.state, attempt.reason, attempt.message) == (AttemptState.EARLY_STOPPED, "MedianStop", TEXT)
        assert (attempt.failure, attempt.charged, attempt.again) == (FailureClass.STOPPED, False, False)
        assert (attempt.exit_code, attempt.signal, attempt.ended) == (143, 15, LATER)
        finish(store, uid, 1, 0.25)
        assert finish(store, uid, 0, 0.9, TrialState.FAILED) == recorded
        assert store.attempts(uid, 0) == [attempt]
        assert store.counts(uid) == Counts(created=2, early_stopped=1, succeeded=1)

    def test_a_lost_attempt_gives_way_to_another_and_is_told_once(self, store: Store) -> None:
        uid = with_trials(store, 1)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        trial, told_seq = lose(store, uid, 0, 0)
        assert (trial.state, trial.reason, trial.told_seq, told_seq) == (TrialState.CREATED, "HostLost", None, 0)
        assert store.counts(uid) == Counts(created=1, pending=1)
        assert lose(store, uid, 0, 0) == (trial, 0)
        store.open_attempt(uid, 0, 1, home_id="home-1", at=LATER)
        assert store.trial(uid, 0).reason == ""
        trial, told_seq = finish(store, uid, 0, 0.5, attempt=1)
        assert (trial.attempts, told_seq, trial.started) == (2, 1, NOW)
        assert lose(store, uid, 0, 0) == (trial, 0)
        lost, succeeded = store.attempts(uid, 0)
        assert (lost.state, lost.again, lost.charged) == (AttemptState.LOST, True, False)
        assert (succeeded.state, succeeded.attempt) == (AttemptState.SUCCEEDED, 1)
        assert store.counts(uid) == Counts(created=1, succeeded=1)

    def test_one_end_recorded_many_times_at_once_counts_once(self, store: Store) -> None:
        uid = with_trials(store, 1)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        results = at_once([lambda v=0.1 * n: finish(store, uid, 0, v) for n in range(8)])  # type: ignore[misc]
        assert all(result == results[0] for result in results), results
        assert store.counts(uid) == Counts(created=1, succeeded=1)
        assert store.trial(uid, 0).told_seq == 1

    def test_the_told_order_has_no_gap_and_no_double_when_trials_end_at_once(self, store: Store) -> None:
        uid = with_trials(store, 24)
        calls = [
            lambda first=first: [finish(store, uid, n, float(n))[1] for n in range(first, 24, 8)] for first in range(8)
        ]
        results = at_once(calls)
        told: list[int] = []
        for result in results:
            assert isinstance(result, list), result
            assert result == sorted(result)
            told += result
        assert sorted(told) == list(range(1, 25))
        assert store.counts(uid) == Counts(created=24, succeeded=24)
        assert sorted(trial.told_seq or 0 for trial in store.trials(uid)) == list(range(1, 25))
        best = store.best(uid)
        assert best is not None
        assert best.number == 23

    def test_the_order_of_one_experiment_is_its_own(self, store: Store) -> None:
        one, two = with_trials(store, 2), with_trials(store, 2)
        assert [finish(store, uid, n, 1.0)[1] for n, uid in ((0, one), (0, two), (1, two), (1, one))] == [1, 1, 2, 2]

    def test_a_trial_that_no_attempt_runs_is_closed_once(self, store: Store) -> None:
        uid = with_trials(store, 2)
        with pytest.raises(NotFoundError):
            store.close_trial(uid, 5, TrialState.KILLED, "Cancelled", "", NOW)
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        with pytest.raises(ConflictError, match="still runs"):
            store.close_trial(uid, 0, TrialState.KILLED, "Cancelled", "", NOW)
        lose(store, uid, 0, 0)
        assert store.close_trial(uid, 0, TrialState.KILLED, "Cancelled", TEXT, LATER) == 1
        assert store.close_trial(uid, 1, TrialState.KILLED, "Cancelled", "", LATER) == 2
        assert store.close_trial(uid, 0, TrialState.FAILED, "Other", "", NOW) == 1
        trial = store.trial(uid, 0)
        assert (trial.state, trial.reason, trial.message) == (TrialState.KILLED, "Cancelled", TEXT)
        assert (trial.told_seq, trial.ended) == (1, LATER)
        assert store.counts(uid) == Counts(created=2, killed=2)

    @pytest.mark.parametrize("state", [state for state in TrialState if state.terminal])
    def test_every_end_has_its_counter(self, store: Store, state: TrialState) -> None:
        uid = with_trials(store, 1)
        finish(store, uid, 0, None, state)
        counts = store.counts(uid)
        assert (counts.created, counts.finished, counts.pending, counts.running) == (1, 1, 0, 0)
        assert counts.charged == state.counts_as_failed
        assert store.trials(uid, states=[state]) == [store.trial(uid, 0)]

    def test_the_best_is_the_first_told_of_the_best_and_a_failed_trial_never_is(self, store: Store) -> None:
        uid = with_trials(store, 6)
        assert store.best(uid) is None
        finish(store, uid, 5, 0.9, TrialState.FAILED)
        assert store.best(uid) is None
        for number, value in ((3, 0.5), (0, 0.75), (4, 0.75), (1, 0.25)):
            finish(store, uid, number, value, TrialState.KILLED if number == 0 else TrialState.SUCCEEDED)
        best = store.best(uid)
        assert best is not None
        assert best == store.trial(uid, 0)
        assert [trial.number for trial in store.trials(uid, sort="best")] == [0, 4, 3, 1]
        assert store.trial(uid, 5).objective is None

    def test_a_minimized_objective_is_best_at_its_least(self, store: Store) -> None:
        uid = with_trials(store, 4, objective=Objective(ObjectiveType.MINIMIZE, "loss"))
        for number, value in ((2, 0.5), (1, -1e-300), (0, 0.25), (3, math.inf)):
            finish(store, uid, number, value)
        best = store.best(uid)
        assert best is not None
        assert best.number == 1
        assert [trial.number for trial in store.trials(uid, sort="best")] == [1, 0, 2, 3]
        assert store.trial(uid, 3).objective_value is None
        assert store.trial(uid, 3).objective == "inf"

    def test_a_trial_with_more_of_its_resource_is_better_than_all_with_less(self, store: Store) -> None:
        uid = create(store).uid
        resources = ["1", "3", "3", "9", "1"]
        suggest(
            store,
            uid,
            0,
            [Assignment({"layers": 1}, {"resource": each, "full-resource": "9"}) for each in resources],
        )
        best = []
        for number, value in ((0, 0.9), (2, 0.25), (1, 0.5), (4, 0.95), (3, 0.125)):
            finish(store, uid, number, value)
            found = store.best(uid)
            assert found is not None
            best.append(found.number)
        assert best == [0, 2, 1, 1, 3]
        order = [trial.number for trial in store.trials(uid, sort="best")]
        assert order == [3, 1, 2, 4, 0]
        pages = [store.trials(uid, sort="best", after=number, limit=1)[0].number for number in order[:-1]]
        assert pages == order[1:]

    def test_a_feasible_trial_is_better_than_all_that_miss_a_constraint(self, store: Store) -> None:
        uid = with_trials(store, 5, objective=Objective(ObjectiveType.MINIMIZE, "loss"))

        def end(number: int, value: float, violation: float) -> None:
            store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
            ending = Ending(
                end=AttemptEnd(AttemptState.SUCCEEDED, "Completed", ended=LATER),
                trial_state=TrialState.SUCCEEDED,
                objective=repr(value),
                objective_value=value,
                violation=violation,
                spread={"loss": 0.25},
            )
            store.end_attempt(uid, number, 0, lambda _: ending)

        best = []
        for number, (value, violation) in enumerate([(0.1, 5.0), (0.9, 2.0), (0.05, 2.5), (3.0, 0.0), (2.0, 1e308)]):
            end(number, value, violation)
            found = store.best(uid)
            assert found is not None
            best.append(found.number)
        assert best == [0, 1, 1, 3, 3]
        assert store.trial(uid, 3).feasible
        assert not store.trial(uid, 4).feasible
        assert store.trial(uid, 3).spread == {"loss": 0.25}
        in_order = [3, 1, 2, 0, 4]
        assert [trial.number for trial in store.trials(uid, sort="best")] == in_order
        for place, number in enumerate(in_order):
            after = store.trials(uid, sort="best", after=number)
            assert [trial.number for trial in after] == in_order[place + 1 :]
        # Judged anew, the only feasible one misses a constraint as well.
        again = Ending(
            end=AttemptEnd(AttemptState.SUCCEEDED, "Completed", ended=LATER),
            trial_state=TrialState.SUCCEEDED,
            objective="3.5",
            objective_value=3.5,
            violation=2.5,
        )
        store.revise(uid, 3, 0, lambda _: again)
        found = store.best(uid)
        assert found is not None
        assert found.number == 1
        assert [trial.number for trial in store.trials(uid, sort="best")] == [1, 2, 3, 0, 4]

    def test_a_trial_closed_between_its_replicates_keeps_what_they_measured(self, store: Store) -> None:
        constrained = Objective(ObjectiveType.MINIMIZE, "loss", constraints=(Constraint("ms", le=20.0),))
        uid = with_trials(store, 2, objective=constrained)
        measured = Ending(
            end=AttemptEnd(AttemptState.SUCCEEDED, "Succeeded", ended=LATER),
            again=True,
            then="Replicate: 1 of 3 runs have ended",
            metrics={"loss": "0.5", "ms": "25"},
            spread={"loss": 0.1},
        )
        store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
        trial, told = store.end_attempt(uid, 0, 0, lambda _: measured)
        assert (trial.state, trial.reason, trial.objective, told) == (TrialState.CREATED, measured.then, None, 0)
        store.open_attempt(uid, 1, 0, home_id="home-1", at=NOW)
        lose(store, uid, 1, 0)
        for number in (0, 1):
            store.close_trial(uid, number, TrialState.KILLED, "ExperimentCompleted", "", LATER)
        closed = store.trial(uid, 0)
        assert (closed.objective, closed.objective_value, closed.violation) == ("0.5", 0.5, 5.0)
        assert closed.spread == {"loss": 0.1}
        assert store.trial(uid, 1).objective is None

    def test_of_text_objectives_the_last_told_is_best_until_there_is_a_number(self, store: Store) -> None:
        uid = with_trials(store, 5)
        for number, genotype in ((1, "Genotype(a)"), (0, TEXT)):
            finish(store, uid, number, genotype)
            best = store.best(uid)
            assert best is not None
            assert (best.number, best.objective, best.objective_value) == (number, genotype, None)
        finish(store, uid, 2, None)
        finish(store, uid, 3, -7.0)
        finish(store, uid, 4, "Genotype(z)")
        best = store.best(uid)
        assert best is not None
        assert best.number == 3
        assert [trial.number for trial in store.trials(uid, sort="best")] == [3, 4, 0, 1]

    def test_trials_are_listed_by_page_and_state(self, store: Store) -> None:
        uid = with_trials(store, 7)
        for number, value in ((0, 0.5), (1, 0.5), (2, 0.75), (3, "text"), (4, "later")):
            finish(store, uid, number, value)
        finish(store, uid, 5, None, TrialState.FAILED)
        assert [trial.number for trial in store.trials(uid, limit=3)] == [0, 1, 2]
        assert [trial.number for trial in store.trials(uid, limit=3, after=2)] == [3, 4, 5]
        assert [trial.number for trial in store.trials(uid, after=6)] == []
        assert [trial.number for trial in store.trials(uid, states=[TrialState.CREATED, TrialState.FAILED])] == [5, 6]
        assert store.trials(uid, states=[]) == []
        whole = [trial.number for trial in store.trials(uid, sort="best")]
        assert whole == [2, 0, 1, 4, 3]
        paged: list[int] = []
        while page := store.trials(uid, sort="best", limit=2, after=paged[-1] if paged else None):
            paged += [trial.number for trial in page]
        assert paged == whole

    def test_a_watcher_reads_the_trials_that_ended_behind_a_place_in_the_told_order(self, store: Store) -> None:
        uid = with_trials(store, 4)
        for number in (2, 0, 3):
            finish(store, uid, number, 0.5)
        assert [trial.number for trial in store.told_trials(uid)] == [2, 0, 3]
        last = store.last_ended(uid)
        assert last is not None
        assert last.number == 3
        assert [trial.number for trial in store.told_trials(uid, after=1)] == [0, 3]
        assert [trial.number for trial in store.told_trials(uid, after=1, limit=1)] == [0]
        assert store.told_trials(uid, after=3) == []
        with pytest.raises(NotFoundError):
            store.told_trials("0" * 32)

    def test_progress_is_the_count_and_the_last_value_of_the_running_attempt(self, store: Store) -> None:
        uid = with_trials(store, 4)
        for number in (0, 1, 2):
            store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
        store.add_points(
            uid, 0, 0, [Point("accuracy", "0.5", 20), Point("accuracy", "0.25", 10), Point("loss", "1", 30)]
        )
        store.add_points(uid, 1, 0, [Point("accuracy", "0.7", 1), Point("accuracy", "0.8", 2)])
        lose(store, uid, 1, 0)
        store.open_attempt(uid, 1, 1, home_id="home-1", at=NOW)
        store.add_points(uid, 1, 1, [Point("accuracy", "0.9", 1)])
        finish(store, uid, 2, 0.5)
        assert store.progress(uid, "accuracy") == {0: (2, "0.5"), 1: (1, "0.9")}
        assert store.progress(uid, "absent") == {}
