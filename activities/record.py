"""`record` and `close_trial`: the experiment's own state, and trials that end without a running attempt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity

import evertune.contracts as c
from activities.database import check_database
from activities.errors import translated
from activities.revising import Reviser
from evertune.domain import labels
from evertune.domain.records import Budget
from evertune.domain.states import AttemptState, TrialState
from evertune.store import Store


@dataclass
class RecordActivities:
    store: Store
    reviser: Reviser

    @activity.defn(name=c.ACTIVITY_RECORD)
    @translated
    async def record(self, request: c.RecordRequest) -> None:
        check_database(self.store, request.database_id)
        await asyncio.to_thread(self._record, request)

    def _record(self, request: c.RecordRequest) -> None:
        if request.state.terminal:
            # An ask that was under way at the verdict may have left trials that nobody will start.
            for trial in self.store.trials(request.uid, states={TrialState.CREATED, TrialState.RUNNING}):
                self.store.close_trial(
                    request.uid, trial.number, TrialState.KILLED, "ExperimentCompleted", "never started", _now()
                )
        limits = request.limits
        self.store.set_state(
            request.uid,
            request.state,
            reason=request.reason,
            message=request.message,
            budget=None
            if limits is None
            else Budget(parallel=limits.parallel, max_trials=limits.max_trials, max_failed=limits.max_failed),
            goal=None if limits is None else limits.goal,
            key=request.key,
            actor=request.actor,
            action=request.action,
            detail=request.detail,
            at=_now(),
        )
        if request.state.terminal:
            # A report that came before the row said so was told to a workflow that may not listen any more; whoever
            # reports from now on finds the row, which is the authority.
            self.reviser.amend(request.uid, actor="evertune worker")

    @activity.defn(name=c.ACTIVITY_CLOSE_TRIAL)
    @translated
    async def close_trial(self, request: c.CloseTrialRequest) -> c.TrialOutcome:
        check_database(self.store, request.database_id)
        return await asyncio.to_thread(self._close_trial, request)

    def _close_trial(self, request: c.CloseTrialRequest) -> c.TrialOutcome:
        self.store.close_trial(request.uid, request.number, request.state, request.reason, request.message, _now())
        trial = self.store.trial(request.uid, request.number)
        return c.TrialOutcome(
            number=trial.number,
            attempt=max(trial.attempts - 1, 0),
            state=AttemptState(trial.state.value),
            trial_state=trial.state,
            reason=trial.reason,
            message=trial.message[:500],
            objective=None if trial.objective is None else trial.objective[:500],
            value=trial.objective_value,
            told_seq=trial.told_seq or 0,
            shortfall=labels.shortfall(trial.labels),
            violation=trial.violation,
        )


def _now() -> datetime:
    return datetime.now(UTC)
