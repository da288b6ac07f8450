"""What algorithms and early stopping rules warn of: that it is so, that it is not said where it is not so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from algorithms import registry
from algorithms.asha import Asha
from algorithms.auto import Auto
from algorithms.bohb import Bohb, BohbSession
from algorithms.hyperband import Hyperband
from algorithms.pbt import Pbt
from algorithms.plugins import warnings_of
from algorithms.stoppers import registry as stoppers
from evertune import spec
from evertune.domain import labels
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.errors import Problem
from evertune.testing.play import Play
from tests.unit.algorithms.test_planners import POPULATION, play
from tests.unit.algorithms.test_planners import problem as planned
from tests.unit.spec.samples import EXAMPLES

BUDGET, PARALLEL = "spec.maxTrialCount", "spec.parallelTrialCount"
SPACE = SearchSpace(
    (
        Parameter(name="x", type=ParameterType.DOUBLE, low=0.0, high=1.0),
        Parameter(name="y", type=ParameterType.INT, low=1, high=9),
    )
)
NETWORK = {
    "graphConfig": {"numLayers": 2, "inputSizes": [8, 8, 1], "outputSizes": [10]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [{"name": "f", "parameterType": "categorical", "feasibleSpace": {"list": ["3", "5"]}}],
        }
    ],
}


def problem(space: SearchSpace = SPACE, **changes: Any) -> SearchProblem:
    return SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=5, **changes)


def warned(name: str, given: SearchProblem) -> list[str]:
    """The places of what it warns of, once it has found nothing wrong."""
    assert list(registry.check(name, given)) == []
    found = registry.warnings(name, given)
    assert all(each.hint and "\n" not in each.message for each in found)
    return [each.path for each in found]


def points(name: str, given: SearchProblem, trials: int) -> list[Mapping[str, Any]]:
    """The parameters of so many trials, one after the other, the better the later."""
    game = Play(lambda *question: registry.create(name, given).ask(*question))
    for number in range(trials):
        game.suggest(1)
        game.tell(number, TrialState.SUCCEEDED, float(trials - number))
    return [trial.parameters for trial in game.trials]


@pytest.mark.parametrize(
    ("name", "setting", "first"),
    [
        ("tpe", "n_startup_jobs", 6),
        ("multivariate-tpe", "n_startup_trials", 6),
        ("motpe", "n_startup_trials", 6),
        ("bayesianoptimization", "n_initial_points", 6),
        ("nsgaii", "population_size", 6),
    ],
)
def test_a_model_that_is_never_used_is_warned_of_and_one_that_is_used_once_is_not(
    name: str, setting: str, first: int
) -> None:
    def given(most: int | None, size: int = first, **changes: Any) -> SearchProblem:
        certain = {"mutation_prob": "0"} if name == "nsgaii" else {}  # else a child may be drawn anew
        return problem(settings={setting: str(size), **certain}, max_trials=most, **changes)

    assert warned(name, given(first)) == [BUDGET]
    assert warned(name, given(first + 1)) == warned(name, given(None)) == []
    assert warned(name, given(first, warm_start="transfer")) == []
    # As many trials as that are drawn as if there never was a model, and the next one is not.
    by_chance = points(name, given(None, 50), first + 1)
    by_model = points(name, given(None), first + 1)
    assert by_model[:first] == by_chance[:first]
    assert by_model[first] != by_chance[first]


def test_cmaes_warns_when_its_first_generation_is_all_there_will_be() -> None:
    size = 4 + math.floor(3 * math.log(2))
    assert (warned("cmaes", problem(max_trials=size)), warned("cmaes", problem(max_trials=size + 1))) == ([BUDGET], [])
    game = Play(lambda *question: registry.create("cmaes", problem()).ask(*question))
    for number in range(size + 1):
        game.suggest(1)
        game.tell(number, TrialState.SUCCEEDED, float(number))
    assert [trial.meta["generation"] for trial in game.trials] == [0] * size + [1]
    constant = SearchSpace(tuple(Parameter(name=n, type=ParameterType.INT, low=1, high=1) for n in "ab"))
    assert warned("cmaes", problem(constant, max_trials=2)) == []


@pytest.mark.parametrize(
    ("name", "setting", "first"), [("enas", "trials_per_update", 4), ("nas-evolution", "population_size", 4)]
)
def test_a_search_of_networks_warns_when_it_learns_nothing(name: str, setting: str, first: int) -> None:
    def given(most: int) -> SearchProblem:
        return problem(SearchSpace(()), nas=NETWORK, settings={setting: str(first)}, max_trials=most)

    assert (warned(name, given(first)), warned(name, given(first + 1))) == ([BUDGET], [])


def test_a_gaussian_process_that_forgets_trials_is_warned_of_unless_somebody_wants_that() -> None:
    assert warned("bayesianoptimization", problem(max_trials=402, parallel=1)) == [BUDGET]
    assert warned("bayesianoptimization", problem(max_trials=401, parallel=1)) == []
    assert warned("bayesianoptimization", problem(max_trials=402, settings={"max_model_points": "100"})) == []
    assert warned("bayesianoptimization", problem(max_trials=5000, settings={"base_estimator": "RF"})) == []


# ------------------------------------------------------------------------------------------------------- planners


@pytest.mark.parametrize("kind", [Hyperband, Bohb])
@pytest.mark.parametrize("settings", [{}, {"eta": "4", "r_l": "20"}, {"r_min": "9"}, {"r_l": "1"}])
def test_a_cycle_has_as_many_trials_as_the_warning_says(kind: type[Hyperband], settings: Mapping[str, str]) -> None:
    trials = len(play(Hyperband, planned(settings=settings)).trials)
    (warning, *_) = registry.warnings(kind.name, planned(settings=settings, max_trials=trials - 1))
    assert (warning.path, f"has {trials:,} trials" in warning.message) == (BUDGET, True)
    assert f"maxTrialCount: {trials:,}" in str(warning.hint)
    assert BUDGET not in warned("hyperband", planned(settings=settings, max_trials=trials))


def most_at_once(kind: type[Hyperband | Pbt | Asha], given: SearchProblem) -> int:
    """The most trials that ever run together, when as many are started as it gives."""
    game = Play(lambda *question: kind(given).ask(*question))
    most = 0
    for _ in range(400):
        if len(game.running()) < 60 and game.suggest(60 - len(game.running())).exhausted and not game.running():
            break
        most = max(most, len(game.running()))
        trial = game.trials[game.running()[0]]
        game.tell(trial.number, TrialState.SUCCEEDED, float(trial.number))
    return most


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Hyperband, planned(settings={"r_l": "9"})),
        (Hyperband, planned(settings={"r_l": "9", "max_open_brackets": "2"})),
        (Hyperband, planned(settings={"r_l": "9", "max_open_brackets": "9", "cycles": "2"})),
        (Pbt, planned(POPULATION, settings={"n_population": "7", "generations": "3"})),
        (Asha, planned(settings={"r_l": "9", "max_configs": "11"})),
    ],
)
def test_slots_that_nothing_can_ever_fill_are_warned_of(
    kind: type[Hyperband | Pbt | Asha], given: SearchProblem
) -> None:
    most = most_at_once(kind, given)
    assert PARALLEL not in warned(kind.name, replace(given, parallel=most))
    warnings = registry.warnings(kind.name, replace(given, parallel=1000))
    bounds = [str(each.hint).partition(";")[0] for each in warnings if each.path == PARALLEL]
    assert bounds == [f"parallelTrialCount: {most}"]


def test_asha_warns_when_no_trial_can_come_to_the_top_however_they_turn_out() -> None:
    given = planned(settings={"r_l": "27"})
    # The luckiest search: each trial is better than all before it, so that it goes on as soon as anything may.
    best, game = 0.0, Play(lambda *question: Asha(given).ask(*question))
    while not any(trial.labels[labels.RUNG] == "3" for trial in game.trials):
        game.suggest(1)
        best -= 1.0
        game.tell(len(game.trials) - 1, TrialState.SUCCEEDED, best)
    least = len(game.trials)
    assert least == 16
    assert warned("asha", planned(settings={"r_l": "27"}, max_trials=least)) == []
    assert warned("asha", planned(settings={"r_l": "27"}, max_trials=least - 1)) == [BUDGET]
    assert warned("asha", planned(settings={"r_l": "27", "max_configs": "7"})) == []
    assert warned("asha", planned(settings={"r_l": "27", "max_configs": "6"})) == [
        "spec.algorithm.algorithmSettings[2].value"
    ]


def test_pbt_warns_of_a_budget_that_ends_with_its_first_generation() -> None:
    assert warned("pbt", planned(POPULATION, max_trials=10)) == [BUDGET]
    assert warned("pbt", planned(POPULATION, max_trials=11)) == []
    game = play(Pbt, planned(POPULATION), most=11)
    assert [trial.labels.get(labels.PARENT) is None for trial in game.trials] == [True] * 10 + [False]


def test_bohb_warns_when_its_model_never_has_enough_results() -> None:
    settings = {"r_l": "3", "min_points_in_model": "30"}
    given = planned(settings=settings, max_trials=30)
    assert BohbSession(given).enough == 30
    assert warned("bohb", given) == [BUDGET]
    assert warned("bohb", planned(settings=settings, max_trials=31)) == []


# ----------------------------------------------------------------------------------------------------------- grid


def test_a_grid_that_is_only_partly_tried_says_how_many_points_it_has() -> None:
    grid = SearchSpace((SPACE.parameters[1], Parameter(name="z", type=ParameterType.INT, low=0, high=4)))
    (warning,) = registry.warnings("grid", problem(grid, max_trials=44))
    assert warning.message == "maxTrialCount is 44: the first 44 of the grid's 45 points are tried"
    assert warned("grid", problem(grid, max_trials=45)) == []
    assert warned("grid", problem(grid, max_trials=44, parameter_constraints=("y + z < 5",))) == []
    assert warned("grid", problem(grid, max_trials=45, initial=({"y": 1, "z": 0},))) == [BUDGET]
    assert warned("grid", problem(grid, parallel=45)) == []
    assert warned("grid", problem(grid, parallel=46)) == [PARALLEL]


def test_a_grid_of_networks_is_counted_by_their_choices() -> None:
    def given(most: int | None, **changes: Any) -> SearchProblem:
        return problem(SearchSpace(()), nas=NETWORK, max_trials=most, **changes)

    assert [warned("grid", given(most)) for most in (7, 8, None)] == [[BUDGET], [], []]
    assert warned("grid", given(None, parallel=9)) == [PARALLEL]
    assert [each.path for each in registry.check("grid", given(9))] == [BUDGET]
    assert len(points("grid", given(8), 8)) == 8
    unfinished = problem(SearchSpace(()), nas={**NETWORK, "graphConfig": {}}, max_trials=3)
    assert {each.path.rpartition(".")[0] for each in registry.check("grid", unfinished)} == {
        "spec.nasConfig.graphConfig"
    }


def test_auto_and_those_that_learn_nothing_warn_of_nothing() -> None:
    for most in (1, 2, 10, 60, 300, None):
        for name in (Auto.name, "random", "sobol", "anneal"):
            assert warned(name, problem(max_trials=most, parallel=2 if most != 1 else 1)) == []


# --------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("name", ["medianstop", "percentile"])
def test_a_rule_that_can_stop_nobody_is_warned_of(name: str) -> None:
    objective = Objective(ObjectiveType.MINIMIZE, "loss")

    def paths(needed: int, most: int | None) -> list[str]:
        settings = {"min_trials_required": str(needed)}
        return [each.path for each in stoppers.warnings(name, settings, objective, problem(max_trials=most))]

    assert (paths(6, 6), paths(5, 6), paths(100, None)) == ([BUDGET], [], [])
    assert stoppers.warnings("patience", {}, objective, problem(max_trials=1)) == []


# ---------------------------------------------------------------------------------------------------------- the seam


class Silent:
    """A plugin that was written before there were warnings."""


class Broken:
    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        raise RuntimeError(f"no idea of {problem.seed}")


def test_a_plugin_may_say_nothing_and_one_that_breaks_refuses_nothing() -> None:
    assert list(warnings_of(Silent, "spec.algorithm", problem())) == []
    (warning,) = warnings_of(Broken, "spec.algorithm", problem())
    assert (warning.path, warning.message) == (
        "spec.algorithm",
        "what Broken warns of is not known: RuntimeError: no idea of 5",
    )


# Of Katib's own files those that cannot do what they are examples of: most are there to be run through quickly.
DESERVED = {
    "hp-tuning/grid.yaml": "maxTrialCount is 12: the first 12 of the grid's 45 points are tried",
    "hp-tuning/hyperband.yaml": "maxTrialCount is 2, and one cycle of the brackets of hyperband has 5 trials",
    "hp-tuning/optuna-distribution.yaml": "maxTrialCount is 12, and tpe draws its first 20 trials by chance: "
    "its model is never used",
    "hp-tuning/tpe.yaml": "maxTrialCount is 12, and tpe draws its first 20 trials by chance: its model is never used",
    "nas/enas-cpu.yaml": "maxTrialCount is 3, and the controller of enas learns after every 10 trials: "
    "it never does before one is drawn",
    "trial-template/trial-configmap-source.yaml": "not checked: the template is in the ConfigMap "
    "kubeflow/trial-templates, which is not at hand",
}


def test_of_katibs_examples_none_is_warned_of_without_reason() -> None:
    found = {}
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        documents = spec.parse_documents(path.read_text(), path.name)
        for verdict in spec.check_all(documents, registry.Registry()):
            if verdict.valid and verdict.warnings:
                (warning,) = verdict.warnings
                assert warning.line is not None
                assert warning.hint
                found[str(path.relative_to(EXAMPLES))] = warning.message
    assert found == DESERVED
