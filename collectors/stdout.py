"""The StdOut collector: metric points from a log that grows.

Reads on from where it stopped, in blocks; a line counts once its end is there (a newline, or the carriage return of a
progress bar). `seq` is the offset of the value in everything that was ever in the log, so it is unique for a metric and
reading again, from any process and in any pieces, gives the same points. When the log was truncated or replaced, what
was read before still counts in the offset; that sum is kept beside the log (`log.base`) for a later reader.

Memory is bounded: a line longer than `LINE_LIMIT` is read as several.
"""

from __future__ import annotations

import os
from pathlib import Path

from collectors.text import TextRules, plain
from evertune.domain.metrics import Point
from evertune.protocols import CollectorSpec, Findings

BLOCK = 1 << 20
LINE_LIMIT = 1 << 20
TAIL = 1 << 18  # of the log, for the findings
LAST_LINES = 20
LINE_SHOWN = 500
NAMES_SHOWN = 50


class StdOutCollector:
    def __init__(self, spec: CollectorSpec, log: Path) -> None:
        self._log = log
        self._rules = TextRules(spec.metrics, spec.filters)
        self._base_file = log.with_name(log.name + ".base")
        self._base = self._read_base()
        self._inode: int | None = None
        self._consumed = 0  # bytes of this file that are points, or lines without any
        self._pending = bytearray()  # the start of a line whose end is not there yet

    def has_more(self) -> bool:
        try:
            status = self._log.stat()
        except FileNotFoundError:
            return False
        return status.st_size != self._consumed + len(self._pending) or self._inode not in (None, status.st_ino)

    def read(self) -> list[Point]:
        points: list[Point] = []
        try:
            status = self._log.stat()
        except FileNotFoundError:
            return points
        position = self._consumed + len(self._pending)
        if status.st_size < position or self._inode not in (None, status.st_ino):
            self._start_over(position)
            position = 0
        self._inode = status.st_ino
        if status.st_size == position:
            return points
        with self._log.open("rb") as log:
            log.seek(position)
            while block := log.read(BLOCK):
                self._pending += block
                points += self._complete_lines()
        return points

    def finish(self) -> list[Point]:
        points = self.read()
        rest = bytes(self._pending)
        points += self._rules.points(rest, self._base + self._consumed)
        self._consumed += len(rest)
        self._pending.clear()
        return points

    def findings(self) -> Findings:
        """Reads the end of the log again: asked only when the objective is missing."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
                tail = log.read()
        except FileNotFoundError:
            return Findings()
        lines = [line for line in tail.replace(b"\r", b"\n").split(b"\n") if line.strip()]
        names: dict[str, None] = {}
        for line in lines:
            if len(names) < NAMES_SHOWN:
                names.update(dict.fromkeys(name for name in self._rules.names(line) if name))
        shown = [plain(line).decode().rstrip()[:LINE_SHOWN] for line in lines[-LAST_LINES:]]
        return Findings(last_lines=tuple(shown), names_seen=tuple(names)[:NAMES_SHOWN])

    def _complete_lines(self) -> list[Point]:
        points: list[Point] = []
        *lines, rest = bytes(self._pending).replace(b"\r", b"\n").split(b"\n")
        offset = self._base + self._consumed
        for line in lines:
            for start in range(0, len(line), LINE_LIMIT):
                points += self._rules.points(line[start : start + LINE_LIMIT], offset + start)
            offset += len(line) + 1
        while len(rest) >= LINE_LIMIT:
            points += self._rules.points(rest[:LINE_LIMIT], offset)
            rest = rest[LINE_LIMIT:]
            offset += LINE_LIMIT
        self._consumed = offset - self._base
        self._pending = bytearray(rest)
        return points

    def _start_over(self, lost: int) -> None:
        self._base += lost
        self._consumed = 0
        self._pending.clear()
        new = self._base_file.with_name(self._base_file.name + ".new")
        new.write_text(f"{self._base}\n", encoding="ascii")
        new.replace(self._base_file)

    def _read_base(self) -> int:
        try:
            return int(self._base_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0
