"""One JSON object a line: metric files in Katib's JSON format, and what `evertune.report` appends. Pure; see `lines`.

A bad line costs that line: it is counted and the first one is named. Numbers keep the text they were written with, so
`0.10` stays `0.10`, and NaN and Infinity are text like any other. All metrics of a line share its place in the source.

`MetricLines` - `{"loss": "0.3", "acc": 0.9, "timestamp": …, "global_step": "5"}`, one key a wanted metric (the format
of cloudml-hypertune). Unlike Katib, numbers count as well as strings; true, false, null, lists and objects do not.
`timestamp` is RFC 3339 or seconds since the epoch, whose fraction is a fraction (Katib reads its digits as
nanoseconds). `step`, `global_step` or `epoch`, an integer, becomes the point's step.

`ReportLines` - `{"metrics": {"loss": 0.3}, "step": 5, "time": 1732620000.1}`: every name is kept, wanted or not,
because somebody reported it on purpose; at most NAMES_LIMIT that are not wanted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from collectors.text import value_text
from collectors.times import Clock, parsed
from collectors.warnings import SAID, Warnings
from evertune.domain.metrics import Point

STEP_KEYS = ("step", "global_step", "epoch")
NAMES_LIMIT = 256  # distinct names an attempt, as at the gateway
NAME_LIMIT = 512  # characters, as at the gateway
STEP_LIMIT = 1 << 63

_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


class MetricLines:
    def __init__(self, metrics: Sequence[str], warnings: Warnings | None = None) -> None:
        self.warnings = warnings or Warnings()
        self._metrics = metrics
        self._clock = Clock(self.warnings)
        self._lines = 0

    def points(self, block: bytes, offset: int) -> list[Point]:
        """What whole lines report; `offset` is where they start in the whole file."""
        found: list[Point] = []
        for number, line, at in _lines(block, self._lines):
            if (entry := json_object(line)) is None:
                self.warnings.add("json", number, line[:SAID].decode("utf-8", "replace"))
                continue
            texts = [(metric, text) for metric in self._metrics if isinstance(text := entry.get(metric), str)]
            if not texts:
                continue
            time = self.time(entry, number)
            step = step_of(entry)
            for metric, text in texts:
                found.append(Point(metric, value_text(text, self.warnings, number), offset + at, time, step))
        self._lines += block.count(b"\n")
        return found

    def names(self, line: bytes) -> Iterator[str]:
        for key, value in (json_object(line) or {}).items():
            if isinstance(value, str) and key != "timestamp":
                yield key

    def time(self, entry: dict[str, Any], number: int = 1) -> float | None:
        said = entry.get("timestamp")
        if not isinstance(said, str):
            return None
        seconds = self._clock.rfc3339(said.encode(), number)
        if seconds is not None or parsed(said.encode()) is not None:
            return seconds
        return _seconds(self._clock, said, number)


class ReportLines:
    """What was pushed, or scraped: `metrics` are those that never count against the limit of names."""

    def __init__(self, metrics: Sequence[str], warnings: Warnings | None = None, *, among_text: bool = False) -> None:
        """`among_text`: other lines are what a program prints besides, and no reason to warn."""
        self._among_text = among_text
        self.warnings = warnings or Warnings()
        self.seen: dict[str, None] = {}
        self._wanted = frozenset(metrics)
        self._others: set[str] = set()
        self._clock = Clock(self.warnings)
        self._lines = 0

    def points(self, block: bytes, offset: int) -> list[Point]:
        found: list[Point] = []
        for number, line, at in _lines(block, self._lines):
            entry = json_object(line)
            metrics = entry.get("metrics") if entry else None
            if entry is None or not isinstance(metrics, dict):
                if not self._among_text:
                    self.warnings.add("report", number, line[:SAID].decode("utf-8", "replace"))
                continue
            said = entry.get("time")
            time = _seconds(self._clock, said, number) if isinstance(said, str) else None
            step = _integer(entry.get("step"))
            for name, text in metrics.items():
                if isinstance(text, str) and self._known(name, number):
                    found.append(Point(name, value_text(text, self.warnings, number), offset + at, time, step))
        self._lines += block.count(b"\n")
        return found

    def names(self, line: bytes) -> Iterator[str]:
        yield from self.seen

    def _known(self, name: str, number: int) -> bool:
        if name not in self._wanted and name not in self._others:
            if not 0 < len(name) <= NAME_LIMIT:
                self.warnings.add("name", number, name)
                return False
            if len(self._others) + len(self._wanted) >= NAMES_LIMIT:
                self.warnings.add("names", number, name)
                return False
            self._others.add(name)
        self.seen.setdefault(name)
        return True


def json_object(line: bytes) -> dict[str, Any] | None:
    """A line's object, its numbers as text; None for anything else."""
    try:
        entry = _DECODER.decode(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def step_of(entry: dict[str, Any]) -> int | None:
    for key in STEP_KEYS:
        if (step := _integer(entry.get(key))) is not None:
            return step
    return None


def _lines(block: bytes, before: int) -> Iterator[tuple[int, bytes, int]]:
    """Each line that is not blank, with its number and its place."""
    at = 0
    lines = (block.replace(b"\r", b"\n") if b"\r" in block else block).split(b"\n")
    for number, line in enumerate(lines, before + 1):
        if line and not line.isspace():
            yield number, line, at
        at += len(line) + 1


def _integer(value: object) -> int | None:
    """A whole number, also one written `5.0` or as text; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= 32:
        return None
    try:
        number = int(value) if value.lstrip("+-").isdecimal() else float(value)
        return int(number) if number == int(number) and abs(number) < STEP_LIMIT else None
    except (ValueError, OverflowError):
        return None


def _seconds(clock: Clock, text: str, number: int) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return clock.believed(seconds, number) if seconds == seconds else None
