"""`evertune metrics NAME`: a row for each metric of each trial, with the shape of its series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals
from evertune.cli.output.table import Column, Rendered, table
from evertune.cli.output.text import clean, cut_end
from evertune.domain.metrics import Point, finite

SPARK = 16  # characters
TEXT_SHOWN = 40  # characters of a value that is no number; `-o json` has all of it


@dataclass(frozen=True)
class Summed:
    """One series: how many values, their extremes, the last one, and a few points that show its shape."""

    trial: int
    attempt: int
    metric: str
    count: int
    low: float | None
    high: float | None
    latest: str
    curve: Sequence[Point]

    @property
    def steps(self) -> tuple[int, int] | None:
        """The first and the last step, where the source knows steps."""
        steps = [point.step for point in self.curve if point.step is not None]
        return (min(steps), max(steps)) if steps else None


def metrics_table(
    rows: Sequence[Summed], *, marks: Marks, width: int | None, attempts: bool = False, headers: bool = True
) -> Rendered:
    """`attempts`: with a column that says which attempt it was."""
    trial, attempt, metric = Column("TRIAL", right=True), Column("ATTEMPT", right=True), Column("METRIC", shrinks=True)
    count = Column("COUNT", right=True)
    low, high, last = Column("MIN", right=True), Column("MAX", right=True), Column("LATEST", right=True, shrinks=True)
    steps, curve = Column("STEPS", right=True, optional=True), Column("CURVE", optional=True)
    for row in rows:
        decimals = Decimals([row.low, row.high])
        trial.add(str(row.trial))
        attempt.add(str(row.attempt))
        metric.add(clean(row.metric))
        count.add(f"{row.count:,}")
        low.add(marks.dash if row.low is None else decimals.text(row.low))
        high.add(marks.dash if row.high is None else decimals.text(row.high))
        number = finite(row.latest)
        text = cut_end(clean(row.latest), TEXT_SHOWN, marks.ellipsis) or '""'
        last.add(text if number is None else decimals.text(number))
        steps.add(_steps(row, marks))
        numbers = [number for point in row.curve if (number := point.number) is not None]
        curve.add([(marks.spark(numbers, SPARK), "running")])
    shown = [trial, *([attempt] if attempts else []), metric, count, low, high, last, steps, curve]
    return table(shown, width=width, headers=headers, ellipsis=marks.ellipsis)


def _steps(row: Summed, marks: Marks) -> str:
    if row.steps is None:
        return marks.dash
    first, last = row.steps
    return str(first) if first == last else f"{first}{marks.dash}{last}"
