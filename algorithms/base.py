"""What the built-in algorithms share: sessions that a warm process may keep, and the checks of settings.

A session is an algorithm's working memory for one experiment. `ask` of the protocol is a new session fed with the whole
history, so what a kept session answers is by construction what a rebuilt one would: both run the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Protocol

from algorithms.space import Codec
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.protocols import Answer, Feature, JsonDict


class Session(Protocol):
    def update(self, trials: Iterable[HistoryTrial]) -> None:
        """Take trials that are new or have changed, by ascending number, those of its own answers included."""
        ...

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        """As `Algorithm.ask`. From then on the session takes its answer as given: when that was not committed, the
        session must be thrown away."""
        ...


class RefusingSession(Session, Protocol):
    """Of algorithms that support parameterConstraints: what they give may be refused."""

    def refuse(self, number: int) -> None:
        """What was just given for trial `number`, the last of the answer, cannot be run: the next ask is for the same
        number and is to give something else."""
        ...


class ConstantSession:
    """For a space where every parameter has one value: the libraries refuse a space without dimensions."""

    def __init__(self, space: SearchSpace) -> None:
        self._assignment = Assignment(Codec.of(space).decode({}))

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        pass

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=(self._assignment,) * k)


class SessionAlgorithm:
    """Base of algorithms that work through sessions. Subclasses define `search`."""

    reads_history: ClassVar[bool]
    supports: ClassVar[frozenset[Feature]] = frozenset()

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem

    def search(self) -> Session:
        """A new session of the library, for a space with at least one dimension."""
        raise TypeError(f"{type(self).__name__} must define search()")

    def session(self) -> Session:
        return self.search() if Codec.of(self.problem.space).free else ConstantSession(self.problem.space)

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        session = self.session()
        session.update(sorted(history, key=lambda trial: trial.number))
        return session.ask(k, first_number, state)


def loss_of(trial: HistoryTrial, direction: ObjectiveType) -> float | None:
    """The value to be minimised, None when the trial has none to tell: running, failed, or not a finite number.

    As in Katib a trial that was stopped early tells its last value, and one that was killed does not: somebody
    stopped it for a reason that is not the search's.
    """
    if trial.state not in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED):
        return None
    if trial.value is None or not math.isfinite(trial.value):
        return None
    return -trial.value if direction is ObjectiveType.MAXIMIZE else trial.value


def setting(settings: Mapping[str, str], name: str, default: float) -> float:
    text = settings.get(name)
    return default if text is None else float(text)
