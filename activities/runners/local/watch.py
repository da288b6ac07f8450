"""Waits for processes, ours or not, without a thread or a timer each; reaps those that are ours.

Called by `runner`. A pidfd becomes readable when its process ends, also for a process that another worker started.
Where there is no pidfd (not Linux, or no descriptor left) `ended` says so and the caller polls.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Watch:
    descriptor: int
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Event


class ProcessWatch:
    """One watch per process, kept until it ends whether or not anybody still waits: so no zombie stays behind."""

    def __init__(self) -> None:
        self._watches: dict[int, _Watch] = {}

    def add(self, pid: int) -> bool:
        """Start to watch; False when that is not possible here. The caller has made sure whose pid it is."""
        watch = self._watches.get(pid)
        if watch is not None and watch.loop is asyncio.get_running_loop():
            return True
        self._drop(pid)
        try:
            descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            _reap(pid)
            return False
        loop = asyncio.get_running_loop()
        self._watches[pid] = _Watch(descriptor, loop, asyncio.Event())
        loop.add_reader(descriptor, self._over, pid)
        return True

    async def ended(self, pid: int) -> bool:
        """Return True when the process has ended; False at once when it cannot be watched."""
        if not self.add(pid):
            return False
        await self._watches[pid].ended.wait()
        return True

    def close(self) -> None:
        for pid in list(self._watches):
            self._drop(pid)

    def _over(self, pid: int) -> None:
        watch = self._watches[pid]
        self._drop(pid)
        _reap(pid)
        watch.ended.set()

    def _drop(self, pid: int) -> None:
        watch = self._watches.pop(pid, None)
        if watch is not None:
            if not watch.loop.is_closed():
                watch.loop.remove_reader(watch.descriptor)
            os.close(watch.descriptor)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # another worker's child, or init's
        os.waitpid(pid, os.WNOHANG)
