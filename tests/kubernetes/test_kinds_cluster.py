"""Experiments whose trials are of kinds that no operator works on here: the test is the operator.

It ends each object by the conditions of its kind, and lets a pod print the objective: one with the labels that the
kind's own controller would give to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import CONFIG_MAP, JOB, POD, Resource
from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.protocols import JsonDict
from tests.kubernetes.kinds import SPECS, experiment_of, served
from tests.kubernetes.real import IMAGE, Namespace, a_namespace, experiment, nothing_left
from tests.kubernetes.stack import a_real_house
from tests.workflow.harness import House, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]

TRUE, DONE = {"status": "True"}, {"lastTransitionTime": "2026-01-01T00:00:00Z"}
# What the operator of a kind writes into the status of an object that has succeeded, and of one that has failed.
ENDS: dict[str, tuple[JsonDict, JsonDict]] = {
    "TrainJob": (
        {"conditions": [{"type": "Complete", "reason": "JobsCompleted", "message": "", **TRUE, **DONE}]},
        {"conditions": [{"type": "Failed", "reason": "FailedJobs", "message": "a node failed", **TRUE, **DONE}]},
    ),
    "Workflow": ({"phase": "Succeeded"}, {"phase": "Error", "message": "no such template"}),
    "PipelineRun": (
        {"conditions": [{"type": "Succeeded", "reason": "Completed", **TRUE}]},
        {"conditions": [{"type": "Succeeded", "reason": "Failed", "message": "Tasks failed", "status": "False"}]},
    ),
    "Course": ({"stage": "Passed"}, {"stage": "Expelled"}),
}


@pytest.fixture
def namespace(full_cluster: Path) -> Iterator[Namespace]:
    with a_namespace(full_cluster) as made:
        yield made


@pytest.fixture
async def house(temporal_address: str, full_cluster: Path, tmp_path: Path) -> AsyncIterator[House]:
    async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
        yield house


@pytest.fixture
async def api(full_cluster: Path) -> AsyncIterator[Api]:
    made = await Api.connect(kubeconfig=str(full_cluster))
    yield made
    await made.close()


def pod_of(obj: JsonDict) -> JsonDict:
    """As the kind's controller makes it, as far as labels and the container's name go."""
    name, kind = obj["metadata"]["name"], obj["kind"]
    spec = obj["spec"]
    if kind == "TrainJob":
        own = {
            "jobset.sigs.k8s.io/jobset-name": name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": "0",
        }
        container = {"name": "node", **{key: spec["trainer"][key] for key in ("command", "env")}}
    elif kind == "Workflow":
        own = {**spec["podMetadata"]["labels"], "workflows.argoproj.io/workflow": name}
        container = spec["templates"][0]["container"]
    elif kind == "PipelineRun":  # Tekton hands the labels of a run on
        own = {**obj["metadata"]["labels"], "tekton.dev/pipelineRun": name}
        (task,) = spec["pipelineSpec"]["tasks"]
        container = {"name": "step-main", "command": ["echo", f"objective={task['params'][0]['value']}"]}
    else:
        template = spec["lessons"][0]["template"]
        own, container = template["metadata"]["labels"], template["spec"]["containers"][0]
    container = {"image": IMAGE, "imagePullPolicy": "IfNotPresent", **container}
    owner = {"apiVersion": obj["apiVersion"], "kind": kind, "name": name, "uid": obj["metadata"]["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-pod", "labels": own, "ownerReferences": [owner]},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }


async def operate(api: Api, kind: Resource, namespace: str, fails: int) -> None:
    """For ever: a pod for each object, and its end when the pod has ended. The first `fails` objects fail."""
    seen: dict[str, bool] = {}
    while True:
        for obj in (await api.call("GET", kind.path(namespace)))["items"]:
            name = obj["metadata"]["name"]
            if name not in seen:
                seen[name] = len(seen) < fails
                await api.call("POST", POD.path(namespace), body=pod_of({**obj, "kind": kind.kind}))
            if "status" not in obj and await ended(api, namespace, f"{name}-pod"):
                status = ENDS[kind.kind][seen[name]]
                await api.call(
                    "PATCH",
                    kind.path(namespace, name, "status"),
                    body={"status": status},
                    content_type="application/merge-patch+json",
                )
        await asyncio.sleep(0.3)


async def ended(api: Api, namespace: str, name: str) -> bool:
    try:
        found = await api.call("GET", POD.path(namespace, name))
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return (found.get("status") or {}).get("phase") in ("Succeeded", "Failed")


async def submitted(house: House, document: JsonDict, timeout_s: float = 120) -> ExperimentRecord:
    handle = await house.client.submit(document, context=StartContext(backend="kubernetes"))
    return await house.ended(handle, timeout_s)


@pytest.mark.parametrize("case", ENDS)
async def test_an_object_of_any_kind_ends_by_its_conditions_and_its_log_is_read(
    house: House, api: Api, namespace: Namespace, case: str
) -> None:
    document = experiment_of(case, namespace.name, maxTrialCount=3, maxFailedTrialCount=2)
    async with served(api, SPECS[case]["apiVersion"], case) as kind:
        operator = asyncio.create_task(operate(api, kind, namespace.name, fails=1))
        try:
            record = await submitted(house, document)
            await asyncio.to_thread(nothing_left, namespace, record.uid, timeout_s=60)
            await until(lambda: not operator.done(), what="the operator works")
        finally:
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)

    trials = house.store.trials(record.uid)
    assert record.state is ExperimentState.SUCCEEDED, record.message
    assert sorted(trial.state for trial in trials) == sorted([TrialState.FAILED, *[TrialState.SUCCEEDED] * 2])
    for trial in trials:
        if trial.state is TrialState.SUCCEEDED:
            assert trial.objective_value == trial.parameters["x"]


async def test_a_template_of_a_configmap_is_read_and_what_a_trial_knows_of_itself_is_filled_in(
    house: House, api: Api, namespace: Namespace
) -> None:
    told = {"name": "told", "reference": "${trialSpec.Name}"}
    kind = {"name": "kind", "reference": "${trialSpec.Kind}"}
    program = '[ "${trialParameters.told} ${trialParameters.kind}" = "$EVERTUNE_TRIAL Job" ] && echo objective=$X'
    document = experiment("templates", namespace.name, program)
    template = document["spec"]["trialTemplate"]
    template["trialParameters"] += [told, kind]
    job = template.pop("trialSpec")
    template |= {
        "configMap": {"configMapNamespace": namespace.name, "configMapName": "t", "templatePath": "job.json"},
        "successCondition": 'status.conditions.#(type=="Complete")#|#(status=="True")#',
        "failureCondition": 'status.conditions.#(type=="Failed")#|#(status=="True")#',
    }
    await api.call(
        "POST", CONFIG_MAP.path(namespace.name), body={"metadata": {"name": "t"}, "data": {"job.json": json.dumps(job)}}
    )

    record = await submitted(house, document)

    assert record.state is ExperimentState.SUCCEEDED, record.message
    for trial in house.store.trials(record.uid):
        assert trial.objective_value == trial.parameters["x"]


async def test_retained_objects_stay_and_those_with_a_time_to_live_go_by_themselves(
    house: House, api: Api, namespace: Namespace
) -> None:
    document = experiment("retained", namespace.name, "echo objective=$X")
    document["spec"]["trialTemplate"]["retain"] = True
    document["spec"]["trialTemplate"]["trialSpec"]["spec"]["ttlSecondsAfterFinished"] = 15

    record = await submitted(house, document)

    assert record.state is ExperimentState.SUCCEEDED, record.message
    assert len(await jobs(api, namespace)) == 2, "they are retained"
    await asyncio.to_thread(nothing_left, namespace, record.uid, timeout_s=60)


async def test_a_suspended_job_waits_until_somebody_resumes_it(house: House, api: Api, namespace: Namespace) -> None:
    document = experiment("suspended", namespace.name, "echo objective=$X")
    document["spec"]["trialTemplate"]["trialSpec"]["spec"]["suspend"] = True
    handle = await house.client.submit(document, context=StartContext(backend="kubernetes"))

    async def made() -> bool:
        return len(await jobs(api, namespace)) == 2

    await until(made, what="both Jobs")
    merge: Any = {"content_type": "application/merge-patch+json", "body": {"spec": {"suspend": False}}}
    for job in await jobs(api, namespace):
        assert not (job.get("status") or {}).get("active")
        await api.call("PATCH", JOB.path(namespace.name, job["metadata"]["name"]), **merge)
    record = await house.ended(handle, 120)

    assert record.state is ExperimentState.SUCCEEDED, record.message


async def jobs(api: Api, namespace: Namespace) -> list[JsonDict]:
    listed = await api.call("GET", JOB.path(namespace.name), query={"labelSelector": labels.SELECTOR})
    return list(listed["items"])
