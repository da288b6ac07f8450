"""`revise`: judge finished trials anew, by a report that came late or by reading their logs again with other rules.

Called by the workflow of a running experiment, which takes counts and best from the answer; by the gateway and the
command line for a finished one, whose row is the authority. It starts nothing and stops nothing. Every trial is one
transaction, and one that is judged twice alike does not change the second time: whoever was killed half-way asks again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio import activity

import collectors
import evertune.archive as archive
import evertune.contracts as c
from activities.database import check_database
from activities.ending import ending_of, judged, with_warnings
from activities.errors import translated
from activities.launch import LaunchPlans
from activities.replicating import runs_of
from activities.rereading import places_of, readable
from evertune.domain import labels
from evertune.domain.metrics import MetricSummary, Objective, Point, placed, ranges_of_origin, summarize
from evertune.domain.records import AttemptRecord, TrialRecord
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import REUSED, AttemptEnd, AttemptRef, Conclude, Ending
from evertune.errors import LaunchError, UsageError
from evertune.protocols import Findings, TrialRunner
from evertune.store import Store

HEARTBEAT_EVERY_S = 2.0
CHANGED_SHOWN = 100
# What a failed trial printed has no say, as in Katib; all others are judged by it.
JUDGED = frozenset(state for state in TrialState if state.terminal and state is not TrialState.FAILED)


@dataclass(frozen=True)
class Judgement:
    """What a trial's verdict would be. `skipped`: why it cannot be judged anew, "" if it can."""

    before: TrialRecord
    after: Ending | None = None
    skipped: str = ""

    @property
    def changes(self) -> bool:
        if self.after is None:
            return False
        told = (self.before.state, self.before.objective, dict(self.before.metrics))
        return told != (self.after.trial_state, self.after.objective, dict(self.after.metrics))


@dataclass(frozen=True)
class _Reread:
    """A trial's sources, read by the rules that are wanted now."""

    points: list[Point]
    findings: Findings
    forget: list[tuple[int, int]]  # ranges of places whose points were read anew


@dataclass
class Reviser:
    store: Store
    plans: LaunchPlans
    runner: TrialRunner | None  # None: judges by what is stored, and reads no logs
    home_id: str
    _objectives: dict[str, Objective] = field(default_factory=dict)

    def finished(self, uid: str, *, numbers: list[int] | None, below: int | None = None) -> Iterator[TrialRecord]:
        """Trials that have a verdict to revise, by number."""
        wanted = None if numbers is None else set(numbers)
        for trial in self.store.trials(uid, states=JUDGED):
            if (
                trial.attempts
                and trial.reason != REUSED
                and (wanted is None or trial.number in wanted)
                and (below is None or trial.number < below)
            ):
                yield trial

    def preview(self, uid: str, trial: TrialRecord, rereading: c.Rereading) -> Judgement:
        """What `apply` would make of it. Writes nothing."""
        attempt = self._last(uid, trial)
        if skipped := self._skipped(attempt):
            return Judgement(trial, skipped=skipped)
        read = self._read(uid, attempt, rereading, self.store.likely_origin)
        if read is None:
            return Judgement(trial, skipped="its log is not kept any more")
        kept = [
            point
            for _, point in self.store.points(uid, trial.number, attempt=attempt.attempt)
            if not any(low <= point.seq < high for low, high in read.forget)
        ]
        known = {(point.metric, point.seq) for point in kept}
        fresh = [point for point in read.points if (point.metric, point.seq) not in known]
        return Judgement(trial, after=self._conclude(uid, attempt, read.findings)(summarize([*kept, *fresh])))

    def apply(self, uid: str, trial: TrialRecord, rereading: c.Rereading | None) -> bool:
        """Revise one verdict in one transaction; whether it changed."""
        attempt = self._last(uid, trial)
        read: _Reread | None = _Reread([], Findings(), [])
        if rereading is not None:
            read = None if self._skipped(attempt) else self._read(uid, attempt, rereading, self.store.origin)
        if read is None:
            return False
        before, after = self.store.revise(
            uid,
            trial.number,
            attempt.attempt,
            self._conclude(uid, attempt, read.findings),
            points=read.points,
            forget=read.forget,
        )
        return before != after

    def amend(self, uid: str, *, actor: str) -> list[int]:
        """Give the trials of a finished experiment their late objectives, audited; their numbers. Idempotent."""
        amended = []
        for number in self.store.late(uid):
            trial = self.store.trial(uid, number)
            if self.apply(uid, trial, None):
                amended.append(number)
        if amended:
            key = f"amend-{self.store.last_revision(uid)}"
            self.store.note(uid, key=key, actor=actor, action="amend", detail={"trials": amended}, at=datetime.now(UTC))
        return amended

    def _objective(self, uid: str) -> Objective:
        if uid not in self._objectives:
            self._objectives[uid] = self.store.experiment_by_uid(uid).objective
        return self._objectives[uid]

    def _last(self, uid: str, trial: TrialRecord) -> AttemptRecord:
        return self.store.attempts(uid, trial.number)[-1]

    def _skipped(self, attempt: AttemptRecord) -> str:
        if attempt.home_id is not None and attempt.home_id != self.home_id:
            return "it ran on another host; read its log again there"
        return ""

    def _read(
        self, uid: str, attempt: AttemptRecord, rereading: c.Rereading, origin_of: Callable[[str, int, int, str], int]
    ) -> _Reread | None:
        plan = self.plans.of(uid, attempt.number, attempt.attempt)
        wanted = plan.wanted
        if rereading.filters is not None:
            wanted = dataclasses.replace(wanted, filters=tuple(rereading.filters))
        alias = rereading.metric
        if alias is not None:
            names = (alias, *(name for name in wanted.metrics[1:] if name != alias))
            wanted = dataclasses.replace(wanted, metrics=names)
        if self.runner is None:
            raise TypeError("a reviser without a runner reads no logs")
        sources = self.runner.sources(plan.launch, wanted.path)
        if not archive.exists(sources.log):
            return None
        if sources.path is not None and plan.launch.collector is not None and not archive.exists(sources.path):
            return None  # it was read in the cluster, by the collector beside the trial: only its points are kept
        with readable(sources) as (there, gaps):
            try:
                collector = collectors.create(wanted, there)
            except LaunchError as error:
                raise UsageError(error.message, error.hint) from error
            points = list(collector.finish())
            findings = collector.findings()
            forget = places_of(wanted, there, gaps)
        if sources.origin:
            ordinal = origin_of(uid, attempt.number, attempt.attempt, sources.origin)
            points, forget = list(placed(points, ordinal)), ranges_of_origin(forget, ordinal)
        if alias is not None:
            objective = plan.objective.metric
            points += self._stored_elsewhere(uid, attempt, alias, points, forget)
            points = [dataclasses.replace(p, metric=objective) if p.metric == alias else p for p in points]
        return _Reread(points, findings, forget)

    def _stored_elsewhere(
        self, uid: str, attempt: AttemptRecord, metric: str, read: list[Point], forget: list[tuple[int, int]]
    ) -> list[Point]:
        """Values of `metric` whose source is not kept: rotated away, or in the gap of an archive. They count, too."""
        known = {point.seq for point in read if point.metric == metric}
        stored = self.store.points(uid, attempt.number, attempt=attempt.attempt, metric=metric)
        return [
            point
            for _, point in stored
            if point.seq not in known and not any(low <= point.seq < high for low, high in forget)
        ]

    def _conclude(self, uid: str, attempt: AttemptRecord, findings: Findings) -> Conclude:
        objective = self._objective(uid)
        end = as_it_ended(attempt)
        ref = AttemptRef(uid, attempt.number, attempt.attempt, "")
        runs = runs_of(self.store, ref, objective, self.plans.replicates(uid))

        def conclude(summaries: Mapping[str, MetricSummary]) -> Ending:
            final = with_warnings(judged(end, objective, summaries, lambda: findings), lambda: findings.warnings)
            return ending_of(final, objective, summaries, again=False, runs=runs)

        return conclude


def as_it_ended(attempt: AttemptRecord) -> AttemptEnd:
    """What the runner said, before metrics were considered."""
    exited = attempt.state in (AttemptState.SUCCEEDED, AttemptState.METRICS_UNAVAILABLE)
    return AttemptEnd(
        state=AttemptState.SUCCEEDED if exited else attempt.state,
        reason="Succeeded" if exited else attempt.reason,
        message="" if exited else attempt.message,
        failure=None if exited else attempt.failure,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        started=attempt.started,
        ended=attempt.ended,
    )


@dataclass
class ReviseActivities:
    reviser: Reviser

    @activity.defn(name=c.ACTIVITY_REVISE)
    @translated
    async def revise(self, request: c.ReviseRequest) -> c.Revised:
        check_database(self.reviser.store, request.database_id)
        working = asyncio.ensure_future(asyncio.to_thread(self._revise, request))
        while not working.done():
            await asyncio.wait([working], timeout=HEARTBEAT_EVERY_S)
            activity.heartbeat()
        return working.result()

    def _revise(self, request: c.ReviseRequest) -> c.Revised:
        store, without = self.reviser.store, set(request.without)
        changed = [
            trial.number
            for trial in self.reviser.finished(request.uid, numbers=request.trials, below=request.below)
            if trial.number not in without and self.reviser.apply(request.uid, trial, request.rereading)
        ]
        settled = store.settled(request.uid, below=request.below, without=without)
        best = store.best(request.uid)
        return c.Revised(
            changed=changed[:CHANGED_SHOWN],
            total=len(changed),
            counts={state.value: count for state, count in settled.items()},
            best=None if best is None else best_of(best),
        )


def best_of(trial: TrialRecord) -> c.Best:
    return c.Best(
        number=trial.number,
        value=trial.objective_value,
        text=(trial.objective or "")[:200],
        told_seq=trial.told_seq or 0,
        shortfall=labels.shortfall(trial.labels),
        violation=trial.violation,
    )
