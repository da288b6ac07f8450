"""Bounds and steps that doubles cannot hold: refused before an experiment starts, not by a library in its middle.

Asked by the `check` of every built-in algorithm. What a parameter means is the spec's business, not ours.
"""

from __future__ import annotations

import math
from fractions import Fraction

from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.errors import Problem

MAX_BOUND = 1e300  # sums and widened ranges stay finite
MAX_VALUES = 2**54 + 1  # whole doubles end at 2^53 on either side of zero
_LOGS = (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL)


def problems_of(space: SearchSpace) -> list[Problem]:
    """Ranges that are too wide, too narrow or too finely stepped."""
    found = []
    for index, parameter in enumerate(space):
        if not parameter.numeric or parameter.low == parameter.high:
            continue
        where = f"spec.parameters[{index}].feasibleSpace"
        if max(abs(parameter.low), abs(parameter.high)) > MAX_BOUND:
            message = f"min {parameter.low!r} and max {parameter.high!r} go beyond {MAX_BOUND:g}"
            found.append(Problem(path=where, type="Invalid", message=message, hint="search the exponent instead"))
        elif _values(parameter) > MAX_VALUES:
            message = f"step {parameter.step!r} is too small for the range: more than 2^54 values"
            found.append(Problem(path=f"{where}.step", type="Invalid", message=message, hint="leave step out"))
        elif _values(parameter) != 1 and not _spread(parameter) > 0:
            message = (
                f"min {parameter.low!r} and max {parameter.high!r} are too close for the distribution"
                f" {parameter.distribution}"
            )
            found.append(Problem(path=where, type="Invalid", message=message, hint="widen the range, or use uniform"))
    return found


def _values(parameter: Parameter) -> int:
    """How many values the grid has; 0 without one."""
    step = parameter.step or (1.0 if parameter.type is ParameterType.INT else None)
    if step is None:
        return 0
    return int((Fraction(repr(parameter.high)) - Fraction(repr(parameter.low))) // Fraction(repr(step))) + 1


def _spread(parameter: Parameter) -> float:
    """The standard deviation that Katib's normal has; on a logarithmic scale if the distribution is on one."""
    if parameter.distribution in _LOGS:
        return (math.log(parameter.high) - math.log(parameter.low)) / 6
    return (parameter.high - parameter.low) / 6


def budget_problems(name: str, problem: SearchProblem, most: int, others: str) -> list[Problem]:
    """For models whose asks become too slow: more trials than `most` need one of the `others`."""
    if problem.max_trials is None or problem.max_trials <= most:
        return []
    message = (
        f"maxTrialCount must be at most {most:,} with {name}, whose model grows too slow; got {problem.max_trials}"
    )
    return [Problem(path="spec.maxTrialCount", type="Invalid", message=message, hint=f"or take {others}")]
