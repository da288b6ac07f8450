"""What may befall a pod instead of running its script: the failure classes of Kubernetes, one function for each.

A `script_of` returns one of these where it would return a `Script`; the kubelet of the fake makes the pod look as it
does in a real cluster. Quota and admission, which keep a pod from being made at all, are `quota_exceeded` and
`denied`, for `Store.admission`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evertune.testing.kubernetes.objects import JsonDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfortune:
    """`stage` is where it strikes: before a node is found, when the node takes the pod, before the container runs, or
    `after_s` seconds after it began to."""

    stage: Literal["scheduling", "admission", "waiting", "running"]
    reason: str
    message: str = ""
    first_reason: str | None = None  # what is shown before `reason`, as ErrImagePull before ImagePullBackOff
    first_message: str = ""
    event: str | None = None  # the reason of an Event with the same message
    after_s: float = 0.0
    exit_code: int | None = None  # of the container; None: it is not known
    pod_reason: str | None = None  # status.reason of the pod
    disruption: str | None = None  # the reason of a condition DisruptionTarget
    deletes: bool = False  # the pod is deleted, with its grace period
    lost: bool = False  # nobody answers for the pod: once deleted it stays, terminating
    lines: tuple[str, ...] = ()  # printed before


def unschedulable(message: str = "0/5 nodes are available: 5 Insufficient cpu.") -> Misfortune:
    return Misfortune(stage="scheduling", reason="Unschedulable", message=message, event="FailedScheduling")


def scheduling_gated() -> Misfortune:
    return Misfortune(
        stage="scheduling", reason="SchedulingGated", message="Scheduling is blocked due to non-empty scheduling gates"
    )


def image_missing(image: str = "nowhere/none:1") -> Misfortune:
    return _not_pulled(image, f"{image}: not found", "rpc error: code = NotFound desc = ")


def registry_away(image: str = "registry.example/none:1") -> Misfortune:
    host, _, path = image.partition("/")
    url = f"https://{host}/v2/{path.replace(':', '/manifests/')}"
    return _not_pulled(image, f'failed to do request: Head "{url}": dial tcp: i/o timeout')


def _not_pulled(image: str, why: str, code: str = "") -> Misfortune:
    first = f'{code}failed to pull and unpack image "{image}": failed to resolve reference "{image}": {why}'
    return Misfortune(
        stage="waiting",
        reason="ImagePullBackOff",
        message=f'Back-off pulling image "{image}": ErrImagePull: {first}',
        first_reason="ErrImagePull",
        first_message=first,
        event="Failed",
    )


def image_never_pulled(image: str = "nowhere/none:1") -> Misfortune:
    message = f'Container image "{image}" is not present with pull policy of Never'
    return Misfortune(stage="waiting", reason="ErrImageNeverPull", message=message, event="ErrImageNeverPull")


def invalid_image_name(image: str = "Bad:Image:Name") -> Misfortune:
    message = (
        f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": invalid reference format'
    )
    return Misfortune(stage="waiting", reason="InvalidImageName", message=message, event="InspectFailed")


def config_error(message: str = 'configmap "settings" not found') -> Misfortune:
    return Misfortune(stage="waiting", reason="CreateContainerConfigError", message=message, event="Failed")


def volume_missing(message: str = 'MountVolume.SetUp failed for volume "data" : secret "data" not found') -> Misfortune:
    return Misfortune(stage="waiting", reason="ContainerCreating", message=message, event="FailedMount")


def start_error(command: str = "no-such-program") -> Misfortune:
    message = (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        f'unable to start container process: exec: "{command}": executable file not found in $PATH: unknown'
    )
    return Misfortune(stage="running", reason="StartError", message=message, exit_code=128, event="Failed")


def out_of_memory(after_s: float = 0.0, *, exit_code: int = 137, lines: tuple[str, ...] = ()) -> Misfortune:
    return Misfortune(stage="running", reason="OOMKilled", after_s=after_s, exit_code=exit_code, lines=lines)


def evicted(
    after_s: float = 0.0,
    message: str = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. ",
) -> Misfortune:
    return Misfortune(
        stage="running", reason="Error", message=message, after_s=after_s, exit_code=137, pod_reason="Evicted",
        disruption="TerminationByKubelet", event="Evicted",
    )  # fmt: skip


def node_shutdown(after_s: float = 0.0) -> Misfortune:
    return Misfortune(
        stage="running", reason="Error", message="Pod was terminated in response to imminent node shutdown.",
        after_s=after_s, exit_code=143, pod_reason="Terminated", disruption="TerminationByKubelet",
    )  # fmt: skip


def pod_deadline(after_s: float = 0.0) -> Misfortune:
    return Misfortune(
        stage="running", reason="Error", message="Pod was active on the node longer than the specified deadline",
        after_s=after_s, exit_code=137, pod_reason="DeadlineExceeded",
    )  # fmt: skip


def preempted(after_s: float = 0.0) -> Misfortune:
    return Misfortune(
        stage="running", reason="Preempted", message="Preempted by pod 6f1c on node node-1", after_s=after_s,
        disruption="PreemptionByScheduler", deletes=True, event="Preempted",
    )  # fmt: skip


def drained(after_s: float = 0.0) -> Misfortune:
    return Misfortune(
        stage="running", reason="EvictionByEvictionAPI", message="Eviction API: evicting", after_s=after_s,
        disruption="EvictionByEvictionAPI", deletes=True,
    )  # fmt: skip


def node_lost(after_s: float = 0.0) -> Misfortune:
    return Misfortune(
        stage="running", reason="NodeLost", message="Node node-1 which was running pod is unresponsive",
        after_s=after_s, pod_reason="NodeLost", disruption="DeletionByTaintManager", deletes=True, lost=True,
    )  # fmt: skip


def refused_by_node(
    reason: str = "OutOfcpu", message: str = "Pod was rejected: Node didn't have enough resource: cpu"
) -> Misfortune:
    """Also UnexpectedAdmissionError, OutOfmemory, NodeAffinity, Preempting."""
    return Misfortune(stage="admission", reason=reason, message=message)


def quota_exceeded(plural: str = "pods", quota: str = "team") -> Callable[[str, JsonDict], str | None]:
    """For `Store.admission`: a ResourceQuota that is used up."""
    return denied(plural, f"exceeded quota: {quota}, requested: {plural}=1, used: {plural}=0, limited: {plural}=0")


def denied(plural: str, sentence: str) -> Callable[[str, JsonDict], str | None]:
    """For `Store.admission`: pod security, a webhook, whatever says no to a kind."""
    return lambda created, _: sentence if created == plural else None
