"""The contract of `protocols.Algorithm` as a test suite, and the play it is tested in.

The author of an algorithm subclasses `AlgorithmContract` as `Test…` and names the class; `settings` and `space` may be
replaced where the algorithm needs others. The class must be importable by name: one test asks it in a new process.
"""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Algorithm, Answer, HasSessions, JsonDict

Ask = Callable[[Sequence[HistoryTrial], int, int, JsonDict | None], Answer]

_DOUBLE, _INT = ParameterType.DOUBLE, ParameterType.INT

# Every type x distribution x step, and the constants that each of them can be.
SPACE = SearchSpace(
    (
        Parameter(name="uniform", type=_DOUBLE, low=-1.0, high=2.5),
        Parameter(name="log", type=_DOUBLE, low=1e-5, high=0.1, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="normal", type=_DOUBLE, low=0.0, high=6.0, distribution=Distribution.NORMAL),
        Parameter(name="log normal", type=_DOUBLE, low=1.0, high=64.0, distribution=Distribution.LOG_NORMAL),
        Parameter(name="step", type=_DOUBLE, low=0.05, high=0.5, step=0.1),
        Parameter(name="log step", type=_DOUBLE, low=0.1, high=1.0, step=0.3, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="normal step", type=_DOUBLE, low=-3.0, high=3.0, step=0.5, distribution=Distribution.NORMAL),
        Parameter(name="int", type=_INT, low=-2, high=9),
        Parameter(name="int step", type=_INT, low=1, high=10, step=3),
        Parameter(name="log int", type=_INT, low=1, high=512, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="normal int", type=_INT, low=0, high=20, step=2, distribution=Distribution.NORMAL),
        Parameter(name="log normal int", type=_INT, low=32, high=64, distribution=Distribution.LOG_NORMAL),
        Parameter(name="discrete", type=ParameterType.DISCRETE, values=("0.10", "1", "16")),
        Parameter(name="categorical Ω", type=ParameterType.CATEGORICAL, values=("adam", "sgd", "")),
        Parameter(name="constant", type=_DOUBLE, low=0.3, high=0.3),
        Parameter(name="constant int", type=_INT, low=4, high=6, step=5),
        Parameter(name="constant list", type=ParameterType.CATEGORICAL, values=("only",)),
    )
)


def objective(parameters: Mapping[str, Value]) -> float:
    """Some function of all parameters, the same in every process."""
    return math.fsum(
        math.sin(index + (len(value) if isinstance(value, str) else value))
        for index, value in enumerate(parameters.values())
    )


@dataclass
class Play:
    """An experiment in memory: `parallel` trials at a time that end in an order of the dice, some of them badly."""

    ask: Ask
    parallel: int = 1
    seed: int = 0
    bad: float = 0.2  # share of trials that fail, are killed, stopped early or lose their metrics
    history: list[HistoryTrial] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    state: JsonDict | None = None
    told: int = 0

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311

    def run(self, trials: int) -> list[dict[str, Value]]:
        """Parameters by number; fewer than `trials` when the algorithm gives no more."""
        while len(self.history) < trials:
            free = min(self.parallel - len(self._running()), trials - len(self.history))
            if free and not self._asked(free):
                break
            self._end_one()
        return [dict(trial.parameters) for trial in self.history]

    def _asked(self, k: int) -> bool:
        """Ask, and take the answer as the store would give it back. False when nothing more will come."""
        answer = self.ask(list(self.history), k, len(self.history), self.state)
        self.answers.append(answer)
        self.state = as_json(answer.state)
        for given in answer.assignments:
            number = len(self.history)
            self.history.append(
                HistoryTrial(
                    number,
                    as_json(given.parameters),
                    TrialState.RUNNING,
                    labels=as_json(given.labels),
                    meta=as_json(given.meta),
                )
            )
        return bool(self._running()) and not answer.exhausted

    def _running(self) -> list[HistoryTrial]:
        return [trial for trial in self.history if trial.state is TrialState.RUNNING]

    def _end_one(self) -> None:
        trial = self._dice.choice(self._running())
        state, value = TrialState.SUCCEEDED, objective(trial.parameters)
        if self._dice.random() < self.bad:
            state, value = self._dice.choice(BAD_ENDS)
        self.told += 1
        self.history[trial.number] = replace(trial, state=state, value=value, told_seq=self.told)


BAD_ENDS: tuple[tuple[TrialState, Any], ...] = (
    (TrialState.FAILED, None),
    (TrialState.KILLED, None),
    (TrialState.KILLED, 0.25),
    (TrialState.METRICS_UNAVAILABLE, None),
    (TrialState.EARLY_STOPPED, 0.5),
    (TrialState.EARLY_STOPPED, None),
)


def as_json(data: Any) -> Any:
    """Through text and back, as the database does it; refuses NaN, infinity and whatever is not plain JSON."""
    return json.loads(json.dumps(data, allow_nan=False))


class Incremental:
    """Asks as the ask process does: a session, if there is one, hears what changed since the last call and no more."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._session = algorithm.session() if isinstance(algorithm, HasSessions) else None
        self._known: dict[int, HistoryTrial] = {}

    def __call__(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        if self._session is None:
            return self._algorithm.ask(history, k, first_number, state)
        changes = [trial for trial in history if trial != self._known.get(trial.number)]
        self._known.update((trial.number, trial) for trial in changes)
        return self._session.ask(changes, k, first_number, state)


def outside(parameter: Parameter, value: Value) -> str:
    """What is wrong with a value of this parameter; empty when nothing is."""
    if not parameter.numeric:
        return "" if type(value) is str and value in parameter.values else "not an entry of the list"
    wanted = int if parameter.type is _INT else float
    if type(value) is not wanted:
        return f"{type(value).__name__} instead of a plain {wanted.__name__}"
    if not parameter.low <= value <= parameter.high:
        return "out of range"
    step = parameter.step or (1.0 if parameter.type is _INT else None)
    if step is not None:
        nearest = parameter.low + round((value - parameter.low) / step) * step
        if not math.isclose(value, nearest, rel_tol=1e-12, abs_tol=1e-12 * step):
            return "between two steps"
    return ""


_MIDWAYS: dict[type, tuple[Sequence[HistoryTrial], JsonDict | None]] = {}  # by suite: they take seconds to play


class AlgorithmContract:
    algorithm: ClassVar[type[Algorithm]]
    settings: ClassVar[Mapping[str, str]] = {}
    space: ClassVar[SearchSpace] = SPACE
    trials: ClassVar[int] = 30  # enough that a model decides, if there is one

    def problem(self, **changes: Any) -> SearchProblem:
        fields: dict[str, Any] = {
            "space": self.space, "direction": ObjectiveType.MINIMIZE, "seed": 11, "settings": self.settings,
        }  # fmt: skip
        return SearchProblem(**{**fields, **changes})

    def make(self, **changes: Any) -> Algorithm:
        return self.algorithm(self.problem(**changes))

    def rebuilt(self, history: Sequence[HistoryTrial], k: int, first: int, state: JsonDict | None) -> Answer:
        """An ask by an object that has never been asked before."""
        return self.make().ask(history, k, first, state)

    def midway(self) -> tuple[Sequence[HistoryTrial], JsonDict | None]:
        """A history with running and bad trials, and the state that goes with it."""
        suite = type(self)
        if suite not in _MIDWAYS:
            play = Play(self.rebuilt, parallel=3, seed=3)
            play.run(self.trials)
            _MIDWAYS[suite] = tuple(play.history), play.state
        return _MIDWAYS[suite]

    # ------------------------------------------------------------------------------------------------- check

    def test_it_says_who_it_is(self) -> None:
        assert isinstance(self.algorithm.name, str)
        assert self.algorithm.on_edit in ("continue", "restart", "refuse")
        assert isinstance(self.algorithm.reads_history, bool)

    def test_a_sound_problem_has_no_problems(self) -> None:
        assert list(self.algorithm.check(self.problem())) == []

    def test_an_unknown_setting_is_refused_where_it_stands(self) -> None:
        settings = {**self.settings, "no_such_setting": "1"}
        (problem,) = self.algorithm.check(self.problem(settings=settings))
        assert problem.path.startswith(f"spec.algorithm.algorithmSettings[{len(self.settings)}]")
        assert "no_such_setting" in problem.message

    # --------------------------------------------------------------------------------------------- assignments

    @pytest.mark.parametrize("parallel", [1, 5])
    def test_every_value_is_plain_in_range_and_on_its_grid(self, parallel: int) -> None:
        for parameters in Play(self.rebuilt, parallel=parallel).run(self.trials):
            assert list(parameters) == list(self.space.names())
            wrong = {p.name: parameters[p.name] for p in self.space if outside(p, parameters[p.name])}
            assert wrong == {}

    @pytest.mark.parametrize("k", [1, 2, 7])
    def test_it_gives_at_most_what_was_asked_and_says_why_when_it_gives_nothing(self, k: int) -> None:
        history, state = self.midway()
        for answer in (self.make().ask([], k, 0, None), self.make().ask(history, k, len(history), state)):
            assert len(answer.assignments) <= k
            assert answer.assignments or answer.wait or answer.exhausted

    def test_all_it_gives_is_plain_json(self) -> None:
        history, state = self.midway()
        answer = self.make().ask(history, 2, len(history), state)
        for given in answer.assignments:
            assert all(type(value) in (int, float, str) for value in given.parameters.values())
            for part in (given.parameters, given.labels, given.meta):
                assert as_json(part) == part
        assert as_json(answer.state) == answer.state

    def test_a_space_of_constants_has_one_point(self) -> None:
        constants = SearchSpace(tuple(p for p in SPACE if p.name.startswith("constant")))
        answer = self.make(space=constants).ask([], 1, 0, None)
        assert [dict(given.parameters) for given in answer.assignments] == [
            {"constant": 0.3, "constant int": 4, "constant list": "only"}
        ]

    # ------------------------------------------------------------------------------------------------- history

    def test_trials_may_have_ended_in_any_way_or_not_at_all(self) -> None:
        history, state = self.midway()
        ends = [*BAD_ENDS, (TrialState.SUCCEEDED, 1e300), (TrialState.SUCCEEDED, -1e300), (TrialState.SUCCEEDED, None)]
        for odd, value in [*ends, (TrialState.RUNNING, None), (TrialState.CREATED, None)]:
            all_alike = [replace(trial, state=odd, value=value) for trial in history]
            every_second = [
                alike if alike.number % 2 else trial for alike, trial in zip(all_alike, history, strict=True)
            ]
            for told in (all_alike, every_second):
                answer = self.make().ask(told, 2, len(told), state)
                assert answer.assignments or answer.wait or answer.exhausted

    def test_only_numbers_order_the_history(self) -> None:
        history, state = self.midway()
        shuffled = random.Random(1).sample(history, len(history))  # noqa: S311
        assert self.make().ask(shuffled, 2, len(history), state) == self.make().ask(history, 2, len(history), state)

    # --------------------------------------------------------------------------------------------- determinism

    def test_the_same_question_has_the_same_answer(self) -> None:
        history, state = self.midway()
        one = self.make()
        answers = [asked.ask(history, 3, len(history), state) for asked in (one, one, self.make())]
        assert answers[0] == answers[1] == answers[2]

    def test_a_new_process_with_another_hash_seed_gives_the_same_answer(self) -> None:
        history, state = self.midway()
        here = self.make().ask(history, 2, len(history), state)
        question = (self.algorithm, self.problem(), history, 2, len(history), state)
        environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        there = subprocess.run(
            [sys.executable, "-m", "evertune.testing.algorithms"],
            input=base64.b64encode(pickle.dumps(question)),
            capture_output=True,
            env=environment,
            check=True,
        )
        assert pickle.loads(base64.b64decode(there.stdout)) == here  # noqa: S301

    @pytest.mark.parametrize("parallel", [1, 4])
    def test_a_session_changes_nothing_but_the_time_it_takes(self, parallel: int) -> None:
        rebuilt = Play(self.rebuilt, parallel=parallel, seed=5)
        kept = Play(Incremental(self.make()), parallel=parallel, seed=5)
        assert kept.run(self.trials) == rebuilt.run(self.trials)
        assert kept.answers == rebuilt.answers

    def test_a_session_may_begin_and_be_asked_again_anywhere(self) -> None:
        history, state = self.midway()
        session = Incremental(self.make())
        answers = [session(history, k, len(history), state) for k in (2, 1, 2)]  # none of them was committed
        assert answers[0] == answers[2] == self.rebuilt(history, 2, len(history), state)


def _answer_one_question() -> None:
    """For the test that asks in a new process: a pickled question on standard input, its answer on standard output."""
    algorithm, problem, *question = pickle.loads(base64.b64decode(sys.stdin.buffer.read()))  # noqa: S301
    sys.stdout.write(base64.b64encode(pickle.dumps(algorithm(problem).ask(*question))).decode("ascii"))


if __name__ == "__main__":
    _answer_one_question()
