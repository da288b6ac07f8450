"""What an assignment must be: within the constraints over parameters, and new where that is wanted.

Used by `session`, which tells it of every trial that was given or has ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from algorithms.steering.shape import Values
from evertune.domain.expressions import Expression, parse
from evertune.domain.labels import REUSED_FROM
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError
from evertune.protocols import Feature


class Rules:
    """What an assignment must be: within the constraints, and new where that is wanted."""

    def __init__(self, problem: SearchProblem, does: frozenset[Feature]) -> None:
        self._space = problem.space
        self._texts = problem.parameter_constraints if Feature.PARAMETER_CONSTRAINTS in does else ()
        self._constraints = [_parsed(text) for text in self._texts]
        self._duplicates = problem.on_duplicate if Feature.ON_DUPLICATE in does else "run"
        self._given: dict[str, int] = {}  # by its parameters, the first trial that has them
        self._done: dict[str, int] = {}  # the same, of those that succeeded with a value

    def __str__(self) -> str:
        return f"parameterConstraints ({'; '.join(self._texts)})" if self._texts else "onDuplicate: resample"

    @property
    def end(self) -> str:
        """Why a grid has no more."""
        return f"all combinations that satisfy {self} were tried" if self._texts else "all combinations were tried"

    @property
    def besides(self) -> str:
        return f" and satisfies {self}" if self._texts else ""

    @property
    def new_only(self) -> bool:
        return self._duplicates == "resample"

    @property
    def strict(self) -> bool:
        return bool(self._constraints) or self.new_only

    def see(self, trials: Iterable[HistoryTrial]) -> None:
        if self._duplicates == "run":
            return
        for trial in trials:
            if trial.number < 0:
                continue
            self.give(trial.parameters, trial.number)
            if trial.state is TrialState.SUCCEEDED and trial.value is not None:
                key = _key(trial.parameters)
                self._done[key] = min(trial.number, self._done.get(key, trial.number))

    def give(self, parameters: Values, number: int) -> None:
        if self._duplicates != "run":
            self._given.setdefault(_key(parameters), number)

    def allow(self, parameters: Values) -> bool:
        if self.new_only and _key(parameters) in self._given:
            return False
        typed = self._space.typed(parameters)
        return all(constraint.holds(typed) for constraint in self._constraints)

    def labels(self, parameters: Values) -> dict[str, str]:
        if self._duplicates != "reuse":
            return {}
        number = self._done.get(_key(parameters))
        return {} if number is None else {REUSED_FROM: str(number)}


def _parsed(text: str) -> Expression:
    try:
        return parse(text)
    except ValueError as error:  # it was checked at admission
        raise AlgorithmError(f'the constraint "{text}" cannot be read: {error}') from error


def _key(parameters: Values) -> str:
    return repr(sorted(parameters.items()))
