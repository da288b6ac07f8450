"""The looks before anything is watched: is our kind there, does Katib work here, who are we."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.cli import run
from evertune.errors import EvertuneError, UnavailableError
from evertune.kubectl.cluster import check, login
from evertune.settings import Settings
from evertune.testing.kubernetes import FOR_EVER, FakeKube, Kind
from evertune.testing.kubernetes.calling import until

OURS = Kind("evertune.io", "v1alpha1", "experiments", "Experiment")
KATIBS = Kind("kubeflow.org", "v1beta1", "experiments", "Experiment")
DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment")
HOOKS = [
    Kind(
        "admissionregistration.k8s.io",
        "v1",
        f"{kind.lower()}webhookconfigurations",
        f"{kind}WebhookConfiguration",
        namespaced=False,
        status=False,
    )
    for kind in ("Validating", "Mutating")
]
KATIB = {"metadata": {"name": "katib-controller"}}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube([OURS, DEPLOYMENTS, *HOOKS]) as kube:
        yield kube


@pytest.fixture
async def with_katibs_kind() -> AsyncIterator[FakeKube]:
    async with FakeKube([OURS, KATIBS, DEPLOYMENTS, *HOOKS]) as kube:
        kube.store.create("namespaces", {"metadata": {"name": "kubeflow"}}, "")
        yield kube


async def checked(kube: FakeKube, tmp_path: Path, *namespaces: str, adopt_katib: bool = True) -> str:
    settings = kubeconfig(tmp_path / "config", kube.url, token="t")
    return await check(settings, namespaces, adopt_katib=adopt_katib, patience_s=0)


async def refusal(kube: FakeKube, tmp_path: Path, *namespaces: str) -> str:
    with pytest.raises(EvertuneError) as caught:
        await checked(kube, tmp_path, *namespaces)
    return f"{caught.value}; {caught.value.hint}"


async def test_a_cluster_without_katib_may_be_adopted(with_katibs_kind: FakeKube, tmp_path: Path) -> None:
    assert await checked(with_katibs_kind, tmp_path) == with_katibs_kind.url


async def test_nobody_looks_for_katib_unless_asked_to_adopt(kube: FakeKube, tmp_path: Path) -> None:
    await checked(kube, tmp_path, adopt_katib=False)

    assert [request.path for request in kube.requests] == ["/apis/evertune.io/v1alpha1"]


async def test_a_kind_that_is_not_installed_is_named_with_the_command_that_installs_it(
    kube: FakeKube, tmp_path: Path
) -> None:
    told = await refusal(kube, tmp_path)

    assert "no experiments of kubeflow.org/v1beta1" in told
    assert "kubectl apply -f deploy/kubernetes/crds/experiments.kubeflow.org.yaml" in told
    async with FakeKube() as bare:
        assert "no experiments of evertune.io/v1alpha1" in await refusal(bare, tmp_path)


async def test_katibs_controller_anywhere_is_a_reason_to_refuse(with_katibs_kind: FakeKube, tmp_path: Path) -> None:
    with_katibs_kind.store.create("deployments", KATIB, "kubeflow")

    assert "deployment kubeflow/katib-controller" in await refusal(with_katibs_kind, tmp_path)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.plural)
async def test_katibs_webhooks_are_a_reason_to_refuse(with_katibs_kind: FakeKube, tmp_path: Path, hook: Kind) -> None:
    with_katibs_kind.store.create(hook.plural, {"metadata": {"name": "katib.kubeflow.org"}}, "")

    assert f"{hook.plural.removesuffix('s')} katib.kubeflow.org" in await refusal(with_katibs_kind, tmp_path)


async def test_who_may_look_nowhere_does_not_adopt(with_katibs_kind: FakeKube, tmp_path: Path) -> None:
    with_katibs_kind.forbidden |= {("list", "deployments"), *(("get", hook.plural) for hook in HOOKS)}

    told = await refusal(with_katibs_kind, tmp_path, "team")

    assert "may not look" in told
    assert "adopt-katib" in told
    asked = [request.path for request in with_katibs_kind.requests]
    assert "/apis/apps/v1/namespaces/kubeflow/deployments" in asked
    assert "/apis/apps/v1/namespaces/team/deployments" in asked


async def test_credentials_that_are_not_accepted_are_told_at_once(kube: FakeKube, tmp_path: Path) -> None:
    kube.token = "another"

    assert "does not accept our credentials" in await refusal(kube, tmp_path)


async def test_a_server_that_is_away_or_unwell_is_told_of(kube: FakeKube, tmp_path: Path) -> None:
    kube.fault(status=503, message="etcd is away", times=9)
    with pytest.raises(UnavailableError, match="is not well: etcd is away"):
        await checked(kube, tmp_path)

    await kube.stop()
    with pytest.raises(UnavailableError, match="does not answer"):
        await checked(kube, tmp_path)


# ------------------------------------------------------------------------------------------------ credentials


def kubeconfig(path: Path, server: str, *, context: str = "", **user: Any) -> Settings:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("one", "two")],
        "clusters": [
            {"name": "one", "cluster": {"server": server}},
            {"name": "two", "cluster": {"server": f"{server}/two"}},
        ],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    environment = {"EVERTUNE_HOME": str(path.parent), "EVERTUNE_KUBECONFIG": str(path)}
    return Settings.load({**environment, "EVERTUNE_KUBE_CONTEXT": context})


async def test_kopf_gets_what_the_kubeconfig_says(tmp_path: Path) -> None:
    path, server = tmp_path / "config", "https://127.0.0.1:6443"

    by_token = await login(kubeconfig(path, server, token="t"))
    assert (by_token.server, by_token.as_http_headers()) == (server, {"Authorization": "Bearer t"})
    by_password = await login(kubeconfig(path, server, username="me", password="secret"))
    assert by_password.as_http_headers()["Authorization"].startswith("Basic ")
    other = await login(kubeconfig(path, server, context="two", token="t"))
    assert other.server == f"{server}/two"


# -------------------------------------------------------------------------------------------------- the command


def test_without_the_extra_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("EVERTUNE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "kopf", None)

    code = run(["operator"])

    told = capsys.readouterr().err
    assert code == 1
    assert "needs kopf" in told
    assert "pip install 'evertune[operator]'" in told


def test_the_process_ends_with_one_sentence_when_there_is_no_cluster(tmp_path: Path) -> None:
    environment = {"EVERTUNE_HOME": str(tmp_path), "EVERTUNE_KUBECONFIG": str(tmp_path / "none")}

    done = subprocess.run(
        [sys.executable, "-m", "evertune.kubectl"], env=environment, capture_output=True, text=True, timeout=110
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"error: there is no kubeconfig at {tmp_path / 'none'}"


async def test_told_to_end_while_it_waits_for_the_cluster_it_ends_well(kube: FakeKube, tmp_path: Path) -> None:
    kube.fault(hang_s=600, times=FOR_EVER)
    kubeconfig(tmp_path / "config", kube.url, token="t")
    environment = {"EVERTUNE_HOME": str(tmp_path), "EVERTUNE_KUBECONFIG": str(tmp_path / "config")}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "evertune.kubectl", env=environment)
    try:
        await until(lambda: bool(kube.requests))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
