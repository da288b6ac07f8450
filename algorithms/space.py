"""Encoding of parameters for the libraries: every type, distribution and step, ours; the model is the library's.

Used by the adapters, one for each library. A plain double and a categorical are encoded as the
library's own user would write them. Everything else is encoded so that no value leaves [min, max] or its grid:

    kind     raw value                              parameters
    real     the value itself                       double, uniform
    log      the value itself, on a log scale       logUniform; int or stepped: half a step wider, then rounded
    unit     u in (0, 1)                            normal, logNormal: truncated at mu ± 3 sigma, Katib's min and max
    index    0 … n-1                                int, and double with a step: ordered, equal mass, anchored at min
    choice   0 … n-1, unordered                     categorical, discrete

A parameter with one possible value is a constant and kept out of every library's space.
Notation: `raw` is what the library sees, `value` what the trial gets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from evertune.domain.grid import grid_count as grid_count
from evertune.domain.grid import grid_index as grid_index
from evertune.domain.grid import grid_step
from evertune.domain.grid import grid_value as grid_value
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, Value

Raw = float | int

_STANDARD = NormalDist()
_TAIL = _STANDARD.cdf(-3.0)  # Katib: mu = (min + max) / 2, sigma = (max - min) / 6, so the bounds are three sigma away


class Kind(StrEnum):
    REAL = "real"
    LOG = "log"
    UNIT = "unit"
    INDEX = "index"
    CHOICE = "choice"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter and its encoding. `low` and `high` bound `raw`; `count` is n for index and choice."""

    parameter: Parameter
    kind: Kind
    low: float = 0.0
    high: float = 1.0
    count: int = 1

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def snaps(self) -> bool:
        return self.parameter.type is ParameterType.INT or self.parameter.step is not None

    @property
    def points(self) -> int | None:
        """How many values the parameter has; None where it is continuous."""
        if self.kind is Kind.CONSTANT:
            return 1
        if self.kind in (Kind.INDEX, Kind.CHOICE):
            return self.count
        return grid_count(self.parameter) if self.snaps else None

    def point(self, index: int) -> Value:
        """The value at `index`, from 0, of one that is not continuous."""
        if self.kind is Kind.CONSTANT:
            return self.decode(0)
        if self.kind is Kind.CHOICE:
            return self.parameter.values[index]
        return grid_value(self.parameter, index)

    def decode(self, raw: Raw) -> Value:
        parameter = self.parameter
        if self.kind is Kind.CONSTANT:
            return parameter.values[0] if parameter.values else _number(parameter, parameter.low)
        if self.kind is Kind.CHOICE:
            return parameter.values[_clip_index(raw, self.count)]
        if self.kind is Kind.INDEX:
            return grid_value(parameter, _clip_index(raw, self.count))
        if self.kind is Kind.UNIT:
            return self.on_grid(_from_unit(parameter, float(raw)))
        return self.on_grid(float(raw))

    def encode(self, value: Value) -> Raw:
        """The raw value of one that `decode` gave, or the nearest one."""
        parameter = self.parameter
        if self.kind is Kind.CONSTANT:
            return 0
        if self.kind is Kind.CHOICE:
            return parameter.values.index(str(value))
        if self.kind is Kind.INDEX:
            return grid_index(parameter, float(value), self.count)
        if self.kind is Kind.UNIT:
            return _to_unit(parameter, float(value))
        return float(value)

    def on_grid(self, value: float) -> Value:
        parameter = self.parameter
        if self.snaps:
            return grid_value(parameter, grid_index(parameter, value, grid_count(parameter)))
        return min(max(value, parameter.low), parameter.high)

    def covers(self, value: Value | None) -> bool:
        """Whether `encode` can place a value of another experiment, None for none: one of the list, or in the range."""
        if not self.parameter.numeric:
            return value in self.parameter.values
        return isinstance(value, int | float) and self.parameter.low <= value <= self.parameter.high

    def has(self, value: Value) -> bool:
        """Whether a value of another experiment is one of this parameter's: covered, and on its grid if it has one."""
        if not self.parameter.numeric:
            return self.covers(str(value))
        if isinstance(value, str) or not self.covers(value):
            return False
        if self.kind is Kind.CONSTANT:
            return value == self.decode(0)
        return not self.snaps or self.on_grid(float(value)) == value


def from_quantile(dimension: Dimension, share: float) -> Raw:
    """The raw value below which this share, from 0 to 1, of the dimension's distribution lies."""
    if dimension.kind in (Kind.INDEX, Kind.CHOICE):
        return min(int(share * dimension.count), dimension.count - 1)
    low, high = dimension.low, dimension.high
    if dimension.kind is Kind.LOG:
        return min(max(math.exp(math.log(low) + share * (math.log(high) - math.log(low))), low), high)
    return low + share * (high - low)


def to_quantile(dimension: Dimension, raw: Raw) -> float:
    """The middle of the shares that give this raw value."""
    if dimension.kind in (Kind.INDEX, Kind.CHOICE):
        return (raw + 0.5) / dimension.count
    low, high = dimension.low, dimension.high
    if dimension.kind is Kind.LOG:
        return (math.log(raw) - math.log(low)) / (math.log(high) - math.log(low))
    return (raw - low) / (high - low)


def dimensions(space: SearchSpace) -> tuple[Dimension, ...]:
    """All parameters of the space in its order, constants included."""
    return tuple(_dimension(parameter) for parameter in space)


def _dimension(parameter: Parameter) -> Dimension:
    if not parameter.numeric:
        count = len(parameter.values)
        return Dimension(parameter, Kind.CHOICE if count > 1 else Kind.CONSTANT, count=count)
    snaps = parameter.type is ParameterType.INT or parameter.step is not None
    count = grid_count(parameter) if snaps else 0
    if parameter.low == parameter.high or count == 1:
        return Dimension(parameter, Kind.CONSTANT)
    if parameter.distribution in (Distribution.NORMAL, Distribution.LOG_NORMAL):
        return Dimension(parameter, Kind.UNIT)
    if parameter.distribution is Distribution.LOG_UNIFORM:
        if not snaps:
            return Dimension(parameter, Kind.LOG, parameter.low, parameter.high)
        # Half a step on either side, else the end points would get half the mass of their neighbours.
        half, last = float(grid_step(parameter)) / 2, float(grid_value(parameter, count - 1))
        low = max(parameter.low - half, parameter.low / 2) or parameter.low  # half of the least double is 0
        return Dimension(parameter, Kind.LOG, low, last + half)
    if snaps:
        return Dimension(parameter, Kind.INDEX, 0.0, float(count - 1), count)
    return Dimension(parameter, Kind.REAL, parameter.low, parameter.high)


def _number(parameter: Parameter, value: float) -> Value:
    return round(value) if parameter.type is ParameterType.INT else float(value)


def _clip_index(raw: Raw, count: int) -> int:
    return min(max(round(raw), 0), count - 1)


def _from_unit(parameter: Parameter, u: float) -> float:
    low, high, log = _normal_bounds(parameter)
    value = (low + high) / 2 + (high - low) / 6 * _STANDARD.inv_cdf(_TAIL + u * (1 - 2 * _TAIL))
    return math.exp(value) if log else value


def _to_unit(parameter: Parameter, value: float) -> float:
    low, high, log = _normal_bounds(parameter)
    z = ((math.log(value) if log else value) - (low + high) / 2) / ((high - low) / 6)
    return min(max((_STANDARD.cdf(z) - _TAIL) / (1 - 2 * _TAIL), 0.0), 1.0)


def _normal_bounds(parameter: Parameter) -> tuple[float, float, bool]:
    if parameter.distribution is Distribution.LOG_NORMAL:
        return math.log(parameter.low), math.log(parameter.high), True
    return parameter.low, parameter.high, False


@dataclass(frozen=True, slots=True)
class Codec:
    """The whole space: raw values by name for the library, plain values for the trial."""

    dimensions: tuple[Dimension, ...]

    @classmethod
    def of(cls, space: SearchSpace) -> Codec:
        return cls(dimensions(space))

    @property
    def free(self) -> tuple[Dimension, ...]:
        """What the library searches: all but the constants."""
        return tuple(dimension for dimension in self.dimensions if dimension.kind is not Kind.CONSTANT)

    def covers(self, parameters: Mapping[str, Value]) -> bool:
        """Whether a trial of another experiment has a place in what the library searches."""
        return all(dimension.covers(parameters.get(dimension.name)) for dimension in self.free)

    def decode(self, raw: Mapping[str, Raw]) -> dict[str, Value]:
        return {dimension.name: dimension.decode(raw.get(dimension.name, 0)) for dimension in self.dimensions}

    def encode(self, parameters: Mapping[str, Value], kept: Mapping[str, Raw] | None = None) -> dict[str, Raw]:
        """Raw values of what a trial has; `kept` are those of `keep`, exact where encoding again would not be."""
        kept = kept or {}
        return {
            dimension.name: kept[dimension.name]
            if dimension.name in kept
            else dimension.encode(parameters[dimension.name])
            for dimension in self.free
            if dimension.name in parameters
        }

    def keep(self, raw: Mapping[str, Raw]) -> dict[str, Raw]:
        """The raw values that `encode` would not give back bit for bit from what the trial gets."""
        return {
            dimension.name: raw[dimension.name]
            for dimension in self.free
            if dimension.name in raw and dimension.encode(dimension.decode(raw[dimension.name])) != raw[dimension.name]
        }
