"""One moment of a running experiment, and the reader that keeps it up to date from the database.

The database outlives worker and Temporal, so following one works across restarts of both. Each poll reads the
experiment, the trials that ended since the last one, and the running ones; never all trials again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from evertune.domain.labels import shortfall
from evertune.domain.metrics import Objective
from evertune.domain.records import AuditRecord, ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState, TrialState

if TYPE_CHECKING:
    from evertune.store import Store

EVENTS = 8
RECENT = 20  # trial ends that the estimate looks back on, or three waves
MOST_ENDS = 3000
BATCH = 5000


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, and what it meant for the best value."""

    trial: TrialRecord
    best: TrialRecord | None  # after it
    new_best: bool = False
    before: float | None = None  # the best value until then
    revised: bool = False  # it had ended before; its verdict is another one now


@dataclass(frozen=True)
class RunningTrial:
    trial: TrialRecord
    step: int = 0  # how many objective values it has reported
    value: str | None = None  # the last one
    further: Mapping[str, str] = field(default_factory=dict)  # the last values of the other objectives


@dataclass(frozen=True)
class Snapshot:
    record: ExperimentRecord
    at: datetime
    running: Sequence[RunningTrial] = ()
    events: Sequence[Ended] = ()  # the last ones, oldest first
    curve: Sequence[float] = ()  # best so far, in the order of trials' ends
    eta_s: float | None = None
    busy_s: float = 0.0  # slot seconds of finished trials
    audit: Sequence[AuditRecord] = ()
    trouble: str = ""  # one sentence when something is not as usual
    url: str | None = None
    title: str = ""
    you: str = ""  # the reader's name in the audit


@dataclass
class Follower:
    """Polls one experiment. `fresh` holds the trials that ended since the poll before, `last` what it returned."""

    store: Store
    uid: str
    title: str = ""
    url: str | None = None
    you: str = ""
    fresh: list[Ended] = field(default_factory=list)
    last: Snapshot | None = None
    _told: int = 0
    _seen: set[int] = field(default_factory=set)  # trials that have ended; one that is told again was revised
    _best: TrialRecord | None = None
    _curve: list[float] = field(default_factory=list)
    _events: deque[Ended] = field(default_factory=lambda: deque(maxlen=EVENTS))
    _ends: deque[datetime] = field(default_factory=lambda: deque(maxlen=MOST_ENDS))
    _busy_s: float = 0.0
    _audit: list[AuditRecord] = field(default_factory=list)
    _audited: ExperimentState | None = None

    def poll(self, now: datetime | None = None) -> Snapshot:
        at = now or datetime.now(UTC)
        record = self.store.experiment_by_uid(self.uid)
        self.fresh = []
        while batch := self.store.told_trials(self.uid, after=self._told, limit=BATCH):
            self.fresh += [self._take(trial, record.objective) for trial in batch]
            if len(batch) < BATCH:
                break
        if record.state is not self._audited:
            self._audited, self._audit = record.state, self.store.audit(self.uid)
        running = [] if record.state.terminal else self._running(record.objective)
        self.last = Snapshot(
            record=record,
            at=at,
            running=running,
            events=tuple(self._events),
            curve=tuple(self._curve),
            eta_s=self._eta(record, at),
            busy_s=self._busy_s,
            audit=tuple(self._audit),
            title=self.title,
            url=self.url,
            you=self.you,
        )
        return self.last

    def _better(self, trial: TrialRecord, value: float, before: float, objective: Objective) -> bool:
        """Than the best so far: it misses constraints by less, then had more of its resource, then has more to show."""
        assert self._best is not None
        mine, best = ((each.violation, shortfall(each.labels)) for each in (trial, self._best))
        return mine < best or (mine == best and objective.better(value, before))

    def _take(self, trial: TrialRecord, objective: Objective) -> Ended:
        assert trial.told_seq is not None
        self._told = trial.told_seq
        revised = trial.number in self._seen
        self._seen.add(trial.number)
        before = self._best.objective_value if self._best else None
        if revised and self._best is not None and self._best.number == trial.number:
            self._best = self.store.best(self.uid)  # it may have got worse: then another one is the best
        value = trial.objective_value
        new_best = value is not None and (before is None or self._better(trial, value, before, objective))
        if new_best or (self._best is None and trial.objective is not None):
            self._best = trial
        if self._best is not None and self._best.objective_value is not None:
            self._curve.append(self._best.objective_value)
        if trial.ended is not None and not revised:
            self._ends.append(trial.ended)
            if trial.started is not None:
                self._busy_s += max((trial.ended - trial.started).total_seconds(), 0.0)
        ended = Ended(trial, self._best, new_best, before, revised)
        self._events.append(ended)
        return ended

    def _running(self, objective: Objective) -> list[RunningTrial]:
        trials = self.store.trials(self.uid, states=[TrialState.RUNNING])
        reported = self.store.progress(self.uid, objective.metric)
        further = objective.objectives[1:] if trials else ()
        others = {metric: self.store.progress(self.uid, metric) for metric in further}
        return [
            RunningTrial(
                trial,
                step,
                value,
                {metric: known[trial.number][1] for metric, known in others.items() if trial.number in known},
            )
            for trial in trials
            for step, value in (reported.get(trial.number, (0, None)),)
        ]

    def _eta(self, record: ExperimentRecord, now: datetime) -> float | None:
        """Seconds to the end of the budget at the recent pace; None when nobody can say."""
        limit, done = record.budget.max_trials, record.counts.finished
        if limit is None or record.state is not ExperimentState.RUNNING or not self._ends or record.started is None:
            return None
        ends = sorted(self._ends)[-max(RECENT, 3 * record.budget.parallel) :]
        # Trials that start together end together: measured from the first end, a first wave would take no time at all.
        since, count = (record.started, len(ends)) if len(ends) == len(self._seen) else (ends[0], len(ends) - 1)
        waited = (now - since).total_seconds() / (count + record.budget.parallel)  # it went faster once
        pace = max((ends[-1] - since).total_seconds() / max(count, 1), waited)
        overdue = max((now - ends[-1]).total_seconds(), 0.0)
        return max((limit - done) * pace - min(overdue, pace), 0.0)
