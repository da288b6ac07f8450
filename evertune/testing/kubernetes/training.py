"""The training operator of the fake: pods by role and index, and conditions as Kubeflow's operator sets them.

For every kind with `…ReplicaSpecs`. Environment variables and services of the real operator are not made: nothing here
runs them.
"""

from __future__ import annotations

from typing import Any

from evertune.testing.kubernetes.controllers import Controller, age_s, has, phase, restarts
from evertune.testing.kubernetes.fields import replica_specs
from evertune.testing.kubernetes.objects import JsonDict, timestamp

_PREFIX = "training.kubeflow.org"
_MASTERS = ("Chief", "Master", "Launcher")
_ALL_WORKERS = ("PyTorchJob", "JAXJob")  # without a master all workers must succeed


class TrainingController(Controller):
    """TFJob, PyTorchJob, MPIJob, XGBoostJob, JAXJob, PaddleJob."""

    plurals = ("tfjobs", "pytorchjobs", "mpijobs", "xgboostjobs", "jaxjobs", "paddlejobs")
    source = "training-operator"
    event_suffix = "Pod"

    def reconcile(self, obj: JsonDict) -> None:
        if has(obj, "Succeeded", "Failed"):
            return
        kind, name = obj["kind"], obj["metadata"]["name"]
        run: dict[str, Any] = obj["spec"].get("runPolicy") or {}
        roles = replica_specs(obj)
        pods = {pod["metadata"]["name"]: pod for pod in self.store.owned_by(obj, "pods")}
        status: JsonDict = dict(obj.get("status") or {})
        _set(status, "Created", f"{kind}Created", f"{kind} {name} is created.")
        if run.get("suspend"):
            self._delete(pods.values(), ("Pending", "Running"))
            _set(status, "Suspended", f"{kind}Suspended", f"{kind} {name} is suspended.")
            self._write(obj, status)
            return
        if has(obj, "Suspended"):
            _set(status, "Suspended", f"{kind}Resumed", f"{kind} {name} is resumed.", "False")
            status.pop("startTime", None)
        status.setdefault("startTime", timestamp())
        by_role = {role: self._role(obj, role, replica, roles, pods, status) for role, replica in roles.items()}
        status["replicaStatuses"] = {role: _counted(members) for role, members in by_role.items()}
        failure = self._failure(obj, run, by_role, status)
        if failure is not None:
            _set(status, "Failed", f"{kind}Failed", failure)
            status["completionTime"] = timestamp()
        elif _done(kind, by_role):
            _set(
                status,
                "Succeeded",
                f"{kind}Succeeded",
                f"{_called(obj)} {_DONE.get(kind, 'is successfully completed')}.",
            )
            status["completionTime"] = timestamp()
            for counts in status["replicaStatuses"].values():  # the operator counts those that still run as well
                if counts.get("active"):
                    counts["succeeded"] = counts.get("succeeded", 0) + counts.pop("active")
        elif any(phase(pod) == "Running" for members in by_role.values() for pod in members):
            _set(status, "Running", f"{kind}Running", f"{_called(obj)} is running.")
        self._write(obj, status)
        if has({"status": status}, "Succeeded", "Failed"):
            policy = run.get("cleanPodPolicy", "None")
            gone = {"All": ("Pending", "Running", "Succeeded", "Failed"), "Running": ("Pending", "Running")}
            self._delete(pods.values(), gone.get(policy, ()))

    def _role(
        self, job: JsonDict, role: str, replica: JsonDict, roles: dict[str, Any], pods: dict[str, JsonDict],
        status: JsonDict,
    ) -> list[JsonDict]:  # fmt: skip
        """The pods of a role; those that are missing are made, those that may begin again are deleted."""
        meta = job["metadata"]
        policy = replica.get("restartPolicy", "Never")
        members = []
        for index in range(replica.get("replicas", 1)):
            name = f"{meta['name']}-{role.lower()}-{index}"
            if role == "Launcher":
                name = f"{meta['name']}-launcher"
            pod = pods.get(name)
            if pod is None:
                operator = f"{job['kind'].lower()}-controller"
                labels = {
                    f"{_PREFIX}/job-name": meta["name"], f"{_PREFIX}/replica-type": role.lower(),
                    f"{_PREFIX}/replica-index": str(index), f"{_PREFIX}/operator-name": operator,
                    **({f"{_PREFIX}/job-role": "master"} if _leads(role, index, roles) else {}),
                }  # fmt: skip
                spec = {"restartPolicy": "Never" if policy == "ExitCode" else policy}
                self.make_pod(job, replica["template"], {"name": name, "labels": labels}, spec)
                continue
            if policy == "ExitCode" and phase(pod) == "Failed" and _exit_code(pod) >= 128:
                text = f"job {meta['name']} is restarting because {role} replica(s) failed."
                _set(status, "Restarting", f"{job['kind']}Restarting", text)
                self._delete([pod], ("Failed",))
                continue
            members.append(pod)
        return members

    def _failure(
        self, job: JsonDict, run: dict[str, Any], by_role: dict[str, list[JsonDict]], status: JsonDict
    ) -> str | None:
        """Why the job has failed, in the operator's words."""
        name, kind = job["metadata"]["name"], job["kind"]
        running = [pod for members in by_role.values() for pod in members if phase(pod) == "Running"]
        limit, deadline = run.get("backoffLimit"), run.get("activeDeadlineSeconds")
        if limit is not None and restarts(running) and restarts(running) >= max(1, limit):
            self._delete(running, ("Running",))
            return f"{kind} {name} has failed because it has reached the specified backoff limit"
        if deadline is not None:
            left = deadline - age_s(status["startTime"])
            if left <= 0:
                self._delete(running, ("Running", "Pending"))
                return f"{kind} {name} has failed because it was active longer than specified deadline"
            self.again(job, left, "deadline")
        for role, members in by_role.items():
            failed = sum(phase(pod) == "Failed" for pod in members)
            if failed:
                verb = "has failed" if kind == "TFJob" else "is failed"
                return f"{_called(job)} {verb} because {failed} {role} replica(s) failed."
        return None

    def _delete(self, pods: Any, phases: tuple[str, ...]) -> None:
        for pod in pods:
            if phase(pod) in phases and not pod["metadata"].get("deletionTimestamp"):
                self.store.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _write(self, job: JsonDict, status: JsonDict) -> None:
        plural = next(kind.plural for kind in self.store.kinds.values() if kind.kind == job["kind"])
        meta = job["metadata"]
        self.store.update(plural, meta["namespace"], meta["name"], lambda _: {"status": status}, subresource="status")


_DONE = {"TFJob": "successfully completed"}


def _called(job: JsonDict) -> str:
    """How the operator calls a job in its messages: TFJobs with their namespace."""
    meta = job["metadata"]
    return f"TFJob {meta['namespace']}/{meta['name']}" if job["kind"] == "TFJob" else f"{job['kind']} {meta['name']}"


def _leads(role: str, index: int, roles: dict[str, Any]) -> bool:
    masters = [name for name in _MASTERS if name in roles]
    return (role in masters if masters else role == "Worker") and index == 0


def _done(kind: str, by_role: dict[str, list[JsonDict]]) -> bool:
    masters = [role for role in _MASTERS if role in by_role]
    deciding = by_role[masters[0]] if masters else by_role.get("Worker", [])
    if not masters and kind not in _ALL_WORKERS:
        deciding = deciding[:1]
    return bool(deciding) and all(phase(pod) == "Succeeded" for pod in deciding)


def _counted(pods: list[JsonDict]) -> JsonDict:
    phases = [phase(pod) for pod in pods]
    counts = {
        "active": phases.count("Running"),
        "succeeded": phases.count("Succeeded"),
        "failed": phases.count("Failed"),
    }
    return {key: count for key, count in counts.items() if count}


def _exit_code(pod: JsonDict) -> int:
    for state in pod["status"].get("containerStatuses", ()):
        return int(state.get("state", {}).get("terminated", {}).get("exitCode", 0))
    return 0


def _set(status: JsonDict, kind: str, reason: str, message: str, value: str = "True") -> None:
    """The operator's rules: Running and Restarting replace each other, an end makes Running false."""
    conditions = [dict(found) for found in status.get("conditions", ())]
    held = next((found for found in conditions if found["type"] == kind), None)
    if held is not None and (held["status"], held["reason"]) == (value, reason):
        return
    drop = {"Running": ("Restarting",), "Restarting": ("Running",)}.get(kind, ())
    conditions = [found for found in conditions if found["type"] not in (kind, *drop)]
    if kind in ("Succeeded", "Failed", "Suspended") and value == "True":
        for found in conditions:
            if found["type"] == "Running":
                found |= {"status": "False", "lastTransitionTime": timestamp()}
    now = timestamp()
    conditions.append({"type": kind, "status": value, "reason": reason, "message": message,
                       "lastUpdateTime": now, "lastTransitionTime": now})  # fmt: skip
    status["conditions"] = conditions
