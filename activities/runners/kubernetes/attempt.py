"""One attempt in a cluster, as this worker follows it: from its object and pods to its end in the ledger.

Made and kept by `runner`. The end is in the ledger before anybody hears of it, and before what still runs of the
attempt is taken away; killed at any point, another worker reads the same ledger and the same object, and goes on.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from activities.runners.kubernetes.api import ApiError
from activities.runners.kubernetes.belongings import Belongings
from activities.runners.kubernetes.causes import Cause
from activities.runners.kubernetes.classify import NODE_LOST, Case, Limits, Look, suspended
from activities.runners.kubernetes.cluster import Cluster
from activities.runners.kubernetes.creating import find, mine
from activities.runners.kubernetes.discovery import Resource
from activities.runners.kubernetes.events import Warnings
from activities.runners.kubernetes.place import Place
from activities.runners.kubernetes.reflector import Reflector
from activities.runners.kubernetes.riding import AWAY_S, TRY_S, away, ride, sentence
from activities.runners.local.outcome import signal_text
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import NotFoundError, UnavailableError
from evertune.protocols import JsonDict, Ledger, LedgerEntry

log = structlog.get_logger()

DELETED = "DeletedByAnother"
EVENTS_EVERY_S = 4.0
LOOK_EVERY_S = 60.0  # also when nothing happens: whether the API server is away for too long
LAST_LOG_S = 5.0  # of a stop, for the log of what is about to be deleted
PODS_GONE_S = 30.0  # beyond the grace period


@dataclass(frozen=True)
class World:
    """What all attempts of a runner share."""

    ledger: Ledger
    database_id: str
    warnings: Warnings = field(default_factory=Warnings)
    limits: Limits = field(default_factory=Limits)


class _Wake(asyncio.Event):
    """Takes note of a change at once: what a pod said before it vanished is gone when its reader wakes."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()
        self._note = note

    def set(self) -> None:
        self._note()
        super().set()


class Attempt:
    def __init__(
        self, ref: AttemptRef, place: Place, cluster: Cluster, resource: Resource, world: World, directory: Path
    ) -> None:
        self.ref = ref
        self.place = place
        self._own = Belongings(ref, place, cluster, world.database_id, directory)
        self._cluster = cluster
        self._resource = resource
        self._world = world
        self._case = Case(place.name, place.rules, world.limits)
        self._phase = ""
        self._trouble_since: datetime | None = None
        self._following: asyncio.Task[AttemptEnd] | None = None
        self._wake: asyncio.Event | None = None
        self._stop_by: float | None = None  # when to wait no longer for pods, once it is to stop
        self._deleted = False  # by us

    # ------------------------------------------------------------------------------------------- from outside

    @property
    def phase(self) -> str:
        if self._wake is None:  # not followed: its reflectors may be gone, and are not to be started for this
            return self._phase
        troubles = (self._objects.trouble, self._own.pods.trouble)
        trouble = next((error for error in troubles if away(error)), None)
        if trouble is None:
            self._trouble_since = None
            return self._phase
        self._trouble_since = self._trouble_since or datetime.now(UTC)
        return sentence(self._cluster.api, trouble, self._trouble_since)

    @phase.setter
    def phase(self, text: str) -> None:
        self._phase = text

    @property
    def logged(self) -> bool:
        """Whether this worker has its log."""
        return self._own.logged

    @property
    def over(self) -> bool:
        task = self._following
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    @property
    def silent(self) -> bool:
        """Whether it has ended without having run: nothing beside it has anything to say."""
        if not self.over or self._case.ran:
            return False
        assert self._following is not None
        return self._following.result().failure in (FailureClass.CONFIGURATION, FailureClass.STOPPED)

    def seed(self, obj: JsonDict) -> None:
        """What a create or get has answered."""
        self._objects.seed(obj)

    async def ended(self) -> AttemptEnd:
        """Its end. Any number may wait; cancelling one of them changes nothing."""
        return await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Task[AttemptEnd]:
        """Follow it in the background, also while nobody waits; again, when what went wrong may be over."""
        if self._following is None or (self._following.done() and not self.over):
            self._following = asyncio.create_task(self._follow(), name=f"attempt {self.place.name}")
            self._following.add_done_callback(_heard)
        return self._following

    async def stop(self, grace_s: float) -> None:
        """The reason is in the ledger: take the object away, and wait for the end."""
        self._stop_by = asyncio.get_running_loop().time() + grace_s + PODS_GONE_S
        if self._wake is not None:
            self._wake.set()
        await self.ended()

    async def fetch(self, *, patience_s: float = AWAY_S) -> None:
        """What the pod printed, into the attempt's log."""
        await self._own.fetch(patience_s=patience_s)

    async def release(self, *, even_retained: bool = False) -> None:
        """Delete the object; where it is retained, only what of it still runs."""
        await self._take_away(even_retained=even_retained)

    async def close(self) -> None:
        """Stop following; the attempt goes on."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._own.log.close()

    # --------------------------------------------------------------------------------------------- following

    @property
    def _objects(self) -> Reflector:
        return self._cluster.objects(self._resource, self.place.namespace)

    async def _follow(self) -> AttemptEnd:
        objects, pods = self._objects, self._own.pods
        self._wake = wake = _Wake(lambda: self._case.note(pods.of(self._own.topic)))
        with objects.waking(wake, self.place.key), pods.waking(wake, self._own.topic):
            for reflector in (objects, pods):
                await ride(self._cluster.api, self._say, lambda r=reflector: r.ready(TRY_S))  # type: ignore[misc]
            try:
                while (end := await self._consider(objects, pods, wake)) is None:
                    pass
                return end
            finally:
                await self._own.log.close()
                self._wake = None

    async def _consider(self, objects: Reflector, pods: Reflector, wake: asyncio.Event) -> AttemptEnd | None:
        """Look once, then wait for something to happen."""
        loop = asyncio.get_running_loop()
        wake.clear()
        events = await self._world.warnings.of(self._cluster.api, self.place.namespace) if self._phase else ()
        obj = self._mine(objects.get(self.place.key)) or await self._asked_for(objects)
        if obj is None:
            return await self._gone(pods, wake)
        own = pods.of(self._own.topic)
        events = [event for event in events if self._concerns(event)]
        look = self._case.look(obj, own, loop.time(), events=events)
        if look.end is not None and not self._case.ended(obj):  # by our own judgement, and the copy may be behind
            if (obj := await self._asked_for(objects)) is None:
                return await self._gone(pods, wake)
            own = await self._own.listed(patience_s=AWAY_S)
            look = self._case.look(obj, own, loop.time(), events=events)
        if self._stop_by is not None and not (look.end and look.end.state is AttemptState.SUCCEEDED):
            return await self._stopping(obj, own, wake)
        if look.end is not None:
            if look.end.state is AttemptState.SUCCEEDED:
                self._own.succeeded = next((pod for pod in own if pod["metadata"]["name"] == look.pod), None)
            return await self._end(look, obj)
        if not self._phase and look.phase:
            wake.set()  # once more, with what the events say
        self._phase = look.phase
        if self.place.reads_log and (pod := self._own.trained(own)) is not None and self._case.started is not None:
            self._own.log.follow(pod)
        left = [LOOK_EVERY_S, look.again_s, EVENTS_EVERY_S if look.phase else None, self._deadline_left()]
        if left[-1] is not None and left[-1] <= 0:
            return await self._overdue()
        await self._pause(wake, min(seconds for seconds in left if seconds is not None))
        self._give_up()
        return None

    def _mine(self, obj: JsonDict | None) -> JsonDict | None:
        return obj if obj is not None and mine(obj, self.ref, self._world.database_id) else None

    async def _asked_for(self, objects: Reflector) -> JsonDict | None:
        """Its object, as the API server itself has it."""
        api, key = self._cluster.api, self.place.key
        return self._mine(await ride(api, self._say, lambda: objects.confirm(key, patience_s=TRY_S)))

    async def _pause(self, wake: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), max(0.0, seconds))

    def _say(self, text: str) -> None:
        self._phase = text

    def _give_up(self) -> None:
        """A watch that is away for so long: Temporal is told, and asks again."""
        text, since = self.phase, self._trouble_since
        if since is not None and (datetime.now(UTC) - since).total_seconds() > AWAY_S:
            raise UnavailableError(text)

    def _concerns(self, event: JsonDict) -> bool:
        name = str((event.get("involvedObject") or {}).get("name") or "")
        return name == self.place.name or name.startswith(f"{self.place.name}-")

    # ---------------------------------------------------------------------------------------------- its ends

    async def _end(self, look: Look, obj: JsonDict) -> AttemptEnd:
        pods = None
        if look.unsure or look.printed or self.place.reads_log:
            pods = await self._own.listed(patience_s=AWAY_S)
        if look.unsure and pods is not None:
            look = self._case.look(obj, pods, asyncio.get_running_loop().time())
        assert look.end is not None
        end = look.end
        if self.place.reads_log:
            try:
                await self._own.log.complete(self._own.trained(pods or ()), patience_s=AWAY_S)
            except ApiError as error:
                if away(error):
                    raise UnavailableError(str(error)) from error
                end = dataclasses.replace(end, warnings=(f"its log cannot be read: {error}",))
        if look.printed:
            trained = self._own.trained(pods or ())
            own = trained is not None and trained["metadata"]["name"] == look.pod
            end = await self._own.with_lines(end, look.pod, own=own)
        recorded = await self._record(end)
        if not self._case.ended(obj):  # by our own judgement: it may still run
            with suppress(ApiError, UnavailableError):
                await self.fetch(patience_s=LAST_LOG_S)
                await self._take_away()
                if end.reason != NODE_LOST:  # nobody is there who could end its pods
                    await self._vanished()
        return recorded

    async def _vanished(self) -> None:
        """Wait until its pods are gone, for a while."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PODS_GONE_S
        while self._wake is not None and self._own.seen() and loop.time() < give_up:
            self._wake.clear()
            await self._pause(self._wake, min(1.0, give_up - loop.time()))

    async def _overdue(self) -> AttemptEnd:
        """Longer than the trial may run. Recorded first: whoever finds the object gone must not take it for lost."""
        cause = Cause(failure=FailureClass.DEADLINE, reason=f"ran longer than {self.place.deadline_s:g} s")
        with suppress(ApiError, UnavailableError):
            await self.fetch(patience_s=LAST_LOG_S)
        recorded = await self._record(self._case.end(cause))
        with suppress(ApiError, UnavailableError):
            await self._take_away()
            await self._vanished()
        return recorded

    def _deadline_left(self) -> float | None:
        if self.place.deadline_s is None or self._case.started is None:
            return None
        return self.place.deadline_s - (datetime.now(UTC) - self._case.started).total_seconds()

    async def _stopping(self, obj: JsonDict, own: Sequence[JsonDict], wake: asyncio.Event) -> AttemptEnd | None:
        loop = asyncio.get_running_loop()
        assert self._stop_by is not None
        if not self._deleted:
            with suppress(UnavailableError, TimeoutError):
                await asyncio.wait_for(self.fetch(patience_s=0.0), LAST_LOG_S)
            await ride(self._cluster.api, self._say, self._take_away)
            self._deleted = True
            return None
        stays = self.place.retain and self.place.suspension is not None
        if (stays and suspended(obj) and not own) or loop.time() >= self._stop_by:
            return await self._killed()
        await self._pause(wake, min(1.0, self._stop_by - loop.time()))
        return None

    async def _gone(self, pods: Reflector, wake: asyncio.Event) -> AttemptEnd | None:
        """There is no object of this attempt: by us, by somebody else, or by its own time to live."""
        loop = asyncio.get_running_loop()
        entry = await self._look()
        if entry.end is not None:
            return entry.end
        if entry.stop is not None:
            self._stop_by = self._stop_by or loop.time() + PODS_GONE_S
            if pods.of(self._own.topic) and loop.time() < self._stop_by:
                await self._pause(wake, self._stop_by - loop.time())
                return None
            return await self._killed()
        known = self._case.known()
        if known is not None:
            return await self._record(self._case.end(known))
        return await self._record(await self._deleted_by_another())

    async def _deleted_by_another(self) -> AttemptEnd:
        """Forgiven once: whoever deletes it again means it."""
        again = False
        if self.ref.attempt:
            before = dataclasses.replace(self.ref, attempt=self.ref.attempt - 1)
            earlier = (await asyncio.to_thread(self._world.ledger.look, before)).end
            again = earlier is not None and earlier.reason == DELETED
        return AttemptEnd(
            state=AttemptState.FAILED if again else AttemptState.LOST,
            reason=DELETED,
            message=f"its {self.place.kind} was deleted by another, not by evertune" + (", twice" if again else ""),
            failure=FailureClass.CONFIGURATION if again else FailureClass.INFRASTRUCTURE,
            started=self._case.started,
            ended=datetime.now(UTC),
        )

    async def _killed(self) -> AttemptEnd:
        entry = await self._look()
        cause = self._case.last()
        number = None if cause is None else cause.signal
        return await self._record(
            AttemptEnd(
                state=AttemptState.KILLED,
                reason=entry.stop or "stopped",
                message="" if number is None else signal_text(number),
                failure=FailureClass.STOPPED,
                signal=number,
                started=self._case.started,
                ended=datetime.now(UTC),
            )
        )

    async def _record(self, end: AttemptEnd) -> AttemptEnd:
        try:
            entry = await asyncio.to_thread(self._world.ledger.end, self.ref, end)
        except NotFoundError:  # its experiment was deleted meanwhile
            return end
        self._phase = ""
        return entry.end or end

    async def _look(self) -> LedgerEntry:
        return await asyncio.to_thread(self._world.ledger.look, self.ref)

    async def _take_away(self, *, even_retained: bool = False) -> None:
        """Delete the object, or where it is to stay have it end its pods. Raises ApiError."""
        api, place = self._cluster.api, self.place
        obj = self._mine(self._objects.get(place.key) or await find(api, self._resource, *place.key, say=self._say))
        if obj is None:
            return
        if place.retain and not even_retained and (place.suspension is not None or self._case.ended(obj)):
            if not self._case.ended(obj):
                path = self._resource.path(*place.key)
                kind = "application/merge-patch+json"
                await api.call("PATCH", path, body=place.suspension, content_type=kind, patience_s=TRY_S)
            return
        await delete(self._cluster, self._resource, obj)


def _heard(task: asyncio.Task[AttemptEnd]) -> None:
    """Whoever waits is told; while nobody does, the next one who waits has it tried again."""
    if not task.cancelled():
        task.exception()


async def delete(cluster: Cluster, resource: Resource, obj: JsonDict) -> None:
    """This very object and what belongs to it, in the background. That it is gone, or another one, is no error."""
    meta = obj["metadata"]
    body = {"propagationPolicy": "Background", "preconditions": {"uid": meta["uid"]}}
    try:
        path = resource.path(meta.get("namespace"), meta["name"])
        await cluster.api.call("DELETE", path, body=body, patience_s=TRY_S)
    except ApiError as error:
        if error.status not in (404, 409):
            raise
