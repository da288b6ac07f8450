"""Makes experiments follow their objects: start once, edit, mirror, cancel. Knows Temporal and the database, not kopf.

`handlers` calls `observe` every few seconds and `release` when the object is to go. Both look at what there is and do
what is missing, so it does not matter what was done before a restart, or how often. An experiment belongs to the object
whose uid it was started with; no second one is ever started for the same uid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

import evertune.contracts as c
from evertune.client import Client, ExperimentHandle
from evertune.connection import unavailable
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState
from evertune.errors import EvertuneError, NameTakenError, NotFoundError, SpecError
from evertune.kubectl import status as st
from evertune.kubectl.objects import Object, change_of
from evertune.settings import Settings

ACTOR = "kubectl"
ADMIT_S = 10.0
STARTS_AT_ONCE = 8  # each asks its workflow twenty times a second whether it was admitted
CANCEL_S = 5.0
RUNNING_EVERY_S = 1.5  # handlers look every two seconds
RETRY_EVERY_S = 5.0
TAKEN_EVERY_S = 30.0
ENDED_EVERY_S = 60.0  # it may go on: evertune extend
NEVER_S = float("inf")  # until the spec changes


@dataclass(frozen=True)
class Event:
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """A merge patch of the status, empty when nothing is new, and what is worth an Event."""

    status: st.JsonDict = field(default_factory=dict)
    events: Sequence[Event] = ()


NOTHING = Outcome()


@dataclass
class Memory:
    """Of one object, in this process: nothing that would be missed."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    generation: int = -1
    next_look: float = 0.0
    released: bool = False

    def due(self, generation: int) -> bool:
        return not self.released and (generation != self.generation or time.monotonic() >= self.next_look)

    def again(self, generation: int, after_s: float) -> None:
        self.generation, self.next_look = generation, time.monotonic() + after_s


@dataclass
class Controller:
    """Connects when something is to be done, so that it starts while Temporal or the database is away."""

    settings: Settings
    _client: Client | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTS_AT_ONCE))

    async def client(self) -> Client:
        """Raises UnavailableError within seconds."""
        async with self._connecting:
            if self._client is None:
                self._client = await self._stack.enter_async_context(Client.connect(self.settings))
            return self._client

    async def close(self) -> None:
        await self._stack.aclose()
        self._client = None

    # ------------------------------------------------------------------------------------------------ observe

    async def observe(self, seen: Object, memory: Memory) -> Outcome:
        """Bring the experiment to what the object says and the object to how the experiment stands."""
        if not seen.guarded or not memory.due(seen.generation):
            return NOTHING
        async with memory.lock:
            if memory.released:
                return NOTHING
            try:
                return await self._observe(await self.client(), seen, memory)
            except EvertuneError as error:
                if not error.retryable:
                    raise
                memory.again(seen.generation, RETRY_EVERY_S)
                kind = st.SYNCED if seen.status.get("experimentUid") else st.ACCEPTED
                return told(seen, [st.Condition(kind, "Unknown", "Unavailable", sentence(error))])

    async def _observe(self, client: Client, seen: Object, memory: Memory) -> Outcome:
        record, owner = await self._look(client, seen)
        if record is None and seen.status.get("experimentUid"):
            memory.again(seen.generation, NEVER_S)
            message = (
                "the database has the experiment no longer, as after evertune delete; it is not started again: "
                "delete this object as well"
            )
            return told(seen, [st.Condition(st.SYNCED, "False", "ExperimentDeleted", message)], state="Deleted")
        if record is None and owner is None:
            if _refused(seen):
                memory.again(seen.generation, NEVER_S)
                return NOTHING
            if seen.status.get("completionTime"):  # Katib's, from before it was adopted
                memory.again(seen.generation, NEVER_S)
                message = "it has ended under another controller, as its status says; make a new object to run it again"
                return told(seen, [st.refused("EndedElsewhere", message)])
            async with self._starts:
                if memory.released:
                    return NOTHING
                condition = await self._submit(client, seen)
            record, owner = await self._look(client, seen)
            if record is None and owner is None:
                memory.again(seen.generation, NEVER_S if condition.status == "False" else RETRY_EVERY_S)
                return told(seen, [condition], state="Refused" if condition.status == "False" else "Waiting")
        if record is not None:
            return await self._follow(client, record, seen, memory)
        assert owner is not None
        memory.again(seen.generation, TAKEN_EVERY_S)
        return told(seen, [st.refused("NameTaken", taken(owner))], state="Refused")

    async def _look(self, client: Client, seen: Object) -> tuple[ExperimentRecord | None, ExperimentRecord | None]:
        """The object's own experiment; else whose the name is."""
        try:
            record = await asyncio.to_thread(client.store.experiment, seen.namespace, seen.name)
        except NotFoundError:
            return None, None
        return (record, record) if origin_of(record.context).get("object") == seen.uid else (None, record)

    async def _submit(self, client: Client, seen: Object) -> st.Condition:
        context = c.StartContext(backend=self.settings.backend, actor=ACTOR, origin=seen.origin)
        try:
            await client.submit(seen.manifest, context=context, timeout_s=ADMIT_S)
        except SpecError as error:
            return st.invalid(error.problems)
        except NameTakenError:  # by another experiment, as the next look shows, or by what we started before
            return st.waiting("Starting", "its workflow has started, and waits for a worker to read it")
        except EvertuneError as error:
            if error.retryable:
                raise
            return st.refused(type(error).__name__.removesuffix("Error"), sentence(error))
        return st.accepted()

    async def _follow(self, client: Client, record: ExperimentRecord, seen: Object, memory: Memory) -> Outcome:
        news: st.JsonDict = {}
        applied = seen.status.get("appliedBudget")
        if applied is None:
            applied = news["appliedBudget"] = origin_of(record.context).get("budget") or {}
        synced = _standing(seen, st.SYNCED)
        if synced is None or synced.get("observedGeneration") != seen.generation or synced.get("status") == "Unknown":
            condition = await self._sync(client, record, seen, applied)
            if condition.reason == "Edited":
                news["appliedBudget"] = seen.budget
                record = await asyncio.to_thread(client.store.experiment_by_uid, record.uid)
        else:
            condition = st.Condition(st.SYNCED, synced["status"], synced["reason"], synced.get("message", ""))
        memory.again(seen.generation, ENDED_EVERY_S if record.state.terminal else RUNNING_EVERY_S)
        conditions = [st.admitted(record), condition, *st.state_conditions(record)]
        return told(seen, conditions, **news, **st.of_record(record))

    async def _sync(
        self, client: Client, record: ExperimentRecord, seen: Object, applied: Mapping[str, Any]
    ) -> st.Condition:
        """Send what changed as an edit. All or nothing: a spec that cannot be followed wholly is not followed."""
        change = change_of(seen, origin_of(record.context).get("fixed") or {}, applied)
        if change.refused:
            message = (
                f"{', '.join(change.refused)} cannot change once the experiment has begun; parallelTrialCount, "
                "maxTrialCount, maxFailedTrialCount and objective.goal can. It goes on as it was before this change: "
                "put the old values back, or make another experiment"
            )
            return st.Condition(st.SYNCED, "False", "ChangeRefused", message)
        if not change.budget:
            return st.Condition(st.SYNCED, "True", "Current")
        if record.state.terminal:
            message = f"the experiment has ended: {record.state}; evertune extend {record.name} +12 lets it go on"
            return st.Condition(st.SYNCED, "False", "EditRefused", message)
        try:
            request = edit_of(change.budget)
            await ExperimentHandle(client=client, uid=record.uid, workflow_id=record.workflow_id).edit(request)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            return st.Condition(st.SYNCED, "False", "EditRefused", problems)
        except EvertuneError as error:
            if error.retryable:
                raise
            return st.Condition(st.SYNCED, "False", "EditRefused", sentence(error))
        return st.Condition(
            st.SYNCED, "True", "Edited", ", ".join(f"{name} is {value}" for name, value in change.budget.items())
        )

    # ------------------------------------------------------------------------------------------------ release

    async def release(self, seen: Object, memory: Memory) -> str | None:
        """Cancel the object's experiment. None: it has ended, or never was; else what is still waited for.

        Raises UnavailableError when Temporal or the database cannot be reached.
        """
        memory.released = True  # whatever is being started for it is waited for, and nothing is started after that
        async with memory.lock:
            client = await self.client()
            record, _ = await self._look(client, seen)
            if record is not None:
                return None if record.state.terminal else await self._cancel(client, record)
            return await self._cancel_unread(client, seen)

    async def _cancel(self, client: Client, record: ExperimentRecord) -> str | None:
        handle = ExperimentHandle(client=client, uid=record.uid, workflow_id=record.workflow_id)
        try:
            async with asyncio.timeout(CANCEL_S):
                await handle.cancel(reason="its Kubernetes object was deleted", actor=ACTOR)
        except (EvertuneError, TimeoutError):  # no worker, or it is ending already: Temporal keeps the wish
            await self._request_cancel(client, record.workflow_id)
        record = await asyncio.to_thread(client.store.experiment_by_uid, record.uid)
        return None if record.state.terminal else f"the experiment is {record.state} and is being cancelled"

    async def _cancel_unread(self, client: Client, seen: Object) -> str | None:
        """The workflow that no worker has read yet, when it was started for this very object."""
        workflow_id = c.workflow_id(seen.namespace, seen.name)
        try:
            description = await client.temporal.get_workflow_handle(workflow_id).describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return None
            memo = await description.memo_value(c.MEMO_CONTEXT, {})
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise unavailable(client.address, error) from error
        if origin_of(memo).get("object") != seen.uid:
            return None
        await self._request_cancel(client, workflow_id)
        return "its workflow was asked to end before any worker has read it"

    @staticmethod
    async def _request_cancel(client: Client, workflow_id: str) -> None:
        try:
            await client.temporal.get_workflow_handle(workflow_id).cancel()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise unavailable(client.address, error) from error


# ------------------------------------------------------------------------------------------------------- parts


def told(seen: Object, conditions: Sequence[st.Condition], **news: Any) -> Outcome:
    """The patch for these conditions and news, and Events for the conditions that are new."""
    first = conditions[0]
    if "state" in news and "reason" not in news:
        news |= {"reason": first.reason, "message": first.message[: st.REASON_CHARACTERS]}
    news["observedGeneration"] = seen.generation
    patch = st.patch(seen.status, news, conditions, seen.generation)
    return Outcome(patch, [event for condition in conditions if (event := _event(seen, condition))])


def _event(seen: Object, condition: st.Condition) -> Event | None:
    old = _standing(seen, condition.type) or {}
    if (old.get("status"), old.get("reason"), old.get("message")) == (
        condition.status,
        condition.reason,
        condition.message[: st.MESSAGE_CHARACTERS],
    ):
        return None
    if condition.type in (st.ACCEPTED, st.SYNCED) and condition.status == "False":
        return Event("Warning", condition.reason, condition.message)
    if condition.status != "True" or condition.type == ExperimentState.RUNNING or condition.reason == "Current":
        return None
    return Event("Normal", condition.reason, condition.message or f"the experiment: {condition.type}")


def _standing(seen: Object, kind: str) -> Mapping[str, Any] | None:
    return next((one for one in seen.status.get("conditions") or () if one.get("type") == kind), None)


def _refused(seen: Object) -> bool:
    """Whether this very spec was refused already. A name that was taken may be free by now."""
    standing = _standing(seen, st.ACCEPTED) or {}
    return (
        standing.get("status") == "False"
        and standing.get("observedGeneration") == seen.generation
        and standing.get("reason") != "NameTaken"
    )


def origin_of(context: Mapping[str, Any]) -> Mapping[str, Any]:
    origin = context.get("origin")
    return origin if isinstance(origin, Mapping) else {}


def edit_of(budget: Mapping[str, Any]) -> c.EditRequest:
    """Raises pydantic's ValidationError for what is no budget."""
    return c.EditRequest(
        parallel=budget.get("parallelTrialCount"),
        max_trials=budget.get("maxTrialCount"),
        max_failed=budget.get("maxFailedTrialCount"),
        goal=budget.get("goal"),
        actor=ACTOR,
    )


def taken(owner: ExperimentRecord) -> str:
    mend = (
        f"evertune delete {owner.name} -n {owner.namespace} frees it"
        if owner.state.terminal
        else f"evertune cancel {owner.name} -n {owner.namespace} ends it"
    )
    return (
        f"the name {owner.name} belongs to another experiment, which is {owner.state} and was not made from this "
        f"object: {mend}; or take another name"
    )


def sentence(error: EvertuneError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
