"""Experiments whose trials are Jobs of a cluster in this process, driven by the real workflow and real workers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import evertune.contracts as c
from activities.runners.kubernetes import labels
from activities.trial import TrialActivities
from evertune.client import ExperimentHandle
from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from evertune.errors import SpecError
from evertune.protocols import JsonDict
from evertune.testing.kubernetes import FakeCluster, Misfortune, misfortunes
from evertune.testing.scripts import FOR_EVER, Script
from tests.workflow.harness import House, a_house, manifest, until
from worker.compose import trial_activities

Fate = Script | Misfortune


def value_of(pod: JsonDict) -> str:
    told = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    return str(told["X"])


def reports(pod: JsonDict, **script: Any) -> Script:
    return Script(lines=("starts", f"objective={value_of(pod)}"), **script)


def attempt_of(pod: JsonDict) -> tuple[int, int]:
    told = pod["metadata"]["labels"]
    return int(told[labels.TRIAL]), int(told[labels.ATTEMPT])


@asynccontextmanager
async def a_cluster_house(
    address: str, home: Path, fate: Callable[[JsonDict], Fate], **cluster: Any
) -> AsyncIterator[tuple[House, FakeCluster]]:
    async with FakeCluster(fate, **cluster) as kube:
        config = kube.kubeconfig(home / "kubeconfig")
        async with a_house(address, home / "house", kubeconfig=str(config), collector_mode="logs") as house:
            yield house, kube


async def submit(house: House, name: str, **spec: Any) -> ExperimentHandle:
    return await house.client.submit(manifest(name, **spec), context=StartContext(backend="kubernetes"))


def check_whole(house: House, record: ExperimentRecord, trials: int) -> None:
    """Each trial has its own value, each told once."""
    listed = house.store.trials(record.uid)
    assert [trial.number for trial in listed] == list(range(trials))
    assert {trial.state for trial in listed} == {TrialState.SUCCEEDED}, [trial.reason for trial in listed]
    assert all(trial.objective_value == trial.parameters["x"] for trial in listed)
    assert sorted(trial.told_seq or 0 for trial in listed) == list(range(1, trials + 1))


async def gone(house: House, kube: FakeCluster) -> None:
    await until(lambda: not kube.store.all("jobs") and not kube.store.all("pods"), what="objects were left")


async def test_an_experiment_in_a_cluster_end_to_end(temporal_address: str, tmp_path: Path) -> None:
    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=0.1)) as (house, kube):
        handle = await submit(house, "cluster-whole", maxTrialCount=6, parallelTrialCount=3)
        record = await house.ended(handle)
        assert (record.state, record.backend) == (ExperimentState.SUCCEEDED, "kubernetes")
        check_whole(house, record, 6)
        log = house.settings.trials_dir / record.uid / "0" / "0" / "log"
        assert log.read_text() == f"starts\nobjective={house.store.trial(record.uid, 0).parameters['x']}\n"
        await gone(house, kube)
        assert kube.count("POST", "/jobs") == 6


async def test_a_trial_that_is_stopped_early_keeps_its_metrics_and_its_job_is_deleted(
    temporal_address: str, tmp_path: Path
) -> None:
    def fate(pod: JsonDict) -> Fate:
        if attempt_of(pod)[0]:
            return reports(pod, duration_s=0.1)
        return Script(lines=("objective=-0.25", "objective=-0.5"), duration_s=FOR_EVER)

    settings = [{"name": "value", "value": "0"}, {"name": "start_step", "value": "2"}]
    rule = {"algorithmName": "threshold", "algorithmSettings": settings}
    async with a_cluster_house(temporal_address, tmp_path, fate) as (house, kube):
        handle = await submit(house, "cluster-early", maxTrialCount=3, maxFailedTrialCount=0, earlyStopping=rule)
        record = await house.ended(handle)
        assert record.state is ExperimentState.SUCCEEDED, record.message
        assert (record.counts.early_stopped, record.counts.succeeded) == (1, 2)
        trial = house.store.trial(record.uid, 0)
        assert (trial.state, trial.objective) == (TrialState.EARLY_STOPPED, "-0.25")
        assert trial.reason == "EarlyStopped: threshold: objective -0.5 at step 2 is less than 0"
        await gone(house, kube)
        assert kube.count("POST", "/jobs") == 3


@pytest.mark.slow
async def test_workers_that_come_and_go_execute_no_trial_twice(temporal_address: str, tmp_path: Path) -> None:
    started: list[tuple[int, int]] = []

    def fate(pod: JsonDict) -> Fate:
        started.append(attempt_of(pod))
        return reports(pod, pause_s=0.4, duration_s=0.4)

    async with a_cluster_house(temporal_address, tmp_path, fate) as (house, kube):
        handle = await submit(house, "cluster-workers", maxTrialCount=6, parallelTrialCount=3)
        for ends in (1, 3, 5):
            await until(lambda ends=ends: len(started) >= ends)  # type: ignore[misc]
            await house.stop_worker()
            await asyncio.sleep(0.3)
            await house.start_worker()
        record = await house.ended(handle)
        check_whole(house, record, 6)
        assert sorted(started) == [(number, 0) for number in range(6)]
        await gone(house, kube)


async def test_faults_of_the_cluster_are_forgiven(temporal_address: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def fate(pod: JsonDict) -> Fate:
        number, attempt = attempt_of(pod)
        seen.append(number)
        if number == 0 and seen.count(0) == 1:
            return misfortunes.evicted()  # its Job makes another pod
        if number == 1 and attempt == 0:
            return misfortunes.refused_by_node()
        return reports(pod, duration_s=FOR_EVER if number == 2 and attempt == 0 else 0.0)

    async with a_cluster_house(temporal_address, tmp_path, fate) as (house, kube):
        handle = await submit(house, "cluster-faults", maxTrialCount=4, parallelTrialCount=4, maxFailedTrialCount=0)
        await until(lambda: 2 in seen)
        name = next(job["metadata"]["name"] for job in kube.store.all("jobs")
                    if job["metadata"]["labels"][labels.TRIAL] == "2")  # fmt: skip
        kube.store.delete("jobs", "default", name, policy="Background")
        record = await house.ended(handle)
        check_whole(house, record, 4)
        assert [len(house.store.attempts(record.uid, number)) for number in range(4)] == [1, 2, 2, 1]
        for number in (1, 2):
            first, second = house.store.attempts(record.uid, number)
            assert (first.failure, first.charged, first.again) == (FailureClass.INFRASTRUCTURE, False, True)
            assert second.state is AttemptState.SUCCEEDED
        assert house.store.attempts(record.uid, 2)[0].reason == "DeletedByAnother"
        await gone(house, kube)


@pytest.mark.parametrize(
    ("name", "admission", "fate", "text"),
    [
        ("denied", misfortunes.denied("jobs", "every Job needs an owner"), Script(), "every Job needs an owner"),
        ("image", None, misfortunes.image_missing("nowhere/none:1"), "nowhere/none:1: not found"),
        ("command", None, misfortunes.start_error("trainn"), "trainn"),
    ],
)
async def test_a_configuration_that_nothing_can_start_stops_the_experiment_with_the_clusters_sentence(
    temporal_address: str, tmp_path: Path, name: str, admission: Any, fate: Fate, text: str
) -> None:
    async with a_cluster_house(temporal_address, tmp_path, lambda _: fate) as (house, kube):
        if admission is not None:
            kube.store.admission.append(admission)
        handle = await submit(house, f"cluster-{name}", maxTrialCount=20, parallelTrialCount=2)
        record = await house.ended(handle)
        assert record.state is ExperimentState.FAILED
        assert text in f"{record.reason} {record.message}"
        assert record.counts.created < 8
        await gone(house, kube)


async def test_what_a_trial_waits_for_is_seen_until_it_runs(temporal_address: str, tmp_path: Path) -> None:
    sentence = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."
    async with a_cluster_house(temporal_address, tmp_path, lambda _: misfortunes.unschedulable(sentence)) as (
        house,
        kube,
    ):
        handle = await submit(house, "cluster-pending", maxTrialCount=1, parallelTrialCount=1)
        await until(lambda: bool(kube.store.all("pods")))
        record = house.store.experiment("default", "cluster-pending")
        await until(lambda: house.store.phases(record.uid) == {0: f"Pending: {sentence}"})
        assert house.store.trial(record.uid, 0).reason == f"Pending: {sentence}"

        async def told_to_temporal() -> bool:
            description = await house.temporal.get_workflow_handle(record.workflow_id).describe()
            activities = description.raw_description.pending_activities
            told = [payload.data for one in activities for payload in one.heartbeat_details.payloads]
            return json.dumps(f"Pending: {sentence}").encode() in told

        await until(told_to_temporal, what="a heartbeat says what it waits for")
        await handle.cancel(actor="test")
        record = await house.ended(handle)
        assert record.state is ExperimentState.CANCELLED
        assert house.store.phases(record.uid) == {}
        await gone(house, kube)


@pytest.mark.slow
async def test_an_api_server_that_is_away_costs_nothing_but_time(temporal_address: str, tmp_path: Path) -> None:
    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=1.0)) as (house, kube):
        handle = await submit(house, "cluster-away", maxTrialCount=6, parallelTrialCount=2, maxFailedTrialCount=0)
        await until(lambda: len(kube.store.all("jobs")) >= 2)
        record = house.store.experiment("default", "cluster-away")
        await kube.stop()
        await until(lambda: any("does not answer" in text for text in house.store.phases(record.uid).values()))
        await asyncio.sleep(2.0)
        await kube.start()
        record = await house.ended(handle, timeout_s=60)
        check_whole(house, record, 6)
        assert all(len(house.store.attempts(record.uid, number)) == 1 for number in range(6))
        await gone(house, kube)


async def test_a_cancelled_experiment_leaves_nothing_in_the_cluster(temporal_address: str, tmp_path: Path) -> None:
    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=FOR_EVER)) as (
        house,
        kube,
    ):
        handle = await submit(house, "cluster-cancel", maxTrialCount=4, parallelTrialCount=3)
        await until(lambda: len(kube.store.all("pods")) == 3)
        await handle.cancel(actor="test")
        record = await house.ended(handle)
        assert record.counts.killed == 3
        await gone(house, kube)


async def test_each_experiment_runs_in_the_cluster_that_it_names(temporal_address: str, tmp_path: Path) -> None:
    async with FakeCluster(reports) as near, FakeCluster(reports) as far:
        files = [near.kubeconfig(tmp_path / "near", "near"), far.kubeconfig(tmp_path / "far", "far")]
        config = os.pathsep.join(map(str, files))
        async with a_house(temporal_address, tmp_path / "house", kubeconfig=config, collector_mode="logs") as house:
            handles = []
            for cluster in ("near", "far", None):
                document = manifest(f"in-{cluster}".lower())
                if cluster is not None:
                    document["metadata"]["annotations"] = {"evertune.io/cluster": cluster}
                context = StartContext(backend="kubernetes")
                handles.append(await house.client.submit(document, context=context))
            for handle in handles:
                check_whole(house, await house.ended(handle), 4)
            assert (near.count("POST", "/jobs"), far.count("POST", "/jobs")) == (8, 4)
            await gone(house, near)
            await gone(house, far)
            document = manifest("in-nowhere")
            document["metadata"]["annotations"] = {"evertune.io/cluster": "nowhere"}
            with pytest.raises(SpecError) as caught:
                await house.client.submit(document, context=StartContext(backend="kubernetes"))
            (problem,) = caught.value.problems
            assert problem.path == "metadata.annotations[evertune.io/cluster]"
            assert "has no context nowhere" in problem.message
            assert "far, near" in (problem.hint or "")


@pytest.mark.slow
async def test_an_outage_longer_than_an_activitys_patience_costs_nothing_but_time(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("riding", "attempt", "creating"):
        monkeypatch.setattr(f"activities.runners.kubernetes.{module}.AWAY_S", 1.5)
    async with a_cluster_house(temporal_address, tmp_path, lambda pod: reports(pod, duration_s=1.0)) as (house, kube):
        handle = await submit(house, "cluster-long-away", maxTrialCount=6, parallelTrialCount=2, maxFailedTrialCount=0)
        await until(lambda: len(kube.store.all("pods")) >= 2)
        await kube.stop()
        await until(lambda: any("does not answer since" in text for text in house.store.phases(handle.uid).values()))
        await asyncio.sleep(6.0)  # several times as long as each activity's patience
        # Whoever comes in the middle of it knows no more than the database.
        await house.stop_worker()
        await house.start_worker()
        await until(lambda: any("does not answer since" in text for text in house.store.phases(handle.uid).values()))
        assert not house.store.experiment_by_uid(handle.uid).state.terminal
        await kube.start()
        record = await house.ended(handle, timeout_s=60)
        check_whole(house, record, 6)
        assert all(len(house.store.attempts(record.uid, number)) == 1 for number in range(6))
        await gone(house, kube)


async def test_without_a_worker_for_clusters_it_is_refused_at_once(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.clusters.credentials.said", lambda kubeconfig: False)
    monkeypatch.setattr(c, "CLUSTER_QUEUE", "polled-by-nobody")
    async with a_house(temporal_address, tmp_path) as house:
        document = manifest("cluster-nobody")
        with pytest.raises(SpecError, match="no worker that runs trials in a cluster"):
            await house.client.submit(document, context=StartContext(backend="kubernetes"))


async def test_nobody_waits_for_a_word_of_what_never_ran(temporal_address: str, tmp_path: Path) -> None:
    """There is no collector beside a container whose image is not there, nor beside a pod that was refused."""
    async with FakeCluster(lambda _: misfortunes.image_never_pulled("nowhere/none:1")) as kube:
        config = kube.kubeconfig(tmp_path / "kubeconfig")
        gateway = "http://gateway.example:8080"
        async with a_house(temporal_address, tmp_path / "h", kubeconfig=str(config), ingest_url=gateway) as house:
            handle = await submit(house, "cluster-silent", maxTrialCount=20, parallelTrialCount=2)
            record = await house.ended(handle)  # not thirty seconds for each of them, one pair after the other
            assert record.state is ExperimentState.FAILED
            assert "pull policy of Never" in f"{record.reason} {record.message}"


async def test_an_object_stays_until_its_metrics_are_complete(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its collector never says its last word here: after the wait, the pod's log is read before the object goes."""

    def patient(*args: Any, **rest: Any) -> TrialActivities:
        return dataclasses.replace(trial_activities(*args, **rest), final_wait_s=2.0)

    monkeypatch.setattr("worker.compose.trial_activities", patient)
    go_on = asyncio.Event()
    async with FakeCluster(lambda pod: reports(pod, until=go_on)) as kube:
        config = kube.kubeconfig(tmp_path / "kubeconfig")
        gateway = "http://gateway.example:8080"
        async with a_house(temporal_address, tmp_path / "h", kubeconfig=str(config), ingest_url=gateway) as house:
            handle = await submit(house, "cluster-complete", maxTrialCount=2, parallelTrialCount=2)
            await until(lambda: sum(pod["status"]["phase"] == "Running" for pod in kube.store.all("pods")) == 2)
            go_on.set()  # they end in the same moment
            await until(lambda: sum(pod["status"]["phase"] == "Succeeded" for pod in kube.store.all("pods")) == 2)
            await asyncio.sleep(1.0)
            assert len(kube.store.all("jobs")) == 2
            record = await house.ended(handle)
            check_whole(house, record, 2)
            await gone(house, kube)
