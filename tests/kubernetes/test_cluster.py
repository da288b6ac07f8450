"""Reflectors are shared by all who use a kind in a namespace, and end a while after the last of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.discovery import JOB
from evertune.errors import UsageError
from evertune.testing.kubernetes import FakeKube
from evertune.testing.kubernetes.calling import a_job, until


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as kube:
        yield kube


@pytest.fixture
async def clusters(kube: FakeKube, tmp_path: Path) -> AsyncIterator[Clusters]:
    clusters = Clusters(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
    yield clusters
    await clusters.close()


async def test_a_context_is_one_cluster_by_whatever_name(clusters: Clusters) -> None:
    first, second, third = await asyncio.gather(*(clusters.get(name) for name in (None, "fake", None)))
    assert first is second is third
    with pytest.raises(UsageError):
        await clusters.get("nowhere")


async def test_one_watch_serves_all_of_a_kind_in_a_namespace(kube: FakeKube, clusters: Clusters) -> None:
    cluster = await clusters.get(None)
    assert cluster.objects(JOB, "default") is cluster.objects(JOB, "default")
    assert cluster.pods("default") is not cluster.pods("team")
    for reflector in cluster.reflectors:
        await reflector.ready(60)
    await until(lambda: kube.watches == 3)
    assert kube.count("GET", watch=True) == 3


async def test_a_reflector_that_nobody_uses_ends_and_begins_again(kube: FakeKube, tmp_path: Path) -> None:
    clusters = Clusters(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")), linger_s=0.4)
    cluster = await clusters.get(None)
    first = cluster.objects(JOB, "default")
    waiting = asyncio.ensure_future(first.wait(("default", "one"), bool))
    await asyncio.sleep(1.0)  # longer than it lingers
    assert cluster.reflectors == [first]
    body = a_job("one")
    body["metadata"]["labels"] = {labels.MANAGED_BY: labels.MANAGER}
    kube.store.create("jobs", body, "default")
    assert await asyncio.wait_for(waiting, 60)
    await until(lambda: not cluster.reflectors)
    await until(lambda: not kube.watches)
    again = cluster.objects(JOB, "default")
    assert again is not first
    assert await asyncio.wait_for(again.wait(("default", "one"), bool), 60)
    await clusters.close()
