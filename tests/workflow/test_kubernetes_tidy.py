"""What outlived its experiment in a cluster is ended by whichever worker comes; the cluster is in this process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.runner import KubernetesRunner
from activities.tidying import Tidier
from evertune.client import ExperimentHandle
from evertune.contracts import StartContext
from evertune.domain.states import ExperimentState
from evertune.domain.trial import AttemptRef
from evertune.testing.scripts import FOR_EVER
from tests.workflow.harness import House, manifest, until
from tests.workflow.test_kubernetes import a_cluster_house, check_whole, gone, reports, submit


async def test_objects_of_an_experiment_that_was_terminated_or_deleted_are_swept(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.sweeping.YOUNG_S", 0.0)
    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=FOR_EVER)) as (
        house,
        kube,
    ):
        await submit(house, "cluster-swept", maxTrialCount=4, parallelTrialCount=2)
        await until(lambda: len(kube.store.all("pods")) == 2)
        record = house.store.experiment("default", "cluster-swept")
        await house.stop_worker()
        await house.temporal.get_workflow_handle(record.workflow_id).terminate()
        house.store.delete_experiment(record.uid)
        container = {"name": "c", "image": "i"}
        unlabelled = {labels.MANAGED_BY: labels.MANAGER}  # it looks like ours, but is not this database's
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
        kube.store.create("jobs", {"metadata": {"name": "theirs", "labels": unlabelled}, "spec": spec}, "default")
        await house.start_worker()
        await house.sweep()
        await until(lambda: [job["metadata"]["name"] for job in kube.store.all("jobs")] == ["theirs"])


async def test_what_a_deleted_experiment_left_is_found_by_a_worker_that_never_saw_it(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.sweeping.YOUNG_S", 0.0)
    async with a_cluster_house(temporal_address, tmp_path, reports) as (house, kube):
        kube.store.create("namespaces", {"metadata": {"name": "team"}}, "")
        document = manifest("cluster-retained", maxTrialCount=2)
        document["metadata"]["namespace"] = "team"
        document["spec"]["trialTemplate"]["retain"] = True
        handle = await house.client.submit(document, context=StartContext(backend="kubernetes"))
        await house.ended(handle)
        await house.stop_worker()
        assert len(kube.store.all("jobs")) == 2
        await house.client.delete("team", "cluster-retained")
        await house.start_worker()
        await house.sweep()
        await gone(house, kube)
        assert [uid for uid, _, _ in house.store.leftovers()] == [handle.uid], "something may still be on its way"
        monkeypatch.setattr("worker.clusters.FORGET_AFTER", timedelta(0))
        await kube.stop()
        await house.sweep()
        assert house.store.leftovers(), "nobody could look"
        await kube.start()

        async def forgotten() -> bool:
            await house.sweep()
            return house.store.leftovers() == []

        await until(forgotten)


async def test_who_died_between_the_record_and_the_tidying_leaves_it_to_the_next_sweep(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.sweeping.YOUNG_S", 0.0)

    async def dies(*_: object) -> None:
        raise RuntimeError("the worker dies here")

    monkeypatch.setattr(Tidier, "_tidy", dies)
    async with a_cluster_house(temporal_address, tmp_path, reports) as (house, kube):
        handle = await submit(house, "cluster-untidy")
        check_whole(house, await house.ended(handle), 4)
        assert len(kube.store.all("jobs")) == 4
        await house.stop_worker()
        assert len(kube.store.all("jobs")) == 4, "it was to die"
        await house.start_worker()
        await house.sweep()
        await gone(house, kube)
        for number in range(4):
            log = house.settings.trials_dir / handle.uid / str(number) / "0" / "log"
            assert log.read_text().startswith("starts\nobjective=")


async def test_a_worker_that_ends_tidies_up_first(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.tidying.AFTER_S", FOR_EVER)
    async with a_cluster_house(temporal_address, tmp_path, reports) as (house, kube):
        check_whole(house, await house.ended(await submit(house, "cluster-tidied")), 4)
        assert len(kube.store.all("jobs")) == 4
        await house.stop_worker()
        await gone(house, kube)


async def test_one_experiment_whose_cluster_is_away_keeps_the_sweep_from_no_other(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.reconcile.CONSIDER_S", 1.0)
    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=FOR_EVER)) as (
        house,
        kube,
    ):
        far = await submit(house, "cluster-far", parallelTrialCount=2)
        await until(lambda: len(kube.store.all("pods")) == 2)
        near = await house.submit(manifest("cluster-near", "sleep 60"))
        await until(lambda: house.store.counts(near.uid).running == 2)
        await kube.stop()
        for handle in (far, near):
            await house.temporal.get_workflow_handle(handle.workflow_id).terminate()
        # A second is short for a machine that has other things to do; the far one is asked in vain by each sweep.
        await until(lambda: _swept(house, near))
        assert house.store.experiment_by_uid(near.uid).state is ExperimentState.CANCELLED
        assert not house.store.experiment_by_uid(far.uid).state.terminal
        await kube.start()
        await until(lambda: _swept(house, far))
        assert not house.store.running_attempts(far.uid)
        await gone(house, kube)


async def _swept(house: House, handle: ExperimentHandle) -> bool:
    await house.sweep()
    return house.store.experiment_by_uid(handle.uid).state.terminal


async def test_what_runs_of_a_terminated_experiment_is_stopped_side_by_side(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[tuple[str, str]] = []
    stop = KubernetesRunner.stop

    async def told(self: KubernetesRunner, ref: AttemptRef, **how: Any) -> None:
        stops.append(("begins", ref.key))
        await stop(self, ref, **how)
        stops.append(("ends", ref.key))

    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=FOR_EVER)) as (
        house,
        kube,
    ):
        handle = await submit(house, "cluster-side-by-side", parallelTrialCount=3)
        await until(lambda: len(kube.store.all("pods")) == 3)
        await house.temporal.get_workflow_handle(handle.workflow_id).terminate()
        monkeypatch.setattr(KubernetesRunner, "stop", told)
        await until(lambda: _swept(house, handle))
        assert [what for what, _ in stops[:3]] == ["begins"] * 3
        await gone(house, kube)
