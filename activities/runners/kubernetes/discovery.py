"""What a cluster serves: where the objects of a kind are, and which version it is.

Called by the runner and the doctor. A kind that is there is asked for once in the life of a connection; one that is not
is asked for again, since somebody may install it meanwhile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from activities.runners.kubernetes.api import Api, ApiError
from evertune.errors import LaunchError
from evertune.protocols import JsonDict

PATIENCE_S = 30.0

_OPERATORS = {
    "kubeflow.org": "install Kubeflow's training operator (v1)",
    "trainer.kubeflow.org": "install Kubeflow's Trainer (v2)",
    "argoproj.io": "install Argo Workflows",
    "tekton.dev": "install Tekton Pipelines",
    "jobset.x-k8s.io": "install JobSet",
    "ray.io": "install KubeRay",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as a cluster serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Of one object, or of all in the namespace; None is every namespace, or no matter where there are none."""
        parts = [self.root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += filter(None, (self.plural, name, subresource))
        return "/".join(parts)


POD: Final = Resource("v1", "Pod", "pods", True)
EVENT: Final = Resource("v1", "Event", "events", True)
CONFIG_MAP: Final = Resource("v1", "ConfigMap", "configmaps", True)
NAMESPACE: Final = Resource("v1", "Namespace", "namespaces", False)
SECRET: Final = Resource("v1", "Secret", "secrets", True)
JOB: Final = Resource("batch/v1", "Job", "jobs", True)
ACCESS_REVIEW: Final = Resource("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False)
TOKEN_REVIEW: Final = Resource("authentication.k8s.io/v1", "TokenReview", "tokenreviews", False)

_BUILT_IN = {(known.api_version, known.kind): known for known in (POD, EVENT, CONFIG_MAP, NAMESPACE, JOB)}
_found: WeakKeyDictionary[Api, dict[tuple[str, str], Resource]] = WeakKeyDictionary()
_versions: WeakKeyDictionary[Api, tuple[int, int]] = WeakKeyDictionary()


async def resource(api: Api, api_version: str, kind: str) -> Resource:
    """Where objects of this kind are. Raises LaunchError when the cluster has no such kind, ApiError, Unreachable."""
    if (known := _BUILT_IN.get((api_version, kind))) is not None:
        return known
    held = _found.setdefault(api, {})
    if (api_version, kind) not in held:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            listed = (await api.call("GET", root, patience_s=PATIENCE_S)).get("resources") or []
        except ApiError as error:
            if error.status != 404:
                raise
            listed = []
        for entry in listed:
            if "/" not in entry["name"]:
                one = Resource(api_version, entry["kind"], entry["name"], bool(entry["namespaced"]))
                held[api_version, one.kind] = one
        if (api_version, kind) not in held:
            raise LaunchError(f"the cluster serves no {kind} ({api_version})", await _mend(api, api_version, listed))
    return held[api_version, kind]


async def server_version(api: Api) -> tuple[int, int]:
    """Major and minor, as (1, 34). Raises ApiError, Unreachable."""
    if api not in _versions:
        told = await api.call("GET", "/version", patience_s=PATIENCE_S)
        major, minor = (int(re.sub(r"\D.*", "", str(told.get(part, ""))) or 0) for part in ("major", "minor"))
        _versions[api] = major, minor
    return _versions[api]


async def _mend(api: Api, api_version: str, listed: list[JsonDict]) -> str:
    group = api_version.rpartition("/")[0]
    if listed:
        kinds = sorted({entry["kind"] for entry in listed if "/" not in entry["name"]})
        return f"{api_version} has: {', '.join(kinds)}"
    groups = (await api.call("GET", "/apis", patience_s=PATIENCE_S)).get("groups") or []
    served = [entry["groupVersion"] for one in groups if one["name"] == group for entry in one["versions"]]
    if served:
        return f"it serves {', '.join(served)}"
    return _OPERATORS.get(group, f"install what defines {group or api_version}") + ", or use another cluster"
