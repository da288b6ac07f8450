"""What a stored report changes for an experiment's decisions, told to its workflow - or to its row, once it has ended.

Called by `ingest` after the commit. News of running trials go to `activities.observing.Observer`, which asks early
stopping about them, coalesces them and sends them when Temporal can be reached; they may be dropped, since the points
are in the database. A late report, which revises a verdict, is told before its sender is answered: whoever dies in
between is asked again by the sender's repetition.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.errors import UnavailableError
from evertune.server.database import LateStore
from evertune.settings import Settings

if TYPE_CHECKING:
    from activities.observing import Observer
    from evertune.store import Store

log = structlog.get_logger()

LATE_WAIT_S = 8.0
MAX_EARLY = 5000  # trials whose news wait for the observer to be built


@dataclass
class Teller:
    settings: Settings
    database: LateStore
    address: str  # of Temporal
    _observer: Observer | None = None
    _building: asyncio.Task[Observer] | None = None
    _early: dict[tuple[str, int], tuple[Report, Taken]] = field(default_factory=dict)

    async def take(self, report: Report, taken: Taken) -> None:
        """Returns at once, but for a late report: then when the verdict is on its way, or UnavailableError."""
        if taken.late:
            await self._revise(report, taken)
        elif report.points or (taken.objective is not None and taken.new):
            if self._observer is not None:
                await self._observer.take(report, taken)
                return
            if len(self._early) < MAX_EARLY:
                self._early[report.experiment_uid, report.number] = (report, taken)
            self._build()

    async def close(self) -> None:
        if self._building is not None:
            self._building.cancel()
        if self._observer is not None:
            await self._observer.close()

    async def _revise(self, report: Report, taken: Taken) -> None:
        try:
            async with asyncio.timeout(LATE_WAIT_S):
                if await asyncio.to_thread(self._revised_in_the_row, report):
                    return
                observer = await asyncio.shield(self._build())
                await observer.take(report, taken)
                await observer.delivered(report.experiment_uid)
        except TimeoutError:
            raise UnavailableError("the points are stored, but the experiment cannot be told of them yet") from None

    def _revised_in_the_row(self, report: Report) -> bool:
        """Judge trials of a finished experiment anew: its row is the authority then. False while it runs."""
        store, uid = self.database.store(), report.experiment_uid
        if not store.experiment_by_uid(uid).state.terminal:
            return False
        from activities.launch import LaunchPlans
        from activities.revising import Reviser

        numbers = Reviser(store, LaunchPlans(store), runner=None, home_id="").amend(uid, actor="gateway")
        log.info("a late report revised a verdict", experiment_uid=uid, trials=numbers)
        return True

    def _build(self) -> asyncio.Task[Observer]:
        if self._building is None or (self._building.done() and self._building.exception() is not None):
            self._building = asyncio.create_task(self._built())
            self._building.add_done_callback(_say_failure)
        return self._building

    async def _built(self) -> Observer:
        from evertune.connection import connect_temporal

        kind, store = await asyncio.to_thread(self._prepared)
        namespace, tls = self.settings.temporal_namespace, self.settings.temporal_tls
        client = await connect_temporal(self.address, namespace, lazy=True, tls=tls)  # it may be away
        self._observer = kind(client, store)
        early, self._early = self._early, {}
        for report, taken in early.values():
            await self._observer.take(report, taken)
        return self._observer

    def _prepared(self) -> tuple[type[Observer], Store]:
        """What takes half a second: the imports."""
        import evertune.connection  # noqa: F401 - for `_built`, where nobody may wait for it
        from activities.observing import Observer

        return Observer, self.database.store()


def _say_failure(task: asyncio.Task[Observer]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("experiments are not told of reports", error=str(error))
