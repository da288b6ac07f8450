"""Successive halving in exact arithmetic: settings, rungs, and the labels of a trial that goes up them.

Shared by `hyperband`, `asha` and `bohb`. The settings' names and rules are Katib's where Katib has them. Everything is
computed in fractions: floating point gives log(243) / log(3) = 4.99…, and so Katib one rung too few.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from algorithms import limits
from algorithms.planning import Draws, Rank, place_of, rank
from evertune.domain import labels
from evertune.domain.metrics import ObjectiveType
from evertune.domain.setting import RANDOM_STATE, Rule, is_float, positive, settings_problems, text_of
from evertune.domain.space import Parameter, ParameterType, SearchProblem, Value, value_text
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem

MAX_RUNGS = 64

RESOURCE_SETTINGS: Mapping[str, Rule] = {
    "r_l": positive("the most of the resource that one trial may use", None),
    "resource_name": Rule("the name of a parameter", bool, "the parameter that holds a trial's resource", None),
    # Katib's service rounds towards zero, takes 3 for what is then not positive, and divides by the logarithm.
    "eta": Rule(
        "a number from 2, or below 1 for 3", is_float(lambda value: int(value) != 1), "one of eta trials goes on", "3"
    ),
    "r_min": positive("the least of the resource that a trial gets", "1"),
    "random_state": RANDOM_STATE,
}


@dataclass(frozen=True, slots=True)
class Ladder:
    """The resource of each rung of the longest bracket, from the least to `most`, in the parameter's own type."""

    parameter: Parameter
    eta: Fraction
    most: Fraction
    top: int  # s_max: the number of the highest rung

    @classmethod
    def of(cls, problem: SearchProblem) -> Ladder:
        settings = problem.settings
        by_name = {parameter.name: parameter for parameter in problem.space}
        eta, most = Fraction(text_of("eta", settings, RESOURCE_SETTINGS)), Fraction(settings["r_l"])
        eta = eta if eta >= 2 else Fraction(3)
        least = min(Fraction(text_of("r_min", settings, RESOURCE_SETTINGS)), most)
        top = 0
        while least * eta ** (top + 1) <= most:
            top += 1
        return cls(by_name[settings["resource_name"]], eta, most, top)

    def resource(self, below: int) -> Value:
        """Of a trial that is `below` rungs under the highest one."""
        exact = self.most / self.eta**below
        return max(1, math.floor(exact)) if self.parameter.type is ParameterType.INT else float(exact)

    def labels(self, below: int) -> dict[str, str]:
        return {
            labels.RESOURCE: value_text(self.resource(below)),
            labels.FULL_RESOURCE: value_text(self.resource(0)),
        }


def problems_of(name: str, problem: SearchProblem, rules: Mapping[str, Rule], *, others: bool = False) -> list[Problem]:
    """Everything wrong with the settings and the space for a search by successive halving."""
    found = settings_problems(name, problem.settings, rules, others=others)
    broken = {one.path for one in found}
    at = place_of(problem)
    settings = problem.settings
    if resource := settings.get("resource_name"):
        found += _resource_problems(name, problem, resource, at("resource_name"))
    given = [key for key in ("r_l", "eta", "r_min") if key in settings]
    if "r_l" in settings and not any(at(key) in broken for key in given):
        most, least = Fraction(settings["r_l"]), Fraction(text_of("r_min", settings, RESOURCE_SETTINGS))
        if "r_min" in settings and least > most:
            message = f'r_min must be at most r_l, which is {settings["r_l"]}; got "{settings["r_min"]}"'
            found.append(Problem(path=at("r_min"), type="Invalid", message=message))
        elif most > least * 2**MAX_RUNGS:
            key = "r_min" if "r_min" in settings else "r_l"
            message = f'{key} would make too many rungs, more than {MAX_RUNGS}; got "{settings[key]}"'
            found.append(Problem(path=at(key), type="Invalid", message=message, hint="r_l nearer to r_min"))
    return [*found, *limits.problems_of(problem.space)]


def _resource_problems(name: str, problem: SearchProblem, resource: str, path: str) -> list[Problem]:
    parameter = next((each for each in problem.space if each.name == resource), None)
    if parameter is None:
        message = f'resource_name must be the name of a parameter; got "{resource}"'
        return [Problem(path=path, type="Invalid", message=message, hint=f"parameters: {_names(problem)}")]
    if not parameter.numeric and parameter.values != ("",):  # which stands for one with a mistake of its own
        message = f'resource_name must be the name of an int or a double; got "{resource}", which is {parameter.type}'
        return [Problem(path=path, type="Invalid", message=message, hint=f"{name} gives it numbers of its own")]
    if parameter.when or any(when.parameter == resource for each in problem.space for when in each.when):
        message = f'the resource "{resource}" cannot take part in a `when`: every trial has it, and it grows'
        return [Problem(path=path, type="Invalid", message=message)]
    return []


def _names(problem: SearchProblem) -> str:
    return ", ".join(problem.space.names())


@dataclass(slots=True)
class Rung:
    """The trials of one rung, by configuration; of several for the same one the last counts."""

    trials: dict[int, HistoryTrial] = field(default_factory=dict)
    ended: list[tuple[Rank, int]] = field(default_factory=list)  # with its configuration, the best first

    @property
    def running(self) -> int:
        return len(self.trials) - len(self.ended)

    def put(self, config: int, trial: HistoryTrial, direction: ObjectiveType) -> None:
        known = self.trials.get(config)
        if known is not None and known.number > trial.number:
            return
        if known is not None and known.state.terminal:  # it was run again
            self.ended.remove((rank(known, direction), config))
        if trial.state.terminal:
            bisect.insort(self.ended, (rank(trial, direction), config))
        self.trials[config] = trial

    def best(self, how_many: int) -> Iterator[tuple[int, HistoryTrial]]:
        """Of those that have ended, with their configurations, the best first. None that failed."""
        for (bad, *_), config in self.ended[:how_many]:
            if bad:
                return
            yield config, self.trials[config]


class Climbing:
    """What sessions of successive halving share: the rungs as the history has them, and how a trial is handed out."""

    empty: ClassVar[Rung] = Rung()

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem
        self.ladder = Ladder.of(problem)
        self.draws = Draws(problem, {self.ladder.parameter.name: self.ladder.resource(0)})
        self.rungs: dict[tuple[int, int], Rung] = {}

    def take(self, trial: HistoryTrial) -> None:
        """A trial without the labels of a rung - a person added it, or it is another experiment's - is not ours."""
        given = trial.labels
        at, config = given.get(labels.RUNG), given.get(labels.CONFIG)
        if at is None or config is None or trial.number < 0:
            return
        place = (int(given.get(labels.BRACKET, "0")), int(at))
        rung = self.rungs.get(place)
        if rung is None:
            rung = self.rungs[place] = Rung()
        rung.put(int(config), trial, self.problem.direction)

    def rung(self, bracket: int, number: int) -> Rung:
        return self.rungs.get((bracket, number), self.empty)

    def started(self, parameters: Mapping[str, Value], number: int, below: int, given: Mapping[str, str]) -> Assignment:
        """A new configuration at its first rung, `below` the highest one."""
        own = {labels.RUNG: "0", labels.CONFIG: str(number), **self.ladder.labels(below), **given}
        return self._assigned(parameters, below, own)

    def promoted(self, parent: HistoryTrial, rung: int, below: int, given: Mapping[str, str]) -> Assignment:
        """A configuration that goes on, from where its trial of the rung below has stopped."""
        own = {
            labels.RUNG: str(rung),
            labels.CONFIG: parent.labels[labels.CONFIG],
            labels.PARENT: str(parent.number),
            **self.ladder.labels(below),
            **given,
        }
        return self._assigned(parent.parameters, below, own)

    def _assigned(self, parameters: Mapping[str, Value], below: int, own: Mapping[str, str]) -> Assignment:
        resource = {self.ladder.parameter.name: self.ladder.resource(below)}
        return Assignment(self.draws.complete(parameters, resource), labels=own)
