"""The looks before anything is watched: is our kind there, does Katib work here, who are we."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from aiohttp import web

from evertune.cli import run
from evertune.errors import EvertuneError, UnavailableError, UsageError
from evertune.operator.cluster import Cluster, credentials
from evertune.settings import Settings

EXPERIMENTS = {"resources": [{"name": "experiments"}]}
OURS, KATIBS = "/apis/evertune.io/v1alpha1", "/apis/kubeflow.org/v1beta1"
DEPLOYMENTS = "/apis/apps/v1/deployments"
IN_KUBEFLOW = "/apis/apps/v1/namespaces/kubeflow/deployments"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/katib.kubeflow.org"
MUTATING = HOOKS.replace("validating", "mutating")
CONTROLLER = {"items": [{"metadata": {"name": "katib-controller", "namespace": "kubeflow"}}]}
NOBODY: dict[str, Any] = {"items": []}


class Answers(dict[str, Any]):
    """What a server says at which path: an object, or a status. Elsewhere 404."""

    asked: list[str]
    url: str


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    answers = Answers({OURS: EXPERIMENTS, KATIBS: EXPERIMENTS, DEPLOYMENTS: NOBODY})
    answers.asked = []

    async def handle(request: web.Request) -> web.Response:
        answers.asked.append(request.path_qs)
        answer = answers.get(request.path, 404)
        status, body = (answer, {}) if isinstance(answer, int) else (200, answer)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    answers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield answers
    await runner.cleanup()


async def check(answers: Answers, *, adopt_katib: bool = True, namespaces: tuple[str, ...] = ()) -> None:
    cluster = Cluster(kopf.ConnectionInfo(server=answers.url), patience_s=0.1)
    await cluster.check(namespaces, adopt_katib=adopt_katib)


async def refusal(answers: Answers, **how: Any) -> str:
    with pytest.raises(EvertuneError) as caught:
        await check(answers, **how)
    return f"{caught.value}; {caught.value.hint}"


async def test_a_cluster_without_katib_may_be_adopted(answers: Answers) -> None:
    await check(answers)

    assert f"{DEPLOYMENTS}?fieldSelector=metadata.name%3Dkatib-controller" in answers.asked


async def test_nobody_looks_for_katib_unless_asked_to_adopt(answers: Answers) -> None:
    answers[DEPLOYMENTS] = CONTROLLER

    await check(answers, adopt_katib=False)

    assert answers.asked == [OURS]


@pytest.mark.parametrize("group", [OURS, KATIBS])
async def test_a_kind_that_is_not_installed_is_named_with_the_command_that_installs_it(
    answers: Answers, group: str
) -> None:
    del answers[group]

    told = await refusal(answers)

    assert f"no experiments of {group.removeprefix('/apis/')}" in told
    assert "kubectl apply -f deploy/kubernetes/crds/experiments." in told


async def test_katibs_controller_anywhere_is_a_reason_to_refuse(answers: Answers) -> None:
    answers[DEPLOYMENTS] = CONTROLLER

    assert "deployment kubeflow/katib-controller" in await refusal(answers)


@pytest.mark.parametrize("path", [HOOKS, MUTATING])
async def test_katibs_webhooks_are_a_reason_to_refuse(answers: Answers, path: str) -> None:
    answers[path] = {}

    assert "webhookconfiguration katib.kubeflow.org" in await refusal(answers)


async def test_who_may_not_list_all_deployments_looks_into_the_namespaces_it_may(answers: Answers) -> None:
    answers[DEPLOYMENTS] = answers[IN_KUBEFLOW] = 403
    answers["/apis/apps/v1/namespaces/team/deployments"] = {"items": [{"metadata": {"name": "k", "namespace": "team"}}]}

    assert "deployment team/k" in await refusal(answers, namespaces=("team",))


async def test_who_may_look_nowhere_does_not_adopt(answers: Answers) -> None:
    for path in (DEPLOYMENTS, IN_KUBEFLOW, HOOKS, MUTATING):
        answers[path] = 403

    told = await refusal(answers)

    assert "may not look" in told
    assert "adopt-katib" in told


async def test_credentials_that_are_not_accepted_are_told_at_once(answers: Answers) -> None:
    answers[OURS] = 401

    assert "does not accept our credentials" in await refusal(answers)


async def test_a_server_that_is_away_or_unwell_is_asked_again_and_then_told_of(answers: Answers) -> None:
    answers[OURS] = 503
    with pytest.raises(UnavailableError, match="answers 503"):
        await check(answers)

    away = Cluster(kopf.ConnectionInfo(server="http://127.0.0.1:1"), patience_s=0)
    with pytest.raises(UnavailableError, match=r"cannot reach the cluster at http://127\.0\.0\.1:1"):
        await away.check((), adopt_katib=False)


# ------------------------------------------------------------------------------------------------ credentials


def kubeconfig(path: Path, **user: Any) -> Settings:
    document = {
        "current-context": "one",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("one", "two")],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443"}} for name in ("one", "two")],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return settings(path)


def settings(path: Path, **more: str) -> Settings:
    return Settings.load({"EVERTUNE_HOME": str(path.parent), "EVERTUNE_KUBECONFIG": str(path), **more})


def test_the_context_of_the_settings_is_taken_else_the_current_one(tmp_path: Path) -> None:
    now = kubeconfig(tmp_path / "config", token="t")

    assert (credentials(now).server, credentials(now).token) == ("https://one:6443", "t")
    two = settings(tmp_path / "config", EVERTUNE_KUBE_CONTEXT="two")
    assert credentials(two).server == "https://two:6443"


@pytest.mark.parametrize(
    ("text", "context", "told"),
    [
        (None, "", "there is no kubeconfig"),
        ("{}", "", "Current context is not set"),
        ("a: [", "", "cannot be used"),
        ("current-context: x", "", "no context, cluster or user 'x'"),
        ("current-context: x", "y", "no context, cluster or user 'y'"),
        ("just text", "", "cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_told_in_a_sentence(
    tmp_path: Path, text: str | None, context: str, told: str
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)

    with pytest.raises(UsageError, match=told):
        credentials(settings(path, EVERTUNE_KUBE_CONTEXT=context))


def test_a_user_by_a_plugin_is_refused_with_the_way_out(tmp_path: Path) -> None:
    now = kubeconfig(tmp_path / "config", exec={"command": "login"})

    with pytest.raises(UsageError, match="no token, certificate or password"):
        credentials(now)


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
        [sys.executable, "-m", "evertune.operator"], env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"error: there is no kubeconfig {tmp_path / 'none'}"
