"""All of the fake together: `async with FakeCluster(script_of) as cluster:`."""

from __future__ import annotations

from collections.abc import Iterable

from evertune.testing.kubernetes.controllers import JobController
from evertune.testing.kubernetes.kubelet import Kubelet, ScriptOf
from evertune.testing.kubernetes.objects import JsonDict, Kind
from evertune.testing.kubernetes.server import FakeKube
from evertune.testing.kubernetes.training import TrainingController
from evertune.testing.scripts import Script


def succeeds(pod: JsonDict) -> Script:
    """The script of a pod that nobody wrote one for."""
    return Script()


class FakeCluster(FakeKube):
    """The API server with controllers and a node; without a script there is no node, and pods stay pending.

    `stop` and `start` are the API server's alone, as in an outage.
    """

    def __init__(
        self, script_of: ScriptOf | None = succeeds, kinds: Iterable[Kind] = (), *, version: tuple[int, int] = (1, 34),
        retry_s: float = 0.1, bookmark_every_s: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(kinds, version=version, bookmark_every_s=bookmark_every_s)
        self.kubelet = Kubelet(self.store, self.logs, script_of or succeeds, backoff_s=retry_s)
        self._node = script_of is not None
        self.jobs = JobController(self.store, retry_s=retry_s)
        self.training = TrainingController(self.store, retry_s=retry_s)

    async def start(self) -> None:
        await super().start()
        self.jobs.start()
        self.training.start()
        if self._node:
            self.kubelet.start()

    async def close(self) -> None:
        await super().close()
        await self.jobs.stop()
        await self.training.stop()
        await self.kubelet.stop()

    async def __aexit__(self, *_: object) -> None:
        await self.close()
