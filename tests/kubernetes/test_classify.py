"""Every way in which an attempt in a cluster waits or ends, from the objects that say so."""

from __future__ import annotations

from typing import Any

import pytest

from activities.runners.kubernetes.classify import Case, Limits, Look, Rules
from activities.runners.kubernetes.sentences import without_name
from evertune.domain.states import AttemptState, FailureClass
from evertune.protocols import JsonDict

NAME = "digits-0123abcd"
COMPLETE = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
FAILED = 'status.conditions.#(type=="Failed")#|#(status=="True")#'
AT = {"startedAt": "2026-02-03T04:05:06Z", "finishedAt": "2026-02-03T04:06:07Z"}
RULES = Rules(success=COMPLETE, failure=FAILED, container="trial", memory="2Gi")


def job(*conditions: tuple[str, str, str], **status: Any) -> JsonDict:
    """A Job with (type, reason, message) of conditions that are true."""
    told = [{"type": kind, "status": "True", "reason": reason, "message": text} for kind, reason, text in conditions]
    return {"metadata": {"name": NAME, "uid": "u"}, "status": {"conditions": told, **status}}


RUNNING = job(active=1)
FAILED_JOB = job(("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"))


def pod(
    *containers: JsonDict,
    name: str = f"{NAME}-x7k2p",
    phase: str = "Running",
    init: tuple[JsonDict, ...] = (),
    conditions: tuple[JsonDict, ...] = (),
    labels: dict[str, str] | None = None,
    deleted: bool = False,
    **status: Any,
) -> JsonDict:
    metadata: JsonDict = {"name": name, "uid": name, "labels": labels or {}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-02-03T04:06:00Z"
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-3"},
        "status": {
            "phase": phase,
            "containerStatuses": list(containers),
            "initContainerStatuses": list(init),
            "conditions": list(conditions),
            **status,
        },
    }


def ended(code: int, reason: str = "Error", message: str = "", *, name: str = "trial", restarts: int = 0) -> JsonDict:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message, **AT}}
    return {"name": name, "state": state, "restartCount": restarts}


def runs(name: str = "trial") -> JsonDict:
    return {"name": name, "state": {"running": {"startedAt": AT["startedAt"]}}, "restartCount": 0}


def waits(
    reason: str, message: str = "", *, name: str = "trial", restarts: int = 0, last: int | None = None
) -> JsonDict:
    status: JsonDict = {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}
    status["restartCount"] = restarts
    if last is not None:
        status["lastState"] = {"terminated": {"exitCode": last, "reason": "Error", **AT}}
    return status


def pending(*containers: JsonDict, **more: Any) -> JsonDict:
    return pod(*containers, phase="Pending", **more)


def disrupted(reason: str, message: str = "") -> JsonDict:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


def unscheduled(reason: str, message: str) -> JsonDict:
    return {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}


def event(reason: str, message: str, about: str = NAME) -> JsonDict:
    at = "2026-02-03T04:05:06Z"
    return {"reason": reason, "message": message, "involvedObject": {"name": about}, "lastTimestamp": at}


def look(obj: JsonDict, *pods: JsonDict, now: float = 0.0, case: Case | None = None, **more: Any) -> Look:
    return (case or Case(NAME, RULES)).look(obj, pods, now, **more)


# ------------------------------------------------------------------------------------------- it has ended


def test_a_job_that_is_complete_has_succeeded_with_its_pods_times() -> None:
    end = look(job(("Complete", "", "")), pod(ended(0, "Completed"), phase="Succeeded")).end
    assert end is not None
    assert (end.state, end.failure, end.exit_code, end.signal) == (AttemptState.SUCCEEDED, None, 0, None)
    assert end.started is not None
    assert end.ended is not None
    assert (end.ended - end.started).total_seconds() == 61


CASES: list[tuple[str, JsonDict, FailureClass, str, int | None, int | None]] = [
    # the pod; class, how reason or message begin or what they hold, exit code, signal
    ("program error", pod(ended(3)), FailureClass.PROGRAM, "exit 3", 3, None),
    ("no such command", pod(ended(127)), FailureClass.CONFIGURATION, "command not found", 127, None),
    ("not executable", pod(ended(126)), FailureClass.CONFIGURATION, "cannot be executed", 126, None),
    (
        "start error",
        pod(ended(128, "StartError", 'exec: "no": executable file not found in $PATH')),
        FailureClass.CONFIGURATION,
        "executable file not found",
        128,
        None,
    ),
    ("out of memory", pod(ended(137, "OOMKilled")), FailureClass.OUT_OF_MEMORY, "limit of 2Gi", None, 9),
    ("a child's out of memory", pod(ended(1, "OOMKilled")), FailureClass.OUT_OF_MEMORY, "OOMKilled", 1, None),
    ("SIGKILL", pod(ended(137)), FailureClass.SIGNAL, "signal 9 (SIGKILL)", None, 9),
    ("SIGTERM", pod(ended(143)), FailureClass.SIGNAL, "signal 15", None, 15),
    ("deleted pod", pod(ended(143), deleted=True), FailureClass.INFRASTRUCTURE, "the pod was deleted", None, 15),
    (
        "evicted",
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        FailureClass.INFRASTRUCTURE,
        "low on resource: memory",
        None,
        None,
    ),
    (
        "evicted for what others wrote",
        pod(
            phase="Failed",
            reason="Evicted",
            message="The node was low on resource: ephemeral-storage. Container trial was using 9Gi, which exceeds its"
            " request of 0.",
        ),
        FailureClass.INFRASTRUCTURE,
        "low on resource: ephemeral-storage",
        None,
        None,
    ),
    (
        "its own emptyDir",
        pod(phase="Failed", reason="Evicted", message='Usage of EmptyDir volume "data" exceeds the limit "1Gi".'),
        FailureClass.PROGRAM,
        'volume "data" exceeds',
        None,
        None,
    ),
    (
        "its own ephemeral storage",
        pod(phase="Failed", reason="Evicted", message="Container trial exceeded its local ephemeral storage limit"),
        FailureClass.PROGRAM,
        "exceeded its local ephemeral storage",
        None,
        None,
    ),
    (
        "preempted",
        pod(ended(143), conditions=(disrupted("PreemptionByScheduler", "preempted by a pod"),)),
        FailureClass.INFRASTRUCTURE,
        "preempted by a pod",
        None,
        None,
    ),
    (
        "drained, with an exit of its own",
        pod(ended(1), conditions=(disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),)),
        FailureClass.INFRASTRUCTURE,
        "Eviction API",
        None,
        None,
    ),
    (
        "node shutdown",
        pod(phase="Failed", reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
        FailureClass.INFRASTRUCTURE,
        "imminent node shutdown",
        None,
        None,
    ),
    *[
        (
            reason,
            pod(phase="Failed", reason=reason, message="no room"),
            FailureClass.INFRASTRUCTURE,
            "no room",
            None,
            None,
        )
        for reason in ("OutOfcpu", "OutOfmemory", "OutOfpods", "UnexpectedAdmissionError", "NodeAffinity", "Preempting")
    ],
    (
        "deleted before it ran",
        pending(waits("ContainerCreating"), deleted=True),
        FailureClass.INFRASTRUCTURE,
        "deleted before its container ran",
        None,
        None,
    ),
    (
        "deleted before it had a node",
        pod(phase="Failed", deleted=True),
        FailureClass.INFRASTRUCTURE,
        "deleted before its container ran",
        None,
        None,
    ),
    (
        "told to end, with an exit of its own",
        pod(ended(1), deleted=True),
        FailureClass.INFRASTRUCTURE,
        "PodDeleted",
        None,
        None,
    ),
    (
        "a container that the kubelet lost sight of",
        pod(ended(137, "ContainerStatusUnknown", "The container could not be located"), phase="Failed"),
        FailureClass.INFRASTRUCTURE,
        "could not be located",
        None,
        None,
    ),
    (
        "pod deadline",
        pod(ended(137), phase="Failed", reason="DeadlineExceeded", message="Pod was active longer than 5 s"),
        FailureClass.DEADLINE,
        "DeadlineExceeded",
        None,
        None,
    ),
    (
        "an init container before the trial",
        pod(waits("PodInitializing"), init=(ended(2, message="no data", name="download"),)),
        FailureClass.PROGRAM,
        "exit 2",
        2,
        None,
    ),
    (
        "the trial before others",
        pod(ended(9, name="helper"), ended(4)),
        FailureClass.PROGRAM,
        "exit 4",
        4,
        None,
    ),
]


@pytest.mark.parametrize(
    ("pod", "failure", "text", "code", "signal"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_pod_says_why_a_job_has_failed(
    pod: JsonDict, failure: FailureClass, text: str, code: int | None, signal: int | None
) -> None:
    seen = look(FAILED_JOB, pod)
    assert seen.end is not None
    assert seen.end.state is AttemptState.FAILED
    assert seen.end.failure is failure
    assert text in f"{seen.end.reason}\n{seen.end.message}"
    assert (seen.end.exit_code, seen.end.signal) == (code, signal)
    assert not seen.unsure


def test_a_death_by_memory_that_the_shell_outlived_is_no_failure() -> None:
    end = look(job(("Complete", "", "")), pod(ended(0, "OOMKilled"), phase="Succeeded")).end
    assert end is not None
    assert (end.state, end.exit_code) == (AttemptState.SUCCEEDED, 0)


def test_a_helper_that_fails_beside_a_trial_that_succeeded_fails_the_pod() -> None:
    end = look(FAILED_JOB, pod(ended(0, "Completed"), ended(5, name="helper"), phase="Failed")).end
    assert end is not None
    assert (end.failure, end.exit_code, end.reason) == (FailureClass.PROGRAM, 5, "exit 5 in container helper")


def test_failure_comes_before_success_and_a_deadline_is_the_objects() -> None:
    both = job(("Complete", "", ""), ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"))
    end = look(both, pod(ended(143))).end
    assert end is not None
    assert (end.failure, end.reason) == (FailureClass.DEADLINE, "DeadlineExceeded")


def test_a_training_operators_deadline_is_known_by_its_sentence() -> None:
    text = "TFJob digits has failed because it was active longer than specified deadline"
    end = look(job(("Failed", "TFJobFailed", text)), pod(ended(143))).end
    assert end is not None
    assert end.failure is FailureClass.DEADLINE


def test_a_pod_failure_policy_says_which_rule() -> None:
    told = "Container trial for pod default/x failed with exit code 42 matching FailJob rule at index 0"
    end = look(job(("Failed", "PodFailurePolicy", told)), pod(ended(42))).end
    assert end is not None
    assert (end.failure, end.exit_code) == (FailureClass.PROGRAM, 42)
    assert "rule at index 0" in end.message


@pytest.mark.parametrize("reason", ["FailedIndexes", "MaxFailedIndexesExceeded"])
def test_a_job_of_several_indexes_fails_with_what_its_pod_did(reason: str) -> None:
    end = look(job(("Failed", reason, "Job has failed indexes")), pod(ended(5), phase="Failed")).end
    assert end is not None
    assert (end.failure, end.exit_code) == (FailureClass.PROGRAM, 5)


def test_pods_that_are_gone_when_their_job_fails_are_remembered() -> None:
    case = Case(NAME, RULES)
    assert look(RUNNING, pod(ended(7)), case=case).end is None
    end = look(FAILED_JOB, case=case).end
    assert end is not None
    assert (end.failure, end.exit_code) == (FailureClass.PROGRAM, 7)


def test_a_disruption_stays_the_reason_when_the_container_dies_of_it() -> None:
    case = Case(NAME, RULES)
    look(RUNNING, pod(runs(), conditions=(disrupted("PreemptionByScheduler", "preempted"),)), case=case)
    end = look(FAILED_JOB, pod(ended(143)), case=case).end
    assert end is not None
    assert end.failure is FailureClass.INFRASTRUCTURE


def test_without_any_pod_the_object_is_believed_but_not_yet() -> None:
    seen = look(FAILED_JOB)
    assert seen.unsure
    assert seen.end is not None
    assert (seen.end.failure, seen.end.reason) == (FailureClass.PROGRAM, "BackoffLimitExceeded")
    assert look(job(("Complete", "", ""))).unsure


def test_of_several_pods_the_one_that_trains_decides() -> None:
    rules = Rules(success=COMPLETE, failure=FAILED, container="trial", labels={"role": "master"})
    worker = pod(ended(143), name=f"{NAME}-worker-0")
    master = pod(ended(3), name=f"{NAME}-master-0", labels={"role": "master"})
    end = Case(NAME, rules).look(FAILED_JOB, [worker, master], 0.0).end
    assert end is not None
    assert end.exit_code == 3


def test_pods_that_a_job_deletes_because_another_failed_are_not_why() -> None:
    """Also when they end last, and when they are those that train."""
    rules = Rules(success=COMPLETE, failure=FAILED, container="trial", labels={"role": "master"})
    worker = pod(ended(3), name=f"{NAME}-worker-0")
    late = {"terminated": {"exitCode": 143, "reason": "Error", **AT, "finishedAt": "2026-02-03T04:06:30Z"}}
    master = pod({"name": "trial", "state": late}, name=f"{NAME}-master-0", labels={"role": "master"}, deleted=True)
    never_ran = pending(name=f"{NAME}-worker-1", deleted=True)
    end = Case(NAME, rules).look(FAILED_JOB, [worker, master, never_ran], 0.0).end
    assert end is not None
    assert (end.failure, end.exit_code) == (FailureClass.PROGRAM, 3)


def test_a_pod_that_is_deleted_after_the_one_before_it_failed_is_why() -> None:
    first = pod(ended(3), name=f"{NAME}-first")
    later = {"startedAt": "2026-02-03T04:07:00Z", "finishedAt": "2026-02-03T04:07:30Z"}
    state = {"terminated": {"exitCode": 143, "reason": "Error", **later}}
    second = pod({"name": "trial", "state": state}, name=f"{NAME}-second", deleted=True)
    end = look(FAILED_JOB, first, second).end
    assert end is not None
    assert (end.failure, end.reason) == (FailureClass.INFRASTRUCTURE, "PodDeleted")


def test_a_crash_is_a_crash_also_when_the_pod_is_deleted_afterwards() -> None:
    crashed = pod(ended(139), deleted=True)
    crashed["metadata"] |= {"deletionTimestamp": "2026-02-03T04:08:00Z", "deletionGracePeriodSeconds": 30}
    end = look(FAILED_JOB, crashed).end
    assert end is not None
    assert (end.failure, end.signal) == (FailureClass.SIGNAL, 11)


def test_a_failed_pod_that_its_job_replaces_ends_nothing() -> None:
    assert look(RUNNING, pod(ended(1), phase="Failed"), pod(runs(), name=f"{NAME}-second")) == Look()


# ------------------------------------------------------------------------------------- it cannot start, or waits


def test_a_pending_pod_says_what_the_scheduler_says() -> None:
    text = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."
    case = Case(NAME, RULES)
    waiting = pending(conditions=(unscheduled("Unschedulable", text),))
    assert look(RUNNING, waiting, case=case).phase == f"Pending: {text}"
    assert look(RUNNING, waiting, case=case, now=1799).end is None
    end = look(RUNNING, waiting, case=case, now=1801).end
    assert end is not None
    assert end.failure is FailureClass.CONFIGURATION
    assert end.message == f"not started within 30 minutes: {text}"


def test_what_is_held_back_on_purpose_waits_for_ever() -> None:
    case = Case(NAME, RULES)
    gated = pending(conditions=(unscheduled("SchedulingGated", "Scheduling is blocked due to non-empty gates"),))
    held = job(("Suspended", "JobSuspended", "Job suspended"), active=0)
    for now in (0.0, 1e6):
        assert look(RUNNING, gated, case=case, now=now).phase.startswith(
            "Pending: SchedulingGated Scheduling is blocked"
        )
        assert look(held, case=case, now=now) == Look("Suspended: Job suspended")


def test_running_it_waits_for_nothing() -> None:
    assert look(RUNNING, pod(runs())) == Look()


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_can_never_be_pulled_fails_at_once(reason: str) -> None:
    end = look(RUNNING, pending(waits(reason, "couldn't parse image name"))).end
    assert end is not None
    assert (end.failure, end.reason) == (FailureClass.CONFIGURATION, reason)


@pytest.mark.parametrize(
    "text",
    [
        'failed to pull "x:1": failed to resolve reference "x:1": x:1: not found',
        "manifest unknown",
        "pull access denied, repository does not exist or may require authorization",
    ],
)
def test_an_image_that_is_not_there_fails_at_the_second_try(text: str) -> None:
    case = Case(NAME, RULES)
    first = look(RUNNING, pending(waits("ErrImagePull", text)), case=case)
    assert first.phase.startswith("Pending: ErrImagePull")
    assert text[:40] in first.phase
    end = look(RUNNING, pending(waits("ImagePullBackOff", 'Back-off pulling image "x:1"')), case=case, now=5).end
    assert end is not None
    assert (end.failure, end.reason, end.message) == (FailureClass.CONFIGURATION, "ErrImagePull", text)


def test_a_registry_that_is_away_costs_no_trial() -> None:
    case = Case(NAME, RULES)
    text = "dial tcp: i/o timeout"
    for now in range(0, 300, 20):
        reason = ("ErrImagePull", "ImagePullBackOff")[now // 20 % 2]
        assert look(RUNNING, pending(waits(reason, text)), case=case, now=now).end is None
    end = look(RUNNING, pending(waits("ImagePullBackOff", text)), case=case, now=301).end
    assert end is not None
    assert end.failure is FailureClass.INFRASTRUCTURE
    assert text in end.message


def test_an_image_that_comes_at_last_is_forgiven() -> None:
    case = Case(NAME, RULES)
    look(RUNNING, pending(waits("ErrImagePull", "timeout")), case=case)
    assert look(RUNNING, pod(runs()), case=case, now=290) == Look()
    assert look(RUNNING, pending(waits("ErrImagePull", "timeout")), case=case, now=400).end is None


def test_a_missing_configuration_fails_after_a_minute() -> None:
    case = Case(NAME, RULES)
    broken = pending(waits("CreateContainerConfigError", 'configmap "settings" not found'))
    seen = look(RUNNING, broken, case=case)
    assert seen.phase == 'Pending: CreateContainerConfigError configmap "settings" not found'
    assert seen.again_s == 60
    end = look(RUNNING, broken, case=case, now=60).end
    assert end is not None
    assert (end.failure, end.message) == (FailureClass.CONFIGURATION, 'configmap "settings" not found')


def test_a_command_that_is_not_in_the_image_fails_at_once() -> None:
    for reason in ("RunContainerError", "CreateContainerError"):
        end = look(RUNNING, pending(waits(reason, 'exec: "trainn": executable file not found in $PATH'))).end
        assert end is not None
        assert (end.failure, end.reason) == (FailureClass.CONFIGURATION, reason)


def test_a_volume_that_does_not_come_is_told_by_its_event() -> None:
    name = f"{NAME}-x7k2p"
    events = [
        event("FailedMount", 'MountVolume.SetUp failed: secret "keys" not found', name),
        event("BackOff", "no", name),
    ]
    seen = look(RUNNING, pending(waits("ContainerCreating"), name=name), events=events)
    assert seen.phase == 'Pending: MountVolume.SetUp failed: secret "keys" not found'
    assert seen.again_s == 1800


def test_what_admission_refuses_fails_at_once_and_a_quota_waits() -> None:
    refused = (
        f'Error creating: pods "{NAME}-x7k2p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
        f'Error creating: admission webhook "policy.example.com" denied the request: {NAME}-abcde has no owner',
    )
    for text in refused:
        end = look(RUNNING, events=[event("FailedCreate", text)]).end
        assert end is not None
        assert end.failure is FailureClass.CONFIGURATION
        assert NAME not in end.message
        assert text.split(":")[-1][-12:] in end.message
    quota = f'Error creating: pods "{NAME}-x7k2p" is forbidden: exceeded quota: team, requested: cpu=1'
    assert look(RUNNING, events=[event("FailedCreate", quota)]).phase.startswith("Pending: Error creating: pods")


def test_a_crash_loop_ends_with_what_the_program_did() -> None:
    case = Case(NAME, RULES)
    for restarts in (1, 3):
        seen = look(RUNNING, pod(waits("CrashLoopBackOff", restarts=restarts, last=2)), case=case)
        assert seen.end is None
        assert seen.phase == f"Waiting: CrashLoopBackOff exit 2 (restarted {restarts} times)"
    end = look(RUNNING, pod(waits("CrashLoopBackOff", restarts=4, last=2)), case=case).end
    assert end is not None
    assert (end.failure, end.exit_code) == (FailureClass.PROGRAM, 2)
    assert "restarted 4 times" in end.message


def test_the_objects_own_backoff_limit_is_that_of_a_crash_loop() -> None:
    case = Case(NAME, Rules(success=COMPLETE, failure=FAILED, container="trial", restarts=0))
    end = look(RUNNING, pod(waits("CrashLoopBackOff", restarts=1, last=137)), case=case).end
    assert end is not None
    assert (end.failure, end.signal) == (FailureClass.SIGNAL, 9)


def test_our_own_collector_may_crash_as_often_as_it_likes() -> None:
    crashing = waits("CrashLoopBackOff", name="evertune-collector", restarts=50, last=1)
    assert look(RUNNING, pod(runs(), init=(crashing,))) == Look()


def test_an_image_of_our_collector_that_is_not_there_is_told_as_well() -> None:
    held = pending(waits("PodInitializing"), init=(waits("ErrImageNeverPull", "no image", name="evertune-init"),))
    end = look(RUNNING, held).end
    assert end is not None
    assert end.failure is FailureClass.CONFIGURATION


def test_a_lost_node_ends_the_attempt_uncharged_after_a_while() -> None:
    case = Case(NAME, RULES, Limits(node_lost_s=30))
    lost = pod(runs(), deleted=True, conditions=(disrupted("DeletionByTaintManager", "Taint manager: deleting"),))
    assert look(RUNNING, lost, case=case).phase == "Running: its node does not answer"
    end = look(RUNNING, lost, case=case, now=31).end
    assert end is not None
    assert (end.failure, end.reason) == (FailureClass.INFRASTRUCTURE, "NodeLost")
    assert "node-3" in end.message


def test_a_node_that_comes_back_is_forgiven() -> None:
    case = Case(NAME, RULES, Limits(node_lost_s=30))
    look(RUNNING, pod(runs(), reason="NodeLost"), case=case)
    assert look(RUNNING, pod(runs()), case=case, now=20) == Look()
    assert look(RUNNING, pod(runs(), reason="NodeLost"), case=case, now=40).end is None


def test_a_sentence_is_the_same_for_every_trial() -> None:
    one = without_name(f'pods "{NAME}-x7k2p" is forbidden, {NAME}', NAME)
    assert one == 'pods "…" is forbidden, …'
    assert without_name("nothing to hide", NAME) == "nothing to hide"


def test_a_job_that_replaces_what_its_trial_fills_up_is_ended() -> None:
    full = pod(
        phase="Failed",
        reason="Evicted",
        message='Usage of EmptyDir volume "data" exceeds the limit "1Gi".',
        conditions=(disrupted("TerminationByKubelet", "evicted"),),
    )
    end = look(RUNNING, full, pod(runs(), name=f"{NAME}-second")).end
    assert end is not None
    assert (end.failure, end.reason) == (FailureClass.PROGRAM, "Evicted")


def test_a_job_whose_pods_are_taken_away_again_and_again_is_ended_uncharged() -> None:
    case = Case(NAME, RULES, Limits(disruptions=3))
    for number in range(4):
        taken = pod(
            phase="Failed", conditions=(disrupted("PreemptionByScheduler", "preempted"),), name=f"{NAME}-{number}"
        )
        seen = look(RUNNING, taken, pod(runs(), name=f"{NAME}-n{number}"), case=case)
        assert (seen.end is None) == (number < 3)
    assert seen.end is not None
    assert seen.end.failure is FailureClass.INFRASTRUCTURE
    assert "4 of its pods" in seen.end.message


def test_a_back_off_that_tells_its_error_is_proof_enough_when_the_error_itself_was_not_seen() -> None:
    text = 'Back-off pulling image "x:1": ErrImagePull: x:1: not found'
    end = look(RUNNING, pending(waits("ImagePullBackOff", text))).end
    assert end is not None
    assert (end.failure, end.message) == (FailureClass.CONFIGURATION, text)
    assert look(RUNNING, pending(waits("ImagePullBackOff", 'Back-off pulling image "x:1"'))).end is None
