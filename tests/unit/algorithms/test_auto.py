"""Which algorithm `auto` takes, that it can do what is asked, and that an experiment keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from algorithms import auto, registry
from evertune.domain.metrics import ObjectiveType
from evertune.domain.records import CHOSEN
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, When
from evertune.store import open_store
from tests.unit.algorithms.test_nas import DEEP
from tests.unit.spec.samples import base
from tests.unit.test_admission import admission, request

MINIMIZE, MAXIMIZE = ObjectiveType.MINIMIZE, ObjectiveType.MAXIMIZE
X = Parameter(name="x", type=ParameterType.DOUBLE, low=0.0, high=1.0)
Y = Parameter(name="y", type=ParameterType.DOUBLE, low=0.0, high=1.0)
N = Parameter(name="n", type=ParameterType.INT, low=1, high=3)
OPTIMIZER = Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam"))
MOMENTUM = Parameter(name="momentum", type=ParameterType.DOUBLE, high=1.0, when=(When("optimizer", ("sgd",)),))


def problem(*space: Parameter, **changes: Any) -> SearchProblem:
    return SearchProblem(**{"space": SearchSpace(space), "direction": MINIMIZE, "seed": 1, **changes})


CASES = {
    "grid": problem(N, OPTIMIZER, max_trials=6),
    "sobol": problem(X, Y, max_trials=8),
    "bayesianoptimization": problem(X, Y, N, max_trials=40, parallel=2),
    "cmaes": problem(X, Y, max_trials=400, parallel=8),
    "motpe": problem(X, Y, max_trials=40, directions=(MINIMIZE, MAXIMIZE)),
    "nas-evolution": problem(nas=DEEP, max_trials=100),
    "random": problem(nas=DEEP, max_trials=10),
}
ALL_ROUND = {
    "many at once": problem(X, N, max_trials=40, parallel=16),
    "no limit": problem(X, N),
    "conditions": problem(OPTIMIZER, MOMENTUM, max_trials=20),
    "bounds on metrics": problem(X, Y, max_trials=20, constraints=1),
    "a warm start": problem(X, Y, max_trials=20, warm_start="identical"),
    "counts among many trials": problem(X, N, max_trials=400, parallel=8),
}
EVERY = [*CASES.items(), *(("multivariate-tpe", case) for case in ALL_ROUND.values())]


@pytest.mark.parametrize(("name", "case"), EVERY, ids=[*CASES, *ALL_ROUND])
def test_it_takes_what_fits_and_can_do_what_is_asked(name: str, case: SearchProblem) -> None:
    choice = auto.choose(case)

    assert choice.algorithm == name
    assert choice == auto.choose(case)
    assert choice.why
    assert registry.check(name, case) == registry.check("auto", case) == []
    assert registry.create("auto", case).name == name


def test_a_setting_of_another_algorithm_is_not_one_of_it() -> None:
    (found,) = registry.check("auto", problem(X, Y, max_trials=40, settings={"gamma": "0.2"}))

    assert '"gamma" is not a setting of auto' in found.message


async def test_an_experiment_keeps_the_algorithm_and_the_reason(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/evertune.db") as store:
        await admission(store).admit(request(base(spec__algorithm={"algorithmName": "auto"}), "first"))
        record = store.experiment("default", "fake")

    assert record.algorithm in registry.BUILT_IN
    assert record.algorithm != "auto"
    assert record.context[CHOSEN]["algorithm"] == record.algorithm
    assert record.context[CHOSEN]["why"]
    assert record.manifest["spec"]["algorithm"]["algorithmName"] == "auto"
