"""What a cluster must have before trials run in it: findings, each with its mend.

Called by `evertune doctor` and `evertune run`. It asks, and changes nothing: what it creates is a dry run. Whether pods
reach the gateway only a pod can say (`probe`). The account that is asked about is the one of this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from activities.runners.kubernetes.api import Api, ApiError, Unreachable
from activities.runners.kubernetes.choice import away
from activities.runners.kubernetes.discovery import JOB, NAMESPACE, Resource, resource, server_version
from activities.runners.kubernetes.findings import Finding, Subject
from activities.runners.kubernetes.permissions import pod_identity, rights_of
from activities.runners.kubernetes.trial_checks import examined
from evertune.errors import EvertuneError

OLDEST = (1, 27)  # the first whose strict validation of fields can be relied on
CLOCK_S = 10.0  # more apart than this is told
ENFORCE = "pod-security.kubernetes.io/enforce"
GATEWAY_MEND = (
    "for reports from beside the trials: let the server listen where pods reach it, EVERTUNE_SERVER_HOST=0.0.0.0, and "
    "say where that is, EVERTUNE_INGEST_URL=http://ADDRESS:PORT with EVERTUNE_SERVER_PORT=PORT; then evertune down, "
    "if it is up"
)


async def examine(api: Api, subject: Subject, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """All findings, in the order in which a person would look. Raises nothing that a cluster can cause."""
    found = [Finding(what="Cluster", found=f"context {api.context}, {api.server}")]
    there, version = await _server(api, clock)
    found += there
    if version is None:
        return found
    kind, told = await _kind(api, subject)
    found += told
    if kind is None:
        return found
    namespace, allowed, vouched, accepted = await asyncio.gather(
        _guarded("Namespace", lambda: _namespace(api, subject)),
        _guarded("Rights", lambda: rights_of(api, subject, kind)),
        _guarded("Pod identity", lambda: pod_identity(api, subject)),
        _guarded("Trial", lambda: examined(api, subject, kind, version)),
    )
    gone = any(each.level == "fail" for each in namespace)
    return [*found, *namespace, *allowed, *vouched, *(() if gone else accepted), *_gateway(subject)]


async def _guarded(what: str, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """One part that cannot be asked must not hide the others."""
    try:
        return await check()
    except (ApiError, EvertuneError) as error:
        return [Finding(what=what, found=str(error), level="fail", mend=getattr(error, "hint", None) or "")]


# ----------------------------------------------------------------------------------------------- the API server


async def _server(api: Api, clock: Callable[[], float]) -> tuple[list[Finding], tuple[int, int] | None]:
    began = clock()
    try:
        told = await api.clock()
        took = clock() - began
        version = await server_version(api)
    except ApiError as error:
        mend = "log in again, as your cluster's provider says"
        if isinstance(error, Unreachable):
            mend = f"start it, or name another one with --context; kubectl --context {api.context} version says more"
        return [Finding(what="API server", found=str(error), level="fail", mend=mend)], None
    except EvertuneError as error:
        return [Finding(what="API server", found=error.message, level="fail", mend=error.hint or "")], None
    text = f"Kubernetes {version[0]}.{version[1]}, {took * 1000:.0f} ms"
    found = [Finding(what="API server", found=text)]
    if version < OLDEST:
        older = f"{text}; evertune needs {OLDEST[0]}.{OLDEST[1]}"
        found = [Finding(what="API server", found=older, level="fail", mend="use a newer cluster")]
    if told is not None:
        # The header has whole seconds.
        skew = told.timestamp() + 0.5 - (began + took / 2)
        if abs(skew) > CLOCK_S:
            which = "ahead of" if skew > 0 else "behind"
            text = f"the cluster's is {abs(skew):.0f} s {which} this machine's"
            mend = "set the clocks, by NTP: tokens and certificates count on them, and times of trials will look wrong"
            found.append(Finding(what="Clock", found=text, level="warn", mend=mend))
    return found, version


async def _kind(api: Api, subject: Subject) -> tuple[Resource | None, list[Finding]]:
    if subject.launch is None:
        return JOB, []
    manifest = subject.launch.manifest
    try:
        kind = await resource(api, manifest["apiVersion"], manifest["kind"])
    except (ApiError, EvertuneError) as error:
        mend = getattr(error, "hint", None) or ""
        return None, [Finding(what="Kind", found=str(error), level="fail", mend=mend)]
    return kind, [Finding(what="Kind", found=f"{kind.kind} ({kind.api_version})")]


async def _namespace(api: Api, subject: Subject) -> list[Finding]:
    name = subject.namespace
    try:
        found = await api.call("GET", NAMESPACE.path(None, name))
    except ApiError as error:
        if error.status == 404:
            mend = f"kubectl create namespace {name}"
            return [Finding(what="Namespace", found=f"there is no {name}", level="fail", mend=mend)]
        if error.status != 403:
            raise
        return [Finding(what="Namespace", found=f"{name}; this account may not look at it")]
    if found["metadata"].get("deletionTimestamp"):
        text = f"{name} is being deleted"
        return [Finding(what="Namespace", found=text, level="fail", mend="use another one, or wait and create it")]
    level = (found["metadata"].get("labels") or {}).get(ENFORCE, "privileged")
    return [Finding(what="Namespace", found=f"{name}, pod security {level}")]


# ------------------------------------------------------------------------------------------------------- gateway


def _gateway(subject: Subject) -> list[Finding]:
    collector = None if subject.launch is None else subject.launch.collector
    if subject.launch is not None and collector is None:
        return []
    if (gone := away(subject.gateway)) is None:
        return [Finding(what="Gateway", found=f"{subject.gateway}; --probe tries it from a pod")]
    if collector is None:
        text = f"{gone}; metrics of collector StdOut would be read from logs, those of others not at all"
    elif collector.kind == "StdOut":
        text = f"{gone}, so metrics are read from the pods' logs"
    else:
        return []  # told already: no object can be made
    return [Finding(what="Gateway", found=text, level="warn", mend=GATEWAY_MEND)]
