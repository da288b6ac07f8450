"""Katib's TEXT rules on bytes: which lines, which matches, which time. Called by `lines` and `explain`.

1. A line counts only if it contains a wanted metric name.
2. Its time is the text before the first blank, if that is RFC 3339 and does not lie (`times`); else it has none.
3. For each filter in order, each non-overlapping match: group 1, trimmed, is the name and group 2 the value. The match
   counts if the name is a wanted metric, exactly. The value is text: it need not be a number and may be empty.

Filters have RE2 semantics (ASCII classes, linear time). A point's `seq` is the offset of its value in the whole log:
different matches of a metric have different values at different places, and two filters that find the same value at
the same place report it once (the first filter's text counts). Unlike Katib, colours are removed first.

Speed: whole blocks are searched for wanted names, and only lines that have one are looked at. One search of RE2 is
linear, but a filter may search the rest of a line again for each match; a line that takes longer than `PATIENCE_S` is
not searched to its end, and after `SLOW_LINES` of them only the first `SHORT` bytes of a line are searched.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import re2

from collectors.times import Clock
from collectors.warnings import Warnings
from evertune.domain.metrics import Point

# Katib's; everything after `=` is optional, so `loss=nan` gives an empty value.
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
VALUE_LIMIT = 64 << 10  # bytes of a value, as at the gateway
PATIENCE_S = 1.0
SLOW_LINES = 10
SHORT = 16 << 10

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_BAD_BYTE = re.compile("[\udc80-\udcff]")


class Match(NamedTuple):
    """What a filter found in a line: name and value, trimmed, where the groups stand, and the filter's number."""

    name: bytes
    value: bytes
    name_span: tuple[int, int]
    value_span: tuple[int, int]
    filter: int


class TextRules:
    def __init__(self, metrics: Sequence[str], filters: Sequence[str] = (), warnings: Warnings | None = None) -> None:
        """ValueError for a filter that is not RE2 or has fewer than two groups."""
        self.warnings = warnings or Warnings()
        self._wanted = {metric.encode(): metric for metric in metrics}
        self._names = list(self._wanted)
        self._filters = [compile_filter(text) for text in filters or (DEFAULT_FILTER,)]
        self._clock = Clock(self.warnings)
        self._lines = 0  # before the block at hand
        self._slow = 0

    def points(self, block: bytes, offset: int) -> list[Point]:
        """What whole lines (or one without its end) report; `offset` is where they start in the whole log."""
        found: list[Point] = []
        number, counted = self._lines + 1, 0
        for start, end in self._candidates(block):
            number += block.count(b"\n", counted, start)
            counted = start
            self._add(block[start:end], offset + start, number, found)
        self._lines = number - 1 + block.count(b"\n", counted)
        return found

    def time(self, line: bytes, number: int = 1) -> float | None:
        return self._clock.at_start(line, number)

    def names(self, line: bytes) -> Iterator[str]:
        """Every name that a filter finds in the line, wanted or not."""
        for match in self.matches(plain(line)):
            yield match.name.decode("utf-8", "replace")

    def matches(self, line: bytes, number: int = 1) -> Iterator[Match]:
        """Every match in a `plain` line, filter by filter."""
        if self._slow >= SLOW_LINES:
            line = line[:SHORT]
        begun = time.thread_time() if len(line) > 256 else None
        for index, pattern in enumerate(self._filters):
            for count, match in enumerate(pattern.finditer(line)):
                name, value = match.group(1, 2)
                at = match.span(2) if value is not None else (match.end(), match.end())
                yield Match((name or b"").strip(), (value or b"").strip(), match.span(1), at, index)
                if begun is not None and count % 16 == 15 and time.thread_time() - begun > PATIENCE_S:
                    self._slow += 1
                    self.warnings.add("slow", number)
                    return

    def _candidates(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Where the lines stand that contain a wanted name; a carriage return ends a line, too."""
        if b"\r" in block:
            block = block.replace(b"\r", b"\n")
        ahead = [(at, name) for name in self._names if (at := block.find(name)) >= 0]
        while ahead:
            first = min(ahead)[0]
            start = block.rfind(b"\n", 0, first) + 1
            end = block.find(b"\n", first)
            end = len(block) if end < 0 else end
            yield start, end
            ahead = [(later, name) for at, name in ahead if (later := at if at >= end else block.find(name, end)) >= 0]

    def _add(self, line: bytes, offset: int, number: int, found: list[Point]) -> None:
        line = plain(line)
        taken: set[tuple[str, int]] = set()
        time: float | None = None
        for name, value, _, (at, _), _ in self.matches(line, number):
            metric = self._wanted.get(name)
            if metric is None or (metric, at) in taken:
                continue
            if not taken:
                time = self.time(line, number)
            taken.add((metric, at))
            text = value_text(value.decode("utf-8", "replace"), self.warnings, number)
            found.append(Point(metric, text, offset + at, time))


def compile_filter(text: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(text.encode(), options)
    except re2.error as error:
        raise ValueError(f"{text!r} is not a regular expression of RE2: {_said(error)}") from None
    if pattern.groups < 2:
        raise ValueError(f"{text!r} needs two groups, the metric's name and its value; it has {pattern.groups}")
    return pattern


def plain(line: bytes) -> bytes:
    """Without colours, and valid UTF-8: what is not becomes `?`, one for one, so that offsets stay inside the line."""
    if b"\x1b" in line:
        line = _ESCAPES.sub(b"", line)
    try:
        line.decode()
    except UnicodeDecodeError:
        return _BAD_BYTE.sub("?", line.decode("utf-8", "surrogateescape")).encode()
    return line


def value_text(text: str, warnings: Warnings, number: int) -> str:
    """A value as it is kept: trimmed, at most VALUE_LIMIT bytes, and without what some database refuses."""
    text = text.strip()
    if not text.isascii() or "\0" in text:  # half a character of a JSON escape; NUL is no text for PostgreSQL
        text = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if len(text) > VALUE_LIMIT // 4 and len(encoded := text.encode()) > VALUE_LIMIT:
        warnings.add("long", number)
        return encoded[:VALUE_LIMIT].decode("utf-8", "ignore")
    return text


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
