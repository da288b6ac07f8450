"""The contract of every early stopping rule, as a pytest class.

Plugin authors subclass it and give the class, its settings and, if it has some, settings that are wrong:

    class TestMine(StopperContract):
        kind = MyRule
        settings = {"limit": "0.5"}
        wrong = {"limit": "much"}
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.domain.stopping import ListedPeers, Prefix, Ruling
from evertune.errors import Problem
from evertune.protocols import EarlyStopper, JsonDict
from evertune.testing.algorithms import warnings_of

METRIC = "score"
BAD_NUMBERS = (None, 1e308, -1e308, 0.0, -0.0, 5e-324)  # None: NaN, an infinity, a word


def objective(direction: ObjectiveType = ObjectiveType.MINIMIZE) -> Objective:
    return Objective(direction, METRIC, additional=("loss", "accuracy"))


def prefixes(values: Sequence[float | None], metric: str = METRIC) -> list[Prefix]:
    """What a rule sees of an attempt that reports these values."""
    return list(itertools.accumulate(values, Prefix.then, initial=Prefix(metric=metric)))[1:]


class StopperContract:
    kind: ClassVar[type[EarlyStopper]]
    settings: ClassVar[Mapping[str, str]] = {}
    wrong: ClassVar[Mapping[str, str]] = {}

    def make(self, direction: ObjectiveType = ObjectiveType.MINIMIZE) -> EarlyStopper:
        return self.kind(self.settings, objective(direction))

    def run(self, rule: EarlyStopper, values: Sequence[float | None], peers: Sequence[float] = ()) -> list[Ruling]:
        """The rulings about each value of each of its metrics, memory handed on as the store does: through JSON."""
        memory: JsonDict = {}
        found = []
        for metric in rule.metrics:
            for prefix in prefixes(values, metric):
                ruling = rule.judge(prefix, ListedPeers(peers), memory)
                memory = json.loads(json.dumps(dict(ruling.memory), allow_nan=False))
                found.append(ruling)
        return found

    def test_its_settings_are_right_and_a_misspelled_one_is_named(self) -> None:
        assert list(self.kind.check(self.settings, objective())) == []
        found = self.kind.check({**self.settings, "no_such_setting": "1"}, objective())
        assert [problem.path for problem in found] == [
            f"spec.earlyStopping.algorithmSettings[{len(self.settings)}].name"
        ]
        assert "no_such_setting" in found[0].message

    def test_wrong_values_are_all_named_at_once_in_one_sentence_each(self) -> None:
        if not self.wrong:
            pytest.skip("nothing can be wrong with its settings")
        found = [problem for problem in self.kind.check(self.wrong, objective()) if problem.type == "Invalid"]
        assert len(found) == len(self.wrong)
        for name in self.wrong:
            assert any(name in problem.message for problem in found)
        assert all(isinstance(problem, Problem) and "\n" not in problem.message for problem in found)

    @pytest.mark.parametrize("most", [None, 1, 3, 100_000])
    def test_what_it_warns_of_if_anything_is_a_sentence_with_a_place(self, most: int | None) -> None:
        problem = SearchProblem(space=SearchSpace(()), direction=ObjectiveType.MINIMIZE, seed=0, max_trials=most)
        for warning in warnings_of(self.kind, self.settings, objective(), problem):
            assert warning.path.startswith("spec.")
            assert "\n" not in warning.message

    def test_it_says_what_it_is_in_one_sentence(self) -> None:
        assert self.kind.name
        assert 10 < len(self.kind.about) < 140
        assert "\n" not in self.kind.about
        assert self.kind.peers in ("none", "succeeded", "all")

    @pytest.mark.parametrize("direction", list(ObjectiveType))
    def test_it_is_pure_so_that_asked_twice_it_says_the_same(self, direction: ObjectiveType) -> None:
        draw = random.Random(7)  # noqa: S311
        values = [draw.choice([draw.random(), None]) for _ in range(200)]
        peers = [draw.random() for _ in range(20)]
        first, second = (self.run(self.make(direction), values, peers) for _ in range(2))
        assert first == second
        shared = self.make(direction)
        self.run(shared, values[::-1], peers)
        assert self.run(shared, values, peers) == first, "another attempt in between changes nothing"

    def test_it_leaves_the_memory_that_it_is_given_as_it_was(self) -> None:
        rule = self.make()
        memory: JsonDict = {}
        for prefix in prefixes([0.5, 0.4, 0.6]):
            before = copy.deepcopy(memory)
            ruling = rule.judge(prefix, ListedPeers([0.1, 0.2]), memory)
            assert memory == before
            memory = dict(ruling.memory)

    @pytest.mark.parametrize("direction", list(ObjectiveType))
    def test_no_value_however_odd_breaks_it(self, direction: ObjectiveType) -> None:
        rule = self.make(direction)
        for peers in ([], [0.5], list(filter(None, BAD_NUMBERS)), [0.25] * 50):
            self.run(rule, [*BAD_NUMBERS, *([None] * 20), *BAD_NUMBERS], peers)

    def test_reasons_are_one_short_sentence(self) -> None:
        rule = self.make()
        for peers in ([0.0] * 10, [1e-300] * 10, [123456789.123456789] * 10):
            for ruling in self.run(rule, [1e10] * 100, peers):
                assert len(ruling.reason) <= 180
                assert "\n" not in ruling.reason

    @pytest.mark.parametrize("direction", list(ObjectiveType))
    def test_marks_are_made_once_per_step_and_never_without_a_number(self, direction: ObjectiveType) -> None:
        rule = self.make(direction)
        if rule.peers == "none":
            assert [rule.mark(prefix, last=False) for prefix in prefixes([0.5] * 20)] == [None] * 20
            return
        made = [mark for prefix in prefixes([0.5] * 200) if (mark := rule.mark(prefix, last=False))]
        assert made, "it compares, so there is something to compare with"
        assert len({step for step, _ in made}) == len(made)
        assert [rule.mark(prefix, last=last) for prefix in prefixes([None] * 9) for last in (False, True)] == [
            None
        ] * 18

    def test_the_best_of_all_is_never_stopped_for_being_worse_than_others(self) -> None:
        if self.make().peers == "none":
            pytest.skip("it compares with nobody")
        for direction, best, others in (
            (ObjectiveType.MINIMIZE, 0.0, [1.0, 2.0, 3.0]),
            (ObjectiveType.MAXIMIZE, 4.0, [1.0, 2.0, 3.0]),
        ):
            peers = [best, *others] if self.kind.peers == "all" else others
            assert {ruling.reason for ruling in self.run(self.make(direction), [best] * 50, peers)} == {""}

    def test_the_direction_is_the_objectives(self) -> None:
        """A mirrored objective with mirrored values is stopped at the same place."""
        values = [0.9, 0.8, 0.95, 0.7, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99]
        peers = [0.1, 0.3, 0.75, 0.85]
        if self.kind.peers == "none":
            pytest.skip("what it compares with is no value of another trial, and has a direction of its own")
        down = self.run(self.make(ObjectiveType.MINIMIZE), values, peers)
        up = self.run(self.make(ObjectiveType.MAXIMIZE), [-value for value in values], [-value for value in peers])
        assert [bool(ruling.reason) for ruling in down] == [bool(ruling.reason) for ruling in up]
