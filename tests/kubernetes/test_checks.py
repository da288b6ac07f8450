"""What is found out about a cluster before anything runs in it, with the mend of each finding."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes.api import Api
from activities.runners.kubernetes.checks import examine
from activities.runners.kubernetes.findings import Finding, Subject
from activities.runners.kubernetes.probe import probe
from activities.runners.kubernetes.render import Injection
from activities.runners.kubernetes.trial_checks import pull_secrets
from evertune.domain.metrics import CollectorSpec
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict
from evertune.testing.kubernetes import FakeCluster, FakeKube, misfortunes
from evertune.testing.kubernetes.kubelet import ScriptOf
from evertune.testing.scripts import Script
from tests.kubernetes.world import job

GATEWAY = "http://gateway.example:8090"
REF = AttemptRef("0" * 32, 0, 0, "digits-00000000")
INJECTION = Injection(image="collector:1")


def subject(
    kind: str = "StdOut", *, gateway: str | None = GATEWAY, namespace: str = "default", **changes: Any
) -> Subject:
    path = "/metrics" if kind == "File" else None
    collector = CollectorSpec(kind=kind, metrics=("loss",), path=path)
    launch = job(REF, namespace=namespace, ingest_url=gateway, token="t", collector=collector)
    return replace(Subject(namespace=namespace, injection=INJECTION, gateway=gateway, launch=launch), **changes)


def training(kind: str, field: str, container: str, role: str) -> Subject:
    wanted = subject()
    assert wanted.launch is not None
    template = {"spec": {"containers": [{"name": container, "image": "none", "command": ["train"]}]}}
    manifest = {
        "apiVersion": "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": REF.trial_name, "namespace": "default"},
        "spec": {field: {role: {"replicas": 1, "restartPolicy": "Never", "template": template}}},
    }
    return replace(wanted, launch=replace(wanted.launch, manifest=manifest, primary_container=container))


def of(found: list[Finding], what: str) -> Finding:
    return next(each for each in found if each.what == what)


def bad(found: list[Finding]) -> dict[str, str]:
    return {each.what: each.level for each in found if each.level != "ok"}


class Fake:
    def __init__(self, kube: FakeCluster, api: Api) -> None:
        self.kube, self.api = kube, api

    async def examine(self, wanted: Subject | None = None) -> list[Finding]:
        return await examine(self.api, wanted or subject())


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    async with FakeCluster(None) as kube:
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        yield Fake(kube, api)
        await api.close()


async def test_of_a_cluster_in_order_each_part_is_said_and_nothing_is_made(fake: Fake) -> None:
    found = await fake.examine()

    assert bad(found) == {}
    whats = [each.what for each in found]
    assert whats == ["Cluster", "API server", "Kind", "Namespace", "Rights", "Collector", "Trial", "Pods", "Gateway"]
    assert of(found, "Collector").found.startswith("native: A native sidecar collects")
    assert fake.kube.store.all("jobs") == fake.kube.store.all("pods") == []


async def test_without_an_experiment_the_rights_to_run_jobs_are_checked(fake: Fake) -> None:
    found = await fake.examine(subject(launch=None))

    assert bad(found) == {}
    assert fake.kube.count("POST", "jobs") == 0


async def test_a_cluster_that_does_not_answer_is_one_finding(fake: Fake) -> None:
    await fake.kube.stop()
    found = await fake.examine()

    assert bad(found) == {"API server": "fail"}
    assert "does not answer" in found[-1].found
    assert "--context fake version" in found[-1].mend


async def test_credentials_that_are_refused_are_told_from_a_server_that_is_away(fake: Fake) -> None:
    fake.kube.token = "another"
    found = await fake.examine()

    assert bad(found) == {"API server": "fail"}
    assert "log in again" in found[-1].mend


@pytest.mark.parametrize(("version", "level"), [((1, 26), "fail"), ((1, 27), "ok")])
async def test_an_old_kubernetes_is_refused_and_one_without_native_sidecars_is_not(
    tmp_path: Path, version: tuple[int, int], level: str
) -> None:
    async with FakeCluster(None, version=version) as kube:
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        found = await examine(api, subject())
        await api.close()

    assert of(found, "API server").level == level
    assert of(found, "Collector").found.startswith("classic: An ordinary container collects: native sidecars need")


async def test_a_clock_that_is_wrong_is_told_with_its_direction(fake: Fake) -> None:
    found = await examine(fake.api, subject(), clock=lambda: time.time() + 100)

    assert bad(found) == {"Clock": "warn"}
    assert "behind this machine's" in of(found, "Clock").found


async def test_a_namespace_that_is_not_there_is_told_once_with_the_command_that_makes_it(fake: Fake) -> None:
    found = await fake.examine(subject(namespace="team-a"))

    assert bad(found) == {"Namespace": "fail"}
    assert of(found, "Namespace").mend == "kubectl create namespace team-a"


async def test_a_namespace_that_may_not_be_looked_at_is_no_problem(fake: Fake) -> None:
    fake.kube.forbidden |= {("get", "namespaces")}

    assert bad(await fake.examine()) == {}


async def test_missing_rights_are_printed_as_the_very_rules_to_add(fake: Fake) -> None:
    fake.kube.forbidden |= {("create", "jobs"), ("delete", "jobs"), ("get", "pods/log")}
    found = await fake.examine()

    rights = of(found, "Rights")
    assert rights.level == "fail"
    assert rights.found == "this account may not create, delete jobs; get pods/log in default"
    assert rights.mend.splitlines()[1:] == [
        '- {apiGroups: ["batch"], resources: [jobs], verbs: [create, delete]}',
        '- {apiGroups: [""], resources: [pods/log], verbs: [get]}',
    ]
    assert of(found, "Trial").level == "warn"  # it could not be tried


ACCOUNT = replace(INJECTION, identity="account")


async def test_where_pods_show_their_own_tokens_the_right_to_ask_about_them_is_checked(fake: Fake) -> None:
    wanted = subject(injection=ACCOUNT)
    assert of(await fake.examine(wanted), "Pod identity").level == "ok"
    fake.kube.forbidden |= {("create", "tokenreviews")}
    found = of(await fake.examine(wanted), "Pod identity")
    assert found.level == "fail"
    assert found.found == "by account, but this one may not create tokenreviews, so that no report would be taken"
    assert found.mend.splitlines() == [
        "set EVERTUNE_POD_IDENTITY=token, or add to the account's rights:",
        '- {apiGroups: ["authentication.k8s.io"], resources: [tokenreviews], verbs: [create]}'
        "  # over the whole cluster, by a ClusterRole",
    ]


async def test_in_a_cluster_where_the_server_has_an_account_of_its_own_a_missing_right_is_a_warning(
    tmp_path: Path,
) -> None:
    async with FakeCluster(None) as kube:
        kube.forbidden |= {("create", "tokenreviews"), ("get", "pods")}
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig", "in-cluster")))
        found = of(await examine(api, subject(injection=ACCOUNT)), "Pod identity")
        await api.close()
    assert found.level == "warn"
    assert "create tokenreviews and get pods, which the server's must" in found.found
    assert found.mend.splitlines()[0].startswith("deploy/kubernetes/components/pod-identity")
    assert found.mend.splitlines()[2] == '- {apiGroups: [""], resources: [pods], verbs: [get]}  # in default'


async def test_where_no_pod_would_show_its_token_nothing_is_asked_about_that(fake: Fake) -> None:
    fake.kube.forbidden |= {("create", "tokenreviews")}
    usual = subject()
    assert usual.launch is not None
    for wanted in (
        usual,
        subject(injection=ACCOUNT, gateway=None),
        subject(injection=ACCOUNT, launch=replace(usual.launch, cluster="far")),
    ):
        assert "Pod identity" not in [each.what for each in await fake.examine(wanted)]


async def test_rights_that_only_explain_are_warned_about(fake: Fake) -> None:
    fake.kube.forbidden |= {("watch", "events"), ("get", "configmaps")}
    found = await fake.examine()

    assert bad(found) == {"Rights": "warn"}
    assert "why a trial does not start" in of(found, "Rights").found


async def test_a_template_in_a_config_map_needs_the_right_to_read_it(fake: Fake) -> None:
    fake.kube.forbidden |= {("get", "configmaps")}
    found = await fake.examine(subject(reads_config_map=True))

    assert bad(found) == {"Rights": "fail"}


async def test_a_kind_that_the_cluster_does_not_serve_is_told_with_what_would_bring_it(tmp_path: Path) -> None:
    async with FakeCluster(None) as kube:
        kube.store.kinds = {key: kind for key, kind in kube.store.kinds.items() if kind.kind != "TFJob"}
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        found = await examine(api, training("TFJob", "tfReplicaSpecs", "tensorflow", "Worker"))
        await api.close()

    assert bad(found) == {"Kind": "fail"}
    assert of(found, "Kind").found == "the cluster serves no TFJob (kubeflow.org/v1)"
    assert "PyTorchJob" in of(found, "Kind").mend


async def test_a_schema_before_training_operator_1_8_gets_an_ordinary_collector(fake: Fake) -> None:
    fake.kube.store.rejected.add("spec.*.*.template.spec.initContainers.*.restartPolicy")
    found = await fake.examine(training("PyTorchJob", "pytorchReplicaSpecs", "pytorch", "Master"))

    assert bad(found) == {}
    assert "as before training-operator 1.8" in of(found, "Collector").found


async def test_an_object_that_its_operator_has_left_alone_is_a_sign_that_there_is_none(tmp_path: Path) -> None:
    wanted = training("TFJob", "tfReplicaSpecs", "tensorflow", "Worker")
    assert wanted.launch is not None
    async with FakeKube() as kube:  # no controller runs beside it
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        kube.store.create("tfjobs", {**wanted.launch.manifest, "metadata": {"name": "other"}}, "default")
        young = await examine(api, wanted)
        kube.store.get("tfjobs", "default", "other")["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
        old = await examine(api, wanted)
        await api.close()

    assert bad(young) == {}
    assert bad(old) == {"Operator": "warn"}
    assert of(old, "Operator").found.startswith("TFJob other has stood for ")


async def test_a_field_that_nobody_knows_is_refused_in_the_api_servers_words(fake: Fake) -> None:
    wanted = subject()
    assert wanted.launch is not None
    wanted.launch.manifest["spec"]["backOffLimit"] = 1
    found = await fake.examine(wanted)

    assert bad(found) == {"Trial": "fail"}
    assert 'unknown field "spec.backOffLimit"' in of(found, "Trial").found


async def test_what_refuses_pods_but_not_jobs_is_found_as_well(fake: Fake) -> None:
    sentence = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
    fake.kube.store.admission.append(lambda plural, _: sentence if plural == "pods" else None)
    found = await fake.examine()

    assert bad(found) == {"Pods": "fail"}
    assert of(found, "Pods").found == sentence
    assert "securityContext" in of(found, "Pods").mend


async def test_a_quota_that_is_used_up_is_a_warning(fake: Fake) -> None:
    fake.kube.store.admission.append(misfortunes.quota_exceeded())

    assert set(bad(await fake.examine()).values()) == {"warn"}


async def test_pull_secrets_are_looked_for_only_where_secrets_may_be_read(fake: Fake) -> None:
    wanted = subject()
    assert wanted.launch is not None
    template = wanted.launch.manifest["spec"]["template"]
    template["spec"]["imagePullSecrets"] = [{"name": "registry"}, {"name": "registry"}]
    missing = await fake.examine(wanted)
    fake.kube.store.create("secrets", {"metadata": {"name": "registry"}}, "default")
    there = await fake.examine(wanted)
    fake.kube.forbidden |= {("get", "secrets")}
    unknown = await fake.examine(wanted)

    assert pull_secrets(wanted.launch.manifest) == ["registry"]
    assert bad(missing) == {"Pull secrets": "warn"}
    assert (bad(there), of(there, "Pull secrets").found) == ({}, "registry")
    assert bad(unknown) == {}
    assert "may not read Secrets" in of(unknown, "Pull secrets").found


@pytest.mark.parametrize("gateway", [None, "http://127.0.0.1:8090"])
async def test_without_a_gateway_that_pods_reach_logs_are_read_and_other_collectors_are_refused(
    fake: Fake, gateway: str | None
) -> None:
    standard = await fake.examine(subject(gateway=gateway))
    other = await fake.examine(subject("File", gateway=gateway))

    assert bad(standard) == {"Gateway": "warn"}
    assert "EVERTUNE_SERVER_HOST=0.0.0.0" in of(standard, "Gateway").mend
    assert of(standard, "Collector").found.startswith("logs:")
    assert bad(other) == {"Trial": "fail"}
    assert "EVERTUNE_INGEST_URL" in of(other, "Trial").mend


# ---------------------------------------------------------------------------------------------------------- probe


async def tried(tmp_path: Path, script_of: ScriptOf | None, **rest: Any) -> tuple[Finding, JsonDict]:
    """What a probe found, and the Job that it made; nothing of it may be left."""
    async with FakeCluster(script_of) as kube:
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        with kube.store.watching("jobs") as changes:
            found = await probe(api, "default", url=GATEWAY, injection=INJECTION, **rest)
            made = changes.get_nowait().after if not changes.empty() else {}
        await api.close()
        assert [job for job in kube.store.all("jobs") if "deletionTimestamp" not in job["metadata"]] == []
    return found, made


async def test_a_probe_that_gets_an_answer_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    found, made = await tried(tmp_path, lambda pod: Script(), pull_secrets=["registry"])

    assert (found.level, found.found) == ("ok", f"{GATEWAY}, reached from a pod in default")
    pod = made["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["containers"][0]["image"] == "collector:1"
    assert pod["containers"][0]["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["ttlSecondsAfterFinished"] > 0  # for when nobody is left to delete it
    assert made["spec"]["activeDeadlineSeconds"] > 0


async def test_a_probe_that_gets_none_repeats_what_the_pod_said(tmp_path: Path) -> None:
    found, _ = await tried(tmp_path, lambda pod: Script(lines=("[Errno 111] Connection refused",), exit_code=1))

    assert found.level == "fail"
    assert found.found == f"pods of default do not reach {GATEWAY}: [Errno 111] Connection refused"


async def test_a_collector_image_that_cannot_be_pulled_is_found_by_the_probe(tmp_path: Path) -> None:
    found, _ = await tried(tmp_path, lambda pod: misfortunes.image_missing("collector:1"))

    assert (found.what, found.level) == ("Collector", "fail")
    assert "collector:1: not found" in found.found
    assert "EVERTUNE_COLLECTOR_IMAGE" in found.mend


async def test_a_probe_that_finds_no_node_gives_up_and_says_why(tmp_path: Path) -> None:
    found, _ = await tried(tmp_path, lambda pod: misfortunes.unschedulable(), patience_s=0.5)

    assert found.level == "fail"
    assert "Insufficient cpu" in found.found


async def test_a_probe_that_may_not_be_made_is_a_finding(tmp_path: Path) -> None:
    async with FakeCluster(None) as kube:
        kube.forbidden.add(("create", "jobs"))
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        found = await probe(api, "default", url=GATEWAY, injection=INJECTION)
        await api.close()

    assert found.level == "fail"
    assert "cannot create resource" in found.found


async def test_an_answer_that_is_lost_on_its_way_makes_no_second_probe(tmp_path: Path) -> None:
    async with FakeCluster(lambda pod: Script()) as kube:
        kube.fault(method="POST", path="/jobs", drop="after", times=1)
        kube.fault(method="GET", path="/pods", status=503, times=1)
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        found = await probe(api, "default", url=GATEWAY, injection=INJECTION)
        await api.close()

    assert found.level == "ok"
    assert kube.count("POST", "/jobs") == 2
