"""JSON types are Katib's: a number where text belongs is one clear error, and the other rules still run."""

from __future__ import annotations

from typing import Any

import pytest

from evertune.errors import SpecError
from evertune.spec import check, load_experiment, parse_documents
from tests.unit.spec.samples import base, found, judge


@pytest.mark.parametrize(
    ("changes", "path", "message", "hint"),
    [
        (
            {"spec__parameters__0__feasibleSpace__min": 0.01, "spec__parameters__0__parameterType": "double"},
            "spec.parameters[0].feasibleSpace.min",
            "must be text, not the number 0.01",
            'quote it: "0.01"',
        ),
        (
            {"spec__maxTrialCount": "12"},
            "spec.maxTrialCount",
            'must be a whole number, not the text "12"',
            "remove the quotes: 12",
        ),
        ({"spec__maxTrialCount": 12.5}, "spec.maxTrialCount", "must be a whole number, not the number 12.5", None),
        ({"spec__maxTrialCount": True}, "spec.maxTrialCount", "must be a whole number, not true", None),
        ({"spec__maxTrialCount": 2**40}, "spec.maxTrialCount", f"{2**40} is out of range", None),
        (
            {"spec__objective__goal": "0.9"},
            "spec.objective.goal",
            'must be a number, not the text "0.9"',
            "remove the quotes: 0.9",
        ),
        ({"spec__objective": ["x"]}, "spec.objective", "must be a mapping of keys to values, not a list", None),
        (
            {"spec__parameters": {"a": 1}},
            "spec.parameters",
            "must be a list, not a mapping",
            'start each entry with "- "',
        ),
        (
            {"spec__trialTemplate__retain": "yes"},
            "spec.trialTemplate.retain",
            'must be true or false, not the text "yes"',
            None,
        ),
        ({"metadata__labels": {"a": 1}}, "metadata.labels.a", "must be text, not the number 1", 'quote it: "1"'),
        ({"spec": "x"}, "spec", 'must be a mapping of keys to values, not the text "x"', None),
        ({"spec__deadline": ["1h"]}, "spec.deadline", "must be text, not a list", None),
        (
            {"spec__algorithm__algorithmSettings": [{"name": "gamma", "value": 3}]},
            "spec.algorithm.algorithmSettings[0].value",
            "must be text, not the number 3",
            'quote it: "3"',
        ),
    ],
)
def test_a_wrong_type_is_one_error_with_its_mend(
    changes: dict[str, Any], path: str, message: str, hint: str | None
) -> None:
    problems = [problem for problem in judge(base(**changes)).problems if problem.path == path]
    assert [(problem.type, problem.message, problem.hint) for problem in problems] == [("Invalid", message, hint)]


def test_each_number_in_a_list_of_texts_is_named() -> None:
    data = base(spec__parameters__1__feasibleSpace__list=[3, "5", 7.5])
    at = "spec.parameters[1].feasibleSpace.list"
    assert found(data) == [("Invalid", f"{at}[0]"), ("Invalid", f"{at}[2]")]


def test_a_wrong_type_does_not_hide_other_problems_nor_make_new_ones() -> None:
    data = base(spec__parameters__0__feasibleSpace__min=9, spec__maxTrialCount="x", spec__resumePolicy="no")
    assert found(data) == [
        ("Invalid", "spec.maxTrialCount"),
        ("Invalid", "spec.parameters[0].feasibleSpace.min"),
        ("Invalid", "spec.resumePolicy"),
    ]


def test_whole_floats_are_whole_numbers_as_for_katib() -> None:
    assert found(base(spec__maxTrialCount=12.0)) == []


def test_unknown_fields_are_dropped_with_a_warning_that_guesses() -> None:
    verdict = judge(base(spec__maxTrialCnt=3, spec__goal=0.5, spec__trialTemplate__trial_spec=1, metadata__uid="x"))
    assert verdict.valid
    assert {(problem.path, problem.hint) for problem in verdict.warnings} == {
        ("spec.maxTrialCnt", 'did you mean "maxTrialCount"?'),
        ("spec.goal", '"goal" belongs under spec.objective'),
        ("spec.trialTemplate.trial_spec", 'did you mean "trialSpec"?'),
    }
    assert verdict.experiment is not None
    assert "maxTrialCnt" not in verdict.experiment.manifest()["spec"]
    assert "uid" not in verdict.experiment.manifest()["metadata"]


def test_an_unquoted_goal_in_scientific_notation_is_a_number() -> None:
    text = "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nspec: {objective: {goal: 1e-3}}\n"
    verdict = check(parse_documents(text, "x")[0])
    assert "spec.objective.goal" not in {problem.path for problem in verdict.problems}


@pytest.mark.parametrize(
    "data", [None, [], 3, "text", {}, {"spec": None}, {"kind": "Experiment"}, {1: 2}, {"a": {2: 3}}]
)
def test_junk_is_refused_with_problems_and_nothing_else(data: Any) -> None:
    with pytest.raises(SpecError) as caught:
        load_experiment(data)
    assert 1 <= len(caught.value.problems) <= 8


def test_a_loaded_manifest_loads_again_to_the_same() -> None:
    first = load_experiment(base()).manifest()
    assert load_experiment(first).manifest() == first


def test_data_nested_too_deep_is_refused() -> None:
    data: dict[str, Any] = {}
    inner = data
    for _ in range(5000):
        inner["spec"] = {}
        inner = inner["spec"]
    with pytest.raises(SpecError, match="nested deeper"):
        load_experiment(data)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("010", "must be text: without quotes 010 is the number 8"),
        ("1e-5", "must be text: without quotes 1e-5 is the number 1e-05"),
        ("yes", "must be text: without quotes yes is true"),
        ("3", "must be text, not the number 3"),
    ],
)
def test_the_mend_quotes_what_the_user_wrote(written: str, message: str) -> None:
    (document,) = parse_documents(
        "kind: Experiment\nspec:\n  parameters:\n  - feasibleSpace:\n"
        f"      list: [{written}]\n"
        "  trialTemplate:\n    trialParameters: []\n    trialSpec:\n      apiVersion: batch/v1\n      kind: Job\n"
        "      spec: {template: {spec: {containers: [{name: a, env: [{name: N, value: "
        f"{written}"
        "}]}]}}}\n",
        "x",
    )
    problems = check(document).problems

    (item,) = [problem for problem in problems if problem.path == "spec.parameters[0].feasibleSpace.list[0]"]
    (env,) = [problem for problem in problems if "env[0].value" in problem.message]
    assert (item.message, item.hint, item.line) == (message, f'quote it: "{written}"', 5)
    assert env.hint == f'quote it: "{written}"'


@pytest.mark.parametrize(
    ("text", "path", "column"),
    [
        ("kind: Experiment\nspec: {maxTrials: 12}\n", "spec.maxTrials", 8),
        ("name: a\nbudget: {trial: 12}\n", "budget.trial", 10),
        ("name: a\nobjective: {maximise: loss}\n", "objective.maximise", 13),
        ("command: a\ncomand: b\n", "comand", 1),
    ],
)
def test_an_unknown_key_is_pointed_at_itself_not_at_its_value(text: str, path: str, column: int) -> None:
    (document,) = parse_documents(text, "x")
    verdict = check(document)

    (problem,) = [problem for problem in [*verdict.problems, *verdict.warnings] if problem.path == path]
    assert (problem.line, problem.column) == (2, column)
