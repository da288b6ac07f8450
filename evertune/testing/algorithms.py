"""The contract of `Algorithm`, as a pytest class: subclass it, say which algorithm, and run it.

    class TestMine(AlgorithmContract):
        def create(self, problem: SearchProblem) -> Algorithm:
            return Mine(problem)

For authors of algorithms, ours and third parties'. It drives the algorithm as evertune does - a new object for each
ask, history, state and meta through JSON, trials that end in any order and any way - and never looks inside it.
"""

from __future__ import annotations

import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Algorithm, Answer, Feature, JsonDict
from evertune.testing.play import ENDINGS, Ask, Play, chance, through_json
from evertune.testing.spaces import ALL_CONSTANT, CONDITIONAL, EVERYTHING, ONE_DOUBLE, allows, fits, names_of


def warnings_of(kind: type, *about: object) -> Sequence[Problem]:
    """What an algorithm or a stopping rule warns of; both may have nothing of the kind."""
    own: Callable[..., Sequence[Problem]] = getattr(kind, "warnings", lambda *_: ())
    return own(*about)


class AlgorithmContract:
    """Subclasses define `create`, and narrow `spaces` and `settings` where the algorithm needs it."""

    settings: ClassVar[Mapping[str, str]] = {}
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "everything": EVERYTHING,
        "one-double": ONE_DOUBLE,
        "all-constant": ALL_CONSTANT,
    }
    conditional: ClassVar[SearchSpace] = CONDITIONAL
    trials: ClassVar[int] = 26  # of the longest run: beyond the random start of what it tests

    ignores_others: ClassVar[bool] = False  # lets settings pass that it does not know, as some of Katib's do

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
        assert getattr(algorithm, "handles", frozenset()) <= algorithm.supports, "what it does itself works with it"

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
                assert set(parameters) == names_of(space, parameters)
                wrong = {
                    parameter.name: value
                    for parameter in space
                    if parameter.name in parameters and not allows(parameter, value := parameters[parameter.name])
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
        if self.ignores_others:
            assert list(found) == []
            return
        path = f"spec.algorithm.algorithmSettings[{len(self.settings)}].name"
        assert [problem.path for problem in found] == [path]
        assert "no_such_setting" in found[0].message

    @pytest.mark.parametrize(("most", "parallel"), [(None, 1000), (1, 1), (7, 5), (100_000, 3)])
    def test_what_it_warns_of_if_anything_is_a_sentence_with_a_place(
        self, space: SearchSpace, most: int | None, parallel: int
    ) -> None:
        problem = self.problem(space, max_trials=most, parallel=parallel)
        for warning in warnings_of(type(self.create(problem)), problem):
            assert warning.path.startswith("spec.")
            assert "\n" not in warning.message

    # ------------------------------------------------------------------------------------------ sessions

    def kept(self, problem: SearchProblem) -> Ask:
        """One session for all asks, told only what changed, as in a process that stays alive."""
        make_session = getattr(self.create(problem), "session", None)
        if make_session is None:
            pytest.skip("it has no sessions")
        session = make_session()
        seen: list[HistoryTrial] = []

        def ask(history: Sequence[HistoryTrial], k: int, first: int, state: JsonDict | None) -> Answer:
            session.update(_changed(history, seen))
            seen[:] = history
            answer: Answer = session.ask(k, first, state)
            return answer

        return ask

    def same_kept_and_rebuilt(
        self,
        problem: SearchProblem,
        more: Callable[[random.Random], dict[str, Any]] | None = None,
        before: Sequence[HistoryTrial] = (),
    ) -> Play:
        one = Play(self.kept(problem), list(before), more=more).run(self.trials + len(before), 4, chance(3))
        other = Play(self.rebuilt(problem), list(before), more=more).run(self.trials + len(before), 4, chance(3))
        assert one.parameters == other.parameters
        assert one.answers == other.answers
        return one

    def test_a_kept_session_answers_as_a_rebuilt_one(self, space: SearchSpace) -> None:
        self.same_kept_and_rebuilt(self.problem(space))

    # ------------------------------------------------------------------------------- what only some can do

    def needs(self, feature: Feature, of: str = "supports") -> SearchSpace:
        """Any of the spaces, for an algorithm that has this feature among those that it `supports` or `handles`."""
        space = next(iter(self.spaces.values()))
        if feature not in getattr(type(self.create(self.problem(space))), of, ()):
            pytest.skip(f"it does not itself do {feature}" if of == "handles" else f"it does not support {feature}")
        return space

    def test_several_objectives_are_searched_whatever_is_reported_of_them(self) -> None:
        space = self.needs(Feature.OBJECTIVES)
        directions = (ObjectiveType.MINIMIZE, ObjectiveType.MAXIMIZE, ObjectiveType.MINIMIZE)

        def more(luck: random.Random) -> dict[str, Any]:
            second = luck.choice((luck.random(), luck.random(), None, 1.7e308, -math.inf))
            return {"values": (0.5, second, luck.random())}

        play = self.same_kept_and_rebuilt(self.problem(space, directions=directions), more)
        assert all(fits(space, parameters) for parameters in play.parameters)

    def test_constraints_are_told_though_their_metrics_are_missing(self) -> None:
        space = self.needs(Feature.CONSTRAINTS)

        def more(luck: random.Random) -> dict[str, Any]:
            return {"violations": (luck.choice((luck.random() - 0.5, -1e308, math.inf)), luck.random() - 0.9)}

        play = self.same_kept_and_rebuilt(self.problem(space, constraints=2), more)
        assert all(fits(space, parameters) for parameters in play.parameters)

    def test_early_stopped_trials_are_told_with_what_they_had_reached(self) -> None:
        space = next(iter(self.spaces.values()))
        problem = self.problem(space, early_stopping=True)

        def stopping(ask: Ask) -> Play:
            play, luck = Play(ask), chance(4)
            while len(play.trials) < self.trials and (play.suggest(2).assignments or play.running()):
                for number in play.running():
                    stopped = luck.random() < 0.6
                    state = TrialState.EARLY_STOPPED if stopped else TrialState.SUCCEEDED
                    play.tell(number, state, luck.random(), steps=luck.randint(1, 5) if stopped else 0)
            return play

        assert stopping(self.kept(problem)).answers == stopping(self.rebuilt(problem)).answers

    def test_parameters_whose_conditions_do_not_hold_are_left_out(self) -> None:
        self.needs(Feature.WHEN, of="handles")
        play = self.same_kept_and_rebuilt(self.problem(self.conditional))
        by_name = {parameter.name: parameter for parameter in self.conditional}
        for parameters in play.parameters:
            assert parameters == self.conditional.active(parameters)
            everywhere = {parameter.name for parameter in self.conditional if not parameter.when}
            chosen = self.conditional.active({**dict.fromkeys(by_name, 3), **parameters})
            assert set(parameters) >= everywhere
            assert set(parameters) == set(chosen)
            assert all(allows(by_name[name], value) for name, value in parameters.items())
        assert len({tuple(parameters) for parameters in play.parameters}) > 2

    def test_trials_of_other_experiments_come_before_the_first(self) -> None:
        space = self.needs(Feature.WARM_START)
        other = self.played(space, trials=14, parallel=2).trials
        before = [replace(trial, number=trial.number - len(other)) for trial in other if trial.state.terminal]
        problem = self.problem(space, warm_start="identical")
        play = self.same_kept_and_rebuilt(problem, before=before)
        assert [trial.number for trial in play.trials if trial.number >= 0] == list(range(self.trials))

    def test_what_was_refused_is_not_given_again(self) -> None:
        space = next(iter(self.spaces.values()))
        problem = self.problem(space)
        make_session = getattr(self.create(problem), "session", None)
        if make_session is None or not hasattr(make_session(), "refuse"):
            pytest.skip("what it gives cannot be refused")

        def refusing(session: Any, first: int, state: JsonDict | None, given: list[Any]) -> Answer:
            answer: Answer = session.ask(1, first, state)
            for _ in range(2 if first % 3 else 0):
                given.append(answer.assignments[0].parameters)
                session.refuse(first)
                answer = session.ask(1, first, through_json(answer.state))
                assert answer.assignments[0].parameters not in given
            return answer

        def played(fresh: bool) -> tuple[Play, list[Any]]:
            sessions = [make_session()]
            seen: list[HistoryTrial] = []
            given: list[Any] = []

            def ask(history: Sequence[HistoryTrial], k: int, first: int, state: JsonDict | None) -> Answer:
                if fresh:
                    sessions.append(self.create(problem).session())  # type: ignore[attr-defined]
                    seen.clear()
                sessions[-1].update(
                    [trial for trial in history if trial.number >= len(seen) or trial != seen[trial.number]]
                )
                seen[:] = history
                return refusing(sessions[-1], first, state, given)

            return Play(ask).run(self.trials, 3, chance(6)), given

        kept, rebuilt = played(fresh=False), played(fresh=True)
        assert kept[0].answers == rebuilt[0].answers
        assert kept[1] == rebuilt[1]

    def test_an_independent_ask_depends_on_no_state(self, space: SearchSpace) -> None:
        problem = self.problem(space, independent=True)
        play = self.same_kept_and_rebuilt(problem)
        first = len(play.trials)
        foreign = {"state": "of another version of the library"}
        asked = [self.create(problem).ask(tuple(play.trials), 2, first, state) for state in (None, foreign)]
        assert asked[0].assignments == asked[1].assignments


def _changed(history: Sequence[HistoryTrial], seen: Sequence[HistoryTrial]) -> list[HistoryTrial]:
    return [trial for index, trial in enumerate(history) if index >= len(seen) or trial != seen[index]]


def _firsts(answers: Sequence[Answer]) -> list[int]:
    firsts = [0]
    for answer in answers:
        firsts.append(firsts[-1] + len(answer.assignments))
    return firsts[:-1]
