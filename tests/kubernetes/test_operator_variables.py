"""The pods that the real controllers make, compared variable by variable with what the local runner gives to processes,
and the conditions that the real operator sets, with how the local runner judges.

Needs an API server with the Training Operator v1.9.0 and no node: the tests play the kubelet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest
from kubernetes.client.exceptions import ApiException

from activities.runners.local.operator_env import InCluster, labels, pod_variables, with_variables
from activities.runners.local.outcome import ExitRecord, Why
from activities.runners.local.replicas import replicas_of
from activities.runners.local.shape import OPERATED, Shape, shape_of
from activities.runners.local.verdict import Ended, Outcome, Rules, decide

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
PATIENCE_S = 60.0
IMAGE = "localhost/busybox:dev"


@pytest.fixture(scope="module")
def api(api_cluster: Path) -> Iterator[kubernetes.client.ApiClient]:
    client = kubernetes.config.new_client_from_config(str(api_cluster))  # type: ignore[no-untyped-call]
    yield client
    client.close()


@pytest.fixture
def namespace(api: kubernetes.client.ApiClient) -> Iterator[str]:
    made = call(api, "POST", "/api/v1/namespaces", {"metadata": {"generateName": "evertune-test-"}})
    name: str = made["metadata"]["name"]
    yield name
    call(api, "DELETE", f"/api/v1/namespaces/{name}")


def call(api: kubernetes.client.ApiClient, method: str, path: str, body: Any = None, query: Any = ()) -> Manifest:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    request = api.param_serialize(
        method,
        path,
        query_params=list(query),
        header_params={"Content-Type": kind, "Accept": "application/json"},
        body=body,
        auth_settings=["BearerToken"],
    )
    answer = api.call_api(*request)
    text: bytes = answer.read()  # type: ignore[no-untyped-call]
    if not 200 <= answer.status < 300:
        raise ApiException(status=answer.status, reason=text.decode(errors="replace"))
    found: Manifest = json.loads(text)
    return found


def until(condition: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > give_up:
            pytest.fail(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.1)
    return found


def replica(kind: str, count: int, **rest: Any) -> Manifest:
    containers = [
        {"name": "beside", "image": IMAGE},
        {"name": OPERATED[kind].container, "image": IMAGE, "env": [{"name": "MINE", "value": "1"}]},
    ]
    return {"replicas": count, "template": {"spec": {"containers": containers}}, **rest}


def job(kind: str, roles: Mapping[str, int], restart: str | None = None, **spec: Any) -> Manifest:
    policy = {"restartPolicy": restart} if restart else {}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": "j"},
        "spec": {OPERATED[kind].field: {role: replica(kind, n, **policy) for role, n in roles.items()}, **spec},
    }


def indexed(*variables: Manifest) -> Manifest:
    container = {"name": "main", "image": IMAGE, "env": list(variables)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j"},
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def with_port(body: Manifest, role: str, port: int) -> Manifest:
    operator = OPERATED[body["kind"]]
    container = body["spec"][operator.field][role]["template"]["spec"]["containers"][1]
    container["ports"] = [{"name": operator.port_name, "containerPort": port}]
    return body


ELASTIC = {
    "minReplicas": 1,
    "maxReplicas": 3,
    "maxRestarts": 5,
    "nProcPerNode": 2,
    "rdzvId": "run",
    "rdzvBackend": "c10d",
    "rdzvHost": "j-worker-0",
    "rdzvPort": 29400,
    "rdzvConf": [{"key": "timeout", "value": "9"}, {"key": "x", "value": "y"}],
    "standalone": True,
}

CASES = {
    "tfjob": job("TFJob", {"Chief": 1, "PS": 2, "Worker": 2, "Evaluator": 1}),
    "tfjob of workers": job("TFJob", {"Worker": 2}),
    "tfjob of one": job("TFJob", {"Worker": 1}),
    "tfjob on another port": with_port(job("TFJob", {"PS": 1, "Worker": 1}), "PS", 3333),
    "tfjob with dynamic workers": job("TFJob", {"PS": 1, "Worker": 2, "Chief": 1}, enableDynamicWorker=True),
    "tfjob with dynamic workers only": job("TFJob", {"Worker": 2}, enableDynamicWorker=True),
    "pytorchjob": job("PyTorchJob", {"Master": 1, "Worker": 2}),
    "pytorchjob of one": job("PyTorchJob", {"Master": 1}),
    "pytorchjob of workers": job("PyTorchJob", {"Worker": 2}),
    "pytorchjob with processes": job("PyTorchJob", {"Master": 1, "Worker": 1}, nprocPerNode="2"),
    "pytorchjob on another port": with_port(job("PyTorchJob", {"Master": 1, "Worker": 1}), "Master", 29500),
    "elastic": job("PyTorchJob", {"Worker": 2}, elasticPolicy=ELASTIC),
    "elastic by default": job("PyTorchJob", {"Worker": 2}, elasticPolicy={}),
    "elastic with a least": job("PyTorchJob", {"Worker": 2}, elasticPolicy={"minReplicas": 1}),
    "elastic with a master": job("PyTorchJob", {"Master": 1, "Worker": 2}, elasticPolicy={"maxReplicas": 4}),
    "xgboostjob": job("XGBoostJob", {"Master": 1, "Worker": 2}),
    "xgboostjob of one": job("XGBoostJob", {"Master": 1}),
    "jaxjob": job("JAXJob", {"Worker": 3}),
    "paddlejob": job("PaddleJob", {"Master": 1, "Worker": 2}),
    "paddlejob of workers": job("PaddleJob", {"Worker": 2}),
    "indexed job": indexed({"name": "MINE", "value": "1"}),
    "indexed job with an index of its own": indexed({"name": "JOB_COMPLETION_INDEX", "value": "mine"}),
}


def plain(entries: list[Manifest] | None) -> list[tuple[str, str]]:
    """The API server leaves out what is empty, and says the version of a field."""
    return [
        (e["name"], f"field {e['valueFrom']['fieldRef']['fieldPath']}" if "valueFrom" in e else e.get("value", ""))
        for e in entries or ()
    ]


class Made:
    """An object and the pods that its controller made of it."""

    def __init__(self, api: kubernetes.client.ApiClient, namespace: str, body: Manifest) -> None:
        self.api, self.namespace = api, namespace
        self.body = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
        self.shape: Shape = shape_of(self.body)
        group = "apis/batch/v1" if body["kind"] == "Job" else "apis/kubeflow.org/v1"
        self.path = f"/{group}/namespaces/{namespace}/{body['kind'].lower()}s"
        try:
            call(api, "POST", self.path, self.body, [("fieldValidation", "Strict")])
        except ApiException as error:
            if error.status == 404:
                pytest.skip(f"the cluster serves no {body['kind']}: it needs the training operator")
            raise

    def pods(self) -> dict[str, Manifest]:
        listed = call(self.api, "GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        suffix = len("-xxxxx") if self.shape.operator is None else 0
        return {pod["metadata"]["name"][: -suffix or None]: pod for pod in listed}

    def all_pods(self) -> dict[str, Manifest]:
        def complete() -> dict[str, Manifest] | None:
            found = self.pods()
            return found if len(found) == self.shape.total else None

        found: dict[str, Manifest] = until(complete, f"{self.shape.total} pods")
        return found

    def end(self, pod: str, status: int) -> None:
        """What a kubelet would say of a pod whose containers have ended."""
        phase = "Failed" if status else "Succeeded"
        state = {"terminated": {"exitCode": status, "reason": "Error" if status else "Completed"}}
        containers = [
            {"name": c["name"], "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0, "state": state}
            for c in self.pods()[pod]["spec"]["containers"]
        ]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status"
        call(self.api, "PATCH", path, {"status": {"phase": phase, "containerStatuses": containers}})

    def run(self) -> None:
        for pod in self.all_pods():
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status"
            call(self.api, "PATCH", path, {"status": {"phase": "Running"}})
        until(lambda: "Running" in self.conditions(), "the operator has seen it run")

    def conditions(self) -> list[str]:
        status = call(self.api, "GET", f"{self.path}/j").get("status") or {}
        return [found["type"] for found in status.get("conditions") or () if found["status"] == "True"]

    def counted(self) -> int:
        """How many replicas the operator knows to have ended."""
        status = call(self.api, "GET", f"{self.path}/j").get("status") or {}
        replicas = (status.get("replicaStatuses") or {}).values()
        return sum(found.get("succeeded", 0) + found.get("failed", 0) for found in replicas)


@pytest.mark.parametrize("case", CASES)
def test_every_container_has_exactly_these_variables(
    api: kubernetes.client.ApiClient, namespace: str, case: str
) -> None:
    made = Made(api, namespace, CASES[case])
    shape, found = made.shape, made.all_pods()
    addresses = InCluster(shape)
    main = shape.operator.container if shape.operator else "main"
    real = {
        name: plain(next(c.get("env") for c in pod["spec"]["containers"] if c["name"] == main))
        for name, pod in found.items()
    }
    assert {pod: plain(entries) for pod, entries in pod_variables(shape, addresses).items()} == real
    for role in shape.roles.values():
        for index in range(role.count):
            pod = found[shape.service(role.name, index)]
            assert labels(shape, role.name, index).items() <= pod["metadata"]["labels"].items()
            for given, container in zip(role.template["spec"]["containers"], pod["spec"]["containers"], strict=True):
                expected = with_variables(shape, role.name, index, addresses, given)["env"]
                assert plain(container.get("env")) == plain(expected), container["name"]


MASTER_AND_WORKERS = {"Master": 1, "Worker": 2}
ENDINGS = {
    "the chief": (job("TFJob", {"Chief": 1, "Worker": 1}, "Never"), [("chief-0", 0)]),
    "a worker beside a chief": (job("TFJob", {"Chief": 1, "Worker": 1}, "Never"), [("worker-0", 0)]),
    "a failed worker beside a chief": (job("TFJob", {"Chief": 1, "Worker": 1}, "Never"), [("worker-0", 1)]),
    "a failed parameter server": (job("TFJob", {"PS": 1, "Worker": 1}, "Never"), [("ps-0", 1)]),
    "the first worker": (job("TFJob", {"PS": 1, "Worker": 2}, "Never"), [("worker-0", 0)]),
    "the second worker": (job("TFJob", {"PS": 1, "Worker": 2}, "Never"), [("worker-1", 0)]),
    "one of all workers": (job("TFJob", {"Worker": 2}, "Never", successPolicy="AllWorkers"), [("worker-0", 0)]),
    "all workers": (
        job("TFJob", {"Worker": 2}, "Never", successPolicy="AllWorkers"),
        [("worker-0", 0), ("worker-1", 0)],
    ),
    "a failed dynamic worker": (job("TFJob", {"Worker": 2}, "Never", enableDynamicWorker=True), [("worker-1", 1)]),
    "a permanent exit code": (job("TFJob", {"Worker": 2}, "ExitCode"), [("worker-1", 3)]),
    "the master": (job("PyTorchJob", MASTER_AND_WORKERS, "Never"), [("master-0", 0)]),
    "workers beside a master": (
        job("PyTorchJob", MASTER_AND_WORKERS, "Never"),
        [("worker-0", 0), ("worker-1", 0)],
    ),
    "a failed worker beside a master": (job("PyTorchJob", MASTER_AND_WORKERS, "Never"), [("worker-1", 1)]),
    "one torch worker": (job("PyTorchJob", {"Worker": 2}, "Never"), [("worker-0", 0)]),
    "all torch workers": (job("PyTorchJob", {"Worker": 2}, "Never"), [("worker-0", 0), ("worker-1", 0)]),
    "one elastic worker": (job("PyTorchJob", {"Worker": 2}, "Never", elasticPolicy={}), [("worker-1", 0)]),
    "the master of xgboost": (job("XGBoostJob", MASTER_AND_WORKERS, "Never"), [("master-0", 0)]),
    "the workers of xgboost": (job("XGBoostJob", MASTER_AND_WORKERS, "Never"), [("worker-0", 0), ("worker-1", 0)]),
    "one jax worker": (job("JAXJob", {"Worker": 2}, "Never"), [("worker-0", 0)]),
    "all jax workers": (job("JAXJob", {"Worker": 2}, "Never"), [("worker-0", 0), ("worker-1", 0)]),
    "a failed jax worker": (job("JAXJob", {"Worker": 2}, "Never"), [("worker-1", 1)]),
    "the master of paddle": (job("PaddleJob", MASTER_AND_WORKERS, "Never"), [("master-0", 0)]),
    "all paddle workers": (job("PaddleJob", {"Worker": 2}, "Never"), [("worker-1", 0), ("worker-0", 0)]),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_the_real_operator_ends_a_job_as_the_local_runner_does(
    api: kubernetes.client.ApiClient, namespace: str, case: str
) -> None:
    body, events = ENDINGS[case]
    made = Made(api, namespace, body)
    made.run()
    for name, status in events:
        made.end(f"j-{name}", status)
    members = replicas_of(made.body, OPERATED[body["kind"]].container)
    rules = Rules(
        members=tuple(member.name for member in members.members),
        primary=next(member.name for member in members.members if member.primary),
        needed=frozenset(member.name for member in members.members if member.needed),
        fatal=frozenset(member.name for member in members.members if member.fatal),
        any_suffices=members.any_suffices,
    )
    ends = {name: Ended(ExitRecord(status, Why.END, 1), at) for at, (name, status) in enumerate(events)}
    verdict = decide(rules, ends)
    if verdict is None:
        until(lambda: made.counted() == len(events), "the operator has counted those that ended")
        assert not {"Succeeded", "Failed"} & set(made.conditions())
        return
    wanted = {Outcome.SUCCEEDED: "Succeeded", Outcome.FAILED: "Failed"}[verdict.outcome]
    until(lambda: wanted in made.conditions(), f"the condition {wanted} beside {made.conditions()}")
    assert not ({"Succeeded", "Failed"} - {wanted}) & set(made.conditions())
