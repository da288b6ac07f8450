"""Group commit: reports wait in a bounded queue, and one thread stores all that wait in one transaction.

Used by `ingest`. Whoever waits is answered after the commit, never before, so a process that dies in between leaves
clients that repeat themselves, which the store makes harmless. It refuses what it cannot hold; nothing waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.errors import EvertuneError, UnavailableError

log = structlog.get_logger()

MAX_REPORTS, MAX_POINTS = 4000, 200_000  # waiting; some 100 MB at worst, two to five seconds of work
BATCH_REPORTS, BATCH_POINTS = 400, 8_000  # of one transaction: others must get to write, too
STUCK_S = 5.0  # a transaction that takes longer is a database that is away: new reports are refused at once
ANSWER_S = 12.0  # who has waited so long is refused; the report may be stored all the same
WATCH_S = 1.0


class QueueFullError(Exception):
    """There is no room for another report now."""


@dataclass(slots=True)
class _Waiting:
    report: Report
    answer: asyncio.Future[Taken]
    since: float


class CommitQueue:
    """Give it what stores a batch; it is called from one thread only, one batch at a time. For one event loop."""

    def __init__(
        self,
        store: Callable[[Sequence[Report]], Sequence[Taken]],
        *,
        max_reports: int = MAX_REPORTS,
        max_points: int = MAX_POINTS,
    ) -> None:
        self._store = store
        self._max_reports, self._max_points = max_reports, max_points
        self._waiting: deque[_Waiting] = deque()
        self._storing: list[_Waiting] = []
        self._points = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._writer: asyncio.Task[None] | None = None
        self._began: float | None = None  # when the batch that is being stored was begun

    @property
    def reports(self) -> int:
        return len(self._waiting)

    @property
    def fullness(self) -> float:
        """0 to 1."""
        return max(len(self._waiting) / self._max_reports, self._points / self._max_points)

    @property
    def busy_s(self) -> float:
        """For how long the batch at hand has been with the database; 0 when there is none."""
        return 0.0 if self._began is None else asyncio.get_running_loop().time() - self._began

    def put(self, report: Report) -> asyncio.Future[Taken]:
        """What became of the report, once it is stored. Raises QueueFullError, UnavailableError (a stuck database)."""
        if self.busy_s > STUCK_S:
            raise UnavailableError(f"the database has not answered for {self.busy_s:.0f} s")
        if len(self._waiting) >= self._max_reports or self._points + len(report.points) > self._max_points:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        waiting = _Waiting(report, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._points += len(report.points)
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write())
        return waiting.answer

    async def close(self, within_s: float) -> None:
        """Store what waits; whoever still waits after that time is answered with UnavailableError."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=within_s)
            self._writer.cancel()
        for waiting in self._waiting:
            _fail(waiting, UnavailableError("the gateway is stopping"))
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _write(self) -> None:
        """Until nothing waits. One clock watches over all that do: one for each would cost more than the storing."""
        watch = asyncio.create_task(self._watch())
        try:
            while self._waiting:
                self._storing = self._take()
                if self._storing:
                    await self._commit(self._storing)
        finally:
            self._storing = []
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            limit = asyncio.get_running_loop().time() - ANSWER_S
            for waiting in (*self._storing, *self._waiting):
                if waiting.since > limit:
                    break
                _fail(waiting, UnavailableError(f"the report was not stored within {ANSWER_S:.0f} s"))

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        points = 0
        while self._waiting and len(batch) < BATCH_REPORTS and points < BATCH_POINTS:
            waiting = self._waiting.popleft()
            self._points -= len(waiting.report.points)
            if not waiting.answer.done():  # else its client has gone, and will repeat itself
                batch.append(waiting)
                points += len(waiting.report.points)
        return batch

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        try:
            taken = await loop.run_in_executor(self._thread, self._store, [each.report for each in batch])
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(waiting, UnavailableError("the gateway is stopping"))
            raise
        except EvertuneError as error:
            for waiting in batch:
                _fail(waiting, error)
        except Exception as error:
            if len(batch) == 1:
                log.exception("a report cannot be stored", trial=batch[0].report.number)
                _fail(batch[0], error)
                return
            # One of them is bad in a way that we did not foresee: it must not take the others with it.
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
        else:
            for waiting, one in zip(batch, taken, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(one)
        finally:
            self._began = None


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
        waiting.answer.exception()  # its client may have gone: then nobody else asks
