"""What a worker may do in a namespace with trials: the Role that `evertune manifest rbac` prints.

Called by commands only. It names exactly the rights that running trials needs - no secrets, no exec, nothing over the
whole cluster - and asks no cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evertune.spec.model import JsonDict

NAME = "evertune-trials"
ACCOUNT = "evertune-worker"
WHOLE = ("create", "get", "list", "watch", "patch", "delete")  # patch: to suspend what is retained, nothing else


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    group: str  # "" is the core group
    resource: str
    verbs: tuple[str, ...]
    reason: str


ALWAYS = (
    Rule("", "pods", ("get", "list", "watch"), "why a trial ended: exit codes, OOM, eviction"),
    Rule("", "pods/log", ("get",), "logs of trials, and metrics where no collector can be put beside them"),
    Rule("", "events", ("list", "watch"), "why a trial does not start: quota, scheduling, images"),
    Rule("", "configmaps", ("get",), "trial templates that are kept in a ConfigMap"),
)
# Jobs, and what Kubeflow's operators run. Others are added for the experiments that have them.
USUAL = (
    ("batch", "jobs"),
    ("kubeflow.org", "jaxjobs"),
    ("kubeflow.org", "mpijobs"),
    ("kubeflow.org", "paddlejobs"),
    ("kubeflow.org", "pytorchjobs"),
    ("kubeflow.org", "tfjobs"),
    ("kubeflow.org", "xgboostjobs"),
    ("trainer.kubeflow.org", "trainjobs"),
)


def rules(resources: Iterable[tuple[str, str]] = USUAL) -> list[Rule]:
    """For trials that are these (API group, plural): one rule a resource, then what every kind needs."""
    return [*(Rule(group, name, WHOLE, "trials themselves") for group, name in sorted(set(resources))), *ALWAYS]


def resource_of(trial: JsonDict) -> tuple[str, str] | None:
    """API group and plural of a trial's object; None where it does not say what it is.

    Every kind that trials are known to be has a plural by the usual rule; `kubectl api-resources` knows the rest.
    """
    version, kind = trial.get("apiVersion"), trial.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or not kind:
        return None
    group = version.rpartition("/")[0]
    return group, plural(kind)


def plural(kind: str) -> str:
    """As authors of kinds form it: lower case, with the ending that English wants."""
    name = kind.lower()
    if re.search(r"(s|x|ch|sh)$", name):
        return f"{name}es"
    return f"{name[:-1]}ies" if re.search(r"[^aeiou]y$", name) else f"{name}s"


def role(wanted: Iterable[Rule], namespace: str | None) -> JsonDict:
    """The Role; resources of one group with the same verbs share a rule."""
    shared: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for rule in wanted:
        own = "" if rule.verbs == WHOLE else rule.resource
        shared.setdefault((rule.group, rule.verbs, own), []).append(rule.resource)
    found = [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        for (group, verbs, _), resources in shared.items()
    ]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(namespace),
        "rules": found,
    }


def binding(namespace: str | None, *, account_namespace: str) -> JsonDict:
    """Gives that Role to the worker's ServiceAccount in `account_namespace`."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": account_namespace}],
    }


def _metadata(namespace: str | None) -> JsonDict:
    return {"name": NAME, **({"namespace": namespace} if namespace else {})}
