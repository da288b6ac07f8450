"""What somebody who watches an experiment reads again and again: only what is new, never all trials.

Functions over one open transaction, called by `repository.Store`.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, select

from evertune.domain.metrics import missing
from evertune.domain.records import TrialRecord
from evertune.domain.states import AttemptState, TrialState
from evertune.store import points, records, series
from evertune.store.experiments import identify, no_uid
from evertune.store.records import ATTEMPTS, EXPERIMENTS, SERIES, TRIALS

_E = EXPERIMENTS.c
_T = TRIALS.c
_A = ATTEMPTS.c
_S = SERIES.c


def told_trials(tx: Connection, uid: str, *, after: int, limit: int) -> list[TrialRecord]:
    query = (
        select(TRIALS)
        .where(_T.experiment_id == identify(tx, uid), _T.told_seq > after)
        .order_by(_T.told_seq)
        .limit(limit)
    )
    return [records.trial(row) for row in tx.execute(query)]


def last_ended(tx: Connection, uid: str) -> TrialRecord | None:
    query = select(TRIALS).where(_T.experiment_id == identify(tx, uid), _T.told_seq.is_not(None))
    row = tx.execute(query.order_by(_T.told_seq.desc()).limit(1)).first()
    return None if row is None else records.trial(row)


def progress(tx: Connection, uid: str, metric: str) -> dict[int, tuple[int, str]]:
    query = (
        select(_T.number, _S.points, _S.latest_text)
        .join(SERIES, and_(_S.trial_id == _T.id, _S.attempt == _T.attempts - 1, _S.metric == metric))
        .where(_T.experiment_id == identify(tx, uid), _T.state == TrialState.RUNNING.value)
    )
    return {number: (points, value) for number, points, value in tx.execute(query)}


def late(tx: Connection, uid: str) -> list[int]:
    experiment = tx.execute(select(_E.id, _E.objective).where(_E.uid == uid)).first()
    if experiment is None:
        raise no_uid(uid)
    objective = records.load_objective(experiment.objective)
    metric = objective.metric
    query = (
        select(_T.id, _T.number, _T.attempts)
        .join(SERIES, and_(_S.trial_id == _T.id, _S.attempt == _T.attempts - 1, _S.metric == metric))
        .where(_T.experiment_id == experiment.id, _T.state == TrialState.METRICS_UNAVAILABLE.value)
        .order_by(_T.number)
    )
    unheard = (
        select(_T.id, _T.number, _T.attempts, _T.state, _T.metrics)
        .join(ATTEMPTS, and_(_A.trial_id == _T.id, _A.attempt == _T.attempts - 1))
        .where(_T.experiment_id == experiment.id, _A.collected.is_(False), _A.state != AttemptState.RUNNING.value)
    )
    open_ones = [trial.number for trial in tx.execute(unheard).all() if points.outdated(tx, trial, objective)]
    candidates = tx.execute(query).all()
    if objective.further:  # the first one alone changes nothing
        candidates = [
            trial
            for trial in candidates
            if missing(objective, series.summaries(tx, trial.id, trial.attempts - 1)) is None
        ]
    return sorted({*(trial.number for trial in candidates), *open_ones})
