"""Points of a space by chance: where an algorithm has none to give that may be run, and for what others left open.

Called by `algorithms.steering`. Every draw comes from a generator that is given, so that nothing depends on the order
of calls. Uniform in the encoding of `algorithms.space`, which is each parameter's declared distribution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from algorithms.space import Codec, Dimension, Kind, Raw, grid_count, grid_value
from evertune.domain.space import Parameter, SearchSpace, Value


def chance(*parts: object) -> random.Random:
    """A generator that depends on these parts alone, in every process and version."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - which point is tried is no secret


def drawn(codec: Codec, luck: random.Random) -> dict[str, Value]:
    return codec.decode({dimension.name: _raw(dimension, luck) for dimension in codec.free})


def _raw(dimension: Dimension, luck: random.Random) -> Raw:
    if dimension.kind in (Kind.INDEX, Kind.CHOICE):
        return luck.randrange(dimension.count)
    if dimension.kind is Kind.LOG:
        return math.exp(luck.uniform(math.log(dimension.low), math.log(dimension.high)))
    return luck.uniform(dimension.low, dimension.high)


def count(space: SearchSpace) -> float:
    """How many points the space has, conditions aside; infinite with a continuous parameter."""
    return math.prod((_values(dimension) for dimension in Codec.of(space).dimensions), start=1.0)


def points(codec: Codec) -> Iterator[dict[str, Value]]:
    """All points of a finite space, the last parameter fastest."""
    total = int(math.prod(_values(dimension) for dimension in codec.dimensions))
    for index in range(total):
        point: dict[str, Value] = {}
        for dimension in reversed(codec.dimensions):
            index, digit = divmod(index, int(_values(dimension)))
            point[dimension.name] = _value(dimension, digit)
        yield {dimension.name: point[dimension.name] for dimension in codec.dimensions}


def _values(dimension: Dimension) -> float:
    if dimension.kind is Kind.CONSTANT:
        return 1
    if dimension.kind in (Kind.INDEX, Kind.CHOICE):
        return dimension.count
    return grid_count(dimension.parameter) if dimension.snaps else math.inf


def _value(dimension: Dimension, digit: int) -> Value:
    if dimension.kind is Kind.CONSTANT:
        return dimension.decode(0)
    if dimension.kind is Kind.CHOICE:
        return dimension.parameter.values[digit]
    return grid_value(dimension.parameter, digit)


def fits(parameter: Parameter, value: Value) -> bool:
    """Whether a value, of whatever experiment, is one of this parameter's: in its range, on its grid, in its list."""
    if not parameter.numeric:
        return str(value) in parameter.values
    if isinstance(value, str) or not parameter.low <= value <= parameter.high:
        return False
    (dimension,) = Codec.of(SearchSpace((parameter,))).dimensions
    if dimension.kind is Kind.CONSTANT:
        return value == dimension.decode(0)
    return not dimension.snaps or dimension.on_grid(float(value)) == value
