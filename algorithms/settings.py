"""Algorithm settings: Katib's text into numbers, and every rule that a text breaks.

Used by the built-in algorithms for `check` and for their own values. Light on purpose: hundreds of files per second are
validated through it, so it imports no library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evertune.errors import Problem

_PATH = "spec.algorithm.algorithmSettings"
_WHOLE = re.compile(r"\+?[0-9]{1,18}\Z")
_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `read` gives its value or raises ValueError, `rule` says in words what it accepts.

    `default` None: whoever asks has a value of his own (the seed).
    """

    name: str
    default: float | None
    rule: str
    read: Callable[[str], float]


def whole(name: str, default: int | None, at_least: int) -> Setting:
    def read(text: str) -> int:
        if not _WHOLE.match(text) or not at_least <= int(text) <= _MAX:
            raise ValueError(text)
        return int(text)

    return Setting(name, default, f"a whole number from {at_least} to {_MAX}", read)


def real(name: str, default: float, above: float, below: float = math.inf) -> Setting:
    def read(text: str) -> float:
        if "_" in text or not above < float(text) < below:
            raise ValueError(text)
        return float(text)

    between = f" and below {below:g}" if math.isfinite(below) else ""
    return Setting(name, default, f"a number above {above:g}{between}", read)


# The seed. Its value reaches an algorithm as `SearchProblem.seed`; here it is a name that is known and a rule.
RANDOM_STATE = whole("random_state", None, 0)


def problems(algorithm: str, known: Sequence[Setting], settings: Mapping[str, str]) -> list[Problem]:
    """Every unknown name and every value that breaks its rule."""
    by_name = {setting.name: setting for setting in known}
    found = []
    for index, (name, text) in enumerate(settings.items()):
        setting = by_name.get(name)
        if setting is None:
            found.append(_unknown(algorithm, list(by_name), name, f"{_PATH}[{index}].name"))
            continue
        try:
            setting.read(text.strip())
        except ValueError:
            message = f"{name} must be {setting.rule}, not {_quote(text)}"
            found.append(Problem(path=f"{_PATH}[{index}].value", type="Invalid", message=message))
    return found


def values(known: Sequence[Setting], settings: Mapping[str, str]) -> dict[str, float]:
    """The number of every setting that has one; only for settings without `problems`."""
    found = {setting.name: setting.default for setting in known}
    for setting in known:
        if setting.name in settings:
            found[setting.name] = setting.read(settings[setting.name].strip())
    return {name: value for name, value in found.items() if value is not None}


def _unknown(algorithm: str, known: list[str], name: str, path: str) -> Problem:
    from evertune.spec.findings import suggestion  # who reports a mistake has the spec loaded; the ask process has not

    message = f"{_quote(name)} is not a setting of {algorithm}"
    return Problem(path=path, type="Invalid", message=message, hint=suggestion(name, known, "known"))


def _quote(text: str) -> str:
    from evertune.spec.findings import quote

    return quote(text)
