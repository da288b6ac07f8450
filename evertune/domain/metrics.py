"""Metric points and the rules that turn a series into one objective value.

Katib's rules (`min`, `max`, `latest` per metric; the objective falls back to `latest` when nothing is numeric)
with a total order: points are taken by (timestamp, seq), so equal timestamps keep the order of the source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class ObjectiveType(StrEnum):
    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Strategy(StrEnum):
    MIN = "min"
    MAX = "max"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Point:
    """One reported value. `seq` orders points of one attempt and derives from the source (byte offset of the text).

    `timestamp` is UTC seconds since the epoch, None when the line has none; `value` is the text as reported.
    """

    metric: str
    value: str
    seq: int
    timestamp: float | None = None

    @property
    def number(self) -> float | None:
        """The value as a finite double, else None (text, NaN, infinity, empty)."""
        return finite(self.value)


def finite(text: str | None) -> float | None:
    if text is None:
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
class Objective:
    type: ObjectiveType
    metric: str
    goal: float | None = None
    additional: tuple[str, ...] = ()
    strategies: Mapping[str, Strategy] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, *self.additional)

    def strategy(self, metric: str) -> Strategy:
        default = Strategy.MIN if self.type is ObjectiveType.MINIMIZE else Strategy.MAX
        return self.strategies.get(metric, default)

    def better(self, challenger: float, champion: float) -> bool:
        """Strictly better: the first of equals stays best, as in Katib."""
        return challenger < champion if self.type is ObjectiveType.MINIMIZE else challenger > champion

    def reached(self, value: float) -> bool:
        if self.goal is None:
            return False
        return value <= self.goal if self.type is ObjectiveType.MINIMIZE else value >= self.goal


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorSpec:
    """What to look for: wanted metric names (objective first) and RE2 filters with two groups; empty = Katib's default."""

    kind: str
    metrics: tuple[str, ...]
    filters: tuple[str, ...] = ()
    path: str | None = None
    format: str | None = None


def summarize(points: Iterable[Point]) -> dict[str, MetricSummary]:
    """Reduce a series to min, max and latest per metric. Numeric points only for min and max."""
    by_metric: dict[str, list[Point]] = {}
    for point in points:
        by_metric.setdefault(point.metric, []).append(point)
    return {metric: _summary(metric, series) for metric, series in by_metric.items()}


def _summary(metric: str, series: Sequence[Point]) -> MetricSummary:
    ordered = sorted(series, key=lambda p: (p.timestamp if p.timestamp is not None else -math.inf, p.seq))
    numeric = [(number, p.value) for p in ordered if (number := p.number) is not None]
    return MetricSummary(
        metric=metric,
        min=min(numeric, key=lambda pair: pair[0])[1] if numeric else None,
        max=max(numeric, key=lambda pair: pair[0])[1] if numeric else None,
        latest=ordered[-1].value,
    )


def objective_text(objective: Objective, summaries: Mapping[str, MetricSummary]) -> str | None:
    """The objective's value as reported text, None when the metric never appeared (or only as an empty value)."""
    summary = summaries.get(objective.metric)
    text = summary.pick(objective.strategy(objective.metric)) if summary else None
    return text or None
