"""Objective functions with known answers, for `bench.quality`: each with its space and the least value there is.

Branin and Hartmann6 are the classics (Dixon & Szego 1978); `mixed` has what real spaces have, numbers, counts, choices
and an interaction of theirs; `svm-digits` trains a real model in milliseconds; `zdt1` has two objectives.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value

Parameters = Mapping[str, Value]


@dataclass(frozen=True)
class BenchProblem:
    """`values`: of all objectives, each to be minimised. `reference` bounds the hypervolume where there are several."""

    name: str
    space: SearchSpace
    values: Callable[[Parameters], tuple[float, ...]]
    least: float | None = None
    reference: tuple[float, ...] = ()

    def problem(self, seed: int, budget: int, parallel: int, settings: Mapping[str, str]) -> SearchProblem:
        return SearchProblem(
            space=self.space,
            direction=ObjectiveType.MINIMIZE,
            directions=(ObjectiveType.MINIMIZE,) * len(self.reference) if self.reference else (),
            seed=seed,
            settings=settings,
            max_trials=budget,
            parallel=parallel,
        )


def double(name: str, low: float, high: float, distribution: Distribution = Distribution.UNIFORM) -> Parameter:
    return Parameter(name=name, type=ParameterType.DOUBLE, low=low, high=high, distribution=distribution)


def number(parameters: Parameters, name: str) -> float:
    return float(parameters[name])


def branin(parameters: Parameters) -> tuple[float, ...]:
    x, y = number(parameters, "x"), number(parameters, "y")
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return (bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10,)


_SHARE = np.array([1.0, 1.2, 3.0, 3.2])
_SCALE = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_CENTRE = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(parameters: Parameters) -> tuple[float, ...]:
    x = np.array([number(parameters, f"x{index}") for index in range(6)])
    return (-float(_SHARE @ np.exp(-(_SCALE * (x - _CENTRE) ** 2).sum(1))),)


def mixed(parameters: Parameters) -> tuple[float, ...]:
    """0 at lr 0.01, dropout 0.3, 5 layers, width 12, adam and batch; the best lr depends on the optimizer."""
    rate = math.log10(number(parameters, "lr"))
    best_rate = {"adam": -2.0, "sgd": -1.0, "rmsprop": -3.0}[str(parameters["optimizer"])]
    loss = 0.4 * (rate - best_rate) ** 2
    loss += 4 * (number(parameters, "dropout") - 0.3) ** 2
    loss += 0.05 * (number(parameters, "layers") - 5) ** 2 + 0.01 * (number(parameters, "width") - 12) ** 2
    loss += {"adam": 0.0, "sgd": 0.2, "rmsprop": 0.35}[str(parameters["optimizer"])]
    loss += {"batch": 0.0, "layer": 0.1, "none": 0.3 + 0.05 * number(parameters, "layers")}[str(parameters["norm"])]
    return (loss,)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    train, judge = order[:400], order[400:1200]
    return images[train] / 16, labels[train], images[judge] / 16, labels[judge]


def svm_digits(parameters: Parameters) -> tuple[float, ...]:
    from sklearn.svm import SVC

    train, labels, judge, truth = _digits()
    machine = SVC(
        C=number(parameters, "C"),
        gamma=number(parameters, "gamma"),
        kernel=str(parameters["kernel"]),
        degree=int(number(parameters, "degree")),
        coef0=number(parameters, "coef0"),
    )
    return (1 - float((machine.fit(train, labels).predict(judge) == truth).mean()),)


def zdt1(parameters: Parameters) -> tuple[float, ...]:
    first, *rest = (number(parameters, f"x{index}") for index in range(5))
    slope = 1 + 9 * sum(rest) / len(rest)
    return first, slope * (1 - math.sqrt(first / slope))


PROBLEMS = (
    BenchProblem("branin", SearchSpace((double("x", -5, 10), double("y", 0, 15))), branin, 0.397887),
    BenchProblem("hartmann6", SearchSpace(tuple(double(f"x{i}", 0, 1) for i in range(6))), hartmann6, -3.32237),
    BenchProblem(
        "mixed",
        SearchSpace(
            (
                double("lr", 1e-5, 1, Distribution.LOG_UNIFORM),
                double("dropout", 0, 0.9),
                Parameter(name="layers", type=ParameterType.INT, low=1, high=10),
                Parameter(name="width", type=ParameterType.INT, low=1, high=32),
                Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "rmsprop")),
                Parameter(name="norm", type=ParameterType.CATEGORICAL, values=("none", "batch", "layer")),
            )
        ),
        mixed,
        0.0,
    ),
    BenchProblem(
        "svm-digits",
        SearchSpace(
            (
                double("C", 1e-3, 1e3, Distribution.LOG_UNIFORM),
                double("gamma", 1e-5, 10, Distribution.LOG_UNIFORM),
                Parameter(name="kernel", type=ParameterType.CATEGORICAL, values=("rbf", "poly", "sigmoid")),
                Parameter(name="degree", type=ParameterType.INT, low=2, high=5),
                double("coef0", 0, 1),
            )
        ),
        svm_digits,
    ),
    BenchProblem("zdt1", SearchSpace(tuple(double(f"x{i}", 0, 1) for i in range(5))), zdt1, reference=(1.1, 11.0)),
)
