"""Metric points: many reports in one transaction, and a running summary per series. `series` reads them back.

Functions over one open transaction, called by `repository.Store`. Points are idempotent by (attempt, metric, seq). The
attempt's row is the lock: whoever adds points, or judges an attempt by them, holds it. Refuses nothing that a report
says; limits are the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from evertune.domain.metrics import Objective, Point, Report, Running, chosen, missing, objective_text, placed
from evertune.domain.records import Taken
from evertune.domain.states import AttemptState, TrialState
from evertune.store import origins, records
from evertune.store.columns import clean
from evertune.store.records import ATTEMPTS, EXPERIMENTS, POINTS, SERIES, TRIALS
from evertune.store.series import COLUMNS, OF_ATTEMPT, SUMMED, Series, read, series_of, summaries

_E = EXPERIMENTS.c
_T = TRIALS.c
_A = ATTEMPTS.c
_S = SERIES.c
_P = POINTS.c

IN_ONE_INSERT = 500  # rows: one call into the driver for all of them, well below every server's limit of parameters
_INTO = "INSERT INTO evertune_series_points (series_id, seq, timestamp, value, step) VALUES "

_ATTEMPTS_OF = (
    select(_A.id, _T.number, _A.attempt)
    .join(TRIALS, _T.id == _A.trial_id)
    .join(EXPERIMENTS, _E.id == _T.experiment_id)
    .where(_E.uid == bindparam("uid"), _T.number.in_(bindparam("numbers", expanding=True)))
)
_LOCKED = (
    select(_A.id, _A.trial_id, _A.attempt, _A.state, _A.ended, _A.stop, _A.collected)
    .where(_A.id.in_(bindparam("ids", expanding=True)))
    .order_by(_A.id)
    .with_for_update()
)
_SERIES_OF = select(*COLUMNS).where(_S.trial_id.in_(bindparam("trials", expanding=True)))
_OBJECTIVE = select(_E.objective).where(_E.uid == bindparam("uid"))
_TRIAL = select(_T.id, _T.attempts, _T.state, _T.metrics).where(_T.id == bindparam("trial"))
_SEQS = select(_P.seq).where(
    _P.series_id == bindparam("series"), _P.seq >= bindparam("low"), _P.seq <= bindparam("high")
)


def add_reports(tx: Connection, reports: Sequence[Report]) -> list[Taken]:
    attempts = lock_attempts(tx, reports)
    by_attempt: dict[tuple[str, int, int], list[Report]] = {}
    for report in reports:
        by_attempt.setdefault((report.experiment_uid, report.number, report.attempt), []).append(report)
    ordinals, reopened = origins.ordinals(
        tx, ((row.id, report.origin) for key, row in attempts.items() for report in by_attempt[key] if report.origin)
    )
    work = {
        (row.trial_id, row.attempt): [
            point
            for report in by_attempt[key]
            for point in placed(report.points, ordinals.get((row.id, report.origin), 0))
        ]
        for key, row in attempts.items()
    }
    new, known = _add(tx, work)
    objectives = {
        uid: records.load_objective(tx.execute(_OBJECTIVE, {"uid": uid}).scalar_one())
        for uid in {uid for uid, _, _ in attempts}
    }
    collected = {key: row.collected and row.id not in reopened for key, row in attempts.items()}
    taken = {
        key: _taken(tx, row, objectives[key[0]], new[row.trial_id, row.attempt], known, collected=collected[key])
        for key, row in attempts.items()
    }
    final = [
        row.id
        for key, row in attempts.items()
        # A verdict that is to be revised stays open until it is: whoever was to tell of it may die before.
        if not collected[key] and not taken[key].late and any(report.final for report in by_attempt[key])
    ]
    if final:
        tx.execute(update(ATTEMPTS).where(_A.id.in_(final)).values(collected=True))
    nobody = Taken()
    return [taken.get((report.experiment_uid, report.number, report.attempt), nobody) for report in reports]


def lock_attempts(tx: Connection, reports: Iterable[Report]) -> dict[tuple[str, int, int], Any]:
    """The attempts' rows, locked in the order of their ids, so that two batches never wait for each other."""
    wanted: dict[str, set[tuple[int, int]]] = {}
    for report in reports:
        wanted.setdefault(report.experiment_uid, set()).add((report.number, report.attempt))
    keys: dict[int, tuple[str, int, int]] = {}
    for uid, places in wanted.items():
        numbers = sorted({number for number, _ in places})
        for start in range(0, len(numbers), IN_ONE_INSERT):
            chunk = {"uid": uid, "numbers": numbers[start : start + IN_ONE_INSERT]}
            for id_, number, attempt in tx.execute(_ATTEMPTS_OF, chunk):
                if (number, attempt) in places:
                    keys[id_] = (uid, number, attempt)
    rows: dict[tuple[str, int, int], Any] = {}
    ids = sorted(keys)
    for start in range(0, len(ids), IN_ONE_INSERT):
        for row in tx.execute(_LOCKED, {"ids": ids[start : start + IN_ONE_INSERT]}):
            rows[keys[row.id]] = row
    return rows


def ordinal(tx: Connection, uid: str, number: int, attempt: int, origin: str) -> int:
    """Of one of the attempt's origins; 0 for an attempt that is not there."""
    report = Report(uid, number, attempt, origin=origin)
    for row in lock_attempts(tx, [report]).values():
        known, _ = origins.ordinals(tx, [(row.id, origin)])
        return known[row.id, origin]
    return 0


def likely_ordinal(tx: Connection, uid: str, number: int, attempt: int, origin: str) -> int:
    """The same without writing or locking: where the origin has none, the one that is next."""
    for id_, _, of in tx.execute(_ATTEMPTS_OF, {"uid": uid, "numbers": [number]}):
        if of == attempt:
            return origins.likely(tx, id_, origin)
    return 0


def lock_attempt(tx: Connection, attempt_id: int) -> None:
    tx.execute(_LOCKED, {"ids": [attempt_id]}).all()


def add(tx: Connection, trial: int, attempt: int, points: Sequence[Point]) -> int:
    """Add points of an attempt that is locked; returns how many were new."""
    return _add(tx, {(trial, attempt): points})[0][trial, attempt]


_Key = tuple[int, int, str]  # trial id, attempt, metric


def _add(
    tx: Connection, work: Mapping[tuple[int, int], Sequence[Point]]
) -> tuple[dict[tuple[int, int], int], dict[_Key, Series]]:
    """Points by (trial id, attempt); how many were new of each, and all series of those trials."""
    counts = dict.fromkeys(work, 0)
    wanted = {(trial, attempt, point.metric) for (trial, attempt), points in work.items() for point in points}
    if not wanted:
        return counts, {}
    known = _known_series(tx, wanted)
    rows: list[tuple[Series, Point]] = []
    for (trial, attempt), points in work.items():
        by_metric: dict[str, dict[int, Point]] = {}
        for point in points:
            by_metric.setdefault(clean(point.metric), {}).setdefault(point.seq, point)  # of doubles the first stays
        for metric, fresh in by_metric.items():
            series = known.get((trial, attempt, metric))
            if series is None:
                series = known[trial, attempt, metric] = Series(trial, attempt, metric, Running())
            elif min(fresh) <= series.last_seq:
                bounds = {"series": series.id, "low": min(fresh), "high": max(fresh)}
                for seq in tx.execute(_SEQS, bounds).scalars():
                    fresh.pop(seq, None)
            for seq in sorted(fresh):
                series.running.add(fresh[seq])
                rows.append((series, fresh[seq]))
            if fresh:
                series.last_seq = max(series.last_seq, *fresh)
                counts[trial, attempt] += len(fresh)
    touched = {id(series): series for series, _ in rows}
    _save_series(tx, list(touched.values()))
    _insert_points(tx, rows)
    return counts, known


def _known_series(tx: Connection, wanted: set[_Key]) -> dict[_Key, Series]:
    known = {}
    trials = sorted({trial for trial, _, _ in wanted})
    for start in range(0, len(trials), IN_ONE_INSERT):
        for row in tx.execute(_SERIES_OF, {"trials": trials[start : start + IN_ONE_INSERT]}).all():
            series = series_of(row)
            known[series.trial, series.attempt, series.metric] = series
    return known


def _save_series(tx: Connection, touched: Sequence[Series]) -> None:
    changed = [(*series.summed(), series.id) for series in touched if series.id is not None]
    if changed:  # past SQLAlchemy, which would take longer over the parameters than the database over the rows
        mark = "?" if tx.dialect.paramstyle == "qmark" else "%s"
        values = ", ".join(f"{name} = {mark}" for name in SUMMED)
        tx.exec_driver_sql(f"UPDATE evertune_series SET {values} WHERE id = {mark}", changed)  # noqa: S608
    new = [series for series in touched if series.id is None]
    if not new:
        return
    tx.execute(
        insert(SERIES),
        [
            {
                "trial_id": series.trial,
                "attempt": series.attempt,
                "metric": series.metric,
                **dict(zip(SUMMED, series.summed(), strict=True)),
            }
            for series in new
        ],
    )
    saved = _known_series(tx, {(series.trial, series.attempt, series.metric) for series in new})
    for series in new:
        series.id = saved[series.trial, series.attempt, series.metric].id


def _insert_points(tx: Connection, rows: Sequence[tuple[Series, Point]]) -> None:
    """One statement for hundreds of rows: SQLite then works without asking for Python's lock between them."""
    mark = "(?,?,?,?,?)" if tx.dialect.paramstyle == "qmark" else "(%s,%s,%s,%s,%s)"
    for start in range(0, len(rows), IN_ONE_INSERT):
        chunk = rows[start : start + IN_ONE_INSERT]
        values: list[Any] = []
        for series, point in chunk:
            time = None if point.timestamp is None else float(point.timestamp) + 0.0
            values += (series.id, point.seq, time, clean(point.value), point.step)
        tx.exec_driver_sql(_INTO + ",".join([mark] * len(chunk)), tuple(values))


def _taken(
    tx: Connection, row: Row[Any], objective: Objective, new: int, known: Mapping[_Key, Series], *, collected: bool
) -> Taken:
    series = known.get((row.trial_id, row.attempt, objective.metric))
    late = False
    if row.state == AttemptState.METRICS_UNAVAILABLE:
        late = missing(objective, summaries(tx, row.trial_id, row.attempt)) is None
    elif not collected and row.state != AttemptState.RUNNING:
        trial = tx.execute(_TRIAL, {"trial": row.trial_id}).one()
        late = row.attempt == trial.attempts - 1 and outdated(tx, trial, objective)
    last = None
    if series is not None and series.running.latest is not None:
        last = (series.running.points, series.running.latest[1], series.running.latest[2])
    return Taken(
        state=AttemptState(row.state), ended=row.ended, new=new, stop=row.stop or "", late=late, objective=last
    )


def outdated(tx: Connection, trial: Any, objective: Objective) -> bool:
    """Whether a trial's last attempt has reported what its verdict does not know. A failed one has nothing to say."""
    state = TrialState(trial.state)
    if not state.terminal or state is TrialState.FAILED:
        return False
    now = summaries(tx, trial.id, trial.attempts - 1)
    return objective_text(objective, now) is not None and chosen(objective, now) != (trial.metrics or {})


def forget(tx: Connection, trial: int, attempt: int, places: Sequence[tuple[int, int]]) -> None:
    """Drop the points of an attempt whose `seq` is in one of these half-open ranges, and sum up what is left.

    The attempt is locked.
    """
    for row in tx.execute(OF_ATTEMPT, {"trial": trial, "no": attempt}).all():
        for low, high in places:
            tx.execute(delete(POINTS).where(_P.series_id == row.id, _P.seq >= low, _P.seq < high))
        series = Series(trial, attempt, row.metric, Running(), id=row.id)
        for point in read(tx, row):
            series.running.add(point)
            series.last_seq = point.seq
        if series.running.points:
            _save_series(tx, [series])
        else:
            tx.execute(delete(SERIES).where(_S.id == row.id))
