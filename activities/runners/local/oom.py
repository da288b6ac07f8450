"""Counts kills by the kernel's out-of-memory killer, so that one of them is told from any other SIGKILL.

Called by `runner` before a start; the supervisor reads the same file at the end. The nearest cgroup that counts is
asked first: the host's total also counts the kills of everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Counter:
    file: Path  # with a line `oom_kill N`
    count: int


def oom_kills(cgroups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> Counter | None:
    """None where nothing counts (not Linux)."""
    for file in (*_own_groups(cgroups, proc), proc / "vmstat"):
        count = _count(file)
        if count is not None:
            return Counter(file, count)
    return None


def _own_groups(cgroups: Path, proc: Path) -> Iterator[Path]:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield cgroups / path.lstrip("/") / "memory.events"
            yield cgroups / "memory.events"  # a container sees its own group as the root
        elif "memory" in controllers.split(","):
            yield cgroups / "memory" / path.lstrip("/") / "memory.oom_control"
            yield cgroups / "memory" / "memory.oom_control"


def _count(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except OSError:
        pass
    return None
