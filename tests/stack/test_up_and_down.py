"""`ensure_up` and `down` on the real Temporal server: one stack per home, and none afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from evertune.errors import EnvironmentProblem, UnavailableError, UsageError
from evertune.settings import Settings
from evertune.stack import down, ensure_up, shutdown, status, temporal
from evertune.stack.processes import alive
from evertune.stack.state import StackState, recorded_parent
from tests.ports import free_port
from tests.stack.conftest import WORKER, Stack, identity, kill, until

ROOT = Path(__file__).parents[2]


def ask_temporal(address: str, *arguments: str) -> str:
    command = [temporal.binary(), *arguments, "--address", address, "--disable-config-file", "--disable-config-env"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def test_up_starts_a_server_that_answers_and_a_worker_that_was_told_its_address(stack: Stack) -> None:
    said: list[str] = []
    info = stack.up(on_progress=said.append)
    assert info.started
    assert info.embedded
    assert said == ["starting Temporal and the worker"]
    assert "SERVING" in ask_temporal(info.temporal_address, "operator", "cluster", "health")
    environ = (stack.home / "worker.env").read_text().splitlines()
    assert f"EVERTUNE_TEMPORAL_ADDRESS={info.temporal_address}" in environ
    assert f"EVERTUNE_DATABASE_URL=sqlite:///{stack.home}/evertune.db" in environ
    assert info.ui_url is not None
    with urllib.request.urlopen(info.ui_url, timeout=30) as page:
        assert page.status == 200


def test_the_server_has_our_search_attributes_retention_and_limits(stack: Stack) -> None:
    address = stack.up().temporal_address
    namespace = json.loads(ask_temporal(address, "operator", "namespace", "describe", "-n", "default", "-o", "json"))
    assert namespace["config"]["workflowExecutionRetentionTtl"] == f"{90 * 24 * 3600}s"
    attributes = ask_temporal(address, "operator", "search-attribute", "list", "-n", "default", "-o", "json")
    assert "EvertuneState" in attributes
    assert stack.settings.temporal_db.with_name("temporal.db-wal").exists()


def test_the_server_listens_on_this_machine_only(stack: Stack) -> None:
    server = stack.up().temporal_pid
    opened = []
    for entry in Path(f"/proc/{server}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(str(entry.readlink()))
    inodes = {name[len("socket:[") : -1] for name in opened if name.startswith("socket:[")}
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].partition(":")[0])
    assert listening
    assert set(listening) == {"0100007F"}


def test_a_second_up_finds_the_first_and_starts_nothing(stack: Stack) -> None:
    first = stack.up()
    second = stack.up()
    assert not second.started
    assert (second.parent_pid, second.temporal_pid, second.worker_pid) == (
        first.parent_pid,
        first.temporal_pid,
        first.worker_pid,
    )
    assert stack.starts() == 1


def test_ups_at_the_same_moment_start_exactly_one_stack(stack: Stack) -> None:
    code = (
        "import sys, json; from evertune.settings import Settings; from evertune.stack import ensure_up;"
        "info = ensure_up(Settings.load(), worker_command=json.loads(sys.argv[1]));"
        "print(info.parent_pid, info.temporal_pid, info.worker_pid, info.temporal_address)"
    )
    command = [sys.executable, "-c", code, json.dumps(stack.worker_command)]
    environ = {**os.environ, "EVERTUNE_HOME": str(stack.home), "PYTHONPATH": str(ROOT)}
    ups = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [up.communicate(timeout=100) for up in ups]
    assert len({out for out, _ in answers}) == 1, answers
    assert [up.returncode for up in ups] == [0] * 4
    assert stack.starts() == 1


def test_down_leaves_no_process_and_a_second_down_says_so(stack: Stack) -> None:
    stack.up()
    report = down(stack.settings)
    assert report.stopped == ("parent", "worker", "temporal")
    assert report.killed == ()
    assert stack.processes() == []
    again = down(stack.settings)
    assert again.nothing_was_running


def test_down_has_the_worker_stop_trials_unless_they_are_to_be_kept(stack: Stack) -> None:
    stack.up()
    assert down(stack.settings, keep_trials=True).trials == "kept"
    assert not (stack.home / "trials.stopped").exists()
    stack.up()
    called: list[str] = []
    assert down(stack.settings, stop_trials=lambda: called.append("hook")).trials == "stopped"
    assert (stack.home / "trials.stopped").read_text() == "stopped\n"
    assert called == []
    assert not stack.settings.down_file.exists()


def test_trials_that_no_worker_could_stop_are_the_hooks(stack: Stack) -> None:
    info = stack.up()
    kill(info.parent_pid, info.worker_pid)
    called: list[str] = []
    report = down(stack.settings, stop_trials=lambda: called.append("hook"))
    assert (report.trials, called) == ("stopped", ["hook"])
    stack.up()
    down(stack.settings, keep_trials=True)
    assert down(stack.settings, stop_trials=lambda: called.append("kept before")).nothing_was_running
    assert called == ["hook", "kept before"]
    assert down(stack.settings).trials == "unknown"


def test_down_without_any_home_creates_none(stack: Stack) -> None:
    assert down(stack.settings).nothing_was_running
    assert not stack.home.exists()


def test_a_restart_keeps_both_addresses_and_what_the_server_knew(stack: Stack) -> None:
    before = stack.up()
    ask_temporal(before.temporal_address, "operator", "namespace", "create", "-n", "remember-me")
    down(stack.settings)
    after = stack.up()
    assert (after.temporal_address, after.ui_url) == (before.temporal_address, before.ui_url)
    assert "remember-me" in ask_temporal(after.temporal_address, "operator", "namespace", "list", "-o", "json")


def test_homes_side_by_side_never_meet(make_stack: Callable[..., Stack]) -> None:
    one, two = make_stack("one"), make_stack("two")
    first, second = one.up(), two.up()
    assert first.temporal_address != second.temporal_address
    assert first.ui_url != second.ui_url
    down(one.settings)
    assert one.processes() == []
    assert status(two.settings).up
    assert two.up().worker_pid == second.worker_pid


def test_a_home_may_have_spaces_and_letters_of_any_language_in_its_path(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("a home für 'Ada' & co")
    assert "SERVING" in ask_temporal(stack.up().temporal_address, "operator", "cluster", "health")
    assert stack.settings.temporal_db.exists()


def test_a_remembered_port_that_another_program_took_is_replaced_with_a_sentence(stack: Stack) -> None:
    before = stack.up()
    down(stack.settings)
    port = int(before.temporal_address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        after = stack.up()
        assert after.temporal_address != before.temporal_address
        assert after.notes == (
            f"port {port} is used by another program now; temporal moves to port "
            f"{after.temporal_address.rpartition(':')[2]}",
        )
    assert stack.up().temporal_address == after.temporal_address


def test_a_busy_port_that_the_user_asked_for_is_one_sentence(make_stack: Callable[..., Stack]) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        stack = make_stack(ui_port=port)
        with pytest.raises(EnvironmentProblem) as caught:
            stack.up()
    assert f"port {port} on 127.0.0.1 is busy" in caught.value.message
    assert "EVERTUNE_UI_PORT" in (caught.value.hint or "")
    assert stack.up().ui_url == f"http://127.0.0.1:{port}", "once the port is free, the next up succeeds"


def test_the_ports_that_the_user_asked_for_are_used(make_stack: Callable[..., Stack]) -> None:
    ports = (free_port(), free_port())
    info = make_stack(temporal_port=ports[0], ui_port=ports[1]).up()
    assert (info.temporal_address, info.ui_url) == (f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")


def test_with_a_configured_server_only_the_worker_is_started(make_stack: Callable[..., Stack]) -> None:
    server = make_stack("server").up()
    user = make_stack("user", temporal_address=server.temporal_address)
    info = user.up()
    assert not info.embedded
    assert info.temporal_pid is None
    assert info.temporal_address == server.temporal_address
    assert not user.settings.temporal_db.exists()
    assert [service.name for service in status(user.settings).services] == ["parent", "worker"]
    assert down(user.settings).stopped == ("parent", "worker")
    assert alive(identity(server.temporal_pid))


def test_an_unreachable_configured_server_is_one_sentence_and_starts_nothing(make_stack: Callable[..., Stack]) -> None:
    address = f"127.0.0.1:{free_port()}"
    stack = make_stack(temporal_address=address)
    with pytest.raises(UnavailableError, match=f"cannot reach Temporal at {address}"):
        stack.up()
    assert stack.processes() == []


def test_other_settings_than_those_of_the_running_stack_are_refused(stack: Stack) -> None:
    stack.up()
    environ = stack.settings.environment()
    other = Settings.load(environ, database_url="mysql+pymysql://ada:s3cret@db/evertune")
    with pytest.raises(UsageError) as caught:
        ensure_up(other, worker_command=stack.worker_command)
    assert "mysql+pymysql://ada:***@db/evertune" in caught.value.message
    assert "evertune down" in (caught.value.hint or "")
    assert "s3cret" not in stack.settings.state_file.read_text()


def test_after_an_upgrade_the_stack_is_restarted_and_trials_go_on(stack: Stack) -> None:
    before = stack.up()
    state = StackState.load(stack.settings.state_file)
    assert state is not None
    state.version = "0.0.1"
    state.save(stack.settings.state_file)
    after = stack.up()
    assert after.worker_pid != before.worker_pid
    assert after.temporal_address == before.temporal_address
    assert "it ran 0.0.1" in after.notes[0]
    assert not (stack.home / "trials.stopped").exists()
    until(lambda: len(stack.processes()) == 4)  # parent, Temporal, worker and its sleep


def test_a_worker_that_cannot_start_is_reported_with_its_last_words(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(worker="echo error: the database was written by a newer evertune >&2; exit 2")
    with pytest.raises(EnvironmentProblem) as caught:
        stack.up()
    assert caught.value.message == (
        "the worker cannot start, exit code 2: error: the database was written by a newer evertune"
    )
    assert str(stack.settings.logs_dir / "worker.log") in (caught.value.hint or "")


def test_up_after_the_cause_was_mended_does_not_wait_for_the_old_back_off(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(worker="exit 2")
    with pytest.raises(EnvironmentProblem):
        stack.up()
    stuck = recorded_parent(stack.settings)
    assert stuck is not None
    Path(stack.worker_command[1]).write_text(WORKER)
    assert stack.up().parent_pid != stuck.pid, "the next parent tries at once"
    assert not alive(stuck)


@pytest.mark.slow
def test_a_worker_that_never_gets_ready_is_given_up_after_the_time_allowed(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.up()
    Path(stack.worker_command[1]).write_text(
        """echo '{"event": "waiting", "error": "no answer", "level": "x"}'; exec sleep 1000"""
    )
    kill(status(stack.settings).services[2].pid)
    until(lambda: "no answer" in (stack.settings.logs_dir / "worker.log").read_text())
    with pytest.raises(UnavailableError, match=r"the worker was not ready within 2 s: waiting: no answer$"):
        stack.up(wait_s=2)
    assert down(stack.settings).stopped == ("parent", "worker", "temporal")
    assert stack.processes() == []


def test_a_server_that_cannot_use_its_file_is_reported_with_its_last_words(stack: Stack) -> None:
    stack.settings.prepare_home()
    stack.settings.temporal_db.write_bytes(b"this is not a database " * 1000)
    with pytest.raises(EnvironmentProblem, match=r"Temporal cannot start, exit code 1: .*not a database"):
        stack.up()


def test_a_worker_that_ignores_sigterm_is_killed_with_its_children(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(shutdown.GRACE_S, "worker", 0.5)
    stack = make_stack(
        worker="trap '' TERM; echo $$ > $EVERTUNE_HOME/worker.ready; sleep 1000 & while :; do sleep 1000; done"
    )
    stack.up()
    assert down(stack.settings).killed == ("worker",)
    assert stack.processes() == []


def test_sigterm_to_the_parent_stops_the_stack_but_no_trial(stack: Stack) -> None:
    info = stack.up()
    os.kill(identity(info.parent_pid).pid, signal.SIGTERM)
    until(lambda: not stack.processes())
    assert not (stack.home / "trials.stopped").exists()
    assert stack.up().started


def test_status_of_nothing_of_everything_and_of_a_part(stack: Stack) -> None:
    nothing = status(stack.settings)
    assert not nothing.up
    assert [(service.name, service.pid) for service in nothing.services] == [
        ("parent", None),
        ("temporal", None),
        ("worker", None),
    ]
    assert not stack.home.exists(), "to look is not to create"
    info = stack.up()
    everything = status(stack.settings)
    assert everything.up
    assert [service.pid for service in everything.services] == [info.parent_pid, info.temporal_pid, info.worker_pid]
    kill(info.parent_pid, info.temporal_pid)
    part = until(lambda: not (found := status(stack.settings)).reachable and found)
    assert not part.up
    assert [service.pid for service in part.services] == [None, None, info.worker_pid]
