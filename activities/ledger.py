"""`protocols.Ledger` over the database, for runners whose objects can be deleted by anybody.

Made by `worker.compose`. Its methods are short transactions that wait for a database that is away: call them in a
thread.
"""

from __future__ import annotations

from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.protocols import JsonDict, LedgerEntry
from evertune.store import Store


class StoreLedger:
    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, ref: AttemptRef, place: JsonDict) -> LedgerEntry:
        return self._store.claim_launch(ref, place)

    def look(self, ref: AttemptRef) -> LedgerEntry:
        return self._store.launch(ref)

    def stop(self, ref: AttemptRef, reason: str) -> LedgerEntry:
        return self._store.stop_launch(ref, reason)

    def end(self, ref: AttemptRef, end: AttemptEnd) -> LedgerEntry:
        return self._store.end_launch(ref, end)
