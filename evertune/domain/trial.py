"""Trials, attempts and their outcomes, as values. Written by activities, read by every face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from evertune.domain.space import Value
from evertune.domain.states import AttemptState, FailureClass, TrialState


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an algorithm hands out for one trial. `meta` belongs to the algorithm and is stored with the trial."""

    parameters: Mapping[str, Value]
    labels: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryTrial:
    """A trial as an algorithm sees it. `value` is the raw objective (never negated), None unless numeric.

    `state` is RUNNING for every trial that had not been told at the history's cut, whatever happened since:
    that is what makes an answer reproducible.
    """

    number: int
    parameters: Mapping[str, Value]
    state: TrialState
    value: float | None = None
    told_seq: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


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

    `state` is SUCCEEDED, FAILED, KILLED (we stopped it) or LOST (nobody can say).
    """

    state: AttemptState
    reason: str
    message: str = ""
    failure: FailureClass | None = None
    exit_code: int | None = None
    signal: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
