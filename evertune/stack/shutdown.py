"""Stops what is on record of a stack, worker first: for `down`, for an upgrade, and for the parent's own SIGTERM.

It signals only processes whose identity is on record, and the rest of a worker's own process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from evertune.errors import EnvironmentProblem
from evertune.settings import Settings
from evertune.stack.files import open_lock, try_lock
from evertune.stack.processes import Identity, alive, group_members, send, wait_gone
from evertune.stack.state import StackState, parent_lock, recorded_parent

# After SIGTERM, before SIGKILL: a worker stops its trials (10 s grace each, side by side) and flushes; the server
# stores what it has.
GRACE_S = {"worker": 30.0, "server": 6.0, "temporal": 10.0}
KILLED_S = 5.0  # how long the system may take to end a process after SIGKILL


@dataclass(slots=True)
class Stopped:
    stopped: list[str] = field(default_factory=list)  # names of the services that were running
    killed: list[str] = field(default_factory=list)  # those that had to be killed
    left: list[str] = field(default_factory=list)  # "worker (pid 7)": not even SIGKILL ended them


def stop_services(
    settings: Settings, state: StackState, *, on_progress: Callable[[str], None] = lambda _: None
) -> Stopped:
    """Stop the worker, the server, then Temporal. Safe to call again after being killed half-way."""
    report = Stopped()
    for name, service in state.services().items():
        identity = service.identity
        if identity is None:
            continue
        if alive(identity):
            on_progress(f"stopping {name}")
            report.stopped.append(name)
            _stop(name, identity, report)
        end_group(settings, identity)
    return report


def end_group(settings: Settings, leader: Identity) -> None:
    """End what a service left behind in its process group: a worker's processes that ask. Trials have their own."""
    orphans = group_members(leader.pid, f"EVERTUNE_HOME={settings.home}")
    for orphan in orphans:
        send(orphan, signal.SIGKILL)
    wait_gone(orphans, KILLED_S)


def _stop(name: str, identity: Identity, report: Stopped) -> None:
    send(identity, signal.SIGTERM)
    if not wait_gone([identity], GRACE_S[name]):
        return
    report.killed.append(name)
    send(identity, signal.SIGKILL, group=True)
    if wait_gone([identity], KILLED_S):
        report.left.append(f"{name} (pid {identity.pid})")


@contextlib.contextmanager
def without_parent(settings: Settings) -> Iterator[Identity | None]:
    """End the parent and keep another from starting. Yields the one that was ended, None if there was none.

    SIGKILL, not SIGTERM: the parent has nothing to lose, and must not stop what its killer is about to.
    """
    ended: Identity | None = None
    deadline = time.monotonic() + KILLED_S
    descriptor = open_lock(parent_lock(settings))
    try:
        while not try_lock(descriptor):
            parent = recorded_parent(settings)
            if parent is not None and send(parent, signal.SIGKILL):
                ended = parent
                wait_gone([parent], KILLED_S)
            elif time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"the home {settings.home} is in use: a process of another machine or container holds "
                    f"{parent_lock(settings)}",
                    hint="stop evertune there",
                )
            else:
                time.sleep(0.02)  # it holds the lock but has not written its name yet
        yield ended
    finally:
        os.close(descriptor)
