"""Which process is meant: boot, pid and start time together, so that a recycled pid is never taken for ours.

Called by `attempt` and `watch`. Linux reads /proc; elsewhere psutil answers. Kills only what it has identified.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import Signals

UNKNOWN = "-"  # the start time that a supervisor writes where /proc is missing


@cache
def boot_id() -> str:
    """Changes with every start of the host, and with nothing else."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        import psutil

        return f"{psutil.boot_time():.0f}"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process as it named itself in a file of the attempt. `written` is when it did, in epoch seconds."""

    pid: int
    started: str
    boot: str
    written: float

    @classmethod
    def read(cls, path: Path) -> ProcessId | None:
        """None when the file is missing or its one line is not complete: a process that has not got that far."""
        try:
            text, written = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:
            return None
        words = text.split()
        if not text.endswith("\n") or len(words) != 3 or not words[0].isdigit():
            return None
        return cls(int(words[0]), words[1], words[2], written)

    @property
    def this_boot(self) -> bool:
        return self.boot == boot_id()

    def alive(self) -> bool:
        """True while that very process runs; a zombie has ended."""
        if not self.this_boot:
            return False
        if self.started == UNKNOWN:
            return self._alive_without_proc()
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and stat.state not in "ZX"

    def _alive_without_proc(self) -> bool:
        import psutil

        try:
            process = psutil.Process(self.pid)
            return process.create_time() <= self.written + 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: Signals) -> bool:
        """Signal this process alone; False when it has ended."""
        if not self.alive():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return True

    def signal_group(self, number: Signals, *, mark: bytes) -> bool:
        """Signal the group that this process leads; False when there was nothing to signal.

        Where the leader has ended but others of its group have not, only those are meant that carry `mark`
        in their environment: the leader's number alone no longer proves whose group it is.
        """
        if not self.this_boot:
            return False
        if self.alive():
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it does not lead its group yet
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            return True
        signalled = [pid for pid in _group(self.pid) if _signal_marked(pid, number, mark)]
        return bool(signalled)


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    group: str
    started: str


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rfind(b")") + 2 :].split()  # the name in parentheses may hold anything
    return _Stat(fields[0].decode(), fields[2].decode(), fields[19].decode())


def _group(leader: int) -> list[int]:
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return []
    try:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except FileNotFoundError:
        return []
    return [pid for pid in pids if (stat := _stat(pid)) and stat.group == str(leader) and stat.state not in "ZX"]


def _signal_marked(pid: int, number: Signals, mark: bytes) -> bool:
    try:
        if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False
        os.kill(pid, number)
    except OSError:
        return False
    return True
