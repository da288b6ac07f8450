"""Bit for bit the sequence of the library driven by its own live loop over the same encoded space."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import hyperopt
import numpy as np
import optuna
import pytest

from algorithms.bayesian import BayesianOptimization
from algorithms.cma import CmaEs
from algorithms.hyperopt_search import Anneal, Random, Tpe, _Seeds, hyperopt_space, tpe_options
from algorithms.optuna_search import Motpe, MultivariateTpe, NsgaII, tpe_sampler
from algorithms.optuna_session import optuna_space
from algorithms.sobol import Sobol
from algorithms.space import Codec, Dimension, Kind, Raw
from evertune.app import child_environment
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.protocols import Algorithm, Answer, JsonDict
from evertune.testing.play import Play, score
from evertune.testing.spaces import EVERYTHING

MAXIMIZE, MINIMIZE = ObjectiveType.MAXIMIZE, ObjectiveType.MINIMIZE
ParametersList = list[dict[str, Value]]


def problem(direction: ObjectiveType = MINIMIZE, **settings: str) -> SearchProblem:
    return SearchProblem(space=EVERYTHING, direction=direction, seed=7, settings=settings)


def fails(parameters: Mapping[str, Value]) -> bool:
    """Every eighth or so, by nothing but the point itself."""
    return score(parameters) * 1000 % 8 < 1


def rebuilt(algorithm: type[Algorithm], given: SearchProblem) -> Play:
    """A new object per ask, everything else through JSON."""
    return Play(lambda history, k, first, state: algorithm(given).ask(history, k, first, state))


def run_to_the_end(play: Play, trials: int) -> list[Mapping[str, Value]]:
    while len(play.trials) < trials:
        play.suggest(1)
        number = len(play.trials) - 1
        end(play, number)
    return play.parameters


def end(play: Play, number: int) -> None:
    parameters = play.trials[number].parameters
    if fails(parameters):
        play.tell(number, TrialState.FAILED, None)
    else:
        play.tell(number, TrialState.SUCCEEDED, score(parameters))


# ------------------------------------------------------------------------------------------------ hyperopt


def fmin(given: SearchProblem, suggest: Any, trials: int) -> ParametersList:
    """hyperopt's own loop; what it evaluates, decoded."""
    codec = Codec.of(given.space)
    sign = -1 if given.direction is MAXIMIZE else 1
    done = hyperopt.Trials()

    def objective(_: Any) -> dict[str, Any]:
        document = done.trials[-1]
        parameters = codec.decode(raw_of(document))
        if fails(parameters):
            return {"status": hyperopt.STATUS_FAIL}
        return {"status": hyperopt.STATUS_OK, "loss": sign * score(parameters)}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hyperopt.fmin(
            objective,
            hyperopt_space(codec),
            algo=suggest,
            max_evals=trials,
            trials=done,
            rstate=np.random.default_rng(given.seed),
            show_progressbar=False,
            verbose=False,
            allow_trials_fmin=False,
        )
    return [codec.decode(raw_of(document)) for document in done.trials]


def raw_of(document: dict[str, Any]) -> dict[str, Raw]:
    return {name: values[0] for name, values in document["misc"]["vals"].items()}


def test_random_is_fmin_with_random_search() -> None:
    assert run_to_the_end(rebuilt(Random, problem()), 40) == fmin(problem(), hyperopt.rand.suggest, 40)


@pytest.mark.parametrize(
    ("direction", "settings"),
    [
        (MINIMIZE, {}),
        (MAXIMIZE, {}),
        (MINIMIZE, {"gamma": "0.4", "prior_weight": "0.5", "n_EI_candidates": "7", "n_startup_jobs": "5"}),
        (MINIMIZE, {"n_startup_jobs": "0"}),
    ],
)
def test_tpe_is_fmin_with_tpe(direction: ObjectiveType, settings: dict[str, str]) -> None:
    given = problem(direction, **settings)

    def suggest(new_ids: Any, domain: Any, trials: Any, seed: int) -> Any:
        return hyperopt.tpe.suggest(new_ids, domain, trials, seed, **tpe_options(given))

    assert run_to_the_end(rebuilt(Tpe, given), 36) == fmin(given, suggest, 36)


def test_tpe_with_running_trials_is_the_live_library_told_the_same_events() -> None:
    given = problem(n_startup_jobs="6")
    codec = Codec.of(given.space)
    domain = hyperopt.Domain(lambda _: 0.0, hyperopt_space(codec))
    live = hyperopt.Trials()
    rng = np.random.default_rng(given.seed)

    def ask(_: Any, k: int, first: int, __: Any) -> Answer:
        asked = []
        for number in range(first, first + k):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seed = int(rng.integers(2**31 - 1))
                new = hyperopt.tpe.suggest([number], domain, live, seed, **tpe_options(given))
            new[0]["state"] = hyperopt.JOB_STATE_RUNNING
            live.insert_trial_docs(new)
            live.refresh()
            asked.append(codec.decode(raw_of(new[0])))
        return answer(asked)

    def tell(trial: HistoryTrial) -> None:
        document = live.trials[trial.number]
        document["state"] = hyperopt.JOB_STATE_DONE
        document["result"] = {"status": "fail"} if trial.value is None else {"status": "ok", "loss": trial.value}

    assert_equal_in_parallel(rebuilt(Tpe, given), ask, tell, trials=32)


def test_the_seeds_of_a_block_are_those_drawn_one_by_one() -> None:
    rng = np.random.default_rng(7)
    drawn = [int(rng.integers(2**31 - 1)) for _ in range(_Seeds.BLOCK + 100)]
    seeds = _Seeds(7)
    assert [seeds[number] for number in range(len(drawn))] == drawn


# -------------------------------------------------------------------------------------------------- Optuna


def study_of(given: SearchProblem) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if given.direction is MAXIMIZE else directions.MINIMIZE
    return optuna.create_study(direction=direction, sampler=tpe_sampler(given))


def optuna_parameters(codec: Codec, params: Mapping[str, Any]) -> dict[str, Value]:
    raw = {
        dimension.name: dimension.parameter.values.index(params[dimension.name])
        if dimension.kind is Kind.CHOICE
        else params[dimension.name]
        for dimension in codec.free
    }
    return codec.decode(raw)


def suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    """As Optuna's user writes it."""
    if dimension.kind is Kind.CHOICE:
        return trial.suggest_categorical(dimension.name, dimension.parameter.values)
    if dimension.kind is Kind.INDEX:
        return trial.suggest_int(dimension.name, 0, dimension.count - 1)
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.kind is Kind.LOG)


@pytest.mark.parametrize(
    ("direction", "settings"),
    [
        (MINIMIZE, {}),
        (MAXIMIZE, {}),
        (MINIMIZE, {"n_startup_trials": "3", "n_ei_candidates": "5"}),
        (MINIMIZE, {"n_startup_trials": "0"}),
    ],
)
def test_multivariate_tpe_is_study_optimize(direction: ObjectiveType, settings: dict[str, str]) -> None:
    given = problem(direction, **settings)
    codec = Codec.of(given.space)
    found = []

    def objective(trial: optuna.Trial) -> float:
        parameters = optuna_parameters(codec, {dimension.name: suggest(trial, dimension) for dimension in codec.free})
        found.append(parameters)
        if fails(parameters):
            raise ArithmeticError("this one fails")
        return score(parameters)

    study_of(given).optimize(objective, n_trials=36, catch=(ArithmeticError,))
    assert run_to_the_end(rebuilt(MultivariateTpe, given), 36) == found


def test_multivariate_tpe_with_running_trials_is_the_live_study_told_the_same_events() -> None:
    given = problem(n_startup_trials="5")
    codec = Codec.of(given.space)
    study = study_of(given)

    def ask(_: Any, k: int, __: int, ___: Any) -> Answer:
        return answer([optuna_parameters(codec, study.ask(optuna_space(codec)).params) for _ in range(k)])

    def tell(trial: HistoryTrial) -> None:
        if trial.value is None:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial.number, trial.value)

    assert_equal_in_parallel(rebuilt(MultivariateTpe, given), ask, tell, trials=40)


# ---------------------------------------------------------------------------------------- processes, batches


def answer(parameters: ParametersList) -> Answer:
    return Answer(assignments=tuple(Assignment(each) for each in parameters))


def assert_equal_in_parallel(ours: Play, ask: Any, tell: Any, trials: int) -> None:
    """Batches first, then one by one with three running, ended in a random order; some fail."""
    native = Play(ask)
    chance = random.Random(5)
    while len(ours.trials) < trials:
        k = 4 if len(ours.trials) < 12 else 1
        ours.suggest(k)
        native.suggest(k)
        assert ours.parameters == native.parameters
        while len(ours.running()) > 3:
            number = chance.choice(ours.running())
            end(ours, number)
            end(native, number)
            tell(native.trials[number])


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (Random, {}),
        (Tpe, {"n_startup_jobs": "2"}),
        (MultivariateTpe, {}),
        (Anneal, {}),
        (Motpe, {"n_startup_trials": "4"}),
        (NsgaII, {"population_size": "4"}),
        (CmaEs, {"restart_strategy": "bipop"}),
        (Sobol, {"random_state": "7"}),
        pytest.param(BayesianOptimization, {"base_estimator": "ET", "n_initial_points": "11"}, marks=pytest.mark.slow),
    ],
)
def test_a_new_process_per_ask_gives_the_same_sequence(algorithm: type[Algorithm], settings: dict[str, str]) -> None:
    given = replace(problem(), settings=settings)
    program = (
        "import pickle, sys; kind, problem, *question = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(pickle.dumps(kind(problem).ask(*question)))"
    )

    def in_new_process(history: Any, k: int, first: int, state: JsonDict | None) -> Answer:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps((algorithm, given, history, k, first, state)),
            stdout=subprocess.PIPE,
            env={**child_environment(), "PYTHONHASHSEED": str(first + 1), "OMP_NUM_THREADS": "1"},
            check=True,
        )
        found: Answer = pickle.loads(done.stdout)
        return found

    far = rebuilt(algorithm, given)
    run_to_the_end(far, 12)
    here, there = (Play(ask, list(far.trials), list(far.answers), far.told) for ask in (far.ask, in_new_process))
    assert run_to_the_end(here, 15) == run_to_the_end(there, 15)
