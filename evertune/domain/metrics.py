"""Metric points and the rules that turn a series into one objective value.

Katib's rules (`min`, `max`, `latest` per metric; the objective falls back to `latest` when nothing is numeric)
with a total order: points are taken by (timestamp, seq), so equal timestamps keep the order of the source.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


class ObjectiveType(StrEnum):
    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Strategy(StrEnum):
    MIN = "min"
    MAX = "max"
    LATEST = "latest"


OFFSET_BITS = 42  # of a `seq`: 4 TiB of one source; the 21 bits above say which of an attempt's sources it is
SOURCE = 0  # what the experiment's collector reads: the log, the file, the scraped samples
PUSHED = 1  # what `evertune.report` wrote
FIRST_EVENT_FILE = 2  # event files of a directory, by their relative path: see `event_source`
_SOURCES = 1 << 21
_ORIGIN_BITS = 6  # the highest of an offset, where pods replace each other: 64 GiB of each source of a pod
_ORIGINS = 1 << _ORIGIN_BITS


def place(source: int, offset: int) -> int:
    """The `seq` of what stands at `offset` bytes of an attempt's `source`: the same whoever reads it, and how often."""
    return (source % _SOURCES) << OFFSET_BITS | offset


def event_source(relative_path: str) -> int:
    """The source number of an event file. Two files of one attempt share one with a chance of 1 in 2,000,000."""
    return FIRST_EVENT_FILE + zlib.crc32(relative_path.encode("utf-8", "surrogateescape")) % (
        _SOURCES - FIRST_EVENT_FILE
    )


def of_origin(seq: int, ordinal: int) -> int:
    """The `seq` in an attempt's series of what the `ordinal`-th of its origins calls `seq`: a later one comes after."""
    return seq + (min(ordinal, _ORIGINS - 1) << OFFSET_BITS - _ORIGIN_BITS)


def ranges_of_origin(ranges: Iterable[tuple[int, int]], ordinal: int) -> list[tuple[int, int]]:
    """Half-open ranges of `seq`, each within one source of one origin, as what they are in the attempt's series."""
    found = []
    for low, high in ranges:
        begin = low >> OFFSET_BITS << OFFSET_BITS
        high = min(high, begin + (1 << OFFSET_BITS - _ORIGIN_BITS))  # behind it the next origin begins
        if low < high:
            found.append((of_origin(low, ordinal), of_origin(high, ordinal)))
    return found


@dataclass(frozen=True, slots=True)
class Point:
    """One reported value. `seq` orders points of one attempt and derives from where it was reported (see `place`).

    `timestamp` is UTC seconds since the epoch, None when the source has none; `value` is the text as reported; `step`
    is the program's own count, None where the source knows none.
    """

    metric: str
    value: str
    seq: int
    timestamp: float | None = None
    step: int | None = None

    @property
    def number(self) -> float | None:
        """The value as a finite double, else None (text, NaN, infinity, empty)."""
        return finite(self.value)


def placed(points: Sequence[Point], ordinal: int) -> Sequence[Point]:
    """What the `ordinal`-th origin of an attempt reports, at its places in the attempt's series."""
    return points if ordinal == 0 else [replace(point, seq=of_origin(point.seq, ordinal)) for point in points]


def finite(text: str | None) -> float | None:
    """The text as a finite double, as Katib's Go reads it: `1_000` and digits beyond ASCII are not numbers."""
    if text is None or "_" in text or not text.isascii():
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """min, max and latest of one metric, as reported text; None where no point qualifies."""

    metric: str
    min: str | None
    max: str | None
    latest: str | None

    def pick(self, strategy: Strategy) -> str | None:
        chosen = {Strategy.MIN: self.min, Strategy.MAX: self.max, Strategy.LATEST: self.latest}[strategy]
        return chosen if chosen is not None else self.latest


@dataclass(frozen=True, slots=True)
class Further:
    """An objective beside the first one."""

    metric: str
    type: ObjectiveType


UNKNOWN_VIOLATION = 1e308  # of a constraint whose metric was not reported: worse than any that was


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on a metric: at most `le`, at least `ge`; one of the two is None."""

    metric: str
    le: float | None = None
    ge: float | None = None

    def violation(self, value: float | None) -> float:
        """By how much it is missed, at most 0 where it holds; infinite without a value."""
        if value is None:
            return math.inf
        return value - self.le if self.le is not None else (self.ge or 0.0) - value

    def __str__(self) -> str:
        return f"{self.metric} <= {self.le:g}" if self.le is not None else f"{self.metric} >= {self.ge:g}"


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimized. `further` objectives and `constraints` name metrics that are collected with the others."""

    type: ObjectiveType
    metric: str
    goal: float | None = None
    additional: tuple[str, ...] = ()
    strategies: Mapping[str, Strategy] = field(default_factory=dict)
    further: tuple[Further, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that are collected, the objective first, each once."""
        further = (each.metric for each in self.further)
        constrained = (constraint.metric for constraint in self.constraints)
        return tuple(dict.fromkeys((self.metric, *self.additional, *further, *constrained)))

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metrics that are optimized, the first one first."""
        return (self.metric, *(each.metric for each in self.further))

    @property
    def directions(self) -> tuple[ObjectiveType, ...]:
        return (self.type, *(each.type for each in self.further))

    def strategy(self, metric: str) -> Strategy:
        """The user's; else the best value of an objective, the last one of what is only constrained."""
        if metric in self.strategies:
            return self.strategies[metric]
        directions = {each.metric: each.type for each in self.further} | {self.metric: self.type}
        if metric not in directions and any(constraint.metric == metric for constraint in self.constraints):
            return Strategy.LATEST
        return Strategy.MIN if directions.get(metric, self.type) is ObjectiveType.MINIMIZE else Strategy.MAX

    def values(self, metrics: Mapping[str, str]) -> tuple[float | None, ...]:
        """Of all objectives, from what a trial has by metric (see `chosen`)."""
        return tuple(finite(metrics.get(metric)) for metric in self.objectives)

    def losses(self, metrics: Mapping[str, str]) -> tuple[float, ...] | None:
        """The values of all objectives as numbers to minimize; None when one of them is no number."""
        values = self.values(metrics)
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        pairs = zip(known, self.directions, strict=True)
        return tuple(value if direction is ObjectiveType.MINIMIZE else -value for value, direction in pairs)

    def violations(self, metrics: Mapping[str, str]) -> tuple[float, ...]:
        return tuple(constraint.violation(finite(metrics.get(constraint.metric))) for constraint in self.constraints)

    def violation(self, metrics: Mapping[str, str]) -> float:
        """By how much all constraints together are missed: 0 for a feasible trial. Finite, for every database."""
        return min(sum(max(violation, 0.0) for violation in self.violations(metrics)), UNKNOWN_VIOLATION)

    def missed(self, metrics: Mapping[str, str]) -> list[str]:
        """A sentence for each constraint that does not hold."""
        return [
            f"{constraint.metric} is {metrics[constraint.metric]}, not {str(constraint).partition(' ')[2]}"
            if math.isfinite(violation)
            else f"{constraint.metric} was not reported as a number, so nobody knows whether {constraint}"
            for constraint, violation in zip(self.constraints, self.violations(metrics), strict=True)
            if violation > 0
        ]

    def better(self, challenger: float, champion: float) -> bool:
        """Strictly better: the first of equals stays best, as in Katib."""
        return challenger < champion if self.type is ObjectiveType.MINIMIZE else challenger > champion

    def reached(self, value: float) -> bool:
        if self.goal is None:
            return False
        return value <= self.goal if self.type is ObjectiveType.MINIMIZE else value >= self.goal


@dataclass(slots=True)
class Running:
    """What is known of one growing series, point by point: O(1) memory, the same for any order of arrival.

    Of equal numbers the first by `seq` stays, so that a reader that restarts elsewhere gives the same text.
    """

    points: int = 0
    low: tuple[float, int, str] | None = None  # number, seq, text
    high: tuple[float, int, str] | None = None
    latest: tuple[float, int, str] | None = None  # timestamp, seq, text

    def add(self, point: Point) -> None:
        self.points += 1
        # Equal timestamps keep the order of the source; points without one come before those that have one.
        time = point.timestamp if point.timestamp is not None else -math.inf
        if self.latest is None or (time, point.seq) >= self.latest[:2]:
            self.latest = (time, point.seq, point.value)
        number = point.number
        if number is None:
            return
        if self.low is None or (number, point.seq) < self.low[:2]:
            self.low = (number, point.seq, point.value)
        if self.high is None or (-number, point.seq) < (-self.high[0], self.high[1]):
            self.high = (number, point.seq, point.value)

    def summary(self, metric: str) -> MetricSummary:
        return MetricSummary(
            metric=metric,
            min=self.low[2] if self.low else None,
            max=self.high[2] if self.high else None,
            latest=self.latest[2] if self.latest else None,
        )


@dataclass(frozen=True, slots=True)
class Report:
    """Points of one attempt on their way into the store. `final`: its collector will send nothing more.

    `origin`: which of the pods that an attempt may have one after the other; each counts its `seq` from 0. Empty where
    there is only one place to report from.
    """

    experiment_uid: str
    number: int
    attempt: int
    points: Sequence[Point] = ()
    final: bool = False
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """Where a running trial shows its metrics in Prometheus' text format: an HTTPGetAction of Kubernetes."""

    port: int
    path: str = "/metrics"
    host: str | None = None  # None: the trial's own
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorSpec:
    """What to look for: metric names (objective first) and RE2 filters with two groups; empty = Katib's default."""

    kind: str
    metrics: tuple[str, ...]
    filters: tuple[str, ...] = ()
    path: str | None = None  # as the spec says; `protocols.Sources.path` is where that is for an attempt
    path_kind: str | None = None  # File | Directory
    format: str | None = None  # TEXT | JSON
    scrape: Scrape | None = None


def summarize(points: Iterable[Point]) -> dict[str, MetricSummary]:
    """Reduce a series to min, max and latest per metric. Numeric points only for min and max."""
    running: dict[str, Running] = {}
    for point in points:
        running.setdefault(point.metric, Running()).add(point)
    return {metric: series.summary(metric) for metric, series in running.items()}


def chosen(objective: Objective, summaries: Mapping[str, MetricSummary]) -> dict[str, str]:
    """Each wanted metric that was reported, as text, by its strategy."""
    picked = {name: summaries[name].pick(objective.strategy(name)) for name in objective.metrics if name in summaries}
    return {name: text for name, text in picked.items() if text is not None}


def objective_text(objective: Objective, summaries: Mapping[str, MetricSummary]) -> str | None:
    """The objective's value as reported text, None when the metric never appeared (or only as an empty value)."""
    summary = summaries.get(objective.metric)
    text = summary.pick(objective.strategy(objective.metric)) if summary else None
    return text or None


def missing(objective: Objective, summaries: Mapping[str, MetricSummary]) -> str | None:
    """The first objective that was not reported; None when all are there."""
    known = chosen(objective, summaries)
    return next((metric for metric in objective.objectives if not known.get(metric)), None)
