"""Client and ExperimentHandle: start, watch and change experiments from Python. Used by the CLI as well.

Talks to Temporal through `evertune.contracts` and reads the database through `evertune.store`; it never imports
workflow code. It checks nothing of a manifest but that it is one: the `admit` activity checks the rest.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import Client as TemporalClient
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

import evertune.contracts as c
import evertune.errors as errors
from evertune.connection import connect_temporal, error_of, unavailable
from evertune.domain.records import ExperimentRecord
from evertune.settings import Settings
from evertune.store import Store, store_of

T = TypeVar("T")

ADMIT_TIMEOUT_S = 60.0
# A worker killed within a workflow task holds the experiment up for this long. Replaying 10,000 events takes 2.4 s, and
# a replay that did come too late is in the cache for the next try.
WORKFLOW_TASK_TIMEOUT = timedelta(seconds=5)
ADMIT_POLL_S, ADMIT_SLOWEST_POLL_S = 0.05, 1.0  # each question is a task for a worker that is busy admitting
ASKED_AT_ONCE = 16  # of such questions, by all that one client submits
UPDATE_TIMEOUT_S = 30.0
TRY_TIMEOUT_S = 10.0  # a server that lost a call between two runs of a workflow is asked again before that
REPARSE_TIMEOUT_S = 3600.0  # reading ten thousand logs of 1 MB takes minutes
RETRY_EVERY_S = 0.2


@dataclass
class Client:
    """Holds one connection to Temporal and one to the database. Use `async with Client.connect(settings)`."""

    temporal: TemporalClient
    store: Store
    address: str
    _asking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ASKED_AT_ONCE), repr=False)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings | None = None, *, address: str | None = None) -> AsyncIterator[Client]:
        """Raises UnavailableError within seconds when Temporal cannot be reached."""
        settings = settings or Settings.load()
        target = address or settings.temporal_address or "127.0.0.1:7233"
        temporal = await connect_temporal(target, settings.temporal_namespace, tls=settings.temporal_tls)
        store = await asyncio.to_thread(store_of, settings)
        try:
            yield cls(temporal=temporal, store=store, address=target)
        finally:
            await asyncio.to_thread(store.close)

    async def submit(
        self, manifest: Mapping[str, Any], *, context: c.StartContext | None = None, timeout_s: float = ADMIT_TIMEOUT_S
    ) -> ExperimentHandle:
        """Start an experiment and wait until it is admitted.

        Raises SpecError with all problems, NameTakenError, UnavailableError when no worker answers in `timeout_s`.
        """
        metadata = manifest.get("metadata") if isinstance(manifest.get("metadata"), Mapping) else {}
        assert isinstance(metadata, Mapping)
        name, namespace = metadata.get("name"), metadata.get("namespace") or "default"
        if not isinstance(name, str) or not name:
            problem = errors.Problem(path="metadata.name", type="Required", message="an experiment needs a name")
            raise errors.SpecError.of([problem])
        await self._refuse_taken(str(namespace), name)
        workflow_id = c.workflow_id(str(namespace), name)
        here = (context or c.StartContext()).model_copy(update={"database_id": self.store.database_id})
        try:
            handle = await self.temporal.start_workflow(
                c.WORKFLOW_TYPE,
                dict(manifest),
                id=workflow_id,
                task_queue=c.QUEUE,
                task_timeout=WORKFLOW_TASK_TIMEOUT,
                memo={c.MEMO_CONTEXT: here.model_dump(mode="json")},
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=f"{namespace}/{name}",
            )
        except WorkflowAlreadyStartedError as error:
            raise errors.NameTakenError(
                f"experiment {name} is running already", hint=f"evertune watch {name}"
            ) from error
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:  # a name or a manifest beyond its limits
                raise errors.UsageError(f"Temporal does not take experiment {name[:60]}: {error}") from error
            raise unavailable(self.address, error) from error
        return await self._admitted(handle, workflow_id, timeout_s)

    async def _refuse_taken(self, namespace: str, name: str) -> None:
        """Say so before anything starts; `admit` decides for good."""
        try:
            record = await asyncio.to_thread(self.store.experiment, namespace, name)
        except errors.NotFoundError:
            return
        raise errors.NameTakenError(
            f"the name {name} is taken by an experiment that is {record.state}",
            hint=f"evertune delete {name}, or another name" if record.state.terminal else f"evertune watch {name}",
        )

    async def reopen(self, command: c.ReopenCommand, *, timeout_s: float = ADMIT_TIMEOUT_S) -> ExperimentHandle:
        """Go on after the end (extend, resume). Raises ConflictError when the experiment is still running."""
        record = await asyncio.to_thread(self.store.experiment_by_uid, command.uid)
        if not record.state.terminal:
            raise errors.ConflictError(
                f"experiment {record.name} is {record.state}; only a finished one can be reopened",
                hint=f"evertune edit {record.name} --max-trials N",
            )
        command = command.model_copy(update={"database_id": self.store.database_id})
        try:
            handle = await self.temporal.start_workflow(
                c.WORKFLOW_TYPE,
                {"reopen": command.model_dump(mode="json", exclude_none=True)},
                id=record.workflow_id,
                task_queue=c.QUEUE,
                task_timeout=WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=f"{record.namespace}/{record.name}, reopened",
            )
        except WorkflowAlreadyStartedError as error:
            raise errors.ConflictError(f"experiment {record.name} is running already") from error
        except RPCError as error:
            raise unavailable(self.address, error) from error
        return await self._admitted(handle, record.workflow_id, timeout_s)

    async def handle(self, namespace: str, name: str) -> ExperimentHandle:
        """Raises NotFoundError with a did-you-mean."""
        record = await asyncio.to_thread(self.store.experiment, namespace, name)
        return ExperimentHandle(client=self, uid=record.uid, workflow_id=record.workflow_id)

    async def delete(self, namespace: str, name: str) -> None:
        """Remove a finished experiment, its trials and points. Raises ConflictError while it runs."""
        record = await asyncio.to_thread(self.store.experiment, namespace, name)
        if not record.state.terminal:
            raise errors.ConflictError(
                f"experiment {name} is {record.state}", hint=f"evertune cancel {name} first, or delete --force"
            )
        await asyncio.to_thread(self.store.delete_experiment, record.uid)

    async def _admitted(self, handle: WorkflowHandle[Any, Any], workflow_id: str, timeout_s: float) -> ExperimentHandle:
        run = self.temporal.get_workflow_handle(workflow_id, run_id=handle.result_run_id)
        result = asyncio.ensure_future(self._until_closed(run))
        status = asyncio.ensure_future(self._until_status(run))
        try:
            await asyncio.wait([result, status], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if status.done() and not status.exception():
                return ExperimentHandle(client=self, uid=status.result().uid, workflow_id=workflow_id)
            if result.done():
                failure = result.exception()
                if isinstance(failure, WorkflowFailureError):
                    raise error_of(failure) from failure
                answer = result.result()
                return ExperimentHandle(client=self, uid=answer["uid"], workflow_id=workflow_id)
            why = await self._admission_trouble(run)
            raise errors.UnavailableError(
                f"the experiment was started, but no worker has read it within {timeout_s:.0f} s{why}",
                hint="evertune doctor; it will be read as soon as a worker can",
            )
        finally:
            for task in (result, status):
                task.cancel()
            await asyncio.gather(result, status, return_exceptions=True)

    @staticmethod
    async def _until_closed(run: WorkflowHandle[Any, Any]) -> Any:
        """The result, or WorkflowFailureError. A Temporal that is away for a while has not lost the experiment."""
        while True:
            try:
                return await run.result()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    raise errors.ConflictError("the workflow was deleted before it was admitted") from error
                await asyncio.sleep(RETRY_EVERY_S)

    async def _admission_trouble(self, run: WorkflowHandle[Any, Any]) -> str:
        """What the worker says that tries again and again: a full disk, a database that is away."""
        try:
            description = await run.describe()
        except RPCError as error:
            return f": {unavailable(self.address, error).message}"
        waiting = description.raw_description.pending_activities
        failures = [activity.last_failure.message for activity in waiting if activity.HasField("last_failure")]
        return f": {failures[0]}" if failures else ""

    async def _until_status(self, run: WorkflowHandle[Any, Any]) -> c.Status:
        pause = ADMIT_POLL_S
        while True:
            try:
                async with self._asking:
                    status: c.Status = await run.query(c.QUERY_STATUS, result_type=c.Status)
                return status
            except (WorkflowQueryFailedError, RPCError):
                await asyncio.sleep(pause)
                pause = min(ADMIT_SLOWEST_POLL_S, 1.5 * pause)


@dataclass
class ExperimentHandle:
    """One experiment. Verbs are Temporal updates: validated, audited, answered with the new status."""

    client: Client
    uid: str
    workflow_id: str

    def _workflow(self) -> WorkflowHandle[Any, Any]:
        return self.client.temporal.get_workflow_handle(self.workflow_id)  # no run id: follows continue-as-new

    async def record(self) -> ExperimentRecord:
        """The experiment as the database has it, finished or not."""
        return await asyncio.to_thread(self.client.store.experiment_by_uid, self.uid)

    async def status(self) -> c.Status:
        """The running workflow's own view. Raises ConflictError when it has ended: use `record`."""
        return await self._call(
            lambda rest: self._workflow().query(c.QUERY_STATUS, result_type=c.Status, rpc_timeout=rest)
        )

    async def result(self) -> ExperimentRecord:
        """Wait for the end and return the record; a failed experiment is a state, not an exception."""
        while True:
            try:
                await self._workflow().result()
            except WorkflowFailureError:
                pass
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise unavailable(self.client.address, error) from error
            record = await self.record()
            if record.state.terminal:
                return record
            await asyncio.sleep(RETRY_EVERY_S)  # terminated: the reconciler marks the row within a minute

    async def edit(self, request: c.EditRequest) -> c.Status:
        return await self._update(c.UPDATE_EDIT, request)

    async def pause(self, *, now: bool = False, actor: str = "") -> c.Status:
        """Start nothing new; with `now` stop running trials too, uncharged (resume re-runs them)."""
        return await self._update(c.UPDATE_PAUSE, c.PauseRequest(now=now, actor=actor))

    async def resume(self, *, actor: str = "") -> c.Status:
        return await self._update(c.UPDATE_RESUME, c.VerbRequest(actor=actor))

    async def stop(self, *, reason: str = "", actor: str = "") -> c.Status:
        """Let running trials finish, then end."""
        return await self._update(c.UPDATE_STOP, c.VerbRequest(reason=reason, actor=actor))

    async def cancel(self, *, reason: str = "", actor: str = "") -> c.Status:
        """Stop running trials now and end."""
        return await self._update(c.UPDATE_CANCEL, c.VerbRequest(reason=reason, actor=actor))

    async def stop_trial(self, number: int, *, reason: str = "stopped by a person", actor: str = "") -> c.Status:
        return await self._update(c.UPDATE_STOP_TRIAL, c.StopTrialUpdate(number=number, reason=reason, actor=actor))

    async def reparse(
        self, rereading: c.Rereading, *, actor: str = "", timeout_s: float = REPARSE_TIMEOUT_S
    ) -> c.Revised:
        """Read the kept logs of finished trials again, and judge them by what is found there.

        Returns when all are judged; asked again, it finds nothing more to change. Raises UsageError for a filter that
        cannot be used, ConflictError when the experiment has ended (its row is revised without a workflow, as `evertune
        metrics reparse` does), UnavailableError when no worker takes it within 30 s, or when it lasts longer than
        `timeout_s`, whereupon the experiment goes on with it.
        """
        request = c.ReparseUpdate(rereading=rereading, actor=actor)
        update_id = uuid.uuid4().hex
        taken = False

        async def ask(rest: timedelta) -> c.Revised:
            nonlocal taken
            first = min(rest, timedelta(seconds=UPDATE_TIMEOUT_S))
            update = await self._workflow().start_update(
                c.UPDATE_REPARSE,
                request,
                id=update_id,
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                result_type=c.Revised,
                rpc_timeout=first,
            )
            taken = True
            answer: c.Revised = await update.result(rpc_timeout=rest)
            return answer

        # The SDK asks again and again, for a worker and for the result: it has no deadline of its own.
        working = asyncio.ensure_future(self._call(ask, timeout_s))
        first_wait = min(timeout_s, UPDATE_TIMEOUT_S)
        try:
            await asyncio.wait([working], timeout=first_wait)
            if not taken and (not working.done() or isinstance(working.exception(), errors.UnavailableError)):
                raise errors.UnavailableError(f"no worker has taken it within {first_wait:g} s", hint="evertune doctor")
            await asyncio.wait([working], timeout=timeout_s - first_wait)
            if not working.done():
                raise errors.UnavailableError(
                    f"the logs are still being read after {timeout_s:g} s; that goes on", hint="ask again later"
                )
            return working.result()
        finally:
            working.cancel()

    async def _update(self, name: str, request: c.Payload) -> c.Status:
        # The same update id on every retry: a continue-as-new may abort an update that was not accepted yet.
        update_id = uuid.uuid4().hex
        return await self._call(
            lambda rest: self._workflow().execute_update(
                name, request, id=update_id, result_type=c.Status, rpc_timeout=rest
            )
        )

    async def _call(self, call: Callable[[timedelta], Awaitable[T]], timeout_s: float = UPDATE_TIMEOUT_S) -> T:
        """Retry what passes by itself (admission, continue-as-new, a lost call); translate what does not.

        `call` gets the time of one try: a server that cannot write, as on a full disk, lets every try wait.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_s
        while True:
            try:
                rest = max(give_up - loop.time(), RETRY_EVERY_S)
                return await call(timedelta(seconds=min(rest, max(TRY_TIMEOUT_S, timeout_s / 3))))
            except WorkflowUpdateFailedError as error:
                failure: errors.EvertuneError = error_of(error)
                if not (isinstance(error.cause, ApplicationError) and error.cause.type == "NotReady"):
                    raise failure from error
            except WorkflowQueryFailedError as error:
                failure = errors.UnavailableError(str(error))
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                if isinstance(error.__cause__, asyncio.CancelledError):
                    raise error.__cause__ from None  # somebody gave up waiting, as with Ctrl-C: no answer of a worker
                failure = errors.UnavailableError(
                    f"there was no answer within {timeout_s:.0f} s", hint="evertune doctor"
                )
            except RPCError as error:
                failure = await self._ended_or_unavailable(error)
                if isinstance(failure, errors.ConflictError):
                    raise failure from error
            if loop.time() > give_up:
                raise failure
            await asyncio.sleep(RETRY_EVERY_S)

    async def _ended_or_unavailable(self, error: RPCError) -> errors.EvertuneError:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return unavailable(self.client.address, error)
        try:
            description = await self._workflow().describe()
            if description.status is WorkflowExecutionStatus.RUNNING:
                return errors.UnavailableError("the experiment is moving to a new run")
        except RPCError:
            pass
        record = await self.record()
        if not record.state.terminal:
            return errors.ConflictError(
                f"the workflow of {record.name} was closed behind its back; a worker ends it within a minute",
                hint=f"evertune watch {record.name}",
            )
        return errors.ConflictError(
            f"experiment {record.name} has ended: {record.state}", hint=f"evertune extend {record.name} +12"
        )
