"""Katib's TEXT rules on bytes: which lines, which matches, which time. Pure; called by `stdout`, and by `reparse`.

1. A line counts only if it contains a wanted metric name.
2. Its time is the text before the first blank, if that is RFC 3339; else it has none.
3. For each filter in order, each non-overlapping match: group 1, trimmed, is the name and group 2 the value. The match
   counts if the name is a wanted metric, exactly. The value is text: it need not be a number and may be empty.

Filters have RE2 semantics (ASCII classes, linear time). A point's `seq` is the offset of its value in the whole log:
different matches of a metric have different values at different places, and two filters that find the same value at
the same place report it once (the first filter's text counts). Unlike Katib, colours are removed first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import re2

from evertune.domain.metrics import Point

# Katib's; everything after `=` is optional, so `loss=nan` gives an empty value.
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_RFC3339 = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)")
_BAD_BYTE = re.compile("[\udc80-\udcff]")


class TextRules:
    def __init__(self, metrics: Sequence[str], filters: Sequence[str] = ()) -> None:
        """ValueError for a filter that is not RE2 or has fewer than two groups."""
        self._names = [metric.encode() for metric in metrics]
        self._wanted = {metric.encode(): metric for metric in metrics}
        self._filters = [compile_filter(text) for text in filters or (DEFAULT_FILTER,)]

    def points(self, line: bytes, offset: int) -> list[Point]:
        """What one line without its end reports; `offset` is where it starts in the whole log."""
        if not any(name in line for name in self._names):
            return []
        line = plain(line)
        found: list[Point] = []
        taken: set[tuple[str, int]] = set()
        time: float | None = None
        for name, value, at in self._matches(line):
            metric = self._wanted.get(name)
            if metric is None or (metric, at) in taken:
                continue
            if not found:
                time = timestamp(line)
            taken.add((metric, at))
            found.append(Point(metric, value.decode("utf-8", "replace").strip(), offset + at, time))
        return found

    def names(self, line: bytes) -> Iterator[str]:
        """Every name that a filter finds in the line, wanted or not."""
        for name, _, _ in self._matches(plain(line)):
            yield name.decode("utf-8", "replace")

    def _matches(self, line: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        for pattern in self._filters:
            for match in pattern.finditer(line):
                name, value = match.group(1, 2)
                yield (name or b"").strip(), value or b"", match.end() if value is None else match.start(2)


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


def timestamp(line: bytes) -> float | None:
    """UTC seconds since the epoch."""
    token, blank, _ = line.partition(b" ")
    if not blank or not _RFC3339.fullmatch(token):
        return None
    text = token.decode().replace(",", ".")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # the 31st of February
        return None


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
