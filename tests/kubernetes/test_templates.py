"""Trial templates in ConfigMaps: what is read, and what is said of what cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.templates import ConfigMapTemplates
from evertune.errors import SpecError, UnavailableError
from evertune.testing.kubernetes import FakeKube
from tests.kubernetes.rendering import TEMPLATES

(KEY,) = TEMPLATES
WHERE = (None, *KEY)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as kube:
        kube.store.create("namespaces", {"metadata": {"name": "kubeflow"}}, "")
        yield kube


@pytest.fixture
async def templates(kube: FakeKube, tmp_path: Path) -> AsyncIterator[ConfigMapTemplates]:
    clusters = Clusters(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
    yield ConfigMapTemplates(clusters)
    await clusters.close()


def keep(kube: FakeKube, **data: str) -> None:
    kube.store.create("configmaps", {"metadata": {"name": KEY[1]}, "data": data}, KEY[0])


async def refusal(templates: ConfigMapTemplates, cluster: str | None = None) -> str:
    with pytest.raises(SpecError) as caught:
        await templates.fetch(cluster, *KEY)
    (problem,) = caught.value.problems
    return str(problem)


async def test_the_text_behind_the_key_is_read(kube: FakeKube, templates: ConfigMapTemplates) -> None:
    keep(kube, **{KEY[2]: TEMPLATES[KEY]})

    assert await templates.fetch(*WHERE) == TEMPLATES[KEY]


async def test_what_is_missing_is_named_with_its_mend(kube: FakeKube, templates: ConfigMapTemplates) -> None:
    told = await refusal(templates)
    assert "there is no ConfigMap kubeflow/trial-templates in the cluster" in told
    assert "create it" in told

    keep(kube, other="kind: Job", more="kind: Job")
    told = await refusal(templates)
    assert 'has no key "defaultTrialTemplate.yaml"' in told
    assert "keys: more, other" in told

    assert "nowhere" in await refusal(templates, "nowhere")


async def test_who_may_not_read_it_is_told_the_missing_rule(kube: FakeKube, templates: ConfigMapTemplates) -> None:
    kube.forbidden.add(("get", "configmaps"))

    told = await refusal(templates)

    assert 'cannot get resource "configmaps"' in told
    assert 'the worker\'s Role in kubeflow lacks {apiGroups: [""], resources: [configmaps], verbs: [get]}' in told


async def test_a_cluster_that_is_away_is_no_mistake_of_the_users(
    kube: FakeKube, templates: ConfigMapTemplates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.templates.PATIENCE_S", 0.2)
    await kube.stop()

    with pytest.raises(UnavailableError, match="does not answer"):
        await templates.fetch(*WHERE)
