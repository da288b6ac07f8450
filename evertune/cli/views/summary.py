"""The last words of `run` and `watch`: what came out, by how much, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from evertune.cli.follow.snapshot import Snapshot
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, clock, objective_text, parameter_text, plural
from evertune.cli.output.text import Line, clean, joined, pad, width_of, wrapped, wrapped_line
from evertune.cli.views.sentences import (
    best_word,
    experiment_sentence,
    group_failures,
    missed_words,
    next_commands,
    numbers_words,
    over_defaults,
    spread_words,
)
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState


def summary_lines(
    snapshot: Snapshot, *, marks: Marks, failed: Sequence[TrialRecord] = (), width: int | None = None
) -> list[Line]:
    record = snapshot.record
    lines = wrapped_line(_verdict(snapshot, marks, failures_follow=bool(failed)), width, indent=2)
    rows = _best_rows(record, marks)
    if record.state is ExperimentState.FAILED:
        lines += [[], *_failures(failed, width)] if failed else []
        rows = rows if record.counts.finished > record.counts.charged else []
    if rows:
        lines += [[], *rows]
    return [*lines, [], *_counts(snapshot, marks)]


LONGEST_ALIGNED = 60  # columns of a command


def next_lines(commands: Sequence[tuple[str, str]]) -> list[Line]:
    """`command   what for`, in columns. A long command, with a filter in it say, moves no other's purpose away."""
    short = [width for command, _ in commands if (width := width_of(command)) <= LONGEST_ALIGNED]
    width = max(short, default=0) + 4
    return [[(f"  {command:<{max(width, len(command) + 4)}}", ""), (purpose, "dim")] for command, purpose in commands]


def after(record: ExperimentRecord) -> list[Line]:
    return next_lines(next_commands(record))


def _verdict(snapshot: Snapshot, marks: Marks, *, failures_follow: bool) -> Line:
    record = snapshot.record
    line: Line = [(record.name, "bold"), ("  ", ""), *marks.state(record.state)]
    start, end = record.started or record.created, record.ended or snapshot.at
    words = "after" if record.state.terminal else "for"
    line.append((f" {words} {clock((end - start).total_seconds())}", ""))
    sentence = experiment_sentence(record)
    if failures_follow:
        sentence = sentence.partition("; the last one: ")[0]
    if sentence:
        line.append((f": {sentence}", ""))
    return line


def _best_rows(record: ExperimentRecord, marks: Marks) -> list[Line]:
    best = record.best
    if best is None:
        return []
    decimals = Decimals([best.objective_value])
    value = clean(objective_text(best.objective_value, best.objective, decimals, marks.dash))
    typed = record.space.typed(best.parameters)
    label = f"{best_word(best)} {record.objective.metric}"
    further = [(metric, best.metrics.get(metric, marks.dash)) for metric in record.objective.objectives[1:]]
    column = max(width_of(name) for name in (label, *typed, *dict(further))) + 3
    texts = [(metric, clean(text)) for metric, text in further]
    texts += [(name, clean(parameter_text(entry))) for name, entry in typed.items()]
    line: Line = [("  ", ""), *pad([(label, "")], column), (value, "bold"), (f"   trial {best.number}", "")]
    if deviation := spread_words(best, record.objective.metric):
        line.insert(-1, (f" {deviation}", ""))
    if not best.feasible:
        line.append((f"   no feasible trial: {missed_words(record.objective, best)}", "warning"))
    if compared := over_defaults(record):
        line.append((f"   {compared}", "succeeded" if "no improvement" not in compared else "dim"))
    return [line, *([("  ", ""), *pad([(name, "")], column), (text, "")] for name, text in texts)]


def _counts(snapshot: Snapshot, marks: Marks) -> list[Line]:
    counts = snapshot.record.counts
    label = plural(counts.finished, "trial")
    shapes = joined(marks.counted(counts, running=False), "  ")
    column = max(width_of(label), 5) + 3
    lines: list[Line] = [[("  ", ""), *pad([(label, "")], column), *shapes]]
    if (idle := _idle(snapshot)) is not None:
        lines.append([("  ", ""), *pad([("slots", "")], column), (f"idle {idle:.1f} % of the time", "")])
    return lines


def _idle(snapshot: Snapshot) -> float | None:
    """How much of the slots' time no trial ran, in percent; None where a pause makes the figure meaningless."""
    record = snapshot.record
    if record.started is None or record.ended is None or record.state is not ExperimentState.SUCCEEDED:
        return None
    if not snapshot.busy_s or snapshot.audit:
        return None
    available = (record.ended - record.started).total_seconds() * record.budget.parallel
    return max(0.0, min(100.0, 100.0 * (1.0 - snapshot.busy_s / available))) if available > 0 else None


def _failures(failed: Sequence[TrialRecord], width: int | None) -> list[Line]:
    groups = group_failures(failed)[:4]
    labels = [numbers_words(numbers) for _, numbers in groups]
    column = max((len(label) for label in labels), default=0) + 3
    lines: list[Line] = []
    for label, (sentence, _) in zip(labels, groups, strict=True):
        room = None if width is None else max(width - column - 2, 20)
        first, *more = wrapped(sentence, room)
        lines.append([(f"  {label:<{column}}", ""), (first, "failed")])
        lines += [[(" " * (column + 2), ""), (text, "failed")] for text in more]
    return lines
