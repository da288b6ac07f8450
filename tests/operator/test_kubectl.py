"""The operator as a process, on a real API server, driven by kubectl; Temporal, the worker and the trials are local.

Takes the cluster of EVERTUNE_TEST_KUBECONFIG. Everything happens in a namespace of the test's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evertune.app import child_environment
from evertune.domain.states import ExperimentState
from tests.repository.checkout import ROOT
from tests.workflow.harness import House, manifest, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]

CRDS = ROOT / "deploy" / "kubernetes" / "crds"
LONG = "sleep 600; echo objective=$X"  # for longer than any test


@dataclass
class Kubectl:
    kubeconfig: str
    namespace: str

    async def __call__(self, *words: str, document: Any = None, check: bool = True) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            ["kubectl", "--kubeconfig", self.kubeconfig, "-n", self.namespace, *words],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    async def apply(self, document: dict[str, Any], api_version: str = "evertune.io/v1alpha1") -> str:
        return await self("apply", "-f", "-", document={**document, "apiVersion": api_version})

    async def object(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self("get", "experiments.evertune.io", name, "-o", "json"))
        return found

    async def state(self, name: str) -> str:
        status = (await self.object(name)).get("status") or {}
        return str(status.get("state", ""))

    async def condition(self, name: str, kind: str) -> dict[str, Any]:
        conditions = ((await self.object(name)).get("status") or {}).get("conditions") or []
        found: list[dict[str, Any]] = [one for one in conditions if one["type"] == kind]
        return found[0] if found else {}

    async def event(self, reason: str) -> None:
        async def told() -> bool:
            return reason in await self("get", "events", "-o", "jsonpath={.items[*].reason}")

        await until(told, timeout_s=60, what=f"an Event {reason}")

    async def reaches(self, name: str, state: str) -> None:
        async def there() -> bool:
            return await self.state(name) == state

        await until(there, timeout_s=100, what=f"{name} is {state}")


@dataclass
class Operator:
    environment: dict[str, str]
    log: Path
    words: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    begun_at: int = 0  # what the log held then

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.begun_at = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evertune.kubectl", *self.words],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        deadline = time.monotonic() + 100
        while number is signal.SIGTERM and b"operator watches" not in self.log.read_bytes()[self.begun_at :]:
            assert time.monotonic() < deadline, "it has not begun"
            assert self.process.poll() is None, "it has ended"
            time.sleep(0.1)
        self.process.send_signal(number)
        return self.process.wait(100)


@pytest.fixture(scope="module")
def kubeconfig() -> str:
    path = os.environ.get("EVERTUNE_TEST_KUBECONFIG")
    if not path:
        pytest.skip("EVERTUNE_TEST_KUBECONFIG names no cluster")
    for file in sorted(CRDS.glob("experiments.*.yaml")):
        subprocess.run(["kubectl", "--kubeconfig", path, "apply", "-f", str(file)], check=True, capture_output=True)
    names = ["crd/experiments.evertune.io", "crd/experiments.kubeflow.org"]
    wait = ["kubectl", "--kubeconfig", path, "wait", "--for=condition=Established", "--timeout=60s"]
    subprocess.run([*wait, *names], check=True, capture_output=True, timeout=150)
    return path


@pytest.fixture
async def kubectl(kubeconfig: str) -> AsyncIterator[Kubectl]:
    asks = Kubectl(kubeconfig, f"operator-{uuid.uuid4().hex[:8]}")
    await asks("create", "namespace", asks.namespace)
    yield asks
    for name in (await asks("get", "experiments.evertune.io,experiments.kubeflow.org", "-o", "name")).split():
        await asks("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')  # no operator is left
    await asks("delete", "namespace", asks.namespace, "--wait=false")


@pytest.fixture
def operator(kubectl: Kubectl, house: House, tmp_path: Path) -> Iterator[Operator]:
    environment = {
        **child_environment(),
        **house.settings.environment(),
        "EVERTUNE_KUBECONFIG": kubectl.kubeconfig,
        "EVERTUNE_TEMPORAL_ADDRESS": house.address,
    }
    started = Operator(environment, tmp_path / "operator.log", ("--namespace", kubectl.namespace))
    started.start()
    yield started
    try:
        if started.process is not None and started.process.poll() is None:
            assert started.end() == 0
    finally:
        print(started.log.read_text())


async def test_apply_runs_get_shows_and_wait_waits(kubectl: Kubectl, operator: Operator, house: House) -> None:
    await kubectl.apply(manifest("applied"))

    await kubectl("wait", "--for=condition=Succeeded", "experiments.evertune.io/applied", "--timeout=120s")

    header, line = (await kubectl("get", "experiments.evertune.io")).splitlines()
    assert header.split() == ["NAME", "STATE", "TRIALS", "BEST", "AGE"]
    (record,) = house.store.list_experiments()
    assert record.best is not None
    assert line.split()[:4] == ["applied", "Succeeded", "4/4", record.best.objective]
    await kubectl.event("Admitted")
    size = len(json.dumps(await kubectl.object("applied")))
    assert size < 16_000


async def test_a_bad_spec_is_told_in_the_conditions_and_an_event_and_mended_by_the_next_apply(
    kubectl: Kubectl, operator: Operator
) -> None:
    document = manifest("bad")
    bad = {**document, "spec": {**document["spec"], "maxTrialCount": -1, "algorithm": {"algorithmName": "nonsense"}}}
    await kubectl.apply(bad)

    await kubectl.reaches("bad", "Refused")
    message = (await kubectl.condition("bad", "Accepted"))["message"]
    assert "spec.maxTrialCount" in message
    assert "spec.algorithm.algorithmName" in message
    await kubectl.event("InvalidSpec")

    await kubectl.apply(document)
    await kubectl.reaches("bad", "Succeeded")


async def test_an_edited_budget_reaches_the_running_experiment(
    kubectl: Kubectl, operator: Operator, house: House
) -> None:
    await kubectl.apply(manifest("edited", LONG))
    await kubectl.reaches("edited", "Running")

    await kubectl("patch", "experiments.evertune.io", "edited", "--type=merge", "-p", '{"spec":{"maxTrialCount":9}}')

    async def shown() -> bool:
        return bool((await kubectl.object("edited"))["status"]["trials"] == "0/9")

    await until(shown, timeout_s=60, what="the new budget")
    assert house.store.list_experiments()[0].budget.max_trials == 9
    await kubectl("patch", "experiments.evertune.io", "edited", "--type=merge", "-p", '{"spec":{"seed":4}}')

    async def refused() -> bool:
        return (await kubectl.condition("edited", "Synced")).get("reason") == "ChangeRefused"

    await until(refused, timeout_s=60, what="the refusal")


async def test_a_killed_operator_goes_on_and_deletions_that_it_missed_cancel(
    kubectl: Kubectl, operator: Operator, house: House
) -> None:
    gate = house.workdir / "go"
    await kubectl.apply(manifest("kept", f"until [ -e {gate} ]; do sleep 0.2; done; echo objective=$X"))
    await kubectl.apply(manifest("deleted", LONG))
    await kubectl.reaches("kept", "Running")
    await kubectl.reaches("deleted", "Running")

    operator.end(signal.SIGKILL)
    await kubectl("delete", "experiments.evertune.io", "deleted", "--wait=false")
    assert (await kubectl.object("deleted"))["metadata"]["deletionTimestamp"]
    operator.start()

    await kubectl("wait", "--for=delete", "experiments.evertune.io/deleted", "--timeout=120s")
    gate.touch()
    await kubectl.reaches("kept", "Succeeded")
    states = {record.name: record.state for record in house.store.list_experiments()}
    assert states == {"kept": ExperimentState.SUCCEEDED, "deleted": ExperimentState.CANCELLED}
    assert len(await runs(house, f"experiment/{kubectl.namespace}/kept")) == 1


async def runs(house: House, workflow: str) -> list[str]:
    """As soon as Temporal's list has any: it comes a moment after the run itself."""
    found: list[str] = []

    async def listed() -> bool:
        query = f"WorkflowId = '{workflow}'"
        found[:] = [run.run_id async for run in house.temporal.list_workflows(query)]
        return bool(found)

    await until(listed, timeout_s=60, what=f"a run of {workflow}")
    return found


async def test_an_operator_killed_at_any_moment_of_a_start_starts_one_experiment(
    kubectl: Kubectl, operator: Operator, house: House
) -> None:
    for delay in (0.3, 0.8, 1.2, 1.6):
        name = f"moment-{int(delay * 10)}"
        await kubectl.apply(manifest(name))
        await asyncio.sleep(delay)
        operator.end(signal.SIGKILL)
        operator.start()
        await kubectl.reaches(name, "Succeeded")
        assert len(await runs(house, f"experiment/{kubectl.namespace}/{name}")) == 1


async def test_delete_cancels_and_waits(kubectl: Kubectl, operator: Operator, house: House) -> None:
    await kubectl.apply(manifest("deleted", LONG))
    await kubectl.reaches("deleted", "Running")

    await kubectl("delete", "experiments.evertune.io/deleted", "--timeout=120s")

    assert [record.state for record in house.store.list_experiments()] == [ExperimentState.CANCELLED]


async def test_a_deletion_waits_no_longer_than_it_was_told_to(
    kubectl: Kubectl, operator: Operator, house: House
) -> None:
    operator.end()
    operator.words = (*operator.words, "--delete-deadline", "3")
    operator.start()
    await kubectl.apply(manifest("stuck", LONG))
    await kubectl.reaches("stuck", "Running")
    await house.stop_worker()  # nobody is there to carry out the cancellation

    await kubectl("delete", "experiments.evertune.io/stuck", "--timeout=120s")
    await kubectl.event("DeletionNotAwaited")
    await house.start_worker()  # Temporal has kept the wish
    await until(
        lambda: house.store.list_experiments()[0].state is ExperimentState.CANCELLED, timeout_s=60, what="the end"
    )


async def test_katibs_experiments_are_adopted_on_request(kubectl: Kubectl, operator: Operator, house: House) -> None:
    operator.end()
    operator.words = (*operator.words, "--adopt-katib")
    operator.start()

    await kubectl.apply(manifest("katibs"), api_version="kubeflow.org/v1beta1")

    await kubectl("wait", "--for=condition=Succeeded", "experiments.kubeflow.org/katibs", "--timeout=120s")
    assert [record.name for record in house.store.list_experiments()] == ["katibs"]


async def test_katibs_experiments_are_not_adopted_where_katib_works(
    kubectl: Kubectl, operator: Operator, tmp_path: Path
) -> None:
    pod = {"containers": [{"name": "c", "image": "none"}]}
    labels = {"app": "katib"}
    await kubectl(
        "apply",
        "-f",
        "-",
        document={
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "katib-controller"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )
    second = Operator(operator.environment, tmp_path / "second.log", (*operator.words, "--adopt-katib"))
    second.start()
    assert second.process is not None

    assert await asyncio.to_thread(second.process.wait, 100) == 2
    await kubectl("delete", "deployment", "katib-controller")  # now: another test may adopt
    assert f"deployment {kubectl.namespace}/katib-controller" in second.log.read_text()


RIGHTS = [ROOT / "deploy/kubernetes/components/operator" / name for name in ("rights.yaml", "adopt-katib/rights.yaml")]
ROLES = ["evertune-operator", "evertune-operator-adopt-katib"]


async def as_deployed(kubectl: Kubectl, tmp_path: Path) -> str:
    """A kubeconfig of the operator's ServiceAccount, with the rights that deploy/ gives it and no other."""
    await kubectl("create", "serviceaccount", "evertune-operator")
    account = f"{kubectl.namespace}:evertune-operator"
    for path, role in zip(RIGHTS, ROLES, strict=True):
        await kubectl("apply", "-f", str(path))
        name = f"{role}-{kubectl.namespace}"
        await kubectl("create", "clusterrolebinding", name, f"--clusterrole={role}", f"--serviceaccount={account}")
    token = (await kubectl("create", "token", "evertune-operator")).strip()
    config = json.loads(await kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"] = [{"name": "operator", "user": {"token": token}}]
    config["contexts"] = [
        {"name": "operator", "context": {"cluster": config["clusters"][0]["name"], "user": "operator"}}
    ]
    config["current-context"] = "operator"
    path = tmp_path / "operator-kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


async def test_the_rights_in_deploy_are_enough(
    kubectl: Kubectl, operator: Operator, house: House, tmp_path: Path
) -> None:
    operator.end()
    operator.environment["EVERTUNE_KUBECONFIG"] = await as_deployed(kubectl, tmp_path)
    operator.words = ("--adopt-katib",)
    operator.log.unlink()
    operator.start()
    try:
        await kubectl.apply(manifest("by-rights"))
        await kubectl("wait", "--for=condition=Succeeded", "experiments.evertune.io/by-rights", "--timeout=120s")
        await kubectl.apply(manifest("by-katibs-rights"), api_version="kubeflow.org/v1beta1")
        await kubectl(
            "wait", "--for=condition=Succeeded", "experiments.kubeflow.org/by-katibs-rights", "--timeout=120s"
        )
        await kubectl("delete", "experiments.evertune.io/by-rights", "--timeout=120s")
        await kubectl.event("Admitted")
    finally:
        for path in RIGHTS:
            await kubectl("delete", "-f", str(path))
        for role in ROLES:
            await kubectl("delete", "clusterrolebinding", f"{role}-{kubectl.namespace}")
    log = [line for line in operator.log.read_text().splitlines() if kubectl.namespace in line]
    assert [line for line in log if "orbidden" in line] == []
