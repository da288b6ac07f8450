"""grid: every combination once, computed from its index; nothing is materialised.

Order: mixed radix over the parameters as written, the last one fastest. With `random_state` the index goes through a
seeded permutation first (a four-round Feistel network with cycle walking: Luby & Rackoff 1988, Black & Rogaway 2002),
as Katib's grid hands out combinations in random order. Unlike Katib's, it ends when all have been handed out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from algorithms import limits
from algorithms.settings import SETTINGS, Rule, grid_problems, problems_of
from algorithms.space import Codec, Dimension, Kind, grid_count, grid_value
from evertune.domain.space import ParameterType, SearchProblem, Value
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict

_ROUNDS = 4


class Grid:
    name: ClassVar[str] = "grid"
    about: ClassVar[str] = "Every combination once: for a few parameters of a few values."
    advice: ClassVar[str] = "maxTrialCount of the number of combinations; any parallelTrialCount."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS["grid"]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "refuse"
    reads_history: ClassVar[bool] = False
    supports: ClassVar[frozenset[Feature]] = frozenset()

    def __init__(self, problem: SearchProblem) -> None:
        self._codec = Codec.of(problem.space)
        self._counts = [_count(dimension) for dimension in self._codec.dimensions]
        self._total = math.prod(self._counts)
        self._key = f"{problem.seed}".encode() if "random_state" in problem.settings else None

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        continuous = any(
            parameter.type is ParameterType.DOUBLE and parameter.step is None and parameter.low != parameter.high
            for parameter in problem.space
        )
        countless = continuous or bool(limits.problems_of(problem.space))
        return [*problems_of(cls.name, problem), *grid_problems(problem, None if countless else cls(problem)._total)]

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        numbers = range(first_number, min(first_number + k, self._total))
        assignments = tuple(Assignment(self._point(self._permuted(number))) for number in numbers)
        exhausted = first_number + k >= self._total and not assignments
        reason = f"all {self._total} combinations were tried" if exhausted else ""
        return Answer(assignments=assignments, exhausted=exhausted, reason=reason)

    def _point(self, index: int) -> dict[str, Value]:
        digits = []
        for count in reversed(self._counts):
            index, digit = divmod(index, count)
            digits.append(digit)
        return {
            dimension.name: _value(dimension, digit)
            for dimension, digit in zip(self._codec.dimensions, reversed(digits), strict=True)
        }

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


def _count(dimension: Dimension) -> int:
    if dimension.kind is Kind.CONSTANT:
        return 1
    return dimension.count if dimension.kind is Kind.CHOICE else grid_count(dimension.parameter)


def _value(dimension: Dimension, digit: int) -> Value:
    parameter = dimension.parameter
    if dimension.kind is Kind.CONSTANT:
        return dimension.decode(0)
    return parameter.values[digit] if dimension.kind is Kind.CHOICE else grid_value(parameter, digit)
