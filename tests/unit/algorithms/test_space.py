"""The encoding: whatever a library draws becomes a value in range and on the grid, and finds its way back."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from statistics import fmean, stdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from algorithms.registry import create
from algorithms.space import Choices, EncodedSpace, Line, Steps, Unit, constant_of, problems
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.testing.algorithms import outside

LOGS = (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL)


@some.composite
def doubles(draw: some.DrawFn) -> Parameter:
    distribution = draw(some.sampled_from(list(Distribution)))
    least = 1e-300 if distribution in LOGS else -1e300
    bounds = some.floats(least, 1e300, allow_subnormal=False)
    low, high = sorted((draw(bounds), draw(bounds)))
    step = draw(some.none() | some.floats(1.0, 1e15).map(lambda parts: (high - low) / parts or None))
    return Parameter(name="p", type=ParameterType.DOUBLE, low=low, high=high, step=step, distribution=distribution)


@some.composite
def tidy_doubles(draw: some.DrawFn) -> Parameter:
    """As people write them: few digits."""
    digits = some.integers(1, 10_000)
    low, width, step = draw(digits) / 100, draw(digits) / 100, draw(some.integers(1, 100)) / 100
    distribution = draw(some.sampled_from(list(Distribution)))
    return Parameter(
        name="p", type=ParameterType.DOUBLE, low=low, high=low + width, step=step, distribution=distribution
    )


@some.composite
def ints(draw: some.DrawFn) -> Parameter:
    distribution = draw(some.sampled_from(list(Distribution)))
    bounds = some.integers(1 if distribution in LOGS else -(2**53), 2**53)
    low, high = sorted((draw(bounds), draw(bounds)))
    step = draw(some.none() | some.integers(1, 2**40).map(float))
    return Parameter(
        name="p", type=ParameterType.INT, low=float(low), high=float(high), step=step, distribution=distribution
    )


def draws(parameter: Parameter, fraction: float) -> float:
    """What a library might hand us for a dimension, `fraction` of the way through its range."""
    (dimension,) = EncodedSpace(SearchSpace((parameter,))).dimensions
    match dimension:
        case Line():
            return dimension.low + fraction * (dimension.high - dimension.low)
        case Choices() | Steps():
            return min(int(fraction * dimension.count), dimension.count - 1)
        case Unit():
            return fraction


@given(doubles() | tidy_doubles() | ints(), some.floats(0, 1))
def test_every_draw_is_in_range_on_the_grid_and_finds_its_way_back(parameter: Parameter, fraction: float) -> None:
    assume(not problems(SearchSpace((parameter,))) and constant_of(parameter) is None)
    encoded = EncodedSpace(SearchSpace((parameter,)))
    internal = draws(parameter, fraction)
    value = encoded.decode({"p": internal})["p"]
    assert not isinstance(value, str)
    assert type(value) is (int if parameter.type is ParameterType.INT else float)
    assert parameter.low <= value <= parameter.high
    step = parameter.step or (1.0 if parameter.type is ParameterType.INT else None)
    if step is not None:
        index = round((Fraction(value) - Fraction(repr(parameter.low))) / Fraction(repr(step)))
        assert value == float(Fraction(repr(parameter.low)) + index * Fraction(repr(step)))

    remembered = HistoryTrial(0, {"p": value}, TrialState.RUNNING, meta=encoded.meta({"p": internal}))
    assert encoded.encode(remembered) == {"p": internal}
    foreign = HistoryTrial(0, {"p": value}, TrialState.RUNNING)  # imported: nobody knows what it was drawn as
    again = encoded.decode(encoded.encode(foreign))["p"]
    if isinstance(encoded.dimensions[0], Unit) and step is None:
        width = parameter.high - parameter.low
        assert again == pytest.approx(value, rel=1e-6, abs=1e-9 * width)
    else:
        assert again == value


@given(doubles() | ints(), some.sampled_from(("bounds", "step")))
def test_a_constant_is_no_dimension(parameter: Parameter, by: str) -> None:
    if by == "bounds":
        parameter = replace(parameter, high=parameter.low)
    else:
        parameter = replace(parameter, step=2.0 * (parameter.high - parameter.low) + 1.0)
    encoded = EncodedSpace(SearchSpace((parameter,)))
    assert encoded.dimensions == ()
    assert encoded.decode({}) == {"p": parameter.low}
    assert outside(parameter, encoded.decode({})["p"]) == ""


def steps(low: float, high: float, step: float) -> list[Value]:
    parameter = Parameter(name="p", type=ParameterType.DOUBLE, low=low, high=high, step=step)
    grid = Steps.of(parameter)
    return [grid.decode(index) for index in range(grid.count)]


def test_a_grid_is_anchored_at_min_and_rounded_as_people_write_numbers() -> None:
    assert steps(0.0, 0.5, 0.1) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert steps(0.01, 0.05, 0.02) == [0.01, 0.03, 0.05]
    assert steps(0.5, 0.9, 0.1) == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert len(steps(0.01, 0.05, 0.005)) == 9
    assert steps(1.0, 2.0, 0.4) == [1.0, 1.4, 1.8]
    blocks = Parameter(name="p", type=ParameterType.INT, low=1, high=10, step=3)
    assert [Steps.of(blocks).decode(index) for index in range(4)] == [1, 4, 7, 10]


def test_the_same_entry_twice_is_one_choice() -> None:
    parameter = Parameter(name="p", type=ParameterType.CATEGORICAL, values=("a", "b", "a"))
    (dimension,) = EncodedSpace(SearchSpace((parameter,))).dimensions
    assert dimension == Choices("p", ("a", "b"))


def test_values_come_in_the_order_of_the_parameters_and_constants_in_their_place() -> None:
    space = SearchSpace(
        (
            Parameter(name="z", type=ParameterType.INT, low=1, high=4),
            Parameter(name="c", type=ParameterType.INT, low=3, high=3),
            Parameter(name="a", type=ParameterType.CATEGORICAL, values=("x", "y")),
        )
    )
    decoded = EncodedSpace(space).decode({"a": 1, "z": 2.0})
    assert list(decoded.items()) == [("z", 3), ("c", 3), ("a", "y")]


# ------------------------------------------------------------------------------------------------------ shapes

HOW_MANY = 3000


def sample(*parameters: Parameter) -> list[dict[str, Value]]:
    problem = SearchProblem(space=SearchSpace(parameters), direction=ObjectiveType.MINIMIZE, seed=3)
    return [dict(given.parameters) for given in create("random", problem).ask([], HOW_MANY, 0, None).assignments]


def shares(values: list[Value]) -> dict[Value, float]:
    return {value: count / len(values) for value, count in sorted(Counter(values).items())}


def test_every_step_of_a_uniform_grid_is_equally_likely_the_ends_too() -> None:
    drawn = sample(
        Parameter(name="i", type=ParameterType.INT, low=1, high=4),
        Parameter(name="d", type=ParameterType.DOUBLE, low=0.05, high=0.5, step=0.15),
    )
    for name, values in (("i", [1, 2, 3, 4]), ("d", [0.05, 0.2, 0.35, 0.5])):
        found = shares([parameters[name] for parameters in drawn])
        assert list(found) == values
        assert all(share == pytest.approx(0.25, abs=0.04) for share in found.values())


def test_normal_and_log_normal_have_katibs_moments_and_stay_in_range() -> None:
    drawn = sample(
        Parameter(name="n", type=ParameterType.DOUBLE, low=-1.0, high=5.0, distribution=Distribution.NORMAL),
        Parameter(name="l", type=ParameterType.DOUBLE, low=1.0, high=4096.0, distribution=Distribution.LOG_NORMAL),
        Parameter(name="i", type=ParameterType.INT, low=-30, high=30, distribution=Distribution.NORMAL),
    )
    for name, middle, deviation, low, high in (("n", 2.0, 1.0, -1.0, 5.0), ("i", 0.0, 10.0, -30, 30)):
        values = [float(parameters[name]) for parameters in drawn]
        assert low <= min(values) <= max(values) <= high
        assert fmean(values) == pytest.approx(middle, abs=0.06 * deviation)
        assert stdev(values) == pytest.approx(deviation, rel=0.05)
    logs = [math.log2(float(parameters["l"])) for parameters in drawn]
    assert 0 <= min(logs) <= max(logs) <= 12
    assert fmean(logs) == pytest.approx(6.0, abs=0.12)
    assert stdev(logs) == pytest.approx(2.0, rel=0.05)


def test_a_log_uniform_grid_gives_each_value_the_share_of_its_cell() -> None:
    drawn = sample(Parameter(name="i", type=ParameterType.INT, low=1, high=4, distribution=Distribution.LOG_UNIFORM))
    found = shares([parameters["i"] for parameters in drawn])
    width = math.log(4.5) - math.log(0.5)
    for value in (1, 2, 3, 4):
        share = (math.log(value + 0.5) - math.log(value - 0.5)) / width
        assert found[value] == pytest.approx(share, abs=0.04)


# ---------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("low", "high", "step", "distribution", "path", "message"),
    [
        (-1.7e308, 1.7e308, None, Distribution.UNIFORM, "", "too far apart"),
        (0.0, 1.0, 1e-20, Distribution.UNIFORM, ".step", "too small for the range"),
        (1e16, 1e16 + 2, None, Distribution.LOG_UNIFORM, "", "too close for the distribution logUniform"),
        (5e-324, 1e-323, None, Distribution.NORMAL, "", "too close for the distribution normal"),
    ],
)
def test_what_doubles_cannot_hold_is_refused(
    low: float, high: float, step: float | None, distribution: Distribution, path: str, message: str
) -> None:
    good = Parameter(name="good", type=ParameterType.DOUBLE, low=0.0, high=1.0)
    bad = Parameter(name="bad", type=ParameterType.DOUBLE, low=low, high=high, step=step, distribution=distribution)
    (problem,) = problems(SearchSpace((good, bad)))
    assert problem.path == f"spec.parameters[1].feasibleSpace{path}"
    assert message in problem.message
