"""One search dimension written as a person writes it: `loguniform(1e-5, 1e-1)`, `int(1, 8)`, `[adam, sgd]`, `10`.

Used by the short form and by `--param` of `tune` and `init`. Gives Katib's parameter spec; numbers keep the user's own
text. Whether the numbers make sense is for `rules.parameters` to say, so that both forms hear the same sentences.

    uniform(low, high)  loguniform(low, high)   double; a third number or step=… is the step (also quniform)
    int(low, high)      logint(low, high)       int, ends included; step as above
    normal(mean, sd)    lognormal(mean, sd)     double within three deviations; of lognormal, of the logarithm
    choice(a, b, …)     [a, b, …]               discrete if all are numbers, else categorical
    constant(x)         x                       one value

    … if optimizer=sgd|adam and layers=2       only there where the other parameters have these values
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evertune.errors import UsageError
from evertune.spec.convert import number
from evertune.spec.findings import Findings, did_you_mean, quote
from evertune.spec.model import JsonDict, ParameterSpec
from evertune.spec.parse import parse_documents
from evertune.spec.phrases import PhraseError, condition_in
from evertune.spec.rules.parameters import check_parameter

_CALL = re.compile(r"\s*([A-Za-z][A-Za-z_]*)\s*\((.*)\)\s*\Z", re.DOTALL)
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_ARGUMENT = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^,"'\s][^,]*?|)\s*(,|\Z)""")

# function -> (parameterType, distribution, whether (mean, sd) become a range)
_RANGES: dict[str, tuple[str, str, bool]] = {
    "uniform": ("double", "uniform", False),
    "quniform": ("double", "uniform", False),
    "loguniform": ("double", "logUniform", False),
    "qloguniform": ("double", "logUniform", False),
    "int": ("int", "uniform", False),
    "logint": ("int", "logUniform", False),
    "normal": ("double", "normal", True),
    "lognormal": ("double", "logNormal", True),
}
FUNCTIONS = (*_RANGES, "choice", "constant")
_KEYS = ("type", "min", "max", "step", "distribution", "list", "when")


MAX_TEXT = 2_000


class DimensionError(ValueError):
    """The text is not a dimension. `key` is the key of a mapping that is at fault."""

    def __init__(self, message: str, hint: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint, self.key = message, hint, key


def parse_dimension(text: str) -> JsonDict:
    """The parameter spec in `lr=loguniform(1e-5,1e-1)`; raises UsageError with one sentence."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name or not value.strip():
        raise UsageError(f"{quote(text)} is not a parameter", "write for example lr=loguniform(1e-5,1e-1)")
    try:
        parameter = dimension(name, value.strip())
    except DimensionError as error:
        raise UsageError(f"{name}: {error.message}", error.hint) from None
    findings = Findings()
    check_parameter(ParameterSpec.model_validate(parameter), "", findings, inline=True)
    for problem in findings.errors:
        raise UsageError(f"{name}: {problem.message}", problem.hint)
    return parameter


def dimension(name: str, value: Any, raw: Callable[[str], str | None] = lambda path: None) -> JsonDict:
    """Katib's parameter spec for one dimension; raises DimensionError.

    `raw` gives the user's own spelling of the number at `""`, `[0]` or `.min` below the value, where it is known.
    """
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise DimensionError(f"longer than {MAX_TEXT:,} characters", "write a YAML list")
        return _conditional(name, value)
    if isinstance(value, Mapping):
        return _from_mapping(name, value, raw)
    if isinstance(value, list | tuple):
        return _choice(name, [_text(item, raw(f"[{index}]")) for index, item in enumerate(value)])
    return _constant(name, _text(value, raw("")))


def _conditional(name: str, text: str) -> JsonDict:
    try:
        text, when = condition_in(text)
    except PhraseError as error:
        raise DimensionError(error.message, error.hint) from None
    parameter = _from_text(name, text)
    return {**parameter, "when": when} if when else parameter


def _from_text(name: str, text: str) -> JsonDict:
    if text.startswith("[") and text.endswith("]"):
        return _choice(name, _arguments(text[1:-1]))
    call = _CALL.match(text)
    if call is None:
        if "(" in text or text.startswith("["):
            raise DimensionError(f"{quote(text)} lacks a closing bracket", _known())
        return _constant(name, _unquote(text))
    function, arguments = call[1].lower(), _arguments(call[2])
    if function in ("choice", "categorical", "discrete"):
        return _choice(name, _arguments(call[2].strip()[1:-1]) if call[2].strip()[:1] == "[" else arguments)
    if function == "constant":
        if len(arguments) != 1:
            raise DimensionError("constant takes one value")
        return _constant(name, arguments[0])
    if function not in _RANGES:
        close = did_you_mean(function, FUNCTIONS)
        raise DimensionError(f"there is no {call[1]}()", f"did you mean {close}?; {_known()}" if close else _known())
    return _range(name, function, arguments)


def _known() -> str:
    return f"known: {' '.join(FUNCTIONS)}"


def _range(name: str, function: str, arguments: Sequence[str]) -> JsonDict:
    kind, distribution, around_mean = _RANGES[function]
    numbers = [argument for argument in arguments if not argument.startswith("step=")]
    steps = [argument.removeprefix("step=") for argument in arguments if argument.startswith("step=")]
    if len(numbers) == 3 and not steps:
        steps.append(numbers.pop())
    if len(numbers) != 2 or len(steps) > 1 or (function.startswith("q") and not steps):
        wanted = "mean, sd" if around_mean else "low, high"
        tail = ", step" if function.startswith("q") else ""
        raise DimensionError(f"{function} takes ({wanted}{tail}), not ({', '.join(arguments)})")
    low, high = numbers
    if around_mean:
        low, high = _three_deviations(function, low, high)
    space = {"min": low, "max": high, "distribution": distribution}
    if steps:
        space["step"] = steps[0].strip()
    return {"name": name, "parameterType": kind, "feasibleSpace": space}


def _three_deviations(function: str, mean: str, deviation: str) -> tuple[str, str]:
    """Katib's normal distributions lie between min and max, at three deviations from the mean."""
    try:
        centre, reach = number(mean), 3 * number(deviation)
        if reach <= 0:
            raise DimensionError(f"the deviation {deviation} must be above 0")
        ends = (centre - reach, centre + reach)
        low, high = (math.exp(end) for end in ends) if function == "lognormal" else ends
    except (ValueError, OverflowError) as error:
        if isinstance(error, DimensionError):
            raise
        raise DimensionError(f"{function}({mean}, {deviation}) is not made of usable numbers") from None
    return f"{low:.12g}", f"{high:.12g}"


def _choice(name: str, items: Sequence[str]) -> JsonDict:
    if not items:
        raise DimensionError("the list of values is empty", 'write for example ["adam", "sgd"]')
    kind = "discrete" if all(_is_number(item) for item in items) else "categorical"
    return {"name": name, "parameterType": kind, "feasibleSpace": {"list": list(items)}}


def _constant(name: str, text: str) -> JsonDict:
    if not _is_number(text):
        return _choice(name, [text])
    kind = "int" if _INTEGER.match(text) else "double"
    return {"name": name, "parameterType": kind, "feasibleSpace": {"min": text, "max": text}}


def _from_mapping(name: str, value: Mapping[str, Any], raw: Callable[[str], str | None]) -> JsonDict:
    for key in value:
        if key not in _KEYS:
            close = did_you_mean(key, _KEYS)
            hint = f"did you mean {quote(close)}?" if close else f"known: {' '.join(_KEYS)}"
            raise DimensionError(f"{quote(key)} is not a key of a parameter", hint, key)
    space: JsonDict = {}
    for key in ("min", "max", "step"):
        if value.get(key) is not None:
            space[key] = _text(value[key], raw(f".{key}"), key)
    if (items := value.get("list")) is not None:
        if not isinstance(items, list):
            raise DimensionError("list must be a list", 'start each entry with "- "', "list")
        space["list"] = [_text(item, raw(f".list[{index}]"), "list") for index, item in enumerate(items)]
    if value.get("distribution") is not None:
        space["distribution"] = _text(value["distribution"], None, "distribution")
    kind = value.get("type")
    if kind is None and "list" in space:
        kind = _choice(name, space["list"])["parameterType"]
    elif kind is None:
        ends = [space.get("min", ""), space.get("max", ""), space.get("step", "0")]
        kind = "int" if all(_INTEGER.match(end) for end in ends) else "double"
    parameter = {"name": name, "parameterType": _text(kind, None, "type"), "feasibleSpace": space}
    return {**parameter, "when": value["when"]} if value.get("when") is not None else parameter


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _text(value: Any, raw: str | None, key: str | None = None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return raw if raw is not None else quote(value)
    kind = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
    raise DimensionError(f"a value must be a number or text, not {kind}", None, key)


def _arguments(text: str) -> list[str]:
    """Splits at commas outside quotes; quotes are taken off."""
    found: list[str] = []
    at = 0
    while text.strip():
        match = _ARGUMENT.match(text, at)
        if match is None or not match[1]:
            raise DimensionError(f"({text}) is not a list of values", "separate the values by commas")
        found.append(_unquote(match[1]))
        at = match.end()
        if not match[2] or at >= len(text):
            break
    return found


def _unquote(text: str) -> str:
    if text[:1] not in ('"', "'"):
        return text.strip()
    document = parse_documents(text, "")[0]
    if not isinstance(document.data, str):
        raise DimensionError(f"{text} is not a quoted text")
    return document.data
