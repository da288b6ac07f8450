"""What an attempt in a cluster waits for, or how it ended: from its object, its pods and their events. No I/O.

The object says *that* an attempt has ended, by its conditions; its pods say *why*. Some things never end an object - an
image that is not there, a crash loop, a node that is gone - and are ended here, each after its time. A `Case` remembers
between two looks what is gone at the third: pods vanish before their job has ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from activities.runners.kubernetes import beside, causes
from activities.runners.kubernetes.causes import Cause, Waiting
from activities.runners.kubernetes.sentences import newest, shown, without_name
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd
from evertune.protocols import JsonDict
from evertune.spec.conditions import Condition, Found

NODE_LOST = "NodeLost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long, in seconds, what does not end by itself may last."""

    image_pull_s: float = 300.0
    configuration_s: float = 60.0
    pending_s: float = 1800.0
    node_lost_s: float = 60.0  # after the node's pods were to be gone
    collector_s: float = 30.0  # of the user's own collector after the training
    restarts: int = 3  # of a container in place, where the object sets no backoffLimit
    disruptions: int = 20  # pods that were taken away and replaced, within one attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to look for in an attempt. JSON in its place in the ledger, so that any worker looks for the same."""

    success: str
    failure: str
    container: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  # of the pod that trains
    memory: str | None = None  # its limit, for sentences
    restarts: int | None = None
    collector: str = ""  # the container of the user's own, where it may end by itself, or never

    @classmethod
    def of(cls, data: JsonDict) -> Rules:
        known = {entry.name for entry in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})

    def as_json(self) -> JsonDict:
        return {**dataclasses.asdict(self), "labels": dict(self.labels)}


@dataclass(frozen=True, slots=True)
class Look:
    """`phase` while it goes on, "" when it runs. `again_s`: look again then, also when nothing has changed."""

    phase: str = ""
    end: AttemptEnd | None = None
    again_s: float | None = None
    printed: bool = False  # the log of `pod` says more of the end
    pod: str = ""
    unsure: bool = False  # the object ended and no pod says why: they may not be here yet


class Case:
    """One attempt. `look` is called for every change, with seconds of any clock that only goes forward."""

    def __init__(self, name: str, rules: Rules, limits: Limits | None = None) -> None:
        self._name = name
        self._rules = rules
        self._limits = limits or Limits()
        self._success = Condition.parse(rules.success)
        self._failure = Condition.parse(rules.failure)
        self._since: dict[str, float] = {}
        self._known: dict[str, tuple[int, Cause]] = {}  # how pods ended, the last known first
        self._pull = ""  # what the registry said; the back-off after it says less
        self._pulls = 0
        self._crashed: tuple[str, Cause] | None = None  # a run in a pod that was started again in place
        self._pulled_before = ""
        self.started: datetime | None = None

    def look(self, obj: JsonDict, pods: Sequence[JsonDict], now: float, *, events: Iterable[JsonDict] = ()) -> Look:
        rules = self._rules
        self.note(pods)
        whole = self._primary(pods)
        pods, primary = self._ours(pods), self._ours(whole)
        self.started = next(
            (at for pod in primary if (at := causes.started_at(pod, rules.container)) is not None), self.started
        )
        if (found := self._failure.holds(obj)) is not None:
            return self._failed(obj, found, primary, whole)
        if (found := self._success.holds(obj)) is not None:
            cause, name = self._cause(primary, successful=True)
            well = Cause(failure=None, reason="Succeeded", exit_code=0)
            return self._ended(obj, cause or well, pod=name, unsure=cause is None and not _timed(obj))
        if rules.collector and whole and (look := self._collecting(obj, whole, now)) is not None:
            return look
        return self._going_on(obj, pods, primary, now, list(events))

    def note(self, pods: Iterable[JsonDict]) -> None:
        """Remember how pods ended; cheap, and asked for each of their changes."""
        for pod in self._ours(pods):
            name = str(pod["metadata"].get("name"))
            _, crashed = causes.restarted(pod, self._rules.container)
            if crashed is not None and crashed.failure is not None:
                self._crashed = name, crashed
            cause = self._cause_of(pod)
            if cause is None:
                continue
            known = self._known.get(name)
            if cause.failure is None and known is None and "deletionTimestamp" in pod["metadata"]:
                continue  # told to end, it ended well: that proves nothing
            # A disruption is known before the containers have died of it, and stays the reason.
            if known is None or known[1].failure is not FailureClass.INFRASTRUCTURE:
                self._known[name] = len(self._known) if known is None else known[0], cause

    def ended(self, obj: JsonDict) -> bool:
        """Whether the object itself says so."""
        return self._failure.holds(obj) is not None or self._success.holds(obj) is not None

    @property
    def ran(self) -> bool:
        """Whether a container of it is known to have run, or to have tried to."""
        return self.started is not None or any(cause.ended is not None for _, cause in self._known.values())

    def last(self) -> Cause | None:
        """How the pod that ended last did."""
        ends = sorted(self._known.values(), key=lambda entry: (entry[1].ended or _LONG_AGO, entry[0]))
        return ends[-1][1] if ends else None

    def known(self) -> Cause | None:
        """How the attempt ended, when its object is gone before it was seen to say so; None when nobody can say."""
        last = self.last()
        return None if last is None or last.failure is FailureClass.INFRASTRUCTURE else last

    # ----------------------------------------------------------------------------------------------- its end

    def _failed(self, obj: JsonDict, found: Found, primary: Sequence[JsonDict], whole: Sequence[JsonDict]) -> Look:
        cause, pod = self._cause(primary)
        if found.reason == "DeadlineExceeded" or "longer than specified deadline" in found.message:
            ended = Cause(failure=FailureClass.DEADLINE, reason="DeadlineExceeded", message=found.message)
            return self._ended(obj, ended, pod=pod)
        if self._crashed is not None and (cause is None or cause.reason == causes.POD_DELETED):
            pod, cause = self._crashed  # its job gave it up, and has deleted the pod
        if cause is None and (code := beside.failed(whole, self._rules.collector)) is not None:
            well, name = self._cause(primary, successful=True)
            if well is not None:
                return self._well_but(obj, well, name, f"ended with {code}")
        if cause is None or cause.failure is None:
            reason = found.reason or "Failed"
            ended = Cause(failure=FailureClass.PROGRAM, reason=reason, message=found.message)
            return self._ended(obj, ended, unsure=True)
        if found.reason == "PodFailurePolicy":
            cause = dataclasses.replace(cause, message=f"{found.message}\n{cause.message}".strip())
        return self._ended(obj, cause, pod=pod)

    def _ended(self, obj: JsonDict, cause: Cause, *, pod: str = "", unsure: bool = False) -> Look:
        status = obj.get("status") or {}
        started = cause.started or self.started or causes.time_of(status.get("startTime"))
        ended = cause.ended or causes.time_of(status.get("completionTime"))
        return Look(
            end=self.end(dataclasses.replace(cause, started=started, ended=ended)),
            printed=cause.printed,
            pod=pod,
            unsure=unsure,
        )

    def end(self, cause: Cause) -> AttemptEnd:
        """A cause as an attempt's end. Of configuration errors the names are left out, so that equal ones are equal."""
        state = AttemptState.SUCCEEDED if cause.failure is None else AttemptState.FAILED
        reason, message = cause.reason, cause.message
        if cause.failure is FailureClass.CONFIGURATION:
            reason, message = without_name(reason, self._name), without_name(message, self._name)
        return AttemptEnd(
            state=state,
            reason=reason,
            message="" if cause.failure is None else message,
            failure=cause.failure,
            exit_code=None if cause.signal is not None else cause.exit_code,
            signal=cause.signal,
            started=cause.started or self.started,
            ended=cause.ended or datetime.now(UTC),
        )

    def _cause(self, primary: Sequence[JsonDict], *, successful: bool = False) -> tuple[Cause | None, str]:
        """Of the pod that ended last, those that train before others."""
        train = {str(pod["metadata"].get("name")) for pod in primary}
        wanted = [
            (name in train, order, name, cause)
            for name, (order, cause) in self._known.items()
            if (cause.failure is None) == successful
        ]
        if not wanted:
            return None, ""
        guilty = [entry for entry in wanted if not causes.taken_along(entry[3], (other[3] for other in wanted))]
        wanted = guilty or wanted
        _, _, name, cause = max(wanted, key=lambda entry: (entry[0], entry[3].ended or _LONG_AGO, entry[1]))
        return cause, name

    # ---------------------------------------------------------------------------- a collector of the user's own

    def _collecting(self, obj: JsonDict, whole: Sequence[JsonDict], now: float) -> Look | None:
        """The training has ended, and its object waits for a collector, which need not ever end."""
        collector = self._rules.collector
        there = [pod for pod in whole if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        if not beside.outlives(there, self._rules.container, collector):
            self._forget("collector")
            code = None if there else beside.failed(whole, collector)
            well, pod = self._cause(whole, successful=True)
            # By itself its Job would have all of it run again.
            return None if code is None or well is None else self._well_but(obj, well, pod, f"ended with {code}")
        text = beside.why(there, collector)
        left = self._left("collector", now, self._limits.collector_s)
        if left > 0:
            return Look(
                shown(f"Ended, its collector {collector} has not" + (f": {text}" if text else "")), again_s=left
            )
        known = [(str(pod["metadata"].get("name")), self._cause_of(pod)) for pod in there]
        ends = [(name, cause) for name, cause in known if cause is not None]
        name, cause = next((end for end in ends if end[1].failure is not None), ends[0])
        how = f"never started: {text}" if text else f"went on for {self._limits.collector_s:g} s, and was ended"
        return self._well_but(obj, cause, name, how)

    def _cause_of(self, pod: JsonDict) -> Cause | None:
        (pod,) = self._ours([pod])
        return causes.cause_of(pod, self._rules.container, self._rules.memory)

    def _well_but(self, obj: JsonDict, cause: Cause, pod: str, how: str) -> Look:
        look = self._ended(obj, cause, pod=pod)
        assert look.end is not None
        said = f"the collector's container {self._rules.collector} {how}"
        return dataclasses.replace(look, end=dataclasses.replace(look.end, warnings=(*look.end.warnings, said)))

    def _ours(self, pods: Iterable[JsonDict]) -> list[JsonDict]:
        collector = self._rules.collector
        return [beside.without(pod, collector) for pod in pods] if collector else list(pods)

    # --------------------------------------------------------------------------------------------- going on

    def _going_on(
        self, obj: JsonDict, pods: Sequence[JsonDict], primary: Sequence[JsonDict], now: float, events: list[JsonDict]
    ) -> Look:
        if (look := self._looping(obj, pods) or self._replaced(obj)) is not None:
            return look
        if any(causes.runs(pod, self._rules.container) for pod in primary) and not any(
            causes.crashes(pod, self._rules.container) for pod in primary
        ):
            self._forget("image", "configuration", "pending")
            return self._lost(obj, pods, now) or Look()
        if (look := self._lost(obj, pods, now)) is not None:
            return look
        if suspended(obj):
            self._forget("image", "configuration", "pending")
            return Look("Suspended: " + (_condition_text(obj, "Suspended") or "its object is suspended"))
        if not pods:
            return self._without_pods(obj, events, now)
        # Any pod that cannot start holds up the others: those of other roles as well.
        held = [(pod, waits) for pod in (*primary, *pods) if (waits := causes.waiting(pod, self._rules.container))]
        for pod, waits in held:
            return self._held(obj, str(pod["metadata"].get("name")), waits, now)
        self._forget("image", "configuration")
        for pod in (*primary, *pods):
            if (text := causes.unscheduled(pod)) is not None:
                if text.startswith("SchedulingGated"):
                    self._since.pop("pending", None)
                    return Look(shown(f"Pending: {text}"))
                return self._pending(obj, text, now)
        told = newest(events, pods, ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"))
        return self._pending(obj, told or "its containers are being made", now)

    def _looping(self, obj: JsonDict, pods: Sequence[JsonDict]) -> Look | None:
        limit = self._limits.restarts if self._rules.restarts is None else self._rules.restarts
        for pod in pods:
            count, cause = causes.restarted(pod, self._rules.container)
            if count > limit and cause is not None and cause.failure is not None:
                message = f"{cause.message}\nrestarted {count} times in place".strip()
                ended = dataclasses.replace(cause, message=message)
                return self._ended(obj, ended, pod=str(pod["metadata"].get("name")))
        return None

    def _replaced(self, obj: JsonDict) -> Look | None:
        """A job that does not count disruptions makes new pods for ever, also where the trial itself is the cause."""
        for name, (_, cause) in self._known.items():
            if cause.reason == "Evicted" and cause.failure is FailureClass.PROGRAM:
                return self._ended(obj, cause, pod=name)
        disrupted = [cause for _, cause in self._known.values() if cause.failure is FailureClass.INFRASTRUCTURE]
        if len(disrupted) <= self._limits.disruptions:
            return None
        last = disrupted[-1]
        message = f"{len(disrupted)} of its pods were taken away, the last one: {last.message}"
        return self._ended(obj, dataclasses.replace(last, message=message))

    def _lost(self, obj: JsonDict, pods: Sequence[JsonDict], now: float) -> Look | None:
        """A node that is gone takes its pods along only when somebody removes it: they stay Terminating."""
        for pod in pods:
            lost = causes.disruption(pod)
            gone = lost is not None and lost[0] in ("DeletionByTaintManager", "DeletionByPodGC")
            if not gone and (pod.get("status") or {}).get("reason") not in ("NodeLost", "NodeUnreachable"):
                continue
            left = self._left("node", now, self._limits.node_lost_s)
            if left > 0:
                return Look("Running: its node does not answer", again_s=left)
            where = (pod.get("spec") or {}).get("nodeName") or "of the pod"
            message = f"the node {where} is lost" + (f": {lost[1]}" if lost else "")
            return self._ended(obj, Cause(failure=FailureClass.INFRASTRUCTURE, reason=NODE_LOST, message=message))
        self._since.pop("node", None)
        return None

    def _held(self, obj: JsonDict, pod: str, waits: Waiting, now: float) -> Look:
        reason, message = waits.reason, waits.message
        if reason in causes.NEVER_PULLED:
            return self._configuration(obj, reason, message)
        if reason in causes.PULLING:
            return self._pulling(obj, waits, now)
        self._forget("image")
        if reason == "CrashLoopBackOff":  # `_looping` says when it is enough
            last = waits.last.reason if waits.last is not None else ""
            return Look(shown(f"Waiting: {reason} {last} (restarted {waits.restarts} times)"))
        if reason in causes.CONFIGURED:
            if any(word in message.lower() for word in causes.BAD_COMMAND):
                return self._configuration(obj, reason, message)
            left = self._left("configuration", now, self._limits.configuration_s)
            if left <= 0:
                return self._configuration(obj, reason, message)
            return Look(shown(f"Pending: {reason} {message}"), again_s=left)
        return self._pending(obj, f"{reason} {message}", now)

    def _pulling(self, obj: JsonDict, waits: Waiting, now: float) -> Look:
        if waits.reason == "ErrImagePull" or not self._pull:
            self._pull = waits.message or self._pull
        if self._pulled_before != waits.reason:  # the back-off after an error, or the error of another try
            self._pulls += 1
            self._pulled_before = waits.reason
        text = self._pull or waits.reason
        never = any(word in text.lower() for word in causes.NO_SUCH_IMAGE)
        # Between two looks the first error may have passed: a back-off that tells it is the second sign as well.
        if never and (self._pulls >= 2 or waits.reason == "ImagePullBackOff"):
            return self._configuration(obj, "ErrImagePull", text)
        left = self._left("image", now, self._limits.image_pull_s)
        if left <= 0:
            if never:
                return self._configuration(obj, "ErrImagePull", text)
            late = f"not pulled within {self._limits.image_pull_s:g} s: {text}"
            return self._ended(obj, Cause(failure=FailureClass.INFRASTRUCTURE, reason="ImagePull", message=late))
        return Look(shown(f"Pending: {waits.reason} {text}"), again_s=left)

    def _without_pods(self, obj: JsonDict, events: list[JsonDict], now: float) -> Look:
        text = newest(events, (), ("FailedCreate",))
        if text and "exceeded quota" not in text and ("forbidden" in text or "denied" in text or "violates" in text):
            return self._configuration(obj, "FailedCreate", text)
        return self._pending(obj, text or "it has no pod yet", now)

    def _pending(self, obj: JsonDict, text: str, now: float) -> Look:
        left = self._left("pending", now, self._limits.pending_s)
        if left <= 0:
            late = f"not started within {self._limits.pending_s / 60:g} minutes: {text}"
            return self._configuration(obj, "Pending", late)
        return Look(shown(f"Pending: {text}"), again_s=left)

    def _configuration(self, obj: JsonDict, reason: str, message: str) -> Look:
        return self._ended(obj, Cause(failure=FailureClass.CONFIGURATION, reason=reason, message=message or reason))

    def _left(self, what: str, now: float, limit: float) -> float:
        """Seconds until `what` has lasted too long, since it was first seen."""
        return limit - (now - self._since.setdefault(what, now))

    def _forget(self, *what: str) -> None:
        for name in what:
            self._since.pop(name, None)

    def _primary(self, pods: Sequence[JsonDict]) -> list[JsonDict]:
        return primary_pods(pods, self._rules.labels)


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def primary_pods(pods: Sequence[JsonDict], labels: Mapping[str, str]) -> list[JsonDict]:
    """Those that train: by the labels; by none, or where no pod has them, all."""
    chosen = [pod for pod in pods if labels.items() <= (pod["metadata"].get("labels") or {}).items()]
    return chosen or list(pods)


def _timed(obj: JsonDict) -> bool:
    """Whether it says itself from when to when it ran: of a success, nothing else is asked of its pods."""
    status = obj.get("status") or {}
    return all(causes.time_of(status.get(name)) is not None for name in ("startTime", "completionTime"))


def suspended(obj: JsonDict) -> bool:
    return any(
        condition.get("type") == "Suspended" and condition.get("status") == "True" for condition in _conditions(obj)
    )


def _conditions(obj: JsonDict) -> Collection[JsonDict]:
    return (obj.get("status") or {}).get("conditions") or ()


def _condition_text(obj: JsonDict, kind: str) -> str:
    for condition in _conditions(obj):
        if condition.get("type") == kind and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""
