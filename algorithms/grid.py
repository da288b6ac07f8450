"""`grid`: every combination once. Trial i is combination i; nothing is ever listed, so a grid may be of any size.

Combinations count like an odometer over the parameters as they are written: the last one turns fastest, each from min
(or the head of its list) upwards. With the setting `random_state` the same combinations come in an order shuffled by
the seed. As in Katib a double needs a step, a distribution has no meaning, and maxTrialCount must not exceed the number
of combinations. Without it the experiment ends when all have been handed out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from algorithms import settings, space
from algorithms.permutation import Permutation
from evertune.domain.space import Parameter, ParameterType, Value
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict, SearchProblem


class Grid:
    name: ClassVar[str] = "grid"
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "refuse"  # a number means another point then
    reads_history: ClassVar[bool] = False

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        found = settings.problems(cls.name, (settings.RANDOM_STATE,), problem.settings)
        stepless = [
            Problem(
                path=f"spec.parameters[{index}].feasibleSpace.step",
                type="Required",
                message=f"grid needs a step for the double {parameter.name}",
                hint="add step, or use random",
            )
            for index, parameter in enumerate(problem.space)
            if parameter.type is ParameterType.DOUBLE and not parameter.step and parameter.low != parameter.high
        ]
        if stepless or problem.max_trials is None:
            return found + stepless
        count = math.prod(_axis(parameter).count for parameter in problem.space)
        if problem.max_trials > count:
            message = f"{problem.max_trials} trials are more than the grid's {count} combinations"
            hint = f"maxTrialCount: {count} or less, or leave it out to try all"
            found.append(Problem(path="spec.maxTrialCount", type="Invalid", message=message, hint=hint))
        return found

    def __init__(self, problem: SearchProblem) -> None:
        self._axes = [_axis(parameter) for parameter in problem.space]
        self._count = math.prod(axis.count for axis in self._axes)
        shuffled = settings.RANDOM_STATE.name in problem.settings
        self._order: Permutation | range = Permutation(self._count, problem.seed) if shuffled else range(self._count)

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        numbers = range(first_number, min(first_number + k, self._count))
        last = first_number + k >= self._count
        return Answer(
            assignments=tuple(Assignment(self._point(self._order[number])) for number in numbers),
            exhausted=last,
            reason=f"all {self._count} combinations of the grid have been handed out" if last else "",
        )

    def _point(self, combination: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for axis in reversed(self._axes):
            combination, index = divmod(combination, axis.count)
            values[axis.name] = axis.decode(index)
        return {axis.name: values[axis.name] for axis in self._axes}


def _axis(parameter: Parameter) -> space.Choices | space.Steps:
    constant = space.constant_of(parameter)
    if constant is not None:
        return space.Choices(parameter.name, (constant,))
    if parameter.numeric:
        return space.Steps.of(parameter)
    return space.Choices(parameter.name, tuple(dict.fromkeys(parameter.values)))
