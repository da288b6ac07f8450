"""Katib's TEXT rules on bytes: which lines, which matches, which time. Called by `lines` and `explain`.

1. A line counts only if it contains a wanted metric name.
2. Its time is the text before the first blank, if that is RFC 3339 and does not lie (`times`); else it has none.
3. For each filter in order, each non-overlapping match: group 1, trimmed, is the name and group 2 the value. The match
   counts if the name is a wanted metric, exactly. The value is text: it need not be a number and may be empty.

Filters have RE2 semantics (ASCII classes, linear time). A point's `seq` is the offset of its value in the whole log:
different matches of a metric have different values at different places, and two filters that find the same value at
the same place report it once (the first filter's text counts). Unlike Katib, colours are removed first.

Speed: whole blocks are searched for wanted names, and only lines that have one are looked at. One search of RE2 is
linear, but a filter may search the rest of a line again for each match; a line that takes it longer than `PATIENCE_S`
is not searched to its end, and after `SLOW_LINES` of them only the first `SHORT` bytes of a line are.
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
QUICK = 256  # bytes of a line that cannot take long

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
        for index, pattern in enumerate(self._filters):
            for match in self._search(pattern, line, number):
                name, value = match.group(1, 2)
                yield Match((name or b"").strip(), (value or b"").strip(), match.span(1), _value_span(match), index)

    def _search(self, pattern: re2._Regexp, line: bytes, number: int) -> Iterator[re2._Match]:
        found: Iterator[re2._Match] = pattern.finditer(line if self._slow < SLOW_LINES else line[:SHORT])
        return found if len(line) <= QUICK else self._patiently(found, number)

    def _patiently(self, found: Iterator[re2._Match], number: int) -> Iterator[re2._Match]:
        begun = time.thread_time()
        for count, match in enumerate(found):
            yield match
            if count % 16 == 15 and time.thread_time() - begun > PATIENCE_S:
                self._slow += 1
                self.warnings.add("slow", number)
                return

    def _candidates(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Where the lines stand that contain a wanted name; a carriage return ends a line, too."""
        if b"\r" in block:
            block = block.replace(b"\r", b"\n")
        ahead = [(at, name) for name in self._names if (at := block.find(name)) >= 0]
        while ahead:
            first = min(ahead)[0] if len(ahead) > 1 else ahead[0][0]
            end = block.find(b"\n", first)
            if end < 0:
                end = len(block)
            yield block.rfind(b"\n", 0, first) + 1, end
            ahead = [(at if at > end else block.find(name, end), name) for at, name in ahead]
            if min(ahead)[0] < 0:
                ahead = [later for later in ahead if later[0] >= 0]

    def _add(self, line: bytes, offset: int, number: int, found: list[Point]) -> None:
        line = plain(line)
        wanted = self._wanted
        taken: set[tuple[str, int]] = set()
        moment: float | None = None
        for pattern in self._filters:
            for match in self._search(pattern, line, number):
                start, end = match.span(1)
                metric = wanted.get(line[start:end].strip()) if start >= 0 else None
                if metric is None:
                    continue
                start, end = _value_span(match)
                if (metric, start) in taken:
                    continue
                if not taken:
                    moment = self._clock.at_start(line, number)
                taken.add((metric, start))
                text = value_text(line[start:end].decode("utf-8", "replace"), self.warnings, number)
                found.append(Point(metric, text, offset + start, moment))


def _value_span(match: re2._Match) -> tuple[int, int]:
    """Where the value stands; behind the match when its group took no part."""
    span: tuple[int, int] = match.span(2)
    return span if span[0] >= 0 else (match.end(), match.end())


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
