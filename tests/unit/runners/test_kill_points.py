"""Killed at any point an attempt is executed at most once, ends with the right outcome, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.identity import ProcessId
from activities.runners.local.spawn import Tools
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd
from evertune.protocols import Launch
from tests.unit.runners.world import blocking, launch, mentioning, ref, running, sh, until


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials")
    yield runner
    runner.close()
    await until(lambda: mentioning(str(tmp_path)) == [])  # nothing stays behind


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    """The file to which every execution adds a line."""
    return tmp_path / "executions"


def counting(counted: Path, then: str = "exit 0") -> Launch:
    # The comment lets the leak check find every process of the command.
    return sh(f"echo $$ >>{counted}\n{then} # {counted}")


def executions(counted: Path) -> int:
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def supervisor(runner: LocalRunner) -> ProcessId:
    found = attempt(runner).supervisor()
    assert found is not None
    return found


def attempt(runner: LocalRunner) -> Attempt:
    return Attempt.of(runner.log_path(ref()).parents[3], ref())


async def ended(runner: LocalRunner) -> AttemptEnd:
    return await asyncio.wait_for(runner.wait(ref()), 30)


def assert_lost(end: AttemptEnd) -> None:
    assert (end.state, end.failure) == (AttemptState.LOST, FailureClass.INFRASTRUCTURE)


async def test_killed_before_the_claim_it_is_lost_and_was_never_executed(
    tmp_path: Path, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A FIFO in the claim's place holds the supervisor in its first act: opening it waits for a reader.
    runner = LocalRunner(tmp_path / "trials")
    attempt(runner).make()
    monkeypatch.setattr(Attempt, "claimed", lambda self: False)
    os.mkfifo(attempt(runner).directory / "claim")
    await runner.create(counting(counted))
    (found,) = mentioning(str(tmp_path / "trials"))
    os.kill(found, signal.SIGKILL)
    monkeypatch.undo()
    await until(lambda: not running(found))
    (attempt(runner).directory / "claim").unlink()
    again = LocalRunner(tmp_path / "trials")
    assert_lost(await ended(again))
    await again.create(counting(counted))
    assert_lost(await ended(again))
    assert executions(counted) == 0
    runner.close()
    again.close()


async def test_killed_between_claim_and_exec_nothing_of_the_users_runs(tmp_path: Path, counted: Path) -> None:
    reached, gate = blocking(tmp_path, "setsid")
    tools = replace(Tools.find(), setsid=(str(tmp_path / "setsid"),))
    runner = LocalRunner(tmp_path / "trials", tools=tools)
    await runner.create(counting(counted))
    await until(reached.exists)
    child = attempt(runner).child()
    assert child is not None
    assert child.alive()
    os.kill(supervisor(runner).pid, signal.SIGKILL)
    end = await ended(runner)
    assert_lost(end)
    gate.touch()
    await until(lambda: not child.alive())
    await asyncio.sleep(0.05)
    assert executions(counted) == 0
    assert await ended(LocalRunner(tmp_path / "trials")) == end
    runner.close()


async def test_killed_while_the_child_still_holds_the_lock_the_outcome_waits_for_it(
    tmp_path: Path, counted: Path
) -> None:
    # The child writes who it is through a FIFO, so it stands there, before exec, with the lock in its hands.
    runner = LocalRunner(tmp_path / "trials")
    attempt(runner).make()
    os.mkfifo(attempt(runner).directory / "child")
    await runner.create(counting(counted))
    await until(attempt(runner).supervisor)
    parent = supervisor(runner)
    await until(lambda: len(mentioning(str(tmp_path / "trials"))) == 2)
    os.kill(parent.pid, signal.SIGKILL)
    waiting = asyncio.ensure_future(runner.wait(ref()))
    await asyncio.sleep(0.2)
    assert not waiting.done(), "something may still be executed"
    await until(lambda: not running(parent.pid))
    (child,) = mentioning(str(tmp_path / "trials"))
    os.kill(child, signal.SIGKILL)
    (attempt(runner).directory / "child").unlink()
    assert_lost(await asyncio.wait_for(waiting, 30))
    assert executions(counted) == 0
    runner.close()


async def test_the_supervisor_killed_alone_takes_the_group_with_it(runner: LocalRunner, counted: Path) -> None:
    await runner.create(counting(counted, f"sleep 1000 & sleep 1000; echo late >>{counted}"))
    await until(lambda: executions(counted) == 1)
    os.kill(supervisor(runner).pid, signal.SIGKILL)
    assert_lost(await ended(runner))
    await until(lambda: mentioning(str(counted)) == [])
    assert executions(counted) == 1


async def test_members_of_the_group_die_also_when_their_leader_is_gone(runner: LocalRunner, counted: Path) -> None:
    await runner.create(counting(counted, f"(exec sleep 1000) & echo $! >>{counted}; exec sleep 1000"))
    await until(lambda: executions(counted) == 2)
    member = int(counted.read_text().split()[1])
    child = attempt(runner).child()
    assert child is not None
    os.kill(supervisor(runner).pid, signal.SIGSTOP)
    os.kill(child.pid, signal.SIGKILL)
    os.kill(supervisor(runner).pid, signal.SIGKILL)
    assert_lost(await ended(runner))
    await until(lambda: not running(member))


async def test_worker_and_supervisor_killed_together(tmp_path: Path, counted: Path, runner: LocalRunner) -> None:
    worker = _worker(tmp_path, counted, "sleep 1000")
    await until(lambda: executions(counted) == 1)
    os.kill(supervisor(runner).pid, signal.SIGKILL)
    worker.kill()
    worker.wait()
    assert_lost(await ended(runner))
    await runner.create(counting(counted))
    assert executions(counted) == 1


async def test_the_worker_killed_alone_loses_nothing(tmp_path: Path, counted: Path, runner: LocalRunner) -> None:
    worker = _worker(tmp_path, counted, "sleep 0.5; echo value=1")
    await until(lambda: executions(counted) == 1)
    worker.kill()
    worker.wait()
    await runner.create(counting(counted))
    assert (await ended(runner)).state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "value=1\n"
    assert executions(counted) == 1


async def test_killed_before_the_exit_is_renamed_it_is_lost_not_half_known(tmp_path: Path, counted: Path) -> None:
    reached, gate = blocking(tmp_path, "mv")
    runner = LocalRunner(tmp_path / "trials", tools=replace(Tools.find(), mv=str(tmp_path / "mv")))
    await runner.create(counting(counted))
    await until(reached.exists)
    for pid in mentioning(str(tmp_path / "trials")):
        with suppress(ProcessLookupError):  # the stand-in's own, for its next `sleep`
            os.kill(pid, signal.SIGKILL)
    assert_lost(await ended(runner))
    gate.touch()
    await runner.create(counting(counted))
    assert_lost(await ended(runner))
    assert executions(counted) == 1
    runner.close()


async def test_the_supervisor_killed_during_the_rename_keeps_the_true_outcome(tmp_path: Path, counted: Path) -> None:
    reached, gate = blocking(tmp_path, "mv")
    runner = LocalRunner(tmp_path / "trials", tools=replace(Tools.find(), mv=str(tmp_path / "mv")))
    await runner.create(counting(counted, "exit 5"))
    await until(reached.exists)
    os.kill(supervisor(runner).pid, signal.SIGKILL)
    waiting = asyncio.ensure_future(runner.wait(ref()))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    gate.touch()
    assert (await asyncio.wait_for(waiting, 30)).exit_code == 5
    runner.close()


async def test_a_second_supervisor_that_finds_the_claim_executes_nothing(runner: LocalRunner, counted: Path) -> None:
    await runner.create(counting(counted))
    end = await ended(runner)
    script = Path(sys.modules[LocalRunner.__module__].__file__ or "").with_name("supervisor.sh")
    tools = Tools.find()
    directory = attempt(runner).directory
    again = ["/bin/sh", str(script), str(directory), "boot", "/", "1", "0", "10", "", "0", tools.mv, tools.sleep]
    _run([*again, *tools.setsid, "sh", "-c", f"echo again >>{counted}"], directory / "lock")
    assert executions(counted) == 1
    assert await ended(runner) == end


async def test_after_a_reboot_it_is_lost_and_a_recycled_pid_is_left_alone(runner: LocalRunner, counted: Path) -> None:
    bystander = _bystander()
    directory = attempt(runner).directory
    attempt(runner).make()
    for name in ("claim", "child"):
        (directory / name).write_text(f"{bystander.pid} 1 00000000-0000-0000-0000-000000000000\n")
    end = await ended(runner)
    assert_lost(end)
    assert end.message == "the host was restarted"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


async def test_a_pid_that_another_process_has_now_is_left_alone(runner: LocalRunner, counted: Path) -> None:
    await runner.create(counting(counted))
    await ended(runner)
    bystander = _bystander()
    found = attempt(runner).child()
    assert found is not None
    (attempt(runner).directory / "child").write_text(f"{bystander.pid} 1 {found.boot}\n")
    (attempt(runner).directory / "exit").unlink()
    assert_lost(await ended(runner))
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


async def test_an_exit_that_a_power_loss_emptied_counts_as_lost(runner: LocalRunner, counted: Path) -> None:
    await runner.create(counting(counted))
    await ended(runner)
    (attempt(runner).directory / "exit").write_text("")
    assert_lost(await ended(runner))


async def test_a_stuck_supervisor_does_not_hold_up_a_stop(
    runner: LocalRunner, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.local.runner.SUPERVISOR_WAIT_S", 0.1)
    await runner.create(counting(counted, "sleep 1000"))
    await until(lambda: executions(counted) == 1)
    os.kill(supervisor(runner).pid, signal.SIGSTOP)
    await asyncio.wait_for(runner.stop(ref(), reason="cancelled", grace_s=0.1), 30)
    end = await ended(runner)
    assert (end.state, end.reason) == (AttemptState.KILLED, "cancelled")


async def test_a_stop_that_died_half_way_is_continued(runner: LocalRunner, counted: Path) -> None:
    await runner.create(sh(f"trap '' TERM; echo $$ >>{counted}; while :; do sleep 0.05; done # {counted}"))
    await until(lambda: executions(counted) == 1)
    first = asyncio.ensure_future(runner.stop(ref(), reason="first", grace_s=1000))
    await until(attempt(runner).stop_reason)
    first.cancel()
    await asyncio.wait([first])
    assert attempt(runner).end() is None
    requested = attempt(runner).directory / "stop"
    os.utime(requested, (requested.stat().st_atime, requested.stat().st_mtime - 2000))
    # The grace counts from the first request.
    await asyncio.wait_for(runner.stop(ref(), reason="second", grace_s=1000), 30)
    assert (await ended(runner)).reason == "first"


def _bystander() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)


def _run(argv: list[str], stdin: Path) -> None:
    with stdin.open() as opened:
        subprocess.run(argv, stdin=opened, check=True)


def _worker(tmp_path: Path, counted: Path, then: str) -> subprocess.Popen[bytes]:
    """Another process that creates the attempt and waits for it, as a worker does."""
    code = f"""
import asyncio, sys
from pathlib import Path
from activities.runners.local import LocalRunner
from tests.unit.runners.test_kill_points import counting, ref
async def main():
    runner = LocalRunner(Path({str(tmp_path / "trials")!r}))
    await runner.create(counting(Path({str(counted)!r}), {then!r}))
    await runner.wait(ref())
asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])


async def test_the_deadline_holds_without_a_worker(tmp_path: Path, counted: Path, runner: LocalRunner) -> None:
    of = launch("sleep", "1000", job={"activeDeadlineSeconds": 1})
    await runner.create(of)
    runner.close()
    await until(lambda: (attempt(runner).directory / "exit").exists())
    end = await ended(LocalRunner(tmp_path / "trials"))
    assert (end.state, end.failure) == (AttemptState.FAILED, FailureClass.DEADLINE)
    assert end.reason == "ran longer than 1 s"
