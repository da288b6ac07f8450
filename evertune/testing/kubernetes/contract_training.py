"""Kubeflow's training operator as evertune relies on it, as a test suite: pods by role, conditions in order.

It needs a server with the operator and no node: the tests play the kubelet. Where the operator is not installed it is
skipped.
"""

from __future__ import annotations

from typing import Any

import pytest

from evertune.testing.kubernetes.calling import MERGE, PODS, Caller, WithNamespace, until
from evertune.testing.kubernetes.contract_jobs import ended
from evertune.testing.kubernetes.objects import JsonDict, timestamp

JOBS = "/apis/kubeflow.org/v1/namespaces/{}/tfjobs"
PREFIX = "training.kubeflow.org"


def a_tfjob(restart: str = "Never", run: JsonDict | None = None, **replicas: int) -> JsonDict:
    template = {"spec": {"containers": [{"name": "tensorflow", "image": "localhost/none:1"}]}}
    roles = {
        role: {"replicas": count, "restartPolicy": restart, "template": template} for role, count in replicas.items()
    }
    spec: JsonDict = {"tfReplicaSpecs": roles, **({"runPolicy": run} if run else {})}
    return {"apiVersion": "kubeflow.org/v1", "kind": "TFJob", "metadata": {"name": "one"}, "spec": spec}


def running() -> JsonDict:
    state = {"running": {"startedAt": timestamp()}}
    return {
        "phase": "Running",
        "containerStatuses": [{
            "name": "tensorflow", "image": "localhost/none:1", "imageID": "", "ready": True, "restartCount": 0,
            "started": True, "state": state,
        }],
    }  # fmt: skip


def over(code: int) -> JsonDict:
    status = ended(code)
    status["containerStatuses"][0]["name"] = "tensorflow"
    return status


class TrainingOperatorContract(WithNamespace):
    """Override the fixture `api`."""

    @pytest.fixture(autouse=True)
    async def operator(self, api: Caller) -> None:
        groups = (await api.call("GET", "/apis"))["groups"]
        # The group alone may be there for Katib's experiments.
        if "kubeflow.org/v1" not in {version["groupVersion"] for group in groups for version in group["versions"]}:
            pytest.skip("the cluster has no training operator")

    async def test_pods_are_named_and_labelled_by_role(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_tfjob(Chief=1, Worker=2))
        pods = await self.pods(api, namespace, 3)
        assert sorted(pods) == ["one-chief-0", "one-worker-0", "one-worker-1"]
        labels = {name: pod["metadata"]["labels"] for name, pod in pods.items()}
        assert labels["one-chief-0"][f"{PREFIX}/job-role"] == "master"
        assert f"{PREFIX}/job-role" not in labels["one-worker-0"]
        assert labels["one-worker-1"][f"{PREFIX}/job-name"] == "one"
        assert labels["one-worker-1"][f"{PREFIX}/replica-type"] == "worker"
        assert labels["one-worker-1"][f"{PREFIX}/replica-index"] == "1"
        assert labels["one-worker-1"][f"{PREFIX}/operator-name"] == "tfjob-controller"
        assert pods["one-worker-1"]["metadata"]["ownerReferences"][0]["kind"] == "TFJob"

    async def test_the_master_decides_success_and_the_last_condition_is_the_state(
        self, api: Caller, namespace: str
    ) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_tfjob(Chief=1, Worker=1))
        await self.pods(api, namespace, 2)
        for name in ("one-chief-0", "one-worker-0"):
            await self.play(api, namespace, name, running())
        await self.reaches(api, namespace, "Running")
        await self.play(api, namespace, "one-chief-0", over(0))
        status = await self.reaches(api, namespace, "Succeeded")
        told = [(one["type"], one["status"], one["reason"], one["message"]) for one in status["conditions"]]
        assert told == [
            ("Created", "True", "TFJobCreated", "TFJob one is created."),
            ("Running", "False", "TFJobRunning", f"TFJob {namespace}/one is running."),
            ("Succeeded", "True", "TFJobSucceeded", f"TFJob {namespace}/one successfully completed."),
        ]
        assert status["completionTime"]

        async def counted() -> bool:
            status = (await api.call("GET", f"{JOBS.format(namespace)}/one"))["status"]
            return bool(status["replicaStatuses"]["Worker"].get("succeeded") == 1)

        await until(counted)  # though it still runs
        assert sorted(await self.pods(api, namespace, 2)) == ["one-chief-0", "one-worker-0"]

    async def test_a_pod_that_fails_for_good_fails_the_job(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_tfjob(Worker=1))
        await self.pods(api, namespace, 1)
        await self.play(api, namespace, "one-worker-0", over(1))
        status = await self.reaches(api, namespace, "Failed")
        last = status["conditions"][-1]
        message = f"TFJob {namespace}/one has failed because 1 Worker replica(s) failed."
        assert (last["type"], last["reason"], last["message"]) == ("Failed", "TFJobFailed", message)

    async def test_a_retryable_exit_code_replaces_the_pod(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_tfjob("ExitCode", Worker=1))
        first = (await self.pods(api, namespace, 1))["one-worker-0"]
        assert first["spec"]["restartPolicy"] == "Never"
        await self.play(api, namespace, "one-worker-0", over(137))

        async def replaced() -> bool:
            pods = (await api.call("GET", PODS.format(namespace)))["items"]
            return bool(pods) and pods[0]["metadata"]["uid"] != first["metadata"]["uid"]

        await until(replaced)
        status = await self.reaches(api, namespace, "Restarting")
        assert status["conditions"][-1]["message"] == "job one is restarting because Worker replica(s) failed."

    async def test_a_suspended_job_has_no_pods(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_tfjob(run={"suspend": True}, Worker=1))
        status = await self.reaches(api, namespace, "Suspended")
        assert "startTime" not in status
        assert (await api.call("GET", PODS.format(namespace)))["items"] == []
        resume = {"spec": {"runPolicy": {"suspend": False}}}
        await api.call("PATCH", f"{JOBS.format(namespace)}/one", body=resume, content_type=MERGE)
        await self.pods(api, namespace, 1)

    # ------------------------------------------------------------------------------------------ by hand

    async def pods(self, api: Caller, namespace: str, count: int) -> dict[str, JsonDict]:
        """The pods by name, once there are so many."""

        async def look() -> dict[str, JsonDict] | None:
            found = (await api.call("GET", PODS.format(namespace)))["items"]
            return {pod["metadata"]["name"]: pod for pod in found} if len(found) == count else None

        found: dict[str, JsonDict] = await until(look)
        return found

    async def play(self, api: Caller, namespace: str, name: str, status: JsonDict) -> None:
        path = f"{PODS.format(namespace)}/{name}/status"
        await api.call("PATCH", path, body={"status": status}, content_type=MERGE)

    async def reaches(self, api: Caller, namespace: str, kind: str) -> JsonDict:
        """The job's status once this condition is true."""

        async def look() -> Any:
            status = (await api.call("GET", f"{JOBS.format(namespace)}/one")).get("status") or {}
            true = {one["type"] for one in status.get("conditions", ()) if one["status"] == "True"}
            return status if kind in true else None

        found: JsonDict = await until(look)
        return found
