"""Rules of the fields that Katib does not have: each mistake is one error at its place, with the mend."""

from __future__ import annotations

import time
from typing import Any

import pytest

from evertune.spec import load_experiment, parse_documents, search_problem, to_objective
from tests.unit.spec.samples import base, found, judge

LATENCY = {"type": "minimize", "metric": "latency_ms"}
MOMENTUM = {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}
T = "spec__trialTemplate"


def conditional(when: Any, **changes: Any) -> dict[str, Any]:
    """The base with a third parameter, which is there under a condition."""
    return base(
        **{
            "spec__parameters__2": {**MOMENTUM, "when": when},
            f"{T}__trialParameters__2": {"name": "momentum", "reference": "momentum"},
            f"{T}__trialSpec__spec__template__spec__containers__0__args": ["--momentum=${trialParameters.momentum}"],
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ([LATENCY], []),
        ([{"type": "minimize", "objectiveMetricName": "latency_ms"}], []),
        ([], []),
        ([{"type": "minimize"}], [("Required", "[0].metric")]),
        ([{"metric": "latency_ms"}], [("Invalid", "[0].type")]),
        ([{"type": "minimise", "metric": "latency_ms"}], [("Invalid", "[0].type")]),
        ([{"type": "minimize", "metric": "accuracy"}], [("Duplicate", "[0].metric")]),
        ([LATENCY, LATENCY], [("Duplicate", "[1].metric")]),
        ([{**LATENCY, "objectiveMetricName": "latency"}], [("Invalid", "[0].metric")]),
        ([{**LATENCY, "goal": 20}], [("Invalid", "[0].goal")]),
        ([{**LATENCY, "goal": "20"}], [("Invalid", "[0].goal")]),
        ("latency_ms", [("Invalid", "")]),
        (["latency_ms"], [("Invalid", "[0]")]),
        ([{"type": "minimize", "metric": f"m{index}"} for index in range(10)], [("Invalid", "")]),
    ],
)
def test_objectives_have_a_direction_and_a_metric_of_their_own(
    objectives: Any, expected: list[tuple[str, str]]
) -> None:
    errors = found(base(spec__objectives=objectives))
    assert errors == sorted((kind, f"spec.objectives{path}") for kind, path in expected)


def test_a_further_goal_is_mended_by_a_constraint() -> None:
    (problem,) = judge(base(spec__objectives=[{**LATENCY, "goal": 20}])).problems
    assert problem.hint == "write constraints: [{metric: latency_ms, le: 20}]"


def test_an_objective_is_not_an_additional_metric_as_well() -> None:
    data = base(spec__objectives=[LATENCY], spec__objective__additionalMetricNames=["latency_ms"])
    assert found(data) == [("Duplicate", "spec.objectives[0].metric")]


def test_a_goal_among_several_objectives_is_a_warning() -> None:
    (warning,) = judge(base(spec__objectives=[LATENCY])).warnings
    assert (warning.path, "accuracy alone" in warning.message) == ("spec.objective.goal", True)


def test_the_first_of_the_objectives_is_the_objective_where_there_is_none() -> None:
    data = base(spec__objectives=[{"type": "maximize", "metric": "accuracy", "goal": 0.9}, LATENCY])
    del data["spec"]["objective"]
    objective = to_objective(load_experiment(data))
    assert (objective.metric, objective.goal, [further.metric for further in objective.further]) == (
        "accuracy", 0.9, ["latency_ms"],
    )  # fmt: skip
    assert load_experiment(load_experiment(data).manifest()).manifest() == load_experiment(data).manifest()


def test_mistakes_in_promoted_objectives_are_told_where_they_stand() -> None:
    data = base(spec__objectives=[{"type": "max", "metric": "accuracy"}, {"type": "min", "metric": "latency_ms"}])
    del data["spec"]["objective"]
    assert found(data) == [("Invalid", "spec.objectives[0].type"), ("Invalid", "spec.objectives[1].type")]
    data["spec"]["objectives"] = [{"type": "maximize"}]
    assert found(data) == [("Required", "spec.objectives[0].metric")]


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ([{"metric": "latency_ms", "le": 20}], []),
        ([{"metric": "latency_ms", "ge": 0}, {"metric": "latency_ms", "le": 20}], []),
        ([{"metric": "accuracy", "ge": 0.5}], []),
        ([{"metric": "latency_ms"}], [("Required", "[0]")]),
        ([{"le": 20}], [("Required", "[0].metric")]),
        ([{"metric": "latency_ms", "le": 20, "ge": 1}], [("Invalid", "[0]")]),
        ([{"metric": "latency_ms", "le": "20"}], [("Invalid", "[0].le")]),
        ([{"metric": "latency_ms", "le": 20}, {"metric": "latency_ms", "le": 30}], [("Duplicate", "[1].le")]),
        ([{"metric": "latency_ms", "le": 20}, {"metric": "latency_ms", "ge": 30}], [("Invalid", "[1]")]),
        ({"latency_ms": 20}, [("Invalid", "")]),
    ],
)
def test_a_constraint_is_one_bound_of_one_metric(constraints: Any, expected: list[tuple[str, str]]) -> None:
    errors = found(base(spec__constraints=constraints))
    assert errors == [(kind, f"spec.constraints{path}") for kind, path in expected]


def test_a_constrained_metric_that_is_nearly_another_is_a_warning() -> None:
    (warning,) = judge(base(spec__constraints=[{"metric": "Accuracy", "ge": 0.5}])).warnings
    assert (warning.path, warning.hint) == ("spec.constraints[0].metric", 'did you mean "accuracy"?')


def test_what_is_only_constrained_counts_by_its_last_value() -> None:
    constraints = [{"metric": "memory", "le": 8}]
    data = base(spec__constraints=constraints, spec__objectives=[LATENCY])
    strategies = load_experiment(data).manifest()["spec"]["objective"]["metricStrategies"]
    assert {one["name"]: one["value"] for one in strategies} == {
        "accuracy": "max", "latency_ms": "min", "memory": "latest",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spec__replicates": 3}, []),
        ({"spec__replicates": {"count": 3, "aggregate": "median"}}, []),
        ({"spec__replicates": 0}, [("Invalid", "spec.replicates.count")]),
        ({"spec__replicates": 101}, [("Invalid", "spec.replicates.count")]),
        ({"spec__replicates": "3"}, [("Invalid", "spec.replicates")]),
        ({"spec__replicates": {"count": "3"}}, [("Invalid", "spec.replicates.count")]),
        ({"spec__replicates": {"aggregate": "mean"}}, [("Required", "spec.replicates.count")]),
        ({"spec__replicates": {"count": 3, "aggregate": "max"}}, [("Invalid", "spec.replicates.aggregate")]),
        ({"spec__onDuplicate": "reuse"}, []),
        ({"spec__onDuplicate": "skip"}, [("Invalid", "spec.onDuplicate")]),
        ({"spec__onFailure": "worst"}, []),
        ({"spec__onFailure": "ignored"}, [("Invalid", "spec.onFailure")]),
        ({"spec__warmStart": {"from": ["a", "team/b"], "mode": "transfer"}}, []),
        ({"spec__warmStart": "a"}, []),
        ({"spec__warmStart": ["a", "b"]}, []),
        ({"spec__warmStart": {"from": ["fake"]}}, [("Invalid", "spec.warmStart.from[0]")]),
        ({"spec__warmStart": {"from": ["a", "default/a"]}}, [("Duplicate", "spec.warmStart.from[1]")]),
        ({"spec__warmStart": {"from": ["A b"]}}, [("Invalid", "spec.warmStart.from[0]")]),
        ({"spec__warmStart": {"from": []}}, [("Required", "spec.warmStart.from")]),
        ({"spec__warmStart": {"from": "a", "mode": "same"}}, [("Invalid", "spec.warmStart.mode")]),
        ({"spec__warmStart": {"from": 3}}, [("Invalid", "spec.warmStart.from")]),
    ],
)
def test_choices_have_their_words_and_ranges(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(base(**changes)) == expected


W = "spec.parameters[2].when"


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"opt": ["sgd"]}, []),
        ({"opt": "sgd"}, []),
        ({"layers": [2, "3"]}, []),
        ({"opt": ["sgd"], "layers": [2]}, []),
        ({}, [("Required", W)]),
        ({"optimizer": ["sgd"]}, [("Invalid", f"{W}.optimizer")]),
        ({"opt": []}, [("Required", f"{W}.opt")]),
        ({"opt": ["sgdd"]}, [("Invalid", f"{W}.opt[0]")]),
        ({"opt": [["sgd"]]}, [("Invalid", f"{W}.opt[0]")]),
        ({"layers": [9]}, [("Invalid", f"{W}.layers[0]")]),
        ({"layers": [2.5]}, [("Invalid", f"{W}.layers[0]")]),
        ({"momentum": [0]}, [("Invalid", f"{W}.momentum")]),
        ("opt", [("Invalid", W)]),
    ],
)
def test_a_condition_names_values_of_another_parameter(when: Any, expected: list[tuple[str, str]]) -> None:
    assert found(conditional(when)) == expected


def test_a_condition_asks_for_no_double() -> None:
    (problem,) = judge(conditional({"opt": ["sgd"]}, spec__parameters__1__when={"momentum": [0.5]})).problems
    assert (problem.path, "discrete" in (problem.hint or "")) == ("spec.parameters[1].when.momentum", True)


def test_conditions_that_go_round_are_all_told_once() -> None:
    data = base(spec__parameters__0__when={"opt": ["sgd"]}, spec__parameters__1__when={"layers": [1]})
    (problem,) = judge(data).problems
    assert problem.path == "spec.parameters[0].when"
    assert problem.message == "the conditions go round in a circle: layers needs opt needs layers"


def test_a_parameter_whose_conditions_exclude_one_another_is_never_there() -> None:
    data = conditional({"opt": ["adam"], "layers": [2]}, spec__parameters__0__when={"opt": ["sgd"]})
    (problem,) = judge(data).problems
    assert problem.message == '"momentum" is never there: its conditions exclude one another'


def test_a_long_chain_of_conditions_is_refused() -> None:
    def link(index: int) -> dict[str, Any]:
        when = {"when": {f"p{index - 1}": ["a"]}} if index else {}
        return {"name": f"p{index}", "parameterType": "categorical", "feasibleSpace": {"list": ["a", "b"]}, **when}

    for length, expected in ((50, []), (60, ["spec.parameters"]), (3000, ["spec.parameters"])):
        problems = judge(base(spec__parameters=[link(index) for index in range(length)])).problems
        assert [problem.path for problem in problems if "levels" in problem.message] == expected


C = "spec.parameterConstraints"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers * 2 <= 8", None),
        ("opt == 'sgd' or layers > 2", None),
        ("layers * (", "something is missing at the end, at character 11"),
        ("layer < 3", 'no parameter is called "layer", at character 1'),
        ("layers", "it is a number, not a condition, at character 1"),
        ("opt > 'a'", "texts have no order: > compares numbers, at character 7"),
        ("opt == 'sgdd'", 'opt is never "sgdd", at character 8'),
        ("opt == 3", "opt is a text and 3 is a number: they are never equal, at character 8"),
        ("opt + 1 > 2", "+ takes numbers, and opt is a text, at character 1"),
        ("layers and opt == 'sgd'", "and takes conditions, and layers is a number, at character 1"),
        ("1 < 2", "it is about no parameter, at character 1"),
    ],
)
def test_an_expression_is_judged_by_syntax_names_and_types(text: str, message: str | None) -> None:
    problems = judge(base(spec__parameterConstraints=[text])).problems
    shown = '"' + text + '": '
    assert [(problem.path, problem.message) for problem in problems] == (
        [(f"{C}[0]", shown + message)] if message is not None else []
    )


DOUBLES: dict[str, Any] = {
    "spec__parameters__0__parameterType": "double",
    "spec__parameters__0__feasibleSpace": {"min": "0", "max": "1"},
}


@pytest.mark.parametrize(
    ("changes", "texts", "errors", "warnings"),
    [
        ({}, ["layers > 5"], [f"{C}[0]"], []),
        ({}, ["layers >= 5", "opt != 'sgd'", "layers < 5 or opt == 'sgd'"], [C], []),
        ({}, ["layers > 5", "layers < 1", "opt == 'sgd'"], [f"{C}[0]", f"{C}[1]"], []),
        (DOUBLES, ["layers > 2"], [f"{C}[0]"], []),
        (DOUBLES, ["layers * layers + 1 < layers"], [f"{C}[0]"], []),
        (DOUBLES, ["layers > 0.999999"], [], []),
        (DOUBLES, ["layers < 0.5", "layers > 0.5"], [C], []),
        (DOUBLES, ["layers * 7 == 3.14159", "opt == 'sgd'"], [], [C]),
        ({"spec__parameters__0__when": {"opt": ["sgd"]}}, ["layers > 5"], [], [f"{C}[0]"]),
        ({"spec__parameters__0__when": {"opt": ["sgd"]}}, ["layers > 5", "opt == 'sgd'"], [C], [f"{C}[0]"]),
    ],
)
def test_an_empty_space_is_an_error_only_where_that_is_certain(
    changes: dict[str, Any], texts: list[str], errors: list[str], warnings: list[str]
) -> None:
    verdict = judge(base(spec__parameterConstraints=texts, **changes))
    assert [problem.path for problem in verdict.problems] == errors
    assert [problem.path for problem in verdict.warnings] == warnings


def test_a_large_space_is_judged_in_little_time() -> None:
    parameters = [
        {"name": f"p{index}", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}
        for index in range(100)
    ]
    total = " + ".join(f"p{index}" for index in range(100))
    began = time.process_time()
    verdict = judge(base(spec__parameters=parameters, spec__parameterConstraints=[f"{total} < 0.001"]))
    assert time.process_time() - began < 20
    assert C in [warning.path for warning in verdict.warnings] or verdict.problems


I = "spec.initialTrials"  # noqa: E741


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        ({"layers": 3, "opt": "sgd"}, []),
        ({"layers": "3"}, []),
        ({}, []),
        ({"layers": 3.0}, []),
        ({"layer": 3}, [("Invalid", f"{I}[0].layer")]),
        ({"layers": 9}, [("Invalid", f"{I}[0].layers")]),
        ({"layers": 2.5}, [("Invalid", f"{I}[0].layers")]),
        ({"layers": "three"}, [("Invalid", f"{I}[0].layers")]),
        ({"layers": True}, [("Invalid", f"{I}[0].layers")]),
        ({"layers": None, "opt": ["sgd"]}, [("Invalid", f"{I}[0].layers"), ("Invalid", f"{I}[0].opt")]),
        ({"opt": "sgdd"}, [("Invalid", f"{I}[0].opt")]),
        ("sgd", [("Invalid", f"{I}[0]")]),
    ],
)
def test_an_initial_trial_holds_values_of_the_space(trial: Any, expected: list[tuple[str, str]]) -> None:
    assert found(base(spec__initialTrials=[trial])) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.3, []), ("0.3", []), (0.30000000000000004, []), (0.35, [("Invalid", f"{I}[0].layers")])],
)
def test_an_initial_value_is_on_the_grid(value: Any, expected: list[tuple[str, str]]) -> None:
    space = {"min": "0.1", "max": "0.9", "step": "0.1"}
    data = base(
        spec__parameters__0__parameterType="double",
        spec__parameters__0__feasibleSpace=space,
        spec__initialTrials=[{"layers": value}],
    )
    assert found(data) == expected
    if not expected:
        assert search_problem(load_experiment(data), 1).initial == ({"layers": 0.3},)


def test_initial_trials_are_typed_as_trials_are() -> None:
    parameters = [
        {"name": "layers", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "5"}},
        {"name": "opt", "parameterType": "discrete", "feasibleSpace": {"list": ["0.10", "1"]}},
    ]
    data = base(spec__parameters=parameters, spec__initialTrials=[{"opt": 0.1, "layers": 2.0}, {"opt": "1"}])
    first, second = search_problem(load_experiment(data), 1).initial
    assert (first, second) == ({"layers": 2, "opt": "0.10"}, {"opt": "1"})
    assert type(first["layers"]) is int


def test_an_initial_trial_satisfies_the_constraints() -> None:
    data = base(spec__parameterConstraints=["layers <= 3"], spec__initialTrials=[{"layers": 3}, {"layers": 4}, {}])
    (problem,) = judge(data).problems
    assert (problem.path, problem.message) == (f"{I}[1]", 'it does not satisfy "layers <= 3"')


def test_an_initial_value_of_a_parameter_that_is_not_there_is_refused() -> None:
    trials = [{"opt": "sgd", "momentum": 0.5}, {"opt": "adam", "momentum": 0.5}, {"momentum": 0.5}, {"opt": "adam"}]
    problems = judge(conditional({"opt": ["sgd"]}, spec__initialTrials=trials)).problems
    assert [(problem.path, problem.hint) for problem in problems] == [
        (f"{I}[1].momentum", "remove momentum here"),
        (f"{I}[2].momentum", "give opt as well"),
    ]


def test_more_initial_trials_than_trials_and_repeated_ones_are_warnings() -> None:
    trials = [{"layers": 1, "opt": "sgd"}, {"opt": "sgd", "layers": 1.0}]
    data = base(spec__initialTrials=trials, spec__maxTrialCount=1, spec__parallelTrialCount=1)
    assert [warning.path for warning in judge(data).warnings] == [I, f"{I}[1]"]


NAS: dict[str, Any] = {
    "spec__nasConfig": {
        "graphConfig": {"numLayers": 1},
        "operations": [{"operationType": "conv", "parameters": [{**MOMENTUM, "when": {"a": ["b"]}}]}],
    }
}


def test_architectures_have_neither_initial_trials_nor_conditions() -> None:
    data = base(spec__initialTrials=[{"layers": 1}], **NAS)
    del data["spec"]["parameters"]
    assert ("Forbidden", I) in found(data)
    assert ("Forbidden", "spec.nasConfig.operations[0].parameters[0].when") in found(data)


def test_mistakes_are_told_with_their_lines() -> None:
    text = (
        "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nmetadata: {name: a}\nspec:\n  parameterConstraints:\n"
        "    - x >\n  replicates: 0\n  constraints:\n    - metric: a\n"
    )
    verdict = judge(parse_documents(text, "x")[0].data)
    assert {problem.path for problem in verdict.problems} >= {f"{C}[0]", "spec.replicates.count", "spec.constraints[0]"}


def test_the_search_problem_tells_all_that_algorithms_may_want_to_know() -> None:
    data = conditional(
        {"opt": ["sgd"]},
        spec__objectives=[LATENCY],
        spec__constraints=[{"metric": "memory", "le": 8}],
        spec__parameterConstraints=["layers < 5"],
        spec__initialTrials=[{"layers": 1}],
        spec__onDuplicate="resample",
        spec__onFailure="worst",
        spec__warmStart={"from": "a", "mode": "transfer"},
        spec__earlyStopping={"algorithmName": "medianstop"},
    )
    problem = search_problem(load_experiment(data), 1)
    assert [direction.value for direction in problem.directions] == ["maximize", "minimize"]
    assert (problem.constraints, problem.parameter_constraints, problem.initial) == (
        1,
        ("layers < 5",),
        ({"layers": 1},),
    )
    assert (problem.on_duplicate, problem.on_failure, problem.warm_start) == ("resample", "worst", "transfer")
    assert problem.early_stopping
    assert [parameter.name for parameter in problem.space if parameter.when] == ["momentum"]
