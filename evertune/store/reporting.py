"""The methods of `Store` about what trials report: points, the series they make, and the pods they come from.

A class of its own for the length of the file only: everybody uses it as a part of `repository.Store`, whose module says
by what rules. Each method is one transaction of `points` or `series`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from evertune.domain.metrics import MetricSummary, Point, Report
from evertune.domain.records import SeriesRecord, Taken
from evertune.errors import NotFoundError
from evertune.store import points, series, trials

T = TypeVar("T")


class _Transaction(Protocol):
    def __call__(self, work: Callable[[Connection], T], /) -> T: ...


class ReportMethods:
    _read: _Transaction
    _write: _Transaction

    def add_reports(self, reports: Sequence[Report]) -> list[Taken]:
        """Store what is new of many reports, of any attempts, in one transaction; what became of each, in order.

        A report for an attempt that is not there is answered by a `Taken` without a state.
        """
        return self._write(lambda tx: points.add_reports(tx, reports))

    def origin(self, uid: str, number: int, attempt: int, origin: str) -> int:
        """Which of the attempt's pods that is, from 0; one that nobody has named yet gets the next ordinal."""
        return self._write(lambda tx: points.ordinal(tx, uid, number, attempt, origin))

    def likely_origin(self, uid: str, number: int, attempt: int, origin: str) -> int:
        """What `origin` would say now. Names nothing, so that somebody else may get that ordinal."""
        return self._read(lambda tx: points.likely_ordinal(tx, uid, number, attempt, origin))

    def add_points(self, uid: str, number: int, attempt: int, new: Sequence[Point]) -> int:
        """One report, for callers that know its attempt: how many of its points were new. Else NotFoundError."""
        (taken,) = self.add_reports([Report(uid, number, attempt, new)])
        if taken.state is None:
            raise NotFoundError(f"trial {number} has no attempt {attempt}")
        return taken.new

    def points(
        self,
        uid: str,
        number: int,
        *,
        metric: str | None = None,
        attempt: int | None = None,
        newest: int | None = None,
    ) -> list[tuple[int, Point]]:
        """(attempt, point) by attempt and seq. `newest`: the last ones of each attempt, that many at most."""
        return self._read(
            lambda tx: series.points(
                tx, trials.trial_id(tx, uid, number), metric=metric, attempt=attempt, newest=newest
            )
        )

    def page(
        self, uid: str, number: int, metric: str, attempt: int, *, after: int = -1, limit: int = 5000
    ) -> list[Point]:
        """Some points of one series by seq, those behind `after` first: to read it whole without holding it."""
        return self._read(
            lambda tx: series.page(tx, trials.trial_id(tx, uid, number), metric, attempt, after=after, limit=limit)
        )

    def series(self, uid: str, number: int, *, attempt: int | None = None) -> list[SeriesRecord]:
        """Which metrics the trial has reported, by attempt and name: counts and extremes without reading points."""
        return self._read(lambda tx: series.listed(tx, trials.trial_id(tx, uid, number), attempt))

    def summaries(self, uid: str, number: int, attempt: int) -> dict[str, MetricSummary]:
        """min, max and latest of every metric of an attempt."""
        return self._read(lambda tx: series.summaries(tx, trials.trial_id(tx, uid, number), attempt))

    def curve(self, uid: str, number: int, metric: str, attempt: int, *, at_most: int = 200) -> list[Point]:
        """The shape of a series in at most that many points (and three more), however long it is."""
        return self._read(
            lambda tx: series.curve(tx, trials.trial_id(tx, uid, number), metric, attempt, at_most=at_most)
        )
