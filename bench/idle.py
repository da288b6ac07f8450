"""What the stack costs while an experiment waits for long trials: processor time and memory of all its processes.

Trials and their supervisors are not counted; they are the user's. Needs Linux's /proc.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.home import NO_OP, Home, experiment, home

SETTLE_S = 70.0  # the ask process ends after 60 s without an ask
WATCH_S = 30.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            found.setdefault(parent, []).append(int(entry.name))
    return found


def stack_processes(here: Home) -> list[int]:
    """The stack's processes with their helpers. Supervisors of trials lead sessions of their own, and are left out."""
    own = here.pids()
    sessions = {os.getsid(pid) for pid in own.values()}
    tree = children()
    found: list[int] = []
    waiting = list(own.values())
    while waiting:
        pid = waiting.pop()
        if pid not in found and os.getsid(pid) in sessions:
            found.append(pid)
            waiting += tree.get(pid, [])
    return found


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure() -> Iterator[Figure]:
    with home() as here:
        uid = here.submit(experiment("waiting", f"sleep 3600; {NO_OP}", trials=4, parallel=4))
        while here.store.counts(uid).running < 4:
            time.sleep(0.2)
        time.sleep(SETTLE_S)
        processes = stack_processes(here)
        before, start = sum(map(cpu_s, processes)), time.monotonic()
        time.sleep(WATCH_S)
        used = (sum(map(cpu_s, processes)) - before) / (time.monotonic() - start)
        yield Figure(
            name="idle stack, processor",
            value=100 * used,
            unit="% a core",
            at_most=2,
            note=f"{len(processes)} processes, 4 sleeping trials",
        )
        yield Figure(
            name="idle stack, memory",
            value=sum(map(pss_mb, processes)),
            unit="MB PSS",
            at_most=500,
            note="shared pages split",
        )
