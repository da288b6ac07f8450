"""A trial as it would be created, shown to the API server as a dry run: what of it the cluster would refuse, and why.

Called by `checks`. Looks as well at what no dry run sees: pods that a trial's object would make, the Secrets that they
pull images with, and whether anybody looks after objects of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from activities.runners.kubernetes import creating
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.causes import time_of
from activities.runners.kubernetes.choice import Features
from activities.runners.kubernetes.discovery import POD, SECRET, Resource
from activities.runners.kubernetes.findings import Finding, Subject
from activities.runners.kubernetes.permissions import allowed
from activities.runners.kubernetes.render import Rendered, rendered
from evertune.errors import LaunchError
from evertune.protocols import JsonDict
from evertune.spec.kinds import kind_of, pod_templates

SILENT_S = 60.0  # an operator has said something of an object by then
LOOKED_AT = 50


async def examined(api: Api, subject: Subject, kind: Resource, version: tuple[int, int]) -> list[Finding]:
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
