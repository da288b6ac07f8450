"""A worker process that is told to end while nobody answers it any more."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evertune.app import child_environment, module_command
from evertune.settings import Settings
from tests import servers
from tests.stack.conftest import until
from tests.workflow.conftest import serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(servers.mariadb_binaries() is None, reason="MariaDB is wanted: an SQLite file always answers"),
]


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@contextmanager
def frozen(pids: set[int]) -> Iterator[None]:
    """As behind a network that swallows everything: connections stay, and nothing comes."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_without_temporal_and_database_a_worker_does_not_use_up_its_grace(binary: str, tmp_path: Path) -> None:
    before = children()
    with servers.mariadb() as url, contextmanager(serve)(binary) as address:
        theirs = children() - before
        assert len(theirs) == 2
        settings = Settings.load(
            {"EVERTUNE_HOME": str(tmp_path / "worker"), "EVERTUNE_DATABASE_URL": url}, temporal_address=address
        )
        environment = {**child_environment(), **settings.environment()}
        with (tmp_path / "log").open("wb") as log:
            worker = subprocess.Popen(module_command("evertune.app", "worker"), env=environment, stdout=log, stderr=log)
        try:
            until(settings.worker_ready_file.exists, 60)
            with frozen(theirs):
                worker.terminate()
                worker.wait(50)
        finally:
            worker.kill()
            worker.wait()
    assert worker.returncode == 0
    assert "neither Temporal nor the database answers" in (tmp_path / "log").read_text()
