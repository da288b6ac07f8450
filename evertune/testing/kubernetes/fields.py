"""Which fields objects may have, as far as evertune's users write them: the root, Jobs, pod templates, containers.

A real server decodes by a schema of thousands of fields. The fake knows those of the levels where typing errors and
old schemas bite; what lies deeper passes. `rejected` of the store adds paths, as an old custom resource definition
has them that lacks a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from evertune.testing.kubernetes.objects import JsonDict, Kind, Refused, invalid

_ROOT = {"apiVersion", "kind", "metadata", "spec", "status"}
_META = {
    "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
    "generation", "labels", "managedFields", "name", "namespace", "ownerReferences", "resourceVersion", "selfLink",
    "uid",
}  # fmt: skip
_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode", "completions", "managedBy",
    "manualSelector", "maxFailedIndexes", "parallelism", "podFailurePolicy", "podReplacementPolicy", "selector",
    "successPolicy", "suspend", "template", "ttlSecondsAfterFinished",
}  # fmt: skip
_REPLICA = {"replicas", "restartPolicy", "template"}
_RUN = {
    "activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "managedBy", "schedulingPolicy", "suspend",
    "ttlSecondsAfterFinished",
}  # fmt: skip
_POD = {
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy",
    "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers",
    "hostname", "hostnameOverride", "imagePullSecrets", "initContainers", "nodeName", "nodeSelector", "os", "overhead",
    "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resourceClaims", "resources",
    "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates", "securityContext", "serviceAccount",
    "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds",
    "tolerations", "topologySpreadConstraints", "volumes",
}  # fmt: skip
_CONTAINER = {
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports",
    "readinessProbe", "resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext",
    "startupProbe", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices",
    "volumeMounts", "workingDir",
}  # fmt: skip
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")


def replica_specs(obj: JsonDict) -> dict[str, Any]:
    """The roles of a training job, by name."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return {}
    return next((value for key, value in spec.items() if key.endswith("ReplicaSpecs") and isinstance(value, dict)), {})


def unknown_fields(kind: Kind, obj: JsonDict) -> list[str]:
    """The paths of fields that the kind does not have, as the server writes them."""
    found = [*_beyond(obj, _ROOT if kind.group or kind.plural == "pods" else set(obj), "")]
    found += _beyond(obj.get("metadata"), _META, "metadata")
    spec = obj.get("spec")
    if kind.plural == "jobs" and isinstance(spec, dict):
        found += _beyond(spec, _JOB, "spec")
        found += _of_template(spec.get("template"), "spec.template")
    elif kind.plural == "pods":
        found += _of_pod(spec, "spec")
    elif kind.group == "kubeflow.org" and isinstance(spec, dict):
        found += _beyond(spec.get("runPolicy"), _RUN, "spec.runPolicy")
        for field, roles in spec.items():
            if field.endswith("ReplicaSpecs") and isinstance(roles, dict):
                for role, replica in roles.items():
                    where = f"spec.{field}.{role}"
                    found += _beyond(replica, _REPLICA, where)
                    if isinstance(replica, dict):
                        found += _of_template(replica.get("template"), f"{where}.template")
    return found


def matching(obj: JsonDict, patterns: Iterable[str]) -> list[str]:
    """The paths of `obj` that a pattern of `rejected` names; `*` stands for any key or index."""
    return [path for pattern in patterns for path in _walk(obj, pattern.split("."), "")]


def without(obj: JsonDict, paths: Iterable[str]) -> JsonDict:
    """A copy that lacks these fields: what a server stores that prunes instead of refusing."""
    result = obj
    for path in paths:
        result = _cut(result, [step for step in re.split(r"[.\[\]]+", path) if step])
    return result


def check(kind: Kind, obj: JsonDict) -> None:
    """Raises Refused(422) for names, labels and pod templates that the server's validation does not take."""
    meta = obj["metadata"]
    name = meta["name"]
    causes: list[tuple[str, str, str]] = []
    if not _NAME.match(name) or len(name) > 253:
        causes.append((
            "FieldValueInvalid", "metadata.name",
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character",
        ))  # fmt: skip
    causes += _bad_labels(meta.get("labels"), "metadata.labels")
    spec = obj.get("spec") or {}
    if kind.plural == "jobs":
        template = spec.get("template") or {}
        causes += _bad_labels((template.get("metadata") or {}).get("labels"), "spec.template.labels")
        causes += _bad_pod(template.get("spec") or {}, "spec.template.spec")
        policy = (template.get("spec") or {}).get("restartPolicy") or "Always"
        where = "spec.template.spec.restartPolicy"
        if policy == "Always":  # what it is unless somebody says
            causes.append(("FieldValueRequired", where, 'Required value: valid values: "OnFailure", "Never"'))
        elif policy not in ("OnFailure", "Never"):
            value = f'Unsupported value: "{policy}": supported values: "OnFailure", "Never"'
            causes.append(("FieldValueNotSupported", where, value))
    elif kind.plural == "pods":
        causes += _bad_pod(spec, "spec")
    if causes:
        raise invalid(kind, name, causes)


def _bad_labels(labels: Any, where: str) -> Iterator[tuple[str, str, str]]:
    for value in (labels or {}).values():
        if not isinstance(value, str):
            continue
        if len(value) > 63:
            yield "FieldValueInvalid", where, f'Invalid value: "{value}": must be no more than 63 characters'
        elif not _LABEL.match(value):
            yield (
                "FieldValueInvalid",
                where,
                f'Invalid value: "{value}": a valid label must be an empty string or consist of alphanumeric '
                "characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            )


def _bad_pod(spec: JsonDict, where: str) -> Iterator[tuple[str, str, str]]:
    containers = spec.get("containers")
    if not containers:
        yield "FieldValueRequired", f"{where}.containers", "Required value"
        return
    seen: set[str] = set()
    for place in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(place) or []):
            at = f"{where}.{place}[{index}]"
            name = container.get("name", "")
            if not name:
                yield "FieldValueRequired", f"{at}.name", "Required value"
            elif name in seen:
                yield "FieldValueDuplicate", f"{at}.name", f'Duplicate value: "{name}"'
            if not container.get("image"):
                yield "FieldValueRequired", f"{at}.image", "Required value"
            seen.add(name)


def _beyond(value: Any, known: set[str], where: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{where}.{key}" if where else key for key in value if key not in known)


def _of_template(template: Any, where: str) -> Iterator[str]:
    if isinstance(template, dict):
        yield from _beyond(template, {"metadata", "spec"}, where)
        yield from _of_pod(template.get("spec"), f"{where}.spec")


def _of_pod(spec: Any, where: str) -> Iterator[str]:
    if not isinstance(spec, dict):
        return
    yield from _beyond(spec, _POD, where)
    for place in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(place) or []):
            yield from _beyond(container, _CONTAINER, f"{where}.{place}[{index}]")


def _walk(value: Any, steps: list[str], where: str) -> Iterator[str]:
    if not steps:
        yield where
        return
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        for key in value if step == "*" else [step]:
            if key in value:
                yield from _walk(value[key], rest, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if step in ("*", str(index)):
                yield from _walk(item, rest, f"{where}[{index}]")


def _cut(value: Any, steps: list[str]) -> Any:
    step, rest = steps[0], steps[1:]
    if isinstance(value, list):
        at = int(step)
        return [_cut(item, rest) if index == at and rest else item for index, item in enumerate(value)]
    if not isinstance(value, dict) or step not in value:
        return value
    if not rest:
        return {key: item for key, item in value.items() if key != step}
    return {**value, step: _cut(value[step], rest)}


def strict_error(kind: Kind, paths: list[str]) -> Refused:
    listed = ", ".join(f'unknown field "{path}"' for path in paths)
    return Refused(
        400,
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding error: {listed}',
    )
