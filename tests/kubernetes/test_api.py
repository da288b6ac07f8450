"""A connection to a cluster: how it is configured, what it repeats, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from activities.runners.kubernetes import credentials
from activities.runners.kubernetes.api import Api, ApiError, Unreachable
from activities.runners.kubernetes.discovery import JOB, POD, Resource, resource, server_version
from evertune.errors import EnvironmentProblem, LaunchError, UsageError
from evertune.testing.kubernetes import FOR_EVER, FakeKube, Kind
from evertune.testing.kubernetes.calling import a_job, until
from tests.repository.checkout import ROOT

JOBS = "/apis/batch/v1/namespaces/default/jobs"


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube([Kind("nobody.example", "v1beta1", "things", "Thing")]) as kube:
        yield kube


@pytest.fixture
async def api(kube: FakeKube, tmp_path: Path) -> AsyncIterator[Api]:
    api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
    yield api
    await api.close()


# ---------------------------------------------------------------------------------------------- requests


async def test_a_refusal_is_the_servers_own_sentence(api: Api) -> None:
    with pytest.raises(ApiError) as caught:
        await api.call("GET", f"{JOBS}/none")
    error = caught.value
    assert str(error) == 'jobs.batch "none" not found'
    assert (error.status, error.reason, error.details["kind"]) == (404, "NotFound", "jobs")


@pytest.mark.parametrize(
    "fault", [{"status": 429, "retry_after": 0.1}, {"status": 500}, {"status": 503}, {"drop": "before"}]
)
async def test_with_patience_a_busy_or_failing_server_is_asked_again(
    kube: FakeKube, api: Api, fault: dict[str, Any]
) -> None:
    kube.fault(times=2, **fault)
    assert (await api.call("GET", JOBS, patience_s=60))["items"] == []
    assert len(kube.requests) == 3


async def test_without_patience_it_is_not(kube: FakeKube, api: Api) -> None:
    kube.fault(status=503, retry_after=7, message="come back")
    with pytest.raises(ApiError, match="come back") as caught:
        await api.call("GET", JOBS)
    assert caught.value.retry_after == 7
    assert len(kube.requests) == 1


async def test_patience_has_an_end_and_a_long_retry_after_is_not_waited_for(kube: FakeKube, api: Api) -> None:
    kube.fault(status=429, retry_after=3600, times=FOR_EVER)
    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(api.call("GET", JOBS, patience_s=60), 30)
    assert caught.value.status == 429


async def test_what_is_wrong_with_the_request_is_not_repeated(kube: FakeKube, api: Api) -> None:
    with pytest.raises(ApiError) as caught:
        await api.call("POST", JOBS, body=a_job("Upper"), patience_s=60)
    assert caught.value.status == 422
    assert len(kube.requests) == 1


async def test_a_create_whose_answer_was_lost_is_repeated_and_meets_itself(kube: FakeKube, api: Api) -> None:
    kube.fault(method="POST", drop="after")
    with pytest.raises(ApiError) as caught:
        await api.call("POST", JOBS, body=a_job("one"), patience_s=60)
    assert caught.value.reason == "AlreadyExists"
    assert kube.store.find("jobs", "default", "one") is not None


async def test_no_answer_is_an_error_of_its_own_with_the_address(kube: FakeKube, api: Api) -> None:
    kube.fault(hang_s=20)
    with pytest.raises(Unreachable, match=f"the API server at {kube.url} does not answer: no answer in time"):
        await api.call("GET", JOBS, timeout_s=0.2)
    kube.faults.clear()
    kube.fault(drop="before", times=FOR_EVER)
    with pytest.raises(Unreachable, match="it closed the connection"):
        await api.call("GET", JOBS)
    await kube.stop()
    with pytest.raises(Unreachable, match=r"does not answer: .*[Cc]onnect"):
        await api.call("GET", JOBS)


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE])
def test_a_connection_that_was_reset_is_said_without_the_systems_numbers(number: int) -> None:
    cause = aiohttp.ClientOSError(number, os.strerror(number))
    assert str(Unreachable("https://here", cause)) == (
        "the API server at https://here does not answer: it closed the connection"
    )


async def test_an_api_server_that_comes_back_within_the_patience_is_not_noticed(kube: FakeKube, api: Api) -> None:
    await kube.stop()
    asked = asyncio.ensure_future(api.call("GET", JOBS, patience_s=60))
    await asyncio.sleep(0.3)
    assert not asked.done()
    await kube.start()
    assert (await asyncio.wait_for(asked, 60))["items"] == []


async def test_more_open_watches_than_connections_make_no_request_wait(kube: FakeKube, api: Api) -> None:
    async def watch() -> None:
        async for _ in api.stream(JOBS, query={"watch": "true"}, read_timeout_s=60):
            pass

    watches = [asyncio.ensure_future(watch()) for _ in range(150)]
    try:
        await until(lambda: kube.watches == 150)
        await api.call("GET", JOBS, timeout_s=60)
    finally:
        for one in watches:
            one.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def test_a_stream_that_breaks_off_or_says_nothing_is_unreachable(kube: FakeKube, api: Api) -> None:
    kube.store.create("jobs", a_job("one"), "default")
    kube.fault(watch=True, after_events=1)
    chunks = api.stream(JOBS, query={"watch": "true"}, read_timeout_s=60)
    assert json.loads(await anext(chunks))["type"] == "ADDED"
    with pytest.raises(Unreachable):
        await anext(chunks)
    silent = api.stream(JOBS, query={"watch": "true", "resourceVersion": "99999"}, read_timeout_s=0.2)
    with pytest.raises(Unreachable, match="no answer in time"):
        await anext(silent)


async def test_a_text_is_read_up_to_its_limit(kube: FakeKube, api: Api) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "x"}]}}
    made = kube.store.create("pods", pod, "default")
    state = {"name": "main", "state": {"running": {}}}
    kube.store.set_status("pods", "default", "p", {"containerStatuses": [state]})
    kube.logs.of(made, "main").write("line\n" * 1000)
    path = POD.path("default", "p", "log")
    assert await api.text(path, limit_bytes=7) == b"line\nli"
    assert len(await api.text(path, limit_bytes=1 << 20)) == 5000
    assert await api.text(path, query={"tailLines": "1"}, limit_bytes=100) == b"line\n"


# ---------------------------------------------------------------------------------------------- credentials


async def test_an_expired_token_costs_one_reload_for_all_who_were_refused(
    kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.token = "first"
    path = kube.kubeconfig(tmp_path / "kubeconfig")
    api = await Api.connect(kubeconfig=str(path))
    await api.call("GET", JOBS)
    kube.token = "second"
    kube.kubeconfig(path)
    loads = 0
    real = credentials.load

    async def counted(context: str | None, kubeconfig: str | None) -> credentials.Access:
        nonlocal loads
        loads += 1
        return await real(context, kubeconfig)

    monkeypatch.setattr(credentials, "load", counted)
    await asyncio.gather(*(api.call("GET", JOBS) for _ in range(20)))
    assert loads == 1
    kube.token = "third"  # and the file is as it was
    with pytest.raises(ApiError) as caught:
        await api.call("GET", JOBS, patience_s=5)
    assert (caught.value.status, loads) == (401, 2)
    await api.close()


def plugin(tmp_path: Path, kube: FakeKube, script: str) -> Path:
    """A kubeconfig whose token comes from a program."""
    program = tmp_path / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    path = kube.kubeconfig(tmp_path / "kubeconfig")
    config = json.loads(path.read_text(encoding="utf-8"))
    version = "client.authentication.k8s.io/v1"
    config["users"][0]["user"] = {"exec": {"apiVersion": version, "command": str(program), "interactiveMode": "Never"}}
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


async def test_a_plugins_token_is_fetched_again_when_it_has_expired(kube: FakeKube, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first", encoding="utf-8")
    answer = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    path = plugin(tmp_path, kube, f"printf '{answer}' \"$(cat {token})\"")
    kube.token = "first"
    api = await Api.connect(kubeconfig=str(path))
    await api.call("GET", JOBS)
    kube.token = "second"
    token.write_text("second", encoding="utf-8")
    await api.call("GET", JOBS)
    await api.close()


async def test_a_plugin_that_fails_is_named_with_what_it_said(kube: FakeKube, tmp_path: Path) -> None:
    path = plugin(tmp_path, kube, "echo 'log in first' >&2; exit 3")
    with pytest.raises(EnvironmentProblem, match=r"credential plugin .*plugin of the context fake .*log in first"):
        await Api.connect(kubeconfig=str(path))


async def test_a_context_that_is_not_there_is_said_with_those_that_are(kube: FakeKube, tmp_path: Path) -> None:
    path = kube.kubeconfig(tmp_path / "kubeconfig", "research")
    with pytest.raises(UsageError, match="has no context nowhere") as caught:
        await Api.connect("nowhere", kubeconfig=str(path))
    assert caught.value.hint == "it has: research"
    api = await Api.connect("research", kubeconfig=str(path))
    assert (api.context, api.server) == ("research", kube.url)
    await api.close()


async def test_a_kubeconfig_that_is_not_there_or_is_none_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no kubeconfig at"):
        await Api.connect(kubeconfig=str(tmp_path / "none"))
    path = tmp_path / "kubeconfig"
    for text in ("{", "[]", "a: b", "contexts: [{name: a}]\nclusters: []\nusers: []\ncurrent-context: a\n", ""):
        path.write_text(text, encoding="utf-8")
        with pytest.raises((EnvironmentProblem, UsageError)):
            await Api.connect(kubeconfig=str(path))


async def test_in_a_pod_its_service_account_is_used(
    kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(EnvironmentProblem, match="not a pod with a service account"):
        await Api.connect()


# ---------------------------------------------------------------------------------------------- discovery


async def test_a_kind_is_found_and_asked_for_once(kube: FakeKube, api: Api) -> None:
    found = await resource(api, "kubeflow.org/v1", "TFJob")
    assert found == Resource("kubeflow.org/v1", "TFJob", "tfjobs", True)
    assert found.path("team", "a", "status") == "/apis/kubeflow.org/v1/namespaces/team/tfjobs/a/status"
    await resource(api, "kubeflow.org/v1", "PyTorchJob")
    assert await resource(api, "batch/v1", "Job") == JOB
    assert len(kube.requests) == 1
    assert await server_version(api) == (1, 34)


@pytest.mark.parametrize(
    ("api_version", "kind", "mend"),
    [
        ("kubeflow.org/v1", "TfJob", "kubeflow.org/v1 has: JAXJob, MPIJob"),
        ("nobody.example/v1", "Thing", "it serves nobody.example/v1beta1"),
        ("ray.io/v1", "RayJob", "install KubeRay, or use another cluster"),
        ("else.example/v1", "Thing", "install what defines else.example, or use another cluster"),
    ],
)
async def test_a_kind_that_is_not_served_is_said_with_a_mend(
    kube: FakeKube, api: Api, api_version: str, kind: str, mend: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        await resource(api, api_version, kind)
    assert str(caught.value) == f"the cluster serves no {kind} ({api_version})"
    assert mend in (caught.value.hint or "")


async def test_a_kind_that_is_installed_later_is_found(kube: FakeKube, api: Api) -> None:
    with pytest.raises(LaunchError):
        await resource(api, "else.example/v1", "Late")
    kube.store.kinds["else.example", "v1", "lates"] = Kind("else.example", "v1", "lates", "Late")
    assert (await resource(api, "else.example/v1", "Late")).plural == "lates"


def test_the_cluster_client_is_loaded_by_the_first_connection_and_not_before() -> None:
    modules = ("api", "cluster", "discovery", "reflector", "credentials", "labels")
    code = "import sys\n" + "".join(f"import activities.runners.kubernetes.{name}\n" for name in modules)
    code += "print([name for name in sys.modules if name.split('.')[0] == 'kubernetes'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
