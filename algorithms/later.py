"""Katib's algorithms that this version judges but does not run: their settings and what they ask of the space.

`registry.check` calls `check`, so that a spec gets Katib's verdict whatever runs it later. Where Katib's own check is
broken, what it was meant to say holds. Nothing here searches, and nothing is imported but the settings' parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from algorithms.settings import (
    RANDOM_STATE,
    Rule,
    choice,
    is_float,
    is_signed,
    settings_problems,
    whole,
)
from evertune.domain.space import SearchProblem
from evertune.errors import Problem, ProblemType

SETTINGS = "spec.algorithm.algorithmSettings"


_CMAES = {
    "random_state": Rule("a whole number", is_signed, "seed of the search", "0"),
    "sigma": Rule("a number", is_float(lambda value: True), "first step size; used when above 0", "from the ranges"),
    "restart_strategy": choice("what follows when the search has converged", "none", "none", "ipop", "bipop"),
}

_BAYESIAN_OPTIMIZATION = {
    "base_estimator": choice("the surrogate model", "GP", "GP", "RF", "ET", "GBRT"),
    "n_initial_points": whole(0, "random trials before the model", "10"),
    "acq_func": choice(
        "what the model's answer is scored by", "gp_hedge", "gp_hedge", "LCB", "EI", "PI", "EIps", "PIps"
    ),
    "acq_optimizer": choice("how the best score is searched", "auto", "auto", "sampling", "lbfgs"),
    "random_state": RANDOM_STATE,
}

# Settings by algorithm, and whether the algorithm's service lets settings pass that it does not know.
TABLES: Mapping[str, tuple[Mapping[str, Rule], bool]] = {
    "bayesianoptimization": (_BAYESIAN_OPTIMIZATION, False),
    "cmaes": (_CMAES, True),
    "sobol": ({}, True),
}


def check(name: str, problem: SearchProblem) -> list[Problem]:
    """Everything wrong with the settings and the space for one of `CHECKS`."""
    rules, others = TABLES[name]
    found = settings_problems(name, problem, rules, others=others)
    return [*found, *CHECKS[name](problem, {one.path for one in found})]


def _nothing_more(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    return []


def _cmaes(problem: SearchProblem, broken: set[str]) -> list[Problem]:
    numeric = sum(parameter.numeric for parameter in problem.space)
    if numeric >= 2:
        return []
    message = f"cmaes needs at least two parameters of type double or int; got {numeric}"
    return [_problem("spec.parameters", "Invalid", message, "take another algorithm, such as tpe")]


def _problem(path: str, type_: ProblemType, message: str, hint: str | None = None) -> Problem:
    return Problem(path=path, type=type_, message=message, hint=hint)


# What each asks beyond single settings, given the paths of what is wrong with those.
CHECKS: Mapping[str, Callable[[SearchProblem, set[str]], list[Problem]]] = {
    "bayesianoptimization": _nothing_more,
    "cmaes": _cmaes,
    "sobol": _nothing_more,
}
