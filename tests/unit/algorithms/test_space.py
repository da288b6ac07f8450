"""Encoding: whatever a library draws, the trial gets a clean value in range and on its grid, and back."""

from __future__ import annotations

import math
import random
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.space import Codec, Dimension, Kind, dimensions, grid_count, grid_index, grid_value
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace
from evertune.testing.spaces import CONSTANTS, EVERYTHING, allows

DOUBLE, INT = ParameterType.DOUBLE, ParameterType.INT
UNIFORM, LOG = Distribution.UNIFORM, Distribution.LOG_UNIFORM
NORMAL, LOG_NORMAL = Distribution.NORMAL, Distribution.LOG_NORMAL
deterministic = settings(derandomize=True, deadline=None, max_examples=400)


def one(parameter: Parameter) -> Dimension:
    return dimensions(SearchSpace((parameter,)))[0]


@st.composite
def numeric(draw: st.DrawFn) -> Parameter:
    """Any number that validation lets through: log needs min > 0, an int has whole bounds."""
    kind = draw(st.sampled_from([DOUBLE, INT]))
    distribution = draw(st.sampled_from(list(Distribution)))
    positive = distribution in (LOG, LOG_NORMAL)
    if kind is INT:
        least = draw(st.integers(1 if positive else -(10**6), 10**6))
        most = least + draw(st.integers(0, 10**6))
        step = draw(st.none() | st.integers(1, 10**5).map(float))
        return Parameter(name="p", type=kind, low=least, high=most, step=step, distribution=distribution)
    low = draw(st.floats(1e-9 if positive else -1e6, 1e6, allow_nan=False, allow_subnormal=False))
    high = low + draw(st.floats(0, 1e6, allow_subnormal=False))
    step = draw(st.none() | st.floats(1e-3, 1e5))
    return Parameter(name="p", type=kind, low=low, high=high, step=step, distribution=distribution)


@st.composite
def listed(draw: st.DrawFn) -> Parameter:
    kind = draw(st.sampled_from([ParameterType.DISCRETE, ParameterType.CATEGORICAL]))
    values = draw(st.lists(st.text(max_size=5), min_size=1, max_size=6, unique=True))
    return Parameter(name="p", type=kind, values=tuple(values))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Parameter, Dimension, float | int]:
    """A parameter and a raw value that its library may draw for it."""
    parameter = draw(numeric() | listed())
    dimension = one(parameter)
    raw: float | int
    if dimension.kind in (Kind.INDEX, Kind.CHOICE, Kind.CONSTANT):
        raw = draw(st.integers(0, dimension.count - 1))
    else:
        raw = draw(st.floats(dimension.low, dimension.high))
    return parameter, dimension, raw


@deterministic
@given(drawn())
def test_every_draw_becomes_an_allowed_value(case: tuple[Parameter, Dimension, float]) -> None:
    parameter, dimension, raw = case
    assert allows(parameter, dimension.decode(raw)), (dimension.decode(raw), raw)


@deterministic
@given(drawn())
def test_an_encoded_value_decodes_to_itself(case: tuple[Parameter, Dimension, float]) -> None:
    _, dimension, raw = case
    value = dimension.decode(raw)
    again = dimension.decode(dimension.encode(value))
    if dimension.kind is Kind.UNIT and isinstance(value, float):
        assert again == pytest.approx(value, rel=1e-6, abs=1e-6 * (dimension.parameter.high - dimension.parameter.low))
    else:
        assert repr(again) == repr(value)


@deterministic
@given(drawn())
def test_what_is_kept_with_what_the_trial_got_is_what_was_drawn(case: tuple[Parameter, Dimension, float]) -> None:
    parameter, _, raw = case
    codec = Codec.of(SearchSpace((parameter,)))
    if codec.free:
        kept = codec.keep({"p": raw})
        assert codec.encode(codec.decode({"p": raw}), kept) == {"p": raw}


def test_only_what_the_value_cannot_give_back_is_kept() -> None:
    codec = Codec.of(EVERYTHING)
    middle = {
        dimension.name: dimension.count // 2
        if dimension.kind in (Kind.INDEX, Kind.CHOICE)
        else dimension.low + 0.4321 * (dimension.high - dimension.low)
        for dimension in codec.free
    }
    kinds = {dimension.name: dimension for dimension in codec.free}
    for name in codec.keep(middle):
        parameter = kinds[name].parameter
        assert kinds[name].kind is Kind.UNIT or parameter.type is INT or parameter.step is not None, name


@deterministic
@given(numeric())
def test_bounds_of_the_draw_decode_to_the_bounds_of_the_parameter(parameter: Parameter) -> None:
    dimension = one(parameter)
    ends = (0, dimension.count - 1) if dimension.kind is Kind.INDEX else (dimension.low, dimension.high)
    if dimension.kind is Kind.CONSTANT:
        return
    low, high = (dimension.decode(end) for end in ends)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    step = parameter.step or (1 if parameter.type is INT else 0)
    assert low == pytest.approx(parameter.low, rel=1e-9, abs=1e-6)
    assert parameter.high - step - 1e-6 <= high <= parameter.high


def test_stepped_doubles_are_clean() -> None:
    dimension = one(Parameter(name="p", type=DOUBLE, low=0.1, high=1.0, step=0.1))
    assert [dimension.decode(index) for index in range(dimension.count)] == [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    ]  # fmt: skip


def test_ints_start_at_their_minimum_and_not_at_zero() -> None:
    dimension = one(Parameter(name="p", type=INT, low=1, high=10, step=3))
    assert [dimension.decode(index) for index in range(dimension.count)] == [1, 4, 7, 10]


@pytest.mark.parametrize("parameter", CONSTANTS, ids=lambda parameter: parameter.name)
def test_one_possible_value_is_a_constant(parameter: Parameter) -> None:
    codec = Codec.of(SearchSpace((parameter,)))
    assert codec.free == ()
    assert codec.encode({parameter.name: "anything"}) == {}
    assert allows(parameter, codec.decode({})[parameter.name])


@pytest.mark.parametrize("distribution", [UNIFORM, LOG])
def test_the_ends_of_an_int_get_the_mass_of_an_end(distribution: Distribution) -> None:
    """An index is drawn as a whole number; a log draw is widened by one half so that the ends are whole cells."""
    dimension = one(Parameter(name="p", type=INT, low=1, high=4, distribution=distribution))
    chance = random.Random(7)
    low, high = dimension.low, dimension.high
    counts = Counter(
        dimension.decode(
            math.exp(chance.uniform(math.log(low), math.log(high)))
            if dimension.kind is Kind.LOG
            else chance.uniform(-0.5, dimension.count - 0.5)
        )
        for _ in range(40_000)
    )
    width = math.log(4.5 / 0.5)
    expected = {
        value: 0.25 if distribution is UNIFORM else math.log((value + 0.5) / (value - 0.5)) / width
        for value in (1, 2, 3, 4)
    }
    assert set(counts) == set(expected)
    for value, share in expected.items():
        assert counts[value] / 40_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("distribution", [NORMAL, LOG_NORMAL])
def test_normal_is_truncated_at_three_sigma_with_katibs_middle(distribution: Distribution) -> None:
    dimension = one(Parameter(name="p", type=DOUBLE, low=1.0, high=64.0, distribution=distribution))
    log = distribution is LOG_NORMAL
    middle, sigma = (math.log(8), math.log(64) / 6) if log else (32.5, 63 / 6)
    chance = random.Random(7)
    values = []
    for _ in range(20_000):
        value = dimension.decode(chance.random())
        assert isinstance(value, float)
        values.append(math.log(value) if log else value)
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert mean == pytest.approx(middle, rel=0.01)
    assert deviation == pytest.approx(sigma * 0.9866, rel=0.02)  # of a normal cut at three sigma
    assert dimension.decode(0.5) == pytest.approx(math.exp(middle) if log else middle)


def test_a_plain_double_is_encoded_as_the_librarys_own_user_would() -> None:
    dimension = one(Parameter(name="p", type=DOUBLE, low=-2.5, high=7.0))
    assert (dimension.kind, dimension.low, dimension.high) == (Kind.REAL, -2.5, 7.0)
    assert dimension.encode(1.25) == dimension.decode(1.25) == 1.25
    log = one(Parameter(name="p", type=DOUBLE, low=1e-5, high=0.1, distribution=LOG))
    assert (log.kind, log.low, log.high) == (Kind.LOG, 1e-5, 0.1)


def test_a_fine_grid_over_a_wide_range_is_exact() -> None:
    parameter = Parameter(name="p", type=DOUBLE, low=0.0, high=1e6, step=1e-6)
    count = grid_count(parameter)
    assert count == 10**12 + 1
    for index in (0, 1, 123_456_789_012, count - 1):
        value = grid_value(parameter, index)
        assert isinstance(value, float)
        assert Decimal(repr(value)) == index * Decimal("0.000001")
        assert grid_index(parameter, value, count) == index
