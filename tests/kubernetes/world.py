"""A fake cluster, a store, and runners over both: what a restarted worker finds again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activities.ledger import StoreLedger
from activities.runners.kubernetes import labels
from activities.runners.kubernetes.classify import Limits
from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.render import Injection
from activities.runners.kubernetes.runner import KubernetesRunner
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict, Launch
from evertune.settings import CollectorMode
from evertune.store import Store, open_store
from evertune.testing.kubernetes import FakeCluster, Misfortune
from evertune.testing.scripts import Script, attempt_ref
from evertune.testing.store.making import new_experiment

COMPLETE = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
FAILED = 'status.conditions.#(type=="Failed")#|#(status=="True")#'
Fate = Script | Misfortune


def job(ref: AttemptRef, *, namespace: str = "default", spec: JsonDict | None = None, **launch: Any) -> Launch:
    container = {"name": "trial", "image": "none", "command": ["train"]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    return Launch(
        ref=ref,
        manifest={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": ref.trial_name, "namespace": namespace},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}, **(spec or {})},
        },
        primary_container="trial",
        working_dir="/",
        success_condition=COMPLETE,
        failure_condition=FAILED,
        **launch,
    )


@dataclass
class World:
    """`fates` by the attempt's key, or by a pod's name, say what becomes of its pods."""

    cluster: FakeCluster
    store: Store
    root: Path
    fates: dict[str, Fate | list[Fate]] = field(default_factory=dict)
    runners: list[tuple[KubernetesRunner, Clusters]] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    made: dict[str, int] = field(default_factory=dict)  # pods that ran, by the attempt's key

    def runner(self, *, settle_s: float = 0.2, mode: CollectorMode = "logs") -> KubernetesRunner:
        clusters = Clusters(kubeconfig=str(self.cluster.kubeconfig(self.root / "kubeconfig")))
        runner = KubernetesRunner(
            self.root / "trials",
            clusters,
            StoreLedger(self.store),
            database_id=self.store.database_id,
            injection=Injection(image="collector", mode=mode),
            limits=self.limits,
            settle_s=settle_s,
        )
        self.runners.append((runner, clusters))
        return runner

    async def close(self) -> None:
        for runner, clusters in self.runners:
            await runner.close()
            await clusters.close()

    def fate(self, pod: JsonDict) -> Fate:
        key = key_of(pod)
        self.made[key] = self.made.get(key, 0) + 1
        fate = self.fates.get(pod["metadata"]["name"]) or self.fates.get(key, Script())
        if isinstance(fate, list):  # of the first pod, the second, …
            return fate[min(self.made[key], len(fate)) - 1]
        return fate

    def jobs(self) -> list[JsonDict]:
        return self.cluster.store.all("jobs")

    def pods(self) -> list[JsonDict]:
        return self.cluster.store.all("pods")


def key_of(obj: JsonDict) -> str:
    told = obj["metadata"]["labels"]
    return f"{told[labels.EXPERIMENT]}/{told[labels.TRIAL]}/{told[labels.ATTEMPT]}"


@asynccontextmanager
async def a_world(directory: Path, *, limits: Limits | None = None, **cluster: Any) -> AsyncIterator[World]:
    worlds: list[World] = []
    with open_store(f"sqlite:///{directory / 'evertune.db'}") as store:
        store.claim_experiment(new_experiment(uid=attempt_ref().experiment_uid, backend="kubernetes", home_id=None))
        async with FakeCluster(lambda pod: worlds[0].fate(pod), **cluster) as kube:
            world = World(kube, store, directory, limits=limits or Limits())
            worlds.append(world)
            try:
                yield world
            finally:
                await world.close()


async def until(condition: Callable[[], bool], what: str = "", timeout_s: float = 60.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while not condition():
        assert loop.time() < end, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)
