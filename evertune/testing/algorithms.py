"""The contract of `Algorithm`, as a pytest class: subclass it, say which algorithm, and run it.

    class TestMine(AlgorithmContract):
        def create(self, problem: SearchProblem) -> Algorithm:
            return Mine(problem)

For authors of algorithms, ours and third parties'. It drives the algorithm as evertune does - a new object for each
ask, history, state and meta through JSON, trials that end in any order and any way - and never looks inside it.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Algorithm, Answer, Feature, JsonDict

Ending = tuple[TrialState, float | None]
Ask = Callable[[Sequence[HistoryTrial], int, int, JsonDict | None], Answer]

ENDINGS: tuple[Ending, ...] = (
    (TrialState.FAILED, None),
    (TrialState.METRICS_UNAVAILABLE, None),
    (TrialState.EARLY_STOPPED, 0.5),
    (TrialState.EARLY_STOPPED, None),
    (TrialState.KILLED, 0.25),
    (TrialState.KILLED, None),
    (TrialState.SUCCEEDED, None),
    (TrialState.SUCCEEDED, math.nan),
    (TrialState.SUCCEEDED, math.inf),
    (TrialState.SUCCEEDED, -math.inf),
    (TrialState.SUCCEEDED, 1.7e308),
    (TrialState.SUCCEEDED, -5e-324),
)


# -------------------------------------------------------------------------------------------------- spaces


def _numbers(kind: ParameterType, name: str, low: float, high: float, step: float | None) -> list[Parameter]:
    return [
        Parameter(
            name=f"{kind}-{name}-{distribution}", type=kind, low=low, high=high, step=step, distribution=distribution
        )
        for distribution in Distribution
    ]


LISTS = (
    Parameter(name="discrete", type=ParameterType.DISCRETE, values=("0.10", "16", "-3", "1e-3")),
    Parameter(name="categorical 🦊", type=ParameterType.CATEGORICAL, values=("sgd", "Sgd", "naïve", "")),
)
CONSTANTS = (
    Parameter(name="constant-double", type=ParameterType.DOUBLE, low=0.3, high=0.3),
    Parameter(name="constant-int", type=ParameterType.INT, low=-7, high=-7),
    Parameter(name="constant-grid", type=ParameterType.DOUBLE, low=0.3, high=0.35, step=0.1),
    Parameter(name="constant-choice", type=ParameterType.CATEGORICAL, values=("only",)),
)
STEPPED = SearchSpace(
    (
        *_numbers(ParameterType.DOUBLE, "stepped", 0.1, 0.7, 0.1),
        *_numbers(ParameterType.INT, "plain", 1, 16, None),
        *_numbers(ParameterType.INT, "stepped", 1, 17, 3),
        *LISTS,
        *CONSTANTS,
    )
)
CONTINUOUS = SearchSpace(
    (
        *_numbers(ParameterType.DOUBLE, "plain", 1e-5, 0.1, None),
        Parameter(name="negative", type=ParameterType.DOUBLE, low=-3.5, high=-0.5),
    )
)
EVERYTHING = SearchSpace((*CONTINUOUS.parameters, *STEPPED.parameters))
ALL_CONSTANT = SearchSpace(CONSTANTS)
ONE_DOUBLE = SearchSpace((Parameter(name="x", type=ParameterType.DOUBLE, low=-1.0, high=1.0),))


def allows(parameter: Parameter, value: Value) -> bool:
    """Whether a value may be handed out: of the parameter's plain Python type, in range and on its grid."""
    if not parameter.numeric:
        return type(value) is str and value in parameter.values
    if type(value) is not (int if parameter.type is ParameterType.INT else float):
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    step = parameter.step or (1 if parameter.type is ParameterType.INT else None)
    if step is None:
        return True
    low, each = Decimal(repr(parameter.low)), Decimal(repr(step))
    return float(low + round((Decimal(repr(value)) - low) / each) * each) == value


# -------------------------------------------------------------------------------------------------- driving


def score(parameters: Mapping[str, Value]) -> float:
    """An objective without any shape, the same in every process."""
    return zlib.crc32(repr(sorted(parameters.items())).encode()) / 2**32


@dataclass
class Play:
    """One experiment as the store would remember it: asks through `ask`, keeps what JSON keeps."""

    ask: Ask
    trials: list[HistoryTrial] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    told: int = 0

    @property
    def parameters(self) -> list[Mapping[str, Value]]:
        return [trial.parameters for trial in self.trials]

    @property
    def state(self) -> JsonDict | None:
        return through_json(self.answers[-1].state) if self.answers else None

    def suggest(self, k: int) -> Answer:
        answer = self.ask(tuple(self.trials), k, len(self.trials), self.state)
        for assignment in answer.assignments:
            self.trials.append(
                HistoryTrial(
                    number=len(self.trials),
                    parameters=through_json(dict(assignment.parameters)),
                    state=TrialState.RUNNING,
                    labels=through_json(dict(assignment.labels)),
                    meta=through_json(dict(assignment.meta)),
                )
            )
        self.answers.append(answer)
        return answer

    def tell(self, number: int, state: TrialState, value: float | None) -> None:
        self.told += 1
        self.trials[number] = replace(self.trials[number], state=state, value=value, told_seq=self.told)

    def running(self) -> list[int]:
        return [trial.number for trial in self.trials if not trial.state.terminal]

    def run(self, trials: int, parallel: int, luck: random.Random, failing: float = 0.2) -> Play:
        """Keep `parallel` trials running, end a random one at a time, a share of them in some bad way."""
        while len(self.trials) < trials:
            free = min(parallel - len(self.running()), trials - len(self.trials))
            if free > 0 and not self.suggest(free).assignments and not self.running():
                return self
            number = luck.choice(self.running())
            if luck.random() < failing:
                self.tell(number, *luck.choice(ENDINGS))
            else:
                self.tell(number, TrialState.SUCCEEDED, score(self.trials[number].parameters))
        return self


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - which trial ends next is no secret


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


# ------------------------------------------------------------------------------------------------- contract


class AlgorithmContract:
    """Subclasses define `create`, and narrow `spaces` and `settings` where the algorithm needs it."""

    settings: ClassVar[Mapping[str, str]] = {}
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "everything": EVERYTHING,
        "one-double": ONE_DOUBLE,
        "all-constant": ALL_CONSTANT,
    }
    trials: ClassVar[int] = 26  # of the longest run: beyond the random start of what it tests

    def create(self, problem: SearchProblem) -> Algorithm:
        raise NotImplementedError("the subclass names the algorithm: return Mine(problem)")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "space" in metafunc.fixturenames:
            metafunc.parametrize("space", list(self.spaces.values()), ids=list(self.spaces))

    def problem(self, space: SearchSpace, **changes: Any) -> SearchProblem:
        problem = SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=7, settings=self.settings)
        return replace(problem, **changes)

    def rebuilt(self, problem: SearchProblem) -> Ask:
        """A new object for each ask, as after a crash between any two."""
        return lambda history, k, first, state: self.create(problem).ask(history, k, first, state)

    def played(self, space: SearchSpace, trials: int = 12, parallel: int = 3, **changes: Any) -> Play:
        return Play(self.rebuilt(self.problem(space, **changes))).run(trials, parallel, chance(1))

    # ------------------------------------------------------------------------------------------- answers

    def test_it_says_what_the_registry_must_know(self) -> None:
        algorithm = type(self.create(self.problem(next(iter(self.spaces.values())))))
        assert isinstance(algorithm.name, str)
        assert algorithm.name
        assert algorithm.on_edit in ("continue", "restart", "refuse")
        assert isinstance(algorithm.reads_history, bool)
        assert all(isinstance(feature, Feature) for feature in algorithm.supports)

    def test_the_same_question_has_the_same_answer(self, space: SearchSpace) -> None:
        play = self.played(space)
        problem = self.problem(space)
        before = pickle.dumps((problem, play.trials, play.state))
        one = self.create(problem)
        asked = [one.ask(tuple(play.trials), 2, len(play.trials), play.state) for _ in range(2)]
        asked.append(self.create(problem).ask(tuple(play.trials), 2, len(play.trials), play.state))
        assert asked[0] == asked[1] == asked[2]
        assert pickle.dumps((problem, play.trials, play.state)) == before, "an ask changed what it was given"

    def test_another_process_gives_the_same_answer(self) -> None:
        space = next(iter(self.spaces.values()))
        play = self.played(space)
        algorithm = self.create(self.problem(space))
        here = algorithm.ask(tuple(play.trials), 2, len(play.trials), play.state)
        question = (type(algorithm), self.problem(space), tuple(play.trials), 2, len(play.trials), play.state)
        program = (
            "import pickle, sys; kind, problem, *question = pickle.load(sys.stdin.buffer);"
            "answer = kind(problem).ask(*question); sys.stdout.flush(); sys.stdout.buffer.write(pickle.dumps(answer))"
        )
        for hash_seed in ("1", "4242"):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed}
            there = subprocess.run(
                [sys.executable, "-c", program],
                input=pickle.dumps(question),
                stdout=subprocess.PIPE,
                env=environment,
                check=True,
                timeout=60,
            )
            assert pickle.loads(there.stdout) == here  # noqa: S301 - written three lines above

    def test_values_are_plain_in_range_and_on_their_grid(self, space: SearchSpace) -> None:
        for parallel in (1, 5):
            play = self.played(space, trials=self.trials, parallel=parallel)
            for parameters in (assignment.parameters for answer in play.answers for assignment in answer.assignments):
                assert set(parameters) == set(space.names())
                wrong = {
                    parameter.name: value
                    for parameter in space
                    if not allows(parameter, value := parameters[parameter.name])
                }
                assert not wrong

    def test_it_never_gives_more_than_was_asked(self, space: SearchSpace) -> None:
        play = Play(self.rebuilt(self.problem(space)))
        for k in (1, 2, 7, 1, 11):
            answer = play.suggest(k)
            assert len(answer.assignments) <= k
            assert answer.assignments or answer.wait or answer.exhausted, "no assignment, and no word why"

    def test_trials_may_end_in_any_way(self, space: SearchSpace) -> None:
        for direction in ObjectiveType:
            problem = self.problem(space, direction=direction)
            play = Play(self.rebuilt(problem))
            for ending in ENDINGS:
                if play.suggest(2).assignments:
                    play.tell(play.running()[-1], *ending)
            assert play.trials

    def test_failures_alone_do_not_end_the_search(self, space: SearchSpace) -> None:
        play = Play(self.rebuilt(self.problem(space)))
        for _ in range(self.trials):
            if play.suggest(1).assignments:
                play.tell(len(play.trials) - 1, TrialState.FAILED, None)
        assert play.answers[-1].assignments or play.answers[-1].exhausted

    def test_state_labels_and_meta_are_json(self, space: SearchSpace) -> None:
        for answer in self.played(space).answers:
            assert through_json(answer.state) == answer.state
            for assignment in answer.assignments:
                assert through_json(dict(assignment.meta)) == assignment.meta
                assert through_json(dict(assignment.parameters)) == assignment.parameters
                assert all(type(text) is str for pair in assignment.labels.items() for text in pair)

    def test_an_algorithm_that_reads_no_history_needs_none(self, space: SearchSpace) -> None:
        problem = self.problem(space)
        if self.create(problem).reads_history:
            pytest.skip("it reads the history")
        play = self.played(space)
        for answer, first in zip(play.answers, _firsts(play.answers), strict=True):
            k = len(answer.assignments) or 1
            assert self.create(problem).ask((), k, first, None).assignments == answer.assignments

    # ------------------------------------------------------------------------------------------ settings

    def test_its_own_settings_are_accepted(self, space: SearchSpace) -> None:
        problem = self.problem(space)
        assert list(type(self.create(problem)).check(problem)) == []

    def test_an_unknown_setting_is_refused_by_its_place(self) -> None:
        space = next(iter(self.spaces.values()))
        algorithm = type(self.create(self.problem(space)))
        settings = {**self.settings, "no_such_setting": "1"}
        found = algorithm.check(self.problem(space, settings=settings))
        path = f"spec.algorithm.algorithmSettings[{len(self.settings)}].name"
        assert [problem.path for problem in found] == [path]
        assert "no_such_setting" in found[0].message

    # ------------------------------------------------------------------------------------------ sessions

    def test_a_kept_session_answers_as_a_rebuilt_one(self, space: SearchSpace) -> None:
        problem = self.problem(space)
        algorithm = self.create(problem)
        make_session = getattr(algorithm, "session", None)
        if make_session is None:
            pytest.skip("it has no sessions")
        session = make_session()
        seen: list[HistoryTrial] = []

        def kept(history: Sequence[HistoryTrial], k: int, first: int, state: JsonDict | None) -> Answer:
            changed = [trial for trial in history if trial.number >= len(seen) or trial != seen[trial.number]]
            session.update(changed)
            seen[:] = history
            answer: Answer = session.ask(k, first, state)
            return answer

        one = Play(kept).run(self.trials, 4, chance(3))
        other = Play(self.rebuilt(problem)).run(self.trials, 4, chance(3))
        assert one.parameters == other.parameters
        assert one.answers == other.answers


def _firsts(answers: Sequence[Answer]) -> list[int]:
    firsts = [0]
    for answer in answers:
        firsts.append(firsts[-1] + len(answer.assignments))
    return firsts[:-1]
