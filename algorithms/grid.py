"""grid: every combination once, computed from its index; nothing is materialised.

Order: mixed radix over the parameters as written, the last one fastest. With `random_state` the index goes through a
seeded permutation first (a four-round Feistel network with cycle walking: Luby & Rackoff 1988, Black & Rogaway 2002),
as Katib's grid hands out combinations in random order. Unlike Katib's, it ends when all have been handed out.
The index of trial i is i, unless combinations were refused: the state holds the next one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from algorithms import cautions, drawing, limits
from algorithms.nas.checks import graph_problems
from algorithms.nas.space import flat_space
from algorithms.settings import SETTINGS, Rule, grid_problems, problems_of
from algorithms.space import Codec
from evertune.domain.space import ParameterType, SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import BLIND, Answer, Feature, JsonDict

_ROUNDS = 4
_COUNTABLE = 10_000  # combinations of what conditions name, that are all looked at


class Grid:
    name: ClassVar[str] = "grid"
    about: ClassVar[str] = "Every combination once: for a few parameters of a few values."
    advice: ClassVar[str] = "maxTrialCount of the number of combinations; any parallelTrialCount."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS["grid"]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "refuse"
    reads_history: ClassVar[bool] = False
    supports: ClassVar[frozenset[Feature]] = BLIND | {Feature.NAS_CONFIG}
    enumerates: ClassVar[bool] = True  # there is nothing but its combinations, however many are refused

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._codec = Codec.of(problem.space)
        self._counts = [dimension.points or 0 for dimension in self._codec.dimensions]
        self._total = math.prod(self._counts)
        self._key = f"{problem.seed}".encode() if "random_state" in problem.settings else None

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        if problem.nas is not None and (broken := graph_problems(cls.name, problem)):
            return [*problems_of(cls.name, problem), *broken]
        problem = _searched(problem)
        continuous = any(
            parameter.type is ParameterType.DOUBLE and parameter.step is None and parameter.low != parameter.high
            for parameter in problem.space
        )
        countless = continuous or bool(limits.problems_of(problem.space))
        return [
            *problems_of(cls.name, problem),
            *grid_problems(problem, None if countless else cls(problem)._distinct()),
        ]

    @classmethod
    def ends(cls, problem: SearchProblem) -> bool:
        """Whether it may have nothing more to suggest some day."""
        return True

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        problem = _searched(problem)
        points, begun_with = cls(problem)._distinct(), len(problem.initial)
        if problem.max_trials is None:
            return cautions.idle(problem, begun_with + points, f"the grid has {points:,} points")
        given = max(0, problem.max_trials - begun_with)
        # How many points satisfy constraints, or differ in what trials get, is not always known.
        if problem.parameter_constraints or problem.space.conditional or given >= points:
            return []
        which = "a random" if "random_state" in problem.settings else "the first"
        message = (
            f"maxTrialCount is {problem.max_trials:,}: {which} {given:,} of the grid's {points:,} points are tried"
        )
        mends = (f"maxTrialCount: {points:,}, or larger steps", "sobol spreads any number of trials over the space")
        return [cautions.caution(cautions.BUDGET, message, *mends)]

    def session(self) -> GridSession:
        return GridSession(self)

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return self.session().ask(k, first_number, state)

    def given(self, k: int, index: int) -> tuple[Assignment, ...]:
        indices = range(index, min(index + k, self._total))
        return tuple(Assignment(drawing.point(self._codec, self._counts, self._permuted(each))) for each in indices)

    def _distinct(self) -> int:
        """How many combinations differ in parameters that are there; all of them when conditions name too many."""
        space, names = self._problem.space, self._problem.space.names()
        named = {condition.parameter for parameter in space for condition in parameter.when}
        counts = dict(zip(names, self._counts, strict=True))
        deciding = [dimension for dimension in self._codec.dimensions if dimension.name in named]
        if math.prod(counts[dimension.name] for dimension in deciding) > _COUNTABLE:
            return self._total
        values = [[each.point(index) for index in range(counts[each.name])] for each in deciding]
        found: dict[str, int] = {}
        for point in itertools.product(*values):
            chosen = {dimension.name: value for dimension, value in zip(deciding, point, strict=True)}
            active = space.active({**dict.fromkeys(names, 0), **chosen})
            found[repr(active)] = math.prod(counts[name] for name in active if name not in named)
        return sum(found.values())

    @property
    def end(self) -> str:
        return f"all {self._total} combinations were tried"

    def _permuted(self, index: int) -> int:
        if self._key is None or self._total < 2:
            return index
        half = ((self._total - 1).bit_length() + 1) // 2
        while True:  # the network permutes a power of four at most four times too large: walk until inside
            index = self._feistel(index, half)
            if index < self._total:
                return index

    def _feistel(self, index: int, half: int) -> int:
        mask = (1 << half) - 1
        left, right = index >> half, index & mask
        assert self._key is not None
        for number in range(_ROUNDS):
            digest = hashlib.blake2b(b"%d:%d" % (number, right), key=self._key[:64], digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
        return (left << half) | right


def _searched(problem: SearchProblem) -> SearchProblem:
    """Of architectures the flat space, which `algorithms.steering` gives it to search."""
    return problem if problem.nas is None else replace(problem, space=flat_space(problem.nas))


class GridSession:
    """Combinations by index."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        pass

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        index = (state or {}).get("next", first_number)
        assignments = self._grid.given(k, index)
        return Answer(
            assignments=assignments,
            state={"next": index + len(assignments)},
            exhausted=not assignments,
            reason="" if assignments else self._grid.end,
        )

    def refuse(self, number: int) -> None:
        """Nothing to do: the state of the refused answer has the next one."""
