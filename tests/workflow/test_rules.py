"""The rules over the experiment's state, over random event sequences and one by one. No Temporal here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evertune.contracts import Best, InFlight, Limits, Observation, Revised, TrialOutcome
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from workflows import state as rules
from workflows.state import RunState


def a_state(**changes: Any) -> RunState:
    limits = changes.pop("limits", Limits(parallel=3, max_trials=12, max_failed=3, maximize=True, metric="accuracy"))
    return RunState(
        uid="u",
        database_id="d",
        namespace="default",
        name="e",
        algorithm="random",
        backend="local",
        queue="q",
        limits=limits,
        **changes,
    )


def an_end(number: int, state: TrialState = TrialState.SUCCEEDED, **changes: Any) -> TrialOutcome:
    return TrialOutcome(
        number=number, attempt=0, state=AttemptState(state.value), trial_state=state, told_seq=number + 1, **changes
    )


def launch(state: RunState, count: int) -> None:
    for number in range(state.created, state.created + count):
        state.in_flight[number] = InFlight(number=number)
    state.created += count


ENDS = st.sampled_from(
    [
        TrialState.SUCCEEDED,
        TrialState.FAILED,
        TrialState.KILLED,
        TrialState.EARLY_STOPPED,
        TrialState.METRICS_UNAVAILABLE,
    ]
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    parallel=st.integers(1, 8),
    max_trials=st.none() | st.integers(1, 30),
    max_failed=st.none() | st.integers(0, 10),
    goal=st.none() | st.floats(0, 1),
    events=st.lists(st.tuples(st.integers(0, 7), ENDS, st.floats(0, 1)), max_size=80),
)
def test_no_sequence_of_ends_overruns_the_budget_or_forgets_a_trial(
    parallel: int,
    max_trials: int | None,
    max_failed: int | None,
    goal: float | None,
    events: list[tuple[int, TrialState, float]],
) -> None:
    limits = Limits(parallel=parallel, max_trials=max_trials, max_failed=max_failed, goal=goal, maximize=True)
    state = a_state(limits=limits)
    told: list[tuple[float, int]] = []
    for pick, end, value in events:
        if rules.decide(state, now=0) is not None:
            break
        launch(state, rules.wanted(state))
        assert len(state.in_flight) <= parallel
        assert max_trials is None or state.created <= max_trials
        assert state.in_flight, "no verdict and nothing to wait for"
        number = sorted(state.in_flight)[pick % len(state.in_flight)]
        has_value = end not in (TrialState.FAILED, TrialState.METRICS_UNAVAILABLE)
        if has_value:
            told.append((value, number))
        rules.record_outcome(
            state,
            an_end(number, end, objective=str(value) if has_value else None, value=value if has_value else None),
        )
        assert state.finished + len(state.in_flight) == state.created
    assert (state.best is None) == (not told)
    if state.best is not None:
        assert state.best.value == max(value for value, _ in told)
    verdict = rules.decide(state, now=0)
    if verdict is not None and verdict.reason == "ExperimentMaxTrialsReached":
        assert state.finished == max_trials


def test_the_first_of_equal_values_in_told_order_stays_best() -> None:
    state = a_state()
    launch(state, 3)
    rules.record_outcome(state, an_end(2, objective="0.5", value=0.5))
    rules.record_outcome(state, an_end(0, objective="0.50", value=0.5))
    assert state.best == Best(number=0, value=0.5, text="0.50", told_seq=1)


def test_a_trial_with_more_of_its_resource_is_better_than_any_with_less_and_only_a_full_one_reaches_the_goal() -> None:
    state = a_state(limits=Limits(parallel=4, goal=0.2, metric="loss"))
    launch(state, 5)
    rules.record_outcome(state, an_end(0, objective="0.1", value=0.1, shortfall=26.0))
    assert state.best is not None
    assert rules.decide(state, now=0.0) is None, "its goal was reached with a 27th of the resource"
    rules.record_outcome(state, an_end(1, objective="0.5", value=0.5, shortfall=18.0))
    rules.record_outcome(state, an_end(2, objective="0.05", value=0.05, shortfall=26.0))
    assert state.best.number == 1
    rules.record_outcome(state, an_end(3, objective="0.2", value=0.2))
    assert state.best.number == 3
    verdict = rules.decide(state, now=0.0)
    assert verdict is not None
    assert verdict.reason == "ExperimentGoalReached"


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    ends=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.0, 1.0, 2.5]), st.sampled_from([0.0, 8.0])), min_size=1
    ),
    maximize=st.booleans(),
    data=st.data(),
)
def test_the_best_is_the_same_in_any_order_of_news_and_infeasible_only_where_all_are(
    ends: list[tuple[int, float, float]], maximize: bool, data: st.DataObject
) -> None:
    state = a_state(limits=Limits(parallel=4, maximize=maximize, goal=0.0 if not maximize else 3.0))
    launch(state, len(ends))
    for number in data.draw(st.permutations(range(len(ends)))):
        value, violation, shortfall = ends[number]
        end = an_end(number, objective=str(value), value=float(value), violation=violation, shortfall=shortfall)
        rules.record_outcome(state, end)
    sign = -1 if maximize else 1
    order = [(violation, short, sign * value, number) for number, (value, violation, short) in enumerate(ends)]
    assert state.best is not None
    assert state.best.number == min(order)[3]
    least = -3 if maximize else 0
    reached = [number for violation, short, loss, number in order if (violation, short, loss) == (0, 0, least)]
    verdict = rules.decide(state, now=0.0)
    assert (verdict is not None and verdict.reason == "ExperimentGoalReached") == bool(reached)


def test_the_next_replicate_begins_with_nothing_to_be_forgiven() -> None:
    entry = InFlight(number=3, attempt=4, signal_retries=2, infrastructure_retries=7, seq=9, value="0.5")
    well = TrialOutcome(number=3, attempt=4, state=AttemptState.SUCCEEDED, again=True)
    assert rules.next_attempt(entry, well, paused=False) == InFlight(number=3, attempt=5)
    assert rules.next_attempt(entry, well, paused=True) == InFlight(number=3, attempt=5, parked=True)
    lost = TrialOutcome(number=3, attempt=4, state=AttemptState.LOST, again=True, failure=FailureClass.INFRASTRUCTURE)
    after = rules.next_attempt(entry, lost, paused=False)
    assert (after.signal_retries, after.infrastructure_retries) == (2, 8)


def test_a_later_text_objective_replaces_an_earlier_one_but_never_a_number() -> None:
    state = a_state()
    launch(state, 3)
    rules.record_outcome(state, an_end(0, objective="Genotype(a)"))
    rules.record_outcome(state, an_end(1, objective="Genotype(b)"))
    assert state.best is not None
    assert state.best.text == "Genotype(b)"
    rules.record_outcome(state, an_end(2, objective="0.1", value=0.1))
    assert state.best.value == 0.1


@pytest.mark.parametrize(("maximize", "value", "reached"), [(True, 0.9, True), (True, 0.89, False), (False, 0.9, True)])
def test_the_goal_is_reached_by_equality(maximize: bool, value: float, reached: bool) -> None:
    state = a_state(limits=Limits(parallel=1, goal=0.9, maximize=maximize))
    launch(state, 1)
    rules.record_outcome(state, an_end(0, objective=str(value), value=value))
    verdict = rules.decide(state, now=0)
    assert (verdict is not None and verdict.reason == "ExperimentGoalReached") == reached


def test_zero_allowed_failures_means_that_the_first_failure_fails_the_experiment() -> None:
    state = a_state(limits=Limits(parallel=1, max_trials=5, max_failed=0))
    assert rules.decide(state, now=0) is None
    launch(state, 1)
    rules.record_outcome(state, an_end(0, TrialState.FAILED, message="boom"))
    verdict = rules.decide(state, now=0)
    assert verdict is not None
    assert (verdict.state, verdict.reason) == (ExperimentState.FAILED, "ExperimentFailed")
    assert "boom" in verdict.message


def test_three_equal_configuration_failures_before_any_success_stop_the_experiment() -> None:
    state = a_state(limits=Limits(parallel=3, max_trials=100))
    launch(state, 3)
    for number in range(3):
        assert rules.decide(state, now=0) is None
        failure = an_end(
            number, TrialState.FAILED, failure=FailureClass.CONFIGURATION, message="no such program: pyhton"
        )
        rules.record_outcome(state, failure)
    verdict = rules.decide(state, now=0)
    assert verdict is not None
    assert "pyhton" in verdict.message


@pytest.mark.parametrize("odd_one", [0, 1, 2])
def test_configuration_failures_that_differ_do_not_stop_the_experiment(odd_one: int) -> None:
    state = a_state(limits=Limits(parallel=3, max_trials=100))
    launch(state, 3)
    for number in range(3):
        text = "another" if number == odd_one else "the same"
        rules.record_outcome(state, an_end(number, TrialState.FAILED, failure=FailureClass.CONFIGURATION, message=text))
    assert rules.decide(state, now=0) is None


def test_waiting_for_nothing_ends_the_experiment_with_that_reason() -> None:
    state = a_state(waiting=True)
    verdict = rules.decide(state, now=0)
    assert verdict is not None
    assert verdict.state is ExperimentState.FAILED
    assert "waits for a trial" in verdict.message


def test_an_exhausted_space_ends_the_experiment_once_nothing_runs() -> None:
    state = a_state(exhausted="all 6 combinations were tried")
    launch(state, 1)
    assert rules.decide(state, now=0) is None
    assert rules.wanted(state) == 0
    rules.record_outcome(state, an_end(0, objective="1", value=1.0))
    verdict = rules.decide(state, now=0)
    assert verdict is not None
    assert verdict.reason == "ExperimentSuggestionEndReached"


def test_an_observation_counts_once_and_only_for_the_running_attempt() -> None:
    state = a_state()
    launch(state, 1)
    assert rules.observe(state, Observation(number=0, seq=10, step=1, value="0.1"))
    assert not rules.observe(state, Observation(number=0, seq=10, step=2, value="0.2"))
    assert not rules.observe(state, Observation(number=0, attempt=1, seq=11, step=2, value="0.2"))
    assert not rules.observe(state, Observation(number=9, seq=1, value="0.2"))
    assert state.in_flight[0].value == "0.1"


def test_the_state_survives_json_as_continue_as_new_sends_it() -> None:
    state = a_state(best=Best(number=1, value=0.1 + 0.2, text="0.30000000000000004"))
    launch(state, 3)
    assert RunState.model_validate_json(state.model_dump_json()) == state


def test_an_entry_in_flight_stays_below_300_bytes() -> None:
    entry = InFlight(number=99_999, attempt=12, label="x" * 60, seq=2**40, step=10**6, value="0.12345678901234567")
    assert len(entry.model_dump_json()) < 300


@settings(max_examples=200, derandomize=True, deadline=None)
@given(events=st.lists(st.tuples(st.sampled_from(["end", "ask", "answer"]), st.integers(0, 30), ENDS), max_size=60))
def test_a_revision_loses_no_trial_that_ends_while_it_is_made(events: list[tuple[str, int, TrialState]]) -> None:
    """The database judges anew what the workflow knows; ends that arrive between question and answer add up."""
    state = a_state(limits=Limits(parallel=1000, maximize=True))
    database: dict[int, TrialState] = {}
    asked: tuple[dict[str, int], dict[str, int]] | None = None
    for what, pick, end in events:
        launch(state, 1)
        if what == "end":
            number = sorted(state.in_flight)[pick % len(state.in_flight)]
            database[number] = end
            rules.record_outcome(state, an_end(number, end))
        elif what == "ask" and asked is None:
            for number, told in database.items():  # all the unlucky ones have a value now
                database[number] = TrialState.SUCCEEDED if told is TrialState.METRICS_UNAVAILABLE else told
            answer: dict[str, int] = {}
            for told in database.values():
                answer[told] = answer.get(told, 0) + 1
            asked = answer, dict(state.counts)
        elif what == "answer" and asked is not None:
            rules.apply_revision(state, Revised(counts=asked[0]), asked[1])
            asked = None
    if asked is not None:
        rules.apply_revision(state, Revised(counts=asked[0]), asked[1])
    expected: dict[str, int] = {}
    for told in database.values():
        expected[told] = expected.get(told, 0) + 1
    asked_ever = any(what == "ask" for what, _, _ in events)
    assert state.counts == expected or not asked_ever
    assert state.finished == len(database)


def test_a_budget_that_was_spent_without_any_result_says_so() -> None:
    state = a_state(limits=Limits(parallel=2, max_trials=2, maximize=True, metric="accuracy"))
    launch(state, 2)
    rules.record_outcome(state, an_end(0, TrialState.METRICS_UNAVAILABLE))
    rules.record_outcome(state, an_end(1, TrialState.FAILED))
    verdict = rules.decide(state, now=0)
    assert verdict is not None
    assert verdict.state is ExperimentState.SUCCEEDED
    assert verdict.message == "2 of 2 trials finished, none of them with a value of accuracy"


def test_an_attempt_after_one_without_memory_counts_against_no_other_budget_of_retries() -> None:
    entry = InFlight(number=3, attempt=1, signal_retries=1, infrastructure_retries=2, seq=5, value="0.5")
    outcome = TrialOutcome(
        number=3,
        attempt=1,
        state=AttemptState.FAILED,
        again=True,
        reason="OOMKilled",
        failure=FailureClass.OUT_OF_MEMORY,
    )
    following = rules.next_attempt(entry, outcome, paused=False)
    assert following == InFlight(number=3, attempt=2, signal_retries=1, infrastructure_retries=2)
    assert rules.next_attempt(entry, outcome, paused=True).parked


def test_a_decision_of_early_stopping_is_taken_once_about_the_attempt_that_runs_and_spares_what_was_observed() -> None:
    state = a_state()
    launch(state, 2)
    assert rules.observe(state, Observation(number=0, seq=7, step=3, value="0.5"))
    late = Observation(number=0, attempt=1, seq=-1, stop="of another attempt")
    unknown = Observation(number=9, seq=-1, stop="nobody")
    assert not rules.decide_stop(state, late)
    assert not rules.decide_stop(state, unknown)
    decision = Observation(number=0, seq=-1, step=3, stop="medianstop: worse")
    assert not rules.observe(state, decision)
    assert rules.decide_stop(state, decision)
    assert not rules.decide_stop(state, decision.model_copy(update={"stop": "again"}))
    entry = state.in_flight[0]
    assert (entry.stop, entry.seq, entry.value) == ("EarlyStopped: medianstop: worse", 7, "0.5")
