"""Pareto fronts and hypervolumes, against their definitions."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from evertune.domain.metrics import Constraint, Further, Objective, ObjectiveType
from evertune.domain.pareto import dominates, front, hypervolume, non_dominated, reference_point

MINIMIZE, MAXIMIZE = ObjectiveType.MINIMIZE, ObjectiveType.MAXIMIZE
TRADE = Objective(
    MAXIMIZE,
    "accuracy",
    further=(Further("latency", MINIMIZE),),
    constraints=(Constraint("memory", le=100.0),),
)


def on_a_grid(rng: random.Random, count: int, objectives: int) -> list[tuple[float, ...]]:
    """Few different values, so that ties and equal points are there."""
    return [tuple(float(rng.randrange(6)) for _ in range(objectives)) for _ in range(count)]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_the_front_is_what_its_definition_says(objectives: int) -> None:
    rng = random.Random(objectives)
    for _ in range(100):
        points = on_a_grid(rng, rng.randrange(30), objectives)
        slowly = [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]
        assert non_dominated(points) == slowly


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_is_the_number_of_unit_cells_that_are_dominated(objectives: int) -> None:
    rng = random.Random(objectives)
    for _ in range(30):
        points = on_a_grid(rng, rng.randrange(1, 12), objectives)
        reference = (5.0,) * objectives
        cells = itertools.product(range(5), repeat=objectives)
        dominated = sum(
            any(all(a <= b for a, b in zip(point, cell, strict=True)) for point in points) for cell in cells
        )
        assert hypervolume(points, reference) == dominated


def test_a_hypervolume_does_not_depend_on_the_order_of_points_nor_on_dominated_ones() -> None:
    rng = random.Random(3)
    points = [tuple(rng.random() for _ in range(4)) for _ in range(25)]
    reference = (1.0,) * 4
    expected = hypervolume(points, reference)
    best = [points[index] for index in non_dominated(points)]
    assert math.isclose(hypervolume(list(reversed(best)), reference), expected)
    assert hypervolume([], reference) == 0.0
    assert hypervolume([(2.0, 0.0, 0.0, 0.0)], reference) == 0.0


def test_more_than_four_objectives_have_a_front_and_no_hypervolume() -> None:
    with pytest.raises(ValueError, match="at most 4"):
        hypervolume([(0.0,) * 5], (1.0,) * 5)
    many = Objective(MINIMIZE, "a", further=tuple(Further(name, MINIMIZE) for name in "bcde"))
    found = front(many, {0: dict.fromkeys("abcde", "1"), 1: dict.fromkeys("abcde", "2")})
    assert found.numbers == (0,)
    assert found.hypervolume is None


def test_every_point_dominates_the_reference_point_also_where_they_agree() -> None:
    points = [(0.0, 5.0, -2.0), (0.0, 5.0, 4.0)]
    reference = reference_point(points)
    assert reference == pytest.approx((0.1, 5.5, 4.6))
    assert all(a < b for point in points for a, b in zip(point, reference, strict=True))


def test_values_at_the_end_of_the_doubles_have_a_front_and_no_infinite_volume() -> None:
    metrics = {
        number: {"accuracy": text, "latency": text, "memory": "1"} for number, text in enumerate(("1e308", "-1e308"))
    }
    found = front(TRADE, metrics)
    assert found.numbers == (0, 1)
    assert found.hypervolume is None
    assert all(math.isfinite(value) for value in found.reference)


def test_a_front_has_feasible_trials_with_all_objectives_in_their_own_values_best_first() -> None:
    metrics = {
        0: {"accuracy": "0.9", "latency": "30", "memory": "50"},
        1: {"accuracy": "0.8", "latency": "10", "memory": "50"},
        2: {"accuracy": "0.8", "latency": "20", "memory": "50"},  # dominated by 1
        3: {"accuracy": "0.99", "latency": "1", "memory": "200"},  # infeasible
        4: {"accuracy": "0.99", "latency": "1"},  # nobody knows its memory
        5: {"accuracy": "0.99", "memory": "50"},  # an objective is missing
        6: {"accuracy": "nan", "latency": "1", "memory": "50"},
    }
    found = front(TRADE, metrics, reference=(0.7, 40.0))
    assert found.numbers == (0, 1)
    assert found.values == ((0.9, 30.0), (0.8, 10.0))
    assert found.others == ((0.8, 20.0),)
    assert found.reference == (0.7, 40.0)
    assert found.hypervolume is not None
    assert math.isclose(found.hypervolume, 0.1 * 10 + 0.1 * 30)
    assert front(TRADE, {}).numbers == ()


def test_a_violation_is_finite_and_each_missed_constraint_is_a_sentence() -> None:
    objective = Objective(MINIMIZE, "loss", constraints=(Constraint("ms", le=20.0), Constraint("accuracy", ge=0.5)))
    assert objective.violation({"ms": "20", "accuracy": "0.5"}) == 0.0
    assert objective.missed({"ms": "20", "accuracy": "0.5"}) == []
    assert objective.violation({"ms": "25", "accuracy": "0.25"}) == 5.25
    assert objective.missed({"ms": "25", "accuracy": "0.25"}) == ["ms is 25, not <= 20", "accuracy is 0.25, not >= 0.5"]
    assert math.isfinite(objective.violation({}))
    assert objective.violation({}) > objective.violation({"ms": "1e300", "accuracy": "1"})
    assert objective.missed({"ms": "1"}) == [
        "accuracy was not reported as a number, so nobody knows whether accuracy >= 0.5"
    ]
