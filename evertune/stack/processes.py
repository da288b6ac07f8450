"""Who a process is, and how to signal, wait for and start one without ever hitting a stranger.

Used by the stack's parent and by `up`, `down` and `doctor`. A pid alone is reused by the system; pid, start time and
boot together are not. Linux reads /proc and waits on pidfds; elsewhere psutil and a slow poll do the same.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINUX = sys.platform.startswith("linux")
POLL_S = 0.05  # only where there are no pidfds


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever: `start` is clock ticks since boot on Linux, microseconds since the epoch elsewhere."""

    pid: int
    start: int
    boot: str

    def as_dict(self) -> dict[str, Any]:
        return {"pid": self.pid, "start": self.start, "boot": self.boot}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Identity:
        return cls(int(data["pid"]), int(data["start"]), str(data["boot"]))


def boot_id() -> str:
    """This boot of this machine; within a container also its pid namespace, since pids mean something only there."""
    if not LINUX:
        import psutil

        return str(int(psutil.boot_time()))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def identity_of(pid: int) -> Identity | None:
    """The living process with this pid; None when there is none. A zombie has ended."""
    if not LINUX:
        import psutil

        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return Identity(pid, int(process.create_time() * 1e6), boot_id())
        except psutil.Error:
            return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    # A killed process whose first thread has ended already keeps its files and ports until the others have, too.
    if fields[0] in ("Z", "X", "x") and int(fields[17]) <= 1:
        return None
    return Identity(pid, int(fields[19]), boot_id())


def alive(identity: Identity | None) -> bool:
    return identity is not None and identity_of(identity.pid) == identity


def open_pidfd(identity: Identity) -> int | None:
    """A pidfd of exactly this process, None when it has ended or the system has no pidfds."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return None
    if alive(identity):  # checked after opening: the descriptor cannot come to mean another process later
        return descriptor
    os.close(descriptor)
    return None


def send(identity: Identity, number: signal.Signals, *, group: bool = False) -> bool:
    """Signal exactly this process, with `group` also the rest of the group it leads. False when it had ended."""
    descriptor = open_pidfd(identity)
    try:
        if not alive(identity):
            return False
        if group and os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, number)
        elif descriptor is not None:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def wait_gone(identities: Iterable[Identity], timeout_s: float) -> list[Identity]:
    """Wait until all have ended; those that have not after `timeout_s` are returned."""
    deadline = time.monotonic() + timeout_s
    left = [identity for identity in identities if alive(identity)]
    while left and (remaining := deadline - time.monotonic()) > 0:
        descriptor = open_pidfd(left[0])
        if descriptor is None:
            time.sleep(min(POLL_S, remaining))
        else:
            try:
                poller = select.poll()
                poller.register(descriptor, select.POLLIN)
                poller.poll(remaining * 1000)
            finally:
                os.close(descriptor)
        left = [identity for identity in left if alive(identity)]
    return left


class Held:
    """A child that exists but does nothing until `go()`: its identity is recorded first.

    If the starter dies in between, the child reads the end of the pipe and leaves. So no process of a stack ever runs
    without being on record, wherever the starter is killed.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path) -> None:
        with log.open("ab") as output:
            # start_new_session: a Ctrl-C in the terminal of `evertune up` is not for the stack
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "evertune", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
        identity = identity_of(self._process.pid)
        if identity is None:
            self.abandon()
            raise ProcessLookupError(f"{command[0]} ended before it began")
        self.identity = identity

    def go(self) -> subprocess.Popen[bytes]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.close()
        return self._process

    def abandon(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def group_members(group: int, environ_entry: str) -> list[Identity]:
    """Living processes of a process group whose environment holds `environ_entry` (NAME=value).

    The group's leader may be gone and its number reused by a stranger's group; the environment tells them apart.
    """
    members: list[Identity] = []
    for pid in _pids():
        try:
            if os.getpgid(pid) != group or environ_entry not in _environ(pid):
                continue
        except (OSError, LookupError):
            continue
        if (identity := identity_of(pid)) is not None:
            members.append(identity)
    return members


def _pids() -> list[int]:
    if LINUX:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    import psutil

    return list(psutil.pids())


def _environ(pid: int) -> list[str]:
    if LINUX:
        return Path(f"/proc/{pid}/environ").read_text(encoding="utf-8", errors="replace").split("\0")
    import psutil

    try:
        return [f"{name}={value}" for name, value in psutil.Process(pid).environ().items()]
    except psutil.Error as error:
        raise LookupError(pid) from error
