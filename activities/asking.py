"""AskHost: the warm child processes that ask algorithms, as the worker sees them.

Asks are CPU-bound and hold the interpreter's lock for seconds, so they never run in the event loop that heartbeats.
A child reads the history itself, keeps what it read, and ends itself after a minute of silence; it may be killed at
any point, because an ask is a pure function of the database: it is simply repeated. Algorithms that need no library
are asked in a thread of the worker instead.

An experiment is asked where its session is kept. Heavy experiments, whose asks take long, have children of their own,
of lower priority: they never stand before one that is quick. What is heavy says the algorithm, or the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from activities.ask_child import AskChild
from activities.asks import AskJob, Asks
from activities.problems import changed_libraries, problem_of
from algorithms import registry
from evertune.domain.records import ExperimentRecord
from evertune.domain.trial import Assignment
from evertune.errors import AlgorithmError, EvertuneError, UnavailableError
from evertune.protocols import Answer
from evertune.store import Store

log = structlog.get_logger()

IDLE_S = 60.0
KNOWN_ALGORITHMS = 1000
MAX_PROCESSES = 4  # each keeps sessions of its own: more would cost memory, and the cores are for the trials
HEAVY_CPU_S = 0.5  # of a warm ask, twice in a row
STUCK_S = 5.0  # of an ask that others wait for: it turns out to be heavy
LOADING_S = 30.0  # the same of a new process, which loads libraries
LOOK_EVERY_S = 0.5
QUEUE = 4  # asks that wait before another process is worth its start


@dataclass
class _Known:
    """What the host knows of an experiment."""

    in_process: bool
    heavy: bool
    slow: int = 0  # warm asks in a row that took long
    child: AskChild | None = None  # the one that has its session


@dataclass
class AskHost:
    """`close` ends the children; cancelling an ask kills its child, the next ask starts another."""

    store: Store
    database_url: str
    idle_s: float = IDLE_S
    processes: int = field(default_factory=lambda: min(MAX_PROCESSES, os.cpu_count() or 1))
    _children: list[AskChild] = field(default_factory=list)
    _experiments: OrderedDict[str, _Known] = field(default_factory=OrderedDict)
    _asks: Asks | None = None
    _closed: bool = False

    def __post_init__(self) -> None:
        self.processes = max(2, self.processes)  # one for what is quick, one for what is not

    async def ask(self, job: AskJob) -> Answer:
        """Raises AlgorithmError when the algorithm gives up or its process dies three times on this ask.

        UnavailableError when the database is away or the host was closed: ask again later.
        """
        known = await self._algorithm(job.uid)
        if known.in_process:
            if self._asks is None:
                self._asks = Asks(self.store)
            return await asyncio.to_thread(self._asks.answer, job)
        async with self._turn(known) as child:
            warm = known.child is child and child.answered > 0
            reply = await child.ask(job.uid, asdict(job), f"request {job.request_no}")
            known.child = child
            self._weigh(known, reply.get("cpu_s", 0.0) if warm else 0.0)
        return _answer(reply)

    async def warm(self, uid: str) -> None:
        """Load what asks of this experiment need, so that the first one does not wait for it. Never raises.

        Called at a worker's start for what it finds unfinished: after a kill, the ask under way comes again in seconds.
        """
        try:
            known = await self._algorithm(uid)
            if known.in_process:
                return
            async with self._turn(known) as child:
                await child.ask(uid, {"warm": uid}, "loading its libraries")
        except EvertuneError as error:  # the ask itself will say it
            log.debug("the ask process is not warm", error=str(error))

    @property
    def pids(self) -> list[int]:
        """Of the living children, for `doctor` and tests."""
        return [child.pid for child in self._children if child.pid is not None]

    @property
    def pid(self) -> int | None:
        """Of the first of them."""
        return next(iter(self.pids), None)

    async def close(self) -> None:
        """End the children, whatever they are doing; an ask under way raises UnavailableError."""
        self._closed = True
        await asyncio.gather(*(child.close() for child in self._children))

    # ------------------------------------------------------------------------------------------------- who asks

    @contextlib.asynccontextmanager
    async def _turn(self, known: _Known) -> AsyncIterator[AskChild]:
        """A child for this experiment, and its lock."""
        while True:
            if self._closed:
                raise UnavailableError("this worker is shutting down")
            child = self._choose(known)
            child.waiting += 1
            try:
                if not await self._acquired(child, known):
                    continue
                try:
                    if child.heavy == known.heavy:  # else it became heavy while we waited
                        yield child
                        return
                finally:
                    child.lock.release()
            finally:
                child.waiting -= 1
                await self._retire(child)

    async def _acquired(self, child: AskChild, known: _Known) -> bool:
        """The child's lock; False when what it is asked turns out to be heavy, so that others do not wait for it."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    return await child.lock.acquire()
            if child.heavy != known.heavy or self._closed:
                return False
            if not child.heavy and child.slow_for() > (STUCK_S if child.answered else LOADING_S):
                if (stuck := self._experiments.get(child.asks)) is not None:
                    stuck.heavy = True
                child.lower()
                return False

    def _choose(self, known: _Known) -> AskChild:
        """The child that has the session, else the one with the least to do, else a new one."""
        if known.child in self._children and known.child is not None and known.child.heavy == known.heavy:
            return known.child
        self._children = [child for child in self._children if child.waiting or child.pid is not None]
        alike = [child for child in self._children if child.heavy == known.heavy]
        least = min(alike, key=lambda child: child.waiting, default=None)
        # At least one place is left for those of the other kind.
        room = len(self._children) < self.processes and len(alike) < self.processes - 1
        if least is None or (room and least.waiting >= (1 if known.heavy else QUEUE)):
            least = AskChild(self.database_url, self.idle_s, heavy=known.heavy)
            self._children.append(least)
        return least

    async def _retire(self, child: AskChild) -> None:
        """End a child that became heavy and that there is no place for."""
        heavy = [other for other in self._children if other.heavy]
        if child.heavy and not child.waiting and len(heavy) > self.processes - 1 and not self._closed:
            self._children.remove(child)
            await child.close()

    def _weigh(self, known: _Known, cpu_s: float) -> None:
        known.slow = known.slow + 1 if cpu_s > HEAVY_CPU_S else 0
        known.heavy = known.heavy or known.slow >= 2

    async def _algorithm(self, uid: str) -> _Known:
        if uid not in self._experiments:
            record = await asyncio.to_thread(self.store.experiment_by_uid, uid)
            found = await asyncio.to_thread(_known, record)
            self._experiments.setdefault(uid, found)
            if len(self._experiments) > KNOWN_ALGORITHMS:
                self._experiments.popitem(last=False)
        return self._experiments[uid]


def _known(record: ExperimentRecord) -> _Known:
    if changed := changed_libraries(record):
        log.warning("an experiment goes on with other libraries", experiment=record.name, changed=changed)
    problem = problem_of(record)
    name = registry.resolved(record.algorithm, problem).algorithm
    in_process = registry.in_process(name) and not registry.steers(name, problem)
    return _Known(in_process=in_process, heavy=registry.heavy(name))


def _answer(reply: dict[str, Any]) -> Answer:
    if "error" in reply:
        raise AlgorithmError(reply["error"])
    if "unavailable" in reply:
        raise UnavailableError(reply["unavailable"])
    assignments = tuple(Assignment(**assignment) for assignment in reply["assignments"])
    return Answer(
        assignments=assignments,
        state=reply["state"],
        wait=reply["wait"],
        exhausted=reply["exhausted"],
        reason=reply["reason"],
    )
