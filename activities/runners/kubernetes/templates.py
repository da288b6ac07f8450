"""Trial templates out of ConfigMaps of a cluster: `evertune.protocols.TemplateSource`.

Called by admission, once for each experiment that keeps its template there. It reads and does nothing else; what it
cannot read is told with what mends it. The worker needs `get` on `configmaps` in the ConfigMap's namespace.
"""

from __future__ import annotations

from datetime import UTC, datetime

from activities.runners.kubernetes.api import ApiError
from activities.runners.kubernetes.cluster import Cluster, Clusters
from activities.runners.kubernetes.discovery import CONFIG_MAP
from activities.runners.kubernetes.riding import away, sentence
from evertune.errors import Problem, ProblemType, SpecError, UnavailableError, UsageError

PATH = "spec.trialTemplate.configMap"
PATIENCE_S = 5.0  # then Temporal is told, which asks again


class ConfigMapTemplates:
    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def fetch(self, cluster: str | None, namespace: str, name: str, key: str) -> str:
        """See `TemplateSource`. Raises SpecError, UnavailableError, EnvironmentProblem."""
        since = datetime.now(UTC)
        place = await self._cluster(cluster)
        try:
            found = await place.api.call("GET", CONFIG_MAP.path(namespace, name), patience_s=PATIENCE_S)
        except ApiError as error:
            if away(error):
                raise UnavailableError(sentence(place.api, error, since)) from error
            raise _refused(error, namespace, name) from None
        texts = found.get("data") or {}
        if key not in texts:
            there = f"keys: {', '.join(sorted(texts))}" if texts else "it has no data"
            raise _problem(
                "NotFound", f'the ConfigMap {namespace}/{name} has no key "{key}"', there, at=".templatePath"
            )
        return str(texts[key])

    async def _cluster(self, context: str | None) -> Cluster:
        try:
            return await self._clusters.get(context)
        except UsageError as error:
            problem = Problem(
                path="metadata.annotations[evertune.io/cluster]",
                type="NotFound",
                message=error.message,
                hint=error.hint,
            )
            raise SpecError.of([problem]) from None


def _refused(error: ApiError, namespace: str, name: str) -> SpecError:
    if error.status == 404:
        hint = "create it; or put it as another document into the same file, or write the template under trialSpec"
        return _problem("NotFound", f"there is no ConfigMap {namespace}/{name} in the cluster", hint)
    if error.status == 403:
        hint = f'the worker\'s Role in {namespace} lacks {{apiGroups: [""], resources: [configmaps], verbs: [get]}}'
        return _problem("Forbidden", error.message, hint)
    return _problem("Invalid", error.message, None)


def _problem(kind: ProblemType, message: str, hint: str | None, *, at: str = "") -> SpecError:
    return SpecError.of([Problem(path=PATH + at, type=kind, message=message, hint=hint)])
