"""auto: takes one of the other algorithms, by space, budget, parallelism and objectives, and says why in a sentence.

Resolved where an experiment is admitted, and stored with it: a later version that would choose otherwise changes
nothing that runs. The rules follow what was measured (docs/algorithms.md): which algorithm is best after the budget at
hand, not which is best in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from algorithms import drawing, limits
from evertune.domain.setting import RANDOM_STATE, Rule, settings_problems
from evertune.domain.space import ParameterType, SearchProblem
from evertune.domain.trial import HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

NAME = "auto"
SETTINGS: Mapping[str, Rule] = {"random_state": RANDOM_STATE}

FEW_TRIALS = 10  # a model would have no time to learn
MODEL_TRIALS = 60  # so long a Gaussian process is ahead of the others, and its asks stay below a second
MODEL_DIMENSIONS = 12
MODEL_PARALLEL = 4  # each pending trial costs it a fit more
EVOLUTION_TRIALS = 300  # so many generations need
NETWORKS = 40


@dataclass(frozen=True, slots=True)
class Choice:
    algorithm: str
    why: str


class Auto:
    """The name and its rules; `registry.create` makes what `choose` takes instead."""

    name: ClassVar[str] = NAME
    about: ClassVar[str] = "Takes one of the others by space, budget, parallelism and objectives, and says why."
    advice: ClassVar[str] = "Any budget; give maxTrialCount, since that decides most."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "restart"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = frozenset(Feature)

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        from algorithms import registry

        return [
            *settings_problems(NAME, problem.settings, SETTINGS),
            *registry.check(choose(problem).algorithm, replace(problem, settings={})),
        ]

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        from algorithms import registry

        return registry.create(choose(self._problem).algorithm, self._problem).ask(history, k, first_number, state)


def choose(problem: SearchProblem) -> Choice:
    """The same for the same problem. Asks nothing of any library."""
    budget = problem.max_trials
    trials = f"{budget} trial{'s' * (budget != 1)}" if budget is not None else "no limit of trials"
    if problem.nas is not None:
        if budget is not None and budget < NETWORKS:
            return Choice("random", f"with {trials} a search of networks has nothing to learn from")
        return Choice("nas-evolution", "regularised evolution finds the best networks at any parallelism")
    if len(problem.all_directions) > 1:
        return Choice("motpe", f"{len(problem.all_directions)} objectives; its fronts are the best at these budgets")
    if _bound(problem):
        return Choice("multivariate-tpe", f"it handles {_bound(problem)} itself")
    # A space too fine to be counted is refused by whoever searches it.
    points = None if limits.problems_of(problem.space) else drawing.count(problem.space)
    if points is not None and budget is not None and points <= budget:
        return Choice("grid", f"{trials} are enough for all {points} combinations")
    if budget is not None and budget <= FEW_TRIALS:
        return Choice("sobol", f"{trials} are too few for a model: they are spread evenly")
    free = [parameter for parameter in problem.space if parameter.low != parameter.high or len(parameter.values) > 1]
    if (
        budget is not None
        and budget <= MODEL_TRIALS
        and len(free) <= MODEL_DIMENSIONS
        and problem.parallel <= MODEL_PARALLEL
    ):
        return Choice("bayesianoptimization", f"with {trials}, {problem.parallel} at a time, its model learns fastest")
    continuous = all(parameter.type is ParameterType.DOUBLE and parameter.step is None for parameter in free)
    if continuous and len(free) > 1 and budget is not None and budget >= max(EVOLUTION_TRIALS, 50 * len(free)):
        return Choice("cmaes", f"all {len(free)} parameters are continuous, and {trials} are many generations")
    return Choice("multivariate-tpe", f"the best all-rounder for {len(free)} parameters and {trials}")


def _bound(problem: SearchProblem) -> str:
    """What the problem has that few algorithms can do themselves."""

    def every() -> Iterator[str]:
        if problem.space.conditional:
            yield "conditional parameters"
        if problem.constraints:
            yield "constraints on metrics"
        if problem.warm_start:
            yield "trials of other experiments"

    return " and ".join(every())
