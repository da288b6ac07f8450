"""A worker that runs in the foreground, as in a container: what it shows to probes, and that commands use it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import worker.__main__ as process
from evertune.app import child_environment, module_command
from evertune.errors import UnavailableError
from evertune.settings import Settings
from evertune.stack import ensure_up, status
from evertune.stack.state import foreground_worker_starts
from tests.ports import free_port
from tests.stack.conftest import Stack, processes_of, until


@contextmanager
def a_worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**child_environment(), **settings.environment()}
    settings.prepare_home()
    with (settings.logs_dir / "worker.log").open("ab") as log:
        running = subprocess.Popen(module_command("evertune.app", "worker"), env=environment, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_a_worker_that_waits_for_temporal_is_not_taken_for_the_one_that_died_before_it(tmp_path: Path) -> None:
    settings = Settings.load({"EVERTUNE_HOME": str(tmp_path)}, temporal_address=f"127.0.0.1:{free_port()}")
    settings.prepare_home()
    settings.worker_ready_file.write_text(str(os.getpid()))  # a process that there is, as process 1 of any container
    with a_worker(settings) as running:
        until(lambda: not settings.worker_ready_file.exists())
        assert running.poll() is None


def test_a_worker_that_does_not_poll_yet_is_waited_for_and_gets_no_second_one_beside_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = Settings.load({"EVERTUNE_HOME": str(tmp_path)}, temporal_address=address)
        with a_worker(settings) as running:
            until(lambda: foreground_worker_starts(settings))
            with pytest.raises(UnavailableError, match=r"runs, but has not polled for 1 s"):
                ensure_up(settings, wait_s=1)
            assert processes_of(tmp_path) == [running.pid]
        assert not foreground_worker_starts(settings), "the lock goes with the process"


async def test_the_ready_file_stays_young_while_the_loop_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_EVERY_S", 0.01)
    settings = Settings.load({"EVERTUNE_HOME": str(tmp_path)})
    beating = asyncio.create_task(process._beat(settings))
    await asyncio.sleep(0.05)
    assert not settings.worker_ready_file.exists(), "the worker does not poll yet, and nobody says so"
    settings.worker_ready_file.touch()
    for _ in range(2):
        os.utime(settings.worker_ready_file, (1, 1))
        await asyncio.to_thread(until, lambda: settings.worker_ready_file.stat().st_mtime > time.time() - 60)
    beating.cancel()


@pytest.mark.slow
def test_commands_in_the_home_of_a_foreground_worker_use_it_and_start_nothing(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    address = make_stack("server").up().temporal_address
    settings = Settings.load({"EVERTUNE_HOME": str(tmp_path / "container")}, temporal_address=address)
    with a_worker(settings) as running:
        until(settings.worker_ready_file.exists)
        info = ensure_up(settings)
        assert (info.worker_pid, info.parent_pid, info.started) == (running.pid, None, False)
        now = status(settings)
        assert now.up
        assert [(service.name, service.pid, service.ready) for service in now.services] == [
            ("worker", running.pid, True)
        ]
        assert not settings.state_file.exists()
        submitted = subprocess.run(
            [sys.executable, "-m", "evertune.cli", "doctor"],
            env={**child_environment(), **settings.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"process {running.pid} polls" in submitted.stdout, submitted.stdout + submitted.stderr
        assert [pid for pid in processes_of(settings.home) if pid != running.pid] == []
    os.utime(settings.worker_ready_file, (1, 1))
    assert not status(settings).up, "whoever left that file is gone"
