"""Distributed jobs as local processes: they meet, end as their operator would end them, and none is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.shape import OPERATED
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd
from evertune.errors import LaunchError
from evertune.protocols import Launch
from tests.unit.runners.world import launch, mentioning, ref, running, until


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials", replica_grace_s=1.0)
    yield runner
    runner.close()
    await until(lambda: mentioning(str(tmp_path)) == [])  # nothing stays behind


def distributed(
    kind: str, roles: dict[str, tuple[int, list[str]]], *, restart: str | None = None, number: int = 0, **rest: Any
) -> Launch:
    """Roles to (replicas, command); `rest` are the launch's, and `spec` the job's."""
    spec = rest.pop("spec", {})
    container = {"name": OPERATED[kind].container, **rest.pop("container", {})}
    of = launch("true", of=ref(number), **rest)
    replicas: dict[str, Any] = {}
    for role, (count, command) in roles.items():
        replicas[role] = {
            "replicas": count,
            "template": {"spec": {"containers": [{**container, "command": command}]}},
            **({"restartPolicy": restart} if restart else {}),
        }
    body = {**of.manifest, "kind": kind, "spec": {OPERATED[kind].field: replicas, **spec}}
    return replace(of, manifest=body, primary_container=OPERATED[kind].container)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script.replace("$", "$$")]


def python(script: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(script).replace("$", "$$")]


def attempt(runner: LocalRunner) -> Attempt:
    return Attempt(runner.log_path(ref()).parent)


def log(runner: LocalRunner, name: str) -> str:
    return attempt(runner).replicas[name].log.read_text()


async def ended(runner: LocalRunner, number: int = 0) -> AttemptEnd:
    return await asyncio.wait_for(runner.wait(ref(number)), 30)


async def run(runner: LocalRunner, of: Launch) -> AttemptEnd:
    await runner.create(of)
    return await ended(runner)


# ------------------------------------------------------------------------------------- they find one another

CONNECT = """
import json, os, socket, time

def server(port):
    return socket.create_server(("127.0.0.1", int(port)))

def connect(host, port):
    for _ in range(500):
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise SystemExit("nobody listens")
"""

ALL_REDUCE = (
    CONNECT
    + """
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
value = float(rank + 1)
if rank == 0:
    peers, total = [], value
    with server(os.environ["MASTER_PORT"]) as listening:
        for _ in range(world - 1):
            peer, _ = listening.accept()
            stream = peer.makefile("rw")
            total += float(stream.readline())
            peers.append(stream)
    for stream in peers:
        print(total, file=stream, flush=True)
else:
    stream = connect(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]).makefile("rw")
    print(value, file=stream, flush=True)
    total = float(stream.readline())
print(f"rank={rank} sum={total}")
"""
)


async def test_three_processes_of_a_pytorchjob_reduce_over_the_masters_address(runner: LocalRunner) -> None:
    of = distributed("PyTorchJob", {"Master": (1, python(ALL_REDUCE)), "Worker": (2, python(ALL_REDUCE))})
    end = await run(runner, of)
    assert end.state is AttemptState.SUCCEEDED, end
    assert runner.log_path(ref()).read_text() == "rank=0 sum=6.0\n"


async def test_an_xgboostjob_tracks_its_workers(runner: LocalRunner) -> None:
    # The tracker waits for every worker to say its rank, as rabit's does.
    tracker = (
        CONNECT
        + """
ranks = []
with server(os.environ["MASTER_PORT"]) as listening:
    while len(ranks) < int(os.environ["WORLD_SIZE"]) - 1:
        peer, _ = listening.accept()
        ranks.append(int(peer.makefile().readline()))
print("ranks", sorted(ranks))
"""
    )
    worker = (
        CONNECT
        + """
with connect(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) as peer:
    peer.sendall(os.environ["RANK"].encode() + b"\\n")
"""
    )
    of = distributed("XGBoostJob", {"Master": (1, python(tracker)), "Worker": (2, python(worker))})
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "ranks [1, 2]\n"


async def test_every_replica_of_a_tfjob_serves_on_its_own_address_of_tf_config(runner: LocalRunner) -> None:
    script = (
        CONNECT
        + """
config = json.loads(os.environ["TF_CONFIG"])
role, index = config["task"]["type"], config["task"]["index"]
mine = config["cluster"][role][index]
listening = server(mine.rpartition(":")[2])
everybody = [endpoint for endpoints in config["cluster"].values() for endpoint in endpoints]
for endpoint in everybody:
    connect(*endpoint.split(":"))
for _ in everybody:
    listening.accept()
print(role, index, "of", len(everybody))
"""
    )
    of = distributed(
        "TFJob", {"PS": (1, python(script)), "Worker": (2, python(script))}, spec={"successPolicy": "AllWorkers"}
    )
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "worker 0 of 3\n"
    assert log(runner, "worker-1") == "worker 1 of 3\n"


async def test_the_processes_of_a_jaxjob_meet_at_the_coordinator(runner: LocalRunner) -> None:
    script = (
        CONNECT
        + """
me, count = int(os.environ["PROCESS_ID"]), int(os.environ["NUM_PROCESSES"])
if me == 0:
    with server(os.environ["COORDINATOR_PORT"]) as listening:
        seen = sorted(listening.accept()[0].recv(9).decode() for _ in range(count - 1))
    print("met", seen)
else:
    connect(os.environ["COORDINATOR_ADDRESS"], os.environ["COORDINATOR_PORT"]).sendall(str(me).encode())
"""
    )
    assert (await run(runner, distributed("JAXJob", {"Worker": (3, python(script))}))).state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "met ['1', '2']\n"


async def test_the_first_worker_of_a_paddlejob_is_told_its_own_address(runner: LocalRunner) -> None:
    of = distributed("PaddleJob", {"Worker": (2, shell("echo $PADDLE_MASTER $PADDLE_NNODES"))})
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    first, second = runner.log_path(ref()).read_text(), log(runner, "worker-1")
    assert first == second
    host, _, rest = first.partition(":")
    assert host == "127.0.0.1"
    assert rest.split()[1] == "2"


async def test_one_elastic_worker_that_succeeds_is_enough(runner: LocalRunner) -> None:
    script = "echo $PET_RDZV_ENDPOINT $PET_NNODES; case $HOSTED in *-worker-1) exit 0;; esac; exec sleep 600"
    of = distributed(
        "PyTorchJob",
        {"Worker": (2, shell(script))},
        spec={"elasticPolicy": {"minReplicas": 1, "maxReplicas": 2}},
        container={"env": [{"name": "HOSTED", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
    )
    end = await run(runner, of)
    assert (end.state, end.exit_code) == (AttemptState.SUCCEEDED, 0)
    ((endpoint, nodes),) = {tuple(log(runner, name).split()) for name in ("worker-0", "worker-1")}
    assert endpoint.startswith("127.0.0.1:")
    assert nodes == "1:2"


async def test_all_indexes_of_an_indexed_job_run_at_once(runner: LocalRunner) -> None:
    script = (
        CONNECT
        + """
me = int(os.environ["JOB_COMPLETION_INDEX"])
print("index", me)
"""
    )
    of = launch(
        *python(script), job={"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0}
    )
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "index 0\n"
    assert log(runner, "index-1") == "index 1\n"


async def test_commands_may_use_the_operators_variables(runner: LocalRunner) -> None:
    command = ["/bin/echo", "$(MASTER_ADDR)", "$(RANK)", "$$(RANK)", "$(NOTHING)"]
    assert (await run(runner, distributed("PyTorchJob", {"Master": (1, command)}))).state is AttemptState.SUCCEEDED
    assert runner.log_path(ref()).read_text() == "127.0.0.1 0 $(RANK) $(NOTHING)\n"


# --------------------------------------------------------------------------------- each has what is its own


async def test_parallel_trials_never_share_a_port_and_a_restarted_worker_finds_the_same(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path / "trials", replica_grace_s=1.0)
    jobs = [distributed("TFJob", {"Worker": (3, shell("exec sleep 600"))}, number=number) for number in range(8)]
    await asyncio.gather(*(runner.create(of) for of in jobs))

    def ports(number: int) -> list[int]:
        plan = Attempt(runner.log_path(ref(number)).parent).plan()
        return [replica["port"] for replica in plan["replicas"]]

    first = [ports(number) for number in range(8)]
    assert len({port for own in first for port in own}) == 24
    for port in first[0]:
        with socket.create_server(("127.0.0.1", port)):
            pass  # nobody else had it
    runner.close()
    again = LocalRunner(tmp_path / "trials", replica_grace_s=1.0)
    await asyncio.gather(*(again.create(of) for of in jobs))
    assert [ports(number) for number in range(8)] == first
    await asyncio.gather(*(again.stop(ref(number), reason="over") for number in range(8)))
    again.close()


async def test_only_the_primary_speaks_for_the_trial(runner: LocalRunner) -> None:
    script = 'echo $RANK >>"$EVERTUNE_REPORT_FILE"; echo $RANK >/katib/x; echo "<$EVERTUNE_TOKEN>"; cat /katib/x'
    roles = {"Master": (1, shell(f"{script}; sleep 0.3")), "Worker": (1, shell(script))}
    of = distributed("PyTorchJob", roles, shared_paths=("/katib",), token="secret")
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    sources = runner.sources(of, "/katib/x")
    assert sources.reports is not None
    assert sources.path is not None
    assert (sources.reports.read_text(), sources.path.read_text()) == ("0\n", "0\n")
    assert (sources.log.read_text(), log(runner, "worker-0")) == ("<secret>\n0\n", "<>\n1\n")
    plans = [replica.plan() for replica in attempt(runner).replicas.values()]
    assert "secret" not in json.dumps(plans)


async def test_devices_are_shared_out_among_the_replicas(tmp_path: Path) -> None:
    worker = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1,2"}
    runner = LocalRunner(tmp_path / "trials", environment=worker, replica_grace_s=1.0)
    limits = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    script = shell("echo $CUDA_VISIBLE_DEVICES")
    of = distributed("JAXJob", {"Worker": (3, script)}, container=limits)
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    assert sorted(log(runner, f"worker-{number}") for number in range(3)) == ["0\n", "1\n", "2\n"]
    with pytest.raises(LaunchError, match=r"asks for 4 nvidia\.com/gpu, this machine has 3"):
        await runner.create(distributed("JAXJob", {"Worker": (4, script)}, container=limits, number=1))
    runner.close()


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


async def test_who_ignores_the_end_of_the_job_is_killed(runner: LocalRunner) -> None:
    stubborn = shell('trap "" TERM; echo ready; while :; do sleep 0.05; done')
    roles = {"Chief": (1, shell("sleep 0.5")), "PS": (1, stubborn)}
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
    assert not [name for name, child in children.items() if child and running(child.pid)]


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
