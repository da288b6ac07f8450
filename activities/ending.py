"""The end of an attempt, recorded once: by `run_trial`, or by the reconciler for trials that nobody waits for.

One transaction holds the last points, the verdict by all points there are, the attempt's end and, unless another
attempt follows, the trial's. So a report that comes at that very moment is either judged with the rest, or finds the
attempt ended and has the verdict revised (`activities.revising`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence

import structlog

import evertune.contracts as c
from activities.replicating import Runs
from evertune.domain import labels
from evertune.domain.metrics import MetricSummary, Objective, Point, chosen, finite, missing
from evertune.domain.records import TrialRecord
from evertune.domain.retry import MemoryPolicy, retry_again
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import LAST_LINES, WARNING, AttemptEnd, AttemptRef, Ending
from evertune.protocols import Findings
from evertune.store import Store

log = structlog.get_logger()

EARLY_STOPPED = "EarlyStopped"  # how the reason of a stop begins that early stopping decided
MAX_MESSAGE = 4000  # characters of log lines in the database
NAME_SHOWN = 60  # characters of a metric's name in a sentence
MAX_CARRIED = 500  # characters that travel through Temporal's history


def record_end(
    store: Store,
    ref: AttemptRef,
    objective: Objective,
    end: AttemptEnd,
    *,
    points: Sequence[Point] = (),
    findings: Callable[[], Findings] | None = None,
    warnings: Callable[[], Sequence[str]] = tuple,
    retry: Callable[[AttemptEnd], bool] | None = None,
    collected: bool = True,
    runs: Runs | None = None,
) -> c.TrialOutcome:
    """Judge an attempt by everything it has reported, these points included, and record its end.

    `findings`: what its collector saw, asked only when the objective is missing. `warnings`: what it left out, told
    also when the objective is there. `retry`: whether the trial gets another attempt; None for one whose experiment is
    over. `collected`: False while the collector beside it has not said its last word, which may then change the
    verdict. `runs`: of a trial with replicates; one that ended well asks for the next.
    """

    concluded: list[Ending] = []

    def conclude(summaries: Mapping[str, MetricSummary]) -> Ending:
        final = with_warnings(judged(end, objective, summaries, findings), warnings)
        then = runs.then() if runs is not None and retry is not None and final.state is AttemptState.SUCCEEDED else ""
        again = bool(then) or (retry is not None and retry(final))
        concluded[:] = [ending_of(final, objective, summaries, again=again, then=then, runs=runs)]
        return concluded[0]

    trial, told_seq = store.end_attempt(
        ref.experiment_uid, ref.number, ref.attempt, conclude, points=points, collected=collected
    )
    if not concluded:  # somebody recorded it before
        return stored_outcome(store, ref, trial)
    ending = concluded[0]
    log.info(
        "attempt ended", state=ending.end.state.value, reason=ending.end.reason, again=ending.again,
        objective=ending.objective,
    )  # fmt: skip
    return c.TrialOutcome(
        number=ref.number,
        attempt=ref.attempt,
        state=ending.end.state,
        trial_state=None if ending.again else trial.state,
        again=ending.again,
        reason=ending.end.reason,
        message=ending.end.message[:MAX_CARRIED],
        failure=ending.end.failure,
        objective=None if ending.again or trial.objective is None else trial.objective[:MAX_CARRIED],
        value=None if ending.again else trial.objective_value,
        told_seq=told_seq,
        shortfall=labels.shortfall(trial.labels),
        violation=0.0 if ending.again else trial.violation,
    )


def stored_outcome(store: Store, ref: AttemptRef, trial: TrialRecord) -> c.TrialOutcome:
    """The outcome of an attempt whose end is in the database already."""
    attempts = store.attempts(ref.experiment_uid, ref.number)
    attempt = next((record for record in attempts if record.attempt == ref.attempt), None)
    again = attempt is not None and attempt.again and not trial.state.terminal
    told = attempt if attempt is not None and again else trial
    return c.TrialOutcome(
        number=ref.number,
        attempt=ref.attempt,
        state=AttemptState(told.state.value),
        trial_state=None if again else trial.state,
        again=again,
        reason=told.reason,
        message=told.message[:MAX_CARRIED],
        failure=attempt.failure if attempt is not None else None,
        objective=None if again or trial.objective is None else trial.objective[:MAX_CARRIED],
        value=None if again else trial.objective_value,
        told_seq=0 if again else trial.told_seq or 0,
        shortfall=labels.shortfall(trial.labels),
        violation=0.0 if again else trial.violation,
    )


def ending_of(
    end: AttemptEnd,
    objective: Objective,
    summaries: Mapping[str, MetricSummary],
    *,
    again: bool,
    then: str = "",
    runs: Runs | None = None,
) -> Ending:
    """A judged end as what the store records of it."""
    state = None if again else _trial_state(end)
    charged = state is not None and state.counts_as_failed
    metrics: Mapping[str, str] = chosen(objective, summaries)
    spread: Mapping[str, float] = {}
    if runs is not None:
        metrics, spread = runs.together(metrics, well=end.state is AttemptState.SUCCEEDED)
    # Katib: a failed trial never has an observation.
    value = None if charged else metrics.get(objective.metric) or None
    if value is not None and end.state is AttemptState.SUCCEEDED and not again:  # whoever asks why it is not the best
        end = dataclasses.replace(end, message="\n".join(filter(None, (end.message, *objective.missed(metrics)))))
    return Ending(
        end=end,
        again=again,
        then=then,
        charged=charged,
        trial_state=state,
        objective=value,
        objective_value=finite(value),
        metrics=metrics,
        violation=0.0 if value is None else objective.violation(metrics),
        spread=spread,
    )


def with_warnings(end: AttemptEnd, collected: Callable[[], Sequence[str]]) -> AttemptEnd:
    """Whoever reads the trial's message learns what went wrong beside it, and what its collector left out."""
    told = () if end.state is AttemptState.METRICS_UNAVAILABLE else collected()  # else `judged` has said it
    lines = [end.message, *(f"{WARNING}{warning}" for warning in (*end.warnings, *told))]
    return dataclasses.replace(end, message="\n".join(line for line in lines if line)[:MAX_MESSAGE], warnings=())


def asks_for_another(
    end: AttemptEnd, request: c.RunTrialRequest, *, memory_retries: int = 0, on_oom: MemoryPolicy | None = None
) -> bool:
    """`memory_retries`: earlier attempts of the trial that ended for want of memory."""
    return retry_again(
        reason=end.reason,
        failure=end.failure,
        signal_retries=request.signal_retries,
        infrastructure_retries=request.infrastructure_retries,
        memory_retries=memory_retries,
        on_oom=on_oom,
    )


def judged(
    end: AttemptEnd,
    objective: Objective,
    summaries: Mapping[str, MetricSummary],
    findings: Callable[[], Findings] | None,
) -> AttemptEnd:
    """A process that succeeded without reporting every objective did not succeed: say what was seen instead."""
    if end.state is not AttemptState.SUCCEEDED or (wanted := missing(objective, summaries)) is None:
        return end
    return dataclasses.replace(
        end,
        state=AttemptState.METRICS_UNAVAILABLE,
        reason="MetricsUnavailable",
        message=_explained(objective, wanted, summaries, findings() if findings else Findings())[:MAX_MESSAGE],
        failure=FailureClass.METRICS,
    )


def _explained(objective: Objective, wanted: str, summaries: Mapping[str, MetricSummary], findings: Findings) -> str:
    """Why an objective, `wanted`, is not there."""
    names = dict.fromkeys((*summaries, *findings.names_seen))
    names.pop(wanted, None)
    said = f"the trial ended without {wanted}"
    if wanted in summaries:  # reported, but never with a value
        said = f"the trial reported {wanted} without a value"
    seen = [name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + "…" for name in list(names)[:20]]
    parts = [said, *findings.warnings]  # what stands behind is read again by those who show it
    if seen or wanted not in summaries:
        parts.append(f"seen: {', '.join(seen) or 'no metric at all'}")
    if near := difflib.get_close_matches(wanted, names, n=1):
        parts.append(f"did you mean {near[0]}?")
    if findings.suggested_filter and wanted == objective.metric:
        parts.append(f"this filter would have found it: {findings.suggested_filter}")
    message = "; ".join(parts)
    if lines := findings.last_lines:  # every one of them, if need be its start only: the last one says most
        room = max(40, (MAX_MESSAGE - len(message) - 20) // len(lines) - 1)
        message += LAST_LINES + "\n".join(line if len(line) <= room else line[: room - 1] + "…" for line in lines)
    return message


def _trial_state(end: AttemptEnd) -> TrialState:
    if end.state is AttemptState.KILLED:
        return TrialState.EARLY_STOPPED if end.reason.startswith(EARLY_STOPPED) else TrialState.KILLED
    if end.state is AttemptState.LOST:
        return TrialState.FAILED
    return TrialState(end.state.value)
