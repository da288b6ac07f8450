"""The server's way to the database: opened when first needed, and again until that succeeds.

So the server starts, and says why it cannot work, while the database is away. SQLAlchemy is imported with the first
use. All methods block: call them from threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.errors import NotFoundError, UnavailableError
from evertune.settings import Settings

if TYPE_CHECKING:
    from evertune.store import Store

OPEN_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class KnownAttempt:
    ended: float | None  # seconds since the epoch
    names: list[str]  # the metrics that it has reported


@dataclass(frozen=True, slots=True)
class KnownTrial:
    name: str
    namespace: str  # of its experiment, hence of its pods


class LateStore:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._opening = threading.Lock()

    def store(self) -> Store:
        """The open store. Raises UnavailableError and the like when it cannot be opened now."""
        if self._store is None:
            if not self._opening.acquire(timeout=OPEN_WAIT_S):
                raise UnavailableError("the database does not answer: it is still being opened")
            try:
                if self._store is None:
                    from evertune.store import store_of

                    if str(self._settings.home) in self._settings.database_url:  # nobody may have used it before us
                        self._settings.prepare_home()
                    self._store = store_of(self._settings)
            finally:
                self._opening.release()
        return self._store

    def add_reports(self, reports: Sequence[Report]) -> Sequence[Taken]:
        return self.store().add_reports(reports)

    def attempt(self, uid: str, number: int, attempt: int) -> KnownAttempt | None:
        """None when there is no such attempt."""
        store = self.store()
        try:
            record = next((one for one in store.attempts(uid, number) if one.attempt == attempt), None)
            if record is None:
                return None
            names = [series.metric for series in store.series(uid, number, attempt=attempt)]
        except NotFoundError:
            return None
        ended = record.ended.timestamp() if record.ended and record.state.terminal else None
        return KnownAttempt(ended, names)

    def trial(self, uid: str, number: int) -> KnownTrial | None:
        """None when there is no such trial."""
        store = self.store()
        try:
            return KnownTrial(store.trial(uid, number).name, store.experiment_by_uid(uid).namespace)
        except NotFoundError:
            return None

    def database_id(self) -> str:
        return self.store().database_id

    def ping(self) -> None:
        """Returns when the database answers; raises an EvertuneError when it does not."""
        self.store().ping()

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
