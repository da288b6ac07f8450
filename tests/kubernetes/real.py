"""A real cluster as tests see it: a namespace of their own, what of ours is in it, and all that ever was.

Speaks to the API server by itself, without any code of ours, so that what it says is a witness.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest
import urllib3
from kubernetes.client.exceptions import ApiException

Manifest = dict[str, Any]
OURS = "evertune.io/managed-by=evertune"
EXPERIMENT, TRIAL = "evertune.io/experiment", "evertune.io/trial"
IMAGE = "python:3.11-slim"
GATEWAY_HOST = "EVERTUNE_TEST_GATEWAY_HOST"
PATHS = {"jobs": "/apis/batch/v1/namespaces/{}/jobs", "pods": "/api/v1/namespaces/{}/pods"}


@dataclass
class Namespace:
    """A namespace of a real cluster."""

    kubeconfig: Path
    name: str
    api: kubernetes.client.ApiClient

    def call(self, method: str, path: str, body: Any = None, query: Any = ()) -> Manifest:
        """Raises ApiException."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = self.api.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params={"Content-Type": kind, "Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self.api.call_api(*request, _request_timeout=20)
        text: bytes = answer.read()  # type: ignore[no-untyped-call]
        if not 200 <= answer.status < 300:
            raise ApiException(status=answer.status, reason=text.decode())
        found: Manifest = json.loads(text)
        return found

    def objects(self, plural: str, selector: str = OURS) -> list[Manifest]:
        return list(self.call("GET", PATHS[plural].format(self.name), query=[("labelSelector", selector)])["items"])

    def left(self, uid: str | None = None) -> list[str]:
        """What has labels of ours, of one experiment or of all."""
        selector = OURS if uid is None else f"{OURS},{EXPERIMENT}={uid}"
        return [f"{plural}/{obj['metadata']['name']}" for plural in PATHS for obj in self.objects(plural, selector)]

    def log(self, pod: str, container: str) -> str:
        path = f"{PATHS['pods'].format(self.name)}/{pod}/log"
        request = self.api.param_serialize(
            "GET", path, query_params=[("container", container)], auth_settings=["BearerToken"]
        )
        text: bytes = self.api.call_api(*request, _request_timeout=20).read()  # type: ignore[no-untyped-call]
        return text.decode()

    def delete(self) -> None:
        self.call("DELETE", f"/api/v1/namespaces/{self.name}")


@contextmanager
def a_namespace(kubeconfig: Path, **labels: str) -> Iterator[Namespace]:
    api = kubernetes.config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    made = Namespace(kubeconfig, f"evertune-test-{os.urandom(4).hex()}", api)
    made.call("POST", "/api/v1/namespaces", {"metadata": {"name": made.name, "labels": labels}})
    try:
        yield made
    finally:
        try:
            made.delete()
        except ApiException as error:
            if error.status not in (404, 409):
                raise
        api.close()


@dataclass
class Witness:
    """Sees every object of ours that lives longer than a moment: uid by (plural, trial, name)."""

    namespace: Namespace
    seen: dict[str, dict[int, set[str]]] = field(default_factory=lambda: {plural: {} for plural in PATHS})
    missed: int = 0  # looks that the API server did not answer
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        for plural, seen in self.seen.items():
            for obj in self.namespace.objects(plural):
                meta = obj["metadata"]
                seen.setdefault(int(meta["labels"][TRIAL]), set()).add(meta["uid"])

    def run(self) -> None:
        while not self._over.wait(0.2):
            try:
                self.look()
            except (ApiException, urllib3.exceptions.HTTPError):
                self.missed += 1

    @contextmanager
    def watching(self) -> Iterator[Witness]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(30)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """What `condition` gives when it is true at last."""
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)
    return answer


def nothing_left(namespace: Namespace, uid: str | None = None, *, timeout_s: float = 30.0) -> None:
    """Background deletion takes its time; after it there is nothing.

    Call it in a thread when the worker runs in the test's own loop: the worker deletes a moment after it has answered.
    """
    end = time.monotonic() + timeout_s
    while left := namespace.left(uid):
        assert time.monotonic() < end, f"left after {timeout_s:g} s: {left}"
        time.sleep(0.2)


def gateway_host(kubeconfig: Path) -> str:
    """Where pods reach servers of this machine."""
    if named := os.environ.get(GATEWAY_HOST):
        return named
    path = "jsonpath={.items[*].status.addresses[?(@.type=='InternalIP')].address}"
    words = ["kubectl", "--kubeconfig", str(kubeconfig), "get", "nodes", "-o", path]
    nodes = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    mine = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True, timeout=30).stdout.split()
    for address in nodes:
        if address in mine:
            return address
    pytest.skip(f"no node has an address of this machine; set {GATEWAY_HOST} to where pods reach it")


def experiment(name: str, namespace: str, program: str, *, pod: Any = None, **spec: Any) -> Manifest:
    """Trials that are Jobs of one pod; `program` is a shell's, with $X to print as the objective."""
    container = {
        "name": "trial",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", program],
        "env": [{"name": "X", "value": "${trialParameters.x}"}],
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
    }
    given = dict(pod or {})
    container |= given.pop("container", {})
    template = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": [container], **given}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 0, "template": {"spec": template}}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"evertune.io/backend": "kubernetes"}},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "objective"},
            "algorithm": {"algorithmName": "grid"},
            "parallelTrialCount": 2,
            "maxTrialCount": 2,
            "maxFailedTrialCount": 0,
            "parameters": [
                {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1", "step": "0.001"}}
            ],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": job,
            },
            **spec,
        },
    }
