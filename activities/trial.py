"""`run_trial` and `stop_trial`: create or attach to an attempt, follow its metrics, record its end.

A failed trial is a result, not an exception; exceptions are for what is not the trial's doing (database, disk) and are
retried by Temporal. Killed here at any point, the next attempt of the activity finds the trial by its name:
recorded as ended -> the stored outcome; started -> attached; neither -> started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from temporalio import activity

import evertune.contracts as c
from activities.attach import stop_or_detach
from activities.database import check_database
from activities.ending import asks_for_another, record_end, stored_outcome
from activities.errors import translated
from activities.launch import LaunchPlans, Plan
from activities.observing import Observer
from evertune import archive
from evertune.domain.metrics import Point, Report, placed
from evertune.domain.records import AttemptRecord
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import EvertuneError, LaunchError
from evertune.protocols import Collector, Launch, Sources, TrialRunner
from evertune.store import Store

log = structlog.get_logger()

READ_EVERY_S = 0.5  # of a running trial's log; short enough for a live view, long enough to cost nothing
SILENT_READS = 64  # without any point, of megabytes each; the end of it is read in one go
BEAT_EVERY_S = 20.0  # while nothing changes: more often would cost a thousand trials a core
FINAL_WAIT_S = 30.0  # after the end of a trial for the last word of the collector beside it
RELEASE_S = 10.0  # for giving back what an attempt holds, once its end is recorded
FOLLOWED_AT_FULL_RATE = 100  # trials; beyond, each is read less often so that the worker's CPU stays flat


@dataclass
class TrialActivities:
    store: Store
    runner: TrialRunner
    plans: LaunchPlans
    observer: Observer
    home_id: str
    log_cap: int = archive.CAP  # bytes
    final_wait_s: float = FINAL_WAIT_S
    _following: int = 0
    _shown: dict[str, str] = field(default_factory=dict)  # by the attempt's key, what it waits for
    _beats: dict[str, tuple[str, float]] = field(default_factory=dict)  # what Temporal was told, and until when it does

    @activity.defn(name=c.ACTIVITY_RUN_TRIAL)
    @translated
    async def run_trial(self, request: c.RunTrialRequest) -> c.TrialOutcome:
        check_database(self.store, request.database_id)
        if (known := await asyncio.to_thread(self._stored_outcome, request)) is not None:
            ref = await asyncio.to_thread(self.plans.ref, request.uid, request.number, request.attempt)
            await self._release(ref)  # whoever recorded it may have died before that
            return known
        plan = await asyncio.to_thread(self.plans.of, request.uid, request.number, request.attempt)
        ref = plan.launch.ref
        structlog.contextvars.bind_contextvars(experiment=plan.experiment, trial=ref.number, attempt=ref.attempt)
        opened = await asyncio.to_thread(
            self.store.open_attempt, ref.experiment_uid, ref.number, ref.attempt, home_id=self.home_id, at=_now()
        )
        self._shown[ref.key] = opened.phase  # an earlier worker may have left one
        try:
            plan.collector(self.runner.sources(plan.launch, plan.wanted.path))  # refuses before anything is started
            await self._create(plan.launch)
            sources = self.runner.sources(plan.launch, plan.wanted.path)  # a collector of the user's may run now
            collector = plan.collector(sources)
            beside = self.runner.sidecar(plan.launch)
            end = await self._follow(ref, None if beside else collector)
            beside = self.runner.sidecar(plan.launch)  # what never ran has nobody beside it who could say a word
            ordinal, collected = await self._until_collected(plan) if beside else (0, True)
        except LaunchError as error:
            end = AttemptEnd(
                state=AttemptState.FAILED,
                reason="CannotStart",
                message=str(error) + (f" ({error.hint})" if error.hint else ""),
                failure=FailureClass.CONFIGURATION,
                ended=_now(),
            )
            return await asyncio.to_thread(record_end, self.store, ref, plan.objective, end)
        except asyncio.CancelledError:
            if await asyncio.shield(stop_or_detach()) == "stop":
                await asyncio.shield(self.runner.stop(ref, reason="ExperimentClosed"))
            raise
        finally:
            self._shown.pop(ref.key, None)
            self._beats.pop(ref.key, None)
        told = beside and collected  # all of it; a log that was fetched may be less, or begin elsewhere
        points = () if told else await self._drain(ref, collector, ordinal)
        outcome = await asyncio.to_thread(self._record, request, plan, end, collector, points, collected, ordinal, told)
        # Only after the record: whoever dies before it leaves the whole log, not head and tail, to the next reader.
        await asyncio.to_thread(self._keep, sources)
        await self._release(ref)
        return outcome

    async def _release(self, ref: AttemptRef) -> None:
        """Nobody waits for this: what cannot be given back now, the sweep of a worker finds."""
        try:
            await asyncio.wait_for(self.runner.release(ref), RELEASE_S)
        except (EvertuneError, TimeoutError) as error:
            log.info("an attempt's object is left to the sweep", reason=str(error) or "no answer in time")

    def _keep(self, sources: Sources) -> None:
        for problem in archive.keep(sources.notes, sources.path, cap=self.log_cap):
            log.warning("the log stays as it is, the next sweep tries again", reason=problem)

    def _record(
        self,
        request: c.RunTrialRequest,
        plan: Plan,
        end: AttemptEnd,
        collector: Collector,
        points: Sequence[Point],
        collected: bool,
        ordinal: int,
        told: bool,
    ) -> c.TrialOutcome:
        return record_end(
            self.store,
            plan.launch.ref,
            plan.objective,
            end,
            points=points if told else [*points, *placed(collector.finish(), ordinal)],
            findings=collector.findings,
            warnings=collector.warnings,
            retry=lambda judged: asks_for_another(
                judged, request, memory_retries=plan.memory_retries, on_oom=plan.on_oom
            ),
            collected=collected,
        )

    async def _create(self, launch: Launch) -> None:
        """Start or attach; that may wait for a cluster that is away, so it shows a sign of life meanwhile."""
        creating = asyncio.ensure_future(self.runner.create(launch))
        try:
            while not (await asyncio.wait([creating], timeout=READ_EVERY_S))[0]:
                await self._beat(launch.ref)
            creating.result()
        finally:
            creating.cancel()

    async def _beat(self, ref: AttemptRef) -> None:
        """A heartbeat, with what the attempt waits for; stored when that has changed."""
        phase = self.runner.phase(ref)
        told, until = self._beats.get(ref.key, (None, 0.0))
        if phase != told or time.monotonic() >= until:
            activity.heartbeat(*filter(None, [phase]))
            self._beats[ref.key] = phase, time.monotonic() + _beat_every_s()
        if phase != self._shown.get(ref.key, phase):
            await asyncio.to_thread(self.store.set_phase, ref.experiment_uid, ref.number, ref.attempt, phase)
            self._shown[ref.key] = phase

    async def _follow(self, ref: AttemptRef, collector: Collector | None) -> AttemptEnd:
        """Wait for the end; meanwhile heartbeat and move points from the sources to the database."""
        waiting = asyncio.ensure_future(self.runner.wait(ref))
        self._following += 1
        try:
            while True:
                every = READ_EVERY_S * max(1.0, self._following / FOLLOWED_AT_FULL_RATE)
                done, _ = await asyncio.wait([waiting], timeout=every)
                if done:
                    return waiting.result()
                await self._beat(ref)
                if collector is None or not collector.has_more():
                    continue
                points = await asyncio.to_thread(collector.read)
                if not points:
                    continue
                report = Report(ref.experiment_uid, ref.number, ref.attempt, points)
                (taken,) = await asyncio.to_thread(self.store.add_reports, [report])
                await self.observer.take(report, taken)
        finally:
            self._following -= 1
            waiting.cancel()

    async def _drain(self, ref: AttemptRef, collector: Collector, ordinal: int) -> Sequence[Point]:
        """What the attempt left to read: the last points, for its record. All before them are stored on the way.

        A log of gigabytes that nobody has read yet must not fill the memory; and to read on says that what was read
        before is stored.
        """
        points: Sequence[Point] = ()
        silent = 0
        while silent < SILENT_READS and collector.has_more():
            if points:
                report = Report(ref.experiment_uid, ref.number, ref.attempt, points)
                await asyncio.to_thread(self.store.add_reports, [report])
            points = placed(await asyncio.to_thread(collector.read), ordinal)
            activity.heartbeat()
            silent = 0 if points else silent + 1
        return points

    async def _until_collected(self, plan: Plan) -> tuple[int, bool]:
        """The collector beside the trial may still have something to send: whether it said that this was all.

        If not, its verdict stays open, also when a log is left: that may be less than what the collector reads. First:
        which of the attempt's pods left that log; if nobody has heard of it, the last word was another pod's.
        """
        ref, ordinal = plan.launch.ref, 0
        await self.runner.fetch(ref)
        if origin := self.runner.sources(plan.launch, plan.wanted.path).origin:
            ordinal = await asyncio.to_thread(self.store.origin, ref.experiment_uid, ref.number, ref.attempt, origin)
        give_up = time.monotonic() + self.final_wait_s
        collected = False
        while not collected and time.monotonic() < give_up:
            activity.heartbeat()
            attempt = await asyncio.to_thread(self._attempt, ref.experiment_uid, ref.number, ref.attempt)
            collected = attempt is not None and attempt.collected
            if not collected:
                await asyncio.sleep(READ_EVERY_S)
        return ordinal, collected

    def _stored_outcome(self, request: c.RunTrialRequest) -> c.TrialOutcome | None:
        """The outcome recorded earlier, when this attempt or the whole trial has ended."""
        trial = self.store.trial(request.uid, request.number)
        attempt = self._attempt(request.uid, request.number, request.attempt)
        if not trial.state.terminal and (attempt is None or not attempt.state.terminal):
            return None
        ref = AttemptRef(request.uid, request.number, request.attempt, trial.name)
        return stored_outcome(self.store, ref, trial)

    def _attempt(self, uid: str, number: int, attempt: int) -> AttemptRecord | None:
        return next((record for record in self.store.attempts(uid, number) if record.attempt == attempt), None)

    @activity.defn(name=c.ACTIVITY_STOP_TRIAL)
    @translated
    async def stop_trial(self, request: c.StopTrialRequest) -> None:
        """Stop these attempts. Their `run_trial` sees them end and returns."""
        check_database(self.store, request.database_id)
        await asyncio.to_thread(self.store.request_stop, request.uid, request.attempts, request.reason)
        # Also attempts that nobody has begun: their `run_trial` may be on its way while this stop overtakes it.
        stops = [
            asyncio.ensure_future(
                self.runner.stop(
                    await asyncio.to_thread(self.plans.ref, request.uid, number, attempt),
                    reason=request.reason,
                    grace_s=request.grace_s,
                )
            )
            for number, attempt in request.attempts.items()
        ]
        while stops:
            done, pending = await asyncio.wait(stops, timeout=1.0)
            activity.heartbeat()
            for task in done:
                task.result()
            stops = list(pending)


def _beat_every_s() -> float:
    timeout = activity.info().heartbeat_timeout
    return BEAT_EVERY_S if timeout is None else min(BEAT_EVERY_S, timeout.total_seconds() / 3)


def _now() -> datetime:
    return datetime.now(UTC)
