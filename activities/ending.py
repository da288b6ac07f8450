"""The end of an attempt, recorded once: by `run_trial`, or by the reconciler for trials that nobody waits for.

One transaction holds the last points, the attempt's end and, unless another attempt follows, the trial's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import structlog

import evertune.contracts as c
from evertune.domain.metrics import Objective, Point, Summaries, finite, objective_text
from evertune.domain.retry import retry_again
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.protocols import Collector
from evertune.store import Store

log = structlog.get_logger()

EARLY_STOPPED = "EarlyStopped"  # how the reason of a stop begins that early stopping decided
MAX_MESSAGE = 4000  # characters of log lines in the database
MAX_CARRIED = 500  # characters that travel through Temporal's history


def record_end(
    store: Store,
    ref: AttemptRef,
    objective: Objective,
    end: AttemptEnd,
    *,
    summaries: Summaries,
    points: Sequence[Point] = (),
    again: bool,
) -> c.TrialOutcome:
    """`summaries` covers all points of the attempt, `points` only those that are not in the database yet."""
    state = None if again else _trial_state(end)
    summary = summaries.summaries()
    metrics = {
        name: text
        for name in objective.metrics
        if name in summary and (text := summary[name].pick(objective.strategy(name))) is not None
    }
    # Katib: a failed trial never has an observation.
    value = None if state is TrialState.FAILED else objective_text(objective, summary)
    trial, told_seq = store.end_attempt(
        ref.experiment_uid,
        ref.number,
        ref.attempt,
        end,
        points=points,
        again=again,
        charged=state is not None and state.counts_as_failed,
        trial_state=state,
        objective=value,
        objective_value=finite(value),
        metrics=metrics,
    )
    log.info("attempt ended", state=end.state.value, reason=end.reason, again=again, objective=value)
    return c.TrialOutcome(
        number=ref.number,
        attempt=ref.attempt,
        state=end.state,
        trial_state=None if again else trial.state,
        again=again,
        reason=end.reason,
        message=end.message[:MAX_CARRIED],
        failure=end.failure,
        objective=None if trial.objective is None else trial.objective[:MAX_CARRIED],
        value=trial.objective_value,
        told_seq=told_seq,
    )


def asks_for_another(end: AttemptEnd, request: c.RunTrialRequest) -> bool:
    return retry_again(
        reason=end.reason,
        failure=end.failure,
        signal_retries=request.signal_retries,
        infrastructure_retries=request.infrastructure_retries,
    )


def judged(end: AttemptEnd, objective: Objective, summaries: Summaries, collector: Collector | None) -> AttemptEnd:
    """A process that succeeded without reporting the objective did not succeed: say what was seen instead."""
    if end.state is not AttemptState.SUCCEEDED or objective_text(objective, summaries.summaries()) is not None:
        return end
    message = f"the trial ended without {objective.metric}"
    if collector is not None:
        findings = collector.findings()
        message += f"; seen: {', '.join(findings.names_seen[:20]) or 'no metric at all'}"
        if findings.last_lines:
            message += "; last lines:\n" + "\n".join(findings.last_lines)
    return dataclasses.replace(
        end,
        state=AttemptState.METRICS_UNAVAILABLE,
        reason="MetricsUnavailable",
        message=message[:MAX_MESSAGE],
        failure=FailureClass.METRICS,
    )


def _trial_state(end: AttemptEnd) -> TrialState:
    if end.state is AttemptState.KILLED:
        return TrialState.EARLY_STOPPED if end.reason.startswith(EARLY_STOPPED) else TrialState.KILLED
    if end.state is AttemptState.LOST:
        return TrialState.FAILED
    return TrialState(end.state.value)
