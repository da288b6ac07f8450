"""Every algorithm with every type, distribution and step: in range, on the grid, drawn as declared, whatever the size.

The declared prior is that of the random phase: before any trial has ended nothing else is known. Seeds are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import pytest
from scipy import stats

from algorithms import registry
from algorithms.space import Codec
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.testing.play import Play, through_json
from evertune.testing.spaces import allows

DRAWS = 2000
SURE = 1e-4  # below it a deviation is no chance: some 100 tests are made

DOUBLE, INT = ParameterType.DOUBLE, ParameterType.INT
UNIFORM, LOG = Distribution.UNIFORM, Distribution.LOG_UNIFORM
NORMAL, LOG_NORMAL = Distribution.NORMAL, Distribution.LOG_NORMAL


def numbers(kind: ParameterType, name: str, low: float, high: float, step: float | None) -> list[Parameter]:
    return [
        Parameter(name=f"{kind}-{name}-{each}", type=kind, low=low, high=high, step=step, distribution=each)
        for each in Distribution
    ]


PARAMETERS = [
    *numbers(DOUBLE, "plain", 0.001, 8.0, None),
    *numbers(DOUBLE, "stepped", 0.5, 8.25, 0.5),  # the last step ends before max
    *numbers(INT, "plain", 1, 12, None),
    *numbers(INT, "stepped", 2, 30, 4),
    Parameter(name="discrete", type=ParameterType.DISCRETE, values=("0.1", "1", "10", "100")),
    Parameter(name="categorical", type=ParameterType.CATEGORICAL, values=tuple("abcdefg")),
]
BESIDE = (  # some algorithms want at least two numbers
    Parameter(name="beside-1", type=DOUBLE, low=0.0, high=1.0),
    Parameter(name="beside-2", type=INT, low=0, high=9),
)


@dataclass(frozen=True)
class Case:
    name: str
    settings: Mapping[str, str]
    follows_prior: bool = True  # its random phase draws by the declared distribution

    def problem(self, space: SearchSpace, seed: int = 3) -> SearchProblem:
        return SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=seed, settings=self.settings)


CASES = [
    Case("random", {}),
    Case("tpe", {"n_startup_jobs": "100000"}),
    Case("anneal", {}),
    Case("multivariate-tpe", {"n_startup_trials": "100000"}),
    Case("motpe", {"n_startup_trials": "100000"}),
    Case("nsgaii", {"population_size": "100000"}),
    Case("bayesianoptimization", {"n_initial_points": "100000", "base_estimator": "ET"}),
    Case("sobol", {"random_state": "3"}),
    *([Case("gp", {"n_startup_trials": "100000"})] if find_spec("torch") is not None else []),
    Case("cmaes", {}, follows_prior=False),  # begins with a normal distribution in the middle
]
MODELS = [  # the same, where they have learned
    Case("tpe", {"n_startup_jobs": "4"}),
    Case("anneal", {}),
    Case("multivariate-tpe", {"n_startup_trials": "4"}),
    Case("motpe", {"n_startup_trials": "4"}),
    Case("nsgaii", {"population_size": "4"}),
    Case("cmaes", {"restart_strategy": "bipop"}),
    Case("sobol", {}),
    Case("random", {}),
]
SLOW_MODELS = [
    Case("bayesianoptimization", {"n_initial_points": "4", "base_estimator": "ET"}),
    Case("bayesianoptimization", {"n_initial_points": "4", "base_estimator": "GBRT"}),
    Case("bayesianoptimization", {"n_initial_points": "4", "acq_func": "EI"}),
    *([Case("gp", {"n_startup_trials": "4"})] if find_spec("torch") is not None else []),
]


def by_name(case: Case) -> str:
    return "-".join((case.name, *case.settings.values()))


def asked(case: Case, parameter: Parameter, count: int) -> list[Any]:
    """Values of one parameter, of trials of which none has ended."""
    problem = case.problem(SearchSpace((parameter, *BESIDE)))
    session = registry.get(case.name)(problem).session()  # type: ignore[attr-defined]
    answer = session.ask(count, 0, None)
    return [assignment.parameters[parameter.name] for assignment in answer.assignments]


def cells(parameter: Parameter) -> list[Any]:
    if not parameter.numeric:
        return list(parameter.values)
    step = parameter.step or 1
    count = int((parameter.high - parameter.low) // step) + 1
    values = [parameter.low + index * step for index in range(count)]
    return [round(value) for value in values] if parameter.type is INT else values


def distribution(parameter: Parameter) -> Callable[[float], float]:
    """The declared distribution function, of the values before they are put on a grid."""
    low, high = parameter.low, parameter.high
    if parameter.distribution is UNIFORM:
        return lambda x: min(max((x - low) / (high - low), 0.0), 1.0)
    if parameter.distribution is LOG:
        return lambda x: min(max(math.log(max(x, low) / low) / math.log(high / low), 0.0), 1.0)
    log = parameter.distribution is LOG_NORMAL
    a, b = (math.log(low), math.log(high)) if log else (low, high)
    normal, tail = NormalDist((a + b) / 2, (b - a) / 6), NormalDist().cdf(-3)

    def truncated(x: float) -> float:
        y = math.log(max(x, low)) if log else x
        return min(max((normal.cdf(y) - tail) / (1 - 2 * tail), 0.0), 1.0)

    return truncated


def shares(parameter: Parameter) -> list[float]:
    """Of each value of a grid: the mass of the half steps around it, and equal shares where it is uniform."""
    values = cells(parameter)
    if not parameter.numeric or parameter.distribution is UNIFORM:
        return [1 / len(values)] * len(values)
    half = (parameter.step or 1) / 2
    if parameter.distribution is LOG:
        low = max(parameter.low - half, parameter.low / 2)
        whole = math.log((values[-1] + half) / low)
        return [math.log((value + half) / max(value - half, low)) / whole for value in values]
    below = distribution(parameter)
    ends = [0.0, *(below(value + half) for value in values[:-1]), 1.0]
    return [b - a for a, b in pairwise(ends)]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
@pytest.mark.parametrize("case", [case for case in CASES if case.follows_prior], ids=by_name)
@pytest.mark.slow
def test_the_random_phase_draws_as_declared(case: Case, parameter: Parameter) -> None:
    values = asked(case, parameter, DRAWS)
    assert all(allows(parameter, value) for value in values)
    if parameter.numeric and parameter.type is DOUBLE and parameter.step is None:
        below = distribution(parameter)
        chance = stats.kstest([below(value) for value in values], "uniform").pvalue
    else:
        expected = [share * len(values) for share in shares(parameter)]  # gp ends at a thousand
        chance = stats.chisquare([values.count(value) for value in cells(parameter)], expected).pvalue
    assert chance > SURE


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_every_kind_is_in_range_and_on_its_grid_before_anything_is_known(case: Case) -> None:
    for parameter in PARAMETERS:
        assert all(allows(parameter, value) for value in asked(case, parameter, 25))


def learned(case: Case, space: SearchSpace, trials: int) -> Play:
    """A kept session whose trials end well, one with a value beyond all others, one with none, one badly."""
    session = registry.get(case.name)(case.problem(space)).session()  # type: ignore[attr-defined]
    seen: list[HistoryTrial] = []

    def ask(history: Any, k: int, first: int, state: Any) -> Any:
        session.update([trial for index, trial in enumerate(history) if index >= len(seen) or trial != seen[index]])
        seen[:] = history
        return session.ask(k, first, state)

    play = Play(ask)
    odd = {3: (TrialState.SUCCEEDED, 1e307), 5: (TrialState.SUCCEEDED, math.nan), 6: (TrialState.FAILED, None)}
    for number in range(trials):
        if not play.suggest(1).assignments:
            break
        state, value = odd.get(number, (TrialState.SUCCEEDED, math.sin(number)))
        play.tell(number, state, value)
    return play


def check_all(space: SearchSpace, play: Play) -> None:
    for trial in play.trials:
        wrong = {
            each.name: trial.parameters[each.name] for each in space if not allows(each, trial.parameters[each.name])
        }
        assert not wrong
        assert through_json(dict(trial.parameters)) == dict(trial.parameters)
        assert through_json(dict(trial.meta)) == dict(trial.meta)


@pytest.mark.parametrize("case", MODELS, ids=by_name)
def test_every_kind_is_in_range_and_on_its_grid_when_it_has_learned(case: Case) -> None:
    space = SearchSpace((*PARAMETERS, *BESIDE))
    check_all(space, learned(case, space, 24))


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_MODELS, ids=by_name)
def test_every_kind_is_in_range_and_on_its_grid_when_a_slow_model_has_learned(case: Case) -> None:
    space = SearchSpace((*PARAMETERS, *BESIDE))
    check_all(space, learned(case, space, 9))


@pytest.mark.parametrize("case", MODELS, ids=by_name)
def test_a_space_of_one_point_gives_that_point(case: Case) -> None:
    space = SearchSpace(
        (
            Parameter(name="a", type=DOUBLE, low=0.25, high=0.25),
            Parameter(name="b", type=INT, low=4, high=4),
            Parameter(name="c", type=ParameterType.CATEGORICAL, values=("only",)),
        )
    )
    play = learned(case, space, 8)
    assert play.parameters == [{"a": 0.25, "b": 4, "c": "only"}] * len(play.trials)
    assert len(play.trials) == 8


@pytest.mark.parametrize("case", MODELS, ids=by_name)
def test_a_space_of_six_points_is_searched_on_and_on(case: Case) -> None:
    space = SearchSpace(
        (
            Parameter(name="a", type=INT, low=1, high=3),
            Parameter(name="b", type=DOUBLE, low=0.0, high=0.5, step=0.5),
        )
    )
    play = learned(case, space, 40)
    check_all(space, play)
    assert len(play.trials) == 40


WIDE = SearchSpace(tuple(Parameter(name=f"p{index}", type=DOUBLE, low=0.0, high=1.0 + index) for index in range(200)))
LONG = SearchSpace(
    (
        Parameter(
            name="long", type=ParameterType.CATEGORICAL, values=tuple(f"value {index}" for index in range(10_000))
        ),
        *BESIDE,
    )
)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*MODELS, SLOW_MODELS[0], *SLOW_MODELS[3:]], ids=by_name)
@pytest.mark.parametrize("space", [WIDE, LONG], ids=["200 parameters", "10,000 values"])
def test_large_spaces_are_searched(case: Case, space: SearchSpace) -> None:
    play = learned(case, space, 8)
    assert len(play.trials) == 8
    check_all(space, play)
    assert len({str(sorted(parameters.items())) for parameters in play.parameters}) >= 6  # a child may be its parent


@pytest.mark.parametrize("case", [*CASES, *MODELS, *SLOW_MODELS], ids=by_name)
def test_the_settings_of_these_cases_are_accepted(case: Case) -> None:
    problem = case.problem(SearchSpace((*PARAMETERS, *BESIDE)))
    assert Codec.of(problem.space).free
    assert list(registry.check(case.name, problem)) == []
