"""What is left of a trial whose end is recorded: its log is brought here and archived, then its object given back.

Called by `trial`. Nobody waits for it: the next trial takes precedence, so this begins a moment later, and a few at a
time. Whoever dies before it has lost nothing: the sweep of any worker finds the object, and saves its log first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from evertune import archive
from evertune.domain.trial import AttemptRef
from evertune.errors import EvertuneError
from evertune.protocols import TrialRunner

log = structlog.get_logger()

AFTER_S = 1.0  # until what the end made room for has begun
AT_ONCE = 4
EACH_S = 30.0  # a cluster that is away must not hold up the others
CLOSING_S = 10.0  # for what is left when the worker ends


@dataclass
class _Left:
    ref: AttemptRef
    due: float  # by the loop's clock
    fetch: bool
    file: Path | None


@dataclass
class Tidier:
    runner: TrialRunner
    log_cap: int = archive.CAP  # bytes
    after_s: float = AFTER_S  # from the answer on
    _left: deque[_Left] = field(default_factory=deque)
    _hands: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def later(self, ref: AttemptRef, *, fetch: bool, file: Path | None = None) -> None:
        """`fetch`: its log may still be elsewhere. `file`: what its collector read besides, if it is here."""
        self._left.append(_Left(ref, asyncio.get_running_loop().time() + self.after_s, fetch, file))
        if len(self._hands) < AT_ONCE:
            hand = asyncio.create_task(self._work(), name="tidying")
            self._hands.add(hand)

    async def close(self) -> None:
        """Do what is left at once, as far as time allows; the sweep finds the rest."""
        self._closing.set()
        if hands := list(self._hands):
            await asyncio.wait(hands, timeout=CLOSING_S)
            for hand in hands:
                hand.cancel()
            await asyncio.gather(*hands, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while self._left:
                await self._one(self._left.popleft())
        finally:  # at once: who comes between this and a callback of the task would count on a hand that is gone
            self._hands.discard(asyncio.current_task())

    async def _one(self, left: _Left) -> None:
        pause = left.due - asyncio.get_running_loop().time()
        if pause > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
        try:
            await asyncio.wait_for(self._tidy(left), EACH_S)
        except (EvertuneError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            log.info("an attempt's object is left to the sweep", trial=left.ref.trial_name, reason=reason)
        except Exception:  # the others are not to suffer from it
            log.exception("an attempt's object is left to the sweep", trial=left.ref.trial_name)

    async def _tidy(self, left: _Left) -> None:
        """In this order: the object holds the only copy of a log that is not here."""
        if left.fetch:
            await self.runner.fetch(left.ref)
        await asyncio.to_thread(self.keep, left.ref, left.file)
        await self.runner.release(left.ref)

    def keep(self, ref: AttemptRef, file: Path | None) -> None:
        """Archive the log, where it is long. Waits for the disk: call it in a thread."""
        for problem in archive.keep(self.runner.log_path(ref).parent, file, cap=self.log_cap):
            log.warning("the log stays as it is, the next sweep tries again", reason=problem)
