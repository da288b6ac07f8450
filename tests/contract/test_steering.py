"""The algorithm contract for steered algorithms, with each of the features on; then what each feature promises."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from algorithms.asha import Asha
from algorithms.cma import CmaEs
from algorithms.grid import Grid
from algorithms.hyperopt_search import Random, Tpe
from algorithms.optuna_search import MultivariateTpe, NsgaII
from algorithms.pbt import Pbt
from algorithms.steering import session
from algorithms.steering.steered import Steered, around
from evertune.domain.labels import REUSED_FROM
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, Value, When
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError
from evertune.protocols import Algorithm, Answer, JsonDict
from evertune.testing.algorithms import AlgorithmContract
from evertune.testing.play import Play, chance, score
from evertune.testing.spaces import names_of
from tests.contract.steered import (
    MIXED,
    STEPS,
    TREE,
    Halves,
    SteeredGrid,
    SteeredHalves,
    SteeredRandom,
    SteeredTpe,
    choice,
    whole,
)

LAYERED = ("layers * width <= 0.9", "kind != 'flat' or layers == 2")
BEGINNINGS: tuple[Mapping[str, Value], ...] = ({"layers": 1, "width": 0.3, "kind": "wide"}, {"layers": 2})
FEATURES: Mapping[str, dict[str, Any]] = {
    "constraints": {"parameter_constraints": LAYERED},
    "initial": {"initial": BEGINNINGS},
    "resample": {"on_duplicate": "resample"},
    "reuse": {"on_duplicate": "reuse"},
    "worst": {"on_failure": "worst"},
    "everything": {
        "parameter_constraints": LAYERED,
        "initial": BEGINNINGS,
        "on_duplicate": "resample",
        "on_failure": "worst",
    },
}
CASES: Mapping[str, tuple[type[Steered], Mapping[str, SearchSpace], Mapping[str, str]]] = {
    "Random": (SteeredRandom, {"mixed": MIXED}, {"random_state": "3"}),
    "Tpe": (SteeredTpe, {"mixed": MIXED}, {"n_startup_jobs": "5", "n_EI_candidates": "8"}),
    "Grid": (SteeredGrid, {"steps": STEPS}, {}),
    "Halves": (SteeredHalves, {"steps": STEPS}, {}),
}


def contract(
    steered: type[Steered], spaces: Mapping[str, SearchSpace], settings: Mapping[str, str], changes: dict[str, Any]
) -> type[AlgorithmContract]:
    def create(self: AlgorithmContract, problem: SearchProblem) -> Algorithm:
        return steered(problem)

    def problem(self: AlgorithmContract, space: SearchSpace, **more: Any) -> SearchProblem:
        return AlgorithmContract.problem(self, space, **{**changes, **more})

    body: dict[str, Any] = {"create": create, "problem": problem, "spaces": spaces, "settings": settings, "trials": 16}
    if steered in (SteeredRandom, SteeredTpe):  # another process has to load their library
        body["pytestmark"] = [pytest.mark.slow]
    return type("Contract", (AlgorithmContract,), body)


for _case, (_steered, _spaces, _settings) in CASES.items():
    for _feature, _changes in FEATURES.items():
        globals()[f"Test{_case}With{_feature.title()}"] = contract(_steered, _spaces, _settings, _changes)
    if _case != "Halves":
        globals()[f"Test{_case}WithConditions"] = contract(_steered, {"tree": TREE}, _settings, {})


# ------------------------------------------------------------------------------------------------- by feature


def problem(space: SearchSpace, **changes: Any) -> SearchProblem:
    return replace(SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=7), **changes)


def played(kind: type[Algorithm], given: SearchProblem, trials: int = 24, parallel: int = 3) -> Play:
    def ask(history: Any, k: int, first: int, state: JsonDict | None) -> Answer:
        return around(kind, given).ask(history, k, first, state)

    return Play(ask).run(trials, parallel, chance(2))


LEVELS = SearchSpace(
    (
        choice("b", "low", "high", when=(When("a", ("on",)),)),
        choice("a", "off", "on", "none"),
        whole("n", 1, 3),
        whole("m", 0, 2, When("b", ("low",))),
    )
)
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "asha": {"r_l": "3", "resource_name": "n"},
    "pbt": {"n_population": "5", "truncation_threshold": "0.4", "suggestion_trial_dir": "/tmp/checkpoints"},
}
KINDS = [Random, Tpe, MultivariateTpe, Grid, Halves]


@pytest.mark.parametrize("kind", KINDS)
def test_without_any_of_it_the_algorithm_itself_is_there(kind: type[Algorithm]) -> None:
    assert type(around(kind, problem(STEPS))) is kind
    assert type(around(kind, problem(STEPS, early_stopping=True, max_trials=9))) is kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_trial_violates_a_constraint(kind: type[Algorithm]) -> None:
    given = problem(STEPS, parameter_constraints=LAYERED)
    for parameters in played(kind, given).parameters:
        layers, width = parameters["layers"], parameters["width"]
        assert isinstance(layers, int)
        assert isinstance(width, float)
        assert layers * width <= 0.9
        assert parameters["kind"] != "flat" or layers == 2


@pytest.mark.parametrize("kind", [Random, Tpe])
def test_a_suggestion_that_holds_is_the_librarys_own(kind: type[Algorithm]) -> None:
    plain = played(kind, problem(MIXED), 12, 1)
    steered = played(kind, problem(MIXED, parameter_constraints=("layers >= 1",)), 12, 1)
    assert plain.parameters == steered.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_constraints_that_nothing_satisfies_are_said(kind: type[Algorithm]) -> None:
    algorithm = around(kind, problem(STEPS, parameter_constraints=("layers > 6",)))
    if kind is Grid:
        answer = algorithm.ask((), 1, 0, None)
        assert answer.exhausted
        assert answer.reason == "all combinations that satisfy parameterConstraints (layers > 6) were tried"
        return
    with pytest.raises(AlgorithmError, match=r"satisfies parameterConstraints \(layers > 6\): 10,000 were tried"):
        algorithm.ask((), 1, 0, None)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rare_is_found_by_chance(kind: type[Algorithm]) -> None:
    given = problem(STEPS, parameter_constraints=("layers == 6 and width == 0.6 and kind == 'deep'",))
    play = played(kind, given, 3, 1)
    assert play.parameters[0] == {"layers": 6, "width": 0.6, "kind": "deep"}


def test_a_grid_with_constraints_gives_the_rest_and_ends() -> None:
    whole_grid = [dict(each) for each in played(Grid, problem(STEPS), 200, 4).parameters]
    some = played(Grid, problem(STEPS, parameter_constraints=("layers * width <= 0.9",)), 200, 4)
    assert some.parameters == [each for each in whole_grid if float(each["layers"]) * float(each["width"]) <= 0.9]
    assert some.answers[-1].exhausted


def test_a_grid_is_whole_whatever_it_began_with() -> None:
    whole_grid = [dict(each) for each in played(Grid, problem(STEPS), 200, 4).parameters]
    begun = played(Grid, problem(STEPS, initial=BEGINNINGS), 200, 4)
    assert begun.parameters[2:] == whole_grid
    once = played(Grid, problem(STEPS, initial=BEGINNINGS, on_duplicate="resample"), 200, 4)
    assert len(once.parameters) == 108
    assert {repr(each) for each in once.parameters} == {repr(each) for each in whole_grid}


def test_a_grid_with_conditions_gives_no_trial_twice_and_counts_what_it_gives() -> None:
    flat = SearchSpace(tuple(replace(parameter, when=()) for parameter in LEVELS))
    everything = [LEVELS.active(each) for each in played(Grid, problem(flat), 200, 4).parameters]
    once = list({repr(each): each for each in everything}.values())
    assert len(once) < len(everything)
    for settings in ({}, {"random_state": "3"}):
        asked = problem(LEVELS, settings=settings)
        play = played(Grid, asked, 200, 4)
        assert sorted(map(repr, play.parameters)) == sorted(map(repr, once))
        assert play.answers[-1].exhausted
        assert list(Grid.check(replace(asked, max_trials=len(once)))) == []
        (found,) = Grid.check(replace(asked, max_trials=len(once) + 1))
        assert f"at most {len(once)}," in found.message


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_trials_are_the_users(kind: type[Algorithm]) -> None:
    play = played(kind, problem(STEPS, initial=BEGINNINGS), 8, 2)
    assert play.parameters[0] == BEGINNINGS[0]
    assert play.parameters[1]["layers"] == 2
    assert set(play.parameters[1]) == {"layers", "width", "kind"}


def test_what_a_beginning_leaves_open_is_what_the_algorithm_suggests() -> None:
    plain = played(Random, problem(MIXED), 2, 1).parameters
    begun = played(Random, problem(MIXED, initial=({"lr": 0.01}, {"layers": 5})), 2, 1).parameters
    assert begun[0] == {**plain[0], "lr": 0.01}
    assert begun[1] == {**plain[1], "layers": 5}


@pytest.mark.parametrize("kind", [Random, Tpe, MultivariateTpe, Grid, Asha, Pbt])
def test_a_beginning_that_makes_parameters_active_gets_them_too(kind: type[Algorithm]) -> None:
    beginnings = tuple({"a": text} for text in ("on", "off") * 4)
    settings = SETTINGS.get(kind.name, {})
    play = played(kind, problem(LEVELS, initial=beginnings, settings=settings), 8, 4)
    for parameters in play.parameters:
        assert set(parameters) == names_of(LEVELS, parameters)
    if kind.name not in SETTINGS:
        assert [each["a"] for each in play.parameters] == [each["a"] for each in beginnings]


def test_tpe_learns_from_the_beginning() -> None:
    settings = {"n_startup_jobs": "3"}
    begun = problem(
        MIXED, settings=settings, initial=({"lr": 1e-3, "layers": 2, "width": 0.2, "kind": "deep", "decay": 0.5},)
    )
    other = replace(begun, initial=({"lr": 1e-1, "layers": 6, "width": 0.6, "kind": "wide", "decay": 0.1},))
    one, two = played(Tpe, begun, 10, 1), played(Tpe, other, 10, 1)
    assert one.parameters[1] == two.parameters[1]
    assert one.parameters[5:] != two.parameters[5:]


@pytest.mark.parametrize("kind", KINDS)
def test_resampling_gives_no_point_twice_and_ends_when_all_were_tried(kind: type[Algorithm]) -> None:
    space = SearchSpace((whole("n", 1, 4), choice("c", "a", "b", "z")))
    play = played(kind, problem(space, on_duplicate="resample"), 40, 3)
    keys = [repr(sorted(each.items())) for each in play.parameters]
    assert len(keys) == len(set(keys)) == 12
    assert play.answers[-1].exhausted
    assert "tried" in play.answers[-1].reason


def test_reuse_names_the_finished_trial() -> None:
    space = SearchSpace((whole("n", 1, 3),))
    play = played(Random, problem(space, on_duplicate="reuse"), 24, 1)
    first: dict[Value, int] = {}
    reused = 0
    for trial in play.trials:
        label = trial.labels.get(REUSED_FROM)
        assert label == (str(first[trial.parameters["n"]]) if trial.parameters["n"] in first else None)
        reused += label is not None
        if trial.state is TrialState.SUCCEEDED and trial.value is not None:
            first.setdefault(trial.parameters["n"], trial.number)
    assert reused > 10


@pytest.mark.parametrize("kind", [Random, Tpe, MultivariateTpe, Grid])
def test_inactive_parameters_are_absent(kind: type[Algorithm]) -> None:
    seen = set()
    for parameters in played(kind, problem(TREE), 30, 3).parameters:
        assert set(parameters) == names_of(TREE, parameters)
        seen |= set(parameters)
    assert seen == set(TREE.names())


def test_conditions_change_nothing_of_what_the_algorithm_searches() -> None:
    flat = SearchSpace(tuple(replace(parameter, when=()) for parameter in TREE))
    for kind in (Random, Tpe):
        tree = [TREE.active(each) for each in played(kind, problem(flat), 24, 1).parameters[:8]]
        assert played(kind, problem(TREE), 24, 1).parameters[:8] == tree


def test_a_failure_is_told_as_the_worst_value_before_it() -> None:
    told: list[list[HistoryTrial]] = []

    class Listening(Halves):
        def ask(self, history: Any, k: int, first_number: int, state: JsonDict | None) -> Answer:
            told.append(list(history))
            return super().ask(history, k, first_number, state)

    for direction, worst in ((ObjectiveType.MINIMIZE, 5.0), (ObjectiveType.MAXIMIZE, 2.0)):
        given = problem(STEPS, direction=direction, on_failure="worst")
        algorithm = around(Listening, given)  # type: ignore[arg-type]
        history = [
            HistoryTrial(0, {"layers": 1, "width": 0.1, "kind": "wide"}, TrialState.FAILED, None, 1),
            HistoryTrial(1, {"layers": 1, "width": 0.2, "kind": "wide"}, TrialState.SUCCEEDED, 2.0, 2),
            HistoryTrial(2, {"layers": 1, "width": 0.3, "kind": "wide"}, TrialState.SUCCEEDED, 99.0, 6),
            HistoryTrial(3, {"layers": 1, "width": 0.4, "kind": "wide"}, TrialState.METRICS_UNAVAILABLE, None, 5),
            HistoryTrial(4, {"layers": 1, "width": 0.5, "kind": "wide"}, TrialState.SUCCEEDED, 5.0, 4),
            HistoryTrial(5, {"layers": 1, "width": 0.6, "kind": "wide"}, TrialState.KILLED, None, 7),
        ]
        algorithm.ask(history, 1, 6, None)
        states = [(trial.state, trial.value) for trial in told[-1]]
        assert states[0] == (TrialState.FAILED, None), "there was no value yet"
        assert states[3] == (TrialState.SUCCEEDED, worst)
        assert states[5] == (TrialState.KILLED, None)


def test_trials_of_others_come_before_the_own_ones() -> None:
    luck = random.Random(4)
    others = [
        HistoryTrial(number, each, TrialState.SUCCEEDED, score(each))
        for number, each in zip(range(-9, 0), played(Random, problem(MIXED, seed=99), 9).parameters, strict=True)
    ]
    settings = {"n_startup_jobs": "6"}
    warm = problem(MIXED, settings=settings, warm_start="identical")

    def ask(history: Any, k: int, first: int, state: JsonDict | None) -> Answer:
        return around(Tpe, warm).ask([*others, *history], k, first, state)

    ours = Play(ask)
    # The library's own, told the same trials under numbers from 0.
    native = Play(lambda history, k, first, state: Tpe(replace(warm, warm_start="")).ask(history, k, first, state))
    native.trials = [replace(trial, number=trial.number + 9) for trial in others]
    for number in range(12):
        ours.suggest(1)
        native.suggest(1)
        assert ours.trials[number].parameters == native.trials[number + 9].parameters
        value = luck.random()
        ours.tell(number, TrialState.SUCCEEDED, value)
        native.tell(number + 9, TrialState.SUCCEEDED, value)


def test_cmaes_begins_where_the_trials_of_others_were_best() -> None:
    square = SearchSpace(
        tuple(Parameter(name=name, type=ParameterType.DOUBLE, low=0.0, high=1.0) for name in ("x", "y"))
    )
    other = played(CmaEs, problem(square), 24, 3).trials
    moved = [
        replace(trial, number=index - len(other), parameters={"x": 0.9, "y": 0.1 + index / 1000}, value=float(index))
        for index, trial in enumerate(other)
        if trial.state is TrialState.SUCCEEDED
    ]
    for mode in ("identical", "transfer"):
        given = problem(square, warm_start=mode)
        first = around(CmaEs, given).ask(moved, 6, 0, None).assignments
        plain = [replace(trial, meta={}) for trial in moved]
        assert around(CmaEs, given).ask(plain, 6, 0, None).assignments == first
        assert sum(float(each.parameters["x"]) for each in first) / 6 > 0.75
        assert all(each.meta["generation"] == 0 for each in first)


def test_others_are_the_first_generation_whatever_theirs_were() -> None:
    given = problem(MIXED, settings={"population_size": "3"})
    other = played(NsgaII, given, 14, 2).trials
    before = [replace(trial, number=index - len(other)) for index, trial in enumerate(other)]
    plain = [replace(trial, meta={}) for trial in before]
    algorithm = around(NsgaII, replace(given, warm_start="transfer"))
    answer = algorithm.ask(before, 4, 0, None)
    assert answer == algorithm.ask(plain, 4, 0, None)
    # They are the first one: what follows has its parents among them.
    noted = [value for each in answer.assignments for name, value in each.meta["system"].items() if "gener" in name]
    assert noted == [1] * 4


def test_what_others_leave_open_is_drawn_the_same_each_time() -> None:
    part = [HistoryTrial(-1, {"layers": 3}, TrialState.SUCCEEDED, 0.1)]
    warm = problem(MIXED, settings={"n_startup_jobs": "0"}, warm_start="transfer")
    assert around(Tpe, warm).ask(part, 2, 0, None) == around(Tpe, warm).ask(part, 2, 0, None)


def test_refusals_are_bounded() -> None:
    asked = 0

    class Counting(Random):
        def search(self) -> Any:
            session = super().search()
            ask = session.ask

            def counted(*question: Any) -> Answer:
                nonlocal asked
                asked += 1
                return ask(*question)

            session.ask = counted  # type: ignore[assignment]
            return session

    given = problem(STEPS, parameter_constraints=("layers == 6 and width == 0.6 and kind == 'deep'",))
    around(Counting, given).ask((), 1, 0, None)
    assert asked <= session.REFUSALS + 1


@pytest.mark.parametrize("kind", [Random, Tpe, MultivariateTpe])
def test_what_chance_finds_has_no_inactive_parameter_either(
    kind: type[Algorithm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "REFUSALS", 0)
    given = problem(TREE, parameter_constraints=("layers == 2",), initial=({"optimizer": "sgd", "layers": 2},))
    play = played(kind, given, 10, 2)
    assert all(set(each) == names_of(TREE, each) and each["layers"] == 2 for each in play.parameters)
    assert play.parameters[0]["optimizer"] == "sgd"


NAS: JsonDict = {
    "graphConfig": {"numLayers": 3, "inputSizes": [8, 8, 1], "outputSizes": [10]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [
                {"name": "filter_size", "parameterType": "categorical", "feasibleSpace": {"list": ["3", "5"]}},
                {"name": "num_filter", "parameterType": "categorical", "feasibleSpace": {"list": ["16", "32"]}},
            ],
        },
        {"operationType": "reduction", "parameters": []},
    ],
}


@pytest.mark.parametrize("kind", [Random, Tpe, MultivariateTpe])
def test_a_sampler_of_categories_searches_networks(kind: type[Algorithm]) -> None:
    given = problem(SearchSpace(()), nas=NAS)
    play = played(kind, given, 24, 3)
    architectures = [str(each["architecture"]) for each in play.parameters]
    assert all(set(each) == {"architecture", "nn_config"} for each in play.parameters)
    assert all([len(row) for row in json.loads(each)] == [1, 2, 3] for each in architectures)
    assert len(set(architectures)) > 8
    begun = played(kind, replace(given, initial=(play.parameters[3],)), 12, 3)
    assert begun.parameters[0] == play.parameters[3]
