"""sobol: points of a low-discrepancy sequence, which fill the space more evenly than chance.

scipy's Sobol points (Joe & Kuo 2008), one dimension per parameter in the space's order. Point i is computed from i
alone: nothing is told and nothing is kept.

- With `random_state` the points are scrambled by it (Owen 1998): trial i is row i of
  `scipy.stats.qmc.Sobol(dimensions, rng=default_rng(random_state)).random(n)`.
- Without it they are the plain sequence without its first point, the corner of zeros: as Katib's, the first
  trial is the centre of the space.

Departures from Katib: distributions and steps are kept, and the last value of an int comes up (its service never gives
the upper bound); dimensions are in the order of the spec and not of the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from algorithms import limits
from algorithms.base import Session, SessionAlgorithm
from algorithms.native import quiet
from algorithms.space import Codec, from_quantile
from evertune.domain.setting import RANDOM_STATE, Rule, settings_problems
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import BLIND, Answer, Feature, JsonDict

MOST_DIMENSIONS = 21201  # of scipy's table

SETTINGS: Mapping[str, Rule] = {
    "random_state": Rule(
        RANDOM_STATE.must_be, RANDOM_STATE.allows, "seed of the scrambling", "none: the plain sequence, centre first"
    ),
}


class Sobol(SessionAlgorithm):
    name: ClassVar[str] = "sobol"
    about: ClassVar[str] = "A low-discrepancy sequence: covers the space evenly, better than random and as cheap."
    advice: ClassVar[str] = "Any budget, best a power of two; any parallelTrialCount."
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = False
    supports: ClassVar[frozenset[Feature]] = BLIND | {Feature.NAS_CONFIG}
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        found = [
            *settings_problems(cls.name, problem.settings, SETTINGS, others=True),
            *limits.problems_of(problem.space),
        ]
        if len(problem.space) > MOST_DIMENSIONS:
            message = f"sobol takes at most {MOST_DIMENSIONS:,} parameters; got {len(problem.space)}"
            found.append(Problem(path="spec.parameters", type="Invalid", message=message, hint="take random"))
        return found

    def search(self) -> Session:
        return SobolSession(self.problem)


class SobolSession:
    def __init__(self, problem: SearchProblem) -> None:
        self._codec = Codec.of(problem.space)
        self._seed = problem.seed if "random_state" in problem.settings else None
        self._engine = sobol_engine(len(self._codec.free), self._seed)
        self._skipped = 0 if self._seed is not None else 1  # the corner of zeros
        self._refused: tuple[int, int] = (-1, 0)

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        pass

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=tuple(self._point(number) for number in range(first_number, first_number + k)))

    def refuse(self, number: int) -> None:
        """The next point for this number is the number's of a sequence that is scrambled anew; no other one changes."""
        self._refused = (number, self._refused[1] + 1 if self._refused[0] == number else 1)

    def _point(self, number: int) -> Assignment:
        engine, index = self._engine, number + self._skipped
        if number == self._refused[0]:
            engine = sobol_engine(len(self._codec.free), [self._seed or 0, *self._refused])
        if engine.num_generated > index:
            engine.reset()
        if engine.num_generated < index:
            engine.fast_forward(index - engine.num_generated)
        (row,) = _next(engine)
        return Assignment(
            self._codec.decode(
                {
                    dimension.name: from_quantile(dimension, float(share))
                    for dimension, share in zip(self._codec.free, row, strict=True)
                }
            )
        )


def sobol_engine(dimensions: int, seed: int | list[int] | None) -> Any:
    import numpy as np
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, scramble=seed is not None, rng=np.random.default_rng(seed))


def _next(engine: Any) -> Any:
    """One row. scipy warns that one is not a power of two."""
    with quiet():
        return engine.random(1)
