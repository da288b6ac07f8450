"""one-plus-one: an evolution strategy of one parent and one child.

Each trial is the best one so far, moved by a normally distributed step. The step grows by half with each trial that is
better, and shrinks with each that is not, so that it stays where one trial in five is better: the 1/5th success rule of
Rechenberg 1973, with the factors of Kern et al. 2004. Until a trial has ended well, trials are drawn from all over the
space. Normal distributions are searched as uniform ones.

evertune asks with the whole history and may ask anew in another process, so nothing is kept here: parent and step size
are worked out from the trials that were told, and each trial has a random generator of its own, seeded by its number.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, Literal

from evertune.domain.metrics import ObjectiveType
from evertune.domain.setting import RANDOM_STATE, Rule, settings_problems, share, text_of
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import LEARNED, Answer, Feature, JsonDict

GROWS, SHRINKS = 1.5, 1.5**-0.25
SMALLEST, LARGEST = 1e-6, 1.0  # steps, as shares of a parameter's range


class OnePlusOne:
    name: ClassVar[str] = "one-plus-one"
    about: ClassVar[str] = "Evolution strategy of one parent: for smooth objectives and few parallel trials."
    advice: ClassVar[str] = (
        "30 trials and more; children of one parent learn nothing from each other, so few in parallel."
    )
    settings: ClassVar[Mapping[str, Rule]] = {
        "random_state": RANDOM_STATE,
        "initial_step": share("standard deviation of the first steps, as a share of a parameter's range", "0.2"),
    }
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = LEARNED  # what evertune does around any algorithm that reads the history

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._first_step = float(text_of("initial_step", problem.settings, self.settings))

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return settings_problems(cls.name, problem.settings, cls.settings)

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        parent, step = self._learned(history)
        return Answer(
            assignments=tuple(
                Assignment(self._child(parent, step, random.Random(f"{self._problem.seed}/{number}")))
                for number in range(first_number, first_number + k)
            )
        )

    def _learned(self, history: Iterable[HistoryTrial]) -> tuple[HistoryTrial | None, float]:
        """The best trial, and the step size after all that were told, in the order in which they were."""
        sign = 1 if self._problem.direction is ObjectiveType.MINIMIZE else -1
        parent, least, step = None, math.inf, self._first_step
        for trial in sorted(history, key=lambda trial: (trial.told_seq or 0, trial.number)):
            if trial.state is not TrialState.SUCCEEDED or trial.value is None or not math.isfinite(trial.value):
                continue
            if parent is not None:
                step *= GROWS if sign * trial.value < least else SHRINKS
            if sign * trial.value < least:
                parent, least = trial, sign * trial.value
        return parent, min(max(step, SMALLEST), LARGEST)

    def _child(self, parent: HistoryTrial | None, step: float, luck: random.Random) -> dict[str, Value]:
        known = {} if parent is None else parent.parameters
        return {
            parameter.name: _near(parameter, known[parameter.name], step, luck)
            if parameter.name in known
            else _value(parameter, luck.random())
            for parameter in self._problem.space
        }


def _near(parameter: Parameter, value: Value, step: float, luck: random.Random) -> Value:
    """A step away from the parent's value; of a list sometimes another entry, the more often the larger the step."""
    moved, anew = luck.gauss(0, step), luck.random()
    if not parameter.numeric:
        return luck.choice(parameter.values) if anew < step or value not in parameter.values else value
    return _value(parameter, min(max(_share(parameter, float(value)) + moved, 0.0), 1.0))


def _logarithmic(parameter: Parameter) -> bool:
    return parameter.distribution in (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL)


def _share(parameter: Parameter, value: float) -> float:
    """Where in its range a number stands, from 0 to 1, on the parameter's own scale."""
    if parameter.low == parameter.high:
        return 0.5
    scale = math.log if _logarithmic(parameter) else float
    low, high = scale(parameter.low), scale(parameter.high)
    return (scale(min(max(value, parameter.low), parameter.high)) - low) / (high - low)


def _value(parameter: Parameter, share: float) -> Value:
    """The value at a share of the range, on the grid where there is one, as the plain type that the parameter has."""
    if not parameter.numeric:
        return parameter.values[min(int(share * len(parameter.values)), len(parameter.values) - 1)]
    low, high = parameter.low, parameter.high
    value = low * (high / low) ** share if _logarithmic(parameter) else low + share * (high - low)
    whole = parameter.type is ParameterType.INT
    step = parameter.step or (1 if whole else None)
    if step is None:
        return min(max(value, low), high)
    # In decimals, so that 0.1 + 2 * 0.1 is 0.3.
    first, each = Decimal(repr(low)), Decimal(repr(step))
    number = first + each * min(round((value - low) / step), int((Decimal(repr(high)) - first) / each))
    return int(number) if whole else float(number)
