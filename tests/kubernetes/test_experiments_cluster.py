"""What failures of a real cluster's pods do to an experiment: forgiven, fatal at once, shown, or met with more memory.

The experiments run beside each other, in one home with a worker and the real gateway, each in a namespace of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from evertune.client import ExperimentHandle
from evertune.contracts import StartContext
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from tests.kubernetes.real import Manifest, Namespace, a_namespace, experiment, nothing_left
from tests.kubernetes.stack import a_real_house
from tests.repository.checkout import ROOT
from tests.workflow.harness import House, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

Case = Callable[[House, Namespace], Awaitable[None]]
CASES: dict[str, tuple[Case, dict[str, str]]] = {}
SEEN_WITHIN_S = 5.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def at_once(**labels: str) -> Callable[[Case], Case]:
    """In a namespace with these labels."""

    def register(case: Case) -> Case:
        CASES[case.__name__] = case, labels
        return case

    return register


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def begun(
    temporal_address: str, full_cluster: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    async with a_real_house(temporal_address, tmp_path_factory.mktemp("house"), full_cluster) as (house, _):
        tasks = {
            name: asyncio.ensure_future(in_a_namespace(case, house, full_cluster, labels))
            for name, (case, labels) in CASES.items()
        }
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def in_a_namespace(case: Case, house: House, kubeconfig: Path, labels: dict[str, str]) -> None:
    with a_namespace(kubeconfig, **labels) as namespace:
        await case(house, namespace)
        await asyncio.to_thread(nothing_left, namespace)


async def submit(house: House, document: Manifest) -> ExperimentHandle:
    return await house.client.submit(document, context=StartContext(backend="kubernetes"))


async def pods(namespace: Namespace) -> dict[int, Manifest]:
    """The newest of each trial."""
    found = sorted(
        await asyncio.to_thread(namespace.objects, "pods"), key=lambda pod: str(pod["metadata"]["creationTimestamp"])
    )
    return {int(pod["metadata"]["labels"]["evertune.io/trial"]): pod for pod in found}


@at_once()
async def faults_of_the_cluster_are_forgiven(house: House, namespace: Namespace) -> None:
    spec = {"maxTrialCount": 3, "parallelTrialCount": 3, "maxFailedTrialCount": 0}
    # The first pods run until something happens to them, those after them end: a ConfigMap appears between.
    reference = {"name": "told", "key": "ends", "optional": True}
    env = [
        {"name": "X", "value": "${trialParameters.x}"},
        {"name": "ENDS", "valueFrom": {"configMapKeyRef": reference}},
    ]
    program = 'echo objective=$X; [ "$ENDS" = 1 ] || exec sleep 600'
    document = experiment("faults", namespace.name, program, pod={"container": {"env": env}}, **spec)
    handle = await submit(house, document)

    async def all_run() -> bool:
        return [pod["status"]["phase"] for pod in (await pods(namespace)).values()] == ["Running"] * 3

    await until(all_run, timeout_s=60, what="three pods run")
    first = {number: pod["metadata"]["name"] for number, pod in (await pods(namespace)).items()}
    owner = (await pods(namespace))[0]["metadata"]["ownerReferences"][0]["name"]
    configmaps = f"/api/v1/namespaces/{namespace.name}/configmaps"
    told = {"metadata": {"name": "told"}, "data": {"ends": "1"}}
    await asyncio.to_thread(namespace.call, "POST", configmaps, told)
    jobs, core = f"/apis/batch/v1/namespaces/{namespace.name}/jobs", f"/api/v1/namespaces/{namespace.name}/pods"
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": first[2], "namespace": namespace.name},
    }
    await asyncio.gather(
        asyncio.to_thread(namespace.call, "DELETE", f"{jobs}/{owner}", {"propagationPolicy": "Background"}),
        asyncio.to_thread(namespace.call, "DELETE", f"{core}/{first[1]}"),
        asyncio.to_thread(namespace.call, "POST", f"{core}/{first[2]}/eviction", eviction),
    )
    record = await house.ended(handle, timeout_s=120)
    assert (record.state, record.counts.succeeded, record.counts.charged) == (ExperimentState.SUCCEEDED, 3, 0)
    for trial in house.store.trials(record.uid):
        assert (trial.state, trial.objective_value) == (TrialState.SUCCEEDED, trial.parameters["x"])
    reasons = []
    for number in range(3):
        *before, last = house.store.attempts(record.uid, number)
        assert last.state is AttemptState.SUCCEEDED
        assert all(
            (one.failure, one.charged, one.again) == (FailureClass.INFRASTRUCTURE, False, True) for one in before
        )
        reasons.append([one.reason for one in before])
    assert reasons == [["DeletedByAnother"], ["PodDeleted"], []]  # an evicted pod is replaced within its attempt


@at_once(**RESTRICTED)
async def what_admission_refuses_stops_the_experiment_with_the_api_servers_sentence(
    house: House, namespace: Namespace
) -> None:
    pod = {"container": {"securityContext": {"privileged": True}}}
    spec = {"maxTrialCount": 20, "parallelTrialCount": 2, "maxFailedTrialCount": 20}
    handle = await submit(house, experiment("refused", namespace.name, "echo objective=$X", pod=pod, **spec))
    record = await house.ended(handle, timeout_s=120)
    assert record.state is ExperimentState.FAILED
    assert 'violates PodSecurity "restricted:latest": privileged (container "trial"' in record.message, record
    assert record.counts.created < 8


def evertune(house: House, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(house.workdir), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "evertune.cli", *words],
        env={**environment, **house.settings.environment()},
        cwd=house.workdir,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).split())


async def told_to_temporal(house: House, workflow_id: str) -> list[str]:
    """What the activities said with their last heartbeats."""
    description = await house.temporal.get_workflow_handle(workflow_id).describe()
    return [
        json.loads(payload.data)
        for waiting in description.raw_description.pending_activities
        for payload in waiting.heartbeat_details.payloads
    ]


@at_once()
async def what_a_pod_waits_for_is_seen_everywhere(house: House, namespace: Namespace) -> None:
    pod = {"container": {"resources": {"requests": {"cpu": "1000"}}}}
    spec = {"maxTrialCount": 1, "parallelTrialCount": 1}
    handle = await submit(house, experiment("waits", namespace.name, "echo objective=$X", pod=pod, **spec))

    async def unscheduled() -> bool:
        return any("conditions" in one["status"] for one in (await pods(namespace)).values())

    await until(unscheduled, timeout_s=60, what="the scheduler has looked at it")
    record = house.store.experiment(namespace.name, "waits")
    sentence = re.compile(r"Pending: 0/\d+ nodes are available: .*Insufficient cpu")

    async def in_the_store() -> bool:
        return any(sentence.match(one.phase) for one in house.store.attempts(record.uid, 0))

    async def in_temporal() -> bool:
        return any(sentence.match(text) for text in await told_to_temporal(house, record.workflow_id))

    await asyncio.gather(
        until(in_the_store, timeout_s=SEEN_WITHIN_S, what="the phase is stored"),
        until(in_temporal, timeout_s=SEEN_WITHIN_S, what="a heartbeat tells the phase"),
    )
    views = [["get", "waits"], ["trials", "waits"], ["watch", "waits", "--timeout", "6"]]
    for words in views:
        shown = await asyncio.to_thread(evertune, house, *words, "--namespace", namespace.name)
        assert re.search(r"0/\d+ nodes are available", shown), (words, shown)
    await handle.cancel(actor="test")
    assert (await house.ended(handle, timeout_s=60)).state is ExperimentState.CANCELLED


@at_once()
async def a_trial_that_needs_more_memory_gets_it_uncharged(house: House, namespace: Namespace) -> None:
    program = 'exec python3 -c \'import os; held = b"x" * (50 << 20); print("objective=" + os.environ["X"])\''
    resources = {"requests": {"cpu": "5m", "memory": "48Mi"}, "limits": {"memory": "48Mi"}}
    spec = {
        "maxTrialCount": 1,
        "parallelTrialCount": 1,
        "maxFailedTrialCount": 0,
        "failurePolicy": {"onOOM": {"memory": "x1.5", "max": "256Mi"}},
    }
    pod = {"container": {"resources": resources}}
    handle = await submit(house, experiment("memory", namespace.name, program, pod=pod, **spec))
    limits: dict[str, str] = {}

    async def ended() -> bool:
        for one in await asyncio.to_thread(namespace.objects, "pods"):
            attempt = one["metadata"]["labels"]["evertune.io/attempt"]
            limits[attempt] = one["spec"]["containers"][0]["resources"]["limits"]["memory"]
        return house.store.experiment(namespace.name, "memory").state.terminal

    await until(ended, timeout_s=120, what="the experiment ends")
    record = await house.ended(handle)
    assert (record.state, record.counts.charged) == (ExperimentState.SUCCEEDED, 0)
    *before, last = house.store.attempts(record.uid, 0)
    assert last.state is AttemptState.SUCCEEDED
    assert before
    for one in before:
        assert (one.failure, one.charged, one.again) == (FailureClass.OUT_OF_MEMORY, False, True)
        assert f"memory limit of {limits[str(one.attempt)]}" in one.reason
    assert limits["0"] == "48Mi"
    assert limits["1"] == "72Mi"


@pytest.mark.parametrize("case", CASES)
async def test_on_a_real_cluster(begun: dict[str, asyncio.Task[None]], case: str) -> None:
    await begun[case]
