"""`run_trial` and `stop_trial`: create or attach to an attempt, follow its metrics, record its end.

A failed trial is a result, not an exception; exceptions are for what is not the trial's doing (database, disk) and are
retried by Temporal. Killed here at any point, the next attempt of the activity finds the trial by its name:
recorded as ended -> the stored outcome; started -> attached; neither -> started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from temporalio import activity

import evertune.contracts as c
from activities.attach import stop_or_detach
from activities.errors import translated
from activities.launch import LaunchPlans
from activities.observing import Observer
from activities.record import check_database, outcome_of
from evertune.domain.metrics import Objective, Point, Summaries, finite, objective_text
from evertune.domain.records import AttemptRecord
from evertune.domain.retry import retry_again
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import LaunchError
from evertune.protocols import Collector, TrialRunner
from evertune.store import Store

log = structlog.get_logger()

READ_EVERY_S = 0.5  # of a running trial's log; short enough for a live view, long enough to cost nothing
FOLLOWED_AT_FULL_RATE = 100  # trials; beyond, each is read less often so that the worker's CPU stays flat
EARLY_STOPPED = "EarlyStopped"


@dataclass
class TrialActivities:
    store: Store
    runner: TrialRunner
    plans: LaunchPlans
    observer: Observer
    home_id: str
    _following: int = 0

    @activity.defn(name=c.ACTIVITY_RUN_TRIAL)
    @translated
    async def run_trial(self, request: c.RunTrialRequest) -> c.TrialOutcome:
        check_database(self.store, request.database_id)
        if (known := await asyncio.to_thread(self._stored_outcome, request)) is not None:
            return known
        plan = await asyncio.to_thread(self.plans.of, request.uid, request.number, request.attempt)
        ref = plan.launch.ref
        structlog.contextvars.bind_contextvars(experiment=plan.experiment, trial=ref.number, attempt=ref.attempt)
        await asyncio.to_thread(
            self.store.open_attempt, ref.experiment_uid, ref.number, ref.attempt, home_id=self.home_id, at=_now()
        )
        summaries = Summaries()
        try:
            await self.runner.create(plan.launch)
        except LaunchError as error:
            end = AttemptEnd(
                state=AttemptState.FAILED,
                reason="CannotStart",
                message=str(error) + (f" ({error.hint})" if error.hint else ""),
                failure=FailureClass.CONFIGURATION,
                ended=_now(),
            )
            return await asyncio.to_thread(self._record_end, request, ref, plan.objective, end, summaries, (), None)
        collector = plan.collector(self.runner.log_path(ref))
        try:
            end = await self._follow(request, ref, plan.objective, collector, summaries)
        except asyncio.CancelledError:
            if await asyncio.shield(stop_or_detach()) == "stop":
                await asyncio.shield(self.runner.stop(ref, reason="ExperimentClosed"))
            raise
        points = await asyncio.to_thread(collector.finish) if collector is not None else ()
        return await asyncio.to_thread(
            self._record_end, request, ref, plan.objective, end, summaries, points, collector
        )

    async def _follow(
        self,
        request: c.RunTrialRequest,
        ref: AttemptRef,
        objective: Objective,
        collector: Collector | None,
        summaries: Summaries,
    ) -> AttemptEnd:
        """Wait for the end; meanwhile heartbeat and move points from the log to the database."""
        waiting = asyncio.ensure_future(self.runner.wait(ref))
        steps = 0
        size = 0
        path = self.runner.log_path(ref)
        self._following += 1
        try:
            while True:
                every = READ_EVERY_S * max(1.0, self._following / FOLLOWED_AT_FULL_RATE)
                done, _ = await asyncio.wait([waiting], timeout=every)
                if done:
                    return waiting.result()
                activity.heartbeat()
                if collector is None or (grown := _size(path)) == size:
                    continue
                size = grown
                points = await asyncio.to_thread(collector.read)
                if not points:
                    continue
                summaries.add(points)
                await asyncio.to_thread(self.store.add_points, ref.experiment_uid, ref.number, ref.attempt, points)
                objectives = [point for point in points if point.metric == objective.metric]
                steps += len(objectives)
                if objectives:
                    await self.observer.observe(request.uid, _observation(ref, objectives[-1], steps))
        finally:
            self._following -= 1
            waiting.cancel()

    def _stored_outcome(self, request: c.RunTrialRequest) -> c.TrialOutcome | None:
        """The outcome recorded earlier, when this attempt or the whole trial has ended."""
        trial = self.store.trial(request.uid, request.number)
        if trial.state.terminal:
            failure = None
            if (attempt := self._attempt(request.uid, request.number, request.attempt)) is not None:
                failure = attempt.failure
            return outcome_of(trial, attempt=request.attempt).model_copy(update={"failure": failure})
        attempt = self._attempt(request.uid, request.number, request.attempt)
        if attempt is None or not attempt.state.terminal:
            return None
        return c.TrialOutcome(
            number=request.number,
            attempt=request.attempt,
            state=attempt.state,
            again=True,
            reason=attempt.reason,
            message=attempt.message[:500],
            failure=attempt.failure,
        )

    def _attempt(self, uid: str, number: int, attempt: int) -> AttemptRecord | None:
        return next((record for record in self.store.attempts(uid, number) if record.attempt == attempt), None)

    def _record_end(
        self,
        request: c.RunTrialRequest,
        ref: AttemptRef,
        objective: Objective,
        end: AttemptEnd,
        summaries: Summaries,
        points: Sequence[Point],
        collector: Collector | None,
    ) -> c.TrialOutcome:
        """One transaction: the last points, the attempt's end and, unless another attempt follows, the trial's."""
        summaries.add(points)
        summary = summaries.summaries()
        metrics = {
            name: text
            for name in objective.metrics
            if name in summary and (text := summary[name].pick(objective.strategy(name))) is not None
        }
        value = objective_text(objective, summary)
        if end.state is AttemptState.SUCCEEDED and value is None:
            end = _unavailable(end, objective, collector)
        again = retry_again(
            reason=end.reason,
            failure=end.failure,
            signal_retries=request.signal_retries,
            infrastructure_retries=request.infrastructure_retries,
        )
        state = None if again else _trial_state(end)
        if state is TrialState.FAILED:
            value = None  # Katib: a failed trial never has an observation
        trial, told_seq = self.store.end_attempt(
            ref.experiment_uid,
            ref.number,
            ref.attempt,
            end,
            points=points,
            again=again,
            charged=state is not None and state.counts_as_failed,
            trial_state=state,
            objective=value,
            objective_value=finite(value),
            metrics=metrics,
        )
        log.info("attempt ended", state=end.state, reason=end.reason, again=again, objective=value)
        return c.TrialOutcome(
            number=ref.number,
            attempt=ref.attempt,
            state=end.state,
            trial_state=state,
            again=again,
            reason=end.reason,
            message=end.message[:500],
            failure=end.failure,
            objective=None if value is None else value[:500],
            value=trial.objective_value,
            told_seq=told_seq or 0,
        )

    @activity.defn(name=c.ACTIVITY_STOP_TRIAL)
    @translated
    async def stop_trial(self, request: c.StopTrialRequest) -> None:
        """Stop the running attempts of these trials. Their `run_trial` sees them end and returns."""
        check_database(self.store, request.database_id)
        running = await asyncio.to_thread(self.store.running_attempts, request.uid, self.home_id)
        wanted = set(request.numbers)
        stops = [
            asyncio.ensure_future(
                self.runner.stop(
                    await asyncio.to_thread(self.plans.ref, request.uid, record.number, record.attempt),
                    reason=request.reason,
                    grace_s=request.grace_s,
                )
            )
            for _, record in running
            if record.number in wanted
        ]
        while stops:
            done, pending = await asyncio.wait(stops, timeout=1.0)
            activity.heartbeat()
            for task in done:
                task.result()
            stops = list(pending)


def _trial_state(end: AttemptEnd) -> TrialState:
    if end.state is AttemptState.KILLED:
        return TrialState.EARLY_STOPPED if end.reason.startswith(EARLY_STOPPED) else TrialState.KILLED
    if end.state is AttemptState.LOST:
        return TrialState.FAILED
    return TrialState(end.state.value)


def _unavailable(end: AttemptEnd, objective: Objective, collector: Collector | None) -> AttemptEnd:
    """Exit 0 without the objective: say what was seen instead."""
    message = f"the trial ended without {objective.metric}"
    if collector is not None:
        findings = collector.findings()
        seen = ", ".join(findings.names_seen[:20]) or "no metric at all"
        message += f"; seen: {seen}"
        if findings.last_lines:
            message += "; last lines:\n" + "\n".join(findings.last_lines)
    return AttemptEnd(
        state=AttemptState.METRICS_UNAVAILABLE,
        reason="MetricsUnavailable",
        message=message[:4000],
        failure=FailureClass.METRICS,
        exit_code=end.exit_code,
        started=end.started,
        ended=end.ended,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _observation(ref: AttemptRef, point: Point, step: int) -> c.Observation:
    return c.Observation(number=ref.number, attempt=ref.attempt, seq=point.seq, step=step, value=point.value[:40])


def _now() -> datetime:
    return datetime.now(UTC)
