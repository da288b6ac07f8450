"""The three steps of a suggestion: open a request with its cut, read the history at that cut, commit the answer.

Functions over one open transaction, called by `repository.Store`. A request that is opened again keeps its cut, and an
answer that is committed again is the one committed first: whoever dies in between gives the same suggestion next time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, null, select, type_coerce, update
from sqlalchemy import Text as PlainText

from evertune.domain.labels import shortfall
from evertune.domain.metrics import Objective
from evertune.domain.records import RequestRecord, TrialRecord
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError, ConflictError, NotFoundError
from evertune.protocols import Answer, JsonDict
from evertune.store import records
from evertune.store.experiments import identify, locked, no_uid
from evertune.store.records import EXPERIMENTS, REQUEST_COLUMNS, REQUESTS, REVISIONS, TRIALS

SNAPSHOT_EVERY = 100  # algorithm states kept for replay; otherwise the last two
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words; no 0, 1, 3: nothing to misread
_STATES = {state.value: state for state in TrialState}
_R = REQUESTS.c
_T = TRIALS.c
_V = REVISIONS.c

_ONE = select(_R.id, *REQUEST_COLUMNS).where(
    _R.experiment_id == bindparam("experiment"), _R.request_no == bindparam("no")
)
_NUMBERED = (
    select(TRIALS)
    .where(_T.experiment_id == bindparam("experiment"), _T.number >= bindparam("first"), _T.number < bindparam("end"))
    .order_by(_T.number)
)
_DROP_STATE = (
    update(REQUESTS)
    .where(_R.experiment_id == bindparam("experiment"), _R.request_no == bindparam("no"))
    .values(state=null())
)
# Raw text of the JSON columns: thousands of rows are decoded in one go (`_history_trials`).
_HISTORY = select(
    _T.number,
    _T.state,
    _T.objective_value,
    _T.told_seq,
    _T.steps,
    type_coerce(_T.parameters, PlainText).label("parameters"),
    type_coerce(_T.labels, PlainText).label("labels"),
    type_coerce(_T.meta, PlainText).label("meta"),
).where(_T.experiment_id == bindparam("experiment"), _T.number < bindparam("end"))
_METRICS = type_coerce(_T.metrics, PlainText).label(
    "metrics"
)  # only where an algorithm is told more than the objective
# Trials whose verdict was revised behind a cut, as they were at it.
_REVISED_SINCE = (
    select(
        _T.number,
        _V.state,
        _V.objective_value,
        _V.told_seq,
        _V.steps,
        type_coerce(_V.metrics, PlainText).label("metrics"),
    )
    .join(TRIALS, _T.id == _V.trial_id)
    .where(
        _V.experiment_id == bindparam("experiment"), _V.superseded > bindparam("cut"), _V.told_seq <= bindparam("cut")
    )
)
_TOLD_SINCE = (_T.told_seq > bindparam("after"), _T.told_seq <= bindparam("cut"))
_NEW_SINCE = _T.number >= bindparam("first")


def trial_name(experiment: str, uid: str, number: int, salt: int = 0) -> str:
    """`<experiment>-<8 characters>`, the same for the same trial for ever. `salt` steps aside from a collision."""
    digest = hashlib.sha256(f"{uid}/{number}{f'/{salt}' if salt else ''}".encode()).digest()
    value = int.from_bytes(digest[:8], "big")
    letters = []
    for _ in range(8):
        value, index = divmod(value, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return f"{experiment}-{''.join(letters)}"


def open_request(tx: Connection, uid: str, request_no: int, k: int, revision: int) -> RequestRecord:
    experiment = locked(tx, uid)
    row = _row(tx, experiment.id, request_no)
    if row is None:
        tx.execute(
            insert(REQUESTS),
            {
                "experiment_id": experiment.id,
                "request_no": request_no,
                "k": k,
                "revision": revision,
                "cut": experiment.told_seq,
                "first_number": experiment.trials,
                "asked": datetime.now(UTC),
                "reason": "",
            },
        )
        row = _row(tx, experiment.id, request_no)
        assert row is not None
    return records.request(row)


def commit_answer(tx: Connection, uid: str, request_no: int, answer: Answer, at: datetime) -> list[TrialRecord]:
    experiment = locked(tx, uid)
    request = _row(tx, experiment.id, request_no)
    if request is None:
        raise NotFoundError(f"experiment {experiment.name!r} has no request {request_no} to answer")
    if request.committed is not None:
        return _numbered(tx, experiment.id, request.first_number, request.answered)
    if request.first_number != experiment.trials:
        raise ConflictError(
            f"request {request_no} of {experiment.name!r} was opened for trial {request.first_number},"
            f" but the next one is {experiment.trials}",
        )
    answered = len(answer.assignments)
    if answered > request.k:
        raise AlgorithmError(
            f"algorithm {experiment.algorithm!r} gave {answered} assignments where {request.k} were asked"
        )
    if answered:
        names = _names(tx, experiment, range(request.first_number, request.first_number + answered))
        tx.execute(
            insert(TRIALS),
            [
                {
                    "experiment_id": experiment.id,
                    "number": request.first_number + index,
                    "name": names[index],
                    "state": TrialState.CREATED,
                    "request_no": request_no,
                    "parameters": dict(assignment.parameters),
                    "labels": dict(assignment.labels) or None,
                    "shortfall": shortfall(assignment.labels),
                    "meta": dict(assignment.meta) or None,
                    "created": at,
                    "reason": "",
                    "message": "",
                }
                for index, assignment in enumerate(answer.assignments)
            ],
        )
        tx.execute(
            update(EXPERIMENTS)
            .where(EXPERIMENTS.c.id == experiment.id)
            .values(trials=experiment.trials + answered, pending=experiment.pending + answered)
        )
    tx.execute(
        update(REQUESTS)
        .where(_R.id == request.id)
        .values(
            answered=answered,
            wait=answer.wait,
            exhausted=answer.exhausted,
            reason=answer.reason,
            committed=at,
            state=answer.state,
        )
    )
    stale = request_no - 2
    if stale % SNAPSHOT_EVERY:
        tx.execute(_DROP_STATE, {"experiment": experiment.id, "no": stale})
    return _numbered(tx, experiment.id, request.first_number, answered)


def _row(tx: Connection, experiment: int, request_no: int) -> Row[Any] | None:
    return tx.execute(_ONE, {"experiment": experiment, "no": request_no}).first()


def _numbered(tx: Connection, experiment: int, first: int, how_many: int) -> list[TrialRecord]:
    found = tx.execute(_NUMBERED, {"experiment": experiment, "first": first, "end": first + how_many})
    return [records.trial(row) for row in found]


def _names(tx: Connection, experiment: Row[Any], numbers: range) -> list[str]:
    names = [trial_name(experiment.name, experiment.uid, number) for number in numbers]
    salt = 0
    while True:
        # One in 10^7 at 10,000 trials; two trials of one name would share their pod and their directory.
        query = select(_T.name).where(_T.experiment_id == experiment.id, _T.name.in_(names))
        taken = set(tx.execute(query).scalars())
        taken |= {name for name in names if names.count(name) > 1}
        if not taken:
            return names
        salt += 1
        names = [
            trial_name(experiment.name, experiment.uid, number, salt) if name in taken else name
            for number, name in zip(numbers, names, strict=True)
        ]


def one(tx: Connection, uid: str, request_no: int) -> RequestRecord:
    row = _row(tx, identify(tx, uid), request_no)
    if row is None:
        raise NotFoundError(f"experiment {uid} has no request {request_no}")
    return records.request(row)


def every(tx: Connection, uid: str) -> list[RequestRecord]:
    query = select(*REQUEST_COLUMNS).where(_R.experiment_id == identify(tx, uid)).order_by(_R.request_no)
    return [records.request(row) for row in tx.execute(query)]


def trials_of(tx: Connection, uid: str, request_no: int) -> list[TrialRecord]:
    experiment = identify(tx, uid)
    row = _row(tx, experiment, request_no)
    return [] if row is None else _numbered(tx, experiment, row.first_number, row.answered)


def algorithm_state(tx: Connection, uid: str, before_request: int) -> JsonDict | None:
    experiment = tx.execute(select(EXPERIMENTS.c.id, EXPERIMENTS.c.revision).where(EXPERIMENTS.c.uid == uid)).first()
    if experiment is None:
        raise no_uid(uid)
    asking = _row(tx, experiment.id, before_request)
    last = tx.execute(
        select(_R.request_no, _R.state, _R.state.is_(null()).label("dropped"))
        .where(
            _R.experiment_id == experiment.id,
            _R.request_no < before_request,
            _R.revision == (asking.revision if asking is not None else experiment.revision),
            _R.committed.is_not(None),
        )
        .order_by(_R.request_no.desc())
        .limit(1)
    ).first()
    if last is None:
        return None
    if last.dropped:
        raise NotFoundError(
            f"the algorithm's state after request {last.request_no} is not kept any more",
            f"the last two and every {SNAPSHOT_EVERY}th are; recompute from the nearest of these",
        )
    state: JsonDict | None = last.state
    return state


def history(tx: Connection, uid: str, *, cut: int, first_number: int) -> list[HistoryTrial]:
    experiment, objective = _searched(tx, uid)
    query = _asked_for(objective).order_by(_T.number)
    found = tx.execute(query, {"experiment": experiment, "end": first_number}).all()
    return _history_trials(found, cut, _revised(tx, experiment, cut), objective)


def history_since(
    tx: Connection, uid: str, *, after: int, from_number: int, cut: int, first_number: int
) -> list[HistoryTrial]:
    experiment, objective = _searched(tx, uid)
    query = _asked_for(objective)
    bounds = {"experiment": experiment, "end": first_number}
    told = tx.execute(query.where(*_TOLD_SINCE), {**bounds, "after": after, "cut": cut})
    rows = {row.number: row for row in told}
    rows |= {row.number: row for row in tx.execute(query.where(_NEW_SINCE), {**bounds, "first": from_number})}
    in_order = [rows[number] for number in sorted(rows)]
    return _history_trials(in_order, cut, _revised(tx, experiment, cut), objective)


def _searched(tx: Connection, uid: str) -> tuple[int, Objective]:
    row = tx.execute(select(EXPERIMENTS.c.id, EXPERIMENTS.c.objective).where(EXPERIMENTS.c.uid == uid)).first()
    if row is None:
        raise no_uid(uid)
    return int(row.id), records.load_objective(row.objective)


def _asked_for(objective: Objective) -> Select[Any]:
    return _HISTORY.add_columns(_METRICS) if objective.further or objective.constraints else _HISTORY


def _revised(tx: Connection, experiment: int, cut: int) -> dict[int, Any]:
    """By trial number, what a trial had told at the cut that tells something else today."""
    return {row.number: row for row in tx.execute(_REVISED_SINCE, {"experiment": experiment, "cut": cut})}


def last_revision(tx: Connection, uid: str) -> int:
    query = select(func.max(_V.superseded)).where(_V.experiment_id == identify(tx, uid))
    return tx.execute(query).scalar() or 0


def _history_trials(
    rows: Sequence[Any], cut: int, revised: Mapping[int, Any], objective: Objective
) -> list[HistoryTrial]:
    every_parameters = json.loads(f"[{','.join([row.parameters for row in rows])}]")
    several = bool(objective.further or objective.constraints)
    trials = []
    for row, parameters in zip(rows, every_parameters, strict=True):
        number, state, value, told_seq, steps, _, labels, meta, *metrics = row
        if told_seq is not None and told_seq > cut and number in revised:
            _, state, value, told_seq, steps, *metrics = revised[number]
        told = told_seq is not None and told_seq <= cut
        trials.append(
            HistoryTrial(
                number,
                parameters,
                _STATES[state] if told else TrialState.RUNNING,
                value if told else None,
                told_seq if told else None,
                json.loads(labels) if labels else {},
                json.loads(meta) if meta else {},
                *(_more(objective, _STATES[state], value, metrics[0]) if told and several else ((), ())),
                (steps or 0) if told else 0,
            )
        )
    return trials


def _more(
    objective: Objective, state: TrialState, value: float | None, metrics: str | None
) -> tuple[tuple[float | None, ...], tuple[float, ...]]:
    """All objectives of a trial that was told, and by how much it misses each constraint."""
    known = json.loads(metrics) if metrics and not state.counts_as_failed else {}
    values = (value, *objective.values(known)[1:]) if objective.further else ()
    return values, objective.violations(known)
