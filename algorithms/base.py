"""What the built-in algorithms share: sessions that a warm process may keep, and the checks of settings.

A session is an algorithm's working memory for one experiment. `ask` of the protocol is a new session fed with the whole
history, so what a kept session answers is by construction what a rebuilt one would: both run the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Answer, JsonDict


class Session(Protocol):
    def update(self, trials: Iterable[HistoryTrial]) -> None:
        """Take trials that are new or have changed, by ascending number."""
        ...

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer: ...


class SessionAlgorithm:
    """Base of algorithms that work through sessions. Subclasses define `session`."""

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem

    def session(self) -> Session:
        raise TypeError(f"{type(self).__name__} must define session()")

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        session = self.session()
        session.update(sorted(history, key=lambda trial: trial.number))
        return session.ask(k, first_number, state)


def loss_of(trial: HistoryTrial, direction: ObjectiveType) -> float | None:
    """The value to be minimised, None when the trial has none to tell: running, failed, or not a finite number.

    Early-stopped and killed trials tell their last value, as Katib's services do.
    """
    if trial.state in (TrialState.CREATED, TrialState.RUNNING, TrialState.FAILED, TrialState.METRICS_UNAVAILABLE):
        return None
    if trial.value is None or not math.isfinite(trial.value):
        return None
    return -trial.value if direction is ObjectiveType.MAXIMIZE else trial.value


def setting(settings: Mapping[str, str], name: str, default: float) -> float:
    text = settings.get(name)
    return default if text is None else float(text)
