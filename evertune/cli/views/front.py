"""`evertune best NAME` with several objectives: the Pareto front as a table, its hypervolume, and a picture of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, parameter_text, plural
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line, clean, fit, width_of
from evertune.cli.views.sentences import objectives_words
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.pareto import MOST_EXACT, Front
from evertune.domain.records import ExperimentRecord, TrialRecord

PICTURE = (60, 12)  # columns and rows
NARROWEST = 24


def front_lines(
    record: ExperimentRecord,
    found: Front,
    trials: Mapping[int, TrialRecord],
    marks: Marks,
    *,
    width: int | None = None,
    wide: bool = False,
) -> list[Line]:
    """The trials that no feasible one beats, the best in the first objective first."""
    objective = record.objective
    feasible = plural(len(found.numbers) + len(found.others), "feasible trial" if objective.constraints else "trial")
    head: Line = [
        ("Pareto front", "bold"),
        (f"  {len(found.numbers)} of {feasible}: {objectives_words(objective)}", ""),
    ]
    lines = [head, [], *_table(record, found, trials, marks, None if wide else width), [], _volume(objective, found)]
    if len(objective.objectives) == 2:
        lines += [[], *picture(objective, found, marks, width)]
    return lines


def _table(
    record: ExperimentRecord, found: Front, trials: Mapping[int, TrialRecord], marks: Marks, width: int | None
) -> list[Line]:
    number = Column("TRIAL", right=True)
    values = [Column(name, right=True) for name in record.objective.objectives]
    decimals = [Decimals(column) for column in zip(*found.values, strict=True)]
    parameters = [Column(parameter.name, right=parameter.numeric, optional=True) for parameter in record.space]
    for each, row in zip(found.numbers, found.values, strict=True):
        number.add(str(each))
        for column, digits, value in zip(values, decimals, row, strict=True):
            column.add(digits.text(value))
        typed = record.space.typed(trials[each].parameters)
        for column in parameters:
            column.add(clean(parameter_text(typed[column.header])) if column.header in typed else marks.dash)
    return table([number, *values, *parameters], width=width, ellipsis=marks.ellipsis).lines


def _volume(objective: Objective, found: Front) -> Line:
    if found.hypervolume is None:
        many = len(objective.objectives) > MOST_EXACT
        why = f"it is exact for at most {MOST_EXACT} objectives" if many else "it is too large a number"
        return [(f"no hypervolume: {why}", "dim")]
    pairs = zip(objective.objectives, found.reference, strict=True)
    point = ", ".join(f"{clean(metric)} {parameter_text(value, 4)}" for metric, value in pairs)
    return [("hypervolume ", ""), (parameter_text(found.hypervolume, 5), "bold"), (f"  up to {point}", "dim")]


def picture(objective: Objective, found: Front, marks: Marks, width: int | None) -> list[Line]:
    """All feasible trials by their two objectives, those on the front marked."""
    columns, rows = PICTURE
    first, second = (clean(metric) for metric in objective.objectives)
    low, high = _bounds([*found.values, *found.others])
    labels = [parameter_text(value, 4) for value in (high[1], low[1])]
    margin = max(width_of(label) for label in labels) + 1
    columns = max(NARROWEST, min(columns, (width or columns + margin + 2) - margin - 2))
    dot, star = (".", "o") if marks.ascii else ("·", "●")
    grid = [[" "] * columns for _ in range(rows)]
    for mark, points in ((dot, found.others), (star, found.values)):
        for x, y in points:
            column, row = _part(x, low[0], high[0], columns - 1), _part(y, low[1], high[1], rows - 1)
            grid[rows - 1 - row][column] = mark
    wall, corner, floor = ("|", "+", "-") if marks.ascii else ("│", "└", "─")
    sides = [labels[0], *[""] * (rows - 2), labels[1]]
    lines: list[Line] = [[(f"{second}, {_better(objective.directions[1], marks, across=False)}", "dim")]]
    for label, cells in zip(sides, grid, strict=True):
        lines.append([(f"{label:>{margin}} {wall}", "dim"), *_dots(cells, star)])
    lines.append([(f"{'':>{margin}} {corner}{floor * columns}", "dim")])
    left, right = parameter_text(low[0], 4), parameter_text(high[0], 4)
    gap = " " * max(columns - width_of(left) - width_of(right), 2)
    lines.append([(f"{'':>{margin}}  {left}{gap}{right}", "dim")])
    lines.append([(f"{'':>{margin}}  {first}, {_better(objective.directions[0], marks, across=True)}", "dim")])
    return lines if width is None else [fit(line, width, marks.ellipsis) for line in lines]


def _part(value: float, low: float, high: float, steps: int) -> int:
    """Which of `steps` + 1 places it has between `low` and `high`. Halves, since a range may be no double."""
    span = high / 2 - low / 2
    return round((value / 2 - low / 2) / span * steps) if span > 0 else 0


def _bounds(points: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    by_objective = list(zip(*points, strict=True))
    return tuple(min(values) for values in by_objective), tuple(max(values) for values in by_objective)


def _dots(cells: Sequence[str], star: str) -> Line:
    line: Line = []
    for cell in cells:
        style = "succeeded" if cell == star else ""
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + cell, style)
        else:
            line.append((cell, style))
    return line


def _better(direction: ObjectiveType, marks: Marks, *, across: bool) -> str:
    """Where the better values are."""
    up = direction is ObjectiveType.MAXIMIZE
    if across:
        return f"better to the {'right' if up else 'left'}"
    return f"better {'above' if up else 'below'} {marks.arrow(up=up)}"
