"""AskChild: one warm process that answers asks, and its death at any moment.

Used by `activities.asking.AskHost`, which decides what is asked of whom. One exchange at a time: whoever asks holds
`lock`. Refuses to interpret answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import structlog

from evertune.app import child_environment, module_command
from evertune.errors import AlgorithmError, UnavailableError

log = structlog.get_logger()

MAX_DEATHS = 3  # in a row on the same ask: then it is the ask that kills
MAX_LINE = 64 * 1024 * 1024
STDERR_LINES = 5
LAST_WORDS_S = 1.0
HEAVY_NICE = 10  # trials, and asks that are quick, go first


@dataclass(eq=False)
class AskChild:
    """`close` ends the process; cancelling an ask kills it, the next one starts another."""

    database_url: str
    idle_s: float
    heavy: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0  # those who hold the lock or want to
    asks: str = ""  # the experiment that is asked now
    since: float = 0.0  # the monotonic clock when that began
    answered: int = 0  # by the living process
    _process: asyncio.subprocess.Process | None = None
    _errors: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    _reader: asyncio.Task[None] | None = None
    _doomed: bool = False  # the process was killed and has not ended yet
    _closed: bool = False

    async def ask(self, uid: str, request: dict[str, Any], what: str) -> dict[str, Any]:
        """The reply. Call it with the lock. `what` is asked, for errors.

        Raises AlgorithmError when the process dies three times on it, UnavailableError when it was closed.
        """
        self.asks, self.since = uid, time.monotonic()
        try:
            deaths = 0
            while not self._closed:
                fresh = await self._ensure()
                reply = await self._exchange(request)
                if reply is not None:
                    self.answered += 1
                    return reply
                code = await self._ended()
                # One that was there before may have left, idle, just as we wrote to it.
                if fresh or code != 0:
                    deaths += 1
                    log.warning("the ask process died", asked=what, exit_code=code, times=deaths)
                if deaths == MAX_DEATHS:
                    said = "; ".join(self._errors) or f"exit code {code}"
                    raise AlgorithmError(f"the ask process died {deaths} times on {what}: {said}")
            raise UnavailableError("this worker is shutting down")
        finally:
            self.asks = ""

    @property
    def pid(self) -> int | None:
        """Of the living process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def slow_for(self) -> float:
        """Seconds that the ask of now has taken."""
        return time.monotonic() - self.since if self.asks else 0.0

    def lower(self) -> None:
        """From now on it is a heavy one, and steps back for others."""
        self.heavy = True
        if self.pid is not None:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.pid, HEAVY_NICE)

    async def close(self) -> None:
        """End the process, whatever it is doing; an ask under way raises UnavailableError."""
        self._closed = True
        self._kill()
        async with self.lock:
            self._kill()  # one that was being started
            await self._ended()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._doomed = True
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The process's reply, None when it died first."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
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

    async def _ensure(self) -> bool:
        """True when the process had to be started."""
        if self._process is not None and self._process.returncode is None and not self._doomed:
            return False
        await self._ended()
        self._errors.clear()
        self.answered = 0
        self._process = await asyncio.create_subprocess_exec(
            *module_command("activities.asking_process", str(self.idle_s)),
            # A command line is for everybody on this machine to read, and the URL may hold a password.
            env={**child_environment(), "EVERTUNE_DATABASE_URL": self.database_url},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
        )
        self._reader = asyncio.create_task(self._read_errors(self._process))
        if self.heavy:
            self.lower()
        return True

    async def _read_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self._errors.append(line.decode("utf-8", "replace").strip())

    async def _ended(self) -> int:
        """The exit code of the process, which is ending; its last words are in `_errors` then."""
        process, self._process = self._process, None
        if process is None:
            return 0
        code = await process.wait()
        self._doomed = False
        reader, self._reader = self._reader, None
        if reader is not None:
            # A process that the library left behind may hold the pipe open for ever.
            await asyncio.wait([reader], timeout=LAST_WORDS_S)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        return code
