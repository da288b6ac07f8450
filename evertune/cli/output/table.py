"""Tables without borders: two spaces between columns, words left, numbers right.

What does not fit: `optional` columns go first, the last of them first, and are counted; then `shrinks` columns lose
their middle, and `wraps` columns, which hold sentences, go on below. Values never wrap: one line is one record.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from evertune.cli.output.text import Line, cut_middle, line_width, pad, width_of

GAP = 2
NARROWEST = 8

Cell = Line | str


@dataclass
class Column:
    header: str
    cells: list[Line] = field(default_factory=list)
    right: bool = False
    optional: bool = False  # may be left out
    shrinks: bool = False  # may lose its middle
    wraps: bool = False  # may go on in further lines: for sentences

    def add(self, cell: Cell) -> None:
        self.cells.append([(cell, "")] if isinstance(cell, str) else list(cell))

    def natural(self) -> int:
        return max([width_of(self.header), *(line_width(cell) for cell in self.cells)])


@dataclass(frozen=True)
class Rendered:
    lines: list[Line]
    hidden: list[str]  # headers of columns that did not fit


def table(
    columns: Sequence[Column],
    *,
    width: int | None = None,
    headers: bool = True,
    ellipsis: str = "…",
    indent: int = 0,
) -> Rendered:
    shown = list(columns)
    widths = [column.natural() for column in shown]
    hidden: list[str] = []
    if width is not None:
        while _total(widths, indent) > width:
            last = next((i for i in range(len(shown) - 1, -1, -1) if shown[i].optional), None)
            if last is None:
                break
            hidden.insert(0, shown.pop(last).header)
            widths.pop(last)
        _shrink(shown, widths, width - indent)
    lines = []
    if headers:
        lines.append(_row([[(column.header, "dim")] for column in shown], shown, widths, ellipsis, indent))
    for cells in zip(*(column.cells for column in shown), strict=True):
        lines += [_row(part, shown, widths, ellipsis, indent) for part in _parts(cells, shown, widths)]
    return Rendered(lines, hidden)


def _total(widths: Sequence[int], indent: int) -> int:
    return indent + sum(widths) + GAP * (len(widths) - 1)


def _shrink(shown: Sequence[Column], widths: list[int], width: int) -> None:
    """Take from the widest column that may shrink, until the row fits or nothing more can be taken."""
    while (excess := _total(widths, 0) - width) > 0:
        candidates = sorted(
            (i for i, column in enumerate(shown) if (column.shrinks or column.wraps) and widths[i] > NARROWEST),
            key=lambda i: -widths[i],
        )
        if not candidates:
            return
        widest = candidates[0]
        next_widest = widths[candidates[1]] if len(candidates) > 1 else NARROWEST
        widths[widest] -= min(excess, max(widths[widest] - max(next_widest, NARROWEST), 1))


def _parts(cells: Sequence[Line], shown: Sequence[Column], widths: Sequence[int]) -> list[list[Line]]:
    """One row as the lines it takes: more than one only where a cell has to wrap."""
    wrapped = [
        [[(text, cell[0][1])] for text in textwrap.wrap("".join(text for text, _ in cell), width)]
        if column.wraps and line_width(cell) > width
        else [cell]
        for cell, column, width in zip(cells, shown, widths, strict=True)
    ]
    return [list(part) for part in zip_longest(*wrapped, fillvalue=[("", "")])]


def _row(cells: Sequence[Line], shown: Sequence[Column], widths: Sequence[int], ellipsis: str, indent: int) -> Line:
    line: Line = [(" " * indent, "")] if indent else []
    for position, (cell, column, width) in enumerate(zip(cells, shown, widths, strict=True)):
        if position:
            line.append((" " * GAP, ""))
        if line_width(cell) > width:
            cell = [(cut_middle("".join(text for text, _ in cell), width, ellipsis), cell[0][1])]
        last = position == len(shown) - 1
        line += cell if last and not column.right else pad(cell, width, right=column.right)
    while line and not line[-1][0].strip():
        line.pop()
    return line
