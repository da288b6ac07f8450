"""The gateway that real pods report to: away while they end, and closed to whoever has the wrong token."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from evertune.domain.states import ExperimentState, TrialState
from evertune.store import Store
from evertune.testing.gateway import Attempt
from tests.kubernetes.real import Manifest, Namespace, a_namespace, experiment, nothing_left
from tests.kubernetes.stack import a_real_house, submit
from tests.server.conftest import points, post
from tests.workflow.harness import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]

TRIALS, LINES = 10, 12
OUTAGE_S = float(os.environ.get("EVERTUNE_TEST_OUTAGE_S", "40"))  # of the gateway
PROGRAM = f"for i in $(seq {LINES}); do echo objective=$X$i; sleep 0.5; done"


def ended(pod: Manifest) -> bool:
    """Whether its training container has; its collector may still be at work."""
    (status,) = [s for s in pod["status"].get("containerStatuses") or () if s["name"] == "trial"] or [{}]
    return "terminated" in (status.get("state") or {})


async def test_no_object_is_deleted_and_nothing_is_lost_while_the_gateway_is_away(
    full_cluster: Path, temporal_address: str, tmp_path: Path
) -> None:
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, gateway):
            store = house.store
            spec: dict[str, Any] = {"parallelTrialCount": TRIALS, "maxTrialCount": TRIALS}
            handle = await submit(house, experiment("away", namespace.name, PROGRAM, **spec))
            uid = handle.uid
            # Some have said something when it goes, others have not.
            await until(lambda: heard(store, uid) >= TRIALS // 2, timeout_s=90, what="first words")
            gateway.kill()
            began = time.monotonic()
            await until(lambda: all_ended(namespace), timeout_s=90, what="the programs end")
            await asyncio.sleep(max(5.0, OUTAGE_S - (time.monotonic() - began)))
            assert len(namespace.objects("jobs")) == TRIALS
            assert {trial.state for trial in store.trials(uid)} == {TrialState.RUNNING}
            assert not any(store.attempts(uid, number)[-1].collected for number in range(TRIALS))
            print(f"away for {time.monotonic() - began:.0f} s; heard of {heard(store, uid)} trials before")
            await gateway.start()
            record = await house.ended(handle, 90)
            assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, TRIALS)
            for trial in store.trials(uid):
                told = [point for _, point in store.points(uid, trial.number)]
                x = str(trial.parameters["x"])
                assert [point.value for point in told] == [f"{x}{i + 1}" for i in range(LINES)]
                assert trial.objective == max((point.value for point in told), key=float)
                (attempt,) = store.attempts(uid, trial.number)
                assert attempt.collected
            await asyncio.to_thread(nothing_left, namespace)


def heard(store: Store, uid: str) -> int:
    """Trials that have reported anything."""
    return sum(bool(store.points(uid, trial.number)) for trial in store.trials(uid))


def all_ended(namespace: Namespace) -> bool:
    pods = namespace.objects("pods")
    return len(pods) == TRIALS and all(ended(pod) for pod in pods)


SAFE: Manifest = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
LOOKS_AROUND = (
    "tr '\\0' '\\n' < /proc/1/environ; env; ls -R /var/run/secrets 2>&1; touch /here 2>&1; echo objective=$X;"
    " sleep 12; echo objective=$X"
)


async def test_a_pod_without_any_right_holds_the_key_of_its_own_trial_and_no_other_secret(
    full_cluster: Path, temporal_address: str, tmp_path: Path
) -> None:
    with a_namespace(full_cluster, **{"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        account = {"metadata": {"name": "bare"}, "automountServiceAccountToken": False}
        namespace.call("POST", f"/api/v1/namespaces/{namespace.name}/serviceaccounts", account)
        pod = {
            "serviceAccountName": "bare",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "container": {"securityContext": SAFE},
        }
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, gateway):
            uid = (handle := await submit(house, experiment("bare", namespace.name, LOOKS_AROUND, pod=pod))).uid
            await until(lambda: len(house.store.trials(uid)) == 2, timeout_s=30)
            await until(lambda: all(house.store.points(uid, n) for n in (0, 1)), timeout_s=60, what="first words")
            pods = sorted(
                namespace.objects("pods"), key=lambda pod: int(pod["metadata"]["labels"]["evertune.io/trial"])
            )
            tokens = [own_token(pod) for pod in pods]
            names = [trial.name for trial in house.store.trials(uid)]
            settings = gateway.process.settings
            report = {"points": points(metric="objective", first=10**6)}
            for mine, whose, status in ((0, 1, 403), (1, 0, 403), (0, 0, 200)):
                answer = await asyncio.to_thread(post, settings, Attempt(names[whose], tokens[mine]), report)
                assert answer[0] == status, answer
            secrets: list[str] = [
                house.settings.database_url,
                str(house.settings.home),
                house.settings.ingest_key_file.read_text().strip(),
                temporal_address,
            ]
            for each, token in zip(pods, tokens, strict=True):
                printed = namespace.log(each["metadata"]["name"], "trial")
                assert "X=0" in printed
                assert "Read-only file system" in printed
                assert "token" not in printed.lower().replace("no such file", "")
                told = [line.partition("=")[0] for line in printed.splitlines()]
                assert not [word for word in told if "TEMPORAL" in word or "DATABASE" in word or "SECRET" in word]
                for secret in (*secrets, token):
                    assert secret not in printed
                for secret in secrets:
                    assert secret not in json.dumps(each)
            record = await house.ended(handle, 60)
            assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, 2)
            await asyncio.to_thread(nothing_left, namespace)


async def test_pods_report_with_the_tokens_that_their_kubelet_gives_them(
    full_cluster: Path, temporal_address: str, tmp_path: Path
) -> None:
    with a_namespace(full_cluster, **{"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        pod = {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "container": {"securityContext": SAFE},
        }
        program = "ls /var/run/evertune 2>&1; echo objective=$X; sleep 5; echo objective=$X"
        async with a_real_house(temporal_address, tmp_path, full_cluster, pod_identity="account") as (house, _):
            uid = (handle := await submit(house, experiment("accounts", namespace.name, program, pod=pod))).uid
            await until(lambda: len(house.store.trials(uid)) == 2, timeout_s=30)
            await until(lambda: all(house.store.points(uid, n) for n in (0, 1)), timeout_s=60, what="first words")
            pods = namespace.objects("pods")
            for each in pods:
                assert "et1." not in json.dumps(each)
                assert "No such file" in namespace.log(each["metadata"]["name"], "trial")
            record = await house.ended(handle, 90)
            assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, 2)
            for number in (0, 1):
                assert len(house.store.points(uid, number)) == 2
                assert house.store.attempts(uid, number)[-1].collected
            await asyncio.to_thread(nothing_left, namespace)


def own_token(pod: Manifest) -> str:
    """The token of a pod's trial, which stands in the environment of its collector and nowhere else."""
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    holders: dict[str, Any] = {
        container["name"]: entry["value"]
        for container in containers
        for entry in container.get("env", ())
        if entry["name"] == "EVERTUNE_TOKEN"
    }
    assert list(holders) == ["evertune-collector"]
    token = str(holders["evertune-collector"])
    assert json.dumps(pod).count(token) == 1
    return token


async def test_pods_that_follow_each_other_are_heard_one_after_the_other(
    full_cluster: Path, temporal_address: str, tmp_path: Path
) -> None:
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
            document = experiment("again", namespace.name, "echo objective=$(date +%s); exit 1", maxTrialCount=1)
            document["spec"]["parallelTrialCount"] = 1
            document["spec"]["trialTemplate"]["trialSpec"]["spec"]["backoffLimit"] = 1
            handle = await submit(house, document)
            record = await house.ended(handle, 120)
            assert record.counts.failed == 1, record.message
            told = [int(point.value) for _, point in house.store.points(record.uid, 0)]
            assert len(told) == 2, "each pod prints one line, at the same place"
            assert told[0] < told[1]
            assert len(house.store.attempts(record.uid, 0)) == 1
