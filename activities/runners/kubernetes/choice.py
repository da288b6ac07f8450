"""Which collector stands beside a trial in a cluster, and why: one sentence that people are shown.

Called by `render`. In this order: nothing to inject; no place to inject into; nobody to report to; then a native
sidecar where cluster and kind keep one, else an ordinary container. What cannot be collected in any of these ways is a
LaunchError that says what would help: a trial must not run for a metric that nobody can read.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from evertune.errors import LaunchError
from evertune.protocols import Launch

Mode = Literal["native", "classic", "logs", "none"]
Wanted = Literal["auto", "native", "classic", "logs"]
NATIVE_WORKS = (1, 30)  # on by default since 1.29, with faults that concern every Job
NATIVE_EXISTS = (1, 29)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the cluster does. `strict_init_restart`: the kind's schema keeps `initContainers[].restartPolicy`."""

    server_version: tuple[int, int]
    strict_init_restart: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    mode: Mode
    reason: str
    wrap: bool = False  # the command of the training container is started by the wrapper
    push: bool = False  # the program reports by itself, so it gets the gateway and its key


def choose(launch: Launch, container: dict[str, Any] | None, wanted: Wanted, features: Features) -> Choice:
    """`container`: the training container of the primary pod template; None when the kind has no such template."""
    kind = None if launch.collector is None else launch.collector.kind
    manifest_kind = launch.manifest.get("kind")
    if kind is None:
        return Choice(mode="none", reason="Nothing is injected: nothing is to be collected.")
    if kind == "None":
        push = away(launch.ingest_url) is None
        how = "the program may report to the gateway by itself" if push else "and there is no gateway to report to"
        return Choice(mode="none", reason=f"Nothing is injected, as collector None asks; {how}.", push=push)
    if container is None and kind == "Push" and manifest_kind == "TrainJob" and not away(launch.ingest_url):
        reason = "A TrainJob takes no container of ours: the program itself reports to the gateway."
        return Choice(mode="none", reason=reason, push=True)
    if container is None:
        why = f"a {manifest_kind} has no pod template that a collector could be put into"
        return _logs(kind, why, "use a collector of kind StdOut, or another kind of object")
    if (gone := away(launch.ingest_url)) is not None:
        return _logs(kind, gone, "set EVERTUNE_INGEST_URL to an address that pods reach, and EVERTUNE_SERVER_HOST")
    if wanted == "logs":
        return _logs(kind, "EVERTUNE_COLLECTOR_MODE is logs", "set it to auto, or use a collector of kind StdOut")
    command = bool(container.get("command"))
    name = container.get("name")
    if not command and kind == "StdOut":
        why = f"container {name} has no command, and what its image starts by itself cannot be wrapped"
        return _logs(kind, why, "")
    native, why = _native(manifest_kind, wanted, features)
    if native:
        return Choice(mode="native", reason=f"A native sidecar collects: {why}.", wrap=command)
    if not command:
        raise LaunchError(
            f"container {name} has no command, so a collector beside it could not learn when it ends ({why})",
            "write the image's entrypoint as `command:`",
        )
    return Choice(mode="classic", reason=f"An ordinary container collects: {why}.", wrap=True)


def _native(kind: Any, wanted: Wanted, features: Features) -> tuple[bool, str]:
    major, minor = features.server_version
    if wanted == "classic":
        return False, "EVERTUNE_COLLECTOR_MODE is classic"
    needed = NATIVE_EXISTS if wanted == "native" else NATIVE_WORKS
    why = ""
    if features.server_version < needed:
        why = f"native sidecars need Kubernetes {needed[0]}.{needed[1]}, this is {major}.{minor}"
    elif not features.strict_init_restart:
        why = f"the cluster's schema of {kind} has no initContainers[].restartPolicy, as before training-operator 1.8"
    if not why:
        return True, f"Kubernetes {major}.{minor} ends it after the training container"
    if wanted == "native":
        raise LaunchError(f"EVERTUNE_COLLECTOR_MODE is native, but {why}", "set it to auto or classic")
    return False, why


def _logs(kind: str, why: str, hint: str) -> Choice:
    if kind != "StdOut":
        raise LaunchError(f"metrics of collector kind {kind} cannot be collected: {why}", hint)
    return Choice(mode="logs", reason=f"The worker reads the pod's log: {why}.")


def away(url: str | None) -> str | None:
    """Why no pod can report there; None when it may."""
    if url is None:
        return "there is no gateway to report to"
    host = urlsplit(url).hostname or ""
    loopback = host == "localhost" or host.endswith(".localhost")
    try:
        address = ipaddress.ip_address(host)
        loopback = address.is_loopback or address.is_unspecified
    except ValueError:
        pass
    return f"pods cannot reach the gateway at {url}" if loopback else None
