"""Trial templates in ConfigMaps: read, or refused with what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.templates import ClusterTemplates
from evertune.errors import SpecError, UnavailableError
from evertune.testing.kubernetes import FakeCluster


@pytest.fixture
async def kube() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as kube:
        made = {"metadata": {"name": "templates"}, "data": {"job.yaml": "kind: Job"}}
        kube.store.create("configmaps", made, "default")
        yield kube


@pytest.fixture
async def templates(kube: FakeCluster, tmp_path: Path) -> AsyncIterator[ClusterTemplates]:
    clusters = Clusters(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
    yield ClusterTemplates(clusters)
    await clusters.close()


async def test_a_template_is_read(templates: ClusterTemplates) -> None:
    assert await templates.fetch(None, "default", "templates", "job.yaml") == "kind: Job"
    assert await templates.fetch("fake", "default", "templates", "job.yaml") == "kind: Job"


async def test_what_is_missing_is_named(templates: ClusterTemplates, kube: FakeCluster) -> None:
    for where, text in (
        ((None, "default", "templates", "tfjob.yaml"), "has no key tfjob.yaml; it has job.yaml"),
        ((None, "default", "nothing", "job.yaml"), 'configmaps "nothing" not found'),
        (("elsewhere", "default", "templates", "job.yaml"), "elsewhere"),
    ):
        with pytest.raises(SpecError, match=text):
            await templates.fetch(*where)
    kube.forbidden.add(("get", "configmaps"))
    with pytest.raises(SpecError, match=r"resources: \[configmaps\]"):
        await templates.fetch(None, "default", "templates", "job.yaml")


async def test_a_cluster_that_does_not_answer_is_asked_again_later(
    templates: ClusterTemplates, kube: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.templates.PATIENCE_S", 0.2)
    await kube.stop()
    with pytest.raises(UnavailableError, match="does not answer"):
        await templates.fetch(None, "default", "templates", "job.yaml")
