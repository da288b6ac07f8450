"""The algorithm contract for each built-in one, over every type, distribution and step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from algorithms.grid import Grid
from algorithms.hyperopt_search import Random, Tpe
from algorithms.optuna_search import MultivariateTpe
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.protocols import Algorithm
from evertune.testing.algorithms import ALL_CONSTANT, LISTS, STEPPED, AlgorithmContract


class TestRandom(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"random_state": "3"}

    def create(self, problem: SearchProblem) -> Algorithm:
        return Random(problem)


class TestTpe(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {
        "gamma": "0.3",
        "n_startup_jobs": "6",
        "n_EI_candidates": "12",
        "prior_weight": "0.9",
    }
    trials = 16

    def create(self, problem: SearchProblem) -> Algorithm:
        return Tpe(problem)


class TestMultivariateTpe(AlgorithmContract):
    settings: ClassVar[Mapping[str, str]] = {"n_startup_trials": "6", "n_ei_candidates": "12"}
    trials = 20

    def create(self, problem: SearchProblem) -> Algorithm:
        return MultivariateTpe(problem)


class TestGrid(AlgorithmContract):
    spaces: ClassVar[Mapping[str, SearchSpace]] = {
        "stepped": STEPPED,
        "lists": SearchSpace(LISTS),
        "all-constant": ALL_CONSTANT,
    }

    def create(self, problem: SearchProblem) -> Algorithm:
        return Grid(problem)


class TestGridInRandomOrder(TestGrid):
    settings: ClassVar[Mapping[str, str]] = {"random_state": "7"}
