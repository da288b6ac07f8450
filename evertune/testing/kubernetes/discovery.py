"""What the fake API server says that it serves: its groups, and the resources of one of them."""

from __future__ import annotations

from collections.abc import Iterable

from evertune.testing.kubernetes.objects import JsonDict, Kind


def groups_of(kinds: Iterable[Kind]) -> JsonDict:
    versions: dict[str, list[str]] = {}
    for kind in kinds:
        if kind.group and kind.version not in versions.setdefault(kind.group, []):
            versions[kind.group].append(kind.version)
    groups = [
        {
            "name": group,
            "versions": [{"groupVersion": f"{group}/{version}", "version": version} for version in served],
            "preferredVersion": {"groupVersion": f"{group}/{served[-1]}", "version": served[-1]},
        }
        for group, served in versions.items()
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def resources_of(served: list[Kind]) -> JsonDict:
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    resources: list[JsonDict] = []
    for kind in served:
        about = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
        resources.append({"name": kind.plural, **about, "verbs": verbs})
        if kind.status:
            resources.append({"name": f"{kind.plural}/status", **about, "verbs": ["get", "patch", "update"]})
    api_version = served[0].api_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}


def has(kind: Kind, subresource: str) -> bool:
    if kind.plural == "pods" and subresource in ("log", "eviction"):
        return True
    if kind.plural == "serviceaccounts" and subresource == "token":
        return True
    return subresource == "status" and kind.status
