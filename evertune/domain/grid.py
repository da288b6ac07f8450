"""The values of a parameter that has finitely many on its line: an int, or a double with a step. In decimal arithmetic.

Used by the encodings of algorithms and by the rules of a spec. Anchored at min: min, min + step, … up to max.
"""

from __future__ import annotations

from decimal import Decimal

from evertune.domain.space import Parameter, ParameterType, Value


def grid_step(parameter: Parameter) -> Decimal:
    return Decimal(repr(parameter.step)) if parameter.step else Decimal(1)


def grid_count(parameter: Parameter) -> int:
    """How many values an int or stepped double has: min, min + step, … ≤ max, in decimal arithmetic."""
    low, high, step = Decimal(repr(parameter.low)), Decimal(repr(parameter.high)), grid_step(parameter)
    steps = int((high - low) // step)
    return steps + (low + steps * step <= high)  # a range of more than 28 digits is rounded, perhaps beyond max


def grid_value(parameter: Parameter, index: int) -> Value:
    """The index-th value, clean: 0.1 + 2 steps of 0.1 is 0.3, not 0.30000000000000004."""
    value = float(Decimal(repr(parameter.low)) + index * grid_step(parameter))
    return round(value) if parameter.type is ParameterType.INT else value


def grid_index(parameter: Parameter, value: float, count: int) -> int:
    """The index of the nearest of `count` values."""
    return min(max(round((value - parameter.low) / float(grid_step(parameter))), 0), count - 1)


def value_count(parameter: Parameter) -> int | None:
    """How many values a parameter has, None for a double without a step (unless it has only one)."""
    if not parameter.numeric:
        return len(parameter.values)
    if parameter.low == parameter.high:
        return 1
    if parameter.type is ParameterType.INT or parameter.step is not None:
        return grid_count(parameter)
    return None


def nth_value(parameter: Parameter, index: int) -> Value:
    """The index-th of `value_count` values."""
    return grid_value(parameter, index) if parameter.numeric else parameter.values[index]
