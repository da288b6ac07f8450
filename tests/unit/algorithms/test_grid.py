"""grid: each combination once, in the order it promises, without ever listing them."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.grid import Grid
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.protocols import Answer

INT, DOUBLE = ParameterType.INT, ParameterType.DOUBLE


def integer(name: str, count: int) -> Parameter:
    return Parameter(name=name, type=INT, low=1, high=count)


def problem(*parameters: Parameter, seed: int = 7, max_trials: int | None = None, **settings: str) -> SearchProblem:
    return SearchProblem(
        space=SearchSpace(parameters),
        direction=ObjectiveType.MINIMIZE,
        seed=seed,
        settings=settings,
        max_trials=max_trials,
    )


def ask(grid: Grid, first: int, k: int) -> Answer:
    return grid.ask((), k, first, None)


def everything(grid: Grid) -> list[tuple[Value, ...]]:
    found: list[tuple[Value, ...]] = []
    while not (answer := ask(grid, len(found), 5)).exhausted:
        found += [tuple(assignment.parameters.values()) for assignment in answer.assignments]
    return found


def test_the_last_parameter_runs_fastest() -> None:
    grid = Grid(
        problem(
            integer("a", 2),
            Parameter(name="b", type=DOUBLE, low=0.1, high=0.3, step=0.1),
            Parameter(name="c", type=ParameterType.CATEGORICAL, values=("x", "y")),
        )
    )
    assert everything(grid) == list(itertools.product((1, 2), (0.1, 0.2, 0.3), ("x", "y")))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 2**31 - 1))
def test_with_a_random_state_every_combination_comes_once(counts: list[int], seed: int) -> None:
    parameters = [integer(f"p{index}", count) for index, count in enumerate(counts)]
    found = everything(Grid(problem(*parameters, seed=seed, random_state=str(seed))))
    assert sorted(found) == sorted(itertools.product(*(range(1, count + 1) for count in counts)))


def test_the_random_state_decides_the_order() -> None:
    parameters = (integer("a", 10), integer("b", 10))
    orders = [everything(Grid(problem(*parameters, seed=seed, random_state=str(seed)))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != sorted(orders[0])
    assert everything(Grid(problem(*parameters, seed=1))) == sorted(orders[0])


def test_the_end_is_told_after_a_short_last_answer() -> None:
    grid = Grid(problem(integer("a", 5)))
    last = ask(grid, 3, 4)
    assert (len(last.assignments), last.exhausted) == (2, False)
    end = ask(grid, 5, 4)
    assert (end.assignments, end.exhausted, end.reason) == ((), True, "all 5 combinations were tried")
    assert ask(grid, 9, 1).exhausted


@pytest.mark.parametrize("settings", [{}, {"random_state": "7"}])
def test_a_million_million_combinations_cost_nothing(settings: dict[str, str]) -> None:
    parameters = [integer(f"p{index}", 100) for index in range(6)]
    tracemalloc.start()
    started = time.process_time()
    given = problem(*parameters, max_trials=10**6, **settings)  # type: ignore[arg-type]
    assert list(Grid.check(given)) == []
    answer = ask(Grid(given), 10**12 - 3, 10)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(answer.assignments) == 3
    assert len({tuple(assignment.parameters.values()) for assignment in answer.assignments}) == 3
    assert peak < 1_000_000
    assert seconds < 1


def test_a_double_without_a_step_is_refused_where_it_stands() -> None:
    given = problem(
        integer("a", 3), Parameter(name="lr", type=DOUBLE, low=0.1, high=0.5), max_trials=99, random_state="-1"
    )
    found = Grid.check(given)
    assert [(each.path, each.type) for each in found] == [
        ("spec.algorithm.algorithmSettings[0].value", "Invalid"),
        ("spec.parameters[1].feasibleSpace.step", "Required"),
    ]
    assert found[1].message == "grid needs a step for the double lr"
    constant = problem(Parameter(name="lr", type=DOUBLE, low=0.1, high=0.1))
    assert list(Grid.check(constant)) == []


def test_a_budget_beyond_the_combinations_is_refused() -> None:
    # Katib's own case: 0.01..0.05 step 0.005 (9) by 0.5..0.9 step 0.1 (5).
    parameters = (
        Parameter(name="lr", type=DOUBLE, low=0.01, high=0.05, step=0.005),
        Parameter(name="momentum", type=DOUBLE, low=0.5, high=0.9, step=0.1),
    )
    assert list(Grid.check(problem(*parameters, max_trials=45))) == []
    assert list(Grid.check(problem(*parameters))) == []
    (found,) = Grid.check(problem(*parameters, max_trials=46))
    assert found.path == "spec.maxTrialCount"
    assert found.message == "maxTrialCount must be at most 45, the combinations of the grid; got 46"
