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
from functools import partial

import structlog
from temporalio import activity

import evertune.contracts as c
from activities import tidying
from activities.attach import stop_or_detach
from activities.database import check_database
from activities.ending import asks_for_another, record_end, stored_outcome
from activities.errors import translated
from activities.launch import LaunchPlans, Plan
from activities.observing import Observer
from activities.reusing import reuse
from activities.tidying import Tidier
from evertune import archive
from evertune.domain.metrics import Point, Report, missing, placed
from evertune.domain.records import AttemptRecord
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import LaunchError
from evertune.protocols import Collector, Launch, Sources, TrialRunner
from evertune.store import Store

log = structlog.get_logger()

READ_EVERY_S = 0.5  # of a running trial's log; short enough for a live view, long enough to cost nothing
SILENT_READS = 64  # without any point, of megabytes each; the end of it is read in one go
BEAT_EVERY_S = 20.0  # while nothing changes: more often would cost a thousand trials a core
FINAL_WAIT_S = 30.0  # after the end of a trial for the last word of the collector beside it
FOLLOWED_AT_FULL_RATE = 100  # trials; beyond, each is read less often so that the worker's CPU stays flat


@dataclass
class _Reading:
    """Who reads what an attempt reports, from where, and as whose words it counts."""

    sources: Sources
    collector: Collector  # of this worker
    beside: bool = False  # another one stands beside the attempt and reports by itself
    collected: bool = True  # all of it was read; that one's last word, where there is one
    fetched: bool = True  # what the attempt printed is here
    ordinal: int = 0  # which of the attempt's pods left what this worker reads

    @property
    def told(self) -> bool:
        """Nothing is left to read here: a log that was fetched may be less, or begin elsewhere."""
        return self.beside and self.collected


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
    tidier: Tidier = field(init=False)

    def __post_init__(self) -> None:
        self.tidier = Tidier(self.runner, self.log_cap, after_s=tidying.AFTER_S)

    @activity.defn(name=c.ACTIVITY_RUN_TRIAL)
    @translated
    async def run_trial(self, request: c.RunTrialRequest) -> c.TrialOutcome:
        check_database(self.store, request.database_id)
        ref, plan = await asyncio.to_thread(self._begin, request)
        if isinstance(plan, c.TrialOutcome):
            self.tidier.later(ref, fetch=True)  # whoever recorded it may have died before that
            return plan
        structlog.contextvars.bind_contextvars(experiment=plan.experiment, trial=ref.number, attempt=ref.attempt)
        try:
            if plan.reuse is not None:
                reused = await reuse(self.store, ref, plan.reuse, plan.objective, partial(self._beat, ref))
                if reused is not None:
                    return reused
            reading = self._reading(plan)  # refuses before anything is started
            await self._create(plan.launch)
            reading = self._reading(plan)  # a collector of the user's may run now
            end = await self._follow(ref, None if reading.beside else reading.collector)
            if self.runner.sidecar(plan.launch):  # what never ran has nobody beside it who could say a word
                await self._until_collected(plan, end, reading)
            else:
                reading.beside = False
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
        points = () if reading.told else await self._drain(ref, reading)
        outcome = await asyncio.to_thread(self._record, request, plan, end, reading, points)
        # Only after the record: whoever dies before it leaves the whole log, not head and tail, to the next reader.
        if not reading.beside:
            await asyncio.to_thread(self.tidier.keep, ref, reading.sources.path)
        self.tidier.later(ref, fetch=not reading.fetched, file=reading.sources.path)
        return outcome

    def _begin(self, request: c.RunTrialRequest) -> tuple[AttemptRef, Plan | c.TrialOutcome]:
        """What to run, its attempt open from now on; or the outcome recorded earlier, of it or of the whole trial."""
        trial = self.store.trial(request.uid, request.number)
        ref = AttemptRef(request.uid, request.number, request.attempt, trial.name)
        if trial.state.terminal:
            return ref, stored_outcome(self.store, ref, trial)
        plan = self.plans.of(request.uid, request.number, request.attempt, trial=trial)
        opened = self.store.open_attempt(request.uid, ref.number, ref.attempt, home_id=self.home_id, at=_now())
        if opened.state.terminal:
            return ref, stored_outcome(self.store, ref, trial)
        self._shown[ref.key] = opened.phase  # an earlier worker may have left one
        return ref, plan

    def _reading(self, plan: Plan) -> _Reading:
        sources = self.runner.sources(plan.launch, plan.wanted.path)
        return _Reading(sources, plan.collector(sources), beside=self.runner.sidecar(plan.launch))

    def _record(
        self, request: c.RunTrialRequest, plan: Plan, end: AttemptEnd, reading: _Reading, points: Sequence[Point]
    ) -> c.TrialOutcome:
        collector = reading.collector
        return record_end(
            self.store,
            plan.launch.ref,
            plan.objective,
            end,
            points=points if reading.told else [*points, *placed(collector.finish(), reading.ordinal)],
            findings=collector.findings,
            warnings=collector.warnings,
            retry=lambda judged: asks_for_another(
                judged, request, memory_retries=plan.memory_retries, on_oom=plan.on_oom
            ),
            collected=reading.collected,
            runs=plan.runs,
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

    async def _beat(self, ref: AttemptRef, waits: str = "") -> None:
        """A heartbeat, with what the attempt waits for; stored when that has changed."""
        phase = waits or self.runner.phase(ref)
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

    async def _drain(self, ref: AttemptRef, reading: _Reading) -> Sequence[Point]:
        """What the attempt left to read: the last points, for its record. All before them are stored on the way.

        A log of gigabytes that nobody has read yet must not fill the memory; and to read on says that what was read
        before is stored.
        """
        points: Sequence[Point] = ()
        silent, collector = 0, reading.collector
        while silent < SILENT_READS and collector.has_more():
            if points:
                report = Report(ref.experiment_uid, ref.number, ref.attempt, points)
                await asyncio.to_thread(self.store.add_reports, [report])
            points = placed(await asyncio.to_thread(collector.read), reading.ordinal)
            activity.heartbeat()
            silent = 0 if points else silent + 1
        return points

    async def _until_collected(self, plan: Plan, end: AttemptEnd, reading: _Reading) -> None:
        """The collector beside the trial may still have something to send: whether it said that this was all.

        If not, its verdict stays open, also when a log is left: that may be less than what the collector reads. First:
        which of the attempt's pods left that log; if nobody has heard of it, the last word was another pod's. A trial
        of which all is known does not wait for its log: only to say what was there instead of the objective it is read.
        """
        ref = plan.launch.ref
        reading.collected, reported = await asyncio.to_thread(self._heard, plan)
        if reading.collected and (reported or end.state is not AttemptState.SUCCEEDED):
            reading.fetched = False
            return
        await self.runner.fetch(ref)
        if origin := self.runner.sources(plan.launch, plan.wanted.path).origin:
            reading.ordinal = await asyncio.to_thread(
                self.store.origin, ref.experiment_uid, ref.number, ref.attempt, origin
            )
        give_up = time.monotonic() + self.final_wait_s
        while not reading.collected and time.monotonic() < give_up:
            activity.heartbeat()
            await asyncio.sleep(READ_EVERY_S)
            reading.collected, _ = await asyncio.to_thread(self._heard, plan)

    def _heard(self, plan: Plan) -> tuple[bool, bool]:
        """Of an attempt with a collector beside it: whether that has said its last word, and whether the objective."""
        ref = plan.launch.ref
        attempt = self._attempt(ref.experiment_uid, ref.number, ref.attempt)
        if attempt is None or not attempt.collected:
            return False, False
        summaries = self.store.summaries(ref.experiment_uid, ref.number, ref.attempt)
        return True, missing(plan.objective, summaries) is None

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
