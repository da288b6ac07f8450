"""Distributed jobs as local processes: the replicas find one another, and each has what is its own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.ports import unused
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptEnd
from evertune.errors import LaunchError
from evertune.protocols import Launch
from tests.unit.runners.world import distributed, launch, mentioning, python, ref, shell, until


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials", replica_grace_s=1.0)
    yield runner
    runner.close()
    await until(lambda: mentioning(str(tmp_path)) == [])  # nothing stays behind


def attempt(runner: LocalRunner) -> Attempt:
    return Attempt(runner.log_path(ref()).parent)


def log(runner: LocalRunner, name: str) -> str:
    return attempt(runner).replicas[name].log.read_text()


async def ended(runner: LocalRunner, number: int = 0) -> AttemptEnd:
    return await asyncio.wait_for(runner.wait(ref(number)), 60)


async def run(runner: LocalRunner, of: Launch) -> AttemptEnd:
    await runner.create(of)
    return await ended(runner)


# ------------------------------------------------------------------------------------- they find one another

CONNECT = """
import json, os, socket, time

def server(port):
    return socket.create_server(("127.0.0.1", int(port)))

def connect(host, port):
    for _ in range(1500):
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
        await until(lambda port=port: unused(port))  # type: ignore[misc]  # others may try it, nobody has it
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
