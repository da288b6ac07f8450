"""Settings of algorithms and early stopping rules: what each must be, what it means, and all that is wrong with some.

For whoever writes one, ours and third parties'. A class names its own as `settings: ClassVar[Mapping[str, Rule]]`, from
where `evertune algorithms NAME` lists them, and its `check` hands them to `settings_problems`. Values stay text, as in
Katib: nothing is converted here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from evertune.errors import Problem

ALGORITHM = "spec.algorithm.algorithmSettings"
EARLY_STOPPING = "spec.earlyStopping.algorithmSettings"
MAX_SEED = 2**31 - 1
MAX_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Rule:
    """One setting: what it must be, in words, and the test. Without a `default` it must be given."""

    must_be: str
    allows: Callable[[str], bool]
    meaning: str
    default: str | None


def is_int(low: int, high: int = 2**63) -> Callable[[str], bool]:
    def allows(text: str) -> bool:
        # Python refuses to read numbers of thousands of digits with an error of its own.
        return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and low <= int(text) <= high

    return allows


def is_float(allowed: Callable[[float], bool]) -> Callable[[str], bool]:
    def allows(text: str) -> bool:
        try:
            value = float(text)
        except ValueError:
            return False
        return "_" not in text and text.isascii() and math.isfinite(value) and allowed(value)

    return allows


RANDOM_STATE = Rule(
    f"a whole number from 0 to {MAX_SEED}", is_int(0, MAX_SEED), "seed of the search", "drawn and stored"
)


def one_of(*words: str) -> Callable[[str], bool]:
    return lambda text: text in words


def choice(meaning: str, default: str, *words: str) -> Rule:
    return Rule(f"one of {', '.join(words)}", one_of(*words), meaning, default)


def whole(low: int, meaning: str, default: str | None) -> Rule:
    return Rule(f"a whole number from {low}", is_int(low), meaning, default)


def positive(meaning: str, default: str | None) -> Rule:
    return Rule("a number above 0", is_float(lambda value: value > 0), meaning, default)


def not_negative(meaning: str, default: str | None) -> Rule:
    return Rule("a number from 0", is_float(lambda value: value >= 0), meaning, default)


def fraction(meaning: str, default: str | None) -> Rule:
    return Rule("a number from 0 to 1", is_float(lambda value: 0 <= value <= 1), meaning, default)


def share(meaning: str, default: str) -> Rule:
    return Rule("a number above 0, at most 1", is_float(lambda value: 0 < value <= 1), meaning, default)


def or_none(rule: Rule) -> Rule:
    return replace(rule, must_be=f"{rule.must_be}, or None", allows=lambda text: text == "None" or rule.allows(text))


def is_signed(text: str) -> bool:
    return is_int(0, 2**63 - 1)(text.removeprefix("-"))


def text_of(name: str, settings: Mapping[str, str], rules: Mapping[str, Rule]) -> str:
    """A setting as it was given, or its default; KeyError where it has none, which `settings_problems` has refused."""
    default = rules[name].default
    return settings[name] if default is None else settings.get(name, default)


def settings_problems(
    name: str,
    settings: Mapping[str, str],
    rules: Mapping[str, Rule],
    *,
    path: str = ALGORITHM,
    others: bool = False,
) -> list[Problem]:
    """Bad values, settings that are missing, and unknown ones unless `others` may pass.

    `path` is where the settings stand: `EARLY_STOPPING` for those of an early stopping rule.
    """
    found = []
    for index, (key, text) in enumerate(settings.items()):
        if key in rules:
            if not rules[key].allows(text):
                shown = text if len(text) <= 60 else f"{text[:58]}…"
                message = f'{key} must be {rules[key].must_be}; got "{shown}"'
                found.append(Problem(path=f"{path}[{index}].value", type="Invalid", message=message))
        elif not others:
            known = f"settings of {name}: {', '.join(rules)}"
            close = difflib.get_close_matches(key, rules, 1, 0.6)
            hint = f'did you mean "{close[0]}"? {known}' if close else known
            message = f'"{key}" is not a setting of {name}'
            found.append(Problem(path=f"{path}[{index}].name", type="Invalid", message=message, hint=hint))
    for key, rule in rules.items():
        if rule.default is None and key not in settings:
            message = f"{name} needs the setting {key}: {rule.meaning}"
            found.append(Problem(path=path, type="Required", message=message, hint=f"{key} is {rule.must_be}"))
    return found
