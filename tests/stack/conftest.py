"""Stacks of the real Temporal server and a stand-in for the worker; none of their processes outlives its test."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evertune.settings import Settings
from evertune.stack import StackInfo, ensure_up
from evertune.stack.processes import Identity, identity_of, wait_gone

# What the stack asks of a worker, in shell: announce the pid, and on SIGTERM stop trials if `down` wants that. It
# leaves its environment behind, for tests that look at it.
WORKER = """
cd "$EVERTUNE_HOME"
env > worker.env
echo start >> worker.starts
trap 'if [ -e down ]; then echo stopped >> trials.stopped; rm down; fi; exit 0' TERM
echo $$ > worker.ready.new && mv worker.ready.new worker.ready
while :; do sleep 1000 & wait $!; done
"""


def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """What `condition` returns, once that is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)
    return found


def processes_of(home: Path) -> list[int]:
    """Every living process that names this home in its command line or environment, whoever started it."""
    needle = os.fsencode(home)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if needle in text and identity_of(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


class Stack:
    """A home below the test's directory, with `up()` as the CLI would call it."""

    def __init__(
        self, home: Path, worker: str = WORKER, server_command: list[str] | None = None, **overrides: Any
    ) -> None:
        home.parent.mkdir(parents=True, exist_ok=True)
        script = home.parent / f"{home.name}.worker.sh"
        script.write_text(worker)
        self.worker_command = ["/bin/sh", str(script)]
        self.server_command = server_command  # None: a stack without an HTTP side
        self.settings = Settings.load({"EVERTUNE_HOME": str(home)}, **overrides)

    @property
    def home(self) -> Path:
        return self.settings.home

    def up(self, **options: Any) -> StackInfo:
        commands = {"worker_command": self.worker_command, "server_command": self.server_command}
        return ensure_up(self.settings, **{"wait_s": 90.0, **commands, **options})

    def starts(self) -> int:
        """How often the worker was started."""
        return len((self.home / "worker.starts").read_text().splitlines())

    def processes(self) -> list[int]:
        return processes_of(self.home)


def sleeps(pid: int | None, *, switches: int, seconds: float = 2.0) -> bool:
    """Whether a process used at most one clock tick of 10 ms meanwhile, and gave its processor up at most so often."""

    def spent() -> tuple[int, int]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        given_up = Path(f"/proc/{pid}/status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]
        return int(fields[11]) + int(fields[12]), int(given_up)

    before = spent()
    time.sleep(seconds)
    after = spent()
    return after[0] - before[0] <= 1 and after[1] - before[1] <= switches


def identity(pid: int | None) -> Identity:
    assert pid is not None
    found = identity_of(pid)
    assert found is not None
    return found


def kill(*pids: int | None) -> None:
    """SIGKILL, and wait until they are gone: the system takes a moment."""
    killed = [identity(pid) for pid in pids]
    for one in killed:
        os.kill(one.pid, signal.SIGKILL)
    assert wait_gone(killed, 30) == []


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Stacks that are killed, with all they started, when the test ends."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the tests find a stack's processes in /proc")
    stacks: list[Stack] = []

    def make(name: str = "home", **options: Any) -> Stack:
        stacks.append(Stack(options.pop("home", tmp_path / name), **options))
        return stacks[-1]

    yield make
    for stack in stacks:
        while pids := stack.processes():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack()
