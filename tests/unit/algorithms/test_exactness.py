"""One trial at a time, an algorithm of ours tries bit for bit what its library tries in its own live loop.

Ours is asked by objects that are made anew for every ask, from JSON: a kill between any two asks changes nothing. With
several trials at a time the reference is the library's live object that was told the same events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import hyperopt
import numpy as np
import pytest

from algorithms import registry
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Answer, JsonDict
from evertune.testing.algorithms import SPACE, Ask, Incremental, Play, as_json, objective
from tests.unit.algorithms import native

SEED = native.SEED


def problem(
    settings: Mapping[str, str] | None = None, direction: ObjectiveType = ObjectiveType.MINIMIZE
) -> SearchProblem:
    return SearchProblem(space=SPACE, direction=direction, seed=SEED, settings=settings or {})


def rebuilt(name: str, asked: SearchProblem) -> Ask:
    def ask(history: Any, k: int, first_number: int, state: JsonDict | None) -> Answer:
        return registry.create(name, asked).ask(history, k, first_number, state)

    return ask


def one_by_one(ask: Ask, trials: int, evaluate: native.Objective) -> list[dict[str, Value]]:
    history: list[HistoryTrial] = []
    state: JsonDict | None = None
    for number in range(trials):
        answer = ask(history, 1, number, state)
        state = as_json(answer.state)
        (given,) = answer.assignments
        value = evaluate(number, given.parameters)
        ended = TrialState.FAILED if value is None else TrialState.SUCCEEDED
        history.append(
            HistoryTrial(number, as_json(given.parameters), ended, value, number + 1, meta=as_json(given.meta))
        )
    return [dict(trial.parameters) for trial in history]


def smooth(_: int, parameters: Mapping[str, Value]) -> float:
    return objective(parameters)


def brittle(number: int, parameters: Mapping[str, Value]) -> float | None:
    """Every fifth trial fails; the others often have equal values."""
    return None if number % 5 == 3 else round(objective(parameters))


def tpe(**options: Any) -> Callable[..., Any]:
    def suggest(*arguments: Any) -> Any:
        return hyperopt.tpe.suggest(*arguments, **options, verbose=False)

    return suggest


@pytest.mark.parametrize("evaluate", [smooth, brittle])
def test_random_is_hyperopts_random(evaluate: native.Objective) -> None:
    ours = one_by_one(rebuilt("random", problem()), 30, evaluate)
    assert ours == native.fmin(hyperopt.rand.suggest, 30, evaluate)


@pytest.mark.parametrize("evaluate", [smooth, brittle])
def test_tpe_is_hyperopts_tpe(evaluate: native.Objective) -> None:
    ours = one_by_one(rebuilt("tpe", problem()), 40, evaluate)
    assert ours == native.fmin(tpe(), 40, evaluate)


def test_tpe_hands_every_setting_to_hyperopt() -> None:
    settings = {"gamma": "0.5", "prior_weight": "2.5", "n_EI_candidates": "7", "n_startup_jobs": "5"}
    options = {"gamma": 0.5, "prior_weight": 2.5, "n_EI_candidates": 7, "n_startup_jobs": 5}
    ours = one_by_one(rebuilt("tpe", problem(settings)), 20, smooth)
    assert ours == native.fmin(tpe(**options), 20, smooth)
    for name in options:
        others = {key: value for key, value in options.items() if key != name}
        assert ours != native.fmin(tpe(**others), 20, smooth), f"{name} makes no difference"


def test_tpe_maximises_by_a_negated_loss() -> None:
    ours = one_by_one(rebuilt("tpe", problem(direction=ObjectiveType.MAXIMIZE)), 30, smooth)
    assert ours == native.fmin(tpe(), 30, smooth, sign=-1.0)


@pytest.mark.parametrize("evaluate", [smooth, brittle])
def test_multivariate_tpe_is_optunas(evaluate: native.Objective) -> None:
    ours = one_by_one(rebuilt("multivariate-tpe", problem()), 30, evaluate)
    assert ours == native.optimize(30, evaluate)


def test_multivariate_tpe_hands_every_setting_to_optuna() -> None:
    settings = {"n_startup_trials": "4", "n_ei_candidates": "7"}
    options = {"n_startup_trials": 4, "n_ei_candidates": 7}
    ours = one_by_one(rebuilt("multivariate-tpe", problem(settings)), 20, smooth)
    assert ours == native.optimize(20, smooth, "minimize", **options)
    for name in options:
        others = {key: value for key, value in options.items() if key != name}
        assert ours != native.optimize(20, smooth, "minimize", **others), f"{name} makes no difference"


def test_multivariate_tpe_maximises_as_optuna_does() -> None:
    ours = one_by_one(rebuilt("multivariate-tpe", problem(direction=ObjectiveType.MAXIMIZE)), 20, smooth)
    assert ours == native.optimize(20, smooth, direction="maximize")


def test_without_startup_trials_multivariate_tpe_models_from_the_first() -> None:
    ours = one_by_one(rebuilt("multivariate-tpe", problem({"n_startup_trials": "0"})), 5, smooth)
    assert ours == native.optimize(5, smooth, n_startup_trials=0)


@pytest.mark.parametrize("parallel", [2, 6])
@pytest.mark.parametrize("kept", [False, True], ids=["rebuilt", "session"])
@pytest.mark.parametrize(
    ("name", "live"),
    [
        ("random", lambda: native.LiveHyperopt(hyperopt.rand.suggest)),
        ("tpe", lambda: native.LiveHyperopt(tpe())),
        ("multivariate-tpe", native.LiveOptuna),
    ],
    ids=["random", "tpe", "multivariate-tpe"],
)
def test_told_the_same_events_a_live_library_tries_the_same_in_parallel(
    name: str, live: Callable[[], Ask], kept: bool, parallel: int
) -> None:
    ask = Incremental(registry.create(name, problem())) if kept else rebuilt(name, problem())
    ours = Play(ask, parallel=parallel, seed=2).run(40)
    assert ours == Play(live(), parallel=parallel, seed=2).run(40)
    assert len(ours) == 40


@pytest.mark.parametrize("name", ["tpe", "multivariate-tpe"])
def test_trials_that_are_asked_for_together_differ(name: str) -> None:
    play = Play(rebuilt(name, problem()), seed=4)
    play.run(40)
    together = play.ask(play.history, 8, 40, play.state).assignments
    assert len({given.parameters["uniform"] for given in together}) == 8


def test_the_seeds_drawn_at_once_are_those_drawn_one_by_one() -> None:
    from algorithms.hyperopt_space import seeds

    generator = np.random.default_rng(SEED)
    one_at_a_time = [int(generator.integers(2**31 - 1)) for _ in range(5000)]
    assert seeds(SEED, 0, 5000) == one_at_a_time
    assert seeds(SEED, 4990, 10) == one_at_a_time[4990:]
    assert seeds(SEED, 1, 2) == one_at_a_time[1:3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("name", ["tpe", "multivariate-tpe"])
def test_a_value_that_is_no_number_is_a_failure(name: str, value: float | None) -> None:
    play = Play(rebuilt(name, problem()), seed=4)
    play.run(30)
    odd, failed = (
        [*play.history[:-1], HistoryTrial(29, play.history[29].parameters, state, told, meta=play.history[29].meta)]
        for state, told in ((TrialState.SUCCEEDED, value), (TrialState.FAILED, None))
    )
    assert play.ask(odd, 1, 30, play.state) == play.ask(failed, 1, 30, play.state)
