"""What a distributed job consists of: its roles, how many replicas each has, when one of them is run again.

Reads the manifests of the Training Operator (`kubeflow.org/v1`: TFJob, PyTorchJob, XGBoostJob, JAXJob, PaddleJob), with
the operator's defaults filled in, and `batch/v1` Jobs with `completionMode: Indexed`. Called by `operator_env`
and `replicas`. Pure. What the operator would refuse is a LaunchError here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evertune.errors import LaunchError
from evertune.protocols import JsonDict
from evertune.spec.kinds import KINDS

INDEXED = "Index"  # the one role of an Indexed Job
RESTART_POLICIES = ("Never", "OnFailure", "Always", "ExitCode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What the Training Operator has for a kind beyond `evertune.spec.kinds`, v1.9.0."""

    kind: str
    port_name: str
    port: int
    roles: tuple[str, ...]  # in the order in which replicas are listed
    masters: tuple[str, ...] = ()  # of these the first that is there leads the job; else the first worker does

    @property
    def field(self) -> str:
        return KINDS[self.kind].replicas_field or ""

    @property
    def container(self) -> str:
        return KINDS[self.kind].container or ""

    @property
    def restart(self) -> str:
        return KINDS[self.kind].default_restart or "Never"


_ALL = (
    Operator(
        kind="TFJob",
        port_name="tfjob-port",
        port=2222,
        roles=("Chief", "Master", "PS", "Worker", "Evaluator"),
        masters=("Chief", "Master"),
    ),
    Operator(
        kind="PyTorchJob", port_name="pytorchjob-port", port=23456, roles=("Master", "Worker"), masters=("Master",)
    ),
    Operator(
        kind="XGBoostJob", port_name="xgboostjob-port", port=9999, roles=("Master", "Worker"), masters=("Master",)
    ),
    Operator(kind="JAXJob", port_name="jaxjob-port", port=6666, roles=("Worker",)),
    Operator(kind="PaddleJob", port_name="master", port=36543, roles=("Master", "Worker"), masters=("Master",)),
)
OPERATED: Mapping[str, Operator] = {operator.kind: operator for operator in _ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    name: str
    path: str  # of its replica spec in the manifest
    count: int
    restart: str
    template: JsonDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`operator` is None for an Indexed Job."""

    kind: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: JsonDict
    operator: Operator | None
    roles: Mapping[str, Role]
    backoff_limit: int | None
    deadline_s: int | None

    @property
    def total(self) -> int:
        return sum(role.count for role in self.roles.values())

    def count(self, role: str) -> int:
        return self.roles[role].count if role in self.roles else 0

    def leads(self, role: str, index: int) -> bool:
        """Whether the operator gives this replica the label `training.kubeflow.org/job-role: master`."""
        masters = self.operator.masters if self.operator else ()
        there = [name for name in masters if name in self.roles]
        if there:
            return role in there
        return index == 0 and role in ("Worker", INDEXED) and self.kind not in ("XGBoostJob", "PaddleJob")

    def service(self, role: str, index: int) -> str:
        """The name of the pod, and of its service."""
        return f"{self.name}-{index}" if role == INDEXED else f"{self.name}-{role.lower()}-{index}"


def is_distributed(manifest: JsonDict) -> bool:
    """Whether a manifest is run as replicas, be it one; everything else is one process or cannot run here."""
    return manifest.get("kind") in OPERATED or (manifest.get("kind") == "Job" and _indexed(manifest))


def shape_of(manifest: JsonDict) -> Shape:
    """The shape of a manifest that `is_distributed`. LaunchError for what no controller would start."""
    kind, spec, metadata = manifest["kind"], _mapping(manifest.get("spec")), _mapping(manifest.get("metadata"))
    operator = OPERATED.get(kind)
    policy = _mapping(spec.get("runPolicy")) if operator else spec
    where = "spec.runPolicy" if operator else "spec"
    if policy.get("suspend"):
        raise LaunchError(f"{where}.suspend: true means that the {kind} never starts", "leave suspend out")
    shape = Shape(
        kind=kind,
        name=str(metadata.get("name", "")),
        namespace=str(metadata.get("namespace") or "default"),
        labels={str(key): str(value) for key, value in _mapping(metadata.get("labels")).items()},
        spec=spec,
        operator=operator,
        roles=_roles(kind, spec, operator) if operator else _indexes(spec),
        backoff_limit=whole(policy.get("backoffLimit"), f"{where}.backoffLimit"),
        deadline_s=whole(policy.get("activeDeadlineSeconds"), f"{where}.activeDeadlineSeconds"),
    )
    _refuse(shape)
    return shape


def whole(value: Any, path: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise LaunchError(f"{path}: {value!r} is not a whole number of at least 0")
    return value


def _roles(kind: str, spec: JsonDict, operator: Operator) -> dict[str, Role]:
    # The operator takes a role in any case, worker as well as Worker.
    proper = {role.lower(): role for role in operator.roles}
    found = {}
    for written, replica in _mapping(spec.get(operator.field)).items():
        path = f"spec.{operator.field}.{written}"
        role = proper.get(str(written).lower())
        if role is None:
            raise LaunchError(f"{path}: a {kind} has no such role", f"its roles are {', '.join(operator.roles)}")
        body = _mapping(replica)
        restart = body.get("restartPolicy") or operator.restart
        if restart not in RESTART_POLICIES:
            raise LaunchError(f"{path}.restartPolicy: {restart!r} is none of {', '.join(RESTART_POLICIES)}")
        count = whole(body.get("replicas"), f"{path}.replicas")
        template = _mapping(body.get("template"))
        names = [container.get("name") for container in _mapping(template.get("spec")).get("containers") or ()]
        if operator.container not in names:
            raise LaunchError(
                f"{path}: the training operator wants a container named {operator.container} in it",
                f"it has {', '.join(map(str, names)) or 'none'}",
            )
        found[role] = Role(
            name=role, path=path, count=1 if count is None else count, restart=restart, template=template
        )
    return {role: found[role] for role in operator.roles if role in found}


def _indexes(spec: JsonDict) -> dict[str, Role]:
    completions = whole(spec.get("completions"), "spec.completions")
    parallelism = whole(spec.get("parallelism"), "spec.parallelism")
    count = 1 if completions is None else completions
    if (1 if parallelism is None else parallelism) < count:
        raise LaunchError(
            f"spec.parallelism: {1 if parallelism is None else parallelism} would run {count} indexes one after"
            " another, locally they run at once",
            f"write parallelism: {count}",
        )
    if spec.get("successPolicy"):
        raise LaunchError("spec.successPolicy is not known locally, where all indexes must succeed", "leave it out")
    # The Job controller makes a new pod for one that failed whatever the pod's own policy is.
    role = Role(name=INDEXED, path="spec", count=count, restart="OnFailure", template=_mapping(spec.get("template")))
    return {INDEXED: role}


def _refuse(shape: Shape) -> None:
    operator = shape.operator
    if shape.total == 0:
        field = f"spec.{operator.field}" if operator else "spec.completions"
        raise LaunchError(f"{field}: the {shape.kind} has no replica at all")
    if operator is None:
        return
    if shape.kind == "XGBoostJob" and "Master" not in shape.roles:
        raise LaunchError(f"spec.{operator.field}: an XGBoostJob needs the role Master")
    masters = [role for role in operator.masters if role in shape.roles]
    if len(masters) > 1:
        raise LaunchError(f"spec.{operator.field}: {' and '.join(masters)} cannot both lead the {shape.kind}")
    for role in masters:
        path, count = f"{shape.roles[role].path}.replicas", shape.count(role)
        if count == 0:
            raise LaunchError(f"{path}: without a {role} the {shape.kind} never ends")
        if count > 1 and shape.kind in ("PyTorchJob", "XGBoostJob"):
            raise LaunchError(f"{path}: {count} is not 1, a {shape.kind} has one {role}")
    if not masters and shape.count("Worker") == 0:
        raise LaunchError(f"spec.{operator.field}: a {shape.kind} needs {' or '.join((*operator.masters, 'Worker'))}")
    if shape.spec.get("elasticPolicy") is not None and shape.count("Worker") == 0:
        raise LaunchError("spec.elasticPolicy needs the role Worker")


def _indexed(manifest: JsonDict) -> bool:
    return _mapping(manifest.get("spec")).get("completionMode") == "Indexed"


def _mapping(value: Any) -> JsonDict:
    return value if isinstance(value, dict) else {}
