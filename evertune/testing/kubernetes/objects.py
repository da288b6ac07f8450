"""What a Kubernetes API server does to single objects: kinds, selectors, merge patches, and its refusals.

Called by the store and the server of the fake. Knows no HTTP. Nothing here changes an object in place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

JsonDict = dict[str, Any]

BUILTIN_GROUPS = ("", "batch", "apps", "authorization.k8s.io", "rbac.authorization.k8s.io", "jobset.x-k8s.io")


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource that the server has. `status` says whether it has the sub-resource of that name."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def builtin(self) -> bool:
        """Lists of built-in kinds hold items without `kind` and `apiVersion`; those of custom resources have both."""
        return self.group in BUILTIN_GROUPS[:-1]

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


KINDS = (
    Kind("", "v1", "namespaces", "Namespace", namespaced=False),
    Kind("", "v1", "pods", "Pod"),
    Kind("", "v1", "configmaps", "ConfigMap", status=False),
    Kind("", "v1", "secrets", "Secret", status=False),
    Kind("", "v1", "services", "Service"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", status=False),
    Kind("", "v1", "events", "Event", status=False),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("kubeflow.org", "v1", "tfjobs", "TFJob"),
    Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"),
    Kind("kubeflow.org", "v1", "mpijobs", "MPIJob"),
    Kind("kubeflow.org", "v1", "xgboostjobs", "XGBoostJob"),
    Kind("kubeflow.org", "v1", "jaxjobs", "JAXJob"),
    Kind("kubeflow.org", "v1", "paddlejobs", "PaddleJob"),
    Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"),
    Kind("argoproj.io", "v1alpha1", "workflows", "Workflow", status=False),
    Kind("tekton.dev", "v1beta1", "pipelineruns", "PipelineRun"),
    Kind("tekton.dev", "v1", "pipelineruns", "PipelineRun"),
)

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Refused(Exception):
    """The server's answer to a request that it does not carry out: a Status object."""

    def __init__(self, code: int, message: str, *, reason: str | None = None, details: JsonDict | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or REASONS.get(code, "Unknown")
        self.message = message
        self.details = details or {}

    @property
    def body(self) -> JsonDict:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def not_found(kind: Kind, name: str) -> Refused:
    details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
    return Refused(404, f'{kind.qualified} "{name}" not found', details=details)


def invalid(kind: Kind, name: str, causes: list[tuple[str, str, str]]) -> Refused:
    """`causes`: reason, field and message of each broken rule."""
    listed = [f"{where}: {message}" for _, where, message in causes]
    text = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    details = {
        "name": name,
        **({"group": kind.group} if kind.group else {}),
        "kind": kind.kind,
        "causes": [{"reason": reason, "message": message, "field": where} for reason, where, message in causes],
    }
    return Refused(422, f'{kind.qualified_kind} "{name}" is invalid: {text}', details=details)


def timestamp(at: datetime | None = None) -> str:
    """Whole seconds, as in every timestamp of an object."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deleting(meta: JsonDict, grace: int) -> JsonDict:
    """Metadata of what is to go: its time is the end of the grace period, which may only become shorter."""
    asked = datetime.now(UTC)
    if "deletionTimestamp" in meta:
        held = int(meta.get("deletionGracePeriodSeconds", 0))
        grace = min(grace, held)
        asked = datetime.fromisoformat(meta["deletionTimestamp"]) - timedelta(seconds=held)
    end = timestamp(asked + timedelta(seconds=grace))
    return {**meta, "deletionTimestamp": end, "deletionGracePeriodSeconds": grace}


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386), as a new value."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


# --------------------------------------------------------------------------------------------- selectors

_SET = re.compile(r"^([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)$")
_NAME = re.compile(r"^[\w./-]+$")

# What a field selector may name; of any other field the server says so.
_FIELDS = {
    "pods": {
        "metadata.name", "metadata.namespace", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
        "spec.serviceAccountName", "status.phase", "status.podIP", "status.nominatedNodeName",
    },
    "events": {
        "metadata.name", "metadata.namespace", "involvedObject.kind", "involvedObject.namespace",
        "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.fieldPath",
        "reason", "reportingComponent", "source", "type",
    },
    "jobs": {"metadata.name", "metadata.namespace", "status.successful"},
    "namespaces": {"metadata.name", "status.phase"},
}  # fmt: skip
_ALWAYS = {"metadata.name", "metadata.namespace"}


class LabelSelector:
    """Equality and set requirements; raises Refused(400) for what the server cannot parse."""

    def __init__(self, text: str | None) -> None:
        self._requirements = (
            [self._parse(part.strip(), text) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
            if text
            else []
        )

    @staticmethod
    def _parse(part: str, text: str | None) -> tuple[str, str, frozenset[str]]:
        if found := _SET.match(part):
            return found[1], found[2], frozenset(value.strip() for value in found[3].split(","))
        if "!=" in part:
            key, value = part.split("!=", 1)
            return key.strip(), "notin", frozenset({value.strip()})
        if "=" in part:
            key, value = re.split("==?", part, maxsplit=1)
            return key.strip(), "in", frozenset({value.strip()})
        name = part.removeprefix("!")
        if not _NAME.match(name):
            raise Refused(400, f"unable to parse requirement: found '{part}' in selector {text!r}")
        return name, "absent" if part.startswith("!") else "present", frozenset()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        labels = labels or {}
        for key, operator, values in self._requirements:
            match operator:
                case "in":
                    holds = key in labels and labels[key] in values
                case "notin":
                    holds = labels.get(key) not in values
                case "present":
                    holds = key in labels
                case _:
                    holds = key not in labels
            if not holds:
                return False
        return True


class FieldSelector:
    """Equality on the few fields that a kind offers; raises Refused(400) for another field."""

    def __init__(self, text: str | None, kind: Kind) -> None:
        self._requirements: list[tuple[list[str], str, bool]] = []
        for part in filter(None, (text or "").split(",")):
            wanted = "!=" not in part
            key, _, value = part.replace("==", "=").replace("!=", "=").partition("=")
            if key not in _FIELDS.get(kind.plural, _ALWAYS):
                raise Refused(400, f"field label not supported: {key}")
            self._requirements.append((key.split("."), value, wanted))

    def matches(self, obj: JsonDict) -> bool:
        for steps, value, wanted in self._requirements:
            found: Any = obj
            for step in steps:
                found = found.get(step) if isinstance(found, Mapping) else None
            if ((found or "") == value) is not wanted:
                return False
        return True
