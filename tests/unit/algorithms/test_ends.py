"""Which algorithms may come to where they have nothing more to suggest, by what they say and by what they do."""

from __future__ import annotations

from typing import Any

import pytest

from algorithms import registry
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.testing.play import Play
from tests.unit.algorithms.test_planners import POPULATION
from tests.unit.algorithms.test_planners import problem as planned

FINITE = SearchSpace((Parameter(name="y", type=ParameterType.INT, low=1, high=9),))
CONTINUOUS = SearchSpace((Parameter(name="x", type=ParameterType.DOUBLE, low=0.0, high=1.0),))


def problem(space: SearchSpace, **changes: Any) -> SearchProblem:
    return SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=5, **changes)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("hyperband", planned(settings={"r_l": "3"})),
        ("bohb", planned(settings={"r_l": "3"})),
        ("asha", planned(settings={"r_l": "3"})),
        ("asha", planned(settings={"r_l": "3", "max_configs": "5"})),
        ("pbt", planned(POPULATION, settings={"n_population": "4"})),
        ("pbt", planned(POPULATION, settings={"n_population": "4", "generations": "2"})),
        ("grid", problem(FINITE)),
        ("sobol", problem(FINITE)),
        ("random", problem(FINITE)),
        ("random", problem(FINITE, on_duplicate="resample")),
        ("random", problem(CONTINUOUS, on_duplicate="resample")),
    ],
)
def test_what_may_come_to_its_end_says_so_and_nothing_else_does(name: str, given: SearchProblem) -> None:
    game = Play(lambda *question: registry.create(name, given).ask(*question))
    ended = False
    while not ended and len(game.trials) < 60:
        ended = game.suggest(1).exhausted
        for number in game.running():
            game.tell(number, TrialState.SUCCEEDED, float(number))
    assert registry.ends(name, given) is ended
