"""An algorithm and what is done around it, as one algorithm. Made by `registry.create`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import ClassVar, Literal

from algorithms.base import Session, SessionAlgorithm
from algorithms.steering.features import enumerates, steers, supported
from algorithms.steering.session import SteeredSession
from algorithms.steering.shape import inner_problem
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Algorithm, Answer, Feature, JsonDict


def around(kind: type[Algorithm], problem: SearchProblem) -> Algorithm:
    """The algorithm for this problem, steered where the problem asks for more than it does itself."""
    return _steered(kind)(problem) if steers(kind, problem) else kind(problem)


@cache
def _steered(kind: type[Algorithm]) -> type[Steered]:
    return type(f"Steered{kind.__name__}", (Steered,), {"kind": kind})


class Steered(SessionAlgorithm):
    """An algorithm and what is done around it. Subclasses name it by `kind`."""

    kind: ClassVar[type[Algorithm]]
    name: ClassVar[str]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]]

    def __init_subclass__(cls) -> None:
        cls.name, cls.on_edit, cls.supports = cls.kind.name, cls.kind.on_edit, supported(cls.kind)
        cls.reads_history = cls.kind.reads_history

    def __init__(self, problem: SearchProblem) -> None:
        super().__init__(problem)
        self._does = steers(self.kind, problem)
        self._inner = self.kind(inner_problem(problem, self._does))
        # The index of a grid that skips is in its state; whether a point is new is in the history.
        self.reads_history = (  # type: ignore[misc]
            self.kind.reads_history or Feature.ON_DUPLICATE in self._does or enumerates(self.kind)
        )

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return cls.kind.check(problem)

    def session(self) -> Session:
        return SteeredSession(self.kind, self.problem, self._does, self._session)

    def _session(self) -> Session:
        make: Callable[[], Session] | None = getattr(self._inner, "session", None)
        return AskingSession(self._inner) if make is None else make()


class AskingSession:
    """A session of an algorithm that has none: it remembers the history and asks with all of it."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._trials: dict[int, HistoryTrial] = {}

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        self._trials.update((trial.number, trial) for trial in trials)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        history = [self._trials[number] for number in sorted(self._trials) if number < first_number]
        answer = self._algorithm.ask(history, k, first_number, state)
        for index, given in enumerate(answer.assignments):
            number = first_number + index
            self._trials[number] = HistoryTrial(
                number, given.parameters, TrialState.RUNNING, labels=given.labels, meta=given.meta
            )
        return answer
