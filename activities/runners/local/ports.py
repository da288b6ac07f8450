"""Gives every replica of a distributed job a port of this machine that nobody uses. Called by `runner` at a start.

Ports come from below the range that systems hand out to outgoing connections, so that none of those takes one between
the choice and the replica's own `bind`. Which ports an attempt holds stands in its plan: there is nothing to give back,
and after any crash the same replica has the same port.
"""

from __future__ import annotations

import fcntl
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from activities.runners.local.attempt import Attempt
from activities.runners.local.live import live_attempts
from evertune.errors import EnvironmentProblem

RANGE = range(20_000, 32_000)  # Linux hands out 32768 and above, macOS 49152 and above


@contextmanager
def reserved(root: Path, count: int) -> Iterator[list[int]]:
    """Free ports that no other live attempt under `root` has. Write them into the plan before leaving."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for milliseconds: two starts must not choose the same port
        held = {
            replica.get("port")
            for live in live_attempts(root)
            for replica in Attempt.of(root, live).plan().get("replicas") or ()
        }
        yield _free(count, held)


def _free(count: int, held: set[int | None]) -> list[int]:
    """From anywhere in the range: another root on this machine looks as well, and knows nothing of ours."""
    found: list[int] = []
    start = secrets.randbelow(len(RANGE))
    for step in range(len(RANGE)):
        if len(found) == count:
            return found
        port = RANGE[(start + step) % len(RANGE)]
        if port not in held and unused(port):
            found.append(port)
    if len(found) == count:
        return found
    raise EnvironmentProblem(
        f"{count} free ports from {RANGE[0]} to {RANGE[-1]} are wanted, there are {len(found)}",
        "stop what listens there",
    )


def unused(port: int) -> bool:
    """Whether nobody listens on it, on any address of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
