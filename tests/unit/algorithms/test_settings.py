"""Every rule about an algorithm's settings and space, as Katib states it: one good and one bad value for each."""

from __future__ import annotations

from typing import Any

import pytest

from algorithms import registry
from algorithms.optuna_gp import NO_TORCH
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, When
from evertune.errors import Problem

PATH = "spec.algorithm.algorithmSettings"
LR = Parameter(name="lr", type=ParameterType.DOUBLE, low=0.0, high=1.0, step=0.1)
LAYERS = Parameter(name="layers", type=ParameterType.INT, low=1, high=5)
OPTIMIZER = Parameter(name="opt", type=ParameterType.CATEGORICAL, values=("sgd", "adam"))
NAS: dict[str, Any] = {
    "graphConfig": {"numLayers": 1, "inputSizes": [32, 32, 3], "outputSizes": [10]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [{"name": "size", "parameterType": "categorical", "feasibleSpace": {"list": ["3"]}}],
        }
    ],
}
REQUIRED = {
    **{name: {"r_l": "3", "resource_name": "layers"} for name in ("hyperband", "asha", "bohb")},
    "pbt": {"suggestion_trial_dir": "/checkpoints", "n_population": "5", "truncation_threshold": "0.2"},
}

# algorithm, setting, good values, bad values
TABLE: list[tuple[str, str, list[str], list[str]]] = [
    *(
        (name, "random_state", ["0", "2147483647"], ["-1", "1.5", "x", "", "٣", "9" * 5000])
        for name in ("random", "tpe", "grid")
    ),
    ("tpe", "gamma", ["0.1", "0.99"], ["0", "1", "1.5", "nan", "x"]),
    ("tpe", "prior_weight", ["0.1", "2"], ["0", "-1", "aaa", "inf", "٣", "1_0"]),
    ("tpe", "n_EI_candidates", ["1"], ["0", "1.5"]),
    ("tpe", "n_startup_jobs", ["0"], ["-1", "9" * 5000]),
    ("multivariate-tpe", "random_state", ["3"], ["-1"]),
    ("multivariate-tpe", "n_startup_trials", ["0"], ["-1"]),
    ("multivariate-tpe", "n_ei_candidates", ["1"], ["0"]),
    ("bayesianoptimization", "base_estimator", ["GP", "RF", "ET", "GBRT"], ["gp", "SVM"]),
    ("bayesianoptimization", "n_initial_points", ["0", "10"], ["-1", "1.5"]),
    ("bayesianoptimization", "acq_func", ["gp_hedge", "LCB", "EI", "PI"], ["UCB", ""]),
    ("bayesianoptimization", "acq_optimizer", ["auto", "sampling", "lbfgs"], ["adam"]),
    ("bayesianoptimization", "max_model_points", ["20", "1000"], ["19", "all"]),
    ("anneal", "random_state", ["3"], ["-1"]),
    ("anneal", "avg_best_idx", ["1", "2.5"], ["0.5", "0", "nan"]),
    ("anneal", "shrink_coef", ["0", "0.1"], ["-0.1", "x"]),
    ("motpe", "random_state", ["3"], ["-1"]),
    ("motpe", "n_startup_trials", ["0"], ["-1"]),
    ("motpe", "n_ei_candidates", ["1"], ["0"]),
    ("nsgaii", "random_state", ["3"], ["-1"]),
    ("nsgaii", "population_size", ["2", "50"], ["1", "1.5"]),
    *(
        ("nsgaii", f"{key}_prob", ["0", "0.5", "1"], ["-0.1", "1.1", "x"])
        for key in ("mutation", "crossover", "swapping")
    ),
    ("gp", "random_state", ["3"], ["-1"]),
    ("gp", "n_startup_trials", ["0", "10"], ["-1", "x"]),
    ("bayesianoptimization", "random_state", ["10"], ["-1", "ten"]),
    ("sobol", "random_state", ["3"], ["-1"]),
    ("auto", "random_state", ["3"], ["-1"]),
    ("cmaes", "random_state", ["0", "-4"], ["1.5", "--1", "x"]),
    ("cmaes", "sigma", ["0.1", "-1"], ["nan", "wide"]),
    ("cmaes", "restart_strategy", ["none", "ipop", "bipop"], ["None", "restart"]),
    *(
        row
        for name in ("hyperband", "asha", "bohb")
        for row in (
            (name, "r_l", ["1", "3"], ["0", "-1", "much"]),
            (name, "resource_name", ["layers", "lr"], ["epochs", "", "opt"]),
            (name, "eta", ["2", "2.5", "0", "-1"], ["1", "1.9", "x", "inf"]),
            (name, "r_min", ["1", "0.1"], ["0", "4", "x", "1e-300"]),
            (name, "random_state", ["3"], ["-1"]),
        )
    ),
    *(
        (name, key, ["1", "2"], ["0", "1.5"])
        for name in ("hyperband", "bohb")
        for key in ("max_open_brackets", "cycles")
    ),
    ("asha", "max_configs", ["1", "9"], ["0", "x"]),
    ("bohb", "random_fraction", ["0", "0.3", "1"], ["-0.1", "1.1"]),
    ("bohb", "min_points_in_model", ["1", "9"], ["0", "x"]),
    ("bohb", "n_ei_candidates", ["1", "9"], ["0", "x"]),
    ("pbt", "suggestion_trial_dir", ["/var/log"], [""]),
    ("pbt", "n_population", ["5", "40"], ["4", "5.5"]),
    ("pbt", "truncation_threshold", ["0", "0.5", "1"], ["-0.1", "1.1", "x"]),
    ("pbt", "resample_probability", ["0", "0.5", "1"], ["-0.1", "1.1", "x"]),
    ("pbt", "generations", ["1", "9"], ["0", "x"]),
    ("pbt", "factors", ["0.8,1.2", "0.5", "0.5, 2"], ["", "1", "0.8,,1.2", "0,2", "x", ",".join(["2"] * 21)]),
    ("pbt", "random_state", ["3"], ["-1"]),
    *(
        ("enas", f"controller_{key}", ["1", "64"], ["0", "1.5", "None"])
        for key in ("hidden_size", "train_steps", "log_every_steps")
    ),
    *(
        ("enas", f"controller_{key}", ["0.1", "5", "None"], ["0", "-1", "none"])
        for key in ("temperature", "tanh_const", "entropy_weight", "skip_weight")
    ),
    *(
        ("enas", f"controller_{key}", ["0.1", "1"], ["0", "1.1", "None"])
        for key in ("baseline_decay", "learning_rate", "skip_target")
    ),
    *(
        ("darts", key, ["1", "50"], ["0", "1.5", "None"])
        for key in ("num_epochs", "init_channels", "print_step", "num_nodes", "stem_multiplier")
    ),
    *(
        ("darts", key, ["0", "0.1"], ["-0.1", "x", "None"])
        for key in ("w_lr", "w_lr_min", "alpha_lr", "w_momentum", "w_grad_clip", "w_weight_decay", "alpha_weight_decay")
    ),
    ("enas", "random_state", ["0", "7"], ["-1", "x"]),
    ("enas", "trials_per_update", ["1", "10"], ["0", "x"]),
    ("enas", "reward", ["trial", "average"], ["mean"]),
    ("nas-evolution", "random_state", ["0", "7"], ["-1", "x"]),
    ("nas-evolution", "population_size", ["2", "20"], ["1", "x"]),
    ("nas-evolution", "sample_size", ["1", "5"], ["0", "x"]),
    ("darts", "batch_size", ["1", "128", "None"], ["0", "1.5", "none"]),
    ("darts", "num_workers", ["0", "4"], ["-1", "x"]),
]

LETS_OTHERS_PASS = {"cmaes", "sobol", "hyperband", "pbt", "darts"}


def _found(
    name: str,
    given: dict[str, str] | None = None,
    *space: Parameter,
    nas: dict[str, Any] | None = None,
    parallel: int = 3,
    complete: bool = True,
) -> list[Problem]:
    architectures = name in ("enas", "darts", "nas-evolution")
    problem = SearchProblem(
        space=SearchSpace(() if architectures else space or (LR, LAYERS, OPTIMIZER)),
        direction=ObjectiveType.MAXIMIZE,
        seed=0,
        settings={**(REQUIRED.get(name, {}) if complete else {}), **(given or {})},
        parallel=parallel,
        nas=(NAS if nas is None else nas) if architectures else None,
    )
    # Whether torch is installed where this is tested is another matter: see `test_optuna_native`.
    return [found for found in registry.check(name, problem) if found.message != NO_TORCH]


def _places(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.type, problem.path) for problem in problems]


def test_the_table_names_every_setting_of_every_algorithm() -> None:
    tables = {name: registry.settings(name) for name in registry.names()}
    known = {(name, key) for name, rules in tables.items() for key in rules}
    assert {(name, key) for name, key, _, _ in TABLE} == known
    assert set(tables) == set(registry.names())


@pytest.mark.parametrize(("name", "key", "good", "bad"), TABLE)
def test_a_setting_takes_what_katib_takes_and_nothing_else(
    name: str, key: str, good: list[str], bad: list[str]
) -> None:
    for value in good:
        assert _found(name, {key: value}) == []
    for value in bad:
        given = {**REQUIRED.get(name, {}), key: value}
        (problem,) = _found(name, given)
        assert (problem.type, problem.path) == ("Invalid", f"{PATH}[{list(given).index(key)}].value")
        assert key in problem.message
        assert f'"{value[:50]}' in problem.message
        assert len(problem.message) < 200


@pytest.mark.parametrize("name", registry.names())
def test_unknown_settings_are_refused_unless_the_service_lets_them_pass(name: str) -> None:
    given = {**REQUIRED.get(name, {}), "no_such_setting": "1"}
    index = len(given) - 1
    expected = [] if name in LETS_OTHERS_PASS else [("Invalid", f"{PATH}[{index}].name")]
    assert _places(_found(name, given)) == expected


def test_a_misspelled_setting_is_told_its_name() -> None:
    (problem,) = _found("enas", {"controller_temprature": "1"})
    assert (problem.hint or "").startswith('did you mean "controller_temperature"? settings of enas: ')


@pytest.mark.parametrize("name", REQUIRED)
def test_settings_that_must_be_given_are_asked_for_by_name(name: str) -> None:
    problems = _found(name, complete=False)
    assert _places(problems) == [("Required", PATH)] * len(REQUIRED[name])
    assert [problem.message.split(": ")[0].split()[-1] for problem in problems] == list(REQUIRED[name])


@pytest.mark.parametrize("parallel", [1, 3])
def test_hyperband_takes_any_parallelism_as_its_short_answers_need_no_whole_rung(parallel: int) -> None:
    assert _found("hyperband", {"r_l": "81"}, parallel=parallel) == []


def test_the_resource_cannot_be_conditional_as_every_trial_has_it() -> None:
    layers = Parameter(
        name="layers", type=ParameterType.INT, low=1, high=5, when=(When(parameter="opt", values=("sgd",)),)
    )
    (problem,) = _found("hyperband", None, layers, OPTIMIZER)
    assert (problem.type, problem.path) == ("Invalid", f"{PATH}[1].value")


def test_cmaes_wants_two_numbers() -> None:
    assert _found("cmaes", None, LR, LAYERS) == []
    assert _places(_found("cmaes", None, LR, OPTIMIZER)) == [("Invalid", "spec.parameters")]


@pytest.mark.parametrize("name", ["grid"])
def test_a_double_without_step_cannot_be_enumerated(name: str) -> None:
    continuous = Parameter(name="lr", type=ParameterType.DOUBLE, low=0.0, high=1.0)
    place = ("Required", "spec.parameters[1].feasibleSpace.step")
    assert _places(_found(name, None, LAYERS, continuous)) == [place]


def _operation(kind: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    return {**NAS, "operations": [{"operationType": kind, "parameters": list(parameters)}]}


CONTINUOUS = {"name": "p", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}
STEPPED = {"name": "p", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1", "step": "0.5"}}
GRAPH = "spec.nasConfig.graphConfig"
OPERATION = "spec.nasConfig.operations[0].parameters"


@pytest.mark.parametrize(
    ("nas", "enas", "darts"),
    [
        (NAS, [], []),
        # darts takes its sizes from lists alone: with nothing to choose from its trial could only fail.
        (_operation("dropout", STEPPED), [], [("Required", "spec.nasConfig.operations")]),
        (
            _operation("dropout", CONTINUOUS),
            [("Required", f"{OPERATION}[0].feasibleSpace.step")],
            [("Required", f"{OPERATION}[0].feasibleSpace.step")],
        ),
        (_operation("skip_connection"), [("Required", OPERATION)], []),
        (_operation("convolution"), [("Required", OPERATION)], [("Required", OPERATION)]),
        (
            {**NAS, "operations": []},
            [("Required", "spec.nasConfig.operations")],
            [("Required", "spec.nasConfig.operations")],
        ),
        (
            {"operations": NAS["operations"]},
            [("Required", f"{GRAPH}.{key}") for key in ("inputSizes", "outputSizes", "numLayers")],
            [],
        ),
        (
            {**NAS, "graphConfig": {**NAS["graphConfig"], "numLayers": 0}},
            [("Required", f"{GRAPH}.numLayers")],
            [],
        ),
        (
            {**NAS, "graphConfig": {**NAS["graphConfig"], "numLayers": -1}},
            [("Invalid", f"{GRAPH}.numLayers")],
            [],
        ),
    ],
)
def test_architectures_are_judged_as_their_service_does(
    nas: dict[str, Any], enas: list[tuple[str, str]], darts: list[tuple[str, str]]
) -> None:
    assert _places(_found("enas", nas=nas)) == enas
    assert _places(_found("darts", nas=nas)) == darts


@pytest.mark.parametrize("name", ["enas", "darts"])
def test_a_search_for_architectures_needs_a_nas_config(name: str) -> None:
    problem = SearchProblem(space=SearchSpace((LR,)), direction=ObjectiveType.MAXIMIZE, seed=0)
    assert _places(list(registry.check(name, problem))) == [("Required", "spec.nasConfig")]


def test_an_unknown_name_gets_the_closest_of_all_names() -> None:
    (problem,) = _found("cmae")
    assert (problem.type, problem.path) == ("Invalid", "spec.algorithm.algorithmName")
    assert (problem.hint or "").startswith('did you mean "cmaes"?')
