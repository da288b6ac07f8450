"""The experiment's state while it runs: one model that travels through continue-as-new, and the pure rules over it.

No manifest, no assignments, no finished trials: those are in the database. Everything here is a function of the events
seen so far, so the rules are property-tested without Temporal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from evertune.contracts import Admitted, Best, InFlight, Limits, Observation, Revised, Status, TrialOutcome, TrialStatus
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from workflows.policies import EQUAL_CONFIGURATION_FAILURES


class RunState(BaseModel):
    schema_version: int = 1
    uid: str
    database_id: str
    namespace: str
    name: str
    algorithm: str
    backend: str
    queue: str
    heartbeat_s: float = 60.0
    search_attributes: bool = False
    limits: Limits
    request_no: int = 0
    created: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    best: Best | None = None
    in_flight: dict[int, InFlight] = Field(default_factory=dict)
    paused: bool = False
    stop_reason: str = ""  # drain: start nothing new, let trials finish
    cancel_reason: str = ""  # now: stop running trials too
    waiting: bool = False  # the algorithm waits for a trial to end
    exhausted: str = ""  # the algorithm's reason, once it has nothing more
    failure: str = ""  # a permanent error of ours or of the algorithm
    equal_failures: int = 0
    last_failure: str = ""
    state: ExperimentState = ExperimentState.CREATED
    reason: str = ""
    bad_signals: int = 0
    runs: int = 0

    @classmethod
    def of(cls, admitted: Admitted) -> RunState:
        shared: dict[str, Any] = admitted.model_dump(exclude={"in_flight", "state"})
        return cls(**shared, state=admitted.state, in_flight={entry.number: entry for entry in admitted.in_flight})

    @property
    def finished(self) -> int:
        return sum(self.counts.values())

    @property
    def charged(self) -> int:
        return sum(count for state, count in self.counts.items() if TrialState(state).counts_as_failed)

    def status(self) -> Status:
        return Status(
            uid=self.uid,
            namespace=self.namespace,
            name=self.name,
            state=self.state,
            reason=self.reason,
            created=self.created,
            counts=self.counts,
            best=self.best,
            limits=self.limits,
            in_flight=[self.trial_status(number) for number in sorted(self.in_flight)],
            bad_signals=self.bad_signals,
            runs=self.runs,
        )

    def trial_status(self, number: int) -> TrialStatus:
        entry = self.in_flight[number]
        return TrialStatus(
            number=number, attempt=entry.attempt, label=entry.label, step=entry.step, value=entry.value, stop=entry.stop
        )


@dataclass(frozen=True)
class Verdict:
    """The end of an experiment. `drain`: running trials may finish first."""

    state: ExperimentState
    reason: str
    message: str
    drain: bool = False


def decide(state: RunState, *, now: float) -> Verdict | None:
    """What ends the experiment, if anything: Katib's order (goal, failures, budget), after what people and errors say.

    `now` is epoch seconds. Pure: the same state and time give the same verdict.
    """
    limits = state.limits
    if state.cancel_reason:
        return cancelled(state)
    if state.failure:
        return Verdict(ExperimentState.FAILED, "ExperimentFailed", state.failure)
    if _goal_reached(state):
        assert state.best is not None
        message = f"goal {limits.goal:g} reached by trial {state.best.number}"
        return Verdict(
            ExperimentState.SUCCEEDED, "ExperimentGoalReached", message, drain=limits.on_completion == "drain"
        )
    # Katib: 0 means that the first failure fails the experiment.
    if limits.max_failed is not None and state.charged and state.charged >= limits.max_failed:
        failed = f"{state.charged} trial{'s' * (state.charged != 1)} failed, {limits.max_failed} may"
        message = f"{failed}; the last one: {state.last_failure}"
        return Verdict(ExperimentState.FAILED, "ExperimentFailed", message)
    if state.equal_failures >= EQUAL_CONFIGURATION_FAILURES:
        message = f"the first {state.equal_failures} trials could not start, all alike: {state.last_failure}"
        return Verdict(ExperimentState.FAILED, "ExperimentFailed", message)
    if limits.max_trials is not None and state.finished >= limits.max_trials:
        # Katib's rule, also without any result; but a person is told.
        without = "" if state.best else f", none of them with a value of {limits.metric}"
        if state.best and state.best.violation:
            without = ", none of them feasible"
        return Verdict(
            ExperimentState.SUCCEEDED,
            "ExperimentMaxTrialsReached",
            f"{state.finished} of {limits.max_trials} trials finished{without}",
            drain=limits.on_completion == "drain",
        )
    if limits.deadline is not None and now >= limits.deadline:
        ended = ExperimentState.SUCCEEDED if state.best else ExperimentState.FAILED
        return Verdict(ended, "ExperimentDeadlineExceeded", "the experiment's deadline has passed")
    if state.in_flight:
        return None
    if state.stop_reason:
        return Verdict(ExperimentState.SUCCEEDED, "ExperimentStopped", state.stop_reason)
    if state.exhausted:
        return Verdict(ExperimentState.SUCCEEDED, "ExperimentSuggestionEndReached", state.exhausted)
    if state.waiting:
        message = f"{state.algorithm} waits for a trial to end, but none is running"
        return Verdict(ExperimentState.FAILED, "ExperimentFailed", message)
    return None


def cancelled(state: RunState) -> Verdict:
    return Verdict(ExperimentState.CANCELLED, "ExperimentCancelled", state.cancel_reason)


def _goal_reached(state: RunState) -> bool:
    goal, best = state.limits.goal, state.best
    if goal is None or best is None or best.value is None or best.shortfall or best.violation:
        return False
    return best.value >= goal if state.limits.maximize else best.value <= goal


def wanted(state: RunState) -> int:
    """How many more trials to ask for now."""
    if state.paused or state.stop_reason or state.exhausted or state.waiting:
        return 0
    free = state.limits.parallel - len(state.in_flight)
    if state.limits.max_trials is not None:
        free = min(free, state.limits.max_trials - state.created)
    return max(free, 0)


def record_outcome(state: RunState, outcome: TrialOutcome) -> None:
    """Take a finished trial out of the running ones: counters, best, equal failures. Once per trial."""
    del state.in_flight[outcome.number]
    assert outcome.trial_state is not None
    state.counts[outcome.trial_state] = state.counts.get(outcome.trial_state, 0) + 1
    state.waiting = False
    if outcome.trial_state.counts_as_failed:
        _count_failure(state, outcome)
    else:
        state.equal_failures = 0
    if outcome.trial_state is not TrialState.FAILED:
        _consider_best(state, outcome)


def _count_failure(state: RunState, outcome: TrialOutcome) -> None:
    # A reason is a sentence ("exit 3: no luck") or a code ("CannotStart") that the message explains.
    text = outcome.reason if " " in outcome.reason else outcome.message or outcome.reason
    only_failures = state.finished == state.charged
    if outcome.failure is not FailureClass.CONFIGURATION or not only_failures:
        state.equal_failures = 0
    elif state.equal_failures and text != state.last_failure:
        state.equal_failures = 1
    else:
        state.equal_failures += 1
    state.last_failure = text[:500]


def _consider_best(state: RunState, outcome: TrialOutcome) -> None:
    """Katib's rule: strict improvement in told order; a text objective is replaced by every later one.

    A feasible trial is better than any that is not, and of those the one that misses constraints by less; then one
    with more of its resource than any with less, see `domain.labels.shortfall`.
    """
    if outcome.objective is None:
        return
    challenger = Best(
        number=outcome.number,
        value=outcome.value,
        text=outcome.objective[:200],
        told_seq=outcome.told_seq,
        shortfall=outcome.shortfall,
        violation=outcome.violation,
    )
    best = state.best
    if best is None or (best.value is None and challenger.value is not None):
        state.best = challenger
    elif challenger.value is None:
        later = challenger.told_seq > best.told_seq and challenger.violation == best.violation
        if best.value is None and (challenger.violation < best.violation or later):
            state.best = challenger
    elif best.value is not None and _handicap(challenger) != _handicap(best):
        if _handicap(challenger) < _handicap(best):
            state.best = challenger
    elif best.value is not None:
        better = challenger.value > best.value if state.limits.maximize else challenger.value < best.value
        earlier_equal = challenger.value == best.value and challenger.told_seq < best.told_seq
        if better or earlier_equal:
            state.best = challenger


def _handicap(best: Best) -> tuple[float, float]:
    return best.violation, best.shortfall


def observe(state: RunState, observation: Observation) -> bool:
    """Take an observation of a running trial. False when it is old, unknown or of an earlier attempt."""
    entry = state.in_flight.get(observation.number)
    if entry is None or entry.attempt != observation.attempt or observation.seq <= entry.seq:
        return False
    change: dict[str, Any] = {"seq": observation.seq, "step": observation.step, "value": observation.value}
    state.in_flight[observation.number] = entry.model_copy(update=change)
    return True


def decide_stop(state: RunState, observation: Observation) -> bool:
    """Take early stopping's decision about a running attempt. False when it comes too late, or not as the first."""
    entry = state.in_flight.get(observation.number)
    if entry is None or entry.attempt != observation.attempt or entry.stop:
        return False
    state.in_flight[observation.number] = entry.model_copy(update={"stop": f"EarlyStopped: {observation.stop}"})
    return True


def apply_revision(state: RunState, revised: Revised, counts_before: dict[str, int]) -> None:
    """Take over what a revision of finished trials has made of counts and best.

    `counts_before` are those when it was asked for: trials that ended since are not in the answer.
    """
    since = {name: count - counts_before.get(name, 0) for name, count in state.counts.items()}
    names = {*since, *revised.counts}
    state.counts = {
        name: count for name in sorted(names) if (count := revised.counts.get(name, 0) + since.get(name, 0))
    }
    state.best = revised.best
    state.waiting = False
    state.equal_failures = 0


def unclosed(entry: InFlight, message: str) -> TrialOutcome:
    """The end of a trial whose record could not be closed."""
    return TrialOutcome(
        number=entry.number,
        attempt=entry.attempt,
        state=AttemptState.LOST,
        trial_state=TrialState.FAILED,
        reason="InternalError",
        message=message,
    )


def next_attempt(entry: InFlight, outcome: TrialOutcome, *, paused: bool) -> InFlight:
    """The entry for the attempt after `outcome`, which asked for another one. Nothing new starts in a pause."""
    signal = outcome.failure is FailureClass.SIGNAL
    infrastructure = outcome.failure is FailureClass.INFRASTRUCTURE
    # The next replicate: what was forgiven to the one before is no burden to it.
    well = outcome.state is AttemptState.SUCCEEDED
    return entry.model_copy(
        update={
            "attempt": entry.attempt + 1,
            "signal_retries": 0 if well else entry.signal_retries + signal,
            "infrastructure_retries": 0 if well else entry.infrastructure_retries + infrastructure,
            "seq": -1,
            "step": None,
            "value": None,
            "parked": paused or outcome.reason == "Paused",
        }
    )
