"""From a distributed job to the processes that stand for it on this machine: one per replica, and what ends the job.

Each replica becomes a Job of one container, so that `command` prepares it by the rules of any other Job. Called by
`group` and by `evertune render --local`. Pure: ports are handed in, nothing is started.

The operator's rules for the end (v1.9.0), where a replica has succeeded or failed for good when it is not run again:

    TFJob        a Chief or Master: all of these; else worker 0, or with `successPolicy: AllWorkers` every worker
    PyTorchJob   the Master; else every worker, or with `elasticPolicy` any
    XGBoostJob   the Master
    PaddleJob    the Master; else every worker
    JAXJob       every worker
    Indexed Job  every index

Any replica that fails for good fails the job, except a TFJob's worker with `enableDynamicWorker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from activities.runners.local.operator_env import JOB_INDEX, Local, labels, with_variables
from activities.runners.local.shape import INDEXED, Role, Shape, shape_of
from evertune.errors import LaunchError
from evertune.protocols import JsonDict

MOST_RESTARTS = 3  # of one replica; the operator knows no limit, and a trial that crashes for ever helps nobody
SIGNALLED = 128  # the exit status from which `ExitCode` runs a replica again


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """`needed` for the job's success (of all needed ones, or of any); `fatal` when its failure is the job's."""

    name: str  # worker-1: its directory, and what `evertune logs --replica` takes
    role: str
    index: int
    container: str
    restart: str
    runs: int
    restarts_from: int  # the lowest exit status after which it is run again
    primary: bool = False  # whose log and metrics are the attempt's
    needed: bool = False
    fatal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    shape: Shape
    members: tuple[Replica, ...]
    any_suffices: bool
    restarts: int | None  # of all of them together

    def manifest(self, replica: Replica, ports: Mapping[tuple[str, int], int]) -> JsonDict:
        """The replica as a Job of its own, with the variables that its pod would have."""
        shape, role = self.shape, self.shape.roles[replica.role]
        pod = dict(role.template.get("spec") or {})
        pod["containers"] = [
            with_variables(shape, replica.role, replica.index, Local(shape, ports), container)
            for container in pod.get("containers") or ()
        ]
        annotations = dict((role.template.get("metadata") or {}).get("annotations") or {})
        if replica.role == INDEXED:
            annotations[JOB_INDEX] = str(replica.index)
        return {
            "kind": "Job",
            "metadata": {
                "name": shape.service(replica.role, replica.index),
                "namespace": shape.namespace,
                "labels": {**shape.labels, **labels(shape, replica.role, replica.index)},
                "annotations": annotations,
            },
            "spec": {"template": {"spec": pod}, "activeDeadlineSeconds": shape.deadline_s},
        }


def replicas_of(
    manifest: JsonDict, primary_container: str, primary_pod_labels: Mapping[str, str] | None = None
) -> Replicas:
    """The replicas of a manifest that `shape.is_distributed`. LaunchError for what its controller would not start."""
    shape = shape_of(manifest)
    needed, any_suffices = _needed(shape)
    primary = _primary(shape, primary_pod_labels or {})
    members = [
        Replica(
            name=f"{role.name.lower()}-{index}",
            role=role.name,
            index=index,
            container=_container(shape, role.name, primary_container, (role.name, index) == primary),
            restart=role.restart,
            runs=1 + _restarts(shape, role),
            restarts_from=SIGNALLED if role.restart == "ExitCode" else 1,
            primary=(role.name, index) == primary,
            needed=(role.name, index) in needed,
            fatal=not (role.name == "Worker" and bool(shape.spec.get("enableDynamicWorker"))),
        )
        for role in shape.roles.values()
        for index in range(role.count)
    ]
    return Replicas(shape=shape, members=tuple(members), any_suffices=any_suffices, restarts=shape.backoff_limit)


def _needed(shape: Shape) -> tuple[set[tuple[str, int]], bool]:
    masters = shape.operator.masters if shape.operator else ()
    there = [name for name in masters if name in shape.roles]
    if there:
        return {(name, index) for name in there for index in range(shape.count(name))}, False
    if shape.kind == "TFJob" and shape.spec.get("successPolicy") != "AllWorkers":
        return {("Worker", 0)}, False
    role = INDEXED if shape.operator is None else "Worker"
    return {(role, index) for index in range(shape.count(role))}, shape.spec.get("elasticPolicy") is not None


def _primary(shape: Shape, wanted: Mapping[str, str]) -> tuple[str, int]:
    """The replica that reports: of those with these labels the one that leads, else the first."""
    every = [(role.name, index) for role in shape.roles.values() for index in range(role.count)]
    # A PaddleJob of workers has no master, so Katib's label for one names none of its pods.
    role_only = set(wanted) == {"training.kubeflow.org/job-role"}
    matching = [key for key in every if wanted.items() <= labels(shape, *key).items()]
    if not matching and not role_only:
        said = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise LaunchError(f"no replica of the {shape.kind} has the labels {said} (primaryPodLabels)")
    candidates = matching or every
    leading = [key for key in candidates if shape.leads(*key)]
    workers = [key for key in candidates if key[0] == "Worker"]
    return (leading or workers or candidates)[0]


def _container(shape: Shape, role: str, primary_container: str, primary: bool) -> str:
    names = [c.get("name") for c in (shape.roles[role].template.get("spec") or {}).get("containers") or ()]
    if primary or shape.operator is None or primary_container in names:
        return primary_container
    return shape.operator.container


def _restarts(shape: Shape, role: Role) -> int:
    """How often one replica may be run again. As for any local Job, Kubernetes' default of 6 is not applied."""
    if shape.operator is None:
        return shape.backoff_limit or 0
    if role.restart == "Never":
        return 0
    return MOST_RESTARTS if shape.backoff_limit is None else min(shape.backoff_limit, MOST_RESTARTS)
