"""Puts the collector into a pod template: an init container that brings the wrapper, the collector, what they share.

Called by `render` with a choice (`choice`); pure. The training container keeps everything that is its user's: its words
behind the wrapper's, so `$(NAME)` and `$$` mean what they meant; its variables, mounts, rights and resources. Ours are
small and pass the `restricted` profile. They share the emptyDir /evertune, and the directory of the file that the
collector reads: an emptyDir as Katib's, or the volume that the user has mounted there.

The key to the gateway is a literal in the collector's container, and nowhere else in the pod. With a shared process
namespace, which Custom asks for as in Katib, whoever runs as the collector's user, or as root, could read it there.
Where pods are known by their accounts there is no key: the kubelet gives the collector's container a token of its pod.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from activities.runners.kubernetes.choice import Choice, Wanted
from activities.runners.kubernetes.labels import AUDIENCE
from evertune.domain.metrics import CollectorSpec
from evertune.errors import LaunchError
from evertune.protocols import JsonDict, Launch
from evertune.settings import PodIdentity
from evertune.spec.quantity import exact_quantity

WRAPPER = Path(__file__).with_name("wrapper.sh")
SHARED = "/evertune"
IN_IMAGE = "/opt/evertune"  # where the collector's image has busybox and the wrapper
VOLUME = "evertune"
METRICS = "evertune-metrics"
CHECKPOINT = "evertune-checkpoint"
ACCOUNT = "evertune-account"  # a token of the pod's ServiceAccount, bound to the pod
INIT = "evertune-init"
COLLECTOR = "evertune-collector"
CUSTOM = "evertune-custom-collector"  # where the user gave none a name
ACCOUNT_DIR = "/var/run/evertune"
CHECKPOINTS = f"{SHARED}/checkpoint"

# The kubelet asks for a new one when a fifth of that is left: an API server that is away for ten minutes does not leave
# a pod with a token that has expired.
ACCOUNT_S = 3600
USER = 65532  # of the collector's image
LOG_CAP_MIB = 200  # output that is kept for the collector; all of it is printed
CUSTOM_CAP_MIB = 16
SIZE = "512Mi"  # beyond it the pod would be evicted: the caps, and what `evertune.report` writes
DELIVERY_S = 300  # how long a native sidecar may go on after the training, for a gateway that is away
USERS_GRACE_S = 30  # Kubernetes' default
PATIENCE_S = 15  # for the user's own collector after the training has ended
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
FIXED = {"cpu": "100m", "memory": "128Mi"}  # request and limit beside containers that have both alike
RESTRICTED: JsonDict = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_REFERENCE = re.compile(r"\$\(([^)]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """What an installation says about collectors. `security_context` replaces ours, for OpenShift and the like."""

    image: str
    mode: Wanted = "auto"
    image_pull_policy: str | None = None
    security_context: JsonDict | None = None
    identity: PodIdentity = "token"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Several pods are made from the template: the one with these values, by path of the downward API, reports."""

    fields: tuple[tuple[str, str], ...] = ()


# Which of the attempt's pods: each of them counts what it reports from the start.
ORIGIN: JsonDict = {"name": "EVERTUNE_ORIGIN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}


def wrapped(who: str, grace_s: int, cap_mib: int, directory: str = SHARED) -> list[str]:
    """What is put before the words of a command."""
    return [f"{directory}/busybox", "sh", f"{directory}/wrapper.sh", who, str(grace_s), str(cap_mib)]


def literal(text: str) -> str:
    """As a value in `env`, where Kubernetes reads `$(NAME)` and `$$`."""
    return text.replace("$", "$$")


def variables(values: Mapping[str, str]) -> list[JsonDict]:
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


# The kernel drops a SIGTERM that the first process of a container has no handler for, and with little CPU Python needs
# seconds to get there: after a short trial the kubelet would wait for the whole grace period. A shell is there at once;
# it leaves a word, and hands the signal on to a collector that would not die of it.
TERMINATED = f"{SHARED}/terminated"
FIRST_PROCESS = f"""
trap ': >{TERMINATED}; "$0" grep -q "^SigCgt.*[4-7c-f]...$" "/proc/$child/status" && kill -TERM "$child"' TERM
python3 -P -m collectors &
child=$!
until wait "$child" || ! kill -0 "$child" 2>/dev/null; do :; done
""".strip()


def paths(container: JsonDict) -> dict[str, str]:
    """The variables of a program that shares a directory with the collector, as `evertune.report` reads them."""
    told = {
        "EVERTUNE_REPORT_FILE": f"{SHARED}/reports",
        "EVERTUNE_STOP_FILE": f"{SHARED}/stop",
        "EVERTUNE_EXIT_FILE": f"{SHARED}/exit",
    }
    if not _keeps_checkpoints(container):
        told["EVERTUNE_CHECKPOINT_DIR"] = CHECKPOINTS
    return told


def _keeps_checkpoints(container: JsonDict) -> bool:
    return any(variable.get("name") == "EVERTUNE_CHECKPOINT_DIR" for variable in container.get("env") or ())


def inject(
    template: JsonDict, container: JsonDict, launch: Launch, choice: Choice, config: Injection,
    *, restarts: bool, one_of: OneOf, account: bool = False, custom_env: Iterable[JsonDict] = (),
) -> None:  # fmt: skip
    """Change `template` in place; `container` is the training container in it, `custom_env` for the user's collector.

    `account`: the collector shows the pod's own token, not a key of ours.

    LaunchError when a name of ours is taken, or a directory cannot be shared.
    """
    spec = template["spec"]
    collector = launch.collector
    assert collector is not None
    _refuse_taken(spec, container)
    native = choice.mode == "native"
    grace_s = _seconds(spec.get("terminationGracePeriodSeconds"), USERS_GRACE_S)
    if native and choice.wrap:
        # The program still has what it had: the wrapper kills it after `grace_s`.
        spec["terminationGracePeriodSeconds"] = grace_s + DELIVERY_S
    resources = _resources(spec)
    security = config.security_context if config.security_context is not None else _security(spec, container)
    common: JsonDict = {"image": config.image, "resources": resources, "securityContext": security}
    if config.image_pull_policy is not None:
        common["imagePullPolicy"] = config.image_pull_policy
    shared: JsonDict = {"name": VOLUME, "mountPath": SHARED}
    volumes: list[JsonDict] = [{"name": VOLUME, "emptyDir": {"sizeLimit": SIZE}}]
    directory = _directory(collector)
    mount, reached_by = _metrics_mount(directory, container) if directory else (None, [])
    if mount is not None and mount["name"] == METRICS:
        volumes.append({"name": METRICS, "emptyDir": {}})
        container.setdefault("volumeMounts", []).append(dict(mount))
    if not _keeps_checkpoints(container):
        volumes.append({"name": CHECKPOINT, "emptyDir": {}})
    own = _own_collector(launch, choice, shared, mount, reached_by, custom_env)
    environment = _environment(launch, collector, choice, own, restarts=restarts, account=account)
    environment["EVERTUNE_GRACE_S"] = str(max(1, (grace_s + DELIVERY_S if native and choice.wrap else grace_s) - 5))
    if native:
        environment["EVERTUNE_EXIT_FILE"] = TERMINATED
        environment["EVERTUNE_LINGER_S"] = environment["EVERTUNE_GRACE_S"]
    beside = {
        "name": COLLECTOR,
        **common,
        "env": [*reached_by, *variables(environment), dict(ORIGIN), *_role(one_of)],
        "volumeMounts": [shared, *([{**mount, "readOnly": True}] if mount else [])],
    }
    if account:
        source = {"audience": AUDIENCE, "expirationSeconds": ACCOUNT_S, "path": "token"}
        volumes.append({"name": ACCOUNT, "projected": {"sources": [{"serviceAccountToken": source}]}})
        beside["volumeMounts"].append({"name": ACCOUNT, "mountPath": ACCOUNT_DIR, "readOnly": True})
    bring = ["cp", "-f", f"{IN_IMAGE}/busybox", f"{IN_IMAGE}/wrapper.sh", f"{SHARED}/"]
    first = {"name": INIT, **common, "command": [f"{IN_IMAGE}/busybox", *bring], "volumeMounts": [shared]}
    sidecars, ordinary = ([beside], []) if native else ([], [beside])
    if own is not None:  # a sidecar that ends would be started again; only the wrapper keeps it from that
        (sidecars if native and own.get("command") else ordinary).append(own)
    if native:
        beside["command"] = [f"{IN_IMAGE}/busybox", "sh", "-c", FIRST_PROCESS, f"{IN_IMAGE}/busybox"]
    before = [first, *({**each, "restartPolicy": "Always"} for each in sidecars)]
    spec["initContainers"] = [*before, *(spec.get("initContainers") or [])]
    spec["containers"] = [*spec["containers"], *ordinary]
    spec["volumes"] = [*(spec.get("volumes") or []), *volumes]
    container.setdefault("volumeMounts", []).append(dict(shared))
    if not _keeps_checkpoints(container):
        container["volumeMounts"].append({"name": CHECKPOINT, "mountPath": CHECKPOINTS})
    if choice.wrap:
        container["command"] = [*wrapped("trial", grace_s, LOG_CAP_MIB), *container["command"]]
    if own is not None:
        spec.setdefault("shareProcessNamespace", True)  # Katib's: a collector may look for the training's process


def _environment(
    launch: Launch, collector: CollectorSpec, choice: Choice, own: JsonDict | None, *, restarts: bool, account: bool
) -> dict[str, str]:
    """What `python -m collectors` is told."""
    key = {"EVERTUNE_TOKEN_FILE": f"{ACCOUNT_DIR}/token"} if account else {"EVERTUNE_TOKEN": launch.token or ""}
    told = {
        "EVERTUNE_COLLECTOR": _as_json(collector),
        "EVERTUNE_INGEST_URL": launch.ingest_url or "",
        **key,
        "EVERTUNE_TRIAL": launch.ref.trial_name,
        "EVERTUNE_LOG_FILE": f"{SHARED}/log",
        "EVERTUNE_NOTES_DIR": f"{SHARED}/notes",
        "EVERTUNE_REPORT_FILE": f"{SHARED}/reports",
        "EVERTUNE_STOP_FILE": f"{SHARED}/stop",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if collector.path is not None and collector.kind in ("File", "TensorFlowEvent", "Custom"):
        told["EVERTUNE_METRICS_PATH"] = collector.path
    if own is not None and own.get("command"):
        told["EVERTUNE_PRINTED_FILE"] = f"{SHARED}/collector/log"
    if choice.mode == "classic":
        told["EVERTUNE_EXIT_FILE"] = f"{SHARED}/exit"
        told["EVERTUNE_LIFE_PIPE"] = f"{SHARED}/life"
        if own is not None and own.get("command"):
            told["EVERTUNE_BESIDE_EXIT_FILE"] = f"{SHARED}/collector/exit"
        if restarts:
            told["EVERTUNE_RESTARTS"] = "1"
    return told


def _as_json(collector: CollectorSpec) -> str:
    said = {key: value for key, value in dataclasses.asdict(collector).items() if value not in (None, ())}
    return json.dumps(said, ensure_ascii=False)


def _role(one_of: OneOf) -> list[JsonDict]:
    """The collector idles in every pod but one, which it knows by what Kubernetes says of its pod."""
    if not one_of.fields:
        return []
    names = [f"EVERTUNE_ROLE_{index}" for index in range(len(one_of.fields))]
    asked = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, (path, _) in zip(names, one_of.fields, strict=True)
    ]
    if len(asked) == 1:
        asked[0]["name"] = "EVERTUNE_ROLE"
    else:
        asked.append({"name": "EVERTUNE_ROLE", "value": "/".join(f"$({name})" for name in names)})
    return [*asked, *variables({"EVERTUNE_PRIMARY_ROLE": "/".join(value for _, value in one_of.fields)})]


# ------------------------------------------------------------------------------------------- the user's collector


def unwrapped(launch: Launch, mode: str) -> str:
    """The container of the user's collector that ends when it likes, or never; "" where there is none."""
    own = launch.custom_collector
    kind = None if launch.collector is None else launch.collector.kind
    if own is None or kind != "Custom" or own.get("command") or mode not in ("native", "classic"):
        return ""
    return str(own.get("name") or CUSTOM)


def _own_collector(
    launch: Launch, choice: Choice, shared: JsonDict, mount: JsonDict | None, reached_by: list[JsonDict],
    environment: Iterable[JsonDict],
) -> JsonDict | None:  # fmt: skip
    """The container of kind Custom beside ours. Without a command nothing that it prints can be read."""
    if launch.custom_collector is None or launch.collector is None or launch.collector.kind != "Custom":
        return None
    own: JsonDict = {"name": CUSTOM, **launch.custom_collector}
    given = own.get("env") or []
    names = {variable.get("name") for variable in given}
    own["env"] = [*(each for each in (*reached_by, *environment) if each["name"] not in names), *given]
    mounted = {each.get("mountPath") for each in own.get("volumeMounts") or ()}
    wanted = [shared, *([mount] if mount else [])]
    own["volumeMounts"] = [
        *(own.get("volumeMounts") or []),
        *(dict(each) for each in wanted if each["mountPath"] not in mounted),
    ]
    if own.get("command"):
        who = "stay" if choice.mode == "native" else "beside"
        own["command"] = [*wrapped(who, PATIENCE_S, CUSTOM_CAP_MIB), *own["command"]]
    return own


# ------------------------------------------------------------------------------------------------ shared places


def _directory(collector: CollectorSpec) -> str | None:
    """The directory that the training writes and the collector reads, as Katib chooses it."""
    if collector.path is None or collector.kind not in ("File", "TensorFlowEvent", "Custom"):
        return None
    is_directory = collector.kind == "TensorFlowEvent" or collector.path_kind == "Directory"
    path = PurePosixPath(collector.path)
    directory = path if is_directory else path.parent
    if not directory.is_absolute() or str(directory) == "/":
        raise LaunchError(
            f"source.fileSystemPath.path {collector.path} cannot be shared with a collector",
            "choose a path in a directory of its own, such as /var/log/evertune/metrics.log",
        )
    return str(directory)


def _metrics_mount(directory: str, container: JsonDict) -> tuple[JsonDict | None, list[JsonDict]]:
    """How `directory` gets to another container, and variables that the mount names; None when /evertune holds it."""
    wanted = PurePosixPath(directory)
    if wanted.is_relative_to(SHARED):
        return None, []
    mounts = [
        each
        for each in container.get("volumeMounts") or ()
        if isinstance(each.get("mountPath"), str) and wanted.is_relative_to(each["mountPath"])
    ]
    if not mounts:
        return {"name": METRICS, "mountPath": directory}, []
    users = max(mounts, key=lambda each: len(PurePosixPath(each["mountPath"]).parts))
    mount = {key: value for key, value in users.items() if key in ("name", "mountPath", "subPath", "subPathExpr")}
    named = set(_REFERENCE.findall(mount.get("subPathExpr", "")))
    return mount, [dict(each) for each in container.get("env") or () if each.get("name") in named]


def _refuse_taken(spec: JsonDict, container: JsonDict) -> None:
    taken = [
        (what, each.get("name"))
        for field, what in (("containers", "container"), ("initContainers", "container"), ("volumes", "volume"))
        for each in spec.get(field) or ()
    ]
    ours = {("container", INIT), ("container", COLLECTOR)} | {
        ("volume", name) for name in (VOLUME, METRICS, CHECKPOINT, ACCOUNT)
    }
    for what, name in taken:
        if (what, name) in ours:
            raise LaunchError(f"the pod template has a {what} {name}, a name that evertune needs itself", "rename it")
    for mount in container.get("volumeMounts") or ():
        if PurePosixPath(str(mount.get("mountPath"))) == PurePosixPath(SHARED):
            raise LaunchError(
                f"container {container.get('name')} mounts {SHARED}, which evertune needs", "mount elsewhere"
            )


# --------------------------------------------------------------------------------------------- rights and resources


def _security(spec: JsonDict, container: JsonDict) -> JsonDict:
    """The restricted profile's; where the training has a user of its own the same one, so that files can be read."""
    own = container.get("securityContext") or {}
    pods = spec.get("securityContext") or {}
    copied = {key: own[key] for key in ("runAsUser", "runAsGroup", "seLinuxOptions") if own.get(key)}
    if not copied.get("runAsUser") and pods.get("runAsUser") == 0:
        copied["runAsUser"] = USER  # a pod of root's would make our containers root's, which they refuse
    return {**RESTRICTED, **copied}


def _resources(spec: JsonDict) -> JsonDict:
    """Small; but requests equal to limits beside containers that are all so, which keeps the pod's Guaranteed class."""
    everybody = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    if everybody and all(_guaranteed(each.get("resources") or {}) for each in everybody):
        return {"requests": dict(FIXED), "limits": dict(FIXED)}
    return {key: dict(value) for key, value in SMALL.items()}


def _guaranteed(resources: JsonDict) -> bool:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    try:
        return all(
            name in limits and exact_quantity(limits[name]) == exact_quantity(requests.get(name, limits[name]))
            for name in ("cpu", "memory")
        )
    except ValueError:
        return False


def _seconds(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
