"""The Job controller and the garbage collector as evertune relies on them, as a test suite.

It needs a server with controllers and no node: the tests play the kubelet. The fake passes it, and so does a real
control plane.
"""

from __future__ import annotations

from typing import Any

import pytest

from evertune.testing.kubernetes.calling import JOBS, MERGE, PODS, Caller, WithNamespace, a_job, until
from evertune.testing.kubernetes.objects import JsonDict, timestamp


def ended(code: int, reason: str = "") -> JsonDict:
    """The status that a kubelet gives a pod whose only container has ended."""
    now = timestamp()
    terminated = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"),
                  "startedAt": now, "finishedAt": now}  # fmt: skip
    return {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{
            "name": "main", "image": "localhost/none:1", "imageID": "", "ready": False, "restartCount": 0,
            "started": False, "state": {"terminated": terminated},
        }],
    }  # fmt: skip


class JobControllerContract(WithNamespace):
    """Override the fixture `api`."""

    async def test_a_job_has_a_pod_with_its_labels_and_an_owner(self, api: Caller, namespace: str) -> None:
        body = a_job("one")
        body["spec"]["template"]["metadata"] = {"labels": {"mine": "yes"}, "annotations": {"a": "b"}}
        job = await api.call("POST", JOBS.format(namespace), body=body)
        pod = await self.pod(api, namespace)
        meta = pod["metadata"]
        assert meta["name"].startswith("one-")
        assert (meta["labels"]["mine"], meta["labels"]["batch.kubernetes.io/job-name"]) == ("yes", "one")
        assert meta["annotations"] == {"a": "b"}
        owner = meta["ownerReferences"][0]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", job["metadata"]["uid"], True)
        assert meta["finalizers"] == ["batch.kubernetes.io/job-tracking"]
        assert pod["status"]["phase"] == "Pending"
        status = await self.settled(api, namespace, lambda status: status.get("active") == 1)
        assert status["startTime"]

    async def test_success_shows_twice_before_it_is_complete(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one"))
        await self.end(api, namespace, ended(0))
        status = await self.settled(api, namespace, lambda status: self.condition(status, "Complete"))
        assert status["succeeded"] == 1
        assert status["completionTime"]
        kinds = [one["type"] for one in status["conditions"]]
        assert kinds == ["SuccessCriteriaMet", "Complete"]
        assert {one["reason"] for one in status["conditions"]} == {"CompletionsReached"}
        pod = await self.pod(api, namespace)  # it stays
        assert pod["status"]["phase"] == "Succeeded"
        assert "finalizers" not in pod["metadata"]

    async def test_a_failure_beyond_the_limit_is_the_jobs(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one", backoffLimit=0))
        await self.end(api, namespace, ended(3))
        status = await self.settled(api, namespace, lambda status: self.condition(status, "Failed"))
        failed = self.condition(status, "Failed")
        assert (failed["reason"], failed["message"]) == (
            "BackoffLimitExceeded", "Job has reached the specified backoff limit",
        )  # fmt: skip
        assert [one["type"] for one in status["conditions"]] == ["FailureTarget", "Failed"]
        assert status["failed"] == 1

    async def test_a_pod_that_is_deleted_counts_as_failed(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one", backoffLimit=0))
        pod = await self.pod(api, namespace)
        gone = await api.call("DELETE", f"{PODS.format(namespace)}/{pod['metadata']['name']}")
        assert gone["metadata"]["deletionTimestamp"]  # the Job sees it before it is gone
        status = await self.settled(api, namespace, lambda status: self.condition(status, "Failed"))
        assert self.condition(status, "Failed")["reason"] == "BackoffLimitExceeded"

    async def test_a_deadline_ends_the_job_and_its_pod(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one", activeDeadlineSeconds=1))
        await self.pod(api, namespace)
        status = await self.settled(api, namespace, lambda status: self.condition(status, "Failed"))
        failed = self.condition(status, "Failed")
        assert (failed["reason"], failed["message"]) == (
            "DeadlineExceeded", "Job was active longer than specified deadline",
        )  # fmt: skip
        assert await self.pods(api, namespace) == []

    async def test_a_failure_policy_may_fail_the_job_at_once_or_pass_a_disruption_over(
        self, api: Caller, namespace: str
    ) -> None:
        rules = [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
        ]
        body = a_job("one", backoffLimit=0, podFailurePolicy={"rules": rules})
        await api.call("POST", JOBS.format(namespace), body=body)
        target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "",
                  "lastTransitionTime": timestamp()}  # fmt: skip
        first = await self.end(api, namespace, {**ended(137), "conditions": [target]})

        async def another() -> JsonDict | None:
            pods = await self.pods(api, namespace)
            return next((pod for pod in pods if pod["metadata"]["name"] != first), None)

        second = await until(another)
        await self.end(api, namespace, ended(42), second["metadata"]["name"])
        status = await self.settled(api, namespace, lambda status: self.condition(status, "Failed"))
        failed = self.condition(status, "Failed")
        assert failed["reason"] == "PodFailurePolicy"
        name = second["metadata"]["name"]
        assert failed["message"] == (
            f"Container main for pod {namespace}/{name} failed with exit code 42 matching FailJob rule at index 1"
        )

    async def test_a_suspended_job_has_no_pod_until_it_is_resumed(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one", suspend=True))
        status = await self.settled(api, namespace, lambda status: self.condition(status, "Suspended"))
        assert self.condition(status, "Suspended")["reason"] == "JobSuspended"
        assert await self.pods(api, namespace) == []
        path = f"{JOBS.format(namespace)}/one"
        await api.call("PATCH", path, body={"spec": {"suspend": False}}, content_type=MERGE)
        await self.pod(api, namespace)
        await api.call("PATCH", path, body={"spec": {"suspend": True}}, content_type=MERGE)
        await self.settled(api, namespace, lambda status: self.condition(status, "Suspended"))
        await until(lambda: self.no_pods(api, namespace))

    async def test_a_pod_that_is_refused_leaves_an_event(self, api: Caller, namespace: str) -> None:
        await self.refuse_pods(api, namespace)
        job = await api.call("POST", JOBS.format(namespace), body=a_job("one"))
        query = {"fieldSelector": f"involvedObject.uid={job['metadata']['uid']},reason=FailedCreate"}

        async def told() -> JsonDict | None:
            events = (await api.call("GET", f"/api/v1/namespaces/{namespace}/events", query=query))["items"]
            # Another one comes before it where the server has not heard yet how much the quota allows.
            return next((event for event in events if "is forbidden: exceeded quota: none" in event["message"]), None)

        event = await until(told)
        assert event["type"] == "Warning"
        assert event["involvedObject"]["name"] == "one"
        assert event["message"].startswith("Error creating: pods ")

    async def refuse_pods(self, api: Caller, namespace: str) -> None:
        """A quota without a pod. A server without quotas refuses them in its own way."""
        body = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        await api.call("POST", path, body=body)

        async def counted() -> bool:
            return bool((await api.call("GET", f"{path}/none")).get("status", {}).get("hard"))

        await until(counted)

    @pytest.mark.parametrize("policy", ["Background", "Foreground"])
    async def test_the_pods_of_a_deleted_job_go_after_it(self, api: Caller, namespace: str, policy: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one"))
        await self.pod(api, namespace)
        await api.call("DELETE", f"{JOBS.format(namespace)}/one", body={"propagationPolicy": policy})
        await until(lambda: self.no_pods(api, namespace))

        async def gone() -> bool:
            return not (await api.call("GET", JOBS.format(namespace)))["items"]

        await until(gone)

    async def test_a_namespace_that_is_deleted_takes_its_jobs_and_pods(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one"))
        await self.pod(api, namespace)
        await api.call("DELETE", f"/api/v1/namespaces/{namespace}")

        async def gone() -> bool:
            names = [item["metadata"]["name"] for item in (await api.call("GET", "/api/v1/namespaces"))["items"]]
            return namespace not in names

        await until(gone)

    # ------------------------------------------------------------------------------------------ by hand

    @staticmethod
    def condition(status: JsonDict, kind: str) -> Any:
        return next(
            (one for one in status.get("conditions", ()) if one["type"] == kind and one["status"] == "True"), None
        )

    async def settled(self, api: Caller, namespace: str, holds: Any) -> JsonDict:
        """The status of the Job `one` once it is so."""

        async def look() -> JsonDict | None:
            status: JsonDict = (await api.call("GET", f"{JOBS.format(namespace)}/one")).get("status") or {}
            return status if holds(status) else None

        found: JsonDict = await until(look)
        return found

    async def pods(self, api: Caller, namespace: str) -> list[JsonDict]:
        found: list[JsonDict] = (await api.call("GET", PODS.format(namespace)))["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    async def no_pods(self, api: Caller, namespace: str) -> bool:
        return not (await api.call("GET", PODS.format(namespace)))["items"]

    async def pod(self, api: Caller, namespace: str) -> JsonDict:
        found: list[JsonDict] = await until(lambda: self.pods(api, namespace))
        return found[0]

    async def end(self, api: Caller, namespace: str, status: JsonDict, name: str | None = None) -> str:
        """Let a pod end; its name."""
        chosen: str = name or (await self.pod(api, namespace))["metadata"]["name"]
        path = f"{PODS.format(namespace)}/{chosen}/status"
        await api.call("PATCH", path, body={"status": status}, content_type=MERGE)
        return chosen
