"""Why a pod failed, or cannot start, as its own status says it. Pure; read by `classify`.

Exit code first, then the kubelet's reason: a shell that outlives its child's death by memory has succeeded. A pod that
was disrupted is the cluster's doing, whatever its containers made of the signal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from activities.runners.local.outcome import EXIT_WORDS, signal_of, signal_text
from evertune.domain.states import FailureClass
from evertune.protocols import JsonDict

INIT, COLLECTOR = "evertune-init", "evertune-collector"  # the containers that we add

CANNOT_RUN = ("StartError", "ContainerCannotRun", "RunContainerError")
# The kubelet refuses or gives up the whole pod, before or beside its containers.
NODE_REASONS = (
    "UnexpectedAdmissionError", "NodeAffinity", "Preempting", "Terminated", "NodeShutdown", "Shutdown", "NodeLost",
    "NodeUnreachable", "TopologyAffinityError",
)  # fmt: skip
LOST_SIGHT = "ContainerStatusUnknown"  # the kubelet found no container to ask: its exit code is made up
POD_DELETED = "PodDeleted"
SKEW = timedelta(seconds=5)  # between the clocks of a node and of the API server
NEVER_PULLED = ("InvalidImageName", "ErrImageNeverPull")
PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
NO_SUCH_IMAGE = ("not found", "manifest unknown", "denied", "unauthorized", "does not exist")
BAD_COMMAND = ("executable file not found", "no such file", "permission denied", "exec format error", "not a directory")
CONFIGURED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """`reason` is a sentence or a code that `message` explains, as in `AttemptEnd`."""

    failure: FailureClass | None  # None: the container succeeded
    reason: str
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    printed: bool = False  # the end of its log says more


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A container that has not started, or not again. `last` is how its run before ended."""

    reason: str
    message: str
    container: str
    restarts: int
    last: Cause | None


def cause_of(pod: JsonDict, primary: str, memory_limit: str | None = None) -> Cause | None:
    """How the pod ended, or why it will; None while nothing in it has."""
    status = pod.get("status") or {}
    ended = _first_ended(pod, primary)
    disrupted = disruption(pod)
    failed = status.get("phase") == "Failed"
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    times = _times(ended[1] if ended else {})
    if failed and reason == "Evicted":
        failure = FailureClass.PROGRAM if _fills_its_own(message.lower()) else FailureClass.INFRASTRUCTURE
        return Cause(failure=failure, reason="Evicted", message=message, **times)
    if failed and reason == "DeadlineExceeded":
        return Cause(failure=FailureClass.DEADLINE, reason=reason, message=message, **times)
    if failed and (reason in NODE_REASONS or reason.startswith("OutOf")):
        return Cause(failure=FailureClass.INFRASTRUCTURE, reason=reason, message=message or reason, **times)
    if disrupted is not None and (ended is None or ended[1].get("exitCode") != 0):
        return Cause(failure=FailureClass.INFRASTRUCTURE, reason=disrupted[0], message=disrupted[1], **times)
    if ended is None:
        if "deletionTimestamp" in pod["metadata"] and status.get("phase") in ("Pending", "Failed"):
            text = "the pod was deleted before its container ran"
            return Cause(failure=FailureClass.INFRASTRUCTURE, reason=POD_DELETED, message=text)
        return None
    return exited(
        *ended,
        primary=not primary or ended[0] == primary,
        deleted=deleted_at(pod),
        memory_limit=memory_limit if ended[0] == primary else None,
    )


def disruption(pod: JsonDict) -> tuple[str, str] | None:
    """Who takes the pod away, by reason and message: the scheduler, the kubelet, an eviction, a lost node."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return str(condition.get("reason") or "Disrupted"), str(condition.get("message") or "the pod was disrupted")
    return None


def exited(
    container: str,
    state: Mapping[str, Any],
    *,
    primary: bool = True,
    deleted: datetime | None = None,
    memory_limit: str | None = None,
) -> Cause:
    """From `terminated` of a container's state. `deleted`: when its pod was told to end, if it was."""
    code = int(state.get("exitCode") or 0)
    reason, message = str(state.get("reason") or ""), str(state.get("message") or "")
    times = _times(state)
    if code == 0:
        return Cause(failure=None, reason="Succeeded", exit_code=0, **times)
    number = signal_of(code)
    if reason == "OOMKilled":
        limit = f" of {memory_limit}" if memory_limit else ""
        text = f"OOMKilled: container {container} needed more than its memory limit{limit}"
        return Cause(
            failure=FailureClass.OUT_OF_MEMORY, reason=text, message=message, exit_code=code, signal=number, **times
        )
    if reason in CANNOT_RUN:
        return Cause(
            failure=FailureClass.CONFIGURATION,
            reason=reason,
            message=message or f"exit {code}",
            exit_code=code,
            **times,
        )
    if reason == "DeadlineExceeded":
        return Cause(failure=FailureClass.DEADLINE, reason=reason, message=message, exit_code=code, **times)
    if deleted is not None and _told_to_end(deleted, times["ended"], by_signal=number is not None):
        text = "the pod was deleted while its container ran"
        if reason == LOST_SIGHT:
            number, text = None, "the pod was deleted before its container ran"
        return Cause(failure=FailureClass.INFRASTRUCTURE, reason=POD_DELETED, message=text, signal=number, **times)
    if reason == LOST_SIGHT:
        return Cause(failure=FailureClass.INFRASTRUCTURE, reason=reason, message=message or reason, **times)
    if container in (INIT, COLLECTOR):
        text = f"{container} failed: {message or f'exit {code}'}"
        return Cause(failure=FailureClass.CONFIGURATION, reason=text, exit_code=code, **times)
    where = "" if primary else f" in container {container}"
    if number is not None:
        return Cause(
            failure=FailureClass.SIGNAL,
            reason=signal_text(number),
            message=message,
            signal=number,
            printed=True,
            **times,
        )
    words = EXIT_WORDS.get(code)
    if words is not None:
        return Cause(
            failure=FailureClass.CONFIGURATION,
            reason=f"exit {code} ({words})",
            message=message,
            exit_code=code,
            printed=True,
            **times,
        )
    return Cause(
        failure=FailureClass.PROGRAM,
        reason=f"exit {code}{where}",
        message=message,
        exit_code=code,
        printed=not where,
        **times,
    )


def waiting(pod: JsonDict, primary: str) -> Waiting | None:
    """The first container that does not start for a reason worth telling."""
    for status in _statuses(pod, primary):
        state = (status.get("state") or {}).get("waiting")
        if state is None or state.get("reason") in (None, "ContainerCreating", "PodInitializing"):
            continue
        if status.get("name") == COLLECTOR and state["reason"] == "CrashLoopBackOff":
            continue  # it is started again for ever; the trial goes on without it
        last = (status.get("lastState") or {}).get("terminated")
        return Waiting(
            reason=str(state["reason"]),
            message=str(state.get("message") or ""),
            container=str(status.get("name") or ""),
            restarts=int(status.get("restartCount") or 0),
            last=None if last is None else exited(str(status.get("name") or ""), last),
        )
    return None


def unscheduled(pod: JsonDict) -> str | None:
    """Why no node has taken the pod, in the scheduler's words."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason, message = str(condition.get("reason") or ""), str(condition.get("message") or "")
            if reason == "SchedulingGated":
                return f"SchedulingGated {message}".strip()
            return message or reason or "it is not scheduled yet"
    return None


def restarted(pod: JsonDict, primary: str) -> tuple[int, Cause | None]:
    """How often its main containers were started again in place, and how the last run of the worst ended."""
    most, cause = 0, None
    for status in _statuses(pod, primary):
        count = int(status.get("restartCount") or 0)
        if status.get("name") in (COLLECTOR, INIT) or count <= most:
            continue
        state, last = status.get("state") or {}, status.get("lastState") or {}
        ended = state.get("terminated") or last.get("terminated")
        most, cause = count, None if ended is None else exited(str(status.get("name") or ""), ended)
    return most, cause


def runs(pod: JsonDict, primary: str) -> bool:
    """Whether the primary container has started at least once."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == primary or not primary:
            state = status.get("state") or {}
            if "running" in state or "terminated" in state or int(status.get("restartCount") or 0) > 0:
                return True
    return False


def crashes(pod: JsonDict, primary: str) -> bool:
    """Whether it is held back before another start in place."""
    found = waiting(pod, primary)
    return found is not None and found.reason == "CrashLoopBackOff"


def started_at(pod: JsonDict, primary: str) -> datetime | None:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == primary or not primary:
            state = status.get("state") or {}
            told = (state.get("running") or state.get("terminated") or {}).get("startedAt")
            if told:
                return time_of(told)
    return None


def time_of(text: Any) -> datetime | None:
    """A Kubernetes time; None for anything else."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def taken_along(cause: Cause, others: Iterable[Cause]) -> bool:
    """A job that fails by one pod deletes the others that run: their end is not why."""
    return cause.reason == POD_DELETED and any(
        other.reason != POD_DELETED
        and other.ended is not None
        and (cause.started is None or other.ended >= cause.started)
        for other in others
    )


def deleted_at(pod: JsonDict) -> datetime | None:
    """When somebody asked for it; its deletionTimestamp is the end of the grace period."""
    meta = pod["metadata"]
    end = time_of(meta.get("deletionTimestamp"))
    return None if end is None else end - timedelta(seconds=int(meta.get("deletionGracePeriodSeconds") or 0))


def _told_to_end(deleted: datetime, ended: datetime | None, *, by_signal: bool) -> bool:
    """Whether a container ended because its pod was deleted: after it was, by whatever clock when a signal says so."""
    return ended is None or ended > deleted or (by_signal and ended + SKEW >= deleted)


def _fills_its_own(message: str) -> bool:
    """Evicted for the limit of its own volume or storage, not for what the node lacks."""
    if "node was low on resource" in message:
        return False
    return "exceed" in message and ("emptydir" in message or "ephemeral" in message)


def _times(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"started": time_of(state.get("startedAt")), "ended": time_of(state.get("finishedAt"))}


def _first_ended(pod: JsonDict, primary: str) -> tuple[str, Mapping[str, Any]] | None:
    """(container, terminated) that decides: a failed init container, else the primary one, else a failed other."""
    init, main, others = _split(pod, primary)
    for status in (*init, *main, *others):
        state = (status.get("state") or {}).get("terminated")
        if state is None or status.get("name") == COLLECTOR:
            continue
        if int(state.get("exitCode") or 0) != 0:
            return str(status.get("name") or ""), state
    return next(
        (
            (str(status.get("name") or ""), status["state"]["terminated"])
            for status in main
            if (status.get("state") or {}).get("terminated") is not None
        ),
        None,
    )


def _statuses(pod: JsonDict, primary: str) -> Iterator[JsonDict]:
    for some in _split(pod, primary):
        yield from some


def _split(pod: JsonDict, primary: str) -> tuple[list[JsonDict], list[JsonDict], list[JsonDict]]:
    status = pod.get("status") or {}
    init = list(status.get("initContainerStatuses") or ())
    every: Iterable[JsonDict] = status.get("containerStatuses") or ()
    main = [entry for entry in every if entry.get("name") == primary or not primary]
    return init, main, [entry for entry in every if entry not in main]
