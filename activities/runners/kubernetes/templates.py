"""Trial templates that experiments keep in ConfigMaps of a cluster. Implements `protocols.TemplateSource`.

Called by admission, once for each experiment: what is read then is stored with it.
"""

from __future__ import annotations

from activities.runners.kubernetes.api import ApiError
from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.discovery import CONFIG_MAP
from activities.runners.kubernetes.riding import away
from evertune.errors import Problem, SpecError, UnavailableError, UsageError

PATH = "spec.trialTemplate.configMap"
PATIENCE_S = 5.0


class ClusterTemplates:
    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def fetch(self, cluster: str | None, namespace: str, name: str, key: str) -> str:
        """The text behind `key`. Raises SpecError, EnvironmentProblem, UnavailableError."""
        try:
            api = (await self._clusters.get(cluster)).api
        except UsageError as error:
            raise _problem(error.message, error.hint) from error
        try:
            found = await api.call("GET", CONFIG_MAP.path(namespace, name), patience_s=PATIENCE_S)
        except ApiError as error:
            if away(error):
                raise UnavailableError(str(error)) from error
            hint = f'the worker\'s Role in {namespace} needs {{apiGroups: [""], resources: [configmaps], verbs: [get]}}'
            raise _problem(error.message, hint if error.status == 403 else None) from error
        data = found.get("data") or {}
        if key not in data:
            has = f"it has {', '.join(sorted(data))}" if data else "it has none"
            raise _problem(f"ConfigMap {namespace}/{name} has no key {key}", has)
        return str(data[key])


def _problem(message: str, hint: str | None) -> SpecError:
    return SpecError.of([Problem(path=PATH, type="NotFound", message=message, hint=hint)])
