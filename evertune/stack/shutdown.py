"""Stops what is on record of a stack, worker first: shared by `down` and by the parent's SIGTERM.

It signals only processes whose identity is on record, and the rest of a worker's own process group.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from evertune.settings import Settings
from evertune.stack.processes import Identity, alive, group_members, send, wait_gone
from evertune.stack.state import StackState

# After SIGTERM, before SIGKILL: a worker stops its trials (10 s grace each, side by side) and flushes.
GRACE_S = {"worker": 30.0, "temporal": 10.0}
KILLED_S = 5.0  # how long the system may take to end a process after SIGKILL


@dataclass(slots=True)
class Stopped:
    stopped: list[str] = field(default_factory=list)  # names of the services that were running
    killed: list[str] = field(default_factory=list)  # those that had to be killed
    left: list[str] = field(default_factory=list)  # "worker (pid 7)": not even SIGKILL ended them


def stop_services(
    settings: Settings, state: StackState, *, on_progress: Callable[[str], None] = lambda _: None
) -> Stopped:
    """Stop the worker, then Temporal. Safe to call again after being killed half-way."""
    report = Stopped()
    for name, service in state.services().items():
        identity = service.identity
        if identity is None:
            continue
        if alive(identity):
            on_progress(f"stopping {name}")
            report.stopped.append(name)
            _stop(name, identity, report)
        orphans = group_members(identity.pid, f"EVERTUNE_HOME={settings.home}")
        for orphan in orphans:
            send(orphan, signal.SIGKILL)
        wait_gone(orphans, KILLED_S)
    return report


def _stop(name: str, identity: Identity, report: Stopped) -> None:
    send(identity, signal.SIGTERM)
    if not wait_gone([identity], GRACE_S[name]):
        return
    report.killed.append(name)
    send(identity, signal.SIGKILL, group=True)
    if wait_gone([identity], KILLED_S):
        report.left.append(f"{name} (pid {identity.pid})")
