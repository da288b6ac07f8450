"""What the runner asks the machine: out-of-memory kills, devices, and whether a process is the one that was meant."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGCONT

import pytest

from activities.runners.local.gpus import visible_devices
from activities.runners.local.identity import UNKNOWN, ProcessId, boot_id
from activities.runners.local.oom import Counter, oom_kills


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/own\n", {"cg/own/memory.events": 3, "proc/vmstat": 9}, ("cg/own/memory.events", 3)),
        ("0::/../other\n", {"cg/memory.events": 2, "proc/vmstat": 9}, ("cg/memory.events", 2)),
        ("4:memory:/box\n0::/\n", {"cg/memory/box/memory.oom_control": 1}, ("cg/memory/box/memory.oom_control", 1)),
        ("4:memory:/box\n", {"cg/memory/memory.oom_control": 0}, ("cg/memory/memory.oom_control", 0)),
        ("0::/\n", {"proc/vmstat": 7}, ("proc/vmstat", 7)),
        ("0::/\n", {}, None),
    ],
)  # fmt: skip
def test_the_nearest_group_that_counts_is_asked(
    tmp_path: Path, groups: str, files: dict[str, int], expected: tuple[str, int] | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, count in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"low 0\noom 5\noom_kill {count}\noom_group_kill 0\n")
    found = oom_kills(tmp_path / "cg", tmp_path / "proc")
    assert found == (expected and Counter(tmp_path / expected[0], expected[1]))


def test_this_machine_counts() -> None:
    found = oom_kills()
    assert found is None or found.count >= 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("0", "2", "10")),
        ({"CUDA_VISIBLE_DEVICES": "1, 0"}, ("1", "0")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5f2a"}, ("GPU-5f2a",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
    ],
)
def test_devices_are_those_that_the_worker_may_see(
    tmp_path: Path, environment: dict[str, str], expected: tuple[str, ...]
) -> None:
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_devices(environment, tmp_path) == expected


@pytest.fixture
def sleeper() -> ProcessId:
    """This process, as it would have named itself."""
    stat = Path("/proc/self/stat").read_text()
    return ProcessId(os.getpid(), stat.rpartition(")")[2].split()[19], boot_id(), 0.0)


def test_a_process_is_known_by_boot_pid_and_start_together(sleeper: ProcessId) -> None:
    assert sleeper.alive()
    assert sleeper.signal(SIGCONT)
    assert not ProcessId(sleeper.pid, "1", sleeper.boot, 0.0).alive()
    assert not ProcessId(sleeper.pid, sleeper.started, "another", 0.0).alive()
    assert not ProcessId(sleeper.pid, sleeper.started, "another", 0.0).signal_group(SIGCONT, mark=b"")


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    zombie = ProcessId(child.pid, stat.rpartition(")")[2].split()[19], boot_id(), 0.0)
    assert not zombie.alive()
    child.wait()


def test_without_a_start_time_a_process_younger_than_its_file_is_another(sleeper: ProcessId) -> None:
    pytest.importorskip("psutil", reason="only systems without /proc install it")
    assert ProcessId(sleeper.pid, UNKNOWN, sleeper.boot, time.time()).alive()
    assert not ProcessId(sleeper.pid, UNKNOWN, sleeper.boot, 0.0).alive()


@pytest.mark.parametrize("text", ["", "12 34 boot", "12 34\n", "x 34 boot\n", "12 34 boot more\n"])
def test_an_unfinished_line_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "child").write_text(text)
    assert ProcessId.read(tmp_path / "child") is None
