"""The settings of each built-in algorithm, Katib's names and rules verbatim, checked without importing any library.

`registry.check` comes to `problems_of`; the adapters read the values afterwards, which then are known to be good.
`later` builds its tables of the same parts.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from algorithms import limits
from evertune.domain.space import ParameterType, SearchProblem
from evertune.errors import Problem

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


SETTINGS: Mapping[str, Mapping[str, Rule]] = {
    "random": {"random_state": RANDOM_STATE},
    "grid": {"random_state": RANDOM_STATE},
    "tpe": {
        "random_state": RANDOM_STATE,
        "gamma": Rule(
            "a number between 0 and 1, both excluded",
            is_float(lambda value: 0 < value < 1),
            "fraction of trials that count as good",
            "0.25",
        ),
        "prior_weight": Rule(
            "a number above 0", is_float(lambda value: value > 0), "weight of the prior in the densities", "1.0"
        ),
        "n_EI_candidates": Rule("a whole number above 0", is_int(1), "candidates drawn per suggestion", "24"),
        "n_startup_jobs": Rule("a whole number from 0", is_int(0), "random trials before the model", "20"),
    },
    "multivariate-tpe": {  # and motpe
        "random_state": RANDOM_STATE,
        "n_startup_trials": Rule("a whole number from 0", is_int(0), "random trials before the model", "10"),
        "n_ei_candidates": Rule("a whole number above 0", is_int(1), "candidates drawn per suggestion", "24"),
    },
}


def problems_of(name: str, problem: SearchProblem) -> list[Problem]:
    """Unknown settings and bad values, with Katib's paths, and bounds that no library could search."""
    return [*settings_problems(name, problem, SETTINGS[name]), *limits.problems_of(problem.space)]


def settings_problems(
    name: str, problem: SearchProblem, rules: Mapping[str, Rule], *, others: bool = False
) -> list[Problem]:
    """Bad values, settings that are missing, and unknown ones unless the algorithm lets `others` pass."""
    found = []
    for index, (key, text) in enumerate(problem.settings.items()):
        path = f"spec.algorithm.algorithmSettings[{index}]"
        if key in rules:
            if not rules[key].allows(text):
                shown = text if len(text) <= 60 else f"{text[:58]}…"
                message = f'{key} must be {rules[key].must_be}; got "{shown}"'
                found.append(Problem(path=f"{path}.value", type="Invalid", message=message))
        elif not others:
            close = difflib.get_close_matches(key, rules, 1, 0.6)
            hint = f'did you mean "{close[0]}"?' if close else f"settings of {name}: {', '.join(rules)}"
            message = f'"{key}" is not a setting of {name}'
            found.append(Problem(path=f"{path}.name", type="Invalid", message=message, hint=hint))
    for key, rule in rules.items():
        if rule.default is None and key not in problem.settings:
            message = f"{name} needs the setting {key}: {rule.meaning}"
            hint = f"{key} is {rule.must_be}"
            found.append(Problem(path="spec.algorithm.algorithmSettings", type="Required", message=message, hint=hint))
    return found


def step_problems(name: str, problem: SearchProblem) -> list[Problem]:
    """For algorithms that enumerate the values of a double: it needs a step."""
    return [
        Problem(
            path=f"spec.parameters[{index}].feasibleSpace.step",
            type="Required",
            message=f"{name} needs a step for the double {parameter.name}",
            hint='step: "0.1", or another algorithm',
        )
        for index, parameter in enumerate(problem.space)
        if parameter.type is ParameterType.DOUBLE and parameter.step is None and parameter.low != parameter.high
    ]


def grid_problems(problem: SearchProblem, combinations: int | None) -> Sequence[Problem]:
    """Katib's rules for grid: a double needs a step, and the budget must not exceed the combinations."""
    found = step_problems("grid", problem)
    if not found and combinations is not None and problem.max_trials is not None and problem.max_trials > combinations:
        message = (
            f"maxTrialCount must be at most {combinations}, the combinations of the grid; got {problem.max_trials}"
        )
        found.append(Problem(path="spec.maxTrialCount", type="Invalid", message=message))
    return found
