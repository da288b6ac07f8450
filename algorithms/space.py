"""The search space as libraries get it: every type x distribution x step of Katib as one of four kinds of dimension.

    Line     a double, uniform or log-uniform: the library's own continuous parameter
    Choices  a categorical or discrete list: the library's own choice
    Steps    an int, or a double with a step, uniform: the index 0…count-1 of a grid that is anchored at min
    Unit     everything else (normal, log-normal, log-uniform on a grid): u in [0, 1], mapped through the distribution

What a library calls quantised, normal or log-normal differs from library to library and often leaves [min, max]; an
index and a unit interval do not. A dimension with one value only is a constant, and no library hears of it.
Values handed out are plain int, float and str, within range and on the grid: 0.1 * 3 is 0.3.

Everything here is the standard library: the same numbers on every machine, and cheap to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Any

from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, Value
from evertune.domain.trial import HistoryTrial
from evertune.errors import Problem

MAX_STEPS = 2**54  # whole doubles end at 2^53 on either side of zero

_NORMAL = NormalDist()
_TAIL = _NORMAL.cdf(-3.0)  # Katib's sigma is a sixth of the range: the bounds are at three
_UNIT = "unit"  # key of the meta that keeps each u; the value alone does not tell it


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@dataclass(frozen=True, slots=True)
class Line:
    """A continuous double. Its internal value is the value."""

    name: str
    low: float
    high: float
    log: bool

    def decode(self, internal: float) -> float:
        return clip(float(internal), self.low, self.high)

    def encode(self, value: Value) -> float:
        return clip(float(value), self.low, self.high)


@dataclass(frozen=True, slots=True)
class Choices:
    """A list. Its internal value is the index."""

    name: str
    values: tuple[Value, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    def decode(self, internal: float) -> Value:
        return self.values[int(internal)]

    def encode(self, value: Value) -> int:
        return self.values.index(value)


@dataclass(frozen=True, slots=True)
class Steps:
    """An arithmetic grid from `low`. Its internal value is the index."""

    name: str
    low: float
    step: float
    count: int
    whole: bool

    @classmethod
    def of(cls, parameter: Parameter) -> Steps:
        """The grid of a numeric parameter; a double needs a step."""
        whole = parameter.type is ParameterType.INT
        step = parameter.step or (1.0 if whole else 0.0)
        span = _exact(parameter.high) - _exact(parameter.low)
        return cls(parameter.name, parameter.low, step, int(span // _exact(step)) + 1, whole)

    def decode(self, internal: float) -> int | float:
        index = min(max(int(internal), 0), self.count - 1)
        if self.whole:
            return int(self.low) + index * int(self.step)
        return float(_exact(self.low) + index * _exact(self.step))

    def encode(self, value: Value) -> int:
        index = round((float(value) - self.low) / self.step)
        return min(max(index, 0), self.count - 1)


@dataclass(frozen=True, slots=True)
class Unit:
    """A distribution that libraries do not have, or have in ways of their own. Its internal value is u in [0, 1]."""

    name: str
    low: float
    high: float
    distribution: Distribution
    grid: Steps | None

    def decode(self, internal: float) -> int | float:
        value = self._quantile(clip(float(internal), 0.0, 1.0))
        return clip(value, self.low, self.high) if self.grid is None else self.grid.decode(self.grid.encode(value))

    def encode(self, value: Value) -> float:
        """A u that gives this value; not the only one when there is a grid."""
        number = clip(float(value), self.low, self.high)
        if self.distribution is Distribution.LOG_UNIFORM:
            low, high = self._logs()
            return clip((math.log(number) - low) / (high - low), 0.0, 1.0)
        middle, deviation = self._moments()
        at = math.log(number) if self.distribution is Distribution.LOG_NORMAL else number
        return clip((_NORMAL.cdf((at - middle) / deviation) - _TAIL) / (1 - 2 * _TAIL), 0.0, 1.0)

    def _quantile(self, u: float) -> float:
        if self.distribution is Distribution.LOG_UNIFORM:
            low, high = self._logs()
            return math.exp(low + u * (high - low))
        middle, deviation = self._moments()
        at = middle + deviation * _NORMAL.inv_cdf(_TAIL + u * (1 - 2 * _TAIL))
        return math.exp(min(at, math.log(self.high))) if self.distribution is Distribution.LOG_NORMAL else at

    def _logs(self) -> tuple[float, float]:
        """With a grid, each end gets the half cell beyond it: otherwise the ends come up half as often."""
        if self.grid is None:
            return math.log(self.low), math.log(self.high)
        half = min(self.grid.step, self.low) / 2  # a logarithm ends above zero
        return math.log(self.low - half), math.log(self.high) + math.log1p(self.grid.step / self.high / 2)

    def _moments(self) -> tuple[float, float]:
        """Katib's: the mean is in the middle, and the range is six standard deviations."""
        if self.distribution is Distribution.LOG_NORMAL:
            low, high = math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        return low / 2 + high / 2, (high - low) / 6


Dimension = Line | Choices | Steps | Unit
Point = Mapping[str, Any]  # dimension -> internal value


class EncodedSpace:
    """A search space split into what a library searches (`dimensions`) and what is decided (`constants`)."""

    def __init__(self, space: SearchSpace) -> None:
        self._names = space.names()
        self.constants: dict[str, Value] = {}
        dimensions = []
        for parameter in space:
            constant = constant_of(parameter)
            if constant is None:
                dimensions.append(_dimension(parameter))
            else:
                self.constants[parameter.name] = constant
        self.dimensions: tuple[Dimension, ...] = tuple(dimensions)
        self._units = tuple(dimension.name for dimension in dimensions if isinstance(dimension, Unit))

    def decode(self, point: Point) -> dict[str, Value]:
        """The assignment of a point, in the order of the user's parameters."""
        values: dict[str, Value] = dict(self.constants)
        for dimension in self.dimensions:
            values[dimension.name] = dimension.decode(point[dimension.name])
        return {name: values[name] for name in self._names}

    def meta(self, point: Point) -> dict[str, Any]:
        """What must be stored with a trial so that `encode` gives the same point again, bit for bit."""
        return {_UNIT: {name: float(point[name]) for name in self._units}} if self._units else {}

    def encode(self, trial: HistoryTrial) -> dict[str, float]:
        units = trial.meta.get(_UNIT, {})
        return {
            dimension.name: float(units[dimension.name])
            if dimension.name in units
            else dimension.encode(trial.parameters[dimension.name])
            for dimension in self.dimensions
        }


def constant_of(parameter: Parameter) -> Value | None:
    """The only value of a parameter that has one, else None."""
    if not parameter.numeric:
        return parameter.values[0] if len(set(parameter.values)) == 1 else None
    if parameter.low == parameter.high:
        return int(parameter.low) if parameter.type is ParameterType.INT else float(parameter.low)
    if parameter.step or parameter.type is ParameterType.INT:
        grid = Steps.of(parameter)
        return grid.decode(0) if grid.count == 1 else None
    return None


def problems(space: SearchSpace) -> list[Problem]:
    """What doubles cannot hold: too many steps, or bounds too far apart or too close."""
    found = []
    for index, parameter in enumerate(space):
        if not parameter.numeric or constant_of(parameter) is not None:
            continue
        where = f"spec.parameters[{index}].feasibleSpace"
        bounds = f"min {parameter.low!r} and max {parameter.high!r}"
        if math.isinf(parameter.high - parameter.low):
            message = f"{bounds} are too far apart"
            found.append(Problem(path=where, type="Invalid", message=message, hint="search the exponent instead"))
        elif parameter.step and Steps.of(parameter).count > MAX_STEPS:
            message = f"step {parameter.step:g} is too small for the range: more than 2^54 values"
            found.append(Problem(path=f"{where}.step", type="Invalid", message=message, hint="leave step out"))
        elif not _spread(parameter):
            message = f"{bounds} are too close for the distribution {parameter.distribution}"
            found.append(Problem(path=where, type="Invalid", message=message, hint="use uniform, or a wider range"))
    return found


def _spread(parameter: Parameter) -> bool:
    """Whether the distribution can tell the bounds apart."""
    if parameter.distribution in (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL):
        return math.log(parameter.high) / 6 - math.log(parameter.low) / 6 > 0
    return (parameter.high - parameter.low) / 6 > 0


def _dimension(parameter: Parameter) -> Dimension:
    if not parameter.numeric:
        return Choices(parameter.name, tuple(dict.fromkeys(parameter.values)))
    grid = Steps.of(parameter) if parameter.step or parameter.type is ParameterType.INT else None
    uniform = parameter.distribution is Distribution.UNIFORM
    if grid is not None and uniform:
        return grid
    if grid is None and (uniform or parameter.distribution is Distribution.LOG_UNIFORM):
        return Line(parameter.name, parameter.low, parameter.high, log=not uniform)
    high = parameter.high if grid is None else float(grid.decode(grid.count - 1))
    return Unit(parameter.name, parameter.low, high, parameter.distribution, grid)


def _exact(value: float) -> Fraction:
    """The decimal number that the user wrote, not the double next to it."""
    return Fraction(repr(value))
