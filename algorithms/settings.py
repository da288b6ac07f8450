"""Settings of the plain samplers and of grid, Katib's names and rules verbatim, and checks that algorithms share.

Asked by the `check` of these; the adapters read the values afterwards, which then are known to be good. Other algorithms
have such tables in their own modules. No check imports a numeric library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from algorithms import limits
from evertune.domain.setting import RANDOM_STATE, Rule, is_float, is_int, settings_problems
from evertune.domain.space import ParameterType, SearchProblem
from evertune.errors import Problem

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
    return [*settings_problems(name, problem.settings, SETTINGS[name]), *limits.problems_of(problem.space)]


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
