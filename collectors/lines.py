"""A collector over one growing file: `tail` finds the lines, rules of a format find the points.

Made by `collectors.create` for logs, metric files, pushed reports and scraped samples. A `read` is bounded, so that a
log of gigabytes costs megabytes; `has_more` stays true. `findings` reads the end of the file again, which is asked for
only when the objective is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from collectors.suggest import suggested_filter
from collectors.tail import Block, Tail, end_of
from collectors.text import plain
from collectors.warnings import Warnings, shown
from evertune.domain.metrics import SOURCE, Point, place
from evertune.protocols import Findings

READ_BYTES = 32 << 20
READ_POINTS = 20_000
END = 1 << 18  # of the file, for the findings
LAST_LINES = 20
LINE_SHOWN = 500  # characters
NAMES_SHOWN = 50


class Rules(Protocol):
    warnings: Warnings

    def points(self, block: bytes, offset: int) -> list[Point]: ...

    def names(self, line: bytes) -> Iterator[str]: ...


class FileCollector:
    def __init__(
        self, tail: Tail, rules: Rules, *, source: int = SOURCE, objective: str = "", expected: bool = False
    ) -> None:
        """`objective`: suggest a filter for it when it was not found; empty when filters have no say.

        `expected`: the user named the file, so its absence is worth a warning.
        """
        self._tail = tail
        self._rules = rules
        self._source = source
        self._objective = objective
        self._expected = expected

    def has_more(self) -> bool:
        return self._tail.has_more()

    def read(self) -> list[Point]:
        points: list[Point] = []
        size = 0
        for block in self._blocks(last=False):
            for offset, data in block:
                points += self._of(data, offset)
                size += len(data)
            if size >= READ_BYTES or len(points) >= READ_POINTS:
                break
        return points

    def finish(self) -> list[Point]:
        return [
            point for block in self._blocks(last=True) for offset, data in block for point in self._of(data, offset)
        ]

    def _blocks(self, *, last: bool) -> Iterator[Block]:
        try:
            yield from self._tail.blocks(last=last)
        except PermissionError as error:  # the user's to mend; waiting would not
            self._rules.warnings.say(f"{self._tail.path} cannot be read: {error.strerror}")

    def warnings(self) -> tuple[str, ...]:
        return self._rules.warnings.sentences()

    def findings(self) -> Findings:
        try:
            lines = _lines(end_of(self._tail.path, END))
        except PermissionError:
            lines = []
        if self._expected and not self._tail.path.is_file():
            is_there = self._tail.path.exists()
            self._rules.warnings.say(f"{self._tail.path} {'is not a file' if is_there else 'was never written'}")
        names: dict[str, None] = {}
        for line in lines:
            for name in self._rules.names(line):
                if name and len(names) < NAMES_SHOWN:
                    names[name] = None
        suggestion = suggested_filter(self._objective, map(plain, lines)) if self._objective else ""
        return Findings(
            last_lines=_shown(lines),
            names_seen=tuple(names),
            suggested_filter=suggestion,
            warnings=self._rules.warnings.sentences(),
        )

    def _of(self, data: bytes, offset: int) -> Sequence[Point]:
        points = self._rules.points(data, offset)
        if self._source == SOURCE:
            return points
        return [replace(point, seq=place(self._source, point.seq)) for point in points]


def last_lines(path: Path) -> tuple[str, ...]:
    """The last lines of a file that are not blank, without colours; empty without a file."""
    return _shown(_lines(end_of(path, END)))


def _lines(text: bytes) -> list[bytes]:
    return [line for line in text.replace(b"\r", b"\n").split(b"\n") if line.strip()]


def _shown(lines: list[bytes]) -> tuple[str, ...]:
    return tuple(shown(plain(line).decode().rstrip()[:LINE_SHOWN]) for line in lines[-LAST_LINES:])
