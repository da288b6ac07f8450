"""Values of parameters as people write them, and as trials get them: for `initialTrials`, `when` and `--set`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evertune.domain.grid import grid_count, grid_index, grid_value
from evertune.domain.space import Parameter, ParameterType, Value, value_text
from evertune.spec.findings import did_you_mean, quote

_YES = ("true", "yes", "on")
_NO = ("false", "no", "off")


class ValueProblem(ValueError):
    """What is written is no value of the parameter."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def as_number(value: Any) -> float | None:
    """A finite number, or text that is one; None for all else. Underscores and words are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def spelled(value: Any, items: Sequence[str]) -> Any:
    """The entry of `items` that is meant, else the value as text; what is no plain value stays as it is."""
    if isinstance(value, bool):
        known = [item for item in items if item.lower() in (_YES if value else _NO)]
        return known[0] if known else "true" if value else "false"
    if not isinstance(value, int | float | str) or value in items:
        return value
    number = as_number(value)
    if number is not None:
        equal = [item for item in items if as_number(item) == number]
        if equal:
            return equal[0]
        if not items and number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    return value_text(value)


def value_of(parameter: Parameter, value: Any) -> Value:
    """The value that a trial gets for what is written; raises ValueProblem with sentence and mend."""
    if parameter.type in (ParameterType.CATEGORICAL, ParameterType.DISCRETE):
        return _entry(parameter, value)
    number = as_number(value)
    if number is None:
        raise ValueProblem(f"{parameter.name} is a number, not {quote(value)}")
    if parameter.type is ParameterType.INT and number != int(number):
        raise ValueProblem(f"{parameter.name} is a whole number, not {quote(value)}")
    if not parameter.low <= number <= parameter.high:
        raise ValueProblem(
            f"{parameter.name} lies between {parameter.low:g} and {parameter.high:g}, {quote(value)} does not"
        )
    if parameter.type is not ParameterType.INT and parameter.step is None:
        return number
    near = grid_value(parameter, grid_index(parameter, number, grid_count(parameter)))
    if not math.isclose(float(near), number, rel_tol=1e-9, abs_tol=1e-12 * (parameter.step or 1.0)):
        step = parameter.step or 1.0
        message = f"{parameter.name} goes from {parameter.low:g} in steps of {step:g}: {quote(value)} is none of them"
        raise ValueProblem(message, f"the nearest is {value_text(near)}")
    return near


def _entry(parameter: Parameter, value: Any) -> str:
    text = spelled(value, parameter.values)
    if text in parameter.values:
        return str(text)
    close = did_you_mean(text, parameter.values) if isinstance(text, str) else None
    listed = ", ".join(parameter.values[:20]) + (", …" if len(parameter.values) > 20 else "")
    hint = f"did you mean {quote(close)}?; it is one of {listed}" if close else f"it is one of {listed}"
    raise ValueProblem(f"{parameter.name} cannot be {quote(value)}", hint)
