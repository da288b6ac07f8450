"""Series of points read back: whole or in part, their shape in few points, their running summaries.

Functions over one open transaction, called by `repository.Store` and by `points`, which writes what is read here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from evertune.domain.metrics import MetricSummary, Point, Running
from evertune.domain.records import SeriesRecord
from evertune.store.columns import clean
from evertune.store.records import POINTS, SERIES

_S = SERIES.c
_P = POINTS.c

SUMMED = (
    "points", "last_seq", "low", "low_seq", "low_text", "high", "high_seq", "high_text",
    "latest_timestamp", "latest_seq", "latest_text",
)  # fmt: skip
COLUMNS = (_S.id, _S.trial_id, _S.attempt, _S.metric, *(_S[name] for name in SUMMED))
OF_ATTEMPT = (
    select(*COLUMNS).where(_S.trial_id == bindparam("trial"), _S.attempt == bindparam("no")).order_by(_S.metric)
)


@dataclass(slots=True)
class Series:
    trial: int
    attempt: int
    metric: str
    running: Running
    last_seq: int = -1
    id: int | None = None  # None: it has no row yet

    def summed(self) -> tuple[Any, ...]:
        """The values of the columns `SUMMED`, as every driver takes them."""
        low, high, latest = self.running.low, self.running.high, self.running.latest
        assert latest is not None
        time, seq, text = latest
        return (
            self.running.points,
            self.last_seq,
            *((None, None, None) if low is None else (low[0] + 0.0, low[1], clean(low[2]))),
            *((None, None, None) if high is None else (high[0] + 0.0, high[1], clean(high[2]))),
            time + 0.0 if math.isfinite(time) else None,
            seq,
            clean(text),
        )


def series_of(row: Any) -> Series:
    """A row of `COLUMNS`. By place: to ask it for each name would take as long as to read it."""
    id_, trial, attempt, metric, points, last_seq, *low_high, time, latest_seq, latest = row
    low, low_seq, low_text, high, high_seq, high_text = low_high
    running = Running(
        points,
        None if low is None else (low, low_seq, low_text),
        None if high is None else (high, high_seq, high_text),
        (-math.inf if time is None else time, latest_seq, latest),
    )
    return Series(trial, attempt, metric, running, last_seq, id_)


def summaries(tx: Connection, trial: int, attempt: int) -> dict[str, MetricSummary]:
    rows = tx.execute(OF_ATTEMPT, {"trial": trial, "no": attempt})
    found = map(series_of, rows)
    return {series.metric: series.running.summary(series.metric) for series in found}


def _series_rows(tx: Connection, trial: int, metric: str | None, attempt: int | None) -> list[Row[Any]]:
    query = select(SERIES).where(_S.trial_id == trial)
    if metric is not None:
        query = query.where(_S.metric == metric)
    if attempt is not None:
        query = query.where(_S.attempt == attempt)
    return list(tx.execute(query.order_by(_S.attempt, _S.metric)))


def listed(tx: Connection, trial: int, attempt: int | None) -> list[SeriesRecord]:
    return [
        SeriesRecord(
            attempt=row.attempt,
            metric=row.metric,
            points=row.points,
            min=row.low,
            max=row.high,
            latest=row.latest_text,
        )
        for row in _series_rows(tx, trial, None, attempt)
    ]


def read(tx: Connection, series: Any, newest: int | None = None) -> list[Point]:
    query = select(_P.value, _P.seq, _P.timestamp, _P.step).where(_P.series_id == series.id)
    if newest is None:
        rows: Sequence[Any] = tx.execute(query.order_by(_P.seq)).all()
    else:
        rows = tx.execute(query.order_by(_P.seq.desc()).limit(newest)).all()[::-1]
    return [Point(series.metric, value, seq, time, step) for value, seq, time, step in rows]


def points(
    tx: Connection, trial: int, *, metric: str | None, attempt: int | None, newest: int | None
) -> list[tuple[int, Point]]:
    """(attempt, point) by attempt and seq. `newest`: only that many, the last ones of each attempt and all metrics."""
    found: dict[int, list[Point]] = {}
    for row in _series_rows(tx, trial, metric, attempt):
        found.setdefault(row.attempt, []).extend(read(tx, row, newest))
    every: list[tuple[int, Point]] = []
    for number, series_points in found.items():
        series_points.sort(key=lambda point: (point.seq, point.metric))
        kept = series_points if newest is None else series_points[-newest:]
        every += [(number, point) for point in kept]
    return every


def page(tx: Connection, trial: int, metric: str, attempt: int, *, after: int, limit: int) -> list[Point]:
    """The next points of a series, by seq, behind `after`."""
    rows = _series_rows(tx, trial, metric, attempt)
    if not rows:
        return []
    query = select(_P.value, _P.seq, _P.timestamp, _P.step).where(_P.series_id == rows[0].id, _P.seq > after)
    return [Point(metric, *point) for point in tx.execute(query.order_by(_P.seq).limit(limit))]


def curve(tx: Connection, trial: int, metric: str, attempt: int, *, at_most: int) -> list[Point]:
    """The shape of a series in few points, by seq: all of them when they fit, else evenly spread over its length.

    A long series costs as many look-ups as points are wanted, not as many as it has. Its first, last, lowest and
    highest points are always there.
    """
    rows = _series_rows(tx, trial, metric, attempt)
    if not rows:
        return []
    (row,) = rows
    if row.points <= at_most:
        return read(tx, row)
    one = select(_P.value, _P.seq, _P.timestamp, _P.step).where(_P.series_id == row.id)
    first = tx.execute(one.order_by(_P.seq).limit(1)).one().seq
    wanted = {seq for seq in (row.low_seq, row.high_seq, row.last_seq) if seq is not None}
    near = one.where(_P.seq >= bindparam("seq")).order_by(_P.seq).limit(1)
    spread = max(1, at_most - len(wanted))
    places = [first + (row.last_seq - first) * index // spread for index in range(spread)]
    found = {}
    for seq in (*places, *wanted):
        point = tx.execute(near, {"seq": seq}).one()
        found[point.seq] = Point(metric, *point)
    return [found[seq] for seq in sorted(found)]
