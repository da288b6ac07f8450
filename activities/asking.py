"""`AskHost`: gets an answer for an ask job without ever blocking the worker's event loop.

Algorithms work in a warm process of their own, one ask at a time: they are CPU-bound, hold the interpreter's lock and
may take hundreds of megabytes or crash. The process reads the history itself, ends when it is idle, and is started
again when it has died; an ask that it took with it is asked again, and gives the same answer. Cheap algorithms are
asked in a thread. Called by `activities.suggest`; decides and stores nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import Process
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import structlog

import evertune.errors
from activities.asking_desk import AskJob, Desk, unpacked
from activities.asking_process import HEADER, frame
from algorithms import registry
from evertune.app import child_environment, module_command
from evertune.errors import AlgorithmError, EvertuneError, UnavailableError
from evertune.protocols import Answer
from evertune.store import Store, open_store

__all__ = ["AskHost", "AskJob"]

log = structlog.get_logger()

MAX_DEATHS = 3  # one may be a kill, a second bad luck; a third on the same ask is the ask
_LAST_LINES = 5  # of its standard error, for the message
# Results of linear algebra depend on the number of threads, and trials need the cores.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_ONE_THREAD = dict.fromkeys(_THREADS, "1")


class AskHost:
    def __init__(self, store_url: str, idle_s: float = 60.0) -> None:
        self._url = store_url
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._child: _Child | None = None
        self._closed = False
        self._algorithm = lru_cache(maxsize=1000)(self._read_algorithm)
        self._here = threading.Lock()
        self._store: Store | None = None
        self._desk = Desk(self._open_store)

    async def ask(self, job: AskJob) -> Answer:
        """The answer to `job`. Cancelling kills the process, which may be busy for minutes; the next ask starts one."""
        answer = await asyncio.to_thread(self._answer_here, job)
        return answer or await self._answer_there(job)

    async def close(self) -> None:
        """End the process and let go of the store. An ask that waits for its answer raises UnavailableError."""
        self._closed = True
        if self._child is not None:
            await self._child.kill()
        await asyncio.to_thread(self._close_store)

    # ------------------------------------------------------------------------------------- in the worker itself

    def _answer_here(self, job: AskJob) -> Answer | None:
        with self._here:
            return self._desk.answer(job) if registry.is_cheap(self._algorithm(job.uid)) else None

    def _read_algorithm(self, uid: str) -> str:
        return self._open_store().experiment_by_uid(uid).algorithm

    def _open_store(self) -> Store:
        if self._closed:
            raise _stopping()
        if self._store is None:
            self._store = open_store(self._url, create=False)
        return self._store

    def _close_store(self) -> None:
        with self._here:
            if self._store is not None:
                self._store.close()

    # -------------------------------------------------------------------------------------- in the ask process

    async def _answer_there(self, job: AskJob) -> Answer:
        message = frame(asdict(job))
        async with self._turn:
            for _ in range(MAX_DEATHS):
                child = await self._living_child()
                try:
                    reply = await child.exchange(message)
                except _Died as death:
                    if self._closed:
                        raise _stopping() from None
                    log.warning("the ask process died and is started again", how=death.how, uid=job.uid)
                    last = death
                    continue
                except asyncio.CancelledError:
                    await child.kill()
                    raise
                return _read_reply(reply)
        raise AlgorithmError(
            f"the process that asks the algorithm {self._algorithm(job.uid)} died {MAX_DEATHS} times at trial"
            f" {job.first_number} ({last.how})" + (f"; its last words: {last.words}" if last.words else "")
        )

    async def _living_child(self) -> _Child:
        if self._child is None or not self._child.alive:
            if self._closed:
                raise _stopping()
            self._child = await _Child.start(frame({"store": self._url, "idle_s": self._idle_s}))
        return self._child


class _Died(Exception):
    def __init__(self, how: str, words: str) -> None:
        super().__init__(how)
        self.how = how
        self.words = words


class _Child:
    """One ask process and its pipes."""

    def __init__(self, process: Process, requests: StreamWriter, replies: StreamReader, errors: StreamReader) -> None:
        self._process = process
        self._requests = requests
        self._replies = replies
        self._said = b""  # the end of its standard error
        self._listening = asyncio.create_task(self._listen(errors))

    @classmethod
    async def start(cls, orders: bytes) -> _Child:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *module_command("activities.asking_process"),
                env={**child_environment(), **_ONE_THREAD},
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
            )
        except OSError as error:
            raise UnavailableError(f"the ask process cannot be started: {error.strerror}") from error
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(orders)
        return cls(process, process.stdin, process.stdout, process.stderr)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def exchange(self, message: bytes) -> bytes:
        """Send one frame and receive one. Raises _Died."""
        try:
            self._requests.write(message)
            await self._requests.drain()
            (size,) = HEADER.unpack(await self._replies.readexactly(HEADER.size))
            return await self._replies.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            code = await self.kill()
            words = self._said.decode(errors="replace").splitlines()[-_LAST_LINES:]
            raise _Died(f"signal {-code}" if code < 0 else f"exit {code}", " | ".join(words)) from None

    async def kill(self) -> int:
        """End it, if it has not ended; it only reads, there is nothing to finish. Returns how it ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # a library's own child may hold the pipe open
            await asyncio.wait_for(self._listening, timeout=1.0)
        self._requests.close()
        return code

    async def _listen(self, errors: StreamReader) -> None:
        """Its log goes where ours goes; the end is kept for the message about its death."""
        while piece := await errors.read(4096):
            self._said = (self._said + piece)[-4096:]
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(piece.decode(errors="replace"))


def _read_reply(data: bytes) -> Answer:
    reply: dict[str, Any] = json.loads(data)
    if "answer" in reply:
        return unpacked(reply["answer"])
    if "defect" in reply:
        raise RuntimeError(f"the ask process failed:\n{reply['defect']}")
    error = reply["error"]
    kind: type[EvertuneError] = getattr(evertune.errors, error["type"])
    raise kind(error["message"], error["hint"])


def _stopping() -> UnavailableError:
    return UnavailableError("this worker is stopping; another one asks again")
