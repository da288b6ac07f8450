"""How far early stopping has read an attempt, what comes next in its series, and what others had reached by then.

Used by `stopping`, which asks the rule about it and keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select

from evertune.domain.metrics import OFFSET_BITS, Point
from evertune.domain.stopping import Decision, Prefix
from evertune.protocols import JsonDict
from evertune.store.records import MARKS, POINTS

_P = POINTS.c
_M = MARKS.c

AT_ONCE = 2_000  # points of one query
_NEXT = (
    select(_P.seq, _P.value)
    .where(_P.series_id == bindparam("series"), _P.seq > bindparam("after"), _P.seq < bindparam("end"))
    .order_by(_P.seq)
    .limit(AT_ONCE)
)
_FIRST = (
    select(_P.seq)
    .where(_P.series_id == bindparam("series"), _P.seq >= bindparam("begin"), _P.seq < bindparam("end"))
    .order_by(_P.seq)
    .limit(1)
)
_OF_STEP = (_M.experiment_id == bindparam("experiment"), _M.step == bindparam("step"), _M.counts.is_(True))
_SUMMED = select(func.count(), func.avg(_M.value)).where(*_OF_STEP)
_RANKED = select(_M.value).where(*_OF_STEP).order_by(_M.value).limit(1).offset(bindparam("rank"))
_END = 2**63 - 1


@dataclass(slots=True)
class Reading:
    """How far one series has been read, by source (see `domain.metrics.place`): its values never become fewer."""

    prefix: Prefix
    places: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, metric: str, data: Sequence[Any] | None) -> Reading:
        if data is None:
            return cls(Prefix(metric=metric))
        step, numbers, total, low, high, places = data
        prefix = Prefix(metric=metric, step=step, numbers=numbers, total=total, low=low, high=high)
        return cls(prefix, {int(source): seq for source, seq in places.items()})

    def dump(self) -> list[Any]:
        prefix = self.prefix
        return [prefix.step, prefix.numbers, prefix.total, prefix.low, prefix.high, self.places]

    def take(self, point: Point) -> Prefix:
        self.places[point.seq >> OFFSET_BITS] = point.seq
        self.prefix = self.prefix.then(point.number)
        return self.prefix


@dataclass(slots=True)
class Reader:
    """One attempt under early stopping."""

    number: int
    attempt: int
    readings: dict[str, Reading]
    memory: JsonDict
    id: int | None = None  # None: it has no row yet
    reason: str = ""
    step: int = 0
    marks: dict[int, float] = field(default_factory=dict)  # new ones, by step

    @classmethod
    def of(cls, number: int, attempt: int, row: Row[Any] | None) -> Reader:
        if row is None:
            return cls(number, attempt, {}, {})
        readings = {metric: Reading.of(metric, data) for metric, data in row.series.items()}
        return cls(number, attempt, readings, row.memory or {}, row.id, row.reason or "", row.step or 0)

    def reading(self, metric: str) -> Reading:
        return self.readings.setdefault(metric, Reading.of(metric, None))

    def mark(self, made: tuple[int, float] | None) -> bool:
        if made is None or not math.isfinite(made[1]):
            return False
        self.marks.setdefault(*made)
        return True

    def dump(self) -> JsonDict:
        return {metric: reading.dump() for metric, reading in self.readings.items()}

    @property
    def decided(self) -> bool:
        return bool(self.reason)

    @property
    def decision(self) -> Decision:
        return Decision(number=self.number, attempt=self.attempt, step=self.step, reason=self.reason)


class StoredPeers:
    """The marks of one step, asked for when a rule wants them; see `domain.stopping.Peers`."""

    def __init__(self, tx: Connection, experiment: int, step: int) -> None:
        self._tx = tx
        self._which = {"experiment": experiment, "step": step}
        self._summed: tuple[int, float] | None = None

    def _sum(self) -> tuple[int, float]:
        if self._summed is None:
            count, mean = self._tx.execute(_SUMMED, self._which).one()
            self._summed = int(count), float(mean or 0.0)
        return self._summed

    @property
    def count(self) -> int:
        return self._sum()[0]

    def mean(self) -> float:
        return self._sum()[1]

    def at(self, rank: int) -> float:
        return float(self._tx.execute(_RANKED, {**self._which, "rank": rank}).scalar_one())


def unread(tx: Connection, series: Any, reading: Reading) -> Iterator[Point]:
    """Values behind the place that was read, of each source. What comes late before it is not seen any more."""
    source = max(reading.places, default=0)
    while reading.prefix.step < series.points:
        begin = source << OFFSET_BITS
        after = reading.places.get(source, begin - 1)
        # The common case reads on in the last source, and sees a new one behind it on the way.
        rows = tx.execute(_NEXT, {"series": series.id, "after": after, "end": _END}).all()
        for seq, value in rows:
            if seq > reading.places.get(seq >> OFFSET_BITS, -1):
                yield Point(series.metric, value, seq)
        if len(rows) < AT_ONCE:
            break
        source = rows[-1].seq >> OFFSET_BITS
    begin, end = 0, source << OFFSET_BITS
    while reading.prefix.step < series.points:  # a source before the last one has more, or something came late
        first = tx.execute(_FIRST, {"series": series.id, "begin": begin, "end": end}).scalar()
        if first is None:
            return
        source = first >> OFFSET_BITS
        begin = (source + 1) << OFFSET_BITS
        after = reading.places.get(source, first - 1)
        for seq, value in tx.execute(_NEXT, {"series": series.id, "after": after, "end": begin}).all():
            yield Point(series.metric, value, seq)
