"""What a spec may ask of any algorithm, done once around all of them instead of anew in each.

`registry.create` puts a `Steered` around an algorithm whose experiment has some of this, and only then; what the
algorithm `handles` itself is left to it.

    initialTrials          handed out first; what they leave open is the algorithm's own suggestion
    parameterConstraints   suggestions that violate one are refused and asked again, at most 50 times; then points are
                           drawn by chance, seeded by (seed, trial number), until one fits
    onDuplicate            resample: as above; reuse: a label names the finished trial with the same parameters
    when                   the algorithm searches the flat space, the trial gets what is active
    nasConfig              the algorithm searches the flat space of the network's choices, the trial gets the network
    warmStart              trials of other experiments come first: the algorithm counts them before its own, unless it
                           says that it `knows_others` by their numbers, below 0
    onFailure: worst       see `base.Failures`

A session that is kept and one that is rebuilt give the same, as the algorithm's own do: where a trial is not what the
algorithm suggested, it is told so by building it anew. What is hidden from a trial stays in its `meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import ClassVar, Literal

from algorithms import drawing
from algorithms.base import Failures, RefusingSession, Session, SessionAlgorithm
from algorithms.space import Codec
from evertune.domain.expressions import Expression, parse
from evertune.domain.labels import REUSED_FROM
from evertune.domain.space import SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import AlgorithmError, Problem
from evertune.protocols import BLIND, LEARNED, Algorithm, Answer, Feature, JsonDict

REFUSALS = 50  # of one trial's suggestions, before chance is tried
SKIPPED = 1_000_000  # combinations of a grid that violate a constraint, one after the other
DRAWS = 10_000
COUNTABLE = 20_000  # points of a finite space that are all looked at when no draw fits
HIDDEN = "hidden"  # in a trial's meta: what the algorithm sees besides the trial's parameters

Values = Mapping[str, Value]


def features(problem: SearchProblem) -> frozenset[Feature]:
    """What the problem asks of its algorithm."""
    asked = {
        Feature.OBJECTIVES: len(problem.all_directions) > 1,
        Feature.CONSTRAINTS: problem.constraints > 0,
        Feature.PARAMETER_CONSTRAINTS: bool(problem.parameter_constraints),
        Feature.WHEN: problem.space.conditional,
        Feature.INITIAL_TRIALS: bool(problem.initial),
        Feature.WARM_START: bool(problem.warm_start),
        Feature.ON_DUPLICATE: problem.on_duplicate != "run",
        Feature.ON_FAILURE: problem.on_failure != "ignore",
        Feature.EARLY_STOPPING: problem.early_stopping,
        Feature.NAS_CONFIG: problem.nas is not None,
    }
    return frozenset(feature for feature, wanted in asked.items() if wanted)


_STEERED = frozenset(
    {
        Feature.PARAMETER_CONSTRAINTS,
        Feature.WHEN,
        Feature.INITIAL_TRIALS,
        Feature.WARM_START,
        Feature.ON_DUPLICATE,
        Feature.ON_FAILURE,
        Feature.NAS_CONFIG,
    }
)


def handled(kind: type[Algorithm]) -> frozenset[Feature]:
    """What the algorithm wants to do itself."""
    found: frozenset[Feature] = getattr(kind, "handles", frozenset())
    return found


def supported(kind: type[Algorithm]) -> frozenset[Feature]:
    """All that works with the algorithm; without a word of its own, what is done around any."""
    said: frozenset[Feature] | None = getattr(kind, "supports", None)
    if said is not None:
        return said
    return LEARNED if kind.reads_history else BLIND


def steers(kind: type[Algorithm], problem: SearchProblem) -> frozenset[Feature]:
    """What is left to do around the algorithm; mostly nothing."""
    return (features(problem) & _STEERED) - handled(kind)


def around(kind: type[Algorithm], problem: SearchProblem) -> Algorithm:
    """The algorithm for this problem, steered where the problem asks for more than it does itself."""
    return _steered(kind)(problem) if steers(kind, problem) else kind(problem)


@cache
def _steered(kind: type[Algorithm]) -> type[Steered]:
    return type(f"Steered{kind.__name__}", (Steered,), {"kind": kind})


class Steered(SessionAlgorithm):
    """An algorithm and what is done around it. Subclasses name it by `kind`."""

    kind: ClassVar[type[Algorithm]]
    name: ClassVar[str]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]]

    def __init_subclass__(cls) -> None:
        cls.name, cls.on_edit, cls.supports = cls.kind.name, cls.kind.on_edit, supported(cls.kind)
        cls.reads_history = cls.kind.reads_history

    def __init__(self, problem: SearchProblem) -> None:
        super().__init__(problem)
        self._does = steers(self.kind, problem)
        self._inner = self.kind(_inner_problem(problem, self._does))
        # The index of a grid that skips is in its state; whether a point is new is in the history.
        self.reads_history = (  # type: ignore[misc]
            self.kind.reads_history or Feature.ON_DUPLICATE in self._does or _enumerates(self.kind)
        )

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return cls.kind.check(problem)

    def session(self) -> Session:
        return SteeredSession(self.kind, self.problem, self._does, self._session)

    def _session(self) -> Session:
        make: Callable[[], Session] | None = getattr(self._inner, "session", None)
        return AskingSession(self._inner) if make is None else make()


def _enumerates(kind: type[Algorithm]) -> bool:
    """Whether it gives all points of a space, one after the other, and then no more."""
    return bool(getattr(kind, "enumerates", False))


def _inner_problem(problem: SearchProblem, does: frozenset[Feature]) -> SearchProblem:
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


class AskingSession:
    """A session of an algorithm that has none: it remembers the history and asks with all of it."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._trials: dict[int, HistoryTrial] = {}

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        self._trials.update((trial.number, trial) for trial in trials)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        history = [self._trials[number] for number in sorted(self._trials) if number < first_number]
        answer = self._algorithm.ask(history, k, first_number, state)
        for index, given in enumerate(answer.assignments):
            number = first_number + index
            self._trials[number] = HistoryTrial(
                number, given.parameters, TrialState.RUNNING, labels=given.labels, meta=given.meta
            )
        return answer


class SteeredSession:
    """See the module. Numbers are the experiment's; `_offset` leads to the algorithm's own."""

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
        self._enumerates = _enumerates(kind)
        self._initial = problem.initial if Feature.INITIAL_TRIALS in does else ()
        self._failures = Failures(problem.all_directions) if Feature.ON_FAILURE in does else None
        self._shifts = Feature.WARM_START in does and not getattr(kind, "knows_others", False)
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


class Shape:
    """Between what a trial gets and what the algorithm sees, where the two differ."""

    def __init__(self, problem: SearchProblem, does: frozenset[Feature]) -> None:
        self._problem = problem
        self._nas = problem.nas if Feature.NAS_CONFIG in does else None
        self._flat = Feature.WHEN in does
        self.space = _inner_problem(problem, does).space
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


class Rules:
    """What an assignment must be: within the constraints, and new where that is wanted."""

    def __init__(self, problem: SearchProblem, does: frozenset[Feature]) -> None:
        self._space = problem.space
        self._texts = problem.parameter_constraints if Feature.PARAMETER_CONSTRAINTS in does else ()
        self._constraints = [_parsed(text) for text in self._texts]
        self._duplicates = problem.on_duplicate if Feature.ON_DUPLICATE in does else "run"
        self._given: dict[str, int] = {}  # by its parameters, the first trial that has them
        self._done: dict[str, int] = {}  # the same, of those that succeeded with a value

    def __str__(self) -> str:
        return f"parameterConstraints ({'; '.join(self._texts)})" if self._texts else "onDuplicate: resample"

    @property
    def end(self) -> str:
        """Why a grid has no more."""
        return f"all combinations that satisfy {self} were tried" if self._texts else "all combinations were tried"

    @property
    def besides(self) -> str:
        return f" and satisfies {self}" if self._texts else ""

    @property
    def new_only(self) -> bool:
        return self._duplicates == "resample"

    @property
    def strict(self) -> bool:
        return bool(self._constraints) or self.new_only

    def see(self, trials: Iterable[HistoryTrial]) -> None:
        if self._duplicates == "run":
            return
        for trial in trials:
            if trial.number < 0:
                continue
            self.give(trial.parameters, trial.number)
            if trial.state is TrialState.SUCCEEDED and trial.value is not None:
                key = _key(trial.parameters)
                self._done[key] = min(trial.number, self._done.get(key, trial.number))

    def give(self, parameters: Values, number: int) -> None:
        if self._duplicates != "run":
            self._given.setdefault(_key(parameters), number)

    def allow(self, parameters: Values) -> bool:
        if self.new_only and _key(parameters) in self._given:
            return False
        typed = self._space.typed(parameters)
        return all(constraint.holds(typed) for constraint in self._constraints)

    def labels(self, parameters: Values) -> dict[str, str]:
        if self._duplicates != "reuse":
            return {}
        number = self._done.get(_key(parameters))
        return {} if number is None else {REUSED_FROM: str(number)}


def _parsed(text: str) -> Expression:
    try:
        return parse(text)
    except ValueError as error:  # it was checked at admission
        raise AlgorithmError(f'the constraint "{text}" cannot be read: {error}') from error


def _key(parameters: Values) -> str:
    return repr(sorted(parameters.items()))
