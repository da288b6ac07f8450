"""Optuna's samplers for several objectives, constraints, conditions and stopped trials: the live study's very sequence.

`test_native_sequence` has the plain cases of multivariate-tpe, and how the two are driven.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest

from algorithms.native import quiet
from algorithms.optuna_gp import gp_sampler
from algorithms.optuna_search import Gp, Motpe, MultivariateTpe, NsgaII, nsgaii_sampler, tpe_sampler
from algorithms.optuna_session import optuna_space
from algorithms.space import Codec, Dimension, Kind
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError
from evertune.protocols import Algorithm
from evertune.testing.play import Play, score
from evertune.testing.spaces import CONDITIONAL, EVERYTHING, ONE_DOUBLE

MAXIMIZE, MINIMIZE = ObjectiveType.MAXIMIZE, ObjectiveType.MINIMIZE
Parameters = Mapping[str, Value]
has_torch = importlib.util.find_spec("torch") is not None


def problem(space: SearchSpace = EVERYTHING, **changes: Any) -> SearchProblem:
    return replace(SearchProblem(space=space, direction=MINIMIZE, seed=7), **changes)


def second(parameters: Parameters) -> float:
    return score({**parameters, "second": 1})


def missed(parameters: Parameters) -> float:
    return score({**parameters, "missed": 1}) - 0.6


def fails(parameters: Parameters) -> bool:
    return score(parameters) * 1000 % 8 < 1


def stops(parameters: Parameters) -> int:
    """After how many reports the trial is stopped, 0 for one that is not: every third or so."""
    return int(score(parameters) * 10000) % 5 if score(parameters) * 100 % 3 < 1 else 0


def suggested(trial: optuna.Trial, dimension: Dimension) -> Any:
    if dimension.kind is Kind.CHOICE:
        return trial.suggest_categorical(dimension.name, dimension.parameter.values)
    if dimension.kind is Kind.INDEX:
        return trial.suggest_int(dimension.name, 0, dimension.count - 1)
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.kind is Kind.LOG)


def decoded(codec: Codec, params: Mapping[str, Any]) -> dict[str, Value]:
    return codec.decode(
        {
            each.name: each.parameter.values.index(params[each.name]) if each.kind is Kind.CHOICE else params[each.name]
            for each in codec.free
        }
    )


def study_of(given: SearchProblem, sampler: Callable[[SearchProblem], Any]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = optuna.study.StudyDirection
    directions = [kinds.MAXIMIZE if each is MAXIMIZE else kinds.MINIMIZE for each in given.all_directions]
    return optuna.create_study(directions=directions, sampler=sampler(given))


def rebuilt(algorithm: type[Algorithm], given: SearchProblem) -> Play:
    return Play(lambda history, k, first, state: algorithm(given).ask(history, k, first, state))


def tell(play: Play, number: int, given: SearchProblem) -> None:
    parameters = play.trials[number].parameters
    if fails(parameters):
        play.tell(number, TrialState.FAILED, None)
        return
    several = len(given.directions) > 1
    violations = (missed(parameters),) if given.constraints else ()
    steps = stops(parameters) if given.early_stopping else 0
    play.tell(
        number,
        TrialState.EARLY_STOPPED if steps else TrialState.SUCCEEDED,
        score(parameters),
        values=(score(parameters), second(parameters)) if several else (),
        violations=violations,
        steps=steps,
    )


def ours(algorithm: type[Algorithm], given: SearchProblem, trials: int) -> Sequence[Parameters]:
    play = rebuilt(algorithm, given)
    for number in range(trials):
        play.suggest(1)
        tell(play, number, given)
    return play.parameters


def native(given: SearchProblem, sampler: Callable[[SearchProblem], Any], trials: int) -> Sequence[Parameters]:
    """Optuna's own loop, written as its user would."""
    codec, found = Codec.of(given.space), []

    def objective(trial: optuna.Trial) -> Any:
        parameters = decoded(codec, {dimension.name: suggested(trial, dimension) for dimension in codec.free})
        found.append(parameters)
        if fails(parameters):
            raise ArithmeticError("this one fails")
        if given.constraints:
            trial.set_constraint("0", missed(parameters))
        steps = stops(parameters) if given.early_stopping else 0
        if steps:
            trial.report(score(parameters), steps)
            raise optuna.TrialPruned
        return (score(parameters), second(parameters)) if len(given.directions) > 1 else score(parameters)

    with quiet():
        study_of(given, sampler).optimize(objective, n_trials=trials, catch=(ArithmeticError,))
    return found


TWO = (MINIMIZE, MAXIMIZE)
NSGAII = {"population_size": "8"}
GP = {"n_startup_trials": "6"}
NEEDS_TORCH = (pytest.mark.skipif(not has_torch, reason="gp needs torch"), pytest.mark.slow, pytest.mark.timeout(600))
CASES = [
    pytest.param(Motpe, tpe_sampler, {"directions": TWO}, id="motpe"),
    pytest.param(Motpe, tpe_sampler, {"directions": TWO, "constraints": 1}, id="motpe with a constraint"),
    pytest.param(MultivariateTpe, tpe_sampler, {"constraints": 1}, id="tpe with a constraint"),
    pytest.param(MultivariateTpe, tpe_sampler, {"early_stopping": True}, id="tpe with stopped trials"),
    pytest.param(
        MultivariateTpe, tpe_sampler, {"early_stopping": True, "constraints": 1}, id="tpe with stopped trials and both"
    ),
    pytest.param(NsgaII, nsgaii_sampler, {"directions": TWO, "settings": NSGAII}, id="nsgaii"),
    pytest.param(
        NsgaII, nsgaii_sampler, {"directions": TWO, "settings": NSGAII, "constraints": 1}, id="nsgaii with a constraint"
    ),
    pytest.param(
        NsgaII,
        nsgaii_sampler,
        {"settings": {**NSGAII, "mutation_prob": "0.3", "crossover_prob": "0.5", "swapping_prob": "0.2"}},
        id="nsgaii with one objective and all settings",
    ),
    pytest.param(Gp, gp_sampler, {"settings": GP}, id="gp", marks=NEEDS_TORCH),
    pytest.param(Gp, gp_sampler, {"settings": GP, "directions": TWO}, id="gp of two objectives", marks=NEEDS_TORCH),
    pytest.param(Gp, gp_sampler, {"settings": GP, "constraints": 1}, id="gp with a constraint", marks=NEEDS_TORCH),
    pytest.param(
        Gp,
        gp_sampler,
        {"settings": GP, "directions": TWO, "constraints": 1},
        id="gp of two objectives with a constraint",
        marks=(*NEEDS_TORCH, pytest.mark.long),
    ),
    pytest.param(
        Gp, gp_sampler, {"settings": GP, "early_stopping": True}, id="gp with stopped trials", marks=NEEDS_TORCH
    ),
]


@pytest.mark.parametrize(("algorithm", "sampler", "changes"), CASES)
def test_it_is_study_optimize(algorithm: type[Algorithm], sampler: Any, changes: dict[str, Any]) -> None:
    given = problem(**changes)
    assert ours(algorithm, given, 44) == native(given, sampler, 44)


@pytest.mark.parametrize(("algorithm", "sampler", "changes"), [case for case in CASES if "stopped" not in str(case.id)])
def test_with_running_trials_it_is_the_live_study_told_the_same_events(
    algorithm: type[Algorithm], sampler: Any, changes: dict[str, Any]
) -> None:
    given = problem(**changes)
    codec, study, luck = Codec.of(given.space), study_of(given, sampler), random.Random(5)
    live: dict[int, optuna.Trial] = {}
    play = rebuilt(algorithm, given)
    found: list[dict[str, Value]] = []
    while len(found) < 60:
        k = 4 if len(found) < 12 else 1
        play.suggest(k)
        for _ in range(k):
            live[len(found)] = study.ask(optuna_space(codec))
            found.append(decoded(codec, live[len(found)].params))
        assert play.parameters == found
        while len(play.running()) > 4:
            number = luck.choice(play.running())
            tell(play, number, given)
            if fails(found[number]):
                study.tell(number, state=optuna.trial.TrialState.FAIL)
                continue
            if given.constraints:
                live[number].set_constraint("0", missed(found[number]))
            several = len(given.directions) > 1
            study.tell(number, [score(found[number]), second(found[number])] if several else score(found[number]))


def conditional(trial: optuna.Trial) -> dict[str, Value]:
    """`CONDITIONAL`, as Optuna's user writes it."""
    found: dict[str, Value] = {}
    found["optimizer"] = trial.suggest_categorical("optimizer", ("sgd", "adam", "ftrl"))
    found["lr"] = trial.suggest_float("lr", 1e-5, 0.1, log=True)
    if found["optimizer"] == "adam":
        found["beta"] = trial.suggest_float("beta", 0.5, 0.99)
    if found["optimizer"] == "sgd":
        found["momentum"] = trial.suggest_float("momentum", 0.0, 0.9)
        found["nesterov"] = trial.suggest_categorical("nesterov", ("no", "yes"))
    if found.get("nesterov") == "no":
        found["damping"] = trial.suggest_int("damping", 0, 4) + 1
    if found["optimizer"] != "adam":
        found["fixed"] = 3
        found["below"] = trial.suggest_float("below", 0.0, 1.0)
    return found


def test_conditions_are_those_of_a_study_that_asks_only_for_what_it_needs() -> None:
    given = problem(CONDITIONAL)
    found = []

    def objective(trial: optuna.Trial) -> float:
        found.append(conditional(trial))
        return score(found[-1])

    with quiet():
        study_of(given, tpe_sampler).optimize(objective, n_trials=44)
    play = rebuilt(MultivariateTpe, given)
    for number in range(44):
        play.suggest(1)
        play.tell(number, TrialState.SUCCEEDED, score(play.trials[number].parameters))
    assert play.parameters == found


def test_trials_of_other_experiments_teach() -> None:
    """A bowl at 0.3: with 30 points of another experiment the first trial is not drawn at random any more."""
    far = play_of_bowl(MultivariateTpe, problem(ONE_DOUBLE), 30)
    before = [replace(trial, number=trial.number - len(far.trials)) for trial in far.trials]

    def near(history: Sequence[HistoryTrial]) -> int:
        first = [MultivariateTpe(problem(ONE_DOUBLE, seed=seed)).ask(history, 1, 0, None) for seed in range(12)]
        return sum(abs(float(each.assignments[0].parameters["x"]) - 0.3) < 0.25 for each in first)

    assert near(before) > 8
    assert near(()) < 6  # a quarter of them


def play_of_bowl(algorithm: type[Algorithm], given: SearchProblem, trials: int) -> Play:
    play = rebuilt(algorithm, given)
    for number in range(trials):
        play.suggest(1)
        play.tell(number, TrialState.SUCCEEDED, (float(play.trials[number].parameters["x"]) - 0.3) ** 2)
    return play


def test_trials_of_other_experiments_that_do_not_fit_tell_nothing() -> None:
    far = play_of_bowl(MultivariateTpe, problem(ONE_DOUBLE), 12).trials
    outside = [replace(trial, number=trial.number - 12, parameters={"x": 17.0}) for trial in far]
    unknown = [replace(trial, number=trial.number - 12, parameters={"y": 0.5}) for trial in far]
    given = problem(ONE_DOUBLE, seed=8, warm_start="transfer")
    cold = MultivariateTpe(given).ask((), 3, 0, None)
    for before in (outside, unknown):
        assert MultivariateTpe(given).ask(before, 3, 0, None).assignments == cold.assignments


def test_nsgaii_begins_with_the_population_of_another_experiment() -> None:
    given = problem(settings=NSGAII)
    other = ours_played(given, 20)
    before = [replace(trial, number=trial.number - 20) for trial in other.trials]
    answer = NsgaII(given).ask(before, 1, 0, None)
    assert answer.assignments[0].meta["system"] == {"NSGAIISampler:generation": 1}


def ours_played(given: SearchProblem, trials: int) -> Play:
    play = rebuilt(NsgaII, given)
    for number in range(trials):
        play.suggest(1)
        tell(play, number, given)
    return play


def test_the_state_of_a_long_search_stays_small() -> None:
    given = problem(ONE_DOUBLE, settings={"population_size": "2"})
    state = play_of_bowl(NsgaII, given, 60).state
    assert state is not None
    assert len(state["study"]) == 2


@pytest.mark.skipif(has_torch, reason="torch is installed")
def test_gp_without_torch_says_what_to_install() -> None:
    (found,) = Gp.check(problem())
    assert found.path == "spec.algorithm.algorithmName"
    assert 'pip install "evertune[gp]"' in found.message
    with pytest.raises(AlgorithmError, match=r'pip install "evertune\[gp\]"'):
        Gp(problem()).ask((), 1, 0, None)


def test_gp_is_for_a_thousand_trials_at_most() -> None:
    assert not [each for each in Gp.check(problem(max_trials=1000)) if each.path == "spec.maxTrialCount"]
    (found,) = [each for each in Gp.check(problem(max_trials=1001)) if each.path == "spec.maxTrialCount"]
    assert "at most 1,000 with gp" in found.message
