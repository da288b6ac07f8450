"""However an experiment ends, nothing of it is left in a real cluster, and no row says that it runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from evertune.app import child_environment
from evertune.client import ExperimentHandle
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import NotFoundError, SpecError
from tests.kubernetes.real import Namespace, a_namespace, experiment, nothing_left
from tests.kubernetes.stack import a_real_house, submit
from tests.workflow.harness import House, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

LONG = "echo objective=$X; sleep 600"


def running_pods(namespace: Namespace, uid: str) -> int:
    pods = namespace.objects("pods", f"evertune.io/experiment={uid}")
    return sum(pod["status"].get("phase") == "Running" for pod in pods)


async def cancelled(house: House, handle: ExperimentHandle) -> None:
    await handle.cancel(actor="test")


async def cancelled_in_temporal(house: House, handle: ExperimentHandle) -> None:
    await house.temporal.get_workflow_handle(handle.workflow_id).cancel()


async def terminated_in_temporal(house: House, handle: ExperimentHandle) -> None:
    await house.temporal.get_workflow_handle(handle.workflow_id).terminate()
    await until(lambda: _swept(house, handle), timeout_s=60, what="the sweep ended it")


async def _swept(house: House, handle: ExperimentHandle) -> bool:
    await house.sweep()
    return house.store.experiment_by_uid(handle.uid).state.terminal


ENDS: dict[str, tuple[Callable[[House, ExperimentHandle], Awaitable[None]], ExperimentState, TrialState]] = {
    "cancelled": (cancelled, ExperimentState.CANCELLED, TrialState.KILLED),
    "cancelled-in-temporal": (cancelled_in_temporal, ExperimentState.CANCELLED, TrialState.KILLED),
    "terminated-in-temporal": (terminated_in_temporal, ExperimentState.CANCELLED, TrialState.KILLED),
}


async def check_end(house: House, namespace: Namespace, handle: ExperimentHandle, name: str) -> None:
    act, state, trials = ENDS[name]
    await act(house, handle)
    await until(lambda: house.store.experiment_by_uid(handle.uid).state.terminal, timeout_s=60, what=f"{name}: its end")
    await asyncio.to_thread(nothing_left, namespace, handle.uid, timeout_s=45)
    assert house.store.experiment_by_uid(handle.uid).state is state
    assert {trial.state for trial in house.store.trials(handle.uid)} == {trials}
    assert not house.store.running_attempts(handle.uid)


async def delete(house: House, namespace: str) -> None:
    """By the command line, while it runs."""
    words = ["evertune.cli", "delete", "deleted", "--namespace", namespace, "--yes", "--force"]
    environment = {**child_environment(), **house.settings.environment()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()


async def test_however_it_is_ended_nothing_is_left(full_cluster: Path, temporal_address: str, tmp_path: Path) -> None:
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
            names = [*ENDS, "deleted"]
            handles = {name: await submit(house, experiment(name, namespace.name, LONG)) for name in names}
            for name, handle in handles.items():
                await until(lambda uid=handle.uid: running_pods(namespace, uid) == 2, timeout_s=60, what=f"{name} runs")  # type: ignore[misc]
            deleted = handles.pop("deleted")
            await asyncio.gather(
                *(check_end(house, namespace, handle, name) for name, handle in handles.items()),
                delete(house, namespace.name),
            )
            await asyncio.to_thread(nothing_left, namespace, deleted.uid)
            with pytest.raises(NotFoundError):
                house.store.experiment_by_uid(deleted.uid)
            assert namespace.left() == []


async def test_success_and_failure_leave_nothing(full_cluster: Path, temporal_address: str, tmp_path: Path) -> None:
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
            well = await submit(house, experiment("well", namespace.name, "echo objective=$X"))
            badly = await submit(house, experiment("badly", namespace.name, "echo objective=$X; exit 3"))
            records = [await house.ended(handle, 60) for handle in (well, badly)]
            assert [record.state for record in records] == [ExperimentState.SUCCEEDED, ExperimentState.FAILED]
            await asyncio.to_thread(nothing_left, namespace)
            assert not [*house.store.running_attempts(well.uid), *house.store.running_attempts(badly.uid)]


async def test_a_namespace_that_is_deleted_ends_the_experiment_with_the_clusters_sentence(
    full_cluster: Path, temporal_address: str, tmp_path: Path
) -> None:
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
            handle = await submit(house, experiment("homeless", namespace.name, LONG, maxTrialCount=8))
            await until(lambda: running_pods(namespace, handle.uid) == 2, timeout_s=60, what="it runs")
            await asyncio.to_thread(namespace.delete)
            record = await house.ended(handle, 90)
            assert record.state is ExperimentState.FAILED
            assert namespace.name in f"{record.reason} {record.message}"
            await asyncio.to_thread(nothing_left, namespace, timeout_s=60)
            assert not house.store.running_attempts(handle.uid)


def with_second_context(kubeconfig: Path, path: Path) -> Path:
    """A copy of the kubeconfig, in which the current context has another name too."""
    path.write_bytes(kubeconfig.read_bytes())
    config = ["kubectl", "--kubeconfig", str(path), "config"]
    view = subprocess.run([*config, "view", "--minify", "-o", "json"], check=True, capture_output=True, timeout=30)
    context = json.loads(view.stdout)["contexts"][0]["context"]
    words = ["set-context", "second", f"--cluster={context['cluster']}", f"--user={context['user']}"]
    subprocess.run([*config, *words], check=True, capture_output=True, timeout=30)
    return path


async def test_contexts_of_one_kubeconfig_are_clusters_by_name(
    full_cluster: Path, temporal_address: str, tmp_path: Path
) -> None:
    kubeconfig = with_second_context(full_cluster, tmp_path / "kubeconfig")
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, kubeconfig) as (house, _):
            handles = {}
            for cluster in (None, "second"):
                document = experiment(f"in-{cluster}".lower(), namespace.name, "echo objective=$X")
                if cluster is not None:
                    document["metadata"]["annotations"]["evertune.io/cluster"] = cluster
                handles[cluster] = await submit(house, document)
            for handle in handles.values():
                assert (await house.ended(handle, 60)).counts.succeeded == 2
            places = dict(house.store.places())
            assert {cluster: places[handle.uid]["cluster"] for cluster, handle in handles.items()} == {
                None: None,
                "second": "second",
            }
            document["metadata"]["name"] = "in-third"
            document["metadata"]["annotations"]["evertune.io/cluster"] = "third"
            with pytest.raises(SpecError, match="no context third") as caught:
                await submit(house, document)
            assert len(caught.value.problems) == 1
            await asyncio.to_thread(nothing_left, namespace)
