"""The HTTP server of a stack: there without anybody waiting for it, at one address for ever, back when it dies."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evertune.app import module_command
from evertune.errors import EnvironmentProblem
from evertune.stack import ServiceStatus, down, status
from evertune.stack.processes import group_members
from tests.ports import free_port
from tests.stack.conftest import Stack, kill, sleeps, until

REAL = module_command("evertune.server")


def server_of(stack: Stack) -> ServiceStatus:
    return next(service for service in status(stack.settings).services if service.name == "server")


def health(url: str | None) -> Any:
    """Once the server has found its Temporal: it serves before that, and says so by 503."""
    assert url is not None
    until(lambda: answers(url))
    with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
        return json.loads(answer.read())


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=30):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


@pytest.fixture
def served(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(server_command=REAL)


def test_up_brings_a_server_of_this_machine_that_the_worker_was_told_of(served: Stack) -> None:
    info = served.up()
    until(lambda: server_of(served).ready)
    assert health(info.server_url)["status"] == "ok"
    assert info.server_url is not None
    assert info.server_url.startswith("http://127.0.0.1:")
    assert f"EVERTUNE_INGEST_URL={info.server_url}" in (served.home / "worker.env").read_text().splitlines()
    assert down(served.settings).stopped == ("parent", "worker", "server", "temporal")
    assert served.processes() == []
    assert served.up().server_url == info.server_url


def test_a_killed_server_comes_back_at_its_address_and_nobody_else_is_disturbed(served: Stack) -> None:
    info = served.up()
    until(lambda: server_of(served).ready)
    first = server_of(served).pid
    kill(first)
    until(lambda: server_of(served).ready and server_of(served).pid != first)
    assert health(info.server_url)["status"] == "ok"
    again = served.up()
    assert (again.worker_pid, again.temporal_pid, again.started) == (info.worker_pid, info.temporal_pid, False)
    assert served.starts() == 1


def test_when_the_parent_dies_the_next_one_adopts_the_server(served: Stack) -> None:
    before = served.up()
    until(lambda: server_of(served).ready)
    pid = server_of(served).pid
    kill(before.parent_pid)
    after = served.up()
    assert (after.server_url, server_of(served).pid) == (before.server_url, pid)
    kill(pid)
    until(lambda: server_of(served).ready and server_of(served).pid != pid)


def test_nobody_waits_for_a_server_that_cannot_start(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(server_command=["/bin/sh", "-c", "exit 3"])
    assert stack.up().worker_pid
    until(lambda: server_of(stack).last_exit == "exit code 3")
    assert status(stack.settings).up
    assert stack.up().server_url is not None


@pytest.mark.slow
def test_a_server_port_that_another_program_took_is_left_for_another_and_the_worker_learns_it(served: Stack) -> None:
    before = served.up()
    until(lambda: server_of(served).ready)
    assert before.server_url is not None
    down(served.settings)
    with socket.create_server(("127.0.0.1", int(before.server_url.rpartition(":")[2]))):
        after = served.up()
        assert after.server_url != before.server_url
        until(lambda: server_of(served).ready)
        assert health(after.server_url)["status"] == "ok"
    assert f"EVERTUNE_INGEST_URL={after.server_url}" in (served.home / "worker.env").read_text().splitlines()


def test_a_busy_server_port_that_the_user_asked_for_is_one_sentence(make_stack: Callable[..., Stack]) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        stack = make_stack(server_command=REAL, server_port=port)
        with pytest.raises(EnvironmentProblem) as caught:
            stack.up()
    assert f"port {port} on 127.0.0.1 is busy" in caught.value.message
    assert "EVERTUNE_SERVER_PORT" in (caught.value.hint or "")
    assert stack.up().server_url == f"http://127.0.0.1:{port}"


def test_secrets_are_in_no_command_line_and_in_no_file_of_the_stack(make_stack: Callable[..., Stack]) -> None:
    secret = "5e" * 32
    stack = make_stack(server_command=REAL, ingest_keys=f"k1:{secret}")
    stack.up()
    until(lambda: server_of(stack).ready)
    pids = stack.processes()
    assert len(pids) >= 4
    for pid in pids:
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for file in stack.home.rglob("*"):
        if file.is_file() and file.name != "worker.env":  # the stand-in worker writes its environment down
            assert secret.encode() not in file.read_bytes(), file
    assert not stack.settings.ingest_key_file.exists()
    server = server_of(stack).pid
    assert server is not None
    assert group_members(server, f"EVERTUNE_INGEST_KEYS=k1:{secret}"), "it got them by its environment"


@pytest.mark.slow
def test_an_idle_server_sleeps_and_is_small(served: Stack) -> None:
    served.up()
    until(lambda: server_of(served).ready)
    pid = server_of(served).pid
    until(lambda: sleeps(pid, switches=6))  # it may have to finish what starting left to do
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    assert next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) < 80_000
