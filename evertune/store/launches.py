"""What runs attempts in clusters: claimed before an object is made, and kept when it is gone.

Functions over one open transaction, called by `repository.Store`; `protocols.Ledger` says what they mean. All of them
lock the experiment's row first, so that of two workers that claim at once one is the first. The first word stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.protocols import JsonDict, LedgerEntry
from evertune.store.experiments import locked
from evertune.store.records import EXPERIMENTS, LAUNCHES, LEFTOVERS

_L = LAUNCHES.c


def claim(tx: Connection, ref: AttemptRef, place: JsonDict) -> LedgerEntry:
    experiment = locked(tx, ref.experiment_uid).id
    known = _find(tx, experiment, ref)
    if known is not None and (known.place is not None or known.stop is not None or known.end is not None):
        return known
    _set(tx, experiment, ref, known, place=place)
    return LedgerEntry(place=place, claimed_now=True)


def look(tx: Connection, ref: AttemptRef) -> LedgerEntry:
    """Also of an experiment that is gone: nothing is known of it."""
    experiment = tx.execute(select(EXPERIMENTS.c.id).where(EXPERIMENTS.c.uid == ref.experiment_uid)).scalar()
    found = None if experiment is None else _find(tx, int(experiment), ref)
    return found or LedgerEntry()


def stop(tx: Connection, ref: AttemptRef, reason: str) -> LedgerEntry:
    experiment = locked(tx, ref.experiment_uid).id
    known = _find(tx, experiment, ref)
    if known is not None and (known.stop is not None or known.end is not None):
        return known
    _set(tx, experiment, ref, known, stop=reason)
    return dataclasses.replace(known or LedgerEntry(), stop=reason)


def end(tx: Connection, ref: AttemptRef, ending: AttemptEnd) -> LedgerEntry:
    experiment = locked(tx, ref.experiment_uid).id
    known = _find(tx, experiment, ref)
    if known is not None and known.end is not None:
        return known
    _set(tx, experiment, ref, known, ending=dump(ending))
    return dataclasses.replace(known or LedgerEntry(), end=ending)


def places(tx: Connection) -> list[tuple[str, JsonDict]]:
    first = select(func.min(_L.id)).where(_L.place.is_not(None)).group_by(_L.experiment_id)
    query = select(EXPERIMENTS.c.uid, _L.place).join(EXPERIMENTS, EXPERIMENTS.c.id == _L.experiment_id)
    return [(row.uid, row.place) for row in tx.execute(query.where(_L.id.in_(first)))]


def leave(tx: Connection, uid: str) -> None:
    """Before the experiment is removed: where it ran, if anywhere."""
    query = select(_L.place).join(EXPERIMENTS, EXPERIMENTS.c.id == _L.experiment_id)
    place = tx.execute(query.where(EXPERIMENTS.c.uid == uid, _L.place.is_not(None)).limit(1)).scalar()
    if place is not None:
        tx.execute(insert(LEFTOVERS).values(experiment_uid=uid, place=place, deleted=datetime.now(UTC)))


def leftovers(tx: Connection) -> list[tuple[str, JsonDict, datetime]]:
    rows = tx.execute(select(LEFTOVERS).order_by(LEFTOVERS.c.id))
    return [(row.experiment_uid, row.place, row.deleted) for row in rows]


def forget(tx: Connection, uids: Sequence[str]) -> None:
    tx.execute(delete(LEFTOVERS).where(LEFTOVERS.c.experiment_uid.in_(uids)))


def _find(tx: Connection, experiment: int, ref: AttemptRef) -> LedgerEntry | None:
    row = tx.execute(
        select(LAUNCHES).where(_L.experiment_id == experiment, _L.number == ref.number, _L.attempt == ref.attempt)
    ).first()
    if row is None:
        return None
    return LedgerEntry(place=row.place, stop=row.stop, end=None if row.ending is None else load(row.ending))


def _set(tx: Connection, experiment: int, ref: AttemptRef, known: LedgerEntry | None, **values: Any) -> None:
    if known is None:
        row = {"experiment_id": experiment, "number": ref.number, "attempt": ref.attempt}
        tx.execute(insert(LAUNCHES).values(**row, **values))
        return
    tx.execute(
        update(LAUNCHES)
        .where(_L.experiment_id == experiment, _L.number == ref.number, _L.attempt == ref.attempt)
        .values(**values)
    )


def dump(end: AttemptEnd) -> JsonDict:
    data = dataclasses.asdict(end)
    for name in ("started", "ended"):
        data[name] = None if data[name] is None else data[name].isoformat()
    return data


def load(data: JsonDict) -> AttemptEnd:
    times = {name: datetime.fromisoformat(data[name]) for name in ("started", "ended") if data[name] is not None}
    failure = data["failure"]
    return AttemptEnd(
        **{
            **data,
            **times,
            "state": AttemptState(data["state"]),
            "failure": None if failure is None else FailureClass(failure),
            "warnings": tuple(data["warnings"]),
        }
    )
