"""Early stopping over what is stored: reads on where it left off, asks the rule, keeps marks and decisions.

Functions over one open transaction, called by `repository.Store` after the points are committed; rules come from the
caller. What one report costs depends on its own points and, where its rule compares, on a look into an index: never on
how many points or trials there are. Whoever dies in between is made up for by the next call: the place up to which an
attempt was read, its marks and its decision are one transaction, and a decision is taken once.

Marks are what trials are compared by. Those of running trials are kept as they report; what a trial reported at its
very end, unseen by anybody, is read when its place in the told order comes (`_catch_up`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, select, update

from evertune.domain.metrics import Report
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.stopping import MAX_REASON, Decision
from evertune.protocols import EarlyStopper, JsonDict
from evertune.store import experiments, points
from evertune.store.reading import Reader, StoredPeers, unread
from evertune.store.records import ATTEMPTS, EXPERIMENTS, MARKS, SERIES, STOPPING, TRIALS

_E = EXPERIMENTS.c
_T = TRIALS.c
_A = ATTEMPTS.c
_S = SERIES.c
_R = STOPPING.c
_M = MARKS.c

MOST_POINTS = 20_000  # of one attempt that one transaction reads
MOST_TOLD = 200  # trials that have ended whose marks one transaction completes

_EXPERIMENT = select(_E.id, _E.told_seq, _E.marked).where(_E.uid == bindparam("uid"))
_TOLD = (
    select(_T.id, _T.number, _T.state, _T.told_seq, _T.attempts)
    .where(_T.experiment_id == bindparam("experiment"), _T.told_seq > bindparam("after"))
    .order_by(_T.told_seq)
    .limit(MOST_TOLD)
)
_KNOWN = select(STOPPING).where(
    _R.experiment_id == bindparam("experiment"), _R.number.in_(bindparam("numbers", expanding=True))
)
_SERIES = select(_S.id, _S.trial_id, _S.attempt, _S.metric, _S.points).where(
    _S.trial_id.in_(bindparam("trials", expanding=True)), _S.metric.in_(bindparam("metrics", expanding=True))
)
_READ_ON = (
    update(STOPPING)
    .where(_R.id == bindparam("row"))
    .values(series=bindparam("now"), memory=bindparam("kept"), reported=bindparam("heard"))
)


def weigh(
    tx: Connection, uid: str, rule: EarlyStopper, metric: str, attempts: Collection[tuple[int, int]], at: datetime
) -> tuple[list[Decision], list[tuple[int, int]]]:
    """See `Store.weigh`."""
    experiment = tx.execute(_EXPERIMENT, {"uid": uid}).first()
    if experiment is None:
        return [], []
    if rule.peers != "none" and experiment.told_seq > (experiment.marked or 0) and not _catch_up(tx, uid, rule, metric):
        return [], list(attempts)
    rows = points.lock_attempts(tx, [Report(uid, number, attempt) for number, attempt in attempts])
    known = _known(tx, experiment.id, [number for number, _ in attempts])
    wanted = dict.fromkeys((*rule.metrics, *((metric,) if rule.peers != "none" else ())))
    series = _series(tx, [row.trial_id for row in rows.values()], wanted)
    decisions, again, read_on = [], [], list[JsonDict]()
    for (_, number, attempt), row in rows.items():
        if row.state != AttemptState.RUNNING or row.stop is not None:
            continue
        before = known.get((number, attempt))
        if before is not None and before.reason:  # nobody has heard of it yet
            decisions.append(_decision(before))
            continue
        reader = Reader.of(number, attempt, before)
        if reader.id is None and attempt:  # what an earlier attempt had reached is not this one's
            tx.execute(delete(MARKS).where(_M.experiment_id == experiment.id, _M.number == number))
        if not _read_on(tx, experiment.id, rule, metric, reader, row.trial_id, series):
            again.append((number, attempt))
        if reader.decided:
            decisions.append(reader.decision)
            _note(tx, experiment.id, rule, reader, at)
            _save(tx, experiment.id, rule, reader, reported=at, decided=at)
        elif reader.id is None:
            _save(tx, experiment.id, rule, reader, reported=at)
        else:
            read_on.append({"row": reader.id, "now": reader.dump(), "kept": reader.memory or None, "heard": at})
            _keep(tx, experiment.id, rule, reader)
    if read_on:
        tx.execute(_READ_ON, read_on)
    return decisions, again


def _read_on(
    tx: Connection, experiment: int, rule: EarlyStopper, metric: str, reader: Reader, trial: int,
    series: Mapping[tuple[int, int, str], Any],
) -> bool:  # fmt: skip
    """Ask the rule about every value that has come since. False when some are left for another transaction."""
    left = MOST_POINTS
    for (of, attempt, name), row in series.items():
        if (of, attempt) != (trial, reader.attempt):
            continue
        reading = reader.reading(name)
        for point in unread(tx, row, reading):
            if not left:
                return False
            left -= 1
            prefix = reading.take(point)
            if name == metric and reader.mark(rule.mark(prefix, last=False)) and rule.peers == "all":
                _keep(tx, experiment, rule, reader)  # it competes with the others itself
            if name not in rule.metrics:
                continue
            ruling = rule.judge(prefix, StoredPeers(tx, experiment, prefix.step), reader.memory)
            reader.memory = dict(ruling.memory)
            if ruling.reason:
                reader.reason, reader.step = f"{rule.name}: {ruling.reason}"[:MAX_REASON], prefix.step
                return True
    return True


def _catch_up(tx: Connection, uid: str, rule: EarlyStopper, metric: str) -> bool:
    """Complete the marks of trials that have ended since, and let them count. False when some are left."""
    experiment = experiments.locked(tx, uid)
    told = tx.execute(_TOLD, {"experiment": experiment.id, "after": experiment.marked or 0}).all()
    counting = [trial for trial in told if trial.state == TrialState.SUCCEEDED]
    known = _known(tx, experiment.id, [trial.number for trial in counting])
    series = _series(tx, [trial.id for trial in counting], [metric])
    for trial in counting:
        attempt = trial.attempts - 1
        reader = Reader.of(trial.number, attempt, known.get((trial.number, attempt)))
        row = series.get((trial.id, attempt, metric))
        if row is not None:
            reading = reader.reading(metric)
            for left, point in zip(range(MOST_POINTS, 0, -1), unread(tx, row, reading), strict=False):
                reader.mark(rule.mark(reading.take(point), last=left == 1))
            reader.mark(rule.mark(reading.prefix, last=True))
            if reader.id is None and attempt:
                tx.execute(delete(MARKS).where(_M.experiment_id == experiment.id, _M.number == trial.number))
            _save(tx, experiment.id, rule, reader)
        tx.execute(
            update(MARKS).where(_M.experiment_id == experiment.id, _M.number == trial.number).values(counts=True)
        )
    done = len(told) < MOST_TOLD
    marked = experiment.told_seq if done else told[-1].told_seq
    tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(marked=marked))
    return done


def _known(tx: Connection, experiment: int, numbers: Collection[int]) -> dict[tuple[int, int], Row[Any]]:
    rows = tx.execute(_KNOWN, {"experiment": experiment, "numbers": sorted(set(numbers))})
    return {(row.number, row.attempt): row for row in rows}


def _series(tx: Connection, trials: Sequence[int], metrics: Collection[str]) -> dict[tuple[int, int, str], Any]:
    if not trials or not metrics:
        return {}
    rows = tx.execute(_SERIES, {"trials": list(trials), "metrics": list(metrics)})
    return {(row.trial_id, row.attempt, row.metric): row for row in rows}


def _save(tx: Connection, experiment: int, rule: EarlyStopper, reader: Reader, **values: Any) -> None:
    values = {name: value for name, value in values.items() if value is not None}
    values["series"] = reader.dump()
    values["memory"] = reader.memory or None
    if reader.reason:
        values |= {"reason": reader.reason, "step": reader.step}
    if reader.id is not None:
        tx.execute(update(STOPPING).where(_R.id == reader.id).values(**values))
    else:
        row = {"experiment_id": experiment, "number": reader.number, "attempt": reader.attempt}
        tx.execute(insert(STOPPING).values(**row, **values))
    _keep(tx, experiment, rule, reader)


def _keep(tx: Connection, experiment: int, rule: EarlyStopper, reader: Reader) -> None:
    """Marks stay; of a step that was marked by the end of a trial that goes on after all, the new one stands."""
    steps = sorted(reader.marks)
    for start in range(0, len(steps), points.IN_ONE_INSERT):
        chunk = steps[start : start + points.IN_ONE_INSERT]
        mine = (_M.experiment_id == experiment, _M.number == reader.number)
        tx.execute(delete(MARKS).where(*mine, _M.step.in_(chunk)))
        counts = rule.peers == "all"
        row = {"experiment_id": experiment, "number": reader.number, "counts": counts}
        tx.execute(insert(MARKS), [{**row, "step": step, "value": reader.marks[step]} for step in chunk])
    reader.marks.clear()


def _note(tx: Connection, experiment: int, rule: EarlyStopper, reader: Reader, at: datetime) -> None:
    experiments.note(
        tx,
        experiment,
        key=f"early-stop/{reader.number}/{reader.attempt}",
        actor=rule.name,
        action="early-stop",
        detail={"trial": reader.number, "attempt": reader.attempt, "reason": reader.reason},
        at=at,
    )


# ---------------------------------------------------------------------------------------------------- by time


def silent(
    tx: Connection, uid: str, rule: EarlyStopper, seconds: float, *, since: datetime, at: datetime
) -> list[Decision]:
    """See `Store.silent`."""
    experiment = experiments.identify(tx, uid)
    mine = and_(_R.experiment_id == _A.experiment_id, _R.number == _A.number, _R.attempt == _A.attempt)
    query = (
        select(_A.id, _A.number, _A.attempt, _A.started, _A.phase, _R.reported)
        .select_from(ATTEMPTS.outerjoin(STOPPING, mine))
        .where(_A.experiment_id == experiment, _A.state == AttemptState.RUNNING.value)
        .where(_A.stop.is_(None), _R.reason.is_(None))
        .order_by(_A.id)
    )
    decisions = []
    for row in tx.execute(query).all():
        heard = max(time for time in (row.started, row.reported, since) if time is not None)
        quiet_s = (at - heard).total_seconds()
        if quiet_s < seconds and not row.phase:
            continue
        points.lock_attempt(tx, row.id)
        reader = Reader.of(row.number, row.attempt, _known(tx, experiment, [row.number]).get((row.number, row.attempt)))
        if reader.decided:
            continue
        if row.phase:  # it waits for its place: its clock has not begun
            _save(tx, experiment, rule, reader, reported=at)
            continue
        reader.reason = f"{rule.name}: it has reported nothing for {quiet_s:.0f} s"
        _note(tx, experiment, rule, reader, at)
        _save(tx, experiment, rule, reader, decided=at)
        decisions.append(reader.decision)
    return decisions


def running(tx: Connection) -> list[str]:
    query = select(_E.uid).where(
        _E.id.in_(select(_A.experiment_id).where(_A.state == AttemptState.RUNNING.value).distinct())
    )
    return list(tx.execute(query).scalars())


def undelivered(tx: Connection) -> list[tuple[str, Decision]]:
    """See `Store.undelivered_stops`."""
    mine = and_(_R.experiment_id == _A.experiment_id, _R.number == _A.number, _R.attempt == _A.attempt)
    query = (
        select(_E.uid, _R.number, _R.attempt, _R.step, _R.reason)
        .select_from(ATTEMPTS.join(STOPPING, mine).join(EXPERIMENTS, _E.id == _A.experiment_id))
        .where(_A.state == AttemptState.RUNNING.value, _A.stop.is_(None), _R.reason.is_not(None))
    )
    return [(row.uid, _decision(row)) for row in tx.execute(query)]


def decisions(tx: Connection, uid: str) -> list[Decision]:
    query = select(STOPPING).where(_R.experiment_id == experiments.identify(tx, uid), _R.reason.is_not(None))
    return [_decision(row) for row in tx.execute(query.order_by(_R.number, _R.attempt))]


def _decision(row: Any) -> Decision:
    return Decision(number=row.number, attempt=row.attempt, step=row.step or 0, reason=row.reason)
