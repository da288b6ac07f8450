"""Trials, attempts and metric points: from the lease of an attempt to its end and the trial's place in the told order.

Functions over one open transaction, called by `repository.Store`. Every one that changes a trial locks the experiment's
row first; so the order of told trials has no gap and no double, and the counters on that row are always exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, bindparam, insert, or_, select, update

from evertune.domain.metrics import Point
from evertune.domain.records import AttemptRecord, TrialRecord
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import AttemptEnd
from evertune.errors import ConflictError, NotFoundError
from evertune.store import records
from evertune.store.experiments import identify, locked
from evertune.store.records import ATTEMPTS, COUNTER, EXPERIMENTS, POINTS, TRIALS

_E = EXPERIMENTS.c
_T = TRIALS.c
_A = ATTEMPTS.c
_P = POINTS.c

_TRIAL = select(TRIALS).where(_T.experiment_id == bindparam("experiment"), _T.number == bindparam("no"))
_ATTEMPT = select(ATTEMPTS).where(_A.trial_id == bindparam("trial"), _A.attempt == bindparam("no"))
_OPEN_ATTEMPT = select(_A.attempt).where(_A.trial_id == bindparam("trial"), _A.state == AttemptState.RUNNING.value)
_POINTS_AT = select(_P.metric, _P.seq).where(
    _P.trial_id == bindparam("trial"),
    _P.attempt == bindparam("no"),
    _P.metric == bindparam("name"),
    _P.seq >= bindparam("low"),
    _P.seq <= bindparam("high"),
)


def _trial(tx: Connection, experiment: int, number: int) -> Row[Any]:
    row = tx.execute(_TRIAL, {"experiment": experiment, "no": number}).first()
    if row is None:
        raise NotFoundError(f"there is no trial {number} in this experiment")
    return row


def _attempt(tx: Connection, trial: Row[Any], attempt: int) -> Row[Any]:
    row = tx.execute(_ATTEMPT, {"trial": trial.id, "no": attempt}).first()
    if row is None:
        raise NotFoundError(f"trial {trial.number} has no attempt {attempt}")
    return row


def one(tx: Connection, uid: str, number: int) -> TrialRecord:
    return records.trial(_trial(tx, identify(tx, uid), number))


def listed(
    tx: Connection,
    uid: str,
    *,
    states: Collection[TrialState] | None,
    sort: Literal["number", "best"],
    limit: int | None,
    after: int | None,
) -> list[TrialRecord]:
    experiment = identify(tx, uid)
    query = select(TRIALS).where(_T.experiment_id == experiment)
    if states is not None:
        query = query.where(_T.state.in_([state.value for state in states]))
    if sort == "number":
        if after is not None:
            query = query.where(_T.number > after)
        return [records.trial(row) for row in tx.execute(query.order_by(_T.number).limit(limit))]
    # Numbers first, in the order of the index; then texts, the last told first, as `best` takes them.
    numeric = query.where(_T.score.is_not(None)).order_by(_T.score, _T.told_seq)
    text = query.where(_T.score.is_(None), _T.objective.is_not(None)).order_by(_T.told_seq.desc())
    found: list[Row[Any]] = []
    last = None if after is None else _trial(tx, experiment, after)
    if last is None or last.score is not None:
        if last is not None:
            later = and_(_T.score == last.score, _T.told_seq > last.told_seq)
            numeric = numeric.where(or_(_T.score > last.score, later))
        found += tx.execute(numeric.limit(limit)).all()
    elif last.told_seq is not None:
        text = text.where(_T.told_seq < last.told_seq)
    rest = None if limit is None else limit - len(found)
    if rest is None or rest > 0:
        found += tx.execute(text.limit(rest)).all()
    return [records.trial(row) for row in found]


def attempts(tx: Connection, uid: str, number: int) -> list[AttemptRecord]:
    trial = _trial(tx, identify(tx, uid), number)
    rows = tx.execute(select(ATTEMPTS).where(_A.trial_id == trial.id).order_by(_A.attempt))
    return [records.attempt(row) for row in rows]


def running_attempts(tx: Connection, uid: str | None, home_id: str | None) -> list[tuple[str, AttemptRecord]]:
    query = select(_E.uid, ATTEMPTS).join(EXPERIMENTS, _E.id == _A.experiment_id)
    query = query.where(_A.state == AttemptState.RUNNING.value)
    if home_id is not None:
        query = query.where(_A.home_id == home_id)
    if uid is not None:
        query = query.where(_A.experiment_id == identify(tx, uid))
    return [(row.uid, records.attempt(row)) for row in tx.execute(query.order_by(_A.id))]


def open_attempt(
    tx: Connection, uid: str, number: int, attempt: int, *, home_id: str | None, at: datetime
) -> AttemptRecord:
    experiment = locked(tx, uid)
    trial = _trial(tx, experiment.id, number)
    row = tx.execute(_ATTEMPT, {"trial": trial.id, "no": attempt}).first()
    if row is not None:
        return records.attempt(row)
    if TrialState(trial.state).terminal:
        raise ConflictError(f"trial {number} has ended ({trial.state}); it gets no attempt {attempt}")
    running = tx.execute(_OPEN_ATTEMPT, {"trial": trial.id}).scalar()
    if running is not None:
        raise ConflictError(
            f"attempt {running} of trial {number} still runs; attempt {attempt} has to wait for its end"
        )
    tx.execute(
        insert(ATTEMPTS),
        {
            "trial_id": trial.id,
            "experiment_id": experiment.id,
            "number": number,
            "attempt": attempt,
            "state": AttemptState.RUNNING,
            "home_id": home_id,
            "started": at,
            "reason": "",
            "message": "",
        },
    )
    values: dict[str, Any] = {"state": TrialState.RUNNING, "attempts": trial.attempts + 1, "reason": "", "message": ""}
    if trial.started is None:
        values["started"] = at
    tx.execute(update(TRIALS).where(_T.id == trial.id).values(values))
    tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(_moved(experiment, trial, TrialState.RUNNING)))
    return records.attempt(_attempt(tx, trial, attempt))


def end_attempt(
    tx: Connection,
    uid: str,
    number: int,
    attempt: int,
    end: AttemptEnd,
    *,
    points: Sequence[Point],
    again: bool,
    charged: bool,
    trial_state: TrialState | None,
    objective: str | None,
    objective_value: float | None,
    metrics: Mapping[str, str],
) -> tuple[TrialRecord, int]:
    experiment = locked(tx, uid)
    trial = _trial(tx, experiment.id, number)
    row = _attempt(tx, trial, attempt)
    _insert_points(tx, trial.id, attempt, points)
    if row.state != AttemptState.RUNNING:
        return records.trial(trial), 0 if row.again else (trial.told_seq or 0)
    ended = end.ended or datetime.now(UTC)
    tx.execute(
        update(ATTEMPTS)
        .where(_A.id == row.id)
        .values(
            state=end.state,
            reason=end.reason,
            message=end.message,
            failure=end.failure,
            charged=charged,
            again=again,
            exit_code=end.exit_code,
            signal=end.signal,
            started=end.started or row.started,
            ended=ended,
        )
    )
    if again:
        # No attempt runs it now: it waits for the next one, and says why.
        tx.execute(
            update(TRIALS)
            .where(_T.id == trial.id)
            .values(state=TrialState.CREATED, reason=end.reason, message=end.message, metrics=dict(metrics) or None)
        )
        moved = _moved(experiment, trial, TrialState.CREATED)
        tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(moved))
        told_seq = 0
    else:
        assert trial_state is not None
        assert trial_state.terminal
        told_seq = _tell(
            tx,
            experiment,
            trial,
            trial_state,
            reason=end.reason,
            message=end.message,
            at=ended,
            objective=objective,
            objective_value=objective_value,
            metrics=metrics,
        )
    return records.trial(_trial(tx, experiment.id, number)), told_seq


def close_trial(
    tx: Connection, uid: str, number: int, state: TrialState, reason: str, message: str, at: datetime
) -> int:
    experiment = locked(tx, uid)
    trial = _trial(tx, experiment.id, number)
    if TrialState(trial.state).terminal:
        return int(trial.told_seq)
    running = tx.execute(_OPEN_ATTEMPT, {"trial": trial.id}).scalar()
    if running is not None:
        raise ConflictError(f"attempt {running} of trial {number} still runs; the trial ends with it")
    return _tell(
        tx,
        experiment,
        trial,
        state,
        reason=reason,
        message=message,
        at=at,
        objective=None,
        objective_value=None,
        metrics=trial.metrics or {},
    )


def _tell(
    tx: Connection,
    experiment: Row[Any],
    trial: Row[Any],
    state: TrialState,
    *,
    reason: str,
    message: str,
    at: datetime,
    objective: str | None,
    objective_value: float | None,
    metrics: Mapping[str, str],
) -> int:
    """Record a trial's end: its place in the told order, the counters, and whether it is the best so far."""
    told_seq = int(experiment.told_seq) + 1
    if state.counts_as_failed:  # Katib: a failed trial has no objective, whatever it printed before
        objective = objective_value = None
    if objective_value is not None and not math.isfinite(objective_value):
        objective_value = None
    score = None if objective_value is None else (-objective_value if experiment.maximize else objective_value)
    tx.execute(
        update(TRIALS)
        .where(_T.id == trial.id)
        .values(
            state=state,
            reason=reason,
            message=message,
            told_seq=told_seq,
            objective=objective,
            objective_value=objective_value,
            score=score,
            metrics=dict(metrics) or None,
            ended=at,
        )
    )
    values = _moved(experiment, trial, state) | {"told_seq": told_seq}
    if score is not None:
        if experiment.best_score is None or score < experiment.best_score:
            values |= {"best_number": trial.number, "best_score": score}
    elif objective is not None and experiment.best_score is None:
        values["best_number"] = trial.number  # texts have no order: the last one told, until there is a number
    tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(values))
    return told_seq


def _moved(experiment: Row[Any], trial: Row[Any], to: TrialState) -> dict[str, Any]:
    """The experiment's counters after `trial` changed to another state."""
    old, new = COUNTER[TrialState(trial.state)], COUNTER[to]
    return {} if old == new else {old: getattr(experiment, old) - 1, new: getattr(experiment, new) + 1}


def add_points(tx: Connection, uid: str, number: int, attempt: int, points: Sequence[Point]) -> int:
    trial = _trial(tx, identify(tx, uid), number)
    # The attempt's row is the lock: two readers of one log insert one after the other.
    lock = select(_A.id).where(_A.trial_id == trial.id, _A.attempt == attempt).with_for_update()
    if tx.execute(lock).first() is None:
        raise NotFoundError(f"trial {number} has no attempt {attempt}")
    return _insert_points(tx, trial.id, attempt, points)


def _insert_points(tx: Connection, trial: int, attempt: int, points: Sequence[Point]) -> int:
    if not points:
        return 0
    fresh = {(point.metric, point.seq): point for point in reversed(points)}  # of doubles the first stays
    for name in {point.metric for point in points}:
        seqs = [seq for metric, seq in fresh if metric == name]
        bounds = {"trial": trial, "no": attempt, "name": name, "low": min(seqs), "high": max(seqs)}
        for metric, seq in tx.execute(_POINTS_AT, bounds):
            fresh.pop((metric, seq), None)
    if fresh:
        tx.execute(
            insert(POINTS),
            [
                {
                    "trial_id": trial,
                    "attempt": attempt,
                    "metric": point.metric,
                    "seq": point.seq,
                    "timestamp": point.timestamp,
                    "value": point.value,
                }
                for point in fresh.values()
            ],
        )
    return len(fresh)


def points(tx: Connection, uid: str, number: int, *, metric: str | None, attempt: int | None) -> list[Point]:
    query = select(_P.metric, _P.value, _P.seq, _P.timestamp)
    query = query.where(_P.trial_id == _trial(tx, identify(tx, uid), number).id)
    if metric is not None:
        query = query.where(_P.metric == metric)
    if attempt is not None:
        query = query.where(_P.attempt == attempt)
    return [Point(*row) for row in tx.execute(query.order_by(_P.attempt, _P.seq, _P.metric))]
