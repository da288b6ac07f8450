"""bayesianoptimization, cmaes, sobol and anneal: bit for bit what their libraries' own loops give."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cmaes
import hyperopt
import numpy as np
import pytest
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from algorithms.bayesian import BayesianOptimization, optimizer_of
from algorithms.cma import CmaEs, Runs, cube
from algorithms.hyperopt_search import Anneal, Tpe, anneal_options, hyperopt_space
from algorithms.native import quiet
from algorithms.sobol import Sobol
from algorithms.space import Codec, from_quantile
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.protocols import Algorithm
from evertune.testing.play import Play, score
from evertune.testing.spaces import EVERYTHING, ONE_DOUBLE

MAXIMIZE, MINIMIZE = ObjectiveType.MAXIMIZE, ObjectiveType.MINIMIZE
Parameters = Mapping[str, Value]

MIXED = SearchSpace(
    (
        Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="momentum", type=ParameterType.DOUBLE, low=0.0, high=1.0),
        Parameter(name="dropout", type=ParameterType.DOUBLE, low=0.0, high=0.5, step=0.05),
        Parameter(name="layers", type=ParameterType.INT, low=1, high=8),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
    )
)
SQUARE = SearchSpace(tuple(Parameter(name=name, type=ParameterType.DOUBLE, low=-5.0, high=10.0) for name in ("x", "y")))


def problem(space: SearchSpace = MIXED, direction: ObjectiveType = MINIMIZE, **settings: str) -> SearchProblem:
    return SearchProblem(space=space, direction=direction, seed=7, settings=settings)


def fails(parameters: Parameters) -> bool:
    return score(parameters) * 1000 % 8 < 1


def rebuilt(algorithm: type[Algorithm], given: SearchProblem) -> Play:
    return Play(lambda history, k, first, state: algorithm(given).ask(history, k, first, state))


def ours(algorithm: type[Algorithm], given: SearchProblem, trials: int) -> Sequence[Parameters]:
    play = rebuilt(algorithm, given)
    for number in range(trials):
        play.suggest(1)
        if fails(play.trials[number].parameters):
            play.tell(number, TrialState.FAILED, None)
        else:
            play.tell(number, TrialState.SUCCEEDED, score(play.trials[number].parameters))
    return play.parameters


# ------------------------------------------------------------------------------------------ scikit-optimize


def skopt_loop(given: SearchProblem, trials: int) -> Sequence[Parameters]:
    """Its own ask and tell; the user tells the worst value of a trial that failed."""
    codec, optimizer = Codec.of(given.space), optimizer_of(given)
    sign = -1 if given.direction is MAXIMIZE else 1
    found = []
    with quiet(), threadpool_limits(1):
        for _ in range(trials):
            point = optimizer.ask()
            raw = {
                dimension.name: dimension.parameter.values.index(value) if isinstance(value, str) else value
                for dimension, value in zip(codec.free, point, strict=True)
            }
            found.append(codec.decode(raw))
            if not fails(found[-1]):
                optimizer.tell(point, sign * score(found[-1]))
            elif optimizer.yi:
                optimizer.tell(point, max(optimizer.yi))
    return found


@pytest.mark.parametrize(
    ("direction", "settings"),
    [
        (MINIMIZE, {"base_estimator": "ET", "acq_func": "EI", "n_initial_points": "6"}),
        pytest.param(
            MAXIMIZE,
            {"base_estimator": "RF", "acq_func": "gp_hedge", "n_initial_points": "5"},
            marks=pytest.mark.slow,
        ),
        (MINIMIZE, {"base_estimator": "GBRT", "acq_func": "LCB", "n_initial_points": "5"}),
        pytest.param(
            MINIMIZE,
            {"base_estimator": "ET", "acq_optimizer": "sampling", "n_initial_points": "0"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bayesianoptimization_with_trees_is_the_optimizers_own_loop(
    direction: ObjectiveType, settings: dict[str, str]
) -> None:
    given = replace(problem(direction=direction), settings=settings)
    assert ours(BayesianOptimization, given, 12) == skopt_loop(given, 12)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("direction", "settings"),
    [
        (MINIMIZE, {"n_initial_points": "6"}),
        (MAXIMIZE, {"n_initial_points": "6", "acq_func": "EI"}),
        (MINIMIZE, {"n_initial_points": "6", "acq_func": "PI", "acq_optimizer": "sampling"}),
    ],
)
def test_bayesianoptimization_with_a_gaussian_process_is_the_optimizers_own_loop(
    direction: ObjectiveType, settings: dict[str, str]
) -> None:
    given = replace(problem(direction=direction), settings=settings)
    assert ours(BayesianOptimization, given, 20) == skopt_loop(given, 20)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("estimator", ["ET", "RF", "GBRT"])
def test_bayesianoptimization_with_trees_stays_the_same_for_long(estimator: str) -> None:
    given = problem(base_estimator=estimator)
    assert ours(BayesianOptimization, given, 44) == skopt_loop(given, 44)


@pytest.mark.slow
def test_eight_points_at_once_lie_apart() -> None:
    given = problem(SQUARE, n_initial_points="6", acq_func="EI")
    play = rebuilt(BayesianOptimization, given)
    for number in range(6):
        play.suggest(1)
        play.tell(number, TrialState.SUCCEEDED, bowl(play.trials[number].parameters))
    answer = play.suggest(4)
    answer = replace(answer, assignments=(*answer.assignments, *play.suggest(4).assignments))
    points = [tuple(map(float, assignment.parameters.values())) for assignment in answer.assignments]
    apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for index, a in enumerate(points) for b in points[:index]]
    assert min(apart) > 0.05  # Katib gives the same points twice


def bowl(parameters: Parameters) -> float:
    return (float(parameters["x"]) - 2) ** 2 + (float(parameters["y"]) + 1) ** 2


def test_the_model_is_fitted_to_the_best_and_the_latest() -> None:
    given = problem(SQUARE, base_estimator="ET", n_initial_points="5", max_model_points="20")
    session = BayesianOptimization(given).session()
    play = rebuilt(Sobol, problem(SQUARE))
    for number in range(60):
        play.suggest(1)
        play.tell(number, TrialState.SUCCEEDED, float(number % 30))
    session.update(play.trials)
    points, losses = session._told().for_model(20)  # type: ignore[attr-defined]
    assert len(points) == 20
    assert losses[:5] == [0.0, 1.0, 2.0, 0.0, 1.0]
    assert losses[5:] == [float(number % 30) for number in range(45, 60)]


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        ({"acq_func": "EIps"}, "algorithmSettings[0].value", "weighs a trial's seconds"),
        ({"base_estimator": "ET", "acq_func": "PIps"}, "algorithmSettings[1].value", "weighs a trial's seconds"),
        ({"acq_optimizer": "lbfgs", "base_estimator": "RF"}, "algorithmSettings[0].value", "needs gradients"),
    ],
)
def test_settings_that_scikit_optimize_would_fail_on_later_are_refused(
    settings: dict[str, str], place: str, words: str
) -> None:
    (found,) = BayesianOptimization.check(replace(problem(), settings=settings))
    assert found.path == f"spec.algorithm.{place}"
    assert words in found.message
    assert found.hint


def test_a_gaussian_process_of_thousands_is_refused_unless_it_may_forget() -> None:
    given = replace(problem(), max_trials=1001)
    (found,) = BayesianOptimization.check(given)
    assert found.path == "spec.maxTrialCount"
    assert "RF or ET" in str(found.hint)
    for settings in ({"base_estimator": "ET"}, {"max_model_points": "300"}):
        assert not BayesianOptimization.check(replace(given, settings=settings))


def test_trees_refuse_numbers_that_they_cannot_hold() -> None:
    space = SearchSpace((*MIXED.parameters, Parameter(name="far", type=ParameterType.DOUBLE, low=0.0, high=1e39)))
    (found,) = BayesianOptimization.check(problem(space, base_estimator="ET"))
    assert found.path == "spec.parameters[5].feasibleSpace"
    assert "no numbers beyond 1e+38" in found.message
    assert not BayesianOptimization.check(problem(space))


# --------------------------------------------------------------------------------------------------- cmaes


def cmaes_loop(given: SearchProblem, trials: int, sigma: float = 1 / 6) -> list[dict[str, Value]]:
    """The package's own loop: as many points as the population has, without those that failed."""
    numbers, _ = cube(Codec.of(given.space))
    bounds = np.array([[0.0, 1.0]] * len(numbers))
    optimizer = cmaes.CMA(mean=np.full(len(numbers), 0.5), sigma=sigma, bounds=bounds, seed=given.seed)
    sign = -1 if given.direction is MAXIMIZE else 1
    found: list[dict[str, Value]] = []
    solutions: list[tuple[Any, float]] = []
    with threadpool_limits(1):
        while len(found) < trials:
            point = optimizer.ask()
            found.append(
                {
                    each.name: each.decode(from_quantile(each, float(share)))
                    for each, share in zip(numbers, point, strict=True)
                }
            )
            if not fails(found[-1]):
                solutions.append((point, sign * score(found[-1])))
            if len(solutions) == optimizer.population_size:
                optimizer.tell(solutions)
                solutions = []
    return found


NUMBERS = SearchSpace(
    tuple(parameter for parameter in EVERYTHING if parameter.numeric and "constant" not in parameter.name)
)


@pytest.mark.parametrize("direction", ObjectiveType)
def test_cmaes_is_the_packages_own_loop(direction: ObjectiveType) -> None:
    given = problem(NUMBERS, direction)
    assert ours(CmaEs, given, 80) == cmaes_loop(given, 80)


def test_cmaes_takes_a_first_step_in_units_of_the_narrowest_range() -> None:
    given = problem(SQUARE, sigma="1.5")
    assert ours(CmaEs, given, 30) == cmaes_loop(given, 30, sigma=0.1)
    assert ours(CmaEs, problem(SQUARE, sigma="-1"), 30) == cmaes_loop(given, 30)


def test_cmaes_draws_what_is_no_number_at_random() -> None:
    given = problem(MIXED)
    play = rebuilt(CmaEs, given)
    play.run(120, 4, random.Random(3))
    drawn = [parameters["optimizer"] for parameters in play.parameters]
    assert min(drawn.count(name) for name in ("sgd", "adam", "ftrl")) > 25


def test_late_trials_of_an_old_generation_change_nothing() -> None:
    given = problem(SQUARE)
    play = rebuilt(CmaEs, given)
    play.suggest(9)  # the population is 6
    for number in (8, 1, 5, 2, 7, 3):
        play.tell(number, TrialState.SUCCEEDED, bowl(play.trials[number].parameters))
    play.suggest(2)
    assert [trial.meta["generation"] for trial in play.trials] == [0] * 9 + [1] * 2
    late = replace(play.trials[0], state=TrialState.SUCCEEDED, value=-1e9, told_seq=99)
    history = (late, *play.trials[1:])
    before, after = (CmaEs(given).ask(each, 3, 11, play.state) for each in (play.trials, history))
    assert before == after


def test_a_generation_that_fails_is_drawn_again() -> None:
    given = problem(SQUARE)
    play = rebuilt(CmaEs, given)
    for number in range(20):
        play.suggest(1)
        play.tell(number, TrialState.FAILED, None)
    assert {trial.meta["generation"] for trial in play.trials} == {0}
    assert len({tuple(parameters.values()) for parameters in play.parameters}) == 20


def flat(given: SearchProblem, generations: int) -> list[int]:
    """The populations of a search that gets the same value everywhere, and so converges again and again."""
    runs, generator, populations = Runs(given), np.random.RandomState(1), []
    for _ in range(generations):
        populations.append(runs.population)
        runs.tell([(runs.draw(generator), 1.0) for _ in range(runs.population)])
    return [each for index, each in enumerate(populations) if index == 0 or each != populations[index - 1]]


def test_ipop_doubles_the_population_when_it_has_converged() -> None:
    assert flat(problem(SQUARE, restart_strategy="ipop"), 60)[:4] == [6, 12, 24, 48]
    assert flat(problem(SQUARE), 60) == [6]


def test_bipop_goes_on_with_small_populations_between_the_large_ones() -> None:
    populations = flat(problem(SQUARE, restart_strategy="bipop"), 200)
    assert populations[:2] == [6, 12]
    assert {12, 24, 48} <= set(populations)
    assert any(later < earlier for earlier, later in pairwise(populations))


def test_restarts_are_those_of_the_history_alone() -> None:
    """With a constant objective it restarts within 130 trials: a new process knows it from the trials."""
    given = problem(SQUARE, restart_strategy="ipop")
    play = rebuilt(CmaEs, given)
    for number in range(150):
        play.suggest(1)
        play.tell(number, TrialState.SUCCEEDED, 1.0)
    sizes = [sum(trial.meta["generation"] == generation for trial in play.trials) for generation in range(22)]
    assert sizes[0] == 6
    assert 12 in sizes


@pytest.mark.parametrize("direction", ObjectiveType)
def test_cmaes_finds_the_bottom_of_a_bowl(direction: ObjectiveType) -> None:
    given = problem(SQUARE, direction)
    sign = -1 if direction is MAXIMIZE else 1
    session, seen, best = CmaEs(given).session(), 0, 1e9
    play = Play(lambda history, k, first, state: session.ask(k, first, state))
    for number in range(300):
        play.suggest(1)
        best = min(best, bowl(play.trials[number].parameters))
        play.tell(number, TrialState.SUCCEEDED, sign * bowl(play.trials[number].parameters))
        session.update(play.trials[seen:])
        seen = len(play.trials)
    assert best < 1e-6


def test_cmaes_begins_where_another_experiment_was_best() -> None:
    source = rebuilt(Sobol, problem(SQUARE))
    for number in range(64):
        source.suggest(1)
        source.tell(number, TrialState.SUCCEEDED, bowl(source.trials[number].parameters))
    before = [replace(trial, number=trial.number - 64) for trial in source.trials]
    warm = CmaEs(problem(SQUARE)).ask(before, 6, 0, None).assignments
    cold = CmaEs(problem(SQUARE)).ask((), 6, 0, None).assignments
    mean = [sum(bowl(each.parameters) for each in answer) / 6 for answer in (warm, cold)]
    assert mean[0] < mean[1] / 2


# --------------------------------------------------------------------------------------------------- sobol


def test_scrambled_sobol_is_scipys_sequence() -> None:
    given = problem(EVERYTHING, random_state="7")
    codec = Codec.of(EVERYTHING)
    rows = qmc.Sobol(len(codec.free), rng=np.random.default_rng(7)).random(64)
    native = [
        codec.decode({each.name: from_quantile(each, share) for each, share in zip(codec.free, row, strict=True)})
        for row in rows
    ]
    play = rebuilt(Sobol, given)
    for k in (1, 7, 1, 23, 32):
        play.suggest(k)
    assert play.parameters == native


def test_sobol_without_a_seed_begins_in_the_middle() -> None:
    found = [assignment.parameters["x"] for assignment in Sobol(problem(ONE_DOUBLE)).ask((), 4, 0, None).assignments]
    assert found == [0.0, 0.5, -0.5, -0.25]
    assert Sobol(replace(problem(ONE_DOUBLE), seed=99)).ask((), 4, 0, None).assignments[1].parameters["x"] == 0.5


def test_sobol_gives_the_last_value_of_an_int_as_often_as_the_first() -> None:
    space = SearchSpace((Parameter(name="n", type=ParameterType.INT, low=1, high=4), *ONE_DOUBLE.parameters))
    found = Sobol(problem(space, random_state="1")).ask((), 64, 0, None).assignments
    assert [sum(each.parameters["n"] == value for each in found) for value in (1, 2, 3, 4)] == [16] * 4


# -------------------------------------------------------------------------------------------------- anneal


def raw_of(document: dict[str, Any]) -> dict[str, Any]:
    return {name: values[0] for name, values in document["misc"]["vals"].items()}


@pytest.mark.parametrize(
    ("direction", "settings"),
    [(MINIMIZE, {}), (MAXIMIZE, {}), (MINIMIZE, {"avg_best_idx": "1", "shrink_coef": "0.5"})],
)
def test_anneal_is_fmin_with_anneal(direction: ObjectiveType, settings: dict[str, str]) -> None:
    given = problem(EVERYTHING, direction, **settings)
    codec, sign = Codec.of(given.space), -1 if direction is MAXIMIZE else 1
    done = hyperopt.Trials()

    def objective(_: Any) -> dict[str, Any]:
        parameters = codec.decode(raw_of(done.trials[-1]))
        if fails(parameters):
            return {"status": hyperopt.STATUS_FAIL}
        return {"status": hyperopt.STATUS_OK, "loss": sign * score(parameters)}

    def suggest(new_ids: Any, domain: Any, trials: Any, seed: int) -> Any:
        return hyperopt.anneal.suggest(new_ids, domain, trials, seed, **anneal_options(given))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hyperopt.fmin(
            objective,
            hyperopt_space(codec),
            algo=suggest,
            max_evals=44,
            trials=done,
            rstate=np.random.default_rng(given.seed),
            show_progressbar=False,
            verbose=False,
            allow_trials_fmin=False,
        )
    assert ours(Anneal, given, 44) == [codec.decode(raw_of(document)) for document in done.trials]


@pytest.mark.parametrize("algorithm", [Tpe, Anneal])
def test_hyperopt_learns_of_other_experiments(algorithm: type[Algorithm]) -> None:
    source = rebuilt(Sobol, problem(SQUARE))
    for number in range(32):
        source.suggest(1)
        source.tell(number, TrialState.SUCCEEDED, bowl(source.trials[number].parameters))
    before = [replace(trial, number=trial.number - 32) for trial in source.trials]

    def mean(history: Sequence[Any]) -> float:
        found = [algorithm(replace(problem(SQUARE), seed=seed)).ask(history, 1, 0, None) for seed in range(10)]
        return sum(bowl(each.assignments[0].parameters) for each in found) / 10

    assert mean(before) < mean(()) / 2
    foreign = [replace(trial, parameters={"x": 99.0}) for trial in before]
    assert mean(foreign) == mean(())
