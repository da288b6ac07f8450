"""Every built-in algorithm keeps the contract of `evertune.testing.algorithms`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from algorithms.grid import Grid
from algorithms.multivariate_tpe import MultivariateTpe
from algorithms.random_search import RandomSearch
from algorithms.tpe import Tpe
from evertune.domain.space import ParameterType, SearchSpace
from evertune.testing.algorithms import SPACE, AlgorithmContract

STEPPED = SearchSpace(tuple(p for p in SPACE if p.type is not ParameterType.DOUBLE or p.step or p.low == p.high))


class TestRandom(AlgorithmContract):
    algorithm = RandomSearch
    settings: ClassVar[Mapping[str, str]] = {"random_state": "11"}


class TestTpe(AlgorithmContract):
    algorithm = Tpe
    settings: ClassVar[Mapping[str, str]] = {
        "gamma": "0.3",
        "prior_weight": "1.5",
        "n_EI_candidates": "12",
        "n_startup_jobs": "10",
    }


class TestMultivariateTpe(AlgorithmContract):
    algorithm = MultivariateTpe
    settings: ClassVar[Mapping[str, str]] = {"n_startup_trials": "8", "n_ei_candidates": "12", "random_state": "11"}


class TestGrid(AlgorithmContract):
    algorithm = Grid
    space = STEPPED


class TestShuffledGrid(TestGrid):
    settings: ClassVar[Mapping[str, str]] = {"random_state": "11"}
