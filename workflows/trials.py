"""The trials of one experiment's workflow: asked for, started or attached to, stopped, and judged anew.

The base of `workflows.experiment`, which decides when; this decides how. Everything that waits here is a task that a
replay, a continue-as-new or the end of the experiment finds again through the state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

import evertune.contracts as c
from workflows import calls, policies
from workflows import state as rules
from workflows.state import RunState


class Trials:
    def __init__(self) -> None:
        self._state: RunState | None = None
        self._wake = False
        self._closing = False  # a verdict is there: no new attempts
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0  # trials that the ask under way may bring
        self._tasks: set[asyncio.Task[None]] = set()  # kept, so that none is collected while it waits
        self._side: set[asyncio.Task[None]] = set()  # stops in progress
        self._defect: BaseException | None = None  # of a task that nobody awaits
        self._recording = asyncio.Lock()
        self._revising = asyncio.Lock()
        self._late: set[int] = set()  # finished trials whose verdict a late report changes

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose defect ends the workflow task instead of vanishing."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = error
            self._wake = True

    def _raise_defect(self) -> None:
        if self._defect is not None:
            raise self._defect

    def _must_state(self) -> RunState:
        if self._state is None:
            raise ApplicationError("the experiment is still being admitted; try again", type="NotReady")
        return self._state

    def _quiet(self) -> bool:
        return workflow.all_handlers_finished() and not self._side

    async def _record(self, state: RunState, **what: Any) -> None:
        """One at a time: a record that is tried again must not undo a later one."""
        async with self._recording:
            await calls.record(state, **what)

    # ------------------------------------------------------------------------------------------- their lives

    async def _ask(self, state: RunState, k: int) -> None:
        """Ask for k more trials and start them. Never raises: a permanent error becomes the experiment's failure."""
        finished = state.finished
        try:
            answer = await calls.suggest(state, state.request_no + 1, k)
        except ActivityError as error:
            state.failure = calls.sentence(error)
            return
        finally:
            self._asking = None
            self._asked = 0
            self._wake = True
        state.request_no += 1
        state.created += len(answer.trials)
        state.exhausted = answer.reason or "the search space is exhausted" if answer.exhausted else ""
        # A trial that ended meanwhile may be what the algorithm waits for.
        state.waiting = answer.wait and state.finished == finished
        for trial in answer.trials:
            # Paused or stopped since it was asked for: it starts, or ends, with what becomes of that.
            held = state.paused or bool(state.stop_reason)
            state.in_flight[trial.number] = c.InFlight(number=trial.number, label=trial.label, parked=held)
            self._start(trial.number)

    def _start(self, number: int, *, attach: bool = False) -> None:
        self._spawn(self._run_trial(number, attach=attach))

    async def _run_trial(self, number: int, *, attach: bool) -> None:
        """Run one trial to its end, over as many attempts as its faults are forgiven.

        `attach`: its attempt may run already, so that only `run_trial` can tell how it ends.
        """
        state = self._must_state()
        while True:
            if self._entry(number).parked:
                attach = False
                await self._until_unparked(state, number)
            entry = self._entry(number)
            if (self._closing or entry.stop) and not attach:  # nothing runs: only the record is left to be closed
                outcome = await self._close(state, entry, reason=entry.stop or "ExperimentCompleted")
                break
            attach = False
            try:
                outcome = await calls.run_trial(state, entry)
            except ActivityError as error:
                outcome = await self._close(
                    state, entry, reason="InternalError", message=calls.sentence(error), failed=True
                )
                break
            if not outcome.again:
                break
            state.in_flight[number] = entry = rules.next_attempt(self._entry(number), outcome, paused=state.paused)
            self._wake = True
            if (pause := policies.backoff(entry.infrastructure_retries)).total_seconds():
                await self._interruptible(number, pause)
        rules.record_outcome(state, outcome)
        self._wake = True

    async def _until_unparked(self, state: RunState, number: int) -> None:
        await workflow.wait_condition(
            lambda: not state.paused or self._closing or bool(state.stop_reason) or bool(self._entry(number).stop)
        )
        entry = self._entry(number)
        # A drain lets running trials finish; this one does not run.
        stop = entry.stop or ("ExperimentStopped" if state.stop_reason else "")
        state.in_flight[number] = entry.model_copy(update={"parked": False, "stop": stop})

    async def _close(self, state: RunState, entry: c.InFlight, **why: Any) -> c.TrialOutcome:
        """Never raises: what cannot be closed fails the experiment, which would wait for it for ever."""
        try:
            return await calls.close_trial(state, entry, **why)
        except ActivityError as error:
            state.failure = state.failure or calls.sentence(error)
            return rules.unclosed(entry, state.failure)

    async def _interruptible(self, number: int, pause: timedelta) -> None:
        try:
            await workflow.wait_condition(lambda: self._closing or bool(self._entry(number).stop), timeout=pause)
        except TimeoutError:
            return

    def _entry(self, number: int) -> c.InFlight:
        return self._must_state().in_flight[number]

    async def _stop_running(self, state: RunState, numbers: list[int], reason: str) -> None:
        """Mark and stop. A trial that ends by itself meanwhile keeps its own end."""
        attempts = {}
        for number in numbers:
            if (entry := state.in_flight.get(number)) is not None:
                state.in_flight[number] = entry.model_copy(update={"stop": entry.stop or reason})
                if not entry.parked:
                    attempts[number] = entry.attempt
        self._wake = True
        if attempts:
            await calls.stop_trials(state, attempts, reason)

    def _stop_aside(self, state: RunState, numbers: list[int], reason: str) -> None:
        self._aside(self._stop_running(state, numbers, reason))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that a continue-as-new, and the end, wait for."""
        task = self._spawn(work)
        self._side.add(task)
        task.add_done_callback(self._side.discard)

    # ------------------------------------------------------------------------------------------- revisions

    def _revise_late(self, state: RunState, number: int) -> None:
        if not self._late:
            self._aside(self._revise_all_late(state))
        self._late.add(number)

    async def _revise_all_late(self, state: RunState) -> None:
        while self._late:
            # An end that is on its way to us comes first: a revision is of what we have counted.
            await workflow.wait_condition(lambda: not self._late & state.in_flight.keys())
            late = sorted(self._late)
            try:
                await self._revise(state, late, None)
            except ApplicationError as error:  # the experiment goes on with the verdicts it has
                workflow.logger.warning("verdicts of trials %s stay as they were: %s", late, error.message)
            self._late.difference_update(late)

    async def _revise(self, state: RunState, trials: list[int] | None, rereading: c.Rereading | None) -> c.Revised:
        async with self._revising:  # one at a time: each tells what it found by the counts it began with
            before = dict(state.counts)
            revised = await calls.revise(state, trials, rereading)
            rules.apply_revision(state, revised, before)
        self._wake = True
        return revised

    async def _stop_running_for_pause(self, state: RunState) -> None:
        # Not _stop_running: these trials are not marked as stopped, they get another attempt on resume.
        attempts = {
            number: entry.attempt for number, entry in state.in_flight.items() if not entry.parked and not entry.stop
        }
        if attempts:
            await calls.stop_trials(state, attempts, "Paused")
