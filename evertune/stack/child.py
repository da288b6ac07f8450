"""One supervised process of the stack while its parent runs: how it is waited for, and when it is due to start again.

Used by `parent` only. It starts nothing itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time

from evertune.stack.processes import Identity, alive, open_pidfd
from evertune.stack.state import Service

FIRST_DELAY_S, MAX_DELAY_S = 0.2, 30.0  # between a death and the next start; doubles with each quick death
QUICK_DEATH_S = 60.0  # who lived longer starts again with the first delay


class Child:
    """A supervised process at run time: its record, what we can wait on, and when it is due to start (again)."""

    def __init__(self, name: str, record: Service) -> None:
        self.name = name
        self.record = record
        self.process: subprocess.Popen[bytes] | None = None  # None when adopted
        self.pidfd: int | None = None
        self.since = time.monotonic()
        self.due = self.since

    @property
    def running(self) -> bool:
        return self.record.identity is not None

    def watch(self, identity: Identity) -> None:
        self.pidfd = open_pidfd(identity)

    def ended(self) -> str | None:
        """How it ended; None while it lives. Reaps our own children."""
        if self.process is not None and (code := self.process.poll()) is not None:
            return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        if self.process is None and not alive(self.record.identity):
            return "ended while no parent watched"
        return None

    def died(self, how: str, *, served: bool) -> None:
        """`served`: it had become ready, so it can start, and whatever killed it is no reason to wait longer."""
        quick = time.monotonic() - self.since < QUICK_DEATH_S
        self.record.failures = self.record.failures + 1 if quick and not served else 1
        self.record.identity, self.record.ready, self.record.exit = None, False, how
        self.process = None
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        self.postpone()

    def postpone(self) -> None:
        exponent = min(max(self.record.failures, 1) - 1, 16)
        self.due = time.monotonic() + min(MAX_DELAY_S, FIRST_DELAY_S * 2**exponent)
