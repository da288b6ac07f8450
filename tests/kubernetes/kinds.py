"""An experiment for every kind that trials may be, and kinds that a cluster does not serve, while a test runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import Resource, resource
from evertune.errors import LaunchError
from evertune.protocols import JsonDict
from evertune.spec.kinds import KINDS
from tests.kubernetes.real import experiment

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
IMAGE = "python:3.11-slim"
PROGRAM = "echo objective=$X"
RAY_LIKE = "example.evertune.io/v1"  # a kind that nobody knows, with conditions of its own


def container(name: str) -> JsonDict:
    return {
        "name": name,
        "image": IMAGE,
        "command": ["/bin/sh", "-c", PROGRAM],
        "env": [{"name": "X", "value": "${trialParameters.x}"}],
    }


def training(kind: str, field: str, main: str, *roles: str, version: str = "v1") -> JsonDict:
    replica = {"replicas": 1, "template": {"spec": {"containers": [container(main)]}}}
    return {"apiVersion": f"kubeflow.org/{version}", "kind": kind, "spec": {field: dict.fromkeys(roles, replica)}}


# Trial specs, as the users of each kind write them.
SPECS: dict[str, JsonDict] = {
    "Job": {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container("main")]}}},
    },
    "TFJob": training("TFJob", "tfReplicaSpecs", "tensorflow", "Chief", "PS", "Worker", "Evaluator"),
    "PyTorchJob": training("PyTorchJob", "pytorchReplicaSpecs", "pytorch", "Master", "Worker"),
    "XGBoostJob": training("XGBoostJob", "xgbReplicaSpecs", "xgboost", "Master", "Worker"),
    "MPIJob": training("MPIJob", "mpiReplicaSpecs", "mpi", "Launcher", "Worker"),
    "MPIJob v2beta1": training("MPIJob", "mpiReplicaSpecs", "mpi", "Launcher", "Worker", version="v2beta1"),
    "JAXJob": training("JAXJob", "jaxReplicaSpecs", "jax", "Worker"),
    "PaddleJob": training("PaddleJob", "paddleReplicaSpecs", "paddle", "Master", "Worker"),
    "TrainJob": {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {key: value for key, value in container("node").items() if key != "name"},
        },
    },
    "Workflow": {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "spec": {"entrypoint": "train", "templates": [{"name": "train", "container": container("main")}]},
    },
    "PipelineRun": {
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "spec": {
            "pipelineSpec": {
                "tasks": [
                    {
                        "name": "train",
                        "taskSpec": {"steps": [{"name": "main", "image": IMAGE, "script": "echo objective=1"}]},
                        "params": [{"name": "x", "value": "${trialParameters.x}"}],
                    }
                ]
            }
        },
    },
    "Course": {
        "apiVersion": RAY_LIKE,
        "kind": "Course",
        "spec": {
            "lessons": [
                {
                    "x": "${trialParameters.x}",
                    "template": {
                        "metadata": {"labels": {"app": "lesson"}},
                        "spec": {"containers": [container("main")]},
                    },
                }
            ]
        },
    },
}
CONTAINERS = {"Job": "main", "PipelineRun": "step-main", "Course": "main"}  # others have a usual one
CONDITIONS = {  # of a kind that nobody knows
    "Course": ('status.[@this].#(stage=="Passed")#', 'status.[@this].#(stage=="Expelled")#'),
}


def experiment_of(case: str, namespace: str, name: str = "kinds", **spec: Any) -> JsonDict:
    """With a StdOut collector, and what its kind needs to be said."""
    manifest = SPECS[case]
    kind = manifest["kind"]
    known = KINDS.get(kind)
    template: JsonDict = {
        "primaryContainerName": CONTAINERS.get(kind) or (known and known.container),
        "trialParameters": [{"name": "x", "reference": "x"}],
        "trialSpec": manifest,
    }
    success, failure = (
        CONDITIONS.get(kind) or (known and (known.success_condition, known.failure_condition)) or ("", "")
    )
    template |= {"successCondition": success, "failureCondition": failure}
    return experiment(name, namespace, PROGRAM, trialTemplate=template, **spec)


def definition(api_version: str, kind: str) -> JsonDict:
    """Of a kind that takes everything, with a status of its own."""
    group, _, version = api_version.partition("/")
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
            ],
        },
    }


@asynccontextmanager
async def served(api: Api, api_version: str, kind: str) -> AsyncIterator[Resource]:
    """The kind, whose definition is made for the while where the cluster has none."""
    made = None
    try:
        found = await resource(api, api_version, kind)
    except LaunchError:
        wanted = definition(api_version, kind)
        try:
            made = (await api.call("POST", DEFINITIONS, body=wanted))["metadata"]["name"]
        except ApiError as error:
            if error.status != 409:
                raise
            pytest.skip(f"the cluster has another version of {wanted['metadata']['name']}, and {api_version} not")
        found = await _established(api, api_version, kind)
    try:
        yield found
    finally:
        if made is not None:
            await api.call("DELETE", f"{DEFINITIONS}/{made}", patience_s=10)
            await _gone(api, f"{DEFINITIONS}/{made}")


async def _established(api: Api, api_version: str, kind: str) -> Resource:
    end = asyncio.get_running_loop().time() + 60
    while True:
        try:
            found = await resource(api, api_version, kind)
            await api.call("GET", found.path("default"))  # discovery is ahead of what is served
            return found
        except (LaunchError, ApiError):
            assert asyncio.get_running_loop().time() < end, f"{kind} is not served"
            await asyncio.sleep(0.2)


async def _gone(api: Api, path: str) -> None:
    end = asyncio.get_running_loop().time() + 60
    while asyncio.get_running_loop().time() < end:
        try:
            await api.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{path} does not go away")
