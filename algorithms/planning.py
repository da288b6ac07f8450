"""What planners share: draws from the declared prior, seeded by place and never by time, and the order of trials.

A planner is a pure function of the history and its labels (`domain.labels`): it keeps no state of its own. Used by
`hyperband`, `asha`, `bohb` and `pbt`. Draws come from Python's own Mersenne Twister, whose `random()` is the same in
every version: nothing here needs a numeric library.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal

from algorithms.base import SessionAlgorithm, loss_of
from algorithms.space import Codec, Dimension, Kind, from_quantile
from evertune.domain.expressions import Expression, parse
from evertune.domain.grid import grid_count, grid_index, grid_value
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError
from evertune.protocols import Feature

MAX_TRIES = 1000  # draws for one configuration that the parameter constraints refuse

Rank = tuple[bool, float, float, int]


class Planner(SessionAlgorithm):
    """Base of those that decide not only what is tried but also how far, or from where, each trial goes."""

    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "refuse"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.CONSTRAINTS,
            Feature.PARAMETER_CONSTRAINTS,
            Feature.WHEN,
            Feature.INITIAL_TRIALS,
            Feature.ON_FAILURE,
            Feature.EARLY_STOPPING,
        }
    )
    # What wrappers must leave to it: a configuration comes back at later rungs, and must then be the same one.
    handles: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.PARAMETER_CONSTRAINTS, Feature.WHEN, Feature.INITIAL_TRIALS}
    )


def rank(trial: HistoryTrial, direction: ObjectiveType) -> Rank:
    """Smaller is better: trials with a value, by how much they miss the outcome constraints, by value, by number.

    The first entry is True for a trial that failed, was killed or has no finite value: it is never gone on with.
    """
    loss = loss_of(trial, direction)
    if loss is None:
        return True, 0.0, 0.0, trial.number
    missed = sum(max(0.0, violation) for violation in trial.violations) if trial.violations else 0.0
    return False, missed, loss, trial.number


class Draws:
    """Configurations of a space from its prior. `fixed`: parameters that the planner sets, with the values that the
    parameter constraints are judged by."""

    def __init__(self, problem: SearchProblem, fixed: Mapping[str, Value] | None = None) -> None:
        self.fixed = fixed or {}
        self.space = problem.space
        self.searched = SearchSpace(tuple(each for each in problem.space if each.name not in self.fixed))
        self.codec = Codec.of(self.searched)
        self._seed = problem.seed
        self._initial = problem.initial
        self._constraints: tuple[Expression, ...] = tuple(parse(text) for text in problem.parameter_constraints)

    def luck(self, *place: int) -> random.Random:
        """A generator for one place of the plan, independent of all others."""
        digest = hashlib.blake2b(repr((self._seed, *place)).encode(), digest_size=16).digest()
        return random.Random(int.from_bytes(digest, "big"))  # noqa: S311 - a search needs no secrets

    def fresh(self, ordinal: int, *place: int) -> dict[str, Value]:
        """The `ordinal`-th new configuration: one of the user's to begin with, what it leaves open drawn; or drawn."""
        given = self._initial[ordinal] if ordinal < len(self._initial) else {}
        tries = (self.sample(self.luck(*place, number), given) for number in range(MAX_TRIES))
        return self.first_allowed(tries)

    def sample(self, luck: random.Random, given: Mapping[str, Value] | None = None) -> dict[str, Value]:
        drawn = self.codec.decode(
            {dimension.name: from_quantile(dimension, luck.random()) for dimension in self.codec.free}
        )
        known = {name: value for name, value in (given or {}).items() if name in drawn}
        return self.settled({**drawn, **known})

    def settled(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values of what is active, in the order of the space."""
        return self.searched.active(values) if self.searched.conditional else dict(values)

    def allows(self, values: Mapping[str, Value]) -> bool:
        judged = self.space.typed({**values, **self.fixed})
        return all(expression.holds(judged) for expression in self._constraints)

    def first_allowed(self, tries: Iterator[dict[str, Value]]) -> dict[str, Value]:
        for values in tries:
            if self.allows(values):
                return values
        raise AlgorithmError(
            f"none of {MAX_TRIES} configurations satisfies the parameterConstraints",
            "loosen them, or narrow the parameters' ranges to where they hold",
        )

    def complete(self, searched: Mapping[str, Value], fixed: Mapping[str, Value]) -> dict[str, Value]:
        """A trial's parameters, in the order of the space."""
        return {
            name: fixed[name] if name in fixed else searched[name]
            for name in self.space.names()
            if name in fixed or name in searched
        }


def perturbed(dimension: Dimension, value: Value, luck: random.Random, factors: tuple[float, ...]) -> Value:
    """A neighbour of a value: a number times one of the factors, by a step at least; the entry beside it in a list.

    Discrete values are neighbours by size, categorical ones by their place in the list; the ends are not neighbours of
    each other. A zero, which no factor moves, goes as far as the factor would move the width of the range.
    """
    parameter = dimension.parameter
    u = luck.random()
    if dimension.kind is Kind.CONSTANT:
        return value
    if dimension.kind is Kind.CHOICE:
        order = list(parameter.values)
        if parameter.type is ParameterType.DISCRETE:
            order.sort(key=_size)
        place = order.index(str(value))
        beside = [other for other in (place - 1, place + 1) if 0 <= other < len(order)]
        return order[beside[int(u * len(beside))]]
    now = float(value)
    factor = factors[int(u * len(factors))]
    wanted = now * factor if now else (factor - 1) * (parameter.high - parameter.low)
    wanted = min(max(wanted, parameter.low), parameter.high)
    if parameter.type is not ParameterType.INT and parameter.step is None:
        return wanted
    count = grid_count(parameter)
    before, after = (grid_index(parameter, each, count) for each in (now, wanted))
    if before == after and wanted != now:
        after = min(max(after + (1 if wanted > now else -1), 0), count - 1)
    return grid_value(parameter, after)


def _size(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def place_of(problem: SearchProblem) -> Callable[[str], str]:
    """Where a setting's value stands in the experiment, by the setting's name."""
    keys = list(problem.settings)
    return lambda key: f"spec.algorithm.algorithmSettings[{keys.index(key)}].value"
