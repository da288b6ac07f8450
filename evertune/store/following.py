"""What somebody who watches an experiment reads again and again: only what is new, never all trials.

Functions over one open transaction, called by `repository.Store`.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, func, select

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
    reported = (
        select(_T.id, _T.number, _T.attempts, func.count().label("count"), func.max(_P.seq).label("last"))
        .join(POINTS, and_(_P.trial_id == _T.id, _P.attempt == _T.attempts - 1, _P.metric == metric))
        .where(_T.experiment_id == identify(tx, uid), _T.state == TrialState.RUNNING.value)
        .group_by(_T.id, _T.number, _T.attempts)
        .subquery()
    )
    query = select(reported.c.number, reported.c.count, _P.value).join(
        POINTS,
        and_(
            _P.trial_id == reported.c.id,
            _P.attempt == reported.c.attempts - 1,
            _P.metric == metric,
            _P.seq == reported.c.last,
        ),
    )
    return {number: (count, value) for number, count, value in tx.execute(query)}
