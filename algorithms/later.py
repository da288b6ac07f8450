"""Katib's algorithms that this version judges but does not run: their settings and what they ask of the space.

`registry.check` calls `check`, so that a spec gets Katib's verdict whatever runs it later. Where Katib's own check is
broken, what it was meant to say holds. Nothing here searches, and nothing is imported but the settings' parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from algorithms.settings import (
    Rule,
    fraction,
    is_float,
    positive,
    settings_problems,
    step_problems,
    whole,
)
from evertune.domain.space import SearchProblem
from evertune.errors import Problem, ProblemType

SETTINGS = "spec.algorithm.algorithmSettings"

_HYPERBAND = {
    "r_l": positive("the most of the resource that one trial may use", None),
    "resource_name": Rule("the name of a parameter", bool, "the parameter that holds a trial's resource", None),
    # The service rounds towards zero, takes 3 for what is then not positive, and divides by the logarithm.
    "eta": Rule(
        "a number from 2, or below 1 for 3", is_float(lambda value: int(value) != 1), "one of eta trials goes on", "3"
    ),
}

_PBT = {
    "suggestion_trial_dir": Rule("a directory", bool, "where a trial's container finds its checkpoint", None),
    "n_population": whole(5, "trials of one generation", None),
    "truncation_threshold": fraction("the share of a generation that is replaced", None),
    "resample_probability": fraction("how often a parameter is drawn anew", "none: parameters are perturbed"),
}

# Settings by algorithm, and whether the algorithm's service lets settings pass that it does not know.
TABLES: Mapping[str, tuple[Mapping[str, Rule], bool]] = {
    "hyperband": (_HYPERBAND, True),
    "pbt": (_PBT, True),
}


def check(name: str, problem: SearchProblem) -> list[Problem]:
    """Everything wrong with the settings and the space for one of `CHECKS`."""
    rules, others = TABLES[name]
    found = settings_problems(name, problem, rules, others=others)
    return [*found, *CHECKS[name](problem, {one.path for one in found})]


def _hyperband(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    found = []
    settings = problem.settings
    places = {key: f"{SETTINGS}[{index}].value" for index, key in enumerate(settings)}
    resource = settings.get("resource_name")
    if resource and resource not in problem.space.names():
        message = f'resource_name must be the name of a parameter; got "{resource}"'
        hint = f"parameters: {', '.join(problem.space.names())}"
        found.append(_problem(places["resource_name"], "Invalid", message, hint))
    if "r_l" not in settings or places["r_l"] in broken or places.get("eta") in broken:
        return found
    first = _first_rung(float(settings["r_l"]), float(settings.get("eta", "3")))
    if problem.parallel < first:
        message = f"hyperband needs parallelTrialCount {first} or more, its first rung; got {problem.parallel}"
        found.append(_problem("spec.parallelTrialCount", "Invalid", message, "or a smaller r_l"))
    return found


def _first_rung(most: float, eta: float) -> int:
    """ceil(eta^s_max), in the floating point arithmetic that Katib's own check uses."""
    base = int(eta) if int(eta) > 0 else 3
    return math.ceil(float(base) ** math.trunc(math.log(most) / math.log(base)))


def _pbt(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    return step_problems("pbt", problem)


def _problem(path: str, type_: ProblemType, message: str, hint: str | None = None) -> Problem:
    return Problem(path=path, type=type_, message=message, hint=hint)


# What each asks beyond single settings, given the paths of what is wrong with those.
CHECKS: Mapping[str, Callable[[SearchProblem, set[str]], list[Problem]]] = {
    "hyperband": _hyperband,
    "pbt": _pbt,
}
