"""`metrics`: what trials reported, as a table of series or point by point.

Reads the database only. Points go out as they are read, series by series; the table never reads all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli import options
from evertune.cli.choosing import Attempt, Trial, chosen_attempt, chosen_trials
from evertune.cli.edge import close_to
from evertune.cli.output.numbers import plural
from evertune.cli.output.rows import Rows
from evertune.cli.session import Session, session
from evertune.cli.views.metrics import Summed, metrics_table
from evertune.cli.views.sentences import addressed
from evertune.domain.metrics import Point, Running, finite
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.errors import NotFoundError

if TYPE_CHECKING:
    from evertune.store import Store

COLUMNS = ("trial", "attempt", "metric", "step", "value", "timestamp")
TRIALS_SHOWN = 50  # of a table, unless somebody asks for more or for one
BATCH = 200  # trials read at a time
POINTS_READ = 5000  # at a time
CURVE_POINTS = 64
NAMES_KEPT = 256  # for the hint


class MetricsForm(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    NAME = "name"


Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Only this metric; may be repeated.", show_default=False),
]
Newest = Annotated[
    int | None,
    typer.Option("--newest", min=1, help="Only the last so many values of each series.", show_default=False),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only the last so many trials; a table shows 50.", show_default=False),
]


def metrics_(
    name: options.Name,
    namespace: options.Namespace = None,
    trial: Trial = None,
    attempt: Attempt = None,
    metric: Metric = None,
    newest: Newest = None,
    limit: Limit = None,
    output: Annotated[
        MetricsForm, typer.Option("-o", "--output", help="table, csv, json or name.")
    ] = MetricsForm.TABLE,
) -> None:
    """What trials reported: a row for each metric of each trial; with -o csv or json, every value.

    evertune metrics test FILE tries filters, evertune metrics reparse NAME reads logs again. For an experiment that is
    called test or reparse: evertune metrics show NAME.
    """
    now = session()
    record = now.find(namespace, name)
    with now.store() as store:
        if output is MetricsForm.TABLE and trial is None and limit is None:
            limit = TRIALS_SHOWN
        reading = Reading(store, record, trial, attempt, tuple(metric or ()), newest, limit)
        if output is MetricsForm.TABLE:
            _table(now, reading)
        elif output is MetricsForm.NAME:
            names = sorted({summed.metric for summed in reading.series()})
            reading.must_have(found=bool(names))
            now.out.lines(names)
        else:
            _stream(now, reading, output)


def metrics_show_(
    name: options.Name,
    namespace: options.Namespace = None,
    trial: Trial = None,
    attempt: Attempt = None,
    metric: Metric = None,
    newest: Newest = None,
    limit: Limit = None,
    output: Annotated[
        MetricsForm, typer.Option("-o", "--output", help="table, csv, json or name.")
    ] = MetricsForm.TABLE,
) -> None:
    """What trials reported, as evertune metrics NAME; also for an experiment that is called test or reparse."""
    metrics_(name, namespace, trial, attempt, metric, newest, limit, output)


class Reading:
    """Which series somebody wants to see, and how they are read."""

    def __init__(
        self,
        store: Store,
        record: ExperimentRecord,
        trial: str | None,
        attempt: int | None,
        metrics: tuple[str, ...],
        newest: int | None,
        limit: int | None,
    ) -> None:
        self.store, self.record = store, record
        self.trial, self.attempt, self.metrics, self.newest, self.limit = trial, attempt, metrics, newest, limit
        self.earlier_attempts = False  # whether there are attempts that are not shown
        self._names: dict[str, None] = {}

    def series(self, *, curve: bool = False) -> Iterator[Summed]:
        """Trial by trial, metric by metric."""
        for trial, attempt in self._attempts():
            for entry in self.store.series(self.record.uid, trial.number, attempt=attempt):
                if len(self._names) < NAMES_KEPT:
                    self._names.setdefault(entry.metric)
                if self.metrics and entry.metric not in self.metrics:
                    continue
                summed = Summed(
                    trial.number, attempt, entry.metric, entry.points, entry.min, entry.max, entry.latest, ()
                )
                yield self._with_curve(summed) if curve else summed

    def points(self) -> Iterator[tuple[int, int, Point]]:
        """(trial, attempt, point), one series after the other, each in the order of its source."""
        for summed in self.series():
            for point in self._points(summed):
                yield summed.trial, summed.attempt, point

    def must_have(self, *, found: bool) -> None:
        """NotFoundError when a metric was asked for that nobody reported."""
        if found or not self.metrics:
            return
        wanted = ", ".join(self.metrics)
        near = [other for name in self.metrics for other in close_to(name, list(self._names))]
        hint = f"did you mean {near[0]}?" if near else f"evertune metrics {addressed(self.record)} -o name"
        raise NotFoundError(f"{self.record.name} has reported no metric {wanted}", hint=hint)

    def _attempts(self) -> Iterator[tuple[TrialRecord, int]]:
        for trial in self._trials():
            if self.trial is None and trial.attempts <= (self.attempt or 0):
                continue
            self.earlier_attempts |= trial.attempts > 1
            yield trial, chosen_attempt(self.record, trial, self.attempt)

    def _trials(self) -> Iterator[TrialRecord]:
        if self.trial is not None:
            yield from chosen_trials(self.store, self.record, self.trial)
            return
        after = -1 if self.limit is None else max(self.record.counts.created - self.limit, 0) - 1
        while batch := self.store.trials(self.record.uid, limit=BATCH, after=after):
            yield from batch
            after = batch[-1].number

    def _points(self, summed: Summed) -> Iterator[Point]:
        """The newest ones, or all of them, some at a time."""
        if self.newest is None:
            after = -1
            while batch := self.store.page(
                self.record.uid, summed.trial, summed.metric, summed.attempt, after=after, limit=POINTS_READ
            ):
                yield from batch
                after = batch[-1].seq
            return
        read = self.store.points(
            self.record.uid, summed.trial, metric=summed.metric, attempt=summed.attempt, newest=self.newest
        )
        yield from (point for _, point in read)

    def _with_curve(self, summed: Summed) -> Summed:
        if self.newest is not None:
            return summed_of(summed.trial, summed.attempt, summed.metric, list(self._points(summed)))
        curve = self.store.curve(self.record.uid, summed.trial, summed.metric, summed.attempt, at_most=CURVE_POINTS)
        return Summed(
            summed.trial, summed.attempt, summed.metric, summed.count, summed.low, summed.high, summed.latest, curve
        )


def summed_of(trial: int, attempt: int, metric: str, points: list[Point]) -> Summed:
    running = Running()
    for point in points:
        running.add(point)
    summary = running.summary(metric)
    low, high = finite(summary.min), finite(summary.max)
    return Summed(trial, attempt, metric, running.points, low, high, summary.latest or "", points)


def _table(now: Session, reading: Reading) -> None:
    rows = list(reading.series(curve=True))
    reading.must_have(found=bool(rows))
    record = reading.record
    name = addressed(record)
    if not rows:
        now.say(f"No trial of {record.name} has reported anything yet.", [(f"  evertune explain {name}", "")])
        return
    attempts = reading.earlier_attempts
    rendered = metrics_table(rows, marks=now.out.marks, width=now.out.width, attempts=attempts)
    now.out.lines(rendered.lines)
    words = []
    if reading.trial is None and reading.limit is not None and record.counts.created > reading.limit:
        words.append(f"the last {reading.limit} of {plural(record.counts.created, 'trial')}: --limit N or --trial N")
    if attempts:
        words.append("attempts count from 0; the last is shown: --attempt N")
    if rendered.hidden:
        words.append(f"not shown: {', '.join(header.lower() for header in rendered.hidden)}")
    words = words or [f"every value: evertune metrics {name} --trial {rows[-1].trial} -o csv"]
    now.say("", [("; ".join(words), "dim")])


def _stream(now: Session, reading: Reading, form: MetricsForm) -> None:
    """Nothing is written before the first value, so that what cannot be found is an error and not half a document."""
    rows = Rows(now.out, COLUMNS, as_json=form is MetricsForm.JSON)
    for trial, attempt, point in reading.points():
        rows.add((trial, attempt, point.metric, point.step, point.value, point.timestamp))
    reading.must_have(found=rows.any)
    rows.end()
