"""What a cluster must have before trials run in it: findings, each with its mend.

Called by `evertune doctor` and `evertune run`. It asks, and changes nothing: what it creates is a dry run. Whether pods
reach the gateway only a pod can say (`probe`). The account that is asked about is the one of this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from activities.runners.kubernetes import creating
from activities.runners.kubernetes.api import Api, ApiError, Unreachable
from activities.runners.kubernetes.causes import time_of
from activities.runners.kubernetes.choice import Features, away
from activities.runners.kubernetes.credentials import IN_CLUSTER
from activities.runners.kubernetes.discovery import (
    ACCESS_REVIEW,
    JOB,
    NAMESPACE,
    POD,
    SECRET,
    TOKEN_REVIEW,
    Resource,
    resource,
    server_version,
)
from activities.runners.kubernetes.render import Injection, Rendered, rendered
from evertune.errors import EvertuneError, LaunchError
from evertune.protocols import JsonDict, Launch
from evertune.spec import rights
from evertune.spec.kinds import kind_of, pod_templates

OLDEST = (1, 27)  # the first whose strict validation of fields can be relied on
CLOCK_S = 10.0  # more apart than this is told
SILENT_S = 60.0  # an operator has said something of an object by then
LOOKED_AT = 50
# Without these trials run, and less is told about them.
OPTIONAL = {"events", "configmaps"}
ENFORCE = "pod-security.kubernetes.io/enforce"
GATEWAY_MEND = (
    "for reports from beside the trials: let the server listen where pods reach it, EVERTUNE_SERVER_HOST=0.0.0.0, and "
    "say where that is, EVERTUNE_INGEST_URL=http://ADDRESS:PORT with EVERTUNE_SERVER_PORT=PORT; then evertune down, "
    "if it is up"
)

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`mend` may have several lines."""

    what: str
    found: str
    level: Level = "ok"
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to run. `launch`: a trial of it; None when only Jobs are known to be wanted."""

    namespace: str
    injection: Injection
    gateway: str | None  # where trials would report
    launch: Launch | None = None
    reads_config_map: bool = False  # its template is in a ConfigMap that does not stand beside it


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
        _guarded("Rights", lambda: _rights(api, subject, kind)),
        _guarded("Pod identity", lambda: _pod_identity(api, subject)),
        _guarded("Trial", lambda: _trial(api, subject, kind, version)),
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


# ------------------------------------------------------------------------------------------------------- rights


async def allowed(api: Api, namespace: str, verb: str, group: str, name: str) -> bool:
    """Whether our account may do that; `name` is a plural, with a sub-resource behind a slash. Raises ApiError."""
    plural, _, subresource = name.partition("/")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": plural}
    if subresource:
        asked["subresource"] = subresource
    body = {
        "apiVersion": ACCESS_REVIEW.api_version,
        "kind": ACCESS_REVIEW.kind,
        "spec": {"resourceAttributes": asked},
    }
    answer = await api.call("POST", ACCESS_REVIEW.path(None), body=body)
    return bool((answer.get("status") or {}).get("allowed"))


async def _rights(api: Api, subject: Subject, kind: Resource) -> list[Finding]:
    wanted = [(rule, verb) for rule in rights.rules([(kind.group, kind.plural)]) for verb in rule.verbs]
    answers = await asyncio.gather(
        *(allowed(api, subject.namespace, verb, rule.group, rule.resource) for rule, verb in wanted)
    )
    missing: dict[rights.Rule, list[str]] = {}
    for (rule, verb), may in zip(wanted, answers, strict=True):
        if not may:
            missing.setdefault(rule, []).append(verb)
    optional = OPTIONAL - ({"configmaps"} if subject.reads_config_map else set())
    found = []
    for level, rules in (
        ("fail", [rule for rule in missing if rule.resource not in optional]),
        ("warn", [rule for rule in missing if rule.resource in optional]),
    ):
        if rules:
            found.append(_lacking(subject.namespace, {rule: missing[rule] for rule in rules}, level))  # type: ignore[arg-type]
    if found:
        return found
    return [Finding(what="Rights", found=f"all {len(wanted)} that trials need in {subject.namespace}")]


def _lacking(namespace: str, missing: dict[rights.Rule, list[str]], level: Level) -> Finding:
    names = [f"{', '.join(verbs)} {rule.resource}" for rule, verbs in missing.items()]
    lost = "" if level == "fail" else f"; without: {'; '.join(rule.reason for rule in missing)}"
    lines = [f"add to the account's Role in {namespace}; evertune manifest rbac prints a whole one:"]
    lines += [
        f'- {{apiGroups: ["{rule.group}"], resources: [{rule.resource}], verbs: [{", ".join(verbs)}]}}'
        for rule, verbs in missing.items()
    ]
    return Finding(
        what="Rights",
        found=f"this account may not {'; '.join(names)} in {namespace}{lost}",
        level=level,
        mend="\n".join(lines),
    )


async def _pod_identity(api: Api, subject: Subject) -> list[Finding]:
    """Whether a gateway with this account could ask whose a token of a pod is."""
    elsewhere = subject.launch is not None and subject.launch.cluster is not None
    if subject.injection.identity != "account" or elsewhere or away(subject.gateway) is not None:
        return []
    asked = (
        ("", "create", TOKEN_REVIEW.group, TOKEN_REVIEW.plural, "over the whole cluster, by a ClusterRole"),
        (subject.namespace, "get", "", POD.plural, f"in {subject.namespace}"),
    )
    answers = await asyncio.gather(*(allowed(api, *each[:4]) for each in asked))
    missing = [each for each, may in zip(asked, answers, strict=True) if not may]
    if not missing:
        return [Finding(what="Pod identity", found="by account; the gateway may ask whose the token of a pod is")]
    names = " and ".join(f"{verb} {name}" for _, verb, _, name, _ in missing)
    lines = [
        f'- {{apiGroups: ["{group}"], resources: [{name}], verbs: [{verb}]}}  # {where}'
        for _, verb, group, name, where in missing
    ]
    component = "deploy/kubernetes/components/pod-identity"
    level: Level = "fail"
    if api.context == IN_CLUSTER:  # where worker and server have accounts of their own
        level, found = "warn", f"by account; this one may not {names}, which the server's must"
        mend = [f"{component} gives it to the server; if that is not installed, add to the rights of its account:"]
    else:
        found = f"by account, but this one may not {names}, so that no report would be taken"
        mend = ["set EVERTUNE_POD_IDENTITY=token, or add to the account's rights:"]
    return [Finding(what="Pod identity", found=found, level=level, mend="\n".join([*mend, *lines]))]


# -------------------------------------------------------------------------------------------------------- trials


async def _trial(api: Api, subject: Subject, kind: Resource, version: tuple[int, int]) -> list[Finding]:
    """The object of a trial, as it would be created, shown to the API server."""
    if subject.launch is None:
        return []
    try:
        made, refused = await _dry_run(api, subject, kind, version)
    except LaunchError as error:
        return [Finding(what="Trial", found=error.message, level="fail", mend=error.hint or "")]
    found = [Finding(what="Collector", found=f"{made.mode}: {made.reason}")]
    found += [Finding(what="Collector", found=text, level="warn") for text in made.warnings]
    found += refused or [Finding(what="Trial", found=f"the cluster takes a {kind.kind} like the first one (dry run)")]
    if not refused:
        found += await _pods(api, subject, made)
    found += await _pull_secrets(api, subject, made)
    return [*found, *await _operator(api, subject, kind)]


async def _dry_run(
    api: Api, subject: Subject, kind: Resource, version: tuple[int, int]
) -> tuple[Rendered, list[Finding]]:
    """Raises LaunchError when no object can be made of it."""
    assert subject.launch is not None
    query = {**creating.STRICT, "dryRun": "All"}
    made = None
    for strict in (True, False):
        made = rendered(
            subject.launch,
            database_id="doctor",
            config=subject.injection,
            features=Features(server_version=version, strict_init_restart=strict),
        )
        try:
            await api.call("POST", kind.path(subject.namespace), query=query, body=made.manifest)
        except ApiError as error:
            if strict and creating.no_restart_policy(error):
                continue
            return made, _refusal(error, kind, subject.namespace, made.manifest["metadata"]["name"])
        return made, []
    assert made is not None
    return made, []


def _refusal(error: ApiError, kind: Resource, namespace: str, name: str) -> list[Finding]:
    if error.status == 409:  # such a trial runs or is kept there: it was taken
        return []
    if error.status == 403 and "cannot create resource" in error.message:
        text = "whether the cluster takes it was not tried: this account may not create one"
        return [Finding(what="Trial", found=text, level="warn")]
    if creating.quota(error):
        return [Finding(what="Trial", found=error.message, level="warn", mend="trials wait until the quota has room")]
    if error.status >= 500:
        mend = "a webhook that answers for this kind is not there: is its operator running?"
        return [Finding(what="Trial", found=str(error), level="fail", mend=mend if "webhook" in error.message else "")]
    told = creating.refused(error, kind, namespace, name)
    return [Finding(what="Trial", found=told.message, level="fail", mend=told.hint or "correct the trialTemplate")]


async def _pods(api: Api, subject: Subject, made: Rendered) -> list[Finding]:
    """What admits pods - pod security, quotas, accounts - does not look at the objects that make them."""
    templates = [template for _, _, template in pod_templates(made.manifest)] if kind_of(made.manifest) else []
    if not templates or not await allowed(api, subject.namespace, "create", "", "pods"):
        return []
    told: dict[str, Finding] = {}
    for template in templates:
        if (finding := await _pod(api, subject.namespace, template)) is not None:
            told.setdefault(finding.found, finding)
    return list(told.values()) or [Finding(what="Pods", found="its pods would be admitted (dry run)")]


async def _pod(api: Api, namespace: str, template: JsonDict) -> Finding | None:
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key in _COPIED}
    spec = {"restartPolicy": "Never", **template["spec"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "namespace": namespace, "generateName": "evertune-doctor-"},
        "spec": spec,
    }
    try:
        await api.call("POST", POD.path(namespace), query={"fieldManager": "evertune", "dryRun": "All"}, body=pod)
    except ApiError as error:
        _, forbidden, why = error.message.partition(" is forbidden: ")
        text = why if forbidden else error.message
        if creating.quota(error):
            return Finding(what="Pods", found=text, level="warn", mend="trials wait until the quota has room")
        mend = "correct the pod template, or use another namespace"
        if "PodSecurity" in error.message:
            mend = "give the trial's containers the securityContext that is named here, or use another namespace"
        return Finding(what="Pods", found=text, level="fail", mend=mend)
    return None


_COPIED = ("labels", "annotations")


async def _pull_secrets(api: Api, subject: Subject, made: Rendered) -> list[Finding]:
    names = pull_secrets(made.manifest)
    if not names:
        return []
    if not await allowed(api, subject.namespace, "get", "", "secrets"):
        text = f"{', '.join(names)}; whether they are there was not looked at: this account may not read Secrets"
        return [Finding(what="Pull secrets", found=text)]
    missing = []
    for name in names:
        try:
            await api.call("GET", SECRET.path(subject.namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise
            missing.append(name)
    if not missing:
        return [Finding(what="Pull secrets", found=", ".join(names))]
    text = f"{subject.namespace} has no Secret {', '.join(missing)}, which imagePullSecrets names"
    mend = f"kubectl -n {subject.namespace} create secret docker-registry {missing[0]} …"
    return [Finding(what="Pull secrets", found=text, level="warn", mend=mend)]


def pull_secrets(manifest: JsonDict) -> list[str]:
    """The names of `imagePullSecrets` in the pod templates of a manifest, each once."""
    named: Iterable[Any] = (
        entry.get("name")
        for _, _, template in pod_templates(manifest)
        for entry in (template.get("spec") or {}).get("imagePullSecrets") or ()
    )
    return list(dict.fromkeys(str(name) for name in named if name))


async def _operator(api: Api, subject: Subject, kind: Resource) -> list[Finding]:
    """Whether anybody looks after objects of this kind: those that are there would have a status."""
    if kind.group in ("", "batch"):
        return []
    try:
        page = await api.call("GET", kind.path(subject.namespace), query={"limit": str(LOOKED_AT)})
    except ApiError as error:
        if error.status != 403:
            raise
        return []
    now = datetime.now(UTC)
    for obj in page.get("items") or ():
        made = time_of(obj["metadata"].get("creationTimestamp"))
        status = obj.get("status") or {}
        if made is None or status.get("conditions") or status.get("phase"):
            continue
        if (age := (now - made).total_seconds()) > SILENT_S:
            text = f"{kind.kind} {obj['metadata']['name']} has stood for {age / 60:.0f} min without any status"
            return [Finding(what="Operator", found=text, level="warn", mend="is the operator of this kind running?")]
    return []


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
