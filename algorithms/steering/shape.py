"""What the algorithm sees: its problem without what is done around it, and a trial's parameters in its own terms.

Used by `session`, for conditions and networks that the algorithm searches as a flat space. What neither the trial nor
its `meta` says is drawn by chance, seeded by (seed, trial number).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from algorithms import drawing
from algorithms.space import Codec
from evertune.domain.space import SearchProblem, SearchSpace, Value
from evertune.protocols import Feature

Values = Mapping[str, Value]


def inner_problem(problem: SearchProblem, does: frozenset[Feature]) -> SearchProblem:
    """The problem as the algorithm sees it: without what is done around it."""
    space, nas = problem.space, problem.nas
    if Feature.NAS_CONFIG in does and nas is not None:
        from algorithms.nas.space import flat_space

        space, nas = flat_space(nas), None
    if Feature.WHEN in does:
        space = SearchSpace(tuple(replace(parameter, when=()) for parameter in space))
    return replace(
        problem,
        space=space,
        nas=nas,
        initial=() if Feature.INITIAL_TRIALS in does else problem.initial,
        parameter_constraints=() if Feature.PARAMETER_CONSTRAINTS in does else problem.parameter_constraints,
        on_duplicate="run" if Feature.ON_DUPLICATE in does else problem.on_duplicate,
        on_failure="ignore" if Feature.ON_FAILURE in does else problem.on_failure,
        warm_start="" if Feature.WARM_START in does else problem.warm_start,
    )


class Shape:
    """Between what a trial gets and what the algorithm sees, where the two differ."""

    def __init__(self, problem: SearchProblem, does: frozenset[Feature]) -> None:
        self._problem = problem
        self._nas = problem.nas if Feature.NAS_CONFIG in does else None
        self._flat = Feature.WHEN in does
        self.space = inner_problem(problem, does).space
        self.codec = Codec.of(self.space)
        self._names = frozenset(self.space.names())

    def outer(self, values: Values) -> tuple[Values, Values]:
        """What the trial gets, and what it does not see."""
        if self._nas is not None:
            from algorithms.nas.space import to_assignment

            return to_assignment(self._nas, values), values
        if not self._problem.space.conditional:
            return values, {}
        active = self._problem.space.active(values)
        hidden = {name: value for name, value in values.items() if name not in active} if self._flat else {}
        return active, hidden

    def inner(self, number: int, parameters: Values, hidden: Values | None) -> dict[str, Value]:
        """What the algorithm sees of a trial; what neither says is drawn by chance, always the same."""
        known = {**(hidden or {}), **parameters}
        if self._nas is not None and hidden is None:
            known = self.start(parameters)
        return self.filled(number, {name: known[name] for name in self.space.names() if name in known})

    def start(self, values: Values) -> dict[str, Value]:
        """An assignment as a user writes it, in the algorithm's terms."""
        if self._nas is None or set(values) <= self._names:
            return dict(values)
        from algorithms.nas.space import from_assignment

        flat: dict[str, Value] = from_assignment(values)
        return flat

    def whole(self, number: int, start: Values) -> Values | None:
        """The start as a point of the algorithm's space, None when it leaves open what the trial would get."""
        values = self.filled(number, start)
        seen = self._problem.space.active(values) if self._problem.space.conditional else values
        return values if set(seen) <= set(start) else None

    def seen_before(self, hidden: Values) -> bool:
        """Whether the trial is also that of a point of the grid before: only what it does not see is another."""
        return any(value != self._first[name] for name, value in hidden.items())

    @cached_property
    def _first(self) -> Values:
        return next(drawing.points(self.codec))

    def filled(self, number: int, values: Values) -> dict[str, Value]:
        """A point of the algorithm's space with these values; what they leave open is drawn by chance."""
        if len(values) == len(self._names):
            return dict(values)
        everything = {**drawing.drawn(self.codec, drawing.chance(self._problem.seed, number, "open")), **values}
        # An algorithm that knows conditions expects that what is not active is not there.
        return self.space.active(everything) if self.space.conditional else everything
