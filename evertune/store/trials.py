"""Trials and attempts: from the lease of an attempt to its end and the trial's place in the told order.

Functions over one open transaction, called by `repository.Store`. Every one that changes a trial locks the experiment's
row first; so the order of told trials has no gap and no double, and the counters on that row are always exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, or_, select, update

from evertune.domain.metrics import Point, finite
from evertune.domain.records import AttemptRecord, TrialRecord
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import AttemptEnd, Conclude, Ending
from evertune.errors import ConflictError, NotFoundError
from evertune.store import points, records, series
from evertune.store.experiments import identify, locked
from evertune.store.records import ATTEMPTS, COUNTER, EXPERIMENTS, REVISIONS, SERIES, TRIALS

_E = EXPERIMENTS.c
_T = TRIALS.c
_A = ATTEMPTS.c
_BEST_FIRST = (_T.violation, _T.shortfall, _T.score, _T.told_seq)  # an index

_TRIAL = select(TRIALS).where(_T.experiment_id == bindparam("experiment"), _T.number == bindparam("no"))
_ATTEMPT = select(ATTEMPTS).where(_A.trial_id == bindparam("trial"), _A.attempt == bindparam("no"))
_WELL = select(_A.id).where(_A.trial_id == bindparam("trial"), _A.state == AttemptState.SUCCEEDED.value)
_OPEN_ATTEMPT = select(_A.attempt).where(_A.trial_id == bindparam("trial"), _A.state == AttemptState.RUNNING.value)


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
    numeric = query.where(_T.score.is_not(None)).order_by(*_BEST_FIRST)
    text = query.where(_T.score.is_(None), _T.objective.is_not(None)).order_by(_T.violation, _T.told_seq.desc())
    found: list[Row[Any]] = []
    last = None if after is None else _trial(tx, experiment, after)
    if last is None or last.score is not None:
        if last is not None:
            later = and_(_T.score == last.score, _T.told_seq > last.told_seq)
            worse = and_(_T.shortfall == last.shortfall, or_(_T.score > last.score, later))
            less = and_(_T.violation == last.violation, or_(_T.shortfall > last.shortfall, worse))
            numeric = numeric.where(or_(_T.violation > last.violation, less))
        found += tx.execute(numeric.limit(limit)).all()
    elif last.told_seq is not None:
        earlier = and_(_T.violation == last.violation, _T.told_seq < last.told_seq)
        text = text.where(or_(_T.violation > last.violation, earlier))
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
    tx: Connection, uid: str, number: int, attempt: int, conclude: Conclude, *, new: Sequence[Point], collected: bool
) -> tuple[TrialRecord, int]:
    experiment = locked(tx, uid)
    trial = _trial(tx, experiment.id, number)
    points.lock_attempt(tx, _attempt(tx, trial, attempt).id)
    row = _attempt(tx, trial, attempt)  # again, now that nobody else changes it
    points.add(tx, trial.id, attempt, new)
    if row.state != AttemptState.RUNNING:
        return records.trial(trial), 0 if row.again else (trial.told_seq or 0)
    ending = conclude(series.summaries(tx, trial.id, attempt))
    end = ending.end
    ended = end.ended or datetime.now(UTC)
    tx.execute(
        update(ATTEMPTS)
        .where(_A.id == row.id)
        .values(
            state=end.state,
            reason=end.reason,
            message=end.message,
            failure=end.failure,
            charged=ending.charged,
            again=ending.again,
            exit_code=end.exit_code,
            signal=end.signal,
            started=end.started or row.started,
            ended=ended,
            collected=row.collected or collected,
            phase=None,
        )
    )
    if ending.again:
        # No attempt runs it now: it waits for the next one, and says why.
        tx.execute(
            update(TRIALS)
            .where(_T.id == trial.id)
            .values(
                state=TrialState.CREATED,
                reason=ending.then or end.reason,
                message="" if ending.then else end.message,
                metrics=dict(ending.metrics) or None,
                spread=dict(ending.spread) or None,
            )
        )
        moved = _moved(experiment, trial, TrialState.CREATED)
        tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(moved))
        told_seq = 0
    else:
        told_seq = _tell(tx, experiment, trial, ending, at=ended)
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
    metrics = trial.metrics or {}
    ending = Ending(end=AttemptEnd(AttemptState(state.value), reason, message), trial_state=state, metrics=metrics)
    if tx.execute(_WELL, {"trial": trial.id}).first() is not None:  # of its replicates: what they measured is kept
        objective = records.load_objective(tx.execute(select(_E.objective).where(_E.id == experiment.id)).scalar_one())
        value = metrics.get(objective.metric)
        ending = replace(
            ending,
            objective=value,
            objective_value=finite(value),
            violation=objective.violation(metrics),
            spread=trial.spread or {},
        )
    return _tell(tx, experiment, trial, ending, at=at)


def revise(
    tx: Connection,
    uid: str,
    number: int,
    attempt: int,
    conclude: Conclude,
    *,
    new: Sequence[Point],
    forget: Sequence[tuple[int, int]],
) -> tuple[TrialRecord, TrialRecord]:
    experiment = locked(tx, uid)
    trial = _trial(tx, experiment.id, number)
    row = _attempt(tx, trial, attempt)
    points.lock_attempt(tx, row.id)
    before = records.trial(trial)
    if not before.state.terminal or attempt != trial.attempts - 1:
        raise ConflictError(f"trial {number} still runs; its verdict can be revised once it has ended")
    if forget:
        points.forget(tx, trial.id, attempt, forget)
    points.add(tx, trial.id, attempt, new)
    ending = conclude(series.summaries(tx, trial.id, attempt))
    told = (ending.trial_state, ending.objective, dict(ending.metrics))
    if told == (before.state, before.objective, dict(before.metrics)):  # what else there is follows from these
        return before, before
    tx.execute(
        insert(REVISIONS).values(
            trial_id=trial.id,
            experiment_id=experiment.id,
            told_seq=trial.told_seq,
            superseded=experiment.told_seq + 1,
            state=trial.state,
            objective_value=trial.objective_value,
            metrics=trial.metrics,
            steps=trial.steps,
        )
    )
    end = ending.end
    changed = {"state": end.state, "reason": end.reason, "message": end.message, "failure": end.failure}
    tx.execute(update(ATTEMPTS).where(_A.id == row.id).values(**changed, charged=ending.charged))
    _tell(tx, experiment, trial, ending, at=trial.ended)
    # What was the best may be so no longer: the index knows who is now.
    known = select(_T.number, _T.score, _T.shortfall, _T.violation).where(_T.experiment_id == experiment.id)
    best = tx.execute(known.where(_T.score.is_not(None)).order_by(*_BEST_FIRST).limit(1)).first()
    if best is None:
        texts = known.where(_T.objective.is_not(None)).order_by(_T.violation, _T.told_seq.desc())
        best = tx.execute(texts.limit(1)).first()
    values = {
        "best_number": best and best.number,
        "best_score": best and best.score,
        "best_shortfall": best and best.shortfall,
        "best_violation": best and best.violation,
    }
    tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(values))
    return before, records.trial(_trial(tx, experiment.id, number))


def _tell(tx: Connection, experiment: Row[Any], trial: Row[Any], ending: Ending, *, at: datetime) -> int:
    """Record a trial's end: its place in the told order, the counters, and whether it is the best so far."""
    state, told_seq = ending.trial_state, int(experiment.told_seq) + 1
    assert state is not None
    assert state.terminal
    objective, value = ending.objective, ending.objective_value
    if state.counts_as_failed:  # Katib: a failed trial has no objective, whatever it printed before
        objective = value = None
    if value is not None and not math.isfinite(value):
        value = None
    score = None if value is None else (-value if experiment.maximize else value)
    tx.execute(
        update(TRIALS)
        .where(_T.id == trial.id)
        .values(
            state=state,
            reason=ending.end.reason,
            message=ending.end.message,
            told_seq=told_seq,
            objective=objective,
            objective_value=value,
            score=score,
            violation=ending.violation if objective is not None else 0.0,
            metrics=dict(ending.metrics) or None,
            spread=dict(ending.spread) or None,
            steps=_steps(tx, experiment, trial) if state is TrialState.EARLY_STOPPED else None,
            ended=at,
        )
    )
    values = _moved(experiment, trial, state) | {"told_seq": told_seq}
    if score is not None:
        best = (experiment.best_violation or 0.0, experiment.best_shortfall or 0.0, experiment.best_score)
        if experiment.best_score is None or (ending.violation, trial.shortfall, score) < best:
            values |= {"best_number": trial.number, "best_score": score}
            values |= {"best_shortfall": trial.shortfall, "best_violation": ending.violation}
    elif objective is not None and experiment.best_score is None:
        # Texts have no order: the last one told, until there is a number. But none that misses constraints by more.
        missed = math.inf if experiment.best_number is None else experiment.best_violation or 0.0
        if ending.violation <= missed:
            values |= {"best_number": trial.number, "best_violation": ending.violation}
    tx.execute(update(EXPERIMENTS).where(_E.id == experiment.id).values(values))
    return told_seq


def _steps(tx: Connection, experiment: Row[Any], trial: Row[Any]) -> int:
    """How many values of the objective the trial's last attempt has reported."""
    metric = tx.execute(select(_E.objective).where(_E.id == experiment.id)).scalar_one()["metric"]
    last = max(int(trial.attempts) - 1, 0)
    which = (SERIES.c.trial_id == trial.id, SERIES.c.attempt == last, SERIES.c.metric == metric)
    return int(tx.execute(select(SERIES.c.points).where(*which)).scalar() or 0)


def _moved(experiment: Row[Any], trial: Row[Any], to: TrialState) -> dict[str, Any]:
    """The experiment's counters after `trial` changed to another state."""
    old, new = COUNTER[TrialState(trial.state)], COUNTER[to]
    return {} if old == new else {old: getattr(experiment, old) - 1, new: getattr(experiment, new) + 1}


def request_stop(tx: Connection, uid: str, attempts: Mapping[int, int], reason: str) -> None:
    experiment = identify(tx, uid)
    for number, attempt in attempts.items():
        tx.execute(
            update(ATTEMPTS)
            .where(
                _A.trial_id == _trial(tx, experiment, number).id,
                _A.attempt == attempt,
                _A.state == AttemptState.RUNNING.value,
                _A.stop.is_(None),
            )
            .values(stop=reason)
        )


def set_phase(tx: Connection, uid: str, number: int, attempt: int, phase: str) -> None:
    trial = _trial(tx, identify(tx, uid), number).id
    which = (_A.trial_id == trial, _A.attempt == attempt, _A.state == AttemptState.RUNNING.value)
    if tx.execute(update(ATTEMPTS).where(*which).values(phase=phase or None)).rowcount:
        tx.execute(update(TRIALS).where(_T.id == trial, _T.state == TrialState.RUNNING.value).values(reason=phase))


def phases(tx: Connection, uid: str) -> dict[int, str]:
    query = select(_A.number, _A.phase).where(
        _A.experiment_id == identify(tx, uid), _A.state == AttemptState.RUNNING.value, _A.phase.is_not(None)
    )
    return {int(row.number): str(row.phase) for row in tx.execute(query)}


def trial_id(tx: Connection, uid: str, number: int) -> int:
    return int(_trial(tx, identify(tx, uid), number).id)


def settled(tx: Connection, uid: str, below: int, without: Collection[int]) -> dict[TrialState, int]:
    experiment = identify(tx, uid)
    ended = [state.value for state in TrialState if state.terminal]
    query = select(_T.state, func.count()).where(
        _T.experiment_id == experiment, _T.state.in_(ended), _T.number < below, _T.number.not_in(without)
    )
    return {TrialState(state): int(count) for state, count in tx.execute(query.group_by(_T.state))}
