"""The Experiment workflow: one per experiment, started by anybody with a manifest as input.

It decides what happens next and does nothing itself: `admit` reads the manifest, `suggest` asks the algorithm,
`run_trial` starts or attaches to a trial, `record` writes the experiment's own state. Every activity is idempotent,
so this workflow may be killed, reset or continued as new at any event without running a finished trial again.

It is a dynamic workflow because a typed `run` would hang for ever on no input, two arguments or a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

import evertune.contracts as c
from evertune.domain.states import ExperimentState
from workflows import calls, checks, page, policies
from workflows import state as rules
from workflows.inputs import admit_request, carried_state
from workflows.state import RunState
from workflows.trials import Trials

# An update without any input is what Temporal's own page and command line send for a verb that needs none.
NO_CHANGE, PAUSE, VERB = c.EditRequest(), c.PauseRequest(), c.VerbRequest()


@workflow.defn(dynamic=True)
class ExperimentWorkflow(Trials):
    def __init__(self) -> None:
        super().__init__()
        self._draining = False  # continue-as-new is near: no new updates
        self._milestone: tuple[object, ...] = ()
        self._recorded: ExperimentState | None = None
        self._signals = 0
        self._updates = 0

    # ------------------------------------------------------------------------------------------------ life

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> dict[str, Any]:
        if workflow.info().workflow_type != c.WORKFLOW_TYPE:
            raise ApplicationError(
                f"there is no workflow type {workflow.info().workflow_type!r} here; start {c.WORKFLOW_TYPE!r}",
                type="UsageError",
                non_retryable=True,
            )
        cancelled = False
        carried = carried_state(args)
        self._state = state = carried or RunState.of(await calls.admit(admit_request(args)))
        if carried:
            self._recorded = state.state
        state.runs += 1
        for entry in list(state.in_flight.values()):
            self._start(entry.number, attach=True)
            if entry.stop:  # decided by an earlier run, which may not have seen it done
                self._stop_aside(state, [entry.number], entry.stop)
        # A task of its own, so that Temporal's Cancel interrupts none of its activities: it is our `cancel`.
        life = asyncio.create_task(self._live(state))
        while not life.done():
            try:
                await workflow.wait_condition(life.done)
            except asyncio.CancelledError:
                state.cancel_reason = state.cancel_reason or "cancelled through Temporal"
                cancelled = self._wake = True
        verdict = life.result()
        if cancelled and verdict.state is ExperimentState.CANCELLED:
            raise asyncio.CancelledError
        if verdict.state is ExperimentState.FAILED:
            raise ApplicationError(verdict.message, type=verdict.reason, non_retryable=True)
        return state.status().model_dump(mode="json", exclude_none=True)

    async def _live(self, state: RunState) -> rules.Verdict:
        while True:
            self._wake = False
            if verdict := rules.decide(state, now=workflow.now().timestamp()):
                await self._finish(state, verdict)
                return verdict
            await self._publish(state, self._live_state(state))
            if self._should_continue_as_new():
                if self._asking is None:  # its answer is awaited outside: an ask may take minutes
                    await self._continue_as_new(state)
            elif self._asking is None and (k := rules.wanted(state)) > 0:
                self._asked = k
                self._asking = self._spawn(self._ask(state, k))
            if not self._wake:  # publishing awaited; an event may have come meanwhile
                await self._sleep_until_event(state)
            self._raise_defect()

    async def _sleep_until_event(self, state: RunState) -> None:
        deadline = state.limits.deadline
        timeout = None if deadline is None else timedelta(seconds=max(deadline - workflow.now().timestamp(), 0.001))
        try:
            await workflow.wait_condition(lambda: self._wake, timeout=timeout)
        except TimeoutError:
            return

    @staticmethod
    def _live_state(state: RunState) -> ExperimentState:
        if state.stop_reason:
            return ExperimentState.STOPPING
        return ExperimentState.PAUSED if state.paused else ExperimentState.RUNNING

    def _turn(self, state: RunState) -> None:
        """A verb changed what the experiment does: the row says so with the verb, before that is answered."""
        state.state = self._live_state(state)
        self._wake = True

    def _should_continue_as_new(self) -> bool:
        return (
            workflow.info().is_continue_as_new_suggested()
            or self._signals >= policies.MAX_SIGNALS_PER_RUN
            or self._updates >= policies.MAX_UPDATES_PER_RUN
        )

    async def _continue_as_new(self, state: RunState) -> None:
        """Running trials are not awaited: the next run issues `run_trial` again, which attaches."""
        self._draining = True
        await workflow.wait_condition(lambda: bool(state.cancel_reason) or self._quiet())
        if not state.cancel_reason:
            workflow.continue_as_new(args=[state])
        self._draining = False  # Temporal's Cancel came in between: the next run would not know of it

    async def _finish(self, state: RunState, verdict: rules.Verdict) -> None:
        self._closing = True
        drain = verdict.drain
        await self._publish(state, ExperimentState.STOPPING if state.in_flight or self._asking else state.state)
        if not drain:
            await self._stop_running(state, sorted(state.in_flight), verdict.reason)
        if self._asking is not None:
            await self._asking
        # Interleaving is wanted here: a person may still cancel a drain, and every trial reports its own end.
        while state.in_flight:
            self._raise_defect()
            self._wake = False
            if drain and state.cancel_reason:
                drain = False
                await self._stop_running(state, sorted(state.in_flight), "ExperimentCancelled")
            elif drain and self._should_continue_as_new():  # a drain may take days of signals; the verdict stays
                await self._continue_as_new(state)
            else:
                await workflow.wait_condition(lambda: self._wake)
        # The last word on the experiment's state comes after every other.
        await workflow.wait_condition(self._quiet)
        state.reason = verdict.reason
        await self._publish(state, verdict.state, message=verdict.message)
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def _publish(self, state: RunState, now: ExperimentState, *, message: str = "") -> None:
        state.state = now
        if now is not self._recorded:
            await self._record(state, reason=state.reason, message=message)
            self._recorded = now
        workflow.set_current_details(page.details(state))
        if state.search_attributes and (milestone := page.milestone(state)) != self._milestone:
            self._milestone = milestone
            workflow.upsert_search_attributes(page.search_attributes(state))

    # -------------------------------------------------------------------------------------------- messages

    def _guard(self) -> RunState:
        """Validators: an update is refused without a history event while nothing can be changed."""
        if self._draining:
            raise ApplicationError("the experiment is moving to a new run; try again", type="NotReady")
        state = self._must_state()
        if self._closing or state.cancel_reason:
            raise ApplicationError(f"experiment {state.name} is ending", type="ConflictError")
        return state

    @workflow.signal(dynamic=True)
    def on_signal(self, name: str, args: Sequence[RawValue]) -> None:
        """`observe`, decoded by hand: a signal that cannot be read is counted, never fatal."""
        self._signals += 1
        if self._should_continue_as_new():  # hours of signals may pass before a trial ends and wakes the run
            self._wake = True
        state = self._state
        if state is None:
            return
        try:
            if name != c.SIGNAL_OBSERVE:
                raise ValueError(name)
            signal = workflow.payload_converter().from_payload(args[0].payload, c.ObserveSignal)
        except Exception:  # whatever a stranger may send
            state.bad_signals += 1
            return
        for observation in signal.observations:
            if observation.late:
                self._revise_late(state, observation.number)
                continue
            rules.observe(state, observation)
            if observation.stop and rules.decide_stop(state, observation):
                self._stop_aside(state, [observation.number], state.in_flight[observation.number].stop)

    @workflow.query(name=c.QUERY_STATUS)
    def status(self) -> c.Status:
        return self._must_state().status()

    @workflow.query(name=c.QUERY_TRIAL)
    def trial(self, number: int) -> c.TrialStatus | None:
        state = self._must_state()
        return state.trial_status(number) if number in state.in_flight else None

    @workflow.update(name=c.UPDATE_EDIT)
    async def edit(self, request: c.EditRequest = NO_CHANGE) -> c.Status:
        state = self._must_state()
        self._updates += 1
        change = {
            field: value
            for field in ("parallel", "max_trials", "max_failed", "goal")
            if (value := getattr(request, field)) is not None
        }
        state.limits = state.limits.model_copy(update={**change, "revision": state.limits.revision})
        self._wake = True
        await self._record(state, actor=request.actor, action="edit", detail=change, limits=state.limits)
        return state.status()

    @edit.validator
    def _check_edit(self, request: c.EditRequest = NO_CHANGE) -> None:
        checks.edit(self._guard(), request, asked=self._asked)

    @workflow.update(name=c.UPDATE_PAUSE)
    async def pause(self, request: c.PauseRequest = PAUSE) -> c.Status:
        state = self._must_state()
        self._updates += 1
        state.paused = True
        self._turn(state)
        detail = {"now": request.now}
        await self._record(state, actor=request.actor, action="pause", detail=detail)
        if request.now:
            await self._stop_running_for_pause(state)
        return state.status()

    @pause.validator
    def _check_pause(self, request: c.PauseRequest = PAUSE) -> None:
        checks.pause(self._guard(), request)

    @workflow.update(name=c.UPDATE_RESUME)
    async def resume(self, request: c.VerbRequest = VERB) -> c.Status:
        state = self._must_state()
        self._updates += 1
        state.paused = False
        state.stop_reason = ""
        self._turn(state)
        await self._record(state, actor=request.actor, action="resume")
        return state.status()

    @resume.validator
    def _check_resume(self, request: c.VerbRequest = VERB) -> None:
        checks.resume(self._guard())

    @workflow.update(name=c.UPDATE_STOP)
    async def stop(self, request: c.VerbRequest = VERB) -> c.Status:
        state = self._must_state()
        self._updates += 1
        state.stop_reason = request.reason or "stopped by a person; running trials finished"
        state.paused = False
        self._turn(state)
        await self._record(state, actor=request.actor, action="stop")
        return state.status()

    @stop.validator
    def _check_stop(self, request: c.VerbRequest = VERB) -> None:
        self._guard()

    @workflow.update(name=c.UPDATE_CANCEL)
    async def cancel(self, request: c.VerbRequest = VERB) -> c.Status:
        state = self._must_state()
        self._updates += 1
        state.cancel_reason = request.reason or "cancelled by a person"
        self._wake = True
        await self._record(state, actor=request.actor, action="cancel")
        return state.status()

    @cancel.validator
    def _check_cancel(self, request: c.VerbRequest = VERB) -> None:
        if self._draining:
            raise ApplicationError("the experiment is moving to a new run; try again", type="NotReady")
        state = self._must_state()
        if state.state.terminal or (self._closing and state.cancel_reason):
            raise ApplicationError(f"experiment {state.name} is ending", type="ConflictError")

    @workflow.update(name=c.UPDATE_STOP_TRIAL)
    async def stop_trial(self, request: c.StopTrialUpdate) -> c.Status:
        state = self._must_state()
        self._updates += 1
        detail = {"trial": request.number, "reason": request.reason}
        await self._record(state, actor=request.actor, action="stop-trial", detail=detail)
        await self._stop_running(state, [request.number], "StoppedByUser: " + request.reason)
        await workflow.wait_condition(lambda: request.number not in state.in_flight)
        return state.status()

    @stop_trial.validator
    def _check_stop_trial(self, request: c.StopTrialUpdate) -> None:
        checks.stop_trial(self._guard(), request)

    @workflow.update(name=c.UPDATE_REPARSE)
    async def reparse(self, request: c.ReparseUpdate) -> c.Revised:
        state = self._must_state()
        self._updates += 1
        revised = await self._revise(state, request.rereading.trials, request.rereading)
        detail = request.rereading.model_dump(exclude_none=True) | {"changed": revised.total}
        await self._record(state, actor=request.actor, action="reparse", detail=detail)
        return revised

    @reparse.validator
    def _check_reparse(self, request: c.ReparseUpdate) -> None:
        self._guard()
        checks.reparse(request)
