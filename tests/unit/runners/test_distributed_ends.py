"""A distributed job ends as its operator would end it, at whatever moment anything is killed, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.group import Group
from activities.runners.local.verdict import Outcome, Verdict
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd
from evertune.errors import LaunchError
from evertune.protocols import Launch
from tests.unit.runners.world import distributed, mentioning, python, ref, running, shell, until


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials", replica_grace_s=1.0)
    yield runner
    runner.close()
    await until(lambda: mentioning(str(tmp_path)) == [])  # nothing stays behind


def attempt(runner: LocalRunner) -> Attempt:
    return Attempt(runner.log_path(ref()).parent)


async def ended(runner: LocalRunner, number: int = 0) -> AttemptEnd:
    return await asyncio.wait_for(runner.wait(ref(number)), 30)


async def run(runner: LocalRunner, of: Launch) -> AttemptEnd:
    await runner.create(of)
    return await ended(runner)


# ------------------------------------------------------------------------------------------- how they end


async def test_a_failed_worker_ends_the_job_and_the_others(runner: LocalRunner, tmp_path: Path) -> None:
    mark = f"# {tmp_path}"
    roles = {
        "Master": (1, shell(f"sleep 600 {mark}")),
        "Worker": (
            2,
            python(
                "import os, time\ntime.sleep(0.2)\nassert os.environ['RANK'] != '2', 'no such data'\ntime.sleep(600)"
            ),
        ),
    }
    end = await run(runner, distributed("PyTorchJob", roles, restart="Never"))
    assert (end.state, end.failure, end.exit_code) == (AttemptState.FAILED, FailureClass.PROGRAM, 1)
    assert end.reason == "worker-1: exit 1: AssertionError: no such data"
    assert "Traceback" in end.message
    assert all(replica.over() for replica in attempt(runner).replicas.values())


async def test_who_ignores_the_end_of_the_job_is_killed(runner: LocalRunner, tmp_path: Path) -> None:
    stubborn = shell(f'trap "" TERM; echo ready >{tmp_path}/ready; while :; do sleep 0.05; done')
    roles = {"Chief": (1, shell(f"while [ ! -e {tmp_path}/ready ]; do sleep 0.02; done")), "PS": (1, stubborn)}
    assert (await run(runner, distributed("TFJob", roles))).state is AttemptState.SUCCEEDED
    record = attempt(runner).replicas["ps-0"].record()
    assert record is not None
    assert record.status == 128 + signal.SIGKILL


def count_to(file: Path, last: int, status: int) -> list[str]:
    """Fails until it was run `last` times."""
    return shell(f"echo x >>{file}; [ $(wc -l <{file}) -ge {last} ] || exit {status}; echo done")


@pytest.mark.parametrize(
    ("restart", "status", "limit", "runs", "state"),
    [
        ("OnFailure", 1, None, 4, AttemptState.SUCCEEDED),
        ("Always", 1, None, 4, AttemptState.SUCCEEDED),
        ("Never", 1, None, 1, AttemptState.FAILED),
        ("OnFailure", 1, 1, 2, AttemptState.FAILED),
        ("ExitCode", 1, None, 1, AttemptState.FAILED),
        ("ExitCode", 130, None, 4, AttemptState.SUCCEEDED),
    ],
)
async def test_restarts(
    runner: LocalRunner, tmp_path: Path, restart: str, status: int, limit: int | None, runs: int, state: AttemptState
) -> None:
    policy = {} if limit is None else {"runPolicy": {"backoffLimit": limit}}
    of = distributed("TFJob", {"Worker": (1, count_to(tmp_path / "runs", 4, status))}, restart=restart, spec=policy)
    assert (await run(runner, of)).state is state
    assert len((tmp_path / "runs").read_text().splitlines()) == runs


async def test_all_replicas_share_the_restarts_of_a_backoff_limit(runner: LocalRunner, tmp_path: Path) -> None:
    one = shell(f"echo x >>{tmp_path}/runs; exit 1")
    roles = {"Chief": (1, shell("exec sleep 600")), "Worker": (2, one)}
    end = await run(runner, distributed("TFJob", roles, restart="OnFailure", spec={"runPolicy": {"backoffLimit": 2}}))
    assert end.state is AttemptState.FAILED
    # Two first runs and two more between them; one may have been cut short by the other's failure.
    assert 3 <= len((tmp_path / "runs").read_text().splitlines()) <= 4


async def test_the_jobs_deadline_ends_all_of_it(runner: LocalRunner) -> None:
    roles = {"Chief": (1, shell("exec sleep 600")), "Worker": (1, shell("exec sleep 600"))}
    end = await run(runner, distributed("TFJob", roles, spec={"runPolicy": {"activeDeadlineSeconds": 1}}))
    assert (end.state, end.failure) == (AttemptState.FAILED, FailureClass.DEADLINE)
    assert end.reason.endswith("ran longer than 1 s")


async def test_a_stop_ends_every_replica(runner: LocalRunner) -> None:
    roles = {"Chief": (1, shell("exec sleep 600")), "Worker": (2, shell("exec sleep 600"))}
    await runner.create(distributed("TFJob", roles))
    assert [entry.key for entry in runner.find_orphans(set())] == [ref().key]
    await runner.stop(ref(), reason="MaxTrialsReached")
    end = await ended(runner)
    assert (end.state, end.failure, end.reason) == (AttemptState.KILLED, FailureClass.STOPPED, "MaxTrialsReached")
    assert runner.find_orphans(set()) == []
    await runner.remove(ref())
    assert not (attempt(runner).replicas["worker-1"].directory / "files").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-command-anywhere"], "is not on PATH"),
        ([sys.executable, "no/such.py"], "script no/such.py does not exist"),
        ([], "has no command"),
    ],
)
async def test_what_one_replica_cannot_start_starts_none(
    runner: LocalRunner, tmp_path: Path, command: list[str], words: str
) -> None:
    roles = {"Chief": (1, shell(f"echo x >>{tmp_path}/runs; sleep 600")), "Worker": (1, command)}
    with pytest.raises(LaunchError, match=words):
        await runner.create(distributed("TFJob", roles))
    assert not (tmp_path / "runs").exists()
    assert runner.find_orphans(set()) == []


async def test_what_only_the_system_refuses_takes_the_started_ones_along(runner: LocalRunner) -> None:
    # The chief is started before anybody can know that the worker's variable is too long.
    of = distributed("TFJob", {"Chief": (1, shell("exec sleep 600")), "Worker": (1, shell("true"))})
    containers = of.manifest["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    containers[0]["env"] = [{"name": "HUGE", "value": "x" * 10_000_000}]
    with pytest.raises(LaunchError, match="longer than this system takes"):
        await runner.create(of)
    end = await ended(runner)
    assert (end.state, end.reason) == (AttemptState.KILLED, "CannotStart")


# --------------------------------------------------------------------------------------- killed at any time


async def test_a_killed_supervisor_of_any_replica_loses_the_attempt_and_ends_the_others(runner: LocalRunner) -> None:
    roles = {"Chief": (1, shell("exec sleep 600")), "Worker": (2, shell("exec sleep 600"))}
    await runner.create(distributed("TFJob", roles))
    children = {}
    for name, replica in attempt(runner).replicas.items():
        await until(lambda replica=replica: replica.child() is not None)  # type: ignore[misc]
        children[name] = replica.child()
    supervisor = attempt(runner).replicas["worker-1"].supervisor()
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    end = await ended(runner)
    assert (end.state, end.failure) == (AttemptState.LOST, FailureClass.INFRASTRUCTURE)
    assert end.message == "worker-1: its supervisor was killed"
    await until(lambda: not [name for name, child in children.items() if child and running(child.pid)])


WORKER = """
import asyncio, pickle, sys
from pathlib import Path
from activities.runners.local import LocalRunner

async def work():
    of = pickle.loads(Path(sys.argv[2]).read_bytes())
    runner = LocalRunner(Path(sys.argv[1]), replica_grace_s=1.0)
    await runner.create(of)
    print("created", flush=True)
    await runner.wait(of.ref)
    print("ended", flush=True)

asyncio.run(work())
"""


def worker_process(tmp_path: Path, of: Launch) -> subprocess.Popen[str]:
    import pickle

    (tmp_path / "launch").write_bytes(pickle.dumps(of))
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path / "trials"), str(tmp_path / "launch")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )


async def test_after_a_killed_worker_another_sees_the_same_end_and_nothing_ran_twice(
    runner: LocalRunner, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = shell(f"echo $TF_CONFIG >>{tmp_path}/runs; while [ ! -e {gate} ]; do sleep 0.02; done; echo acc=1")
    of = distributed("TFJob", {"PS": (1, shell("exec sleep 600")), "Worker": (2, script)})
    with worker_process(tmp_path, of) as worker:
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == "created\n"
        worker.kill()
    await runner.create(of)
    await until(lambda: (tmp_path / "runs").exists() and len((tmp_path / "runs").read_text().splitlines()) == 2)
    gate.touch()
    end = await ended(runner)
    assert end.state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "acc=1\n"
    assert len((tmp_path / "runs").read_text().splitlines()) == 2


async def test_a_job_that_ended_while_no_worker_lived_is_judged_by_what_came_first(
    runner: LocalRunner, tmp_path: Path
) -> None:
    # Worker 0 succeeds first; that worker 1 then misses it and fails is no failure of the job.
    first = "case $TF_CONFIG in *'\"index\":0'*) exit 0;; esac"
    roles = {"Worker": (2, shell(f"{first}; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; exit 9"))}
    of = distributed("TFJob", roles)
    with worker_process(tmp_path, of) as worker:
        assert worker.stdout is not None
        await asyncio.to_thread(worker.stdout.readline)
        worker.kill()
    replicas = attempt(runner).replicas
    await until(replicas["worker-0"].over)
    (tmp_path / "gate").touch()
    await until(replicas["worker-1"].over)
    assert (await ended(runner)).state is AttemptState.SUCCEEDED


async def test_a_worker_killed_between_two_starts_is_continued_and_nothing_starts_twice(
    runner: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = shell(f"echo x >>{tmp_path}/runs; sleep 0.3")
    of = distributed("JAXJob", {"Worker": (3, script)})
    real = LocalRunner._claim
    started: list[Any] = []

    def dying(self: LocalRunner, *arguments: Any) -> int | None:
        if len(started) == 1:
            raise KeyboardInterrupt
        started.append(arguments)
        return real(self, *arguments)

    monkeypatch.setattr(LocalRunner, "_claim", dying)
    with pytest.raises(KeyboardInterrupt):
        runner._start(of)
    monkeypatch.undo()
    await until(attempt(runner).replicas["worker-0"].claimed)
    assert not attempt(runner).replicas["worker-1"].claimed()
    end = await run(runner, of)
    assert end.state is AttemptState.SUCCEEDED
    assert len((tmp_path / "runs").read_text().splitlines()) == 3


async def test_a_worker_killed_before_the_replicas_had_their_directories_leaves_a_fresh_attempt(
    runner: LocalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    of = distributed("JAXJob", {"Worker": (2, shell("echo $COORDINATOR_PORT"))})
    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        runner._start(of)
    monkeypatch.undo()
    assert not attempt(runner).claimed()
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED


async def test_a_worker_killed_after_the_verdict_leaves_the_others_to_the_next(runner: LocalRunner) -> None:
    roles = {"Chief": (1, shell("exit 7")), "Worker": (2, shell("exec sleep 600"))}
    await runner.create(distributed("TFJob", roles))
    group = Group.of(attempt(runner))
    assert group is not None
    await until(group.members["chief-0"].over)
    verdict = group.verdict()
    assert verdict is not None
    assert group.settle(verdict) == verdict
    assert group.settle(Verdict(Outcome.SUCCEEDED, "worker-0")) == verdict, "the first one stands"
    assert not group.members["worker-0"].over()
    assert (await ended(runner)).reason == "chief-0: exit 7"
    assert all(member.over() for member in group.members.values())


async def test_when_all_that_watched_is_killed_nothing_of_it_is_left(runner: LocalRunner, tmp_path: Path) -> None:
    of = distributed("JAXJob", {"Worker": (3, shell(f"echo x >>{tmp_path}/runs; exec sleep 600"))})
    with worker_process(tmp_path, of) as worker:
        assert worker.stdout is not None
        await asyncio.to_thread(worker.stdout.readline)
        worker.kill()
    await until(lambda: (tmp_path / "runs").exists() and len((tmp_path / "runs").read_text().splitlines()) == 3)
    children = [child for replica in attempt(runner).replicas.values() if (child := replica.child())]
    for replica in attempt(runner).replicas.values():
        supervisor = replica.supervisor()
        assert supervisor is not None
        os.kill(supervisor.pid, signal.SIGKILL)
    await runner.create(of)
    assert (await ended(runner)).state is AttemptState.LOST
    assert len((tmp_path / "runs").read_text().splitlines()) == 3
    await until(lambda: not [child for child in children if running(child.pid)])


async def test_a_collector_of_the_users_own_waits_for_the_end_of_all_replicas(runner: LocalRunner) -> None:
    waits = 'while [ ! -e "$EVERTUNE_EXIT_FILE" ]; do sleep 0.02; done; cat /katib/metrics'
    roles = {"Chief": (1, shell("echo chief >/katib/metrics")), "Worker": (1, shell("echo worker >/katib/metrics"))}
    of = distributed(
        "TFJob",
        roles,
        shared_paths=("/katib",),
        custom_collector={"name": "mine", "command": shell(waits)},
    )
    end = await run(runner, of)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ())
    printed = runner.sources(of, "/katib/metrics").printed
    assert printed is not None
    assert printed.read_text() == "chief\n"
