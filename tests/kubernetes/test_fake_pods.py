"""The fake's pods: scripts run, misfortunes look as they do in a real cluster, training jobs get their conditions."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from evertune.protocols import JsonDict
from evertune.testing.kubernetes import FakeCluster, Misfortune, misfortunes
from evertune.testing.kubernetes.calling import SOON_S, a_job, until
from evertune.testing.kubernetes.objects import deleting
from evertune.testing.scripts import Script

NS = "default"
LONG = Script(duration_s=3600)


async def the_pod(kube: FakeCluster, holds: Any) -> JsonDict:
    """The only pod, once it is so."""

    found: JsonDict = await until(lambda: next((pod for pod in kube.store.all("pods") if holds(pod)), None))
    return found


async def the_job(kube: FakeCluster, kind: str, plural: str = "jobs") -> JsonDict:
    """The condition of this type of the object `one`, once it is true."""

    def look() -> JsonDict | None:
        conditions = kube.store.get(plural, NS, "one").get("status", {}).get("conditions", ())
        return next((found for found in conditions if (found["type"], found["status"]) == (kind, "True")), None)

    found: JsonDict = await until(look)
    return found


def state(pod: JsonDict) -> JsonDict:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return dict(statuses[0].get("state", {}))


def ended(pod: JsonDict) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


async def test_a_script_prints_and_ends_with_its_exit_code() -> None:
    async with FakeCluster(lambda _: Script(lines=("a=1", "b=2"), exit_code=3)) as kube:
        kube.store.create("jobs", a_job("one", backoffLimit=0), NS)
        pod = await the_pod(kube, ended)
        terminated = state(pod)["terminated"]
        assert (terminated["exitCode"], terminated["reason"]) == (3, "Error")
        assert terminated["startedAt"] <= terminated["finishedAt"]
        assert [line for _, line in kube.logs.of(pod, "main").lines] == [b"a=1\n", b"b=2\n"]
        assert (await the_job(kube, "Failed"))["reason"] == "BackoffLimitExceeded"


@pytest.mark.parametrize(("stubborn", "code"), [(False, 143), (True, 137)])
async def test_a_deleted_pod_gets_sigterm_and_after_its_grace_sigkill(stubborn: bool, code: int) -> None:
    async with FakeCluster(lambda _: Script(duration_s=3600, ignores_sigterm=stubborn)) as kube:
        kube.store.create("jobs", a_job("one"), NS)
        pod = await the_pod(kube, lambda pod: "running" in state(pod))
        with kube.store.watching("pods") as queue:
            kube.store.delete("pods", NS, pod["metadata"]["name"], grace_s=1)
            last: JsonDict = {}
            while (change := await asyncio.wait_for(queue.get(), SOON_S)).type != "DELETED":
                if change.after["metadata"]["uid"] == pod["metadata"]["uid"]:
                    last = change.after
        assert state(last)["terminated"]["exitCode"] == code


async def test_a_failing_container_restarts_in_place_and_backs_off() -> None:
    body = a_job("one", backoffLimit=2)
    body["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    async with FakeCluster(lambda _: Script(exit_code=1), retry_s=0.02) as kube:
        with kube.store.watching("pods") as queue:
            kube.store.create("jobs", body, NS)
            while not waiting("CrashLoopBackOff")(pod := (await asyncio.wait_for(queue.get(), SOON_S)).after):
                pass
        status = pod["status"]["containerStatuses"][0]
        assert status["restartCount"] >= 1
        assert status["lastState"]["terminated"]["exitCode"] == 1
        assert (await the_job(kube, "Failed"))["reason"] == "BackoffLimitExceeded"
        await until(lambda: not kube.store.all("pods"))


def disrupted(reason: str) -> Any:
    def holds(pod: JsonDict) -> bool:
        conditions = pod["status"].get("conditions", ())
        return any((one["type"], one["reason"]) == ("DisruptionTarget", reason) for one in conditions)

    return holds


def waiting(reason: str) -> Any:
    return lambda pod: state(pod).get("waiting", {}).get("reason") == reason


def terminated(reason: str, code: int) -> Any:
    def holds(pod: JsonDict) -> bool:
        found = state(pod).get("terminated", {})
        return (found.get("reason"), found.get("exitCode")) == (reason, code)

    return holds


def of_pod(reason: str) -> Any:
    return lambda pod: (pod["status"]["phase"], pod["status"].get("reason")) == ("Failed", reason)


def unscheduled(reason: str) -> Any:
    def holds(pod: JsonDict) -> bool:
        conditions = pod["status"].get("conditions", ())
        return any(
            (one["type"], one["status"], one["reason"]) == ("PodScheduled", "False", reason) for one in conditions
        )

    return holds


@pytest.mark.parametrize(
    ("fate", "holds", "event"),
    [
        (misfortunes.unschedulable(), unscheduled("Unschedulable"), "FailedScheduling"),
        (misfortunes.scheduling_gated(), unscheduled("SchedulingGated"), None),
        (misfortunes.image_missing(), waiting("ImagePullBackOff"), "Failed"),
        (misfortunes.registry_away(), waiting("ImagePullBackOff"), "Failed"),
        (misfortunes.image_never_pulled(), waiting("ErrImageNeverPull"), "ErrImageNeverPull"),
        (misfortunes.invalid_image_name(), waiting("InvalidImageName"), "InspectFailed"),
        (misfortunes.config_error(), waiting("CreateContainerConfigError"), "Failed"),
        (misfortunes.volume_missing(), waiting("ContainerCreating"), "FailedMount"),
        (misfortunes.start_error(), terminated("StartError", 128), "Failed"),
        (misfortunes.out_of_memory(), terminated("OOMKilled", 137), None),
        (misfortunes.evicted(), of_pod("Evicted"), "Evicted"),
        (misfortunes.evicted(), disrupted("TerminationByKubelet"), "Evicted"),
        (misfortunes.node_shutdown(), of_pod("Terminated"), None),
        (misfortunes.pod_deadline(), of_pod("DeadlineExceeded"), None),
        (misfortunes.preempted(), disrupted("PreemptionByScheduler"), "Preempted"),
        (misfortunes.drained(), disrupted("EvictionByEvictionAPI"), None),
        (misfortunes.refused_by_node(), of_pod("OutOfcpu"), None),
    ],
)
async def test_a_misfortune_shows_as_it_does_in_a_cluster(fate: Misfortune, holds: Any, event: str | None) -> None:
    async with FakeCluster(lambda _: fate) as kube:
        with kube.store.watching("pods") as queue:
            kube.store.create("jobs", a_job("one", backoffLimit=0), NS)
            while not holds((await asyncio.wait_for(queue.get(), SOON_S)).after):
                pass
        told = {found["reason"] for found in kube.store.all("events")}
        assert event is None or event in told


@pytest.mark.parametrize(
    ("fate", "code"), [(misfortunes.config_error(), 137), (misfortunes.unschedulable(), None)], ids=["held", "pending"]
)
async def test_a_pod_that_is_deleted_before_it_ran_has_failed(fate: Misfortune, code: int | None) -> None:
    """As the kubelet says of a container that it never made; of a pod without a node there is nothing to say."""
    async with FakeCluster(lambda _: fate) as kube:
        rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        kube.store.create("jobs", a_job("one", backoffLimit=0, podFailurePolicy={"rules": rules}), NS)
        pod = await the_pod(kube, lambda pod: bool(pod["status"].get("conditions")))
        with kube.store.watching("pods") as queue:
            kube.store.delete("pods", NS, pod["metadata"]["name"], grace_s=1)
            while (last := (await asyncio.wait_for(queue.get(), SOON_S)).after)["status"]["phase"] != "Failed":
                pass
        found = state(last).get("terminated", {}) if last["status"].get("containerStatuses") else {}
        assert (found.get("reason"), found.get("exitCode")) == ("ContainerStatusUnknown" if code else None, code)


def test_what_is_deleted_goes_at_the_end_of_its_grace_period_which_only_becomes_shorter() -> None:
    meta = deleting({"name": "one"}, 30)
    asked = datetime.fromisoformat(meta["deletionTimestamp"]) - timedelta(seconds=30)
    for grace, held in ((60, 30), (5, 5), (0, 0)):
        meta = deleting(meta, grace)
        assert meta["deletionGracePeriodSeconds"] == held
        assert datetime.fromisoformat(meta["deletionTimestamp"]) == asked + timedelta(seconds=held)


async def test_a_pod_on_a_lost_node_stays_until_it_is_deleted_by_force() -> None:
    async with FakeCluster(lambda _: misfortunes.node_lost()) as kube:
        kube.store.create("jobs", a_job("one", backoffLimit=0), NS)
        pod = await the_pod(kube, disrupted("DeletionByTaintManager"))
        name = pod["metadata"]["name"]
        await asyncio.sleep(0.2)
        held = kube.store.get("pods", NS, name)
        assert held["metadata"]["deletionTimestamp"]
        assert held["status"]["reason"] == "NodeLost"
        kube.store.delete("pods", NS, name, grace_s=0)
        await until(lambda: kube.store.find("pods", NS, name) is None)


def a_tfjob(**roles: int) -> JsonDict:
    template = {"spec": {"containers": [{"name": "tensorflow", "image": "x"}]}}
    specs = {role: {"replicas": count, "template": template} for role, count in roles.items()}
    return {"metadata": {"name": "one"}, "spec": {"tfReplicaSpecs": specs}}


async def test_a_training_job_has_pods_by_role_and_succeeds_with_its_master() -> None:
    def script_of(pod: JsonDict) -> Script:
        chief = pod["metadata"]["labels"].get("training.kubeflow.org/job-role") == "master"
        return Script(duration_s=0.1) if chief else LONG

    async with FakeCluster(script_of) as kube:
        kube.store.create("tfjobs", a_tfjob(Chief=1, Worker=2), NS)
        assert (await the_job(kube, "Running", "tfjobs"))["reason"] == "TFJobRunning"
        assert (await the_job(kube, "Succeeded", "tfjobs"))["reason"] == "TFJobSucceeded"
        status = kube.store.get("tfjobs", NS, "one")["status"]
        assert [one["type"] for one in status["conditions"]] == ["Created", "Running", "Succeeded"]
        names = [pod["metadata"]["name"] for pod in kube.store.all("pods")]
        assert names == ["one-chief-0", "one-worker-0", "one-worker-1"]


async def test_a_training_job_fails_with_a_pod_of_any_role() -> None:
    def script_of(pod: JsonDict) -> Script:
        return Script(exit_code=1) if pod["metadata"]["name"] == "one-ps-0" else LONG

    async with FakeCluster(script_of) as kube:
        kube.store.create("tfjobs", a_tfjob(Worker=1, PS=1), NS)
        failed = await the_job(kube, "Failed", "tfjobs")
        assert failed["message"] == "TFJob default/one has failed because 1 PS replica(s) failed."
