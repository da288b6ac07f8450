"""Experiments in the database: claim a name, change state with an audit row, list with counts and best.

Functions over one open transaction, called by `repository.Store`. They never decide what an experiment does next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, select, update

from evertune.domain.metrics import ObjectiveType
from evertune.domain.records import AuditRecord, Budget, Counts, ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState
from evertune.errors import ConflictError, NameTakenError, NotFoundError
from evertune.store import records
from evertune.store.records import AUDIT, EXPERIMENTS, TRIALS, NewExperiment

_E = EXPERIMENTS.c
_BEST = [column.label(f"best_{column.name}") for column in TRIALS.c if column.name not in ("id", "experiment_id")]
_BEST_OF = ("best_number", "best_score", "best_shortfall", "best_violation")
# One query gives experiments with their counts and best trial, however many there are.
_OWN = [column for column in _E if column.name not in _BEST_OF]
_WHOLE = select(*_OWN, *_BEST).select_from(
    EXPERIMENTS.outerjoin(TRIALS, and_(TRIALS.c.experiment_id == _E.id, TRIALS.c.number == _E.best_number))
)
# Without the documents: this is read before every change of a trial.
_DOCUMENTS = ("settings", "objective", "space", "context", "manifest")
_LOCK = (
    select(*(column for column in _E if column.name not in _DOCUMENTS))
    .where(_E.uid == bindparam("uid"))
    .with_for_update()
)
_COUNTS = select(_E.trials, *(_E[name] for name in records.COUNTER.values())).where(_E.uid == bindparam("uid"))
_UNFINISHED = [state.value for state in ExperimentState if not state.terminal]


class _Best:
    """The best trial's columns of a `_WHOLE` row, under their own names."""

    __slots__ = ("_row",)

    def __init__(self, row: Row[Any]) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, f"best_{name}")


def _record(row: Row[Any]) -> ExperimentRecord:
    return records.experiment(row, None if row.best_number is None else records.trial(_Best(row)))


def locked(tx: Connection, uid: str) -> Row[Any]:
    """The experiment's row, locked until the transaction ends. Whatever changes trials or counters begins here."""
    row = tx.execute(_LOCK, {"uid": uid}).first()
    if row is None:
        raise no_uid(uid)
    return row


def identify(tx: Connection, uid: str) -> int:
    found = tx.execute(select(_E.id).where(_E.uid == uid)).scalar()
    if found is None:
        raise no_uid(uid)
    return int(found)


def claim(tx: Connection, new: NewExperiment) -> ExperimentRecord:
    holder = tx.execute(_WHOLE.where(_E.namespace == new.namespace, _E.name == new.name)).first()
    if holder is not None:
        if (holder.workflow_id, holder.first_run_id) == (new.workflow_id, new.first_run_id):
            return _record(holder)
        raise NameTakenError(
            f"the name {new.name!r} in namespace {new.namespace!r} is taken by workflow {holder.workflow_id}"
            f" ({holder.state})",
            f"choose another name, or `evertune delete {new.name} -n {new.namespace}` first",
        )
    tx.execute(
        insert(EXPERIMENTS).values(
            uid=new.uid,
            namespace=new.namespace,
            name=new.name,
            state=ExperimentState.CREATED,
            maximize=new.objective.type is ObjectiveType.MAXIMIZE,
            parallel=new.budget.parallel,
            max_trials=new.budget.max_trials,
            max_failed=new.budget.max_failed,
            seed=new.seed,
            algorithm=new.algorithm,
            backend=new.backend,
            home_id=new.home_id,
            workflow_id=new.workflow_id,
            first_run_id=new.first_run_id,
            created=new.created,
            reason="",
            message="",
            settings=dict(new.settings),
            objective=records.dump_objective(new.objective),
            space=records.dump_space(new.space),
            context=dict(new.context),
            manifest=dict(new.manifest),
        )
    )
    return by_uid(tx, new.uid)


def by_uid(tx: Connection, uid: str) -> ExperimentRecord:
    row = tx.execute(_WHOLE.where(_E.uid == uid)).first()
    if row is None:
        raise no_uid(uid)
    return _record(row)


def by_name(tx: Connection, namespace: str, name: str) -> ExperimentRecord:
    row = tx.execute(_WHOLE.where(_E.namespace == namespace, _E.name == name)).first()
    if row is not None:
        return _record(row)
    elsewhere = tx.execute(select(_E.namespace).where(_E.name == name).order_by(_E.namespace)).scalars().first()
    if elsewhere is not None:
        hint = f"there is one in namespace {elsewhere!r}: add -n {elsewhere}"
    else:
        hint = _did_you_mean(name, tx.execute(select(_E.name).where(_E.namespace == namespace)).scalars().all())
    raise NotFoundError(f"there is no experiment {name!r} in namespace {namespace!r}", hint)


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, names, n=3)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "`evertune list` shows them" if names else "there are no experiments in it yet"


def listed(tx: Connection, namespace: str | None) -> list[ExperimentRecord]:
    query = _WHOLE if namespace is None else _WHOLE.where(_E.namespace == namespace)
    return [_record(row) for row in tx.execute(query.order_by(_E.created, _E.id))]


def unfinished(tx: Connection) -> list[ExperimentRecord]:
    return [_record(row) for row in tx.execute(_WHOLE.where(_E.state.in_(_UNFINISHED)).order_by(_E.id))]


def set_state(
    tx: Connection,
    uid: str,
    state: ExperimentState,
    *,
    reason: str,
    message: str,
    budget: Budget | None,
    goal: float | None,
    key: str,
    actor: str,
    action: str,
    detail: Mapping[str, Any] | None,
    at: datetime,
    only_from_terminal: bool = False,
    first_run_id: str | None = None,
) -> None:
    row = locked(tx, uid)
    if _noted(tx, row.id, key):
        return
    if only_from_terminal and not ExperimentState(row.state).terminal:
        raise ConflictError(f"experiment {row.name!r} is {row.state}; only a finished one can be reopened")
    values: dict[str, Any] = {"state": state, "reason": reason, "message": message}
    if state is ExperimentState.RUNNING and row.started is None:
        values["started"] = at
    if not state.terminal:
        values["ended"] = None
    elif row.ended is None:
        values["ended"] = at
    if budget is not None:
        values |= {"parallel": budget.parallel, "max_trials": budget.max_trials, "max_failed": budget.max_failed}
    if goal is not None:
        objective = tx.execute(select(_E.objective).where(_E.id == row.id)).scalar_one()
        values["objective"] = {**objective, "goal": goal}
    if first_run_id is not None:
        values["first_run_id"] = first_run_id
    tx.execute(update(EXPERIMENTS).where(_E.id == row.id).values(values))
    note(tx, row.id, key=key, actor=actor, action=action, detail=detail, at=at)


def _noted(tx: Connection, experiment: int, key: str) -> bool:
    seen = select(AUDIT.c.id).where(AUDIT.c.experiment_id == experiment, AUDIT.c.key == key)
    return tx.execute(seen).first() is not None


def note(
    tx: Connection,
    experiment: int,
    *,
    key: str,
    actor: str,
    action: str,
    detail: Mapping[str, Any] | None,
    at: datetime,
) -> None:
    if _noted(tx, experiment, key):
        return
    row = {"key": key, "at": at, "actor": actor, "action": action, "detail": dict(detail) if detail else None}
    tx.execute(insert(AUDIT).values(experiment_id=experiment, **row))


def audit(tx: Connection, uid: str) -> list[AuditRecord]:
    rows = tx.execute(
        select(AUDIT.c.at, AUDIT.c.actor, AUDIT.c.action, AUDIT.c.detail)
        .where(AUDIT.c.experiment_id == identify(tx, uid), AUDIT.c.action != "")
        .order_by(AUDIT.c.id)
    )
    return [AuditRecord(at=row.at, actor=row.actor, action=row.action, detail=row.detail or {}) for row in rows]


def remove(tx: Connection, uid: str) -> None:
    """Everything of the experiment goes with its row: the foreign keys cascade."""
    tx.execute(delete(EXPERIMENTS).where(_E.uid == uid))


def counts(tx: Connection, uid: str) -> Counts:
    row = tx.execute(_COUNTS, {"uid": uid}).first()
    if row is None:
        raise no_uid(uid)
    return records.counts(row)


def best(tx: Connection, uid: str) -> TrialRecord | None:
    row = tx.execute(
        select(_E.id, TRIALS)
        .select_from(
            EXPERIMENTS.outerjoin(TRIALS, and_(TRIALS.c.experiment_id == _E.id, TRIALS.c.number == _E.best_number))
        )
        .where(_E.uid == uid)
    ).first()
    if row is None:
        raise no_uid(uid)
    return None if row.number is None else records.trial(row)


def no_uid(uid: str) -> NotFoundError:
    return NotFoundError(f"there is no experiment with uid {uid}", "it was deleted, or it lives in another database")
