"""Does anything in a search space satisfy its `parameterConstraints`? Proven where that is cheap, else looked for.

Asked by the rules of a spec, once. Few enough points are all tried. Of more, some thousand are drawn (always the same)
and, where none of them satisfies, boxes are halved until interval arithmetic refutes them all or too many are left.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from evertune.domain.expressions import Expression
from evertune.domain.grid import grid_index, nth_value, value_count
from evertune.domain.intervals import Interval, Texts, may_hold
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, Value, typed_value

MOST_POINTS = 20_000
DRAWN = 4_000
MOST_BOXES = 1_500
MOST_VALUES = 80_000  # of all parameters, in the points that are drawn; in boxes, half of it


class Found(StrEnum):
    POINT = "point"
    EMPTY = "empty"  # certain
    NOTHING = "nothing"  # none was found


def look(space: SearchSpace, expressions: Sequence[Expression]) -> Found:
    """Whether some assignment satisfies all of these, whose names and types are sound."""
    asked = _asked_about(space, expressions)
    if any(_holds(asked, expressions, values) for values in _all(asked) or _drawn(asked)):
        return Found.POINT
    if _all(asked) is not None:
        return Found.EMPTY
    conditional = {parameter.name for parameter in asked if parameter.when}
    unconditional = [one for one in expressions if not conditional.intersection(one.names)]
    return _refuted(asked, unconditional, expressions)


def ever_there(space: SearchSpace, name: str) -> bool:
    """False only when the conditions of a parameter, and of those that it depends on, exclude one another."""
    wanted = next(parameter for parameter in space if parameter.name == name)
    asked = _closed(space, [condition.parameter for condition in wanted.when])
    asked = SearchSpace((*(parameter for parameter in asked if parameter.name != name), wanted))
    points = _all(SearchSpace(asked.parameters[:-1]))
    if points is None:
        return True
    some = wanted.low if wanted.numeric else wanted.values[0]
    return any(name in asked.active({**point, name: some}) for point in points)


def broken(space: SearchSpace, expressions: Iterable[Expression], values: Mapping[str, Value]) -> list[Expression]:
    """Those of the expressions that these values do not satisfy."""
    typed = space.typed(space.active(values))
    return [expression for expression in expressions if not expression.holds(typed)]


def _asked_about(space: SearchSpace, expressions: Iterable[Expression]) -> SearchSpace:
    """The parameters that matter: those named, and those on which it depends whether they are there."""
    return _closed(space, [name for expression in expressions for name in expression.names])


def _closed(space: SearchSpace, names: Iterable[str]) -> SearchSpace:
    by_name = {parameter.name: parameter for parameter in space}
    wanted: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted[name] = None
            waiting += [condition.parameter for condition in by_name[name].when]
    return SearchSpace(tuple(parameter for parameter in space if parameter.name in wanted))


def _holds(space: SearchSpace, expressions: Iterable[Expression], values: Mapping[str, Value]) -> bool:
    typed = space.typed(space.active(values) if space.conditional else values)
    return all(expression.holds(typed) for expression in expressions)


def _all(space: SearchSpace) -> Iterator[dict[str, Value]] | None:
    """Every point, or None when they are too many."""
    counts = [value_count(parameter) for parameter in space]
    total = 1
    for count in counts:
        total *= count if count is not None else MOST_POINTS + 1
        if total > MOST_POINTS:
            return None
    lists = [
        [nth_value(parameter, index) for index in range(count or 0)]
        for parameter, count in zip(space, counts, strict=True)
    ]
    names = space.names()
    return (dict(zip(names, values, strict=True)) for values in itertools.product(*lists))


def _drawn(space: SearchSpace) -> Iterator[dict[str, Value]]:
    drawn = min(DRAWN, MOST_VALUES // len(space))
    chance = random.Random(0)  # noqa: S311 - always the same points
    return ({parameter.name: _draw(parameter, chance) for parameter in space} for _ in range(drawn))


def _draw(parameter: Parameter, chance: random.Random) -> Value:
    """A value of the parameter: evenly from its list, its grid, or its range (of the logarithm where it says so)."""
    count = value_count(parameter)
    logarithmic = parameter.distribution in (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL) and parameter.numeric
    if count is not None and not (logarithmic and count > 1):
        return nth_value(parameter, chance.randrange(count))
    if logarithmic:
        value = math.exp(chance.uniform(math.log(parameter.low), math.log(parameter.high)))
    else:
        value = chance.uniform(parameter.low, parameter.high)
    return _nearest(parameter, value)


def _nearest(parameter: Parameter, value: float) -> Value:
    count = value_count(parameter)
    if count is None:
        return min(max(value, parameter.low), parameter.high)
    return nth_value(parameter, grid_index(parameter, value, count) if count > 1 else 0)


# ------------------------------------------------------------------------------------------------------- boxes

_Side = Interval | Texts
_Box = dict[str, _Side]


def _refuted(space: SearchSpace, certain: Sequence[Expression], expressions: Sequence[Expression]) -> Found:
    """EMPTY when no box is left. A conditional parameter's constraint may hold by its absence, and refutes nothing."""
    by_name = {parameter.name: parameter for parameter in space}
    whole = {parameter.name: _side(parameter) for parameter in space}
    waiting = [whole]
    for _ in range(min(MOST_BOXES, MOST_VALUES // 2 // len(space))):
        if not waiting:
            return Found.EMPTY
        box = waiting.pop()
        if not all(may_hold(expression.tree, box) for expression in certain):
            continue
        centre = {name: _centre(by_name[name], side) for name, side in box.items()}
        if _holds(space, expressions, centre):
            return Found.POINT
        halves = _halved(by_name, whole, box)
        if halves is None:  # a point, as far as doubles go
            return Found.NOTHING
        waiting += halves
    return Found.NOTHING


def _side(parameter: Parameter) -> _Side:
    if parameter.numeric:
        return parameter.low, parameter.high
    if parameter.type is ParameterType.CATEGORICAL:
        return frozenset(parameter.values)
    numbers = [float(typed_value(parameter, value)) for value in parameter.values]
    return min(numbers), max(numbers)


def _centre(parameter: Parameter, side: _Side) -> Value:
    if isinstance(side, frozenset):
        return min(side)
    middle = side[0] / 2 + side[1] / 2
    if parameter.type is ParameterType.DISCRETE:
        return min(parameter.values, key=lambda value: abs(float(typed_value(parameter, value)) - middle))
    return _nearest(parameter, middle)


def _halved(by_name: Mapping[str, Parameter], whole: _Box, box: _Box) -> list[_Box] | None:
    """The box cut at its relatively widest side; None when no side can be cut."""

    def width(name: str) -> float:
        side, all_of_it = box[name], whole[name]
        if isinstance(side, frozenset) or isinstance(all_of_it, frozenset):
            return len(side) / len(all_of_it) if len(side) > 1 else 0.0
        reach = all_of_it[1] - all_of_it[0]
        return (side[1] - side[0]) / reach if reach > 0 else 0.0

    widest = max(box, key=width)
    side = box[widest]
    if width(widest) <= 1e-9:
        return None
    if isinstance(side, frozenset):
        ordered = sorted(side)
        cut = len(ordered) // 2
        return [{**box, widest: frozenset(ordered[:cut])}, {**box, widest: frozenset(ordered[cut:])}]
    low, high = side
    middle = low / 2 + high / 2
    if by_name[widest].type is ParameterType.INT:
        below = float(math.floor(middle))
        return [{**box, widest: (low, below)}, {**box, widest: (min(below + 1, high), high)}]
    return [{**box, widest: (low, middle)}, {**box, widest: (middle, high)}]
