"""The clusters of a worker: one connection for each context, and one reflector for each kind and namespace in use.

Called by the runner. A reflector lives while somebody waits on it, and a minute longer: ask for it anew each time
instead of keeping it.
"""

from __future__ import annotations

import asyncio

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api
from activities.runners.kubernetes.discovery import POD, Resource
from activities.runners.kubernetes.reflector import Reflector

LINGER_S = 60.0


class Cluster:
    """One cluster. `api` is its connection."""

    def __init__(self, api: Api, *, linger_s: float = LINGER_S) -> None:
        self.api = api
        self._linger_s = linger_s
        self._reflectors: dict[tuple[Resource, str | None, str | None], Reflector] = {}
        self._janitor: asyncio.Task[None] | None = None

    def objects(self, resource: Resource, namespace: str | None, *, named_by: str | None = None) -> Reflector:
        """The shared reflector of what evertune made of this kind, or of what has that label; it starts when it is
        first asked for."""
        key = resource, namespace, named_by
        reflector = self._reflectors.get(key)
        if reflector is None:
            selector = named_by or labels.SELECTOR
            reflector = Reflector(self.api, resource, namespace, selector=selector, named_by=named_by)
            self._reflectors[key] = reflector
            reflector.start()
        reflector.last_used = asyncio.get_running_loop().time()
        if self._janitor is None or self._janitor.done():
            self._janitor = asyncio.create_task(self._tidy(), name="idle reflectors")
        return reflector

    def pods(self, namespace: str | None, *, named_by: str | None = None) -> Reflector:
        """The pods of our attempts; by the label that names their objects, where ours do not come to pods."""
        return self.objects(POD, namespace, named_by=named_by)

    @property
    def reflectors(self) -> list[Reflector]:
        """Those that run."""
        return list(self._reflectors.values())

    async def close(self) -> None:
        """End all watches and the connection."""
        if self._janitor is not None:
            self._janitor.cancel()
            await asyncio.gather(self._janitor, return_exceptions=True)
        for reflector in self._reflectors.values():
            await reflector.stop()
        self._reflectors.clear()
        await self.api.close()

    async def _tidy(self) -> None:
        """End the reflectors that nobody has used for a while, and itself when none is left."""
        loop = asyncio.get_running_loop()
        while self._reflectors:
            await asyncio.sleep(self._linger_s / 4)
            for key, reflector in list(self._reflectors.items()):
                if not reflector.users and loop.time() - reflector.last_used >= self._linger_s:
                    del self._reflectors[key]  # before the wait: whoever asks meanwhile gets a new one
                    await reflector.stop()


class Clusters:
    """The clusters by context; connections are made when they are first asked for."""

    def __init__(
        self, *, kubeconfig: str | None = None, default_context: str | None = None, linger_s: float = LINGER_S
    ) -> None:
        self._kubeconfig = kubeconfig
        self._default = default_context
        self._linger_s = linger_s
        self._clusters: dict[str | None, Cluster] = {}
        self._connecting = asyncio.Lock()

    async def get(self, context: str | None) -> Cluster:
        """The cluster of a context; None is the worker's own. Raises UsageError, EnvironmentProblem."""
        wanted = context or self._default
        if (held := self._clusters.get(wanted)) is not None:
            return held
        async with self._connecting:
            if wanted not in self._clusters:
                api = await Api.connect(wanted, kubeconfig=self._kubeconfig)
                # The current context by its name and by no name is one cluster.
                same = next((one for one in self._clusters.values() if one.api.context == api.context), None)
                if same is not None:
                    await api.close()
                self._clusters[wanted] = same or Cluster(api, linger_s=self._linger_s)
            return self._clusters[wanted]

    async def close(self) -> None:
        for cluster in {id(one): one for one in self._clusters.values()}.values():
            await cluster.close()
        self._clusters.clear()
