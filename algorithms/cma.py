"""cmaes: the covariance matrix adaptation of the package `cmaes`, with restarts that work.

A generation's points are independent draws, so that any number of trials may run at a time. As soon as as many of them
as the population has have succeeded, the first of them to end are told, and the next generation begins; what comes
later of an old one is not told any more. Failed and stopped trials are replaced by new draws.

The search is in the unit cube over all numbers (`space.from_quantile`). What was drawn is kept in the trial's meta, so
that nothing of it is lost to rounding, and the distribution is that of replaying the generations: nothing of it is
stored. `Answer.state` is the generator alone. Categorical and discrete parameters are drawn at random, as in Katib.

- CMA-ES: Hansen 2016, "The CMA Evolution Strategy: A Tutorial".
- `ipop`: Auger & Hansen 2005: after convergence again from elsewhere, with twice the population.
- `bipop`: Hansen 2009: in turn with small populations, whichever of the two has had fewer trials.
- Warm start: Nomura et al. 2021: begins with the distribution of the best tenth of another experiment.

Departures from Katib: what is maximised is negated, distributions are searched as such (its service takes all as
uniform), the seed is drawn unless given (0 in Katib), and trials are recognised after a restart of the process.
Pinned here and nowhere else: `CMA._rng`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from algorithms import cautions, limits
from algorithms.base import Session, SessionAlgorithm, loss_of
from algorithms.native import bounded, packed, quiet, unpack
from algorithms.settings import Rule, choice, is_float, is_signed, settings_problems
from algorithms.space import Codec, Dimension, Kind, Raw, from_quantile, to_quantile
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

FIRST_SIGMA = 1 / 6  # of the unit cube, Katib's (max - min) / 6
FACTOR = 2  # of the population after each restart
_GENERATION, _DRAWN = "generation", "drawn"  # in a trial's meta: which one it is of, and its point of the cube

SETTINGS: Mapping[str, Rule] = {
    "random_state": Rule("a whole number", is_signed, "seed of the search", "drawn and stored"),
    "sigma": Rule(
        "a number", is_float(lambda value: True), "first step, in units of the narrowest range", "a sixth of the ranges"
    ),
    "restart_strategy": choice("what follows when the search has converged", "none", "none", "ipop", "bipop"),
}


class CmaEs(SessionAlgorithm):
    name: ClassVar[str] = "cmaes"
    about: ClassVar[str] = "Adapts a normal distribution to the best points: for many trials over numbers alone."
    advice: ClassVar[str] = "From some 100 trials on; parallelTrialCount up to the population, 4 + 3 ln(parameters)."
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = SessionAlgorithm.supports
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS
    knows_others: ClassVar[bool] = True  # they are no draws of its own generations, but give it where to begin

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        found = [
            *settings_problems(cls.name, problem, SETTINGS, others=True),
            *limits.problems_of(problem.space),
        ]
        numeric = sum(parameter.numeric for parameter in problem.space)
        if numeric < 2:
            message = f"cmaes needs at least two parameters of type double or int; got {numeric}"
            hint = "take another algorithm, such as tpe"
            found.append(Problem(path="spec.parameters", type="Invalid", message=message, hint=hint))
        return found

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        numbers, _ = cube(Codec.of(problem.space))
        if not numbers:  # each has one value
            return []
        size = first_population(len(numbers))
        why = f"the first generation of cmaes has {size} trials: its distribution never adapts"
        return cautions.never_learns(problem, size, why, "or multivariate-tpe")

    def search(self) -> Session:
        return CmaSession(self.problem)


class CmaSession:
    """The distribution of the current generation, and what has ended of it."""

    def __init__(self, problem: SearchProblem) -> None:
        import numpy as np

        self._problem = problem
        self._codec = Codec.of(problem.space)
        self._numbers, self._lists = cube(self._codec)
        self._generator = np.random.RandomState(problem.seed)
        self._runs: Runs | None = None
        self._told: dict[int, list[HistoryTrial]] = {}  # that succeeded, by generation; of a warm start by -1
        self._refused = (-1, 0)  # the last number that was, and how often

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            if trial.state is not TrialState.SUCCEEDED or loss_of(trial, self._problem.direction) is None:
                continue
            generation = -1 if trial.number < 0 else trial.meta.get(_GENERATION, -2)  # -2: not a draw of ours
            if generation == -1 or generation >= (self._runs.generation if self._runs is not None else 0):
                self._told.setdefault(generation, []).append(trial)

    def refuse(self, number: int) -> None:
        self._refused = (number, self._refused[1] + 1 if self._refused[0] == number else 1)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        from threadpoolctl import threadpool_limits

        independent = self._problem.independent
        if state is not None and not independent:
            unpack(self._generator, state["generator"])
        with quiet(), threadpool_limits(1):  # with more threads the last bits differ, and soon the points
            if self._numbers:
                self._advance()
            assignments = tuple(self._draw(number) for number in range(first_number, first_number + k))
        return Answer(assignments=assignments, state=None if independent else {"generator": packed(self._generator)})

    def _draw(self, number: int) -> Assignment:
        import numpy as np

        seed = [self._problem.seed, number, self._refused[1] if self._refused[0] == number else 0]
        if self._problem.independent:
            self._generator.seed(seed)
        luck = np.random.default_rng(seed)
        raw: dict[str, Raw] = {each.name: int(luck.integers(each.count)) for each in self._lists}
        meta: JsonDict = {}
        if self._runs is not None:
            drawn = self._runs.draw(self._generator)
            raw |= {each.name: from_quantile(each, share) for each, share in zip(self._numbers, drawn, strict=True)}
            meta = {_GENERATION: self._runs.generation, _DRAWN: drawn}
        return Assignment(self._codec.decode(raw), meta=meta)

    def _advance(self) -> None:
        """Tell every generation that is complete, and forget its trials."""
        if self._runs is None:
            self._runs = Runs(self._problem, self._solutions(self._told.pop(-1, [])))
        while len(ended := self._told.get(self._runs.generation, [])) >= self._runs.population:
            del self._told[self._runs.generation]
            ended.sort(key=lambda trial: (trial.told_seq or 0, trial.number))
            self._runs.tell([(trial.meta[_DRAWN], self._loss(trial)) for trial in ended[: self._runs.population]])

    def _solutions(self, trials: Iterable[HistoryTrial]) -> list[tuple[list[float], float]]:
        """Of a warm start: the points that are of this space."""
        return [
            ([to_quantile(each, each.encode(trial.parameters[each.name])) for each in self._numbers], self._loss(trial))
            for trial in trials
            if all(each.covers(trial.parameters.get(each.name)) for each in self._numbers)
        ]

    def _loss(self, trial: HistoryTrial) -> float:
        loss = loss_of(trial, self._problem.direction)
        assert loss is not None, "only those with one are kept"
        return bounded(loss)


class Runs:
    """One CMA after the other, as `restart_strategy` says. What it draws comes from a generator that is given."""

    def __init__(self, problem: SearchProblem, source: Sequence[tuple[list[float], float]] = ()) -> None:
        self._problem = problem
        numbers, _ = cube(Codec.of(problem.space))
        self._dimensions = len(numbers)
        self._strategy = problem.settings.get("restart_strategy", "none")
        self._sigma = first_sigma(problem, numbers)
        self.generation = 0  # of all runs
        self._restarts, self._doublings = 0, 0
        self._trials = {"small": 0, "large": 0}  # of bipop's two kinds; the first run counts as a small one
        self._kind = "small"
        self._cma = self._begun(source)
        self._first_population = self.population

    @property
    def population(self) -> int:
        return int(self._cma.population_size)

    def draw(self, generator: Any) -> list[float]:
        self._cma._rng = generator
        drawn: list[float] = self._cma.ask().tolist()
        return drawn

    def tell(self, solutions: Sequence[tuple[Sequence[float], float]]) -> None:
        import numpy as np

        self._cma.tell([(np.array(point), loss) for point, loss in solutions])
        self.generation += 1
        if self._strategy != "none" and self._cma.should_stop():
            self._restart()

    def _begun(self, source: Sequence[tuple[list[float], float]]) -> Any:
        import cmaes
        import numpy as np

        bounds = np.array([[0.0, 1.0]] * self._dimensions)
        if not source:
            return cmaes.CMA(mean=np.full(self._dimensions, 0.5), sigma=self._sigma, bounds=bounds)
        solutions = [(np.array(point), loss) for point, loss in source]
        mean, sigma, covariance = cmaes.get_warm_start_mgd(solutions, gamma=max(0.1, 1 / len(solutions)))
        return cmaes.CMA(mean=np.clip(mean, 0.0, 1.0), sigma=sigma, bounds=bounds, cov=covariance)

    def _restart(self) -> None:
        import cmaes
        import numpy as np

        self._restarts += 1
        luck = np.random.default_rng([self._problem.seed, self._restarts])
        self._trials[self._kind] += self.population * self._cma.generation
        if self._strategy == "bipop" and self._trials["small"] < self._trials["large"]:
            self._kind = "small"
            population = math.floor(self._first_population * (FACTOR**self._doublings) ** (luck.random() ** 2))
        else:
            self._kind = "large"
            self._doublings += 1
            population = self._first_population * FACTOR**self._doublings
        self._cma = cmaes.CMA(
            mean=luck.random(self._dimensions),
            sigma=self._sigma,
            bounds=np.array([[0.0, 1.0]] * self._dimensions),
            population_size=population,
        )


def cube(codec: Codec) -> tuple[list[Dimension], list[Dimension]]:
    """The dimensions that are searched, and those that are drawn at random."""
    numbers = [dimension for dimension in codec.free if dimension.kind is not Kind.CHOICE]
    return numbers, [dimension for dimension in codec.free if dimension.kind is Kind.CHOICE]


def first_population(dimensions: int) -> int:
    """Hansen's default, equation 48 of the tutorial, which the library takes."""
    return 4 + math.floor(3 * math.log(dimensions))


def first_sigma(problem: SearchProblem, numbers: Sequence[Dimension]) -> float:
    """Of the unit cube. Katib's setting is in the units of the parameters, and its default a sixth of the narrowest."""
    given = float(problem.settings.get("sigma", "0"))
    narrowest = min(dimension.parameter.high - dimension.parameter.low for dimension in numbers)
    return min(given / narrowest, 1.0) if given > 0 else FIRST_SIGMA
