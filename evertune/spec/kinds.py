"""What is known about the kinds of object that a trial can be: one table, and questions about manifests by it.

Defaults, rules, launches and runners ask here and keep no table of their own. A kind that is not in it works as well:
its conditions are the user's, and nothing is assumed of its shape. Nothing here judges; manifests may be as wrong as
users write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from evertune.spec.document import child_path
from evertune.spec.model import JsonDict

JOB_ROLE = "training.kubeflow.org/job-role"
REPLICA_TYPE = "training.kubeflow.org/replica-type"
REPLICA_INDEX = "training.kubeflow.org/replica-index"
WHOLE_NAME = 63  # characters: names become labels and host names
TRAINING_NAME = 40  # operators append -worker-12 and the like
_REPLICAS = re.compile(r"[a-zA-Z]+ReplicaSpecs\Z")


def condition(type_: str, status: str = "True") -> str:
    """Katib's spelling of: the condition of this type has this status."""
    return f'status.conditions.#(type=="{type_}")#|#(status=="{status}")#'


def phase(name: str) -> str:
    return f'status.[@this].#(phase=="{name}")#'


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """How `status` looks while an object of a kind runs, and each way in which it ends."""

    running: tuple[JsonDict, ...] = ()
    succeeded: tuple[JsonDict, ...] = ()
    failed: tuple[JsonDict, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`silent`: its conditions and labels are filled in when they are left out; else only proposed."""

    kind: str
    group: str
    versions: tuple[str, ...]
    success_condition: str
    failure_condition: str
    silent: bool = True
    primary_pod_labels: Mapping[str, str] | None = None
    template_path: str | None = None  # of its one pod template
    replicas_field: str | None = None  # below spec; holds roles, each with a pod template
    primary_roles: tuple[str, ...] = ()  # the first one that is there has the replica that trains and reports
    container: str | None = None  # the container that the operator takes for the training
    default_restart: str | None = None  # of a replica that says none
    longest_name: int = WHOLE_NAME  # of the trial
    pods_named_by: str | None = None  # the label of its pods with the object's name, where labels of ours do not come
    samples: Samples = field(default_factory=Samples, repr=False)

    @property
    def trains(self) -> bool:
        """A kind of the training or the MPI operator."""
        return self.replicas_field is not None


def _conditions(*conditions: tuple[str, str], **rest: object) -> JsonDict:
    return {"conditions": [{"type": type_, "status": status} for type_, status in conditions], **rest}


_CREATED = ("Created", "True")
_TRAINING = Samples(
    running=(
        _conditions(_CREATED),
        _conditions(_CREATED, ("Running", "True")),
        _conditions(_CREATED, ("Running", "False"), ("Restarting", "True")),
        _conditions(_CREATED, ("Running", "False"), ("Suspended", "True")),
    ),
    succeeded=(_conditions(_CREATED, ("Running", "False"), ("Succeeded", "True")),),
    failed=(_conditions(_CREATED, ("Running", "False"), ("Failed", "True")),),
)
_JOB = Samples(
    running=({"active": 1, "ready": 1}, _conditions(("Suspended", "True"))),
    succeeded=(
        _conditions(("Complete", "True"), succeeded=1, ready=0),
        _conditions(("SuccessCriteriaMet", "True"), ("Complete", "True"), succeeded=1, ready=0),
    ),
    failed=(
        _conditions(("Failed", "True"), failed=1, ready=0),
        _conditions(("FailureTarget", "True"), ("Failed", "True"), failed=1, ready=0),
    ),
)
_TRAINJOB = Samples(
    running=(_conditions(("Suspended", "False")),),
    succeeded=(_conditions(("Suspended", "False"), ("Complete", "True")),),
    failed=(_conditions(("Suspended", "False"), ("Failed", "True")),),
)
_WORKFLOW = Samples(
    running=({"phase": "Pending"}, _conditions(("PodRunning", "True"), phase="Running")),
    succeeded=(_conditions(("PodRunning", "False"), ("Completed", "True"), phase="Succeeded"),),
    failed=(
        _conditions(("PodRunning", "False"), ("Completed", "True"), phase="Failed"),
        _conditions(("Completed", "True"), phase="Error"),
    ),
)
_PIPELINE_RUN = Samples(
    running=(_conditions(("Succeeded", "Unknown")),),
    succeeded=(_conditions(("Succeeded", "True")),),
    failed=(_conditions(("Succeeded", "False")),),
)


def _training(
    kind: str,
    field_: str,
    container: str,
    roles: tuple[str, ...],
    restart: str = "Never",
    versions: tuple[str, ...] = ("v1",),
) -> Kind:
    return Kind(
        kind=kind,
        group="kubeflow.org",
        versions=versions,
        success_condition=condition("Succeeded"),
        failure_condition=condition("Failed"),
        primary_pod_labels=MappingProxyType({JOB_ROLE: "master"}),
        replicas_field=field_,
        primary_roles=roles,
        container=container,
        default_restart=restart,
        longest_name=TRAINING_NAME,
        samples=_TRAINING,
    )


_ALL = (
    Kind(
        kind="Job",
        group="batch",
        versions=("v1",),
        success_condition=condition("Complete"),
        failure_condition=condition("Failed"),
        template_path="spec.template",
        samples=_JOB,
    ),
    _training("TFJob", "tfReplicaSpecs", "tensorflow", ("Chief", "Master", "Worker")),
    _training("PyTorchJob", "pytorchReplicaSpecs", "pytorch", ("Master", "Worker"), "OnFailure"),
    _training("XGBoostJob", "xgbReplicaSpecs", "xgboost", ("Master",)),
    _training("MPIJob", "mpiReplicaSpecs", "mpi", ("Launcher",), versions=("v1", "v2beta1")),
    _training("JAXJob", "jaxReplicaSpecs", "jax", ("Worker",)),
    _training("PaddleJob", "paddleReplicaSpecs", "paddle", ("Master", "Worker"), "OnFailure"),
    Kind(
        kind="TrainJob",
        group="trainer.kubeflow.org",
        versions=("v1alpha1",),
        success_condition=condition("Complete"),
        failure_condition=condition("Failed"),
        primary_pod_labels=MappingProxyType(
            {"jobset.sigs.k8s.io/replicatedjob-name": "node", "batch.kubernetes.io/job-completion-index": "0"}
        ),
        container="node",
        longest_name=TRAINING_NAME,  # its pods are called <name>-node-0-0-<five characters>
        pods_named_by="jobset.sigs.k8s.io/jobset-name",
        samples=_TRAINJOB,
    ),
    Kind(
        kind="Workflow",
        group="argoproj.io",
        versions=("v1alpha1",),
        success_condition=phase("Succeeded"),
        # Both Failed and Error: whatever a phase is beyond these three.
        failure_condition='status.[@this].#(phase!="Pending")#|#(phase!="Running")#|#(phase!="Succeeded")#',
        silent=False,
        container="main",
        samples=_WORKFLOW,
    ),
    Kind(
        kind="PipelineRun",
        group="tekton.dev",
        versions=("v1", "v1beta1"),
        success_condition=condition("Succeeded"),
        failure_condition=condition("Succeeded", "False"),
        silent=False,
        samples=_PIPELINE_RUN,
    ),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.kind: kind for kind in _ALL})
TRAINING_KINDS = tuple(kind.kind for kind in _ALL if kind.trains)


def kind_of(manifest: JsonDict) -> Kind | None:
    """The known kind of an object, by kind and group: a `Job` of another group is not Kubernetes' own."""
    name, version = manifest.get("kind"), manifest.get("apiVersion")
    known = KINDS.get(name) if isinstance(name, str) else None
    if known is None or not isinstance(version, str):
        return None
    return known if version.rpartition("/")[0] == known.group else None


def shown(manifest: JsonDict) -> str:
    """`Job (batch/v1)`, for sentences."""
    return f"{manifest.get('kind')} ({manifest.get('apiVersion')})"


def _replicas(manifest: JsonDict) -> Iterator[tuple[str, str, JsonDict]]:
    """(path below the manifest, role, replica) of a training kind, whichever of the replica fields it uses."""
    spec = manifest.get("spec")
    if manifest.get("kind") not in TRAINING_KINDS or not isinstance(spec, dict):
        return
    for key, replicas in spec.items():
        if isinstance(key, str) and _REPLICAS.match(key) and isinstance(replicas, dict):
            for role, replica in replicas.items():
                if isinstance(role, str) and isinstance(replica, dict):
                    yield child_path(f"spec.{key}", role), role, replica


def replicas_of(manifest: JsonDict) -> dict[str, JsonDict]:
    """Role, as the manifest spells it, to its replica spec; empty for what is no training kind."""
    return {role: replica for _, role, replica in _replicas(manifest)}


def pod_templates(manifest: JsonDict) -> Iterator[tuple[str, str, JsonDict]]:
    """(path below the manifest, role, pod template) of each pod template of the kinds that have some.

    The role is "" where a kind has none. TrainJob, Workflow and PipelineRun have no pod template.
    """
    for where, role, replica in _replicas(manifest):
        if isinstance(replica.get("template"), dict):
            yield f"{where}.template", role, replica["template"]
    known = KINDS.get(str(manifest.get("kind")))
    spec = manifest.get("spec")
    if known is not None and known.template_path and isinstance(spec, dict) and isinstance(spec.get("template"), dict):
        yield known.template_path, "", spec["template"]


def containers_of(template: JsonDict) -> Iterator[tuple[int, JsonDict]]:
    """(index, container) of the main containers in a pod template."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if isinstance(container, dict):
            yield index, container


def container_names(manifest: JsonDict) -> list[str]:
    """Names of the main containers in a manifest of a known kind, in order, each once."""
    names: dict[str, None] = {}
    for _, _, template in pod_templates(manifest):
        for _, container in containers_of(template):
            if isinstance(container.get("name"), str):
                names[container["name"]] = None
    return list(names)


def primary_role(manifest: JsonDict) -> str | None:
    """The role, as the manifest spells it, whose first replica trains and reports; None where a kind has no roles."""
    known = KINDS.get(str(manifest.get("kind")))
    there = {role.lower(): role for role in replicas_of(manifest)}
    return next((there[role.lower()] for role in known.primary_roles if role.lower() in there), None) if known else None


def primary_pod_labels(manifest: JsonDict) -> dict[str, str]:
    """The labels that tell the reporting pod of a kind from its others; empty where every pod reports.

    Katib's. Two things it cannot know: the MPI operator's own version calls the launcher so, and a PaddleJob that has
    only workers has no master.
    """
    known = KINDS.get(str(manifest.get("kind")))
    if known is None or not known.primary_pod_labels:
        return {}
    if known.kind == "MPIJob" and str(manifest.get("apiVersion")).endswith("/v2beta1"):
        return {JOB_ROLE: "launcher"}
    if known.kind == "PaddleJob" and str(primary_role(manifest)).lower() == "worker":
        return {REPLICA_TYPE: "worker", REPLICA_INDEX: "0"}
    return dict(known.primary_pod_labels)
