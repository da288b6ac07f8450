"""Ports of this machine that nobody listens on, for servers that tests start, and for those that stay away.

Below the range from which the system takes ports for outgoing connections and for whoever binds port 0: nobody gets
one there that a test was given, however long it is not listened on. Each process of a parallel run has its own block.
"""

from __future__ import annotations

import os
import random

from activities.runners.local.ports import unused

FIRST, LAST = 10_000, 20_000  # the stack and local trials take theirs above
_given: set[int] = set()


def free_port() -> int:
    """One that this process has not given before."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (LAST - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    block = range(FIRST + worker * size, FIRST + (worker + 1) * size)
    while True:
        port = random.choice(block)
        if port not in _given and unused(port):
            _given.add(port)
            return port
