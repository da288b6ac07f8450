"""How a trial comes about: the algorithm's suggestion, one of the user's, or one by chance, and what is told of it.

Made by `steered` for an algorithm and a problem, from the algorithm's own session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from algorithms import drawing
from algorithms.base import Failures, RefusingSession, Session
from algorithms.steering.features import enumerates, knows_others
from algorithms.steering.rules import Rules
from algorithms.steering.shape import Shape, Values
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import AlgorithmError
from evertune.protocols import Algorithm, Answer, Feature, JsonDict

REFUSALS = 50  # of one trial's suggestions, before chance is tried
SKIPPED = 1_000_000  # combinations of a grid that violate a constraint, one after the other
DRAWS = 10_000
COUNTABLE = 20_000  # points of a finite space that are all looked at when no draw fits
HIDDEN = "hidden"  # in a trial's meta: what the algorithm sees besides the trial's parameters


class SteeredSession:
    """See `algorithms.steering`. Numbers are the experiment's; `_offset` leads to the algorithm's own."""

    def __init__(
        self,
        kind: type[Algorithm],
        problem: SearchProblem,
        does: frozenset[Feature],
        make: Callable[[], Session],
    ) -> None:
        self._problem = problem
        self._make = make
        self._inner: Session | RefusingSession = make()
        self._shape = Shape(problem, does)
        self._rules = Rules(problem, does)
        self._enumerates = enumerates(kind)
        self._initial = problem.initial if Feature.INITIAL_TRIALS in does else ()
        self._failures = Failures(problem.all_directions) if Feature.ON_FAILURE in does else None
        self._shifts = Feature.WARM_START in does and not knows_others(kind)
        # Of a grid, points that differ in what no trial gets are one.
        self._once = Feature.WHEN in does and self._enumerates and isinstance(self._inner, RefusingSession)
        # A grid gives all of its points, whatever somebody else began with.
        self._offset = -len(self._initial) if self._enumerates else 0
        self._told: dict[int, HistoryTrial] = {}  # as the algorithm knows them

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        batch = list(trials)
        if self._shifts and not self._told and batch and batch[0].number < 0:
            self._offset -= batch[0].number
        self._rules.see(batch)
        self._tell(self._failures.told(batch) if self._failures is not None else batch)

    def _tell(self, trials: Iterable[HistoryTrial]) -> None:
        batch = [self._as_inner(trial) for trial in trials]
        self._told.update((trial.number, trial) for trial in batch)
        if not self._enumerates:
            self._inner.update(batch)

    def _as_inner(self, trial: HistoryTrial) -> HistoryTrial:
        # What others noted is about their algorithm and their space.
        noted = {} if trial.number < 0 and self._problem.warm_start != "identical" else trial.meta
        values = self._shape.inner(trial.number, trial.parameters, noted.get(HIDDEN))
        meta = {} if trial.number < 0 else {key: value for key, value in noted.items() if key != HIDDEN}
        return replace(trial, number=trial.number + self._offset, parameters=values, meta=meta)

    # -------------------------------------------------------------------------------------------------- asking

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        given: list[Assignment] = []
        answer = Answer(state=state)
        while len(given) < k:
            number = first_number + len(given)
            if number < len(self._initial):
                answer = self._begin(number, self._initial[number], answer.state)
            elif self._rules.strict or self._once:
                answer = self._allowed(number, {}, answer.state)
            else:
                answer = self._as_given(k - len(given), number, answer.state)
                if not given:
                    return answer
                k = number + len(answer.assignments) - first_number  # that was all of it
            if not answer.assignments:
                break
            given += answer.assignments
        if given:  # why there are no more is said when the next one is asked for
            answer = Answer(assignments=tuple(given), state=answer.state)
        return answer

    def _as_given(self, k: int, number: int, state: JsonDict | None) -> Answer:
        """The algorithm's own answer to the whole question."""
        answer = self._inner.ask(k, number + self._offset, state)
        assignments = [
            self._handed_out(number + index, *self._shape.outer(each.parameters), each)
            for index, each in enumerate(answer.assignments)
        ]
        return replace(answer, assignments=tuple(assignments))

    def _begin(self, number: int, start: Values, state: JsonDict | None) -> Answer:
        """A trial that the user wants first; what is left open comes from the algorithm, from a grid's by chance."""
        start = self._shape.start(start)
        whole = self._shape.whole(number, start)
        if whole is None and not self._enumerates:
            return self._allowed(number, start, state)
        if whole is None:
            return self._by_chance(number, start, state, told=False)
        return Answer(assignments=(self._instead(number, whole, asked=False),), state=state)

    def _allowed(self, number: int, start: Values, state: JsonDict | None) -> Answer:
        """What the algorithm suggests for one trial, asked until nothing forbids it."""
        inner = number + self._offset
        answer = self._inner.ask(1, inner, state)
        for _ in range(SKIPPED if self._enumerates else REFUSALS):
            if not answer.assignments:
                return replace(answer, reason=self._rules.end) if self._enumerates and answer.exhausted else answer
            (each,) = answer.assignments
            # The start may make parameters active that the suggestion does not have.
            values = self._shape.filled(number, {**each.parameters, **start}) if start else each.parameters
            parameters, hidden = self._shape.outer(values)
            if self._rules.allow(parameters) and not (self._once and self._shape.seen_before(hidden)):
                if not start:
                    return replace(answer, assignments=(self._handed_out(number, parameters, hidden, each),))
                return replace(answer, assignments=(self._instead(number, values, asked=True),))
            if not isinstance(self._inner, RefusingSession):
                break
            self._inner.refuse(inner)
            answer = self._inner.ask(1, inner, answer.state)
        if self._enumerates:
            raise AlgorithmError(f"none of {SKIPPED:,} combinations in a row is new and satisfies all constraints")
        return self._by_chance(number, start, answer.state, told=True)

    def _by_chance(self, number: int, start: Values, state: JsonDict | None, *, told: bool) -> Answer:
        values = self._found(number, start)
        if values is None:
            if self._rules.new_only:
                reason = f"no point is left that was not tried{self._rules.besides}"
                return Answer(exhausted=True, reason=reason, state=state)
            raise AlgorithmError(f"no assignment was found that satisfies {self._rules}: {DRAWS:,} were tried")
        return Answer(assignments=(self._instead(number, values, asked=told),), state=state)

    def _found(self, number: int, start: Values) -> Values | None:
        luck = drawing.chance(self._problem.seed, number, "instead")
        codec = self._shape.codec
        for _ in range(DRAWS):
            values = {**drawing.drawn(codec, luck), **start}
            if self._rules.allow(self._shape.outer(values)[0]):
                return values
        count = drawing.count(self._shape.space)
        if count is None or count > COUNTABLE:
            return None
        left = [
            values
            for point in drawing.points(codec)
            if self._rules.allow(self._shape.outer(values := {**point, **start})[0])
        ]
        return luck.choice(left) if left else None

    # ------------------------------------------------------------------------------------------------- answers

    def _instead(self, number: int, values: Values, *, asked: bool) -> Assignment:
        """A trial that the algorithm has not suggested; `asked`: it believes that it has suggested another."""
        parameters, hidden = self._shape.outer(values)
        assignment = self._handed_out(number, parameters, hidden, Assignment(values))
        if self._enumerates:
            return assignment
        if asked:
            self._inner = self._make()
            self._inner.update([self._told[told] for told in sorted(self._told)])
        else:
            self._inner.update([self._told[number + self._offset]])
        return assignment

    def _handed_out(self, number: int, parameters: Values, hidden: Values, given: Assignment) -> Assignment:
        meta = {**given.meta, HIDDEN: dict(hidden)} if hidden else given.meta
        labels = {**given.labels, **self._rules.labels(parameters)}
        self._rules.give(parameters, number)
        assignment = Assignment(dict(parameters), labels=labels, meta=meta)
        running = HistoryTrial(number, assignment.parameters, TrialState.RUNNING, labels=labels, meta=meta)
        told = self._as_inner(running)
        self._told[told.number] = told
        return assignment
