"""What only the Kubernetes runner promises: claims, refusals, outages, logs, deletion, sweeping."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.ending import record_end
from activities.runners.kubernetes import labels
from activities.runners.kubernetes.classify import Limits
from activities.runners.kubernetes.place import Place
from evertune.domain.metrics import CollectorSpec, Objective, ObjectiveType
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import Assignment, AttemptEnd, AttemptRef
from evertune.errors import LaunchError
from evertune.protocols import Answer, JsonDict, Launch
from evertune.testing.kubernetes import FOR_EVER as ALWAYS
from evertune.testing.kubernetes import misfortunes
from evertune.testing.scripts import FOR_EVER, Script, attempt_ref
from tests.kubernetes.world import World, a_world, job, until
from worker.clusters import ClusterBroom

SOON_S = 60.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[World]:
    """A world that gives up soon what does not start: for tests of just that."""
    async with a_world(tmp_path, limits=Limits(image_pull_s=2.0, configuration_s=0.3, pending_s=1.0)) as world:
        yield world


async def ended(runner: object, ref: AttemptRef) -> AttemptEnd:
    return await asyncio.wait_for(runner.wait(ref), SOON_S)  # type: ignore[attr-defined]


def place(world: World, ref: AttemptRef) -> JsonDict:
    launch = job(ref)
    return Place.of(launch, launch.manifest, "logs").as_json()


# ------------------------------------------------------------------------------------------------- creating


async def test_the_object_is_ours_by_its_labels_and_so_are_its_pods(world: World) -> None:
    runner, ref = world.runner(), attempt_ref(number=3, attempt=2)
    world.fates[ref.key] = Script(duration_s=FOR_EVER)
    await runner.create(job(ref, labels={"katib.kubeflow.org/trial": "x"}))
    await until(lambda: bool(world.pods()))
    owned = {**labels.owned(ref, world.store.database_id), "katib.kubeflow.org/trial": "x"}
    for obj in (world.jobs()[0], world.pods()[0]):
        assert owned.items() <= obj["metadata"]["labels"].items()
    assert world.jobs()[0]["metadata"]["name"] == f"{ref.trial_name}-r2"


async def test_a_claim_without_an_object_is_lost_uncharged_and_never_posted_again(world: World) -> None:
    ref = attempt_ref()
    world.store.claim_launch(ref, place(world, ref))  # and then its worker died
    runner = world.runner()
    await runner.create(job(ref))
    end = await ended(runner, ref)
    assert (end.state, end.failure) == (AttemptState.LOST, FailureClass.INFRASTRUCTURE)
    assert world.cluster.count("POST", "/jobs") == 0
    await world.runner().create(job(ref))
    assert world.cluster.count("POST", "/jobs") == 0


async def test_an_answer_that_was_lost_makes_no_second_object(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.cluster.fault(method="POST", path="jobs", drop="after")
    await runner.create(job(ref))
    assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED
    assert world.made == {ref.key: 1}


async def test_a_server_that_fails_is_asked_again(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.cluster.fault(method="POST", path="jobs", status=500, times=2)
    world.cluster.fault(method="POST", path="jobs", status=429, retry_after=0.1)
    await runner.create(job(ref))
    assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED


async def test_while_the_api_server_is_away_it_waits_and_says_so(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    await world.cluster.stop()
    creating = asyncio.create_task(runner.create(job(ref)))
    await until(lambda: "does not answer since" in runner.phase(ref))
    assert world.cluster.url in runner.phase(ref)
    await world.cluster.start()
    await asyncio.wait_for(creating, SOON_S)
    assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED
    assert runner.phase(ref) == ""


async def test_a_trial_that_runs_outlives_an_api_server_that_is_away(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.fates[ref.key] = Script(lines=("one", "two"), pause_s=0.3, duration_s=0.3)
    await runner.create(job(ref))
    await until(lambda: bool(world.made))
    await world.cluster.stop()
    waiting = asyncio.create_task(runner.wait(ref))
    await until(lambda: "does not answer since" in runner.phase(ref))
    await asyncio.sleep(1.0)
    await world.cluster.start()
    end = await asyncio.wait_for(waiting, 100)  # a request that was on its way has 30 s before it is asked again
    assert end.state is AttemptState.SUCCEEDED
    assert runner.log_path(ref).read_text() == "one\ntwo\n"


def foreign(world: World, name: str) -> JsonDict:
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
    return world.cluster.store.create("jobs", {"metadata": {"name": name}, "spec": spec}, "default")


async def test_a_name_that_something_else_has_is_refused(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    foreign(world, ref.trial_name)
    with pytest.raises(LaunchError, match="the name of the Job is taken by something else"):
        await runner.create(job(ref))
    assert (await ended(runner, ref)).failure is FailureClass.CONFIGURATION
    await runner.release(ref)
    assert len(world.jobs()) == 1


async def test_the_api_servers_own_sentence_is_told_without_the_trials_name(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.cluster.forbidden.add(("create", "jobs"))
    with pytest.raises(LaunchError) as refused:
        await runner.create(job(ref))
    assert 'cannot create resource "jobs" in API group "batch"' in refused.value.message
    assert ref.trial_name not in refused.value.message
    assert 'apiGroups: ["batch"], resources: ["jobs"]' in (refused.value.hint or "")
    world.cluster.forbidden.clear()
    nowhere = attempt_ref(number=1)
    with pytest.raises(LaunchError, match='namespaces "nowhere" not found'):
        await runner.create(job(nowhere, namespace="nowhere"))
    strange = attempt_ref(number=2)
    with pytest.raises(LaunchError, match="unknown field"):
        await runner.create(job(strange, spec={"backofLimit": 3}))
    kind = attempt_ref(number=3)
    launch = job(kind)
    launch.manifest["kind"], launch.manifest["apiVersion"] = "Fob", "example.com/v1"
    with pytest.raises(LaunchError, match=r"serves no Fob \(example.com/v1\)"):
        await runner.create(launch)


async def test_a_quota_that_is_used_up_is_waited_for_and_said(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    refusal = misfortunes.quota_exceeded("jobs")
    world.cluster.store.admission.append(refusal)
    creating = asyncio.create_task(runner.create(job(ref)))
    await until(lambda: "exceeded quota" in runner.phase(ref))
    world.cluster.store.admission.clear()
    await asyncio.wait_for(creating, SOON_S)
    assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED


async def test_a_kind_that_knows_no_native_sidecars_gets_an_ordinary_container_from_then_on(world: World) -> None:
    world.cluster.store.rejected.add("spec.template.spec.initContainers.*.restartPolicy")
    runner = world.runner(mode="auto")
    for number in (0, 1):
        ref = attempt_ref(number=number)
        launch = job(
            ref,
            collector=CollectorSpec(kind="StdOut", metrics=("accuracy",)),
            ingest_url="http://gateway.example:8080",
            token="t",
        )
        await runner.create(launch)
        assert runner.sidecar(launch)
        made = world.cluster.store.get("jobs", "default", ref.trial_name)["spec"]["template"]["spec"]
        assert [container["name"] for container in made["containers"]] == ["trial", "evertune-collector"]
        assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED
    assert world.cluster.count("POST", "/jobs") == 3


# ------------------------------------------------------------------------------------------- what befalls it


@pytest.mark.parametrize(
    ("misfortune", "failure", "text"),
    [
        (misfortunes.image_missing(), FailureClass.CONFIGURATION, "not found"),
        (misfortunes.registry_away(), FailureClass.INFRASTRUCTURE, "i/o timeout"),
        (misfortunes.image_never_pulled(), FailureClass.CONFIGURATION, "pull policy of Never"),
        (misfortunes.invalid_image_name(), FailureClass.CONFIGURATION, "couldn't parse image name"),
        (misfortunes.config_error(), FailureClass.CONFIGURATION, 'configmap "settings" not found'),
        (misfortunes.volume_missing(), FailureClass.CONFIGURATION, 'secret "data" not found'),
        (misfortunes.unschedulable(), FailureClass.CONFIGURATION, "0/5 nodes are available"),
        (misfortunes.start_error(), FailureClass.CONFIGURATION, "no-such-program"),
        (misfortunes.out_of_memory(), FailureClass.OUT_OF_MEMORY, "OOMKilled"),
        (misfortunes.pod_deadline(), FailureClass.DEADLINE, "DeadlineExceeded"),
        (misfortunes.refused_by_node(), FailureClass.INFRASTRUCTURE, ""),
    ],
    ids=lambda value: getattr(value, "reason", None),
)
async def test_what_befalls_a_pod_is_told_by_its_class(
    hasty: World, misfortune: misfortunes.Misfortune, failure: FailureClass, text: str
) -> None:
    runner, ref = hasty.runner(), attempt_ref()
    hasty.fates[ref.key] = misfortune
    await runner.create(job(ref))
    end = await ended(runner, ref)
    assert end.failure is failure, end
    assert text in f"{end.reason}\n{end.message}"
    await runner.release(ref)
    await until(lambda: not hasty.jobs(), "the object stays")


async def test_what_mended_itself_while_no_watch_told_of_it_is_not_given_up(hasty: World) -> None:
    runner, ref = hasty.runner(), attempt_ref()
    hasty.fates[ref.key] = misfortunes.config_error()
    await runner.create(job(ref))
    await until(lambda: runner.phase(ref).startswith("Pending: CreateContainerConfigError"))
    hasty.cluster.fault(watch=True, status=500, times=ALWAYS)
    hasty.cluster.drop_streams()
    hasty.cluster.store.set_status("pods", "default", hasty.pods()[0]["metadata"]["name"], {"phase": "Succeeded"})
    assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED


@pytest.mark.parametrize(
    "misfortune",
    [misfortunes.evicted(), misfortunes.preempted(), misfortunes.drained(), misfortunes.node_shutdown()],
    ids=["evicted", "preempted", "drained", "shutdown"],
)
async def test_a_pod_that_the_cluster_takes_away_is_replaced_and_costs_nothing(
    world: World, misfortune: misfortunes.Misfortune
) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.fates[ref.key] = [misfortune, Script(lines=("value=1",))]
    launch = job(ref)
    ignored = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}
    launch.manifest["spec"]["podFailurePolicy"] = ignored
    await runner.create(launch)
    end = await ended(runner, ref)
    assert (end.state, end.failure) == (AttemptState.SUCCEEDED, None), end
    assert world.made == {ref.key: 2}


async def test_an_attempt_on_a_node_that_is_lost_ends_uncharged(tmp_path: Path) -> None:
    async with a_world(tmp_path, limits=Limits(node_lost_s=0.5)) as world:
        runner, ref = world.runner(), attempt_ref()
        world.fates[ref.key] = [misfortunes.node_lost(), Script(duration_s=FOR_EVER)]
        await runner.create(job(ref))
        end = await ended(runner, ref)
        assert (end.failure, end.reason) == (FailureClass.INFRASTRUCTURE, "NodeLost"), end
        assert "node-1" in end.message


async def test_a_gated_pod_waits_beyond_every_limit(hasty: World) -> None:
    runner, ref = hasty.runner(), attempt_ref()
    hasty.fates[ref.key] = misfortunes.scheduling_gated()
    await runner.create(job(ref))
    await until(lambda: runner.phase(ref).startswith("Pending: SchedulingGated"))
    await asyncio.sleep(1.2)
    assert runner.phase(ref).startswith("Pending: SchedulingGated")
    await runner.stop(ref, reason="over")


@pytest.mark.parametrize("fate", [misfortunes.unschedulable(), misfortunes.volume_missing()], ids=lambda f: f.reason)
async def test_a_pod_that_somebody_deletes_before_it_ran_is_not_the_trials_fault(
    tmp_path: Path, fate: misfortunes.Misfortune
) -> None:
    async with a_world(tmp_path) as world:
        runner, ref = world.runner(), attempt_ref()
        world.fates[ref.key] = fate
        await runner.create(job(ref))
        await until(lambda: runner.phase(ref).startswith("Pending"))
        await until(lambda: bool(world.pods()) and bool(world.pods()[0]["status"].get("conditions")))
        world.cluster.store.delete("pods", "default", world.pods()[0]["metadata"]["name"], grace_s=1)
        end = await ended(runner, ref)
        assert (end.failure, end.reason) == (FailureClass.INFRASTRUCTURE, "PodDeleted"), end


async def test_the_lines_of_the_pod_that_failed_are_told_not_those_of_the_one_that_trains(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    template = {"spec": {"containers": [{"name": "tensorflow", "image": "none"}]}}
    roles = {role: {"replicas": 1, "restartPolicy": "Never", "template": template} for role in ("Chief", "Worker")}
    launch = dataclasses.replace(
        job(ref),
        manifest={
            "apiVersion": "kubeflow.org/v1",
            "kind": "TFJob",
            "metadata": {"name": ref.trial_name, "namespace": "default"},
            "spec": {"tfReplicaSpecs": roles},
        },
        primary_container="tensorflow",
        primary_pod_labels={"training.kubeflow.org/job-role": "master"},
    )
    world.fates[f"{ref.trial_name}-chief-0"] = Script(lines=("value=1",), duration_s=FOR_EVER)
    world.fates[f"{ref.trial_name}-worker-0"] = Script(lines=("no shard",), exit_code=6, duration_s=0.3)
    await runner.create(launch)
    end = await ended(runner, ref)
    assert (end.failure, end.exit_code, end.reason) == (FailureClass.PROGRAM, 6, "exit 6: no shard")
    assert "value=1" not in end.message


def with_collector(ref: AttemptRef) -> Launch:
    collector = CollectorSpec(kind="StdOut", metrics=("loss",))
    return job(ref, collector=collector, ingest_url="http://gateway.example:8080", token="key")


async def test_deleted_by_somebody_it_is_forgiven_once(world: World) -> None:
    runner, ends = world.runner(), []
    for attempt in (0, 1):
        ref = attempt_ref(attempt=attempt)
        world.fates[ref.key] = Script(duration_s=FOR_EVER)
        await runner.create(job(ref))
        await until(lambda key=ref.key: key in world.made)  # type: ignore[misc]
        world.cluster.store.delete("jobs", "default", labels.object_name(ref), policy="Background")
        ends.append(await ended(runner, ref))
    assert [(end.state, end.failure) for end in ends] == [
        (AttemptState.LOST, FailureClass.INFRASTRUCTURE),
        (AttemptState.FAILED, FailureClass.CONFIGURATION),
    ]
    assert {end.reason for end in ends} == {"DeletedByAnother"}


async def test_a_namespace_that_is_deleted_ends_what_runs_there_and_starts_nothing(world: World) -> None:
    runner, ref, second = world.runner(), attempt_ref(), attempt_ref(attempt=1)
    world.cluster.store.create("namespaces", {"metadata": {"name": "team"}})
    world.fates[ref.key] = Script(duration_s=FOR_EVER)
    await runner.create(job(ref, namespace="team"))
    await until(lambda: bool(world.made))
    world.cluster.store.delete("namespaces", "", "team")
    assert (await ended(runner, ref)).failure is FailureClass.INFRASTRUCTURE
    with pytest.raises(LaunchError, match=r"being terminated|not found"):
        await runner.create(job(second, namespace="team"))


async def test_a_deadline_of_the_trial_ends_it_also_where_the_kind_has_none(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.fates[ref.key] = Script(lines=("value=1",), duration_s=FOR_EVER)
    launch = job(ref)
    await runner.create(dataclasses.replace(launch, deadline_s=1.5))  # since a moment in whole seconds
    end = await ended(runner, ref)
    assert (end.state, end.failure) == (AttemptState.FAILED, FailureClass.DEADLINE)
    assert runner.log_path(ref).read_text() == "value=1\n"
    await until(lambda: not world.jobs() and not world.pods())


# ---------------------------------------------------------------------------------------- stop, keep, sweep


async def test_another_worker_may_stop_it(world: World) -> None:
    first, second, ref = world.runner(), world.runner(), attempt_ref()
    world.fates[ref.key] = Script(lines=("value=1",), duration_s=FOR_EVER)
    await first.create(job(ref))
    waiting = asyncio.create_task(first.wait(ref))
    await until(lambda: bool(world.made))
    await asyncio.wait_for(second.stop(ref, reason="MaxTrialsReached"), SOON_S)
    end = await asyncio.wait_for(waiting, SOON_S)
    assert (end.state, end.reason) == (AttemptState.KILLED, "MaxTrialsReached")
    assert end == await ended(second, ref)
    assert not world.jobs()
    assert not world.pods()


async def test_a_worker_that_comes_after_the_end_reads_what_is_left(world: World, tmp_path: Path) -> None:
    first, ref = world.runner(), attempt_ref()
    world.fates[ref.key] = Script(lines=("value=1",))
    await first.create(job(ref))
    end = await ended(first, ref)
    first.log_path(ref).unlink()  # it was on another host
    second = world.runner()
    await second.create(job(ref))
    assert await ended(second, ref) == end
    assert second.log_path(ref).read_text() == "value=1\n"
    assert not second.sidecar(job(ref))


async def test_what_is_retained_stays_suspended_when_stopped_and_whole_when_ended(world: World) -> None:
    runner, stopped, over = world.runner(), attempt_ref(), attempt_ref(number=1)
    world.fates[stopped.key] = Script(duration_s=FOR_EVER)
    for ref in (stopped, over):
        await runner.create(job(ref, retain=True))
    await until(lambda: len(world.made) == 2)
    await asyncio.wait_for(runner.stop(stopped, reason="over"), SOON_S)
    assert (await ended(runner, stopped)).state is AttemptState.KILLED
    assert (await ended(runner, over)).state is AttemptState.SUCCEEDED
    for ref in (stopped, over):
        await runner.release(ref)
    assert len(world.jobs()) == 2
    assert await runner.retained(over)
    await runner.remove(over)
    await until(lambda: len(world.jobs()) == 1)


async def test_a_sweep_deletes_what_nobody_wants_and_leaves_other_databases_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.sweeping.YOUNG_S", 0.0)
    from activities.runners.kubernetes.sweeping import Spot

    runner, kept, left = world.runner(), attempt_ref(), attempt_ref(number=1)
    for ref in (kept, left):
        world.fates[ref.key] = Script(duration_s=FOR_EVER)
        await runner.create(job(ref))
    other = foreign(world, "another-databases")
    other_labels = {**labels.owned(left, "f" * 32)}
    world.cluster.store.patch("jobs", "default", other["metadata"]["name"], {"metadata": {"labels": other_labels}})

    async def wanted(ref: AttemptRef) -> bool:
        return ref.key == kept.key

    spots = {Spot.of(place) for _, place in world.store.places()}
    assert await runner.sweeper.sweep(spots, wanted) == 1
    assert await runner.sweeper.sweep((), wanted) == 0
    names = {obj["metadata"]["name"] for obj in world.jobs()}
    assert names == {kept.trial_name, "another-databases"}


async def ended_and_recorded(world: World, ref: AttemptRef, *lines: str) -> None:
    """By a worker that dies then: the log is in the cluster, as where a collector beside the trial reads it."""
    store, uid = world.store, ref.experiment_uid
    store.open_request(uid, 0, 1)
    store.commit_answer(uid, 0, Answer(assignments=(Assignment(parameters={"x": 0.5}),)), datetime.now(UTC))
    store.open_attempt(uid, ref.number, ref.attempt, home_id=None, at=datetime.now(UTC))
    world.fates[ref.key] = Script(lines=lines)
    runner = world.runner(mode="native")
    await runner.create(with_collector(ref))
    end = await ended(runner, ref)
    record_end(store, ref, Objective(type=ObjectiveType.MINIMIZE, metric="loss"), end)
    assert not runner.log_path(ref).exists()
    await runner.close()


async def test_a_sweep_saves_the_log_of_whoever_died_before_it_was_fetched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.sweeping.YOUNG_S", 0.0)
    ref = attempt_ref()
    await ended_and_recorded(world, ref, "loss=1", "last words")
    runner = world.runner(mode="native")
    assert await ClusterBroom(world.store, runner, 0.1).sweep() == 1
    assert runner.log_path(ref).read_text() == "loss=1\nlast words\n"
    await until(lambda: not world.jobs())


async def test_a_sweep_leaves_an_object_whose_log_cannot_be_had_now_but_not_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.runners.kubernetes.sweeping.YOUNG_S", 0.0)
    monkeypatch.setattr("activities.runners.kubernetes.runner.TRY_S", 0.1)
    first = attempt_ref()
    runner = world.runner(mode="native")
    broom = ClusterBroom(world.store, runner, 0.1)
    await ended_and_recorded(world, first, "loss=1")
    world.cluster.fault(method="GET", path="/log", status=503, times=1000)
    assert await broom.sweep() == 0
    assert len(world.jobs()) == 1
    monkeypatch.setattr("worker.clusters.LOG_PATIENCE_S", 0.0)
    assert await broom.sweep() == 1
    await until(lambda: not world.jobs())


# ---------------------------------------------------------------------------------------------------- logs


async def test_a_log_goes_on_after_disconnects_and_another_worker_without_a_gap_or_a_double(world: World) -> None:
    first, ref = world.runner(), attempt_ref()
    lines = tuple(f"epoch={number}" for number in range(60))
    world.fates[ref.key] = Script(lines=lines, pause_s=0.05)
    await first.create(job(ref))
    log = first.log_path(ref)
    for enough in (5, 12):
        await until(lambda enough=enough: log.exists() and log.read_text().count("\n") >= enough)  # type: ignore[misc]
        world.cluster.drop_streams()
    await until(lambda: log.read_text().count("\n") >= 20)
    await first.close()
    second = world.runner()
    await second.create(job(ref))
    assert (await ended(second, ref)).state is AttemptState.SUCCEEDED
    assert log.read_text().splitlines() == list(lines)


async def test_without_the_right_to_read_logs_a_trial_still_ends(world: World) -> None:
    world.cluster.forbidden.add(("get", "pods/log"))
    runner, ref = world.runner(), attempt_ref()
    world.fates[ref.key] = Script(lines=("value=1",), exit_code=3)
    await runner.create(job(ref))
    end = await ended(runner, ref)
    assert (end.failure, end.exit_code) == (FailureClass.PROGRAM, 3)
    assert any("pods/log" in warning for warning in end.warnings)


async def test_watches_that_break_and_expire_change_nothing(world: World) -> None:
    runner, ref = world.runner(), attempt_ref()
    world.cluster.fault(watch=True, after_events=1, gone=True, times=3)
    world.fates[ref.key] = Script(duration_s=0.5)
    await runner.create(job(ref))
    world.cluster.drop_streams()
    world.cluster.compact()
    assert (await ended(runner, ref)).state is AttemptState.SUCCEEDED
    assert world.made == {ref.key: 1}


def test_a_place_comes_back_from_the_ledger_as_it_was() -> None:
    ref = attempt_ref()
    launch = job(ref, retain=True, deadline_s=5.0, primary_pod_labels={"role": "master"}, cluster="east")
    made = Place.of(launch, launch.manifest, "native")
    assert Place.read(made.as_json()) == made
    assert Place.read({**made.as_json(), "later": 1}) == made
