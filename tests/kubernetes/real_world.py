"""A runner over a real cluster with a real store as its ledger, and trials whose pods are a shell or what is asked for.

`tests.kubernetes.world` is the same over the fake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client.exceptions import ApiException

from activities.ledger import StoreLedger
from activities.runners.kubernetes import labels
from activities.runners.kubernetes.classify import Limits
from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.render import Injection
from activities.runners.kubernetes.runner import KubernetesRunner
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.protocols import Launch
from evertune.spec.kinds import KINDS
from evertune.store import Store, open_store
from evertune.testing.scripts import attempt_ref
from evertune.testing.store.making import new_experiment
from tests.kubernetes.real import IMAGE, PATHS, Manifest, Namespace, a_namespace

POD = "/api/v1/namespaces/{}/pods/{}"
JOB = "/apis/batch/v1/namespaces/{}/jobs/{}"
PAUSE_S = 0.5  # seconds between two looks of a test


def shell(program: str, name: str = "trial", **more: Any) -> Manifest:
    """A container."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", program],
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        **more,
    }


def template(container: Manifest, **pod: Any) -> Manifest:
    return {"spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **pod}}


def a_job(container: Manifest, *, spec: Manifest | None = None, **pod: Any) -> Manifest:
    made = template(container, **{"restartPolicy": "Never", **pod})
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 0, "template": made, **(spec or {})}}


def a_training_job(kind: str, field: str, **roles: tuple[str, Manifest]) -> Manifest:
    """`roles`: restart policy and container of each, one replica."""
    replicas = {
        role: {"replicas": 1, "restartPolicy": restarts, "template": template(container)}
        for role, (restarts, container) in roles.items()
    }
    return {"apiVersion": "kubeflow.org/v1", "kind": kind, "spec": {field: replicas}}


@dataclass
class RealWorld:
    namespace: Namespace
    store: Store
    runner: KubernetesRunner
    numbers: Iterator[int]

    def ref(self, attempt: int = 0) -> AttemptRef:
        """Of a trial that nobody has had before."""
        return attempt_ref(number=next(self.numbers), attempt=attempt)

    def launch(self, ref: AttemptRef, manifest: Manifest, *, namespace: str | None = None, **launch: Any) -> Launch:
        known = KINDS[manifest["kind"]]
        where = {"name": ref.trial_name, "namespace": namespace or self.namespace.name}
        return Launch(
            ref=ref,
            manifest={**manifest, "metadata": where},
            primary_container=known.container or "trial",
            working_dir="/",
            success_condition=known.success_condition,
            failure_condition=known.failure_condition,
            primary_pod_labels=dict(known.primary_pod_labels or {}),
            **launch,
        )

    async def begun(self, manifest: Manifest, *, namespace: str | None = None, **launch: Any) -> AttemptRef:
        ref = self.ref()
        await self.runner.create(self.launch(ref, manifest, namespace=namespace, **launch))
        return ref

    async def ended(self, ref: AttemptRef, timeout_s: float = 120) -> AttemptEnd:
        return await asyncio.wait_for(self.runner.wait(ref), timeout_s)

    async def end_of(self, manifest: Manifest, **launch: Any) -> AttemptEnd:
        return await self.ended(await self.begun(manifest, **launch))

    async def phase(self, ref: AttemptRef, text: str, timeout_s: float = 60) -> str:
        """The phase once it holds `text`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while text not in (shown := self.runner.phase(ref)):
            assert loop.time() < end, f"not within {timeout_s:g} s: {text!r} in {shown!r}"
            await asyncio.sleep(0.1)
        return shown

    async def pods(self, ref: AttemptRef, namespace: Namespace | None = None) -> list[Manifest]:
        selector = ",".join(f"{name}={value}" for name, value in labels.owned(ref, self.store.database_id).items())
        return await asyncio.to_thread((namespace or self.namespace).objects, "pods", selector)

    async def running(self, ref: AttemptRef, namespace: Namespace | None = None, phase: str = "Running") -> Manifest:
        """A pod of the attempt, once it is in that phase."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 60
        while True:
            pods = await self.pods(ref, namespace)
            for pod in pods:
                if pod["status"]["phase"] == phase and "deletionTimestamp" not in pod["metadata"]:
                    return pod
            assert loop.time() < end, f"no pod is {phase}: {[pod['status'] for pod in pods]}"
            await asyncio.sleep(PAUSE_S)

    async def call(self, method: str, path: str, body: Any = None, namespace: Namespace | None = None) -> Manifest:
        return await asyncio.to_thread((namespace or self.namespace).call, method, path, body)

    async def gone(self, ref: AttemptRef, namespace: Namespace | None = None) -> None:
        """Released, nothing is left of it."""
        await self.runner.release(ref)
        left = ["?"]
        loop = asyncio.get_running_loop()
        end = loop.time() + 60
        selector = f"{labels.EXPERIMENT}={ref.experiment_uid},{labels.TRIAL}={ref.number}"
        while left:
            assert loop.time() < end, f"left of trial {ref.number}: {left}"
            await asyncio.sleep(PAUSE_S)
            left = []
            for plural in PATHS:
                objects = await asyncio.to_thread((namespace or self.namespace).objects, plural, selector)
                left += [f"{plural}/{obj['metadata']['name']}" for obj in objects]


@asynccontextmanager
async def a_real_world(kubeconfig: Path, directory: Path, limits: Limits) -> AsyncIterator[RealWorld]:
    with (
        a_namespace(kubeconfig) as namespace,
        open_store(f"sqlite:///{directory / 'evertune.db'}") as store,
    ):
        store.claim_experiment(new_experiment(uid=attempt_ref().experiment_uid, backend="kubernetes", home_id=None))
        clusters = Clusters(kubeconfig=str(kubeconfig))
        runner = KubernetesRunner(
            directory / "trials",
            clusters,
            StoreLedger(store),
            database_id=store.database_id,
            injection=Injection(image="none", mode="logs"),
            limits=limits,
        )
        try:
            yield RealWorld(namespace, store, runner, iter(range(1000)))
        finally:
            await runner.close()
            await clusters.close()


@contextmanager
def another_namespace(world: RealWorld, **told: str) -> Iterator[Namespace]:
    with a_namespace(world.namespace.kubeconfig, **told) as made:
        yield made


async def vanished(world: RealWorld, path: str) -> None:
    """The API server has it no more."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 60
    while True:
        try:
            await world.call("GET", path)
        except ApiException as error:
            if error.status != 404:
                raise
            return
        assert loop.time() < end, f"{path} is still there"
        await asyncio.sleep(PAUSE_S)
