"""`record` and `close_trial`: the experiment's own state, and trials that end without a running attempt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio import activity

import evertune.contracts as c
from activities.errors import translated
from evertune.domain.records import Budget
from evertune.domain.states import AttemptState, TrialState
from evertune.errors import WrongDatabaseError
from evertune.store import Store


def check_database(store: Store, database_id: str) -> None:
    """Two homes on one Temporal must never mix: a worker with another database refuses, retryably."""
    if store.database_id != database_id:
        raise WrongDatabaseError(
            f"this worker has database {store.database_id[:8]}, but the experiment lives in {database_id[:8]}",
            hint="stop this worker, or give it the experiment's EVERTUNE_DATABASE_URL",
        )


@dataclass
class RecordActivities:
    store: Store

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
        )


def _now() -> datetime:
    return datetime.now(UTC)
