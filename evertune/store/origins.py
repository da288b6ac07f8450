"""The pods that an attempt had one after the other: each counts the places of its points from 0.

Functions over one open transaction, called by `points` and `repository.Store`, with the attempt's row locked. An origin
keeps its ordinal for ever, whoever names it first: the gateway for its collector, or the worker that reads its log.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, insert, select, update

from evertune.store.records import ATTEMPTS, ORIGINS

_O = ORIGINS.c
_OF = select(_O.attempt_id, _O.origin, _O.ordinal).where(_O.attempt_id.in_(bindparam("attempts", expanding=True)))


def likely(tx: Connection, attempt: int, origin: str) -> int:
    """The origin's ordinal, or the one that it would get now."""
    known = {name: int(ordinal) for _, name, ordinal in tx.execute(_OF, {"attempts": [attempt]})}
    return known.get(origin, len(known))


def ordinals(tx: Connection, wanted: Iterable[tuple[int, str]]) -> tuple[dict[tuple[int, str], int], set[int]]:
    """The ordinal of each (attempt id, origin), and the attempts that have got a new one.

    From another pod there may be more to come, whatever the collector of the one before has said.
    """
    asked = list(dict.fromkeys(wanted))
    if not asked:
        return {}, set()
    known = {}
    counts: dict[int, int] = {}
    for attempt, origin, ordinal in tx.execute(_OF, {"attempts": sorted({attempt for attempt, _ in asked})}):
        known[attempt, origin] = int(ordinal)
        counts[attempt] = counts.get(attempt, 0) + 1
    fresh = [key for key in asked if key not in known]
    for attempt, origin in fresh:
        known[attempt, origin] = counts.get(attempt, 0)
        counts[attempt] = known[attempt, origin] + 1
    if fresh:
        rows = [
            {"attempt_id": attempt, "origin": origin, "ordinal": known[attempt, origin]} for attempt, origin in fresh
        ]
        tx.execute(insert(ORIGINS), rows)
        opened = sorted({attempt for attempt, _ in fresh})
        tx.execute(update(ATTEMPTS).where(ATTEMPTS.c.id.in_(opened)).values(collected=False))
    return known, {attempt for attempt, _ in fresh}
