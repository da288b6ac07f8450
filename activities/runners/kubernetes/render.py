"""From a launch to the object that is sent to the API server: name, labels, variables, deadline, memory, collector.

Called by the runner for each attempt, and by `evertune render --kubernetes`, which shows it. Pure: no cluster is asked,
and the same launch gives the same object. What the user wrote stays unless this page says otherwise:

* The object is called as the attempt. It and each pod carry our labels and Katib's. Istio's proxy is kept out of the
  pods unless the user has said something about it, because it would keep them alive.
* The training container, in all pods that have it, learns whose process it is, and its parameters.
* Only the template of the primary role gets a collector (`choice`, `inject`).
* The trial's deadline becomes the object's, where the kind has one and the user's is not shorter.
* A Job with restartPolicy Never does not charge evictions to its backoffLimit, unless it has a podFailurePolicy.
* An argument `--name="value"` with literal quotes loses them, as locally: Katib's NAS examples rely on a shell for it.

Kinds without a pod template get labels only where they are known to be allowed: Argo's `podMetadata`, and the object's
own, which Tekton hands on. Nothing else of them is touched, except a TrainJob's `trainer.env`.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.checkpoints import give_checkpoints
from activities.runners.kubernetes.choice import Choice, Features, Mode, choose
from activities.runners.kubernetes.inject import IN_IMAGE, ORIGIN, Injection, OneOf, inject, paths, variables
from activities.runners.kubernetes.quantities import grown
from activities.runners.local.variables import identity, reporting
from evertune.errors import LaunchError
from evertune.protocols import JsonDict, Launch
from evertune.spec.kinds import (
    REPLICA_INDEX,
    REPLICA_TYPE,
    containers_of,
    kind_of,
    pod_templates,
    primary_pod_labels,
    primary_role,
    replicas_of,
)

__all__ = ["Features", "Injection", "Rendered", "rendered"]

ISTIO = "sidecar.istio.io/inject"
COMPLETION_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
DISRUPTIONS: JsonDict = {
    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}
DISRUPTIONS_SINCE = (1, 26)
_SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"}
_QUOTED = re.compile(r'(--?[A-Za-z][\w.-]*=)"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """`reason` is one sentence about the mode. `warnings`: what will not be as somebody may expect, a sentence each."""

    manifest: JsonDict
    mode: Mode
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pods:
    """A pod template of the object, by role; `""` where a kind has none."""

    role: str
    template: JsonDict
    container: JsonDict | None  # the training container, when the template has it


def rendered(launch: Launch, *, database_id: str, config: Injection, features: Features) -> Rendered:
    """The object as it is to be created. Raises LaunchError when that cannot be, or nobody could read its metrics."""
    manifest = copy.deepcopy(launch.manifest)
    manifest.setdefault("metadata", {})["name"] = labels.object_name(launch.ref)
    pods = _pods(manifest, launch.primary_container)
    primary = _primary(manifest, pods, launch)
    for each in pods:
        if each.container is not None:
            image = _image(each.container, config)
            give_checkpoints(
                each.template, each.container, launch.checkpoints, launch.ref.number, f"{IN_IMAGE}/busybox", image
            )
    choice = choose(launch, primary.container if primary else None, config.mode, features)
    warnings: list[str] = []
    own_labels = {**launch.labels, **labels.owned(launch.ref, database_id)}
    _label(manifest["metadata"], own_labels)
    _label_pods(manifest, pods, own_labels)
    for each in pods:
        if each.container is not None:
            _unquote(each.container)
            _grow(each.container, launch)
    if primary is not None and primary.container is not None and choice.mode in ("native", "classic"):
        one_of, warning = _one_of(manifest, primary.role, launch)
        warnings += warning
        restarts = _restart_policy(manifest, primary) in ("OnFailure", "Always")
        account = config.identity == "account" and launch.cluster is None
        if config.identity == "account" and not account:
            warnings.append(
                f"the gateway asks its own cluster about pods, not {launch.cluster}: these get a key instead"
            )
        shared = _told(launch, choice, manifest, primary.container, shared=True)
        shared.pop("EVERTUNE_CHECKPOINT_DIR", None)  # the training's alone
        inject(
            primary.template, primary.container, launch, choice, config,
            restarts=restarts, one_of=one_of, account=account, custom_env=variables(shared),
        )  # fmt: skip
        if launch.custom_collector is not None and not launch.custom_collector.get("command"):
            warnings.append(
                "the custom collector has no command, so what it prints cannot be read: "
                "the file of source.fileSystemPath is read by evertune's own rules as well"
            )
    for each in pods:
        if each.container is not None:
            shares = each is primary and choice.mode in ("native", "classic")
            told = _told(launch, choice, manifest, each.container, shared=shares)
            _tell(each.container, told, set(identity(launch, manifest)))
    if manifest.get("kind") == "TrainJob":
        _tell_trainer(manifest, _told(launch, choice, manifest, {}, shared=False), set(identity(launch, manifest)))
    warnings += _deadline(manifest, launch)
    _job(manifest, features)
    manifest = json.loads(json.dumps(manifest))  # no part of it is another part as well
    return Rendered(manifest=manifest, mode=choice.mode, reason=choice.reason, warnings=tuple(warnings))


def _image(container: JsonDict, config: Injection) -> JsonDict:
    """What an init container of ours has beside a name and a command; it may write what the training may write."""
    image: JsonDict = {"image": config.image}
    if config.image_pull_policy is not None:
        image["imagePullPolicy"] = config.image_pull_policy
    security = config.security_context or container.get("securityContext")
    return {**image, "securityContext": security} if security else image


# ------------------------------------------------------------------------------------------------ pods and roles


def _pods(manifest: JsonDict, container: str) -> list[_Pods]:
    if kind_of(manifest) is None:
        return []
    found = []
    for _, role, template in pod_templates(manifest):
        there = (each for _, each in containers_of(template) if each.get("name") == container)
        found.append(_Pods(role, template, next(there, None)))
    return found


def _primary(manifest: JsonDict, pods: list[_Pods], launch: Launch) -> _Pods | None:
    """The template whose pods report: by the labels that were asked for, else the kind's own. None without any."""
    if not pods:
        return None
    wanted = launch.primary_pod_labels.get(REPLICA_TYPE, "")
    role = next((each.role for each in pods if each.role.lower() == wanted.lower()), None) if wanted else None
    if role is None:
        role = primary_role(manifest)
    chosen = next((each for each in pods if each.role == (role or "")), pods[0])
    if chosen.container is None:
        names = ", ".join(str(each.get("name")) for _, each in containers_of(chosen.template)) or "none"
        where = f" of role {chosen.role}" if chosen.role else ""
        raise LaunchError(
            f"the pods{where} have no container {launch.primary_container} (primaryContainerName); theirs: {names}",
            "correct trialTemplate.primaryContainerName",
        )
    return chosen


def _one_of(manifest: JsonDict, role: str, launch: Launch) -> tuple[OneOf, list[str]]:
    """Which pod of several reports."""
    spec = manifest.get("spec") or {}
    if not role:
        several = any(_count(spec.get(name)) > 1 for name in ("parallelism", "completions"))
        if not several:
            return OneOf(), []
        if launch.primary_pod_labels:
            return _by_labels(launch.primary_pod_labels), []
        if spec.get("completionMode") == "Indexed":
            return OneOf(((COMPLETION_INDEX, "0"),)), []
        return OneOf(), ["all pods of this Job report, mixed: completionMode Indexed lets only the first one do so"]
    if _count(replicas_of(manifest)[role].get("replicas")) <= 1:
        return OneOf(), []
    asked = dict(launch.primary_pod_labels)
    if REPLICA_INDEX not in asked:  # Katib lets all of a role report, and takes what comes
        own = primary_pod_labels(manifest) if role == primary_role(manifest) else {REPLICA_INDEX: "0"}
        asked = {**own, **asked}
    return _by_labels(asked), []


def _by_labels(wanted: Mapping[str, str]) -> OneOf:
    return OneOf(tuple((f"metadata.labels['{name}']", value) for name, value in sorted(wanted.items())))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1


def _restart_policy(manifest: JsonDict, pods: _Pods) -> str:
    """Of the pods: the training operator overwrites the template's with the replica's."""
    known = kind_of(manifest)
    if pods.role and known is not None:
        return str(replicas_of(manifest)[pods.role].get("restartPolicy") or known.default_restart or "Never")
    return str(pods.template["spec"].get("restartPolicy") or "Always")


# --------------------------------------------------------------------------------------------------------- labels


def _label(metadata: JsonDict, own: Mapping[str, str]) -> None:
    metadata["labels"] = {**(metadata.get("labels") or {}), **own}


def _keep_istio_out(metadata: JsonDict) -> None:
    tables = [metadata.get(field) or {} for field in ("labels", "annotations")]
    if not any(ISTIO in table for table in tables):
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ISTIO: "false"}


def _label_pods(manifest: JsonDict, pods: list[_Pods], own: Mapping[str, str]) -> None:
    known = kind_of(manifest)
    places = [_mapping(each.template, "metadata") for each in pods]
    if known is None:
        places = list(_labelled_templates(manifest.get("spec")))
    elif known.kind == "Workflow":
        places = [_mapping(_mapping(manifest, "spec"), "podMetadata")]
    for metadata in places:
        _label(metadata, own)
        if known is not None:
            _keep_istio_out(metadata)
    if known is not None and known.kind == "PipelineRun":  # hands its annotations on to the pods
        _keep_istio_out(manifest["metadata"])


def _labelled_templates(value: Any) -> Iterator[JsonDict]:
    """Metadata of what looks like a pod template in an unknown kind. Only where its user has put labels himself: many
    schemas know nothing of it, and strict validation would refuse the object."""
    if isinstance(value, dict):
        spec, metadata = value.get("spec"), value.get("metadata")
        looks = isinstance(spec, dict) and isinstance(spec.get("containers"), list)
        if looks and isinstance(metadata, dict) and isinstance(metadata.get("labels"), dict):
            yield metadata
        for inner in value.values():
            yield from _labelled_templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _labelled_templates(inner)


def _mapping(owner: JsonDict, field: str) -> JsonDict:
    if not isinstance(owner.get(field), dict):
        owner[field] = {}
    found: JsonDict = owner[field]
    return found


# ------------------------------------------------------------------------------------------------------ variables


def _told(launch: Launch, choice: Choice, manifest: JsonDict, container: JsonDict, *, shared: bool) -> dict[str, str]:
    """What a training container is told. It gets the key to the gateway only where nobody else could report."""
    told = reporting(launch if choice.push else replace(launch, token=None, ingest_url=None), None)
    told["PYTHONUNBUFFERED"] = "1"  # a metric should be seen when it is printed
    if shared:
        told |= paths(container)
    return told | identity(launch, manifest)


def _tell(container: JsonDict, told: Mapping[str, str], ours: set[str]) -> None:
    """Before the user's variables, which may refer to them; of the same name his win, except for `ours`."""
    given = container.get("env") or []
    names = {variable.get("name") for variable in given}
    first = {name: value for name, value in told.items() if name in ours or name not in names}
    whose = [dict(ORIGIN)] if "EVERTUNE_TOKEN" in first else []
    container["env"] = [
        *variables(first),
        *whose,
        *(variable for variable in given if variable.get("name") not in ours),
    ]


def _tell_trainer(manifest: JsonDict, told: Mapping[str, str], ours: set[str]) -> None:
    trainer = (manifest.get("spec") or {}).get("trainer")
    if isinstance(trainer, dict):  # without one, the runtime's trainer runs as it is
        _tell(trainer, told, ours)


def _unquote(container: JsonDict) -> None:
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    if words[:1] and words[0] in _SHELLS and words[1:2] == ["-c"]:
        return
    for field in ("command", "args"):
        if container.get(field):
            container[field] = [_without_quotes(word) for word in container[field]]


def _without_quotes(word: Any) -> Any:
    match = _QUOTED.fullmatch(word) if isinstance(word, str) else None
    return match[1] + re.sub(r'\\(["\\`])', r"\1", match[2]) if match else word


# --------------------------------------------------------------------------------------------- memory and deadlines


def _grow(container: JsonDict, launch: Launch) -> None:
    if launch.memory is None:
        return
    for part in ("requests", "limits"):
        given = (container.get("resources") or {}).get(part) or {}
        if given.get("memory") is None:
            continue
        try:
            given["memory"] = grown(given["memory"], launch.memory)
        except ValueError as error:
            raise LaunchError(f"container {container.get('name')}: resources.{part}.memory: {error}") from None


def _deadline(manifest: JsonDict, launch: Launch) -> list[str]:
    """The object's own deadline, if it has one; it counts from the start of its pods."""
    if launch.deadline_s is None:
        return []
    seconds = max(1, math.ceil(launch.deadline_s))
    known = kind_of(manifest)
    spec = _mapping(manifest, "spec")
    if known is None:
        return [f"a {manifest.get('kind')} is not known to have a deadline: trialDeadline is not written into it"]
    if known.kind == "PipelineRun":
        timeouts = _mapping(spec, "timeouts")
        timeouts.setdefault("pipeline", f"{seconds}s")
        return []
    owner = _mapping(spec, "runPolicy") if known.trains else spec
    given = owner.get("activeDeadlineSeconds")
    if not isinstance(given, int) or given > seconds:
        owner["activeDeadlineSeconds"] = seconds
    return []


def _job(manifest: JsonDict, features: Features) -> None:
    known = kind_of(manifest)
    if known is None or known.kind != "Job" or features.server_version < DISRUPTIONS_SINCE:
        return
    spec = manifest["spec"]
    never = (spec["template"].get("spec") or {}).get("restartPolicy") == "Never"
    # With a policy Kubernetes allows no other podReplacementPolicy than Failed.
    free = spec.get("podFailurePolicy") is None and spec.get("podReplacementPolicy") in (None, "Failed")
    if never and free:
        spec["podFailurePolicy"] = copy.deepcopy(DISRUPTIONS)
