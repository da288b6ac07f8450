"""What the controllers of the fake have in common, and the one for `batch/v1 Job`.

A controller looks at one object at a time and makes the world as its spec says, whenever something of it has changed.
Times that a real controller waits between attempts are parameters here, so that tests are quick.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from evertune.testing.kubernetes.objects import JsonDict, Refused, timestamp
from evertune.testing.kubernetes.store import Change, Store

TRACKING = "batch.kubernetes.io/job-tracking"


class Controller:
    """Calls `reconcile` for an object of `plurals` when it, or a pod of it, has changed."""

    plurals: tuple[str, ...] = ()

    def __init__(self, store: Store, *, retry_s: float = 0.1) -> None:
        self.store = store
        self.retry_s = retry_s
        self._task: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def reconcile(self, obj: JsonDict) -> None:
        raise NotImplementedError

    def deleted(self, pod: JsonDict, owner_uid: str) -> None:
        """A pod of an owner is gone."""

    def again(self, obj: JsonDict, after_s: float, why: str = "") -> None:
        """Reconcile once more after a while; one timer for each reason."""
        meta = obj["metadata"]
        key = f"{meta['uid']}/{why}"
        if key not in self._timers:
            self._timers[key] = asyncio.get_running_loop().call_later(
                after_s, self._timer, key, obj["kind"], meta["namespace"], meta["name"]
            )

    def _timer(self, key: str, kind: str, namespace: str, name: str) -> None:
        del self._timers[key]
        plural = next(known.plural for known in self.store.kinds.values() if known.kind == kind)
        self._look(plural, namespace, name)

    async def _run(self) -> None:
        with self.store.watching() as queue:
            for plural in self.plurals:
                for obj in self.store.all(plural):
                    self.reconcile(obj)
            while True:
                self.changed(await queue.get())

    def changed(self, change: Change) -> None:
        meta = change.after["metadata"]
        if change.kind.plural in self.plurals:
            self._look(change.kind.plural, meta["namespace"], meta["name"])
        elif change.kind.plural == "pods":
            for owner in meta.get("ownerReferences", ()):
                if change.type == "DELETED":
                    self.deleted(change.after, owner["uid"])
                for plural in self.plurals:
                    held = self.store.find(plural, meta["namespace"], owner["name"])
                    if held is not None and held["metadata"]["uid"] == owner["uid"]:
                        self._look(plural, meta["namespace"], owner["name"])

    def _look(self, plural: str, namespace: str, name: str) -> None:
        obj = self.store.find(plural, namespace, name)
        if obj is not None and not obj["metadata"].get("deletionTimestamp"):
            with contextlib.suppress(Refused):  # the next change brings it back here
                self.reconcile(obj)

    def make_pod(self, owner: JsonDict, template: JsonDict, meta: JsonDict, spec: JsonDict | None = None) -> bool:
        """One pod of `template`; what refuses it becomes an Event, and another attempt later."""
        held = template.get("metadata") or {}
        about = owner["metadata"]
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": about["name"],
                     "uid": about["uid"], "controller": True, "blockOwnerDeletion": True}  # fmt: skip
        pod = {
            "metadata": {
                **meta,
                "labels": {**(held.get("labels") or {}), **meta.get("labels", {})},
                "annotations": {**(held.get("annotations") or {}), **meta.get("annotations", {})},
                "ownerReferences": [reference],
            },
            "spec": {**template["spec"], **(spec or {})},
        }
        try:
            made = self.store.create("pods", pod, about["namespace"])
        except Refused as refused:
            if refused.reason != "AlreadyExists":
                self.store.record(
                    owner, f"FailedCreate{self.event_suffix}", f"Error creating: {refused.message}", source=self.source
                )
            self.again(owner, self.retry_s, "create")
            return False
        name = made["metadata"]["name"]
        self.store.record(
            owner, f"SuccessfulCreate{self.event_suffix}", f"Created pod: {name}", type="Normal", source=self.source
        )
        return True

    source = "controller"
    event_suffix = ""


def condition(kind: str, reason: str, message: str, status: str = "True") -> JsonDict:
    now = timestamp()
    return {"type": kind, "status": status, "reason": reason, "message": message,
            "lastProbeTime": now, "lastTransitionTime": now}  # fmt: skip


def has(obj: JsonDict, *kinds: str) -> JsonDict | None:
    """The first condition of these types that is true."""
    conditions: Iterable[JsonDict] = obj.get("status", {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] in kinds and found["status"] == "True"), None)


def phase(pod: JsonDict) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def age_s(text: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()


def restarts(pods: Iterable[JsonDict]) -> int:
    return sum(state.get("restartCount", 0) for pod in pods for state in pod["status"].get("containerStatuses", ()))


class JobController(Controller):
    """Jobs: completions, parallelism, indexes, back-off limit, deadline, suspension, pod failure policy, TTL."""

    plurals = ("jobs",)
    source = "job-controller"

    def __init__(self, store: Store, *, retry_s: float = 0.1) -> None:
        super().__init__(store, retry_s=retry_s)
        self._failed: dict[str, set[str]] = defaultdict(set)  # by the Job's uid: pods that count as failed
        self._ignored: dict[str, set[str]] = defaultdict(set)
        self._succeeded: dict[str, set[str]] = defaultdict(set)

    def changed(self, change: Change) -> None:
        super().changed(change)
        if change.kind.plural == "pods" and change.type != "DELETED":
            self._release(change.after)

    def _release(self, pod: JsonDict) -> None:
        """Pods are held by a finalizer until they have been counted, or there is no Job to count them for."""
        meta = pod["metadata"]
        held = self.store.find("pods", meta["namespace"], meta["name"])
        if (
            held is None
            or held["metadata"]["uid"] != meta["uid"]
            or TRACKING not in held["metadata"].get("finalizers", ())
        ):
            return
        owner = next((one for one in meta["ownerReferences"] if one["kind"] == "Job"), {"name": "", "uid": ""})
        job = self.store.find("jobs", meta["namespace"], owner["name"])
        orphan = job is None or job["metadata"]["uid"] != owner["uid"] or "deletionTimestamp" in job["metadata"]
        going = "deletionTimestamp" in meta and not meta.get("deletionGracePeriodSeconds")
        if going and not orphan and not held["spec"].get("nodeName") and (job or {})["spec"].get("podFailurePolicy"):
            # The Job waits until it has failed, and no kubelet will say so: the garbage collector of pods does.
            self.store.set_status("pods", meta["namespace"], meta["name"], {"phase": "Failed"})
        if orphan or going or phase(held) in ("Succeeded", "Failed"):
            left = [one for one in held["metadata"]["finalizers"] if one != TRACKING]
            patch = {"metadata": {"finalizers": left or None}}
            self.store.patch("pods", meta["namespace"], meta["name"], patch)

    def deleted(self, pod: JsonDict, owner_uid: str) -> None:
        uid = pod["metadata"]["uid"]
        if phase(pod) == "Succeeded":
            self._succeeded[owner_uid].add(uid)
        elif uid not in self._ignored[owner_uid]:
            self._failed[owner_uid].add(uid)

    def reconcile(self, obj: JsonDict) -> None:
        spec = obj["spec"]
        uid = obj["metadata"]["uid"]
        if ended := has(obj, "Complete", "Failed"):
            self._expire(obj, ended)
            return
        pods = self.store.owned_by(obj, "pods")
        if spec["suspend"]:
            self._suspend(obj, pods)
            return
        verdict = self._count(obj, pods)
        active = [pod for pod in pods if phase(pod) in ("Pending", "Running")]
        living = [pod for pod in active if not pod["metadata"].get("deletionTimestamp")]
        status: JsonDict = dict(obj.get("status") or {})
        conditions = list(status.get("conditions") or ())
        if has(obj, "Suspended"):
            conditions = [found for found in conditions if found["type"] != "Suspended"]
            conditions.append(condition("Suspended", "JobResumed", "Job resumed", "False"))
            status["startTime"] = timestamp()
        status.setdefault("startTime", timestamp())
        status |= {
            "active": len(living), "failed": len(self._failed[uid]), "succeeded": len(self._succeeded[uid]),
            "terminating": len(active) - len(living), "uncountedTerminatedPods": {},
            "ready": sum(phase(pod) == "Running" for pod in living),
        }  # fmt: skip
        begun = has(obj, "FailureTarget", "SuccessCriteriaMet")
        if begun is not None:
            verdict = begun["type"], begun["reason"], begun["message"]
        elif verdict is not None:
            conditions.append(condition(*verdict))
        if verdict is not None:
            for pod in living:
                self.store.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
            if not self._active(obj):
                status |= {"active": 0, "terminating": 0, "ready": 0}
                succeeded = verdict[0] == "SuccessCriteriaMet"
                conditions.append(condition("Complete" if succeeded else "Failed", *verdict[1:]))
                if succeeded:
                    status["completionTime"] = timestamp()
        self._write(obj, {**status, "conditions": conditions} if conditions else status)
        if verdict is None:
            self._fill(obj, pods, living)

    def _active(self, job: JsonDict) -> list[JsonDict]:
        return [pod for pod in self.store.owned_by(job, "pods") if phase(pod) in ("Pending", "Running")]

    def _count(self, job: JsonDict, pods: list[JsonDict]) -> tuple[str, str, str] | None:
        """Count pods that have ended; the verdict about the Job, as a condition's type, reason and message."""
        spec, uid = job["spec"], job["metadata"]["uid"]
        for pod in pods:
            pod_uid = pod["metadata"]["uid"]
            if phase(pod) == "Succeeded":
                self._succeeded[uid].add(pod_uid)
            elif phase(pod) == "Failed" or pod["metadata"].get("deletionTimestamp"):
                action = _policy(spec.get("podFailurePolicy"), pod)
                if action is not None and action[0] == "FailJob":
                    return "FailureTarget", "PodFailurePolicy", action[1]
                if action is not None and action[0] == "Ignore":
                    self._ignored[uid].add(pod_uid)
                else:
                    self._failed[uid].add(pod_uid)
        limit = spec["backoffLimit"]
        restarted = restarts(pods) if spec["template"]["spec"].get("restartPolicy") == "OnFailure" else 0
        if len(self._failed[uid]) > limit or (restarted and restarted >= max(limit, 1)):
            return "FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        start = (job.get("status") or {}).get("startTime")
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and not (start and age_s(start) >= deadline):
            self.again(job, max(0.05, deadline - (age_s(start) if start else 0.0)), "deadline")
        elif deadline is not None:
            return "FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline"
        if len(self._succeeded[uid]) >= spec["completions"]:
            return "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
        return None

    def _fill(self, job: JsonDict, pods: list[JsonDict], living: list[JsonDict]) -> None:
        spec, uid, name = job["spec"], job["metadata"]["uid"], job["metadata"]["name"]
        missing = min(spec["parallelism"], spec["completions"] - len(self._succeeded[uid])) - len(living)
        indexed = spec["completionMode"] == "Indexed"
        index_of = "batch.kubernetes.io/job-completion-index"
        taken = {pod["metadata"]["annotations"].get(index_of) for pod in pods
                 if phase(pod) == "Succeeded" or pod in living} if indexed else set()  # fmt: skip
        free = [str(index) for index in range(spec["completions"]) if str(index) not in taken]
        for number in range(missing):
            meta: JsonDict = {"generateName": f"{name}-", "finalizers": [TRACKING]}
            if indexed:
                meta |= {"generateName": f"{name}-{free[number]}-", "annotations": {index_of: free[number]},
                        "labels": {index_of: free[number]}}  # fmt: skip
            if not self.make_pod(job, spec["template"], meta):
                return

    def _suspend(self, job: JsonDict, pods: list[JsonDict]) -> None:
        for pod in pods:
            self._ignored[job["metadata"]["uid"]].add(pod["metadata"]["uid"])
            if phase(pod) in ("Pending", "Running") and not pod["metadata"].get("deletionTimestamp"):
                self.store.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        if not has(job, "Suspended"):
            status = {key: value for key, value in (job.get("status") or {}).items() if key != "startTime"}
            others = [found for found in status.get("conditions", ()) if found["type"] != "Suspended"]
            conditions = [*others, condition("Suspended", "JobSuspended", "Job suspended")]
            self._write(job, {**status, "active": 0, "ready": 0, "conditions": conditions})

    def _expire(self, job: JsonDict, ended: JsonDict) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return
        meta = job["metadata"]
        left = ttl - age_s(ended["lastTransitionTime"])
        if left > 0:
            self.again(job, left, "ttl")
        else:
            self.store.delete("jobs", meta["namespace"], meta["name"], policy="Background")

    def _write(self, job: JsonDict, status: JsonDict) -> None:
        meta = job["metadata"]
        self.store.update("jobs", meta["namespace"], meta["name"], lambda _: {"status": status}, subresource="status")


def _policy(policy: Any, pod: JsonDict) -> tuple[str, str] | None:
    """The action of the first rule of a podFailurePolicy that fits the pod, and the message for FailJob."""
    for index, rule in enumerate((policy or {}).get("rules", ())):
        for pattern in rule.get("onPodConditions", ()):
            if has(pod, pattern["type"]):
                return rule[
                    "action"
                ], f"Pod {pod['metadata']['name']} has condition {pattern['type']} matching rule {index}"
        wanted = rule.get("onExitCodes")
        for state in pod["status"].get("containerStatuses", ()) if wanted else ():
            code = state.get("state", {}).get("terminated", {}).get("exitCode", 0)
            if not code or wanted.get("containerName") not in (None, state["name"]):
                continue
            if (code in wanted["values"]) is (wanted["operator"] == "In"):
                where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                message = f"Container {state['name']} for pod {where} failed with exit code {code} matching"
                return rule["action"], f"{message} {rule['action']} rule at index {index}"
    return None
