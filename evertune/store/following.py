"""What somebody who watches an experiment reads again and again: only what is new, never all trials.

Functions over one open transaction, called by `repository.Store`.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from evertune.domain.records import TrialRecord
from evertune.domain.states import TrialState
from evertune.store import records
from evertune.store.experiments import identify
from evertune.store.records import POINTS, TRIALS

_T = TRIALS.c
_P = POINTS.c


def told_trials(tx: Connection, uid: str, *, after: int, limit: int) -> list[TrialRecord]:
    query = (
        select(TRIALS)
        .where(_T.experiment_id == identify(tx, uid), _T.told_seq > after)
        .order_by(_T.told_seq)
        .limit(limit)
    )
    return [records.trial(row) for row in tx.execute(query)]


def progress(tx: Connection, uid: str, metric: str) -> dict[int, tuple[int, str]]:
    reported = (_P.trial_id == _T.id, _P.attempt == _T.attempts - 1, _P.metric == metric)
    count = select(func.count()).where(*reported).correlate(TRIALS).scalar_subquery()
    last = select(_P.value).where(*reported).order_by(_P.seq.desc()).limit(1).correlate(TRIALS).scalar_subquery()
    query = select(_T.number, count, last).where(
        _T.experiment_id == identify(tx, uid), _T.state == TrialState.RUNNING.value
    )
    return {number: (reports, value) for number, reports, value in tx.execute(query) if reports}
