"""Trials, attempts and their outcomes, as values. Written by activities, read by every face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from evertune.domain.metrics import MetricSummary
from evertune.domain.space import Value
from evertune.domain.states import AttemptState, FailureClass, TrialState

# How a message of an attempt is made: a sentence, then what it printed last, then a line for every warning.
LAST_LINES = "; last lines:\n"
WARNING = "warning: "
REUSED = "Reused"  # the reason of a trial whose outcome is another one's (`labels.REUSED_FROM`): nothing ran


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an algorithm hands out for one trial. `meta` belongs to the algorithm and is stored with the trial.

    `labels` are for everybody to see; those with a meaning beyond the algorithm are named in `domain.labels`.
    """

    parameters: Mapping[str, Value]
    labels: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryTrial:
    """A trial as an algorithm sees it. `value` is the raw objective (never negated), None unless numeric.

    `state` is RUNNING for every trial that had not been told at the history's cut, whatever happened since:
    that is what makes an answer reproducible. A negative number: a trial of another experiment, for a warm start.

    `values` are those of all objectives, the first of which is `value`; empty where there is one. `violations`: by how
    much each outcome constraint is missed, at most 0 where it holds, infinite where its metric was not reported.
    `steps`: how many values of the objective a trial had reported when it was stopped early.
    """

    number: int
    parameters: Mapping[str, Value]
    state: TrialState
    value: float | None = None
    told_seq: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float | None, ...] = ()
    violations: tuple[float, ...] = ()
    steps: int = 0

    @property
    def feasible(self) -> bool:
        return all(violation <= 0 for violation in self.violations)


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """Names one attempt, for ever. `trial_name` is the Katib-style object name `<experiment>-<8 characters>`."""

    experiment_uid: str
    number: int
    attempt: int
    trial_name: str

    @property
    def key(self) -> str:
        return f"{self.experiment_uid}/{self.number}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended, as the runner saw it, before metrics are considered.

    `state` is SUCCEEDED, FAILED, KILLED (we stopped it) or LOST (nobody can say). `warnings` are about what ran beside
    it and does not change the outcome, a sentence each.
    """

    state: AttemptState
    reason: str
    message: str = ""
    failure: FailureClass | None = None
    exit_code: int | None = None
    signal: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What to record of an attempt that ended, metrics considered. `again`: the trial gets another attempt.

    `then`: what that one is for where this one did not fail. `violation`: by how much the constraints are missed
    together, see `Objective.violation`. `spread`: of each metric that is a mean or median of replicates, the sample
    standard deviation.
    """

    end: AttemptEnd
    again: bool = False
    then: str = ""
    charged: bool = False
    trial_state: TrialState | None = None  # None exactly while `again`
    objective: str | None = None  # as reported text
    objective_value: float | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)  # per metric by its strategy, as reported text
    violation: float = 0.0
    spread: Mapping[str, float] = field(default_factory=dict)


Conclude = Callable[[Mapping[str, MetricSummary]], Ending]
"""How an attempt ended, given the summary of every metric that it has reported by then. Pure: it may be asked twice."""
