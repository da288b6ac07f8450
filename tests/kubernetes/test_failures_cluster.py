"""What may befall a trial in a real cluster, one of everything, and what the runner makes of it.

All begin at once: most of their time is the cluster's, a back-off or a grace period. Each waits for its own end here.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.classify import Limits
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd
from evertune.errors import LaunchError
from tests.kubernetes.real import gateway_host
from tests.kubernetes.real_world import (
    JOB,
    POD,
    RealWorld,
    a_job,
    a_real_world,
    a_training_job,
    another_namespace,
    shell,
    vanished,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

Case = Callable[[RealWorld], Awaitable[None]]
CASES: dict[str, Case] = {}
FOR_EVER = "echo objective=0.5; exec sleep 600"
LIMITS = Limits(image_pull_s=20.0, configuration_s=4.0, restarts=1)


def at_once(case: Case) -> Case:
    CASES[case.__name__] = case
    return case


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def begun(
    full_cluster: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    async with a_real_world(full_cluster, tmp_path_factory.mktemp("world"), LIMITS) as world:
        tasks = {name: asyncio.ensure_future(case(world)) for name, case in CASES.items()}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def failed(end: AttemptEnd, failure: FailureClass, *texts: str) -> None:
    assert (end.state, end.failure) == (AttemptState.FAILED, failure), end
    for text in texts:
        assert text in f"{end.reason}\n{end.message}", end


# ----------------------------------------------------------------------------------------------- its own program


@at_once
async def a_program_error_is_told_with_its_last_lines(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("echo objective=1; echo 'ValueError: no such digit' >&2; exit 3")))
    end = await world.ended(ref)
    failed(end, FailureClass.PROGRAM, "exit 3", "ValueError: no such digit")
    assert (end.exit_code, end.signal) == (3, None)
    assert "ValueError: no such digit" in end.message
    lines = world.runner.log_path(ref).read_text().splitlines()
    assert sorted(lines) == ["ValueError: no such digit", "objective=1"]  # two streams have no order
    await world.gone(ref)


@at_once
async def a_command_that_is_not_in_the_image_is_the_configurations_fault(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("", command=["no-such-program", "--lr=1"])))
    failed(await world.ended(ref), FailureClass.CONFIGURATION, 'exec: "no-such-program"', "executable file not found")
    await world.gone(ref)


@at_once
async def a_command_that_its_shell_does_not_find_is_the_configurations_fault(world: RealWorld) -> None:
    end = await world.end_of(a_job(shell("no-such-program --lr=1")))
    failed(end, FailureClass.CONFIGURATION, "exit 127", "no-such-program")


@at_once
async def a_death_by_memory_is_told_with_the_limit(world: RealWorld) -> None:
    program = shell(
        "exec tail /dev/zero", resources={"requests": {"cpu": "5m"}, "limits": {"memory": "32Mi", "cpu": "1"}}
    )
    end = await world.end_of(a_job(program))
    failed(end, FailureClass.OUT_OF_MEMORY, "OOMKilled", "memory limit of 32Mi")
    assert end.signal == 9


@at_once
async def a_signal_that_is_not_the_memorys_is_a_signal(world: RealWorld) -> None:
    end = await world.end_of(a_job(shell("sh -c 'kill -9 $$$$'; exit $?")))
    failed(end, FailureClass.SIGNAL, "SIGKILL")
    assert (end.signal, end.exit_code) == (9, None)


@at_once
async def a_deadline_of_the_object_is_a_deadline(world: RealWorld) -> None:
    end = await world.end_of(a_job(shell(FOR_EVER), spec={"activeDeadlineSeconds": 3}))
    failed(end, FailureClass.DEADLINE, "DeadlineExceeded", "longer than specified deadline")


@at_once
async def a_deadline_of_the_pod_is_a_deadline(world: RealWorld) -> None:
    end = await world.end_of(a_job(shell(FOR_EVER), activeDeadlineSeconds=3))
    failed(end, FailureClass.DEADLINE, "DeadlineExceeded", "longer than the specified deadline")


@at_once
async def a_job_that_restarts_in_place_is_given_up_with_what_the_program_did(world: RealWorld) -> None:
    end = await world.end_of(a_job(shell("echo crash; exit 4"), restartPolicy="OnFailure"))
    failed(end, FailureClass.PROGRAM, "exit 4")
    assert end.exit_code == 4


@at_once
async def a_crash_loop_that_nothing_ends_is_ended(world: RealWorld) -> None:
    """The training operator's default: no limit at all."""
    manifest = a_training_job(
        "TFJob", "tfReplicaSpecs", Worker=("OnFailure", shell("echo crash; exit 4", "tensorflow"))
    )
    ref = await world.begun(manifest)
    await world.phase(ref, "Waiting: CrashLoopBackOff exit 4 (restarted 1 times)")
    end = await world.ended(ref)
    failed(end, FailureClass.PROGRAM, "exit 4", "restarted 2 times in place")
    await world.gone(ref)


@at_once
async def a_job_may_try_again_with_another_pod(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("echo again; exit 5"), spec={"backoffLimit": 1}))
    end = await world.ended(ref)
    failed(end, FailureClass.PROGRAM, "exit 5")
    assert len(await world.pods(ref)) == 2
    assert world.runner.log_path(ref).read_text() == "again\nagain\n"
    await world.gone(ref)


# ------------------------------------------------------------------------------------------------ what others did


GO = "objective=0.5"


def until_told() -> dict[str, object]:
    """Sleeps, unless the optional ConfigMap `told` is there: the first pod runs for ever, the next one ends."""
    reference = {"name": "told", "key": "ends", "optional": True}
    return shell(
        f'echo {GO}; [ "$ENDS" = 1 ] || exec sleep 600',
        env=[{"name": "ENDS", "valueFrom": {"configMapKeyRef": reference}}],
    )


async def evicted(world: RealWorld, pod: dict[str, object]) -> None:
    about = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}  # type: ignore[index]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about}
    await world.call("POST", f"{POD.format(about['namespace'], about['name'])}/eviction", body)


@at_once
async def an_evicted_pod_is_replaced_by_its_job_and_costs_nothing(world: RealWorld) -> None:
    with another_namespace(world) as own:
        ref = await world.begun(a_job(until_told()), namespace=own.name)
        first = await world.running(ref, own)
        await world.call("POST", f"/api/v1/namespaces/{own.name}/configmaps",
                         {"metadata": {"name": "told"}, "data": {"ends": "1"}})  # fmt: skip
        await evicted(world, first)
        end = await world.ended(ref)
        assert (end.state, end.failure) == (AttemptState.SUCCEEDED, None), end
        assert world.runner.log_path(ref).read_text().endswith(f"{GO}\n")
        await world.gone(ref, own)


@at_once
async def an_eviction_that_the_job_counts_is_not_the_trials_fault(world: RealWorld) -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [77]}}]  # the user's own
    ref = await world.begun(a_job(shell(FOR_EVER), spec={"podFailurePolicy": {"rules": rules}}))
    await evicted(world, await world.running(ref))
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "EvictionByEvictionAPI", "Eviction API: evicting")
    await world.gone(ref)


@at_once
async def a_pod_that_somebody_deletes_is_not_the_trials_fault(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell(FOR_EVER)))
    pod = await world.running(ref)
    await world.call("DELETE", POD.format(world.namespace.name, pod["metadata"]["name"]))
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "PodDeleted")
    await world.gone(ref)


@at_once
async def a_pod_that_somebody_deletes_before_it_runs_is_not_the_trials_fault(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("", resources={"requests": {"cpu": "1000"}})))
    pod = await world.running(ref, phase="Pending")
    await world.phase(ref, "nodes are available")
    await world.call("DELETE", POD.format(world.namespace.name, pod["metadata"]["name"]))
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "PodDeleted")
    await world.gone(ref)


@at_once
async def a_pod_that_somebody_deletes_while_it_is_held_up_is_not_the_trials_fault(world: RealWorld) -> None:
    volumes = [{"name": "data", "secret": {"secretName": "elsewhere"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    ref = await world.begun(a_job(shell("", volumeMounts=mounts), volumes=volumes))
    pod = await world.running(ref, phase="Pending")
    await world.phase(ref, 'secret "elsewhere" not found')
    await world.call("DELETE", POD.format(world.namespace.name, pod["metadata"]["name"]))
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "PodDeleted")
    await world.gone(ref)


@at_once
async def a_program_that_makes_its_own_exit_of_a_sigterm_is_not_at_fault(world: RealWorld) -> None:
    program = "trap 'sleep 2; exit 9' TERM; echo objective=0; sleep 600 & wait"
    ref = await world.begun(a_job(shell(program), terminationGracePeriodSeconds=20))
    pod = await world.running(ref)
    await world.call("DELETE", POD.format(world.namespace.name, pod["metadata"]["name"]))
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "PodDeleted")
    await world.gone(ref)


@at_once
async def a_pod_that_fails_is_why_its_job_deletes_the_others(world: RealWorld) -> None:
    program = '[ "$JOB_COMPLETION_INDEX" = 1 ] || exec sleep 600; sleep 1; echo no shard; exit 6'
    spec = {"parallelism": 2, "completions": 2, "completionMode": "Indexed"}
    ref = await world.begun(a_job(shell(program), spec=spec))
    failed(await world.ended(ref), FailureClass.PROGRAM, "exit 6")
    await world.gone(ref)


@at_once
async def a_pod_that_is_deleted_by_force_is_not_the_trials_fault(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell(FOR_EVER)))
    pod = await world.running(ref)
    path = POD.format(world.namespace.name, pod["metadata"]["name"])
    await world.call("DELETE", path, {"gracePeriodSeconds": 0})
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "PodDeleted")
    await world.gone(ref)


@at_once
async def a_job_that_somebody_deletes_is_lost(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell(FOR_EVER)))
    await world.running(ref)
    await world.call("DELETE", JOB.format(world.namespace.name, ref.trial_name), {"propagationPolicy": "Background"})
    end = await world.ended(ref)
    assert (end.state, end.failure) == (AttemptState.LOST, FailureClass.INFRASTRUCTURE), end
    assert end.reason == "DeletedByAnother"
    await world.gone(ref)


@at_once
async def a_namespace_that_is_deleted_ends_what_runs_in_it_and_starts_nothing_more(world: RealWorld) -> None:
    with another_namespace(world) as own:
        ref = await world.begun(a_job(shell(FOR_EVER)), namespace=own.name)
        await world.running(ref, own)
        await asyncio.to_thread(own.delete)
        end = await world.ended(ref)
        assert end.failure is FailureClass.INFRASTRUCTURE, end
        second = world.ref()
        with pytest.raises(LaunchError, match=r"being terminated|not found"):
            await world.runner.create(world.launch(second, a_job(shell(FOR_EVER)), namespace=own.name))
        await vanished(world, f"/api/v1/namespaces/{own.name}")
        await world.runner.release(ref)


# --------------------------------------------------------------------------------------------- it cannot start


@at_once
async def an_image_that_may_not_be_pulled_fails_at_once(world: RealWorld) -> None:
    image = "registry.example/no-such-image:1"
    end = await world.end_of(a_job(shell("", image=image, imagePullPolicy="Never")))
    failed(end, FailureClass.CONFIGURATION, "ErrImageNeverPull", f'Container image "{image}" is not present')


@at_once
async def a_registry_that_does_not_answer_is_not_the_trials_fault(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("", image="localhost:1/no-such-image:1")))
    await world.phase(ref, "connection refused")
    assert "ImagePull" in world.runner.phase(ref)
    failed(await world.ended(ref), FailureClass.INFRASTRUCTURE, "connection refused", "not pulled within 20 s")
    await world.gone(ref)


class Empty(BaseHTTPRequestHandler):
    """A registry without any image."""

    def answer(self) -> None:
        whole = self.path.rstrip("/") == "/v2"
        told = {} if whole else {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        body = json.dumps(told).encode()
        self.send_response(200 if whole else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@at_once
async def an_image_that_its_registry_does_not_have_is_the_configurations_fault(world: RealWorld) -> None:
    gateway_host(world.namespace.kubeconfig)  # skips where the node is not this machine
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as registry:
        serving = threading.Thread(target=registry.serve_forever)
        serving.start()
        try:
            image = f"localhost:{registry.server_address[1]}/no-such-image:1"
            end = await world.end_of(a_job(shell("", image=image)))
            failed(end, FailureClass.CONFIGURATION, "ErrImagePull", f"{image}: not found")
        finally:
            registry.shutdown()
            serving.join()


@at_once
async def a_config_map_that_is_missing_fails_when_it_does_not_come(world: RealWorld) -> None:
    program = shell("", envFrom=[{"configMapRef": {"name": "settings"}}])
    ref = await world.begun(a_job(program))
    await world.phase(ref, 'Pending: CreateContainerConfigError configmap "settings" not found')
    end = await world.ended(ref)
    failed(end, FailureClass.CONFIGURATION, "CreateContainerConfigError", 'configmap "settings" not found')
    await world.gone(ref)


@at_once
async def a_volume_that_does_not_come_is_told_by_its_event(world: RealWorld) -> None:
    volumes = [{"name": "data", "secret": {"secretName": "nowhere"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    ref = await world.begun(a_job(shell("", volumeMounts=mounts), volumes=volumes))
    await world.phase(ref, 'secret "nowhere" not found')
    await world.runner.stop(ref, reason="TestOver")
    await world.gone(ref)


@at_once
async def a_pod_that_no_node_takes_waits_and_says_why(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("", resources={"requests": {"cpu": "1000"}})))
    phase = await world.phase(ref, "nodes are available")
    assert re.match(r"Pending: 0/\d+ nodes are available: .*Insufficient cpu", phase)
    await world.runner.stop(ref, reason="TestOver")
    end = await world.ended(ref)
    assert (end.state, end.failure) == (AttemptState.KILLED, FailureClass.STOPPED)
    await world.gone(ref)


@at_once
async def a_quota_that_pods_exceed_is_waited_for_and_said(world: RealWorld) -> None:
    with another_namespace(world) as own:
        quotas = f"/api/v1/namespaces/{own.name}/resourcequotas"
        await world.call("POST", quotas, {"metadata": {"name": "team"}, "spec": {"hard": {"pods": "0"}}})
        ref = await world.begun(a_job(shell("echo objective=1")), namespace=own.name)
        phase = await world.phase(ref, "exceeded quota: team")
        assert "limited: pods=0" in phase
        await world.call("PATCH", f"{quotas}/team", {"spec": {"hard": {"pods": "5"}}})
        assert (await world.ended(ref)).state is AttemptState.SUCCEEDED
        await world.gone(ref, own)


@at_once
async def a_quota_that_objects_exceed_is_waited_for_and_said(world: RealWorld) -> None:
    with another_namespace(world) as own:
        quotas = f"/api/v1/namespaces/{own.name}/resourcequotas"
        await world.call("POST", quotas, {"metadata": {"name": "team"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
        ref = world.ref()
        launch = world.launch(ref, a_job(shell("echo objective=1")), namespace=own.name)
        creating = asyncio.ensure_future(world.runner.create(launch))
        phase = await world.phase(ref, "exceeded quota: team")
        assert "limited: count/jobs.batch=0" in phase
        await world.call("PATCH", f"{quotas}/team", {"spec": {"hard": {"count/jobs.batch": "5"}}})
        await asyncio.wait_for(creating, 30)
        assert (await world.ended(ref)).state is AttemptState.SUCCEEDED
        await world.gone(ref, own)


@at_once
async def a_pod_that_admission_refuses_fails_at_once_with_its_sentence(world: RealWorld) -> None:
    with another_namespace(world, **{"pod-security.kubernetes.io/enforce": "restricted"}) as own:
        program = shell("", securityContext={"privileged": True})
        ref = await world.begun(a_job(program), namespace=own.name)
        end = await world.ended(ref)
        failed(end, FailureClass.CONFIGURATION, 'violates PodSecurity "restricted:latest"', "privileged")
        assert ref.trial_name not in end.message
        await world.gone(ref, own)


@at_once
async def an_object_that_the_api_server_refuses_cannot_start(world: RealWorld) -> None:
    with pytest.raises(LaunchError, match='Unsupported value: "Sometimes"'):
        await world.begun(a_job(shell(""), restartPolicy="Sometimes"))


# -------------------------------------------------------------------------------------- kinds of several pods


@at_once
async def a_worker_that_fails_fails_a_tfjob(world: RealWorld) -> None:
    chief = shell(FOR_EVER, "tensorflow")
    worker = shell("echo no shard; exit 6", "tensorflow")
    manifest = a_training_job("TFJob", "tfReplicaSpecs", Chief=("Never", chief), Worker=("Never", worker))
    ref = await world.begun(manifest)
    end = await world.ended(ref)
    failed(end, FailureClass.PROGRAM, "exit 6", "no shard")
    await world.gone(ref)


@at_once
async def a_worker_that_fails_fails_a_pytorchjob(world: RealWorld) -> None:
    master = shell(FOR_EVER, "pytorch")
    worker = shell("echo no shard; exit 6", "pytorch")
    manifest = a_training_job("PyTorchJob", "pytorchReplicaSpecs", Master=("Never", master), Worker=("Never", worker))
    ref = await world.begun(manifest)
    end = await world.ended(ref)
    failed(end, FailureClass.PROGRAM, "exit 6", "no shard")
    await world.gone(ref)


# ------------------------------------------------------------------------------------ time to live, suspension


@at_once
async def a_result_outlives_an_object_that_vanishes_when_it_has_finished(world: RealWorld) -> None:
    for program, state in (("echo objective=1", AttemptState.SUCCEEDED), ("exit 7", AttemptState.FAILED)):
        for seconds in (0, 1):
            ref = await world.begun(a_job(shell(program), spec={"ttlSecondsAfterFinished": seconds}))
            end = await world.ended(ref)
            assert (end.state, end.exit_code) == (state, 0 if state is AttemptState.SUCCEEDED else 7), end
            if state is AttemptState.SUCCEEDED:
                assert world.runner.log_path(ref).read_text() == "objective=1\n"
            await vanished(world, JOB.format(world.namespace.name, ref.trial_name))
            await world.gone(ref)


@at_once
async def a_suspended_job_says_so_and_goes_on_when_it_is_resumed(world: RealWorld) -> None:
    ref = await world.begun(a_job(shell("echo objective=1"), spec={"suspend": True}))
    await world.phase(ref, "Suspended: ")
    await world.call("PATCH", JOB.format(world.namespace.name, ref.trial_name), {"spec": {"suspend": False}})
    assert (await world.ended(ref)).state is AttemptState.SUCCEEDED
    await world.gone(ref)


@at_once
async def what_is_retained_stays_until_it_is_removed(world: RealWorld) -> None:
    ended = await world.begun(a_job(shell("echo objective=1")), retain=True)
    stopped = await world.begun(a_job(shell(FOR_EVER)), retain=True)
    await world.running(stopped)
    await world.runner.stop(stopped, reason="TestOver")
    assert (await world.ended(stopped)).state is AttemptState.KILLED
    assert (await world.ended(ended)).state is AttemptState.SUCCEEDED
    assert not await world.pods(stopped)
    assert [pod["status"]["phase"] for pod in await world.pods(ended)] == ["Succeeded"]
    for ref in (ended, stopped):
        await world.runner.release(ref)
        kept = await world.call("GET", JOB.format(world.namespace.name, ref.trial_name))
        assert "deletionTimestamp" not in kept["metadata"]
        assert kept["metadata"]["labels"][labels.TRIAL] == str(ref.number)
        await world.runner.remove(ref)
        await world.gone(ref)


@pytest.mark.parametrize("case", CASES)
async def test_on_a_real_cluster(begun: dict[str, asyncio.Task[None]], case: str) -> None:
    await begun[case]
