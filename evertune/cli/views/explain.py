"""`evertune explain`: one sentence, the evidence with where it was read, the command that moves it, in this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import age, interval, plural
from evertune.cli.output.text import Line, clean, cut_end, labelled, wrapped, wrapped_line
from evertune.cli.views.sentences import (
    addressed,
    experiment_sentence,
    going_on,
    group_failures,
    infeasible_words,
    last_lines,
    numbers_words,
    rules_words,
    spread_words,
    stopping_words,
    trial_sentence,
    trial_warnings,
)
from evertune.cli.views.summary import next_lines
from evertune.cli.views.unavailable import Missed, mending_command, unavailable_groups
from evertune.domain.records import OTHER_LIBRARIES, AttemptRecord, AuditRecord, ExperimentRecord, TrialRecord
from evertune.domain.space import Value
from evertune.domain.states import AttemptState, ExperimentState, TrialState
from evertune.domain.trial import REUSED, WARNING

LINE_SHOWN = 200  # characters of a line of a log: it is there to be recognised

EARLY_STOP = "early-stop"  # the action under which its decisions are in the audit

Evidence = list[tuple[str, str]]
Commands = list[tuple[str, str]]


def explain_experiment(
    record: ExperimentRecord,
    *,
    now: datetime,
    marks: Marks,
    audit: Sequence[AuditRecord],
    failed: Sequence[TrialRecord],
    succeeded: Sequence[TrialRecord] = (),
    polling: bool | None = None,
    stack: str = "",
    waiting: Sequence[TrialRecord] = (),
    width: int | None = None,
) -> list[Line]:
    """`polling`: whether a worker of this home polls, None when this home cannot know. `stack` says how it
    stands. `waiting`: trials between two attempts.
    """
    evidence = _failures(record, failed, succeeded)
    evidence += [_lost(trial) for trial in waiting[:3] if not record.state.terminal]
    evidence += _limits(record)
    evidence += _early_stops(record, [entry for entry in audit if entry.action == EARLY_STOP])
    told = [entry for entry in audit if entry.action != EARLY_STOP]
    evidence += [_audit_row(entry) for entry in told[:-4] if entry.action == OTHER_LIBRARIES]  # never out of sight
    evidence += [_audit_row(entry) for entry in told[-4:]]
    if stack:
        evidence.append(("stack", stack))
    sentence = _sentence(record, audit, now, polling, len(waiting))
    name = addressed(record)
    missed = [mending_command(record, *group) for group in unavailable_groups(failed)[:1]]
    head: Line = [(record.name, "bold"), (" is ", ""), *marks.state(record.state), (sentence, "")]
    title, commands = _moves(record, name, failed, polling)
    if polling is not False:
        commands = [*missed, *commands]
    return _compose(head, evidence, title, commands, width)


def _compose(head: Line, evidence: Evidence, title: str, commands: Commands, width: int | None) -> list[Line]:
    lines = wrapped_line(head, width)
    if evidence:
        column = max(len(label) for label, _ in evidence) + 2
        room = None if width is None else max(width - column - 2, 30)
        lines += [[], [("Evidence", "bold")]]
        for label, text in evidence:
            first, *more = wrapped(clean(text), room)
            lines += labelled([(label, first)], indent="  ", gap=column - len(label))
            lines += [[(" " * (column + 2) + line, "")] for line in more]
    once: dict[str, str] = {}
    for command, purpose in commands:
        once.setdefault(command, purpose)
    return [*lines, [], [(title, "bold")], *next_lines(list(once.items()))]


def _lost(trial: TrialRecord) -> tuple[str, str]:
    if trial.reason.startswith("Replicate"):
        return f"trial {trial.number}", f"{trial.reason}; the next one waits for its turn"
    ended = plural(trial.attempts, "attempt")
    return f"trial {trial.number}", f"{ended} ended without a result, not charged; the next one waits for its turn"


def _sentence(
    record: ExperimentRecord, audit: Sequence[AuditRecord], now: datetime, polling: bool | None, waiting: int
) -> str:
    counts, budget = record.counts, record.budget
    since = f" since {age((now - (record.started or record.created)).total_seconds())}"
    if record.state.terminal:
        ended = f" since {age((now - record.ended).total_seconds())}" if record.ended else ""
        return f"{ended}: {experiment_sentence(record) or 'no reason was recorded'}."
    if polling is False:
        return f"{since}, but nothing moves: no worker of this home is running."
    match record.state:
        case ExperimentState.PAUSED:
            last = next((entry for entry in reversed(audit) if entry.action == "pause"), None)
            when = f" since {age((now - last.at).total_seconds())}" if last else ""
            who = f"{clean(last.actor)} paused it" if last and last.actor else "a person paused it"
            rest = f"; {plural(counts.running, 'trial')} finishing" if counts.running else ""
            return f"{when}: {who}{rest}."
        case ExperimentState.STOPPING:
            has = "has" if counts.running == 1 else "have"
            return f": it ends when {plural(counts.running, 'running trial')} {has} finished."
        case ExperimentState.CREATED:
            return f"{since}: a worker has not started it yet."
    if counts.running:
        return f"{since}: {counts.running} of {budget.parallel} slots busy, {counts.finished} trials finished."
    if waiting:
        return f"{since}: {plural(waiting, 'trial')} between two attempts; none runs at this moment."
    return f"{since}: the algorithm is asked for the next trials; none runs at this moment."


def _failures(record: ExperimentRecord, failed: Sequence[TrialRecord], succeeded: Sequence[TrialRecord]) -> Evidence:
    rows: Evidence = []
    for sentence, numbers in group_failures(failed)[:3]:
        rows.append((numbers_words(numbers, most=3), sentence))
    if len(failed) >= 2 and (common := _in_common(failed, succeeded)):
        rows.append(("all failed", common))
    return rows


def _in_common(failed: Sequence[TrialRecord], succeeded: Sequence[TrialRecord]) -> str:
    """Values that all failed trials share and no successful one has."""
    shared: Mapping[str, Value] = failed[0].parameters
    found = []
    for name, value in shared.items():
        if isinstance(value, float) or any(trial.parameters.get(name) != value for trial in failed):
            continue
        others = Counter(trial.parameters.get(name) for trial in succeeded)
        if succeeded and value not in others:
            found.append(f"{name}={value}; the {plural(len(succeeded), 'trial')} that succeeded have others")
    return " and ".join(found)


def _early_stops(record: ExperimentRecord, decided: Sequence[AuditRecord]) -> Evidence:
    """The rule and what came of it; the last decision stands for all."""
    rule = stopping_words(record)
    if not rule:
        return []
    rows = [("early stop", f"{rule}: {plural(record.counts.early_stopped, 'trial')} stopped")]
    if decided:
        last = decided[-1]
        rows.append(("", f"the last one, trial {last.detail.get('trial')}: {last.detail.get('reason')}"))
    return rows


def _limits(record: ExperimentRecord) -> Evidence:
    counts, budget, objective = record.counts, record.budget, record.objective
    rows: Evidence = []
    if budget.max_trials is not None:
        rows.append(("budget", f"{counts.finished} of {plural(budget.max_trials, 'trial')} finished"))
    if budget.max_failed is not None and counts.charged:
        rows.append(("rule", f"maxFailedTrialCount: {counts.charged} failed, {budget.max_failed} may"))
    if words := infeasible_words(record):
        rows.append(("constraint", words))
    if rules := rules_words(record):
        rows.append(("search", "; ".join(rules)))
    if objective.goal is not None and (best := record.best) is not None:
        rows.append(("goal", f"{objective.metric} {objective.goal:g}; best {best.objective} at trial {best.number}"))
    return rows


def _audit_row(entry: AuditRecord) -> tuple[str, str]:
    detail = ", ".join(f"{key}={value}" for key, value in entry.detail.items() if value not in (None, ""))
    who = f" by {entry.actor}" if entry.actor else ""
    return f"{entry.at.astimezone():%H:%M:%S}", f"{entry.action}{who}{f': {detail}' if detail else ''}"


def _moves(
    record: ExperimentRecord, name: str, failed: Sequence[TrialRecord], polling: bool | None
) -> tuple[str, Commands]:
    if not record.state.terminal and polling is False:
        return "To go on", [("evertune up", "starts Temporal and the worker; everything goes on where it was")]
    match record.state:
        case ExperimentState.FAILED:
            log = [(f"evertune logs {name} --trial {failed[-1].number}", "its whole log")] if failed else []
            limit = max(record.budget.max_failed or 0, record.counts.charged) + max(3, record.budget.parallel)
            return "To go on", [
                *log,
                (f"evertune extend {name} --max-failed {limit}", "once it is mended: go on, more may fail"),
                (f"evertune delete {name}", "or begin anew"),
            ]
        case ExperimentState.SUCCEEDED | ExperimentState.CANCELLED:
            best = [(f"evertune best {name}", "the result")] if record.best is not None else []
            return "Next", [*best, *going_on(record)] or [(f"evertune trials {name}", "all trials")]
        case ExperimentState.PAUSED:
            return "To go on", [(f"evertune resume {name}", ""), (f"evertune stop {name}", "or end it here")]
        case ExperimentState.STOPPING:
            return "To end it now", [(f"evertune cancel {name}", "stops what still runs")]
    return "It goes on by itself. To change that", [
        (f"evertune edit {name} --parallel N", "more or fewer at a time"),
        (f"evertune pause {name}", "start nothing new"),
    ]


def explain_trial(
    record: ExperimentRecord,
    trial: TrialRecord,
    attempts: Sequence[AttemptRecord],
    *,
    now: datetime,
    marks: Marks,
    log: Sequence[str] = (),
    width: int | None = None,
) -> list[Line]:
    """`log`: the last lines of its last attempt."""
    head: Line = [(f"trial {trial.number}", "bold"), (f" of {record.name} is ", ""), *marks.state(trial.state)]
    if trial.state is TrialState.SUCCEEDED:
        whose = f", {trial_sentence(trial)}" if trial.reason == REUSED else ""
        head.append((f": {record.objective.metric} {clean(trial.objective or marks.dash)}{whose}.", ""))
    elif trial.state.terminal:
        head.append((f": {trial_sentence(trial)}.", ""))
    elif trial.state is TrialState.RUNNING and trial.started:
        head.append((f" since {age((now - trial.started).total_seconds())}", ""))
        waits = attempts[-1].phase if attempts else ""
        head.append((f", but waits: {clean(waits)}." if waits else ".", ""))
    else:
        head.append((": it waits for its next attempt." if trial.attempts else ": it waits to be started.", ""))
    evidence: Evidence = [(f"attempt {attempt.attempt}", _attempt_words(attempt, now)) for attempt in attempts]
    if trial.objective is not None:
        evidence += [("infeasible", missed) for missed in record.objective.missed(trial.metrics)]
    if trial.spread:
        runs = sum(attempt.state is AttemptState.SUCCEEDED for attempt in attempts)
        told = [f"{name} {trial.metrics[name]} {spread_words(trial, name)}" for name in trial.spread]
        evidence.append(("replicates", f"of {plural(runs, 'run')} together: {', '.join(told)}"))
    if trial.state.counts_as_failed and (record.manifest.get("spec") or {}).get("onFailure") == "worst":
        evidence.append(("search", f"{record.algorithm} counts it as the worst value so far (onFailure: worst)"))
    if trial.metrics:
        evidence.append(("metrics", ", ".join(f"{name} {value}" for name, value in trial.metrics.items())))
    if trial.state is TrialState.METRICS_UNAVAILABLE and (lines := last_lines(trial)):
        log = lines  # of the file, where metrics are in one; these were searched and did not match
    said = [line for line in trial.message.splitlines() if line.strip() and not line.startswith(WARNING)]
    last = said[-1] if said else ""
    if trial.state.counts_as_failed and last and not log and clean(last) not in trial_sentence(trial):
        evidence.append(("message", last))
    evidence += [("warning", warning) for warning in trial_warnings(trial)]
    evidence += [("log", cut_end(line, LINE_SHOWN)) for line in log]
    name = addressed(record)
    commands = [(f"evertune logs {name} --trial {trial.number}", "its whole log")]
    if trial.state is TrialState.METRICS_UNAVAILABLE:
        commands.insert(0, mending_command(record, Missed.of(trial), [trial.number]))
    if not trial.state.terminal:
        commands.append((f"evertune logs {name} --trial {trial.number} -f", "follow it"))
    return _compose(head, evidence, "Next", commands, width)


def _attempt_words(attempt: AttemptRecord, now: datetime) -> str:
    parts = [str(attempt.state), clean(attempt.reason) if attempt.reason != str(attempt.state) else ""]
    if attempt.failure is not None:
        parts.append(f"{attempt.failure} failure")
    if attempt.stop and not attempt.state.terminal:
        parts.append(f"asked to end: {clean(attempt.stop)}")
    if attempt.started is not None:
        parts.append(f"took {interval(((attempt.ended or now) - attempt.started).total_seconds())}")
    if attempt.state.terminal:
        well = attempt.state is AttemptState.SUCCEEDED
        next_one = "the next replicate followed" if well else "another attempt followed, not charged"
        parts.append(next_one if attempt.again else "charged" if attempt.charged else "")
    return ", ".join(part for part in parts if part)
