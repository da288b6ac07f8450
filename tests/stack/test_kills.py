"""kill -9 of anything at any moment: what lives goes on, what died comes back once, and nothing runs twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evertune.app import child_environment, module_command
from evertune.errors import EnvironmentProblem, UnavailableError
from evertune.stack import StackInfo, down, shutdown, status
from evertune.stack import up as ups
from evertune.stack.files import open_lock, try_lock
from evertune.stack.processes import Held, Identity, alive, group_members, identity_of, send, wait_gone
from evertune.stack.state import StackState, parent_lock, recorded_parent
from tests.stack.conftest import Stack, identity, kill, sleeps, until


def pids(info: StackInfo) -> tuple[int | None, int | None, int]:
    return info.parent_pid, info.temporal_pid, info.worker_pid


def test_a_killed_worker_is_started_again_and_the_server_stays(stack: Stack) -> None:
    before = stack.up()
    kill(before.worker_pid)
    until(lambda: status(stack.settings).up and stack.starts() == 2)
    after = stack.up()
    assert not after.started
    assert (after.parent_pid, after.temporal_pid) == (before.parent_pid, before.temporal_pid)
    assert "signal SIGKILL" in [service.last_exit for service in status(stack.settings).services]


def test_a_worker_that_is_killed_again_and_again_is_not_taken_for_one_that_cannot_start(stack: Stack) -> None:
    for kills in range(1, 6):
        kill(stack.up().worker_pid)
        until(lambda: stack.starts() > kills and status(stack.settings).up)  # noqa: B023 - called before the next turn
        state = StackState.load(stack.settings.state_file)
        assert state is not None
        assert state.worker.failures == 1, "the next start waits as long as the first, not longer each time"


def test_a_killed_server_is_started_again_at_the_same_address_and_the_worker_stays(stack: Stack) -> None:
    before = stack.up()
    kill(before.temporal_pid)
    after = until(lambda: (found := status(stack.settings)).up and found)
    assert after.temporal_address == before.temporal_address
    assert stack.up().worker_pid == before.worker_pid
    assert stack.starts() == 1


def test_what_a_worker_was_told_of_clusters_is_on_record_as_long_as_it_runs(
    make_stack: Callable[..., Stack],
) -> None:
    first = make_stack(kubeconfig="/one")
    before = first.up()
    environ = (first.home / "worker.env").read_text().splitlines()
    assert "EVERTUNE_KUBECONFIG=/one" in environ
    assert status(first.settings).told == first.settings.told_of_clusters()

    kill(before.parent_pid)
    second = make_stack(home=first.home, kubeconfig="/two")
    assert second.up().worker_pid == before.worker_pid  # adopted, as it is
    assert status(second.settings).told == first.settings.told_of_clusters()

    down(second.settings)
    assert status(second.settings).told is None
    second.up()
    assert status(second.settings).told == second.settings.told_of_clusters()


def test_when_the_parent_dies_its_children_go_on_and_the_next_up_adopts_them(stack: Stack) -> None:
    before = stack.up()
    kill(before.parent_pid)
    until(lambda: not alive(recorded_parent(stack.settings)))
    assert status(stack.settings).reachable
    after = stack.up()
    assert after.parent_pid != before.parent_pid
    assert (after.temporal_pid, after.worker_pid) == (before.temporal_pid, before.worker_pid)
    assert stack.starts() == 1
    kill(after.worker_pid)
    until(lambda: stack.starts() == 2)
    until(lambda: status(stack.settings).up)
    kill(after.temporal_pid)
    until(lambda: not status(stack.settings).up)
    until(lambda: status(stack.settings).up)
    until(lambda: len(stack.processes()) == 4)  # parent, Temporal, worker and its sleep


@pytest.mark.chaos
@pytest.mark.parametrize("dead", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_after_any_kill_the_next_up_restores_one_whole_stack(stack: Stack, dead: tuple[int, ...]) -> None:
    before = stack.up()
    kill(*(pids(before)[index] for index in dead))
    after = stack.up()
    assert after.temporal_address == before.temporal_address
    kept = [index for index in range(3) if index not in dead]
    assert [pids(after)[index] for index in kept] == [pids(before)[index] for index in kept]
    until(lambda: len(stack.processes()) == 4)
    assert stack.starts() == (2 if 2 in dead else 1)


@pytest.mark.parametrize("dead", [(0,), (1,), (2,), (0, 1, 2)])
def test_after_any_kill_down_leaves_no_process(stack: Stack, dead: tuple[int, ...]) -> None:
    before = stack.up()
    kill(*(pids(before)[index] for index in dead))
    down(stack.settings)
    assert stack.processes() == []


def test_when_the_server_must_move_the_worker_follows(stack: Stack) -> None:
    before = stack.up()
    kill(before.parent_pid, before.temporal_pid)
    with socket.create_server(("127.0.0.1", int(before.temporal_address.rpartition(":")[2]))):
        after = stack.up()
    assert after.temporal_address != before.temporal_address
    assert after.worker_pid != before.worker_pid
    assert f"EVERTUNE_TEMPORAL_ADDRESS={after.temporal_address}" in (stack.home / "worker.env").read_text().splitlines()
    assert not (stack.home / "trials.stopped").exists()


@pytest.mark.chaos
@pytest.mark.parametrize("delay_s", [0.05, 0.12, 0.2, 0.35])
def test_kills_while_the_stack_starts_leave_nothing_behind_that_is_not_on_record(stack: Stack, delay_s: float) -> None:
    """`up` and the parent die at some moment of the start; whatever they had begun, there is one of each afterwards."""
    code = (
        "import sys, json; from evertune.settings import Settings; from evertune.stack import ensure_up;"
        "print('now', flush=True); ensure_up(Settings.load(), worker_command=json.loads(sys.argv[1]))"
    )
    environ = {**os.environ, "EVERTUNE_HOME": str(stack.home), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, json.dumps(stack.worker_command)]
    up = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert up.stdout is not None
    assert up.stdout.readline() == b"now\n"
    time.sleep(delay_s)
    up.kill()
    up.communicate()
    if (parent := recorded_parent(stack.settings)) is not None and send(parent, signal.SIGKILL):
        assert wait_gone([parent], 30) == []
    stack.up()
    until(lambda: len(stack.processes()) == 4)  # parent, Temporal, worker and its sleep
    down(stack.settings)
    assert stack.processes() == []


def test_a_down_that_was_killed_half_way_can_be_repeated(stack: Stack) -> None:
    stack.up()
    root = Path(__file__).parents[2]
    code = (
        "import os, signal; from evertune.settings import Settings; from evertune.stack import down;"
        "say = lambda text: text == 'stopping temporal' and os.kill(os.getpid(), signal.SIGKILL);"
        "down(Settings.load(), on_progress=say)"
    )
    environ = {**os.environ, "EVERTUNE_HOME": str(stack.home), "PYTHONPATH": str(root)}
    first = subprocess.run([sys.executable, "-c", code], env=environ, timeout=90)
    assert first.returncode == -signal.SIGKILL
    report = down(stack.settings)
    assert report.stopped == ("temporal",)
    assert stack.processes() == []


def test_a_stale_record_never_makes_us_touch_a_stranger(stack: Stack) -> None:
    """The pids on record belong to other processes now: `up` starts its own, `down` leaves the strangers alone."""
    info = stack.up()
    down(stack.settings)
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        real = identity(stranger.pid)
        reused = Identity(real.pid, real.start - 1, real.boot)
        other_boot = Identity(real.pid, real.start, "another boot")
        state = StackState(
            version="0.1.0", database="", database_shown="", embedded=True, temporal_namespace="default",
            temporal_address=info.temporal_address,
        )  # fmt: skip
        state.worker.identity, state.temporal.identity = reused, other_boot
        state.save(stack.settings.state_file)
        assert down(stack.settings).nothing_was_running
        state.save(stack.settings.state_file)
        (stack.home / "parent.lock").write_text(json.dumps(reused.as_dict()))
        assert status(stack.settings).services[0].pid is None
        assert stack.up().worker_pid != stranger.pid
        down(stack.settings)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "pid": 1}', "\0\0\0"])
def test_a_damaged_record_does_not_stop_up(stack: Stack, text: str) -> None:
    stack.settings.prepare_home()
    stack.settings.state_file.write_text(text)
    (stack.home / "parent.lock").write_text(text)
    (stack.home / "ports.json").write_text(text)
    assert not status(stack.settings).up
    assert stack.up().started


def test_what_a_killed_worker_left_in_its_group_is_ended_before_the_next_one(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(worker="echo $$ > $EVERTUNE_HOME/worker.ready; sleep 1000 & while :; do sleep 1000; done")
    info = stack.up()
    entry = f"EVERTUNE_HOME={stack.home}"
    orphans = until(lambda: len(found := group_members(info.worker_pid, entry)) == 3 and found)
    kill(info.worker_pid)
    assert wait_gone(orphans, 30) == []
    assert until(lambda: status(stack.settings).up)


def test_a_child_that_was_not_recorded_before_its_starter_died_never_runs(tmp_path: Path) -> None:
    """The starter is killed between creating the child and recording it: the child leaves without having begun."""
    root = Path(__file__).parents[2]
    code = (
        "import os, sys, signal; from pathlib import Path; from evertune.stack.processes import Held;"
        f"here = Path({str(tmp_path)!r});"
        "held = Held(['touch', 'ran'], environment={'PATH': os.environ['PATH']}, cwd=here, log=here / 'log');"
        "print(held.identity.pid, held.identity.start, held.identity.boot, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    pid, start, boot = done.stdout.strip().split(" ", 2)
    assert wait_gone([Identity(int(pid), int(start), boot)], 30) == []
    assert not (tmp_path / "ran").exists()


def test_a_held_child_keeps_its_identity_when_it_begins(tmp_path: Path) -> None:
    held = Held(["sleep", "1000"], environment=dict(os.environ), cwd=tmp_path, log=tmp_path / "log")
    process = held.go()
    try:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        assert identity_of(process.pid) == held.identity
    finally:
        assert send(held.identity, signal.SIGKILL)
        process.wait()
    assert not send(held.identity, signal.SIGKILL)


def test_a_stack_whose_home_was_deleted_ends_by_itself(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack()
    info = stack.up()
    stack.home.rename(stack.home.with_name("moved"))
    kill(info.worker_pid)  # the parent wakes up; otherwise it looks once a minute
    until(lambda: not alive(identity_of(info.parent_pid or 0)) and not alive(identity_of(info.temporal_pid or 0)))


def test_a_parent_that_ends_before_it_wrote_its_name_is_followed_by_another(stack: Stack) -> None:
    """Its `up` was killed in the middle, and then itself: whoever comes meanwhile finds the lock, and no name in it."""
    stack.settings.prepare_home()
    lock = open_lock(parent_lock(stack.settings))
    assert try_lock(lock)
    with ThreadPoolExecutor(1) as thread:
        up = thread.submit(stack.up)
        until((stack.settings.logs_dir / "parent.log").exists)
        time.sleep(0.3)  # now it has found the lock, most probably
        os.close(lock)
        assert up.result(100).started


def test_a_lock_that_a_process_of_elsewhere_holds_is_one_sentence(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ups, "NAMED_S", 0.3)
    stack.settings.prepare_home()
    lock = open_lock(parent_lock(stack.settings))
    assert try_lock(lock)
    (stack.home / "parent.lock").write_text(json.dumps({"pid": 1, "start": 1, "boot": "another machine"}))
    with pytest.raises(EnvironmentProblem, match="is in use: a process of another machine or container holds"):
        stack.up()
    os.close(lock)


def test_a_parent_that_does_not_come_is_one_sentence(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ups, "PARENT_START_S", 0.001)
    with pytest.raises(UnavailableError, match=r"the stack's parent did not start within 0\.001 s"):
        stack.up()


def test_a_second_parent_leaves_at_once(stack: Stack) -> None:
    info = stack.up()
    done = subprocess.run(
        module_command("evertune.stack", json.dumps([None, ["true"], {}, ""])),
        env={**child_environment(), **stack.settings.environment()},
        capture_output=True,
        timeout=90,
    )
    assert json.loads(done.stdout) == {"started": False}
    assert stack.up().parent_pid == info.parent_pid


def test_the_parent_sleeps_and_is_small(stack: Stack) -> None:
    info = stack.up()
    until(lambda: sleeps(info.parent_pid, switches=2))  # it may have to finish what starting left to do
    rollup = Path(f"/proc/{info.parent_pid}/smaps_rollup").read_text()
    pss_kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss_kib < 20_000


def test_killed_means_killed_even_when_the_worker_stops_slowly(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped (frozen) worker cannot act on SIGTERM; `down` ends it all the same."""
    monkeypatch.setitem(shutdown.GRACE_S, "worker", 0.5)
    info = stack.up()
    os.kill(info.worker_pid, signal.SIGSTOP)
    report = down(stack.settings)
    assert report.killed == ("worker",)
    assert report.trials == "unknown"
    assert stack.processes() == []
