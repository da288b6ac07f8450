"""What of all that trials need the account of this machine may do in a cluster.

Called by `checks`. It asks the API server by access reviews, and changes nothing.
"""

from __future__ import annotations

import asyncio

from activities.runners.kubernetes.api import Api
from activities.runners.kubernetes.choice import away
from activities.runners.kubernetes.credentials import IN_CLUSTER
from activities.runners.kubernetes.discovery import ACCESS_REVIEW, POD, TOKEN_REVIEW, Resource
from activities.runners.kubernetes.findings import Finding, Level, Subject
from evertune.spec import rights

# Without these trials run, and less is told about them.
OPTIONAL = {"events", "configmaps"}


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


async def rights_of(api: Api, subject: Subject, kind: Resource) -> list[Finding]:
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


async def pod_identity(api: Api, subject: Subject) -> list[Finding]:
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
