"""The live screen of `run` and `watch`: one moment of an experiment, fitted to a terminal.

Header, bar and best always; running trials, then events, then keys while there is room. Below 16 lines the events go
first, then the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from evertune.cli.follow.snapshot import Ended, RunningTrial, Snapshot
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, age, clock, objective_text, parameter_text
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line, between, clean, fit, joined, line_width, width_of
from evertune.cli.views.sentences import (
    addressed,
    best_word,
    comparable,
    experiment_sentence,
    further_words,
    goal_words,
    maximizes,
    may_fail_words,
    missed_words,
    paused_words,
    search_words,
    spread_words,
    trial_sentence,
    trials_done,
)
from evertune.cli.views.trials import phases_of, waiting_lines
from evertune.domain.metrics import Objective, finite
from evertune.domain.space import ParameterType
from evertune.domain.states import ExperimentState, TrialState

MOST_TRIALS = 8
MOST_EVENTS = 4
WAITING_SHOWN = 2  # sentences of what running trials wait for
SHORT_SCREEN = 16  # lines
LONG_ETA_S = 1800.0  # from here on the clock time helps more than the duration


def live_lines(snapshot: Snapshot, *, width: int, height: int, marks: Marks, keys: Sequence[str] = ()) -> list[Line]:
    """At most `height` - 1 lines, so that the cursor below them does not scroll the screen."""
    decimals = _decimals(snapshot)
    head = [_title(snapshot, width), _state(snapshot, width, marks)]
    progress = _progress(snapshot, width, marks)
    best = _best(snapshot, width, marks, decimals)
    fixed = [*head, [], *progress, *([[], *best] if best else [])]
    tail: list[Line] = [[], [("  " + "   ".join(keys), "dim")]] if keys else []
    room = height - 1 - len(fixed) - len(tail)
    trials, events = _shares(len(snapshot.running), min(len(snapshot.events), MOST_EVENTS), room, height)
    lines = list(fixed)
    waiting = waiting_lines(phases_of([entry.trial for entry in snapshot.running]), most=WAITING_SHOWN)
    if waiting and room >= len(waiting) + 1:
        lines += [[], *([("  ", ""), *line] for line in waiting)]
        trials, events = _shares(len(snapshot.running), events, room - len(waiting) - 1, height)
    if trials:
        lines += [[], *_trials(snapshot, trials, width, marks, decimals)]
    if events:
        lines += [[], *_events(snapshot, events, marks, decimals)]
    return [fit(line, width, marks.ellipsis) for line in [*lines, *tail][: max(height - 1, 1)]]


def _shares(running: int, events: int, room: int, height: int) -> tuple[int, int]:
    """How many rows for trials and events, where each block costs a blank line and the trials a header."""

    def needed(trials: int, events: int) -> int:
        more = trials < running
        return (trials + 2 + more if trials else 0) + (events + 1 if events else 0)

    trials = min(running, MOST_TRIALS)
    if height < SHORT_SCREEN:
        events = 0
    while needed(trials, events) > room and (trials or events):
        # Both give way in turn, but a block of one or two rows is worth more than the last rows of the other.
        if trials > 3 or not events:
            trials -= 1
        else:
            events -= 1
    return trials, events


def _decimals(snapshot: Snapshot) -> Decimals:
    best = snapshot.record.best.objective_value if snapshot.record.best else None
    seen = [ended.trial.objective_value for ended in snapshot.events]
    return Decimals([best] if best else seen)


def _title(snapshot: Snapshot, width: int) -> Line:
    """With the experiment's page; where that is too long, the address of the web UI alone. Half a link is no link."""
    title: Line = [(snapshot.title, "bold")]
    for url in (snapshot.url or "", (snapshot.url or "").partition("/namespaces/")[0]):
        if url and width_of(snapshot.title) + width_of(url) + 2 <= width:
            return between(title, [(url, "dim")], width)
    return title


def _elapsed(snapshot: Snapshot) -> float:
    record = snapshot.record
    end = record.ended if record.ended and record.state.terminal else snapshot.at
    return max((end - (record.started or record.created)).total_seconds(), 0.0)


def _state(snapshot: Snapshot, width: int, marks: Marks) -> Line:
    record = snapshot.record
    name: Line = [(record.name, "bold"), ("  ", "")]
    shape = marks.state(record.state)
    elapsed = clock(_elapsed(snapshot))
    if snapshot.trouble:
        return [*name, *shape, (f" {elapsed}, ", ""), (snapshot.trouble, "warning")]
    if record.state is ExperimentState.PAUSED:
        return [*name, *shape, (f" {paused_words(record, snapshot.audit, snapshot.at, snapshot.you)}", "")]
    if record.state is ExperimentState.STOPPING:
        left = record.counts.running
        return [*name, *shape, (f" {elapsed}, {left} trial{'s' * (left != 1)} finishing", "")]
    if record.state.terminal:
        return [*name, *shape, (f" after {elapsed}: {experiment_sentence(record)}", "")]
    return [*name, *shape, (f" {elapsed}  ", ""), (search_words(record), "dim")]


def _progress(snapshot: Snapshot, width: int, marks: Marks) -> list[Line]:
    record, counts = snapshot.record, snapshot.record.counts
    limit = record.budget.max_trials
    done: Line = [(trials_done(record) if limit is not None else f"{counts.finished} trials", "")]
    if snapshot.eta_s is not None and counts.finished < (limit or 0):
        words = f"ETA {clock(snapshot.eta_s)}"
        if width >= 100 and snapshot.eta_s >= LONG_ETA_S:
            ends = (snapshot.at + timedelta(seconds=snapshot.eta_s)).astimezone()
            words += f", about {ends:%H:%M}"
        done.append((f"   {words}", ""))
    lines: list[Line] = []
    if limit:
        room = max(10, min(width - 6 - max(line_width(done), 18), 78))
        lines.append([("  ", ""), *marks.bar(counts.finished / limit, room), ("  ", ""), *done])
    else:
        lines.append([("  ", ""), *done])
    parts = marks.counted(counts)
    if limit is not None and (left := limit - counts.finished - counts.running) > 0:
        parts.append([(f"{left} to go", "dim")])
    line: Line = [("  ", ""), *joined(parts, "   ")]
    may_fail = may_fail_words(counts, record.budget.max_failed)
    lines.append(between(line, [(may_fail, "dim")] if may_fail else [], width - 2))
    return lines


def _best(snapshot: Snapshot, width: int, marks: Marks, decimals: Decimals) -> list[Line]:
    record, best = snapshot.record, snapshot.record.best
    objective = record.objective
    goal = goal_words(objective, comparable(best), decimals)
    if best is None:
        words = f"  no {objective.metric} yet"
        return [between([(words, "dim")], [(goal, "dim")] if goal else [], width - 2)]
    value = objective_text(best.objective_value, clean(best.objective or ""), decimals, marks.dash)
    line: Line = [(f"  {best_word(best)} {objective.metric}  ", ""), (value, "bold")]
    beside = [spread_words(best, objective.metric), further_words(objective, best)]
    line += [(f"  {text}", "") for text in beside if text]
    spark = marks.spark(snapshot.curve, 12 if width >= 100 else 9)
    if len(snapshot.curve) > 1:
        line += [("  ", ""), (spark, "running")]
    when = f", {age((snapshot.at - best.ended).total_seconds())} ago" if best.ended else ""
    line.append((f"  {marks.arrow(up=maximizes(objective))} trial {best.number}{when}", "dim"))
    if not best.feasible:
        return [
            between(line, [(goal, "dim")] if goal else [], width - 2),
            [(f"  no feasible trial yet: {missed_words(objective, best)}", "warning")],
        ]
    return [
        between(line, [(goal, "dim")] if goal else [], width - 2),
        _parameters(snapshot, width),
    ]


def _parameters(snapshot: Snapshot, width: int) -> Line:
    """As many as fit in one line; the rest is counted."""
    record = snapshot.record
    assert record.best is not None
    words = [
        f"{name}={clean(parameter_text(value))}" for name, value in record.space.typed(record.best.parameters).items()
    ]
    line = "  " + "  ".join(words)
    shown = len(words)
    while len(line) > width - 2 and shown > 1:
        shown -= 1
        line = f"  {'  '.join(words[:shown])}  +{len(words) - shown}"
    return [(line, "")]


def _trials(snapshot: Snapshot, count: int, width: int, marks: Marks, decimals: Decimals) -> list[Line]:
    record = snapshot.record
    names = record.space.names()
    number, step = Column("TRIAL", right=True), Column("STEP", right=True)
    value, took = Column(record.objective.metric, right=True, shrinks=True), Column("TOOK", right=True)
    numeric = {parameter.name: parameter.type is not ParameterType.CATEGORICAL for parameter in record.space}
    further = [Column(name, right=True, shrinks=True) for name in record.objective.objectives[1:]]
    parameters = [Column(name, right=numeric[name], optional=True) for name in names]
    for entry in snapshot.running[:count]:
        number.add(str(entry.trial.number))
        step.add(str(entry.step) if entry.step else marks.dash)
        value.add(_last_value(entry, decimals, marks))
        for column in further:
            last = finite(entry.further.get(column.header))
            column.add(marks.dash if last is None else parameter_text(last, 4))
        typed = record.space.typed(entry.trial.parameters)
        for column in parameters:
            column.add(clean(parameter_text(typed[column.header])) if column.header in typed else marks.dash)
        started = entry.trial.started
        took.add(age((snapshot.at - started).total_seconds()) if started else marks.dash)
    lines = table(
        [number, step, value, *further, *parameters, took], width=width, ellipsis=marks.ellipsis, indent=2
    ).lines
    if len(snapshot.running) > count:
        lines.append([(f"  {marks.ellipsis} and {len(snapshot.running) - count} more", "dim")])
    return lines


def _last_value(entry: RunningTrial, decimals: Decimals, marks: Marks) -> str:
    return objective_text(finite(entry.value), clean(entry.value or "") or None, decimals, marks.dash)


def _events(snapshot: Snapshot, count: int, marks: Marks, decimals: Decimals) -> list[Line]:
    events = list(snapshot.events)[-count:]
    digits = max(len(str(event.trial.number)) for event in events)
    return [
        [
            (f"  {_when(snapshot, event)}  ", "dim"),
            marks.shape(event.trial.state),
            (f"  {event.trial.number:>{digits}}  ", ""),
            *event_words(event, decimals, snapshot.record.objective),
        ]
        for event in events
    ]


def event_words(event: Ended, decimals: Decimals, objective: Objective) -> Line:
    words = _event_words(event, decimals, objective)
    return [("revised: ", ""), *words] if event.revised else words


def _event_words(event: Ended, decimals: Decimals, objective: Objective) -> Line:
    trial = event.trial
    if trial.objective is None:
        return [(trial_sentence(trial), "")]
    value = objective_text(trial.objective_value, clean(trial.objective), decimals)
    if trial.state in (TrialState.EARLY_STOPPED, TrialState.KILLED):
        return [(f"{value}  {trial_sentence(trial)}", "")]
    if further := further_words(objective, trial):
        value += f"  {further}"
    if not trial.feasible:
        return [(value, ""), (f"  infeasible: {missed_words(objective, trial)}", "dim")]
    if event.new_best:
        was = f", was {decimals.text(event.before)}" if event.before is not None else ""
        return [(value, "bold"), (f"  new best{was}", "succeeded")]
    return [(value, "")]


def _when(snapshot: Snapshot, event: Ended) -> str:
    ended = event.trial.ended or snapshot.at
    start = snapshot.record.started or snapshot.record.created
    if (snapshot.at - start).total_seconds() < 3600:
        return clock((ended - start).total_seconds())
    return f"{ended.astimezone():%H:%M}"


def detached_lines(snapshot: Snapshot, decimals: Decimals | None = None) -> list[Line]:
    """After Ctrl-C: it goes on, and how to come back."""
    record = snapshot.record
    best = record.best
    words = f"{record.counts.finished} trials"
    if record.budget.max_trials is not None:
        words = f"{record.counts.finished} of {record.budget.max_trials} trials"
    if best is not None:
        value = objective_text(best.objective_value, best.objective, decimals or _decimals(snapshot))
        words += f", best {clean(value)}"
    name = addressed(record)
    width = max(len(f"evertune watch {name}"), 20) + 5
    return [
        [(f"Detached. {record.name} goes on: {words}.", "")],
        [(f"  {f'evertune watch {name}':<{width}}return to this view", "")],
        [(f"  {f'evertune stop {name}':<{width}}finish what runs, then end", "")],
    ]
