"""`evertune trials NAME`: a table of trials, with as many parameters as fit; or, for failures, with their reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, age, interval, objective_text, parameter_text, utc
from evertune.cli.output.table import Column, Rendered, table
from evertune.cli.output.text import Line, clean
from evertune.cli.views.sentences import numbers_words, spread_words, trial_sentence
from evertune.domain.metrics import Objective, finite
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.space import ParameterType
from evertune.domain.states import TrialState

STATE_WORDS = {  # what --state takes
    "created": TrialState.CREATED,
    "running": TrialState.RUNNING,
    "succeeded": TrialState.SUCCEEDED,
    "failed": TrialState.FAILED,
    "killed": TrialState.KILLED,
    "early": TrialState.EARLY_STOPPED,
    "earlystopped": TrialState.EARLY_STOPPED,
    "unavailable": TrialState.METRICS_UNAVAILABLE,
    "metricsunavailable": TrialState.METRICS_UNAVAILABLE,
}
WAITING_SHOWN = 4
WITH_REASONS = (TrialState.FAILED, TrialState.METRICS_UNAVAILABLE, TrialState.KILLED, TrialState.EARLY_STOPPED)


def trials_table(
    record: ExperimentRecord,
    trials: Sequence[TrialRecord],
    *,
    now: datetime,
    marks: Marks,
    width: int | None = None,
    wide: bool = False,
    columns: Collection[str] = (),
    headers: bool = True,
) -> Rendered:
    """`columns` names the parameters (or metrics) to show; empty: all that fit. `wide` shows all, and clock times."""
    number, state = Column("TRIAL", right=True), Column("STATE")
    value, took = Column(record.objective.metric, right=True), Column("TOOK", right=True)
    started, ended = Column("STARTED"), Column("ENDED")
    decimals = Decimals(trial.objective_value for trial in trials)
    numeric = {parameter.name: parameter.type is not ParameterType.CATEGORICAL for parameter in record.space}
    names = list(columns) or list(record.space.names())
    objective = record.objective
    more = [Column(name, right=True) for name in dict.fromkeys((*objective.objectives[1:], *_limited(objective)))]
    feasible = Column("FEASIBLE")
    taken = {column.header for column in more} | {objective.metric}
    extra = [] if columns else [name for name in objective.additional if name not in taken]
    more_decimals = {c.header: Decimals(finite(trial.metrics.get(c.header)) for trial in trials) for c in more}
    fields = [Column(name, right=numeric.get(name, True), optional=not wide and not columns) for name in names]
    metrics = [Column(name, right=True, optional=not wide) for name in extra]
    for trial in trials:
        number.add(str(trial.number))
        state.add(trial_state(trial, marks))
        text = objective_text(trial.objective_value, trial.objective, decimals, marks.dash)
        value.add(clean(f"{text} {spread_words(trial, objective.metric)}"))
        for column in more:
            known = trial.metrics.get(column.header)
            text = objective_text(finite(known), known, more_decimals[column.header], marks.dash)
            column.add(clean(f"{text} {spread_words(trial, column.header)}"))
        feasible.add(_feasible(trial, marks))
        took.add(took_text(trial, now, marks))
        typed = record.space.typed(trial.parameters)
        for column in fields:
            name = column.header
            text = clean(parameter_text(typed[name])) if name in typed else clean(trial.metrics.get(name, marks.dash))
            column.add(text)
        for column in metrics:
            column.add(clean(trial.metrics.get(column.header, marks.dash)))
        started.add(_time(trial.started, marks))
        ended.add(_time(trial.ended, marks))
    wanted = [value, *more, *([feasible] if objective.constraints else [])]
    shown = [number, state, *wanted, *fields, *metrics, took, *([started, ended] if wide else [])]
    return table(shown, width=None if wide else width, headers=headers, ellipsis=marks.ellipsis)


def _limited(objective: Objective) -> list[str]:
    """The metrics of constraints that are no objectives."""
    named = [constraint.metric for constraint in objective.constraints]
    return [metric for metric in named if metric not in objective.objectives]


def _feasible(trial: TrialRecord, marks: Marks) -> Line:
    if trial.objective is None:
        return [(marks.dash, "")]
    return [("yes", "")] if trial.feasible else [("no", "warning")]


def reasons_table(
    trials: Sequence[TrialRecord],
    *,
    now: datetime,
    marks: Marks,
    headers: bool = True,
) -> Rendered:
    """The reason takes the place of the parameters. It may be long: a sentence is not cut."""
    number, state = Column("TRIAL", right=True), Column("STATE")
    attempts, took = Column("ATTEMPTS", right=True), Column("TOOK", right=True)
    charged, reason = Column("CHARGED"), Column("REASON")
    for trial in trials:
        number.add(str(trial.number))
        state.add(marks.state(trial.state))
        attempts.add(str(trial.attempts))
        took.add(took_text(trial, now, marks))
        charged.add("yes" if trial.state.counts_as_failed else "no")
        reason.add(trial_sentence(trial))
    return table([number, state, attempts, took, charged, reason], headers=headers, ellipsis=marks.ellipsis)


def waiting_lines(phases: Mapping[int, str], *, most: int = WAITING_SHOWN) -> list[Line]:
    """What running trials wait for, by sentence: a cluster that has no room says the same of many."""
    by_sentence: dict[str, list[int]] = {}
    for number, phase in sorted(phases.items()):
        by_sentence.setdefault(clean(phase), []).append(number)
    lines: list[Line] = [
        [(f"{numbers_words(numbers, most=3)}: ", ""), (sentence, "warning")]
        for sentence, numbers in list(by_sentence.items())[:most]
    ]
    if len(by_sentence) > most:
        lines.append([(f"and {len(by_sentence) - most} more reasons", "dim")])
    return lines


def phases_of(trials: Iterable[TrialRecord]) -> dict[int, str]:
    """Of those that run and wait for something: it is their reason meanwhile."""
    waiting = (trial for trial in trials if trial.state is TrialState.RUNNING)
    return {trial.number: trial.reason for trial in waiting if trial.reason not in ("", str(trial.state))}


def trial_state(trial: TrialRecord, marks: Marks) -> Line:
    again = f" {marks.times}{trial.attempts}" if trial.attempts > 1 else ""
    state = marks.state(trial.state)
    return [*state, (again, "dim")] if again else state


def took_text(trial: TrialRecord, now: datetime, marks: Marks) -> str:
    if trial.started is None:
        return marks.dash
    seconds = ((trial.ended or now) - trial.started).total_seconds()
    return interval(seconds) if seconds < 60 else age(seconds)


def _time(at: datetime | None, marks: Marks) -> str:
    text = utc(at)
    return text[:19].replace("T", " ") + "Z" if text else marks.dash


def hidden_line(shown: int, total: int, hidden: Sequence[str], name: str) -> Line:
    """`5 of 155, 9 more parameters: -o wide or --columns lr,dropout`."""
    parts = []
    if shown < total:
        parts.append(f"{shown} of {total}")
    if hidden:
        more = f"{len(hidden)} more column{'s' * (len(hidden) != 1)}"
        parts.append(f"{more}: -o wide or --columns {','.join(hidden[:2])}")
    return [(", ".join(parts), "dim")] if parts else [(f"Next: evertune best {name}", "dim")]
