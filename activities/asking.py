"""AskHost: the warm child process that asks algorithms, as the worker sees it.

Asks are CPU-bound and hold the interpreter's lock for seconds, so they never run in the event loop that heartbeats.
The child reads the history itself, keeps what it read, and ends itself after a minute of silence; it may be killed at
any point, because an ask is a pure function of the database: it is simply repeated. Algorithms that need no library
are asked in a thread of the worker instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from activities.asks import AskJob as AskJob
from activities.asks import Asks
from algorithms.registry import in_process
from evertune.app import child_environment, module_command
from evertune.domain.trial import Assignment
from evertune.errors import AlgorithmError, EvertuneError, UnavailableError
from evertune.protocols import Answer
from evertune.store import Store

log = structlog.get_logger()

IDLE_S = 60.0
MAX_DEATHS = 3  # in a row on the same ask: then it is the ask that kills
MAX_LINE = 64 * 1024 * 1024
STDERR_LINES = 5
LAST_WORDS_S = 1.0
KNOWN_ALGORITHMS = 1000


@dataclass
class AskHost:
    """One ask at a time. `close` ends the child; cancelling an ask kills it, the next one starts another."""

    store: Store
    database_url: str
    idle_s: float = IDLE_S
    _child: asyncio.subprocess.Process | None = None
    _errors: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    _reader: asyncio.Task[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _algorithms: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _asks: Asks | None = None
    _doomed: bool = False  # the child was killed and has not ended yet
    _closed: bool = False

    async def ask(self, job: AskJob) -> Answer:
        """Raises AlgorithmError when the algorithm gives up or its process dies three times on this ask.

        UnavailableError when the database is away or the host was closed: ask again later.
        """
        if in_process(await self._algorithm(job.uid)):
            if self._asks is None:
                self._asks = Asks(self.store)
            return await asyncio.to_thread(self._asks.answer, job)
        async with self._lock:
            deaths = 0
            while not self._closed:
                fresh = await self._ensure_child()
                reply = await self._exchange(asdict(job))
                if reply is not None:
                    return _answer(reply)
                code = await self._ended()
                # One that was there before may have left, idle, just as we wrote to it.
                if fresh or code != 0:
                    deaths += 1
                    log.warning("the ask process died", request=job.request_no, exit_code=code, times=deaths)
                if deaths == MAX_DEATHS:
                    said = "; ".join(self._errors) or f"exit code {code}"
                    raise AlgorithmError(f"the ask process died {deaths} times on request {job.request_no}: {said}")
            raise UnavailableError("this worker is shutting down")

    async def warm(self, uid: str) -> None:
        """Load what asks of this experiment need, so that the first one does not wait for it. Never raises.

        Called at a worker's start for what it finds unfinished: after a kill, the ask under way comes again in seconds.
        """
        try:
            if in_process(await self._algorithm(uid)):
                return
            async with self._lock:
                if not self._closed:
                    await self._ensure_child()
                    await self._exchange({"warm": uid})
        except EvertuneError as error:  # the ask itself will say it
            log.debug("the ask process is not warm", error=str(error))

    @property
    def pid(self) -> int | None:
        """Of the living child, for `doctor` and tests."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def close(self) -> None:
        """End the child, whatever it is doing; an ask under way raises UnavailableError."""
        self._closed = True
        self._kill()
        async with self._lock:
            self._kill()  # one that was being started
            await self._ended()

    def _kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._doomed = True
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()

    async def _algorithm(self, uid: str) -> str:
        if uid not in self._algorithms:
            record = await asyncio.to_thread(self.store.experiment_by_uid, uid)
            self._algorithms[uid] = record.algorithm
            if len(self._algorithms) > KNOWN_ALGORITHMS:
                self._algorithms.popitem(last=False)
        return self._algorithms[uid]

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The child's reply, None when it died first."""
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            await child.stdin.drain()
            line = await child.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            return None
        except BaseException:
            # Cancelled, or a line beyond all bounds: what it still writes would be read as the next ask's answer.
            self._kill()
            raise
        if not line.endswith(b"\n"):
            return None
        reply: dict[str, Any] = json.loads(line)
        return reply

    async def _ensure_child(self) -> bool:
        """True when it had to be started."""
        if self._child is not None and self._child.returncode is None and not self._doomed:
            return False
        await self._ended()
        self._errors.clear()
        self._child = await asyncio.create_subprocess_exec(
            *module_command("activities.asking_process", str(self.idle_s)),
            # A command line is for everybody on this machine to read, and the URL may hold a password.
            env={**child_environment(), "EVERTUNE_DATABASE_URL": self.database_url},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
        )
        self._reader = asyncio.create_task(self._read_errors(self._child))
        return True

    async def _read_errors(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        async for line in child.stderr:
            self._errors.append(line.decode("utf-8", "replace").strip())

    async def _ended(self) -> int:
        """The exit code of the child, which is ending; its last words are in `_errors` then."""
        child, self._child = self._child, None
        if child is None:
            return 0
        code = await child.wait()
        self._doomed = False
        reader, self._reader = self._reader, None
        if reader is not None:
            # A process that the library left behind may hold the pipe open for ever.
            await asyncio.wait([reader], timeout=LAST_WORDS_S)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        return code


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
