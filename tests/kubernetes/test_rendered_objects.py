"""What is rendered, put to a real API server: strict about fields, with the restricted profile, nothing is created."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.runners.kubernetes.api import Api
from activities.runners.kubernetes.discovery import resource
from evertune.domain.metrics import CollectorSpec, Scrape
from evertune.protocols import JsonDict
from tests.kubernetes.kinds import SPECS, experiment_of, served
from tests.kubernetes.objects import job, launched
from tests.kubernetes.rendering import EXAMPLES, MODERN, OLD, everything, golden_file, launch_from, launch_of, render

pytestmark = pytest.mark.cluster

RIGHTS: JsonDict = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD: JsonDict = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}


@pytest.fixture
async def api(api_cluster: Path) -> AsyncIterator[Api]:
    made = await Api.connect(kubeconfig=str(api_cluster))
    yield made
    await made.close()


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    """One that takes restricted pods only."""
    name = f"rendered-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    await api.call("POST", "/api/v1/namespaces", body=body)
    yield name
    await api.call("DELETE", f"/api/v1/namespaces/{name}")


async def dry_run(api: Api, namespace: str, manifest: JsonDict) -> JsonDict:
    manifest = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    kind = await resource(api, manifest["apiVersion"], manifest["kind"])
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    created = await api.call("POST", kind.path(namespace), query=query, body=manifest)
    return dict(created)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
async def test_the_api_server_takes_katibs_examples(api: Api, namespace: str, file: Path) -> None:
    manifest = yaml.safe_load(golden_file(file).read_text())["manifest"]
    async with served(api, manifest["apiVersion"], manifest["kind"]):
        created = await dry_run(api, namespace, manifest)
        classic = await dry_run(api, namespace, render(launch_of(file), OLD).manifest)

    assert created["metadata"]["labels"]["evertune.io/managed-by"] == "evertune"
    assert {"evertune-init", "evertune-collector"} <= names_in(created)
    assert {"evertune-init", "evertune-collector"} <= names_in(classic)


def names_in(created: JsonDict) -> set[str]:
    """Of everything in it."""
    return {leaf for path, leaf in everything(created) if path.endswith("/name")}


@pytest.mark.parametrize("case", SPECS)
async def test_the_api_server_takes_a_trial_of_every_kind(api: Api, namespace: str, case: str) -> None:
    """What a cluster does not serve is defined for the while, and takes everything."""
    made = render(launch_from(experiment_of(case, namespace)))
    async with served(api, made.manifest["apiVersion"], made.manifest["kind"]):
        created = await dry_run(api, namespace, made.manifest)

    assert created["metadata"]["labels"]["evertune.io/managed-by"] == "evertune"
    assert made.mode == ("logs" if case in ("TrainJob", "Workflow", "PipelineRun", "Course") else "native")
    assert "${" not in str(created["spec"])


@pytest.mark.parametrize("features", [MODERN, OLD], ids=["native", "classic"])
@pytest.mark.parametrize("kind", ["StdOut", "File", "TensorFlowEvent", "PrometheusMetric", "Custom", "Push"])
async def test_a_restricted_namespace_takes_the_pods_of_every_collector(
    api: Api, namespace: str, kind: str, features: Any
) -> None:
    """As a pod: of a Job's template the profile only warns."""
    wanted = CollectorSpec(
        kind=kind, metrics=("loss",), path="/out/metrics.log", path_kind="File", scrape=Scrape(port=8080)
    )
    own = {"name": "own", "image": "own:1", "command": ["collect"], "securityContext": RIGHTS}
    launch = launched(
        job(container={"securityContext": RIGHTS}, pod=POD),
        collector=wanted,
        custom_collector=own if kind == "Custom" else None,
    )
    template = render(launch, features).manifest["spec"]["template"]

    created = await dry_run(
        api,
        namespace,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "spec": template["spec"],
            "metadata": {**template["metadata"], "name": "x"},
        },
    )

    names = [each["name"] for field in ("initContainers", "containers") for each in created["spec"][field]]
    assert {"evertune-init", "evertune-collector", "main"} <= set(names)
