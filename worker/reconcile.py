"""Finds experiments whose workflow was closed behind our back (Terminate, Delete) and ends them properly.

Runs in every worker: at start and then every twenty seconds. It stops the processes of such an experiment and marks
its row, so that nothing runs on unseen and no row says Running for ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

import evertune.contracts as c
from activities.ending import record_end
from activities.launch import LaunchPlans
from activities.observing import Observer
from activities.replicating import runs_of
from activities.runners.local import LocalRunner
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import NotFoundError
from evertune.protocols import TrialRunner
from evertune.store import Store
from worker.checkpoints import CheckpointKeeper
from worker.clusters import ClusterBroom
from worker.compose import Parts
from worker.housekeeping import LogKeeper

log = structlog.get_logger()

EVERY_S = 20.0
# A row is claimed a moment before Temporal's visibility knows the run; younger rows are left alone.
SETTLE_S = 5.0
STOP_GRACE_S = 5.0
# Longer than it takes to stop what still runs. A cluster that is away is asked again by the next sweep: it must not
# keep this one from all the others.
CONSIDER_S = 60.0
ASKED_AT_ONCE = 20  # of Temporal, which experiments still run


def reconciler_of(parts: Parts, *, settle_s: float = SETTLE_S) -> Reconciler:
    days = parts.settings.log_retention_days
    keeper = LogKeeper(
        parts.store,
        LaunchPlans(parts.store),
        parts.settings.trials_dir,
        cap=parts.settings.log_cap,
        retention=None if days is None else timedelta(days=days),
    )
    return Reconciler(
        client=parts.client,
        store=parts.store,
        runner=parts.runner,
        home_id=parts.settings.home_id,
        temporal_id=parts.temporal_id,
        observer=Observer(parts.client, parts.store),
        keeper=keeper,
        settle_s=settle_s,
        broom=None if parts.cluster is None else ClusterBroom(parts.store, parts.cluster.runner, STOP_GRACE_S),
    )


@dataclass
class Reconciler:
    client: Client
    store: Store
    runner: LocalRunner
    home_id: str
    temporal_id: str
    observer: Observer
    keeper: LogKeeper
    settle_s: float = SETTLE_S
    broom: ClusterBroom | None = None  # None: this worker has no cluster
    _asking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ASKED_AT_ONCE))

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self.sweep()
                if self.keeper.due():
                    await asyncio.to_thread(self.keeper.tend)
                    await asyncio.to_thread(CheckpointKeeper(self.store, self.keeper.trials_dir).tend)
            except Exception:  # the next sweep tries again; a worker must not die of its broom
                log.exception("reconciling failed")
            try:
                await asyncio.wait_for(stopping.wait(), EVERY_S)
            except TimeoutError:
                continue

    async def sweep(self) -> int:
        """Returns how many experiments were ended."""
        considered = await asyncio.gather(
            *(self._tend(record) for record in await asyncio.to_thread(self.store.unfinished) if self._settled(record))
        )
        await self._stop_leftovers()
        if self.broom is not None:
            await self.broom.sweep()
        return sum(considered)

    def _settled(self, record: ExperimentRecord) -> bool:
        # Another Temporal than the one that runs it knows nothing of it; that proves nothing.
        mine = record.context.get("temporal") == self.temporal_id
        return mine and (datetime.now(UTC) - record.created).total_seconds() >= self.settle_s

    async def _tend(self, record: ExperimentRecord) -> bool:
        """Whether it was ended. What goes wrong with one experiment concerns no other."""
        try:
            if await asyncio.wait_for(self.consider(record), CONSIDER_S):
                return True
            await self._tell_late(record)
        except Exception as error:
            name = f"{record.namespace}/{record.name}"
            log.warning("an experiment could not be reconciled; the next sweep tries again", experiment=name,
                        reason=str(error) or type(error).__name__)  # fmt: skip
        return False

    async def _tell_late(self, record: ExperimentRecord) -> None:
        """Whoever stored a late report may have died before the workflow heard of it."""
        for number in await asyncio.to_thread(self.store.late, record.uid):
            await self.observer.observe(record.uid, c.Observation(number=number, seq=0, late=True))

    async def consider(self, record: ExperimentRecord) -> bool:
        """End the experiment if its workflow was closed; whether it was."""
        if self._runner_of(record) is None:
            return False  # its objects are out of reach; a worker that has its cluster sees to it
        async with self._asking:
            reason = await self._closed(record)
        if reason is None or not await self._still_unfinished(record):
            return False
        await self._end(record, reason)
        return True

    def _runner_of(self, record: ExperimentRecord) -> TrialRunner | None:
        if record.backend == "local":
            return self.runner
        return None if self.broom is None else self.broom.runner

    async def _stop_leftovers(self) -> None:
        """Attempts of this host that outlived their experiment, because another host ended it."""
        for ref in await asyncio.to_thread(self.runner.find_orphans, set()):
            try:
                record = await asyncio.to_thread(self.store.experiment_by_uid, ref.experiment_uid)
            except NotFoundError:
                continue  # another database's: not ours to judge
            if record.state.terminal:
                await self.runner.stop(ref, reason="ExperimentClosed", grace_s=STOP_GRACE_S)

    async def _closed(self, record: ExperimentRecord) -> str | None:
        """Why the workflow will not go on, None while it runs or nobody can say."""
        try:
            description = await self.client.get_workflow_handle(record.workflow_id).describe()
        except RPCError as error:
            return "its workflow was deleted" if error.status is RPCStatusCode.NOT_FOUND else None
        status = description.status
        if status in (None, WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW):
            return None
        return f"its workflow was closed: {status.name.lower()}"

    async def _still_unfinished(self, record: ExperimentRecord) -> bool:
        """Read after the workflow was seen closed: one that ended properly had written its end by then."""
        try:
            now = await asyncio.to_thread(self.store.experiment_by_uid, record.uid)
        except NotFoundError:
            return False
        return not now.state.terminal and now.first_run_id == record.first_run_id

    async def _end(self, record: ExperimentRecord, reason: str) -> None:
        log.warning(
            "ending an experiment whose workflow is gone", experiment=f"{record.namespace}/{record.name}", reason=reason
        )
        plans, runner = LaunchPlans(self.store), self._runner_of(record)
        assert runner is not None
        # What runs on another host only that can stop; what runs in a cluster, anybody.
        home = self.home_id if record.backend == "local" else None
        running = await asyncio.to_thread(self.store.running_attempts, record.uid, home)
        refs = [
            await asyncio.to_thread(plans.ref, record.uid, attempt.number, attempt.attempt) for _, attempt in running
        ]
        # All at once: each may take its grace period.
        ends = await asyncio.gather(*(self._stop(runner, record, ref) for ref in refs), return_exceptions=True)
        for problem in ends:
            if problem is not None:
                raise problem
        await asyncio.to_thread(self._mark, record, reason)

    async def _stop(self, runner: TrialRunner, record: ExperimentRecord, ref: AttemptRef) -> None:
        await runner.stop(ref, reason="ExperimentClosed", grace_s=STOP_GRACE_S)
        # Nobody may be left to record it; if somebody is, the first record stands.
        end = await runner.wait(ref)
        await asyncio.to_thread(self._record, record, ref, end)
        await runner.release(ref)

    def _record(self, record: ExperimentRecord, ref: AttemptRef, end: AttemptEnd) -> None:
        wanted = LaunchPlans(self.store).replicates(record.uid)
        runs = runs_of(self.store, ref, record.objective, wanted)
        record_end(self.store, ref, record.objective, end, runs=runs)

    def _mark(self, record: ExperimentRecord, reason: str) -> None:
        now = datetime.now(UTC)
        for trial in self.store.trials(record.uid, states={TrialState.CREATED, TrialState.RUNNING}):
            self.store.close_trial(record.uid, trial.number, TrialState.KILLED, "ExperimentClosed", reason, now)
        self.store.set_state(
            record.uid,
            ExperimentState.CANCELLED,
            reason="WorkflowClosed",
            message=reason,
            budget=None,
            goal=None,
            key=f"reconciled-{record.first_run_id}-{now:%Y%m%d%H%M%S}",
            actor="evertune worker",
            action="reconcile",
            detail={"reason": reason},
            at=now,
        )
