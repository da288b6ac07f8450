"""`--param` of the command line: one dimension in one word, or one sentence about what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from evertune.errors import UsageError
from evertune.spec import commented_yaml, load_experiment, parse_dimension, parse_documents, quick_experiment


def _range(kind: str, low: str, high: str, distribution: str = "uniform", step: str | None = None) -> dict[str, Any]:
    space = {"min": low, "max": high, "distribution": distribution}
    return {"parameterType": kind, "feasibleSpace": space if step is None else {**space, "step": step}}


def _list(kind: str, *items: str) -> dict[str, Any]:
    return {"parameterType": kind, "feasibleSpace": {"list": list(items)}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uniform(0,1)", _range("double", "0", "1")),
        ("uniform(0, 1, 0.1)", _range("double", "0", "1", step="0.1")),
        ("quniform(0, 1, step=0.1)", _range("double", "0", "1", step="0.1")),
        ("loguniform(1e-5,1e-1)", _range("double", "1e-5", "1e-1", "logUniform")),
        ("LogUniform( 1e-5 , 1e-1 )", _range("double", "1e-5", "1e-1", "logUniform")),
        ("int(1,8)", _range("int", "1", "8")),
        ("int(1,8,2)", _range("int", "1", "8", step="2")),
        ("logint(1,1024)", _range("int", "1", "1024", "logUniform")),
        ("normal(0,1)", _range("double", "-3", "3", "normal")),
        ("lognormal(0,1)", _range("double", "0.0497870683679", "20.0855369232", "logNormal")),
        ("uniform(0,1) if opt=sgd", {**_range("double", "0", "1"), "when": {"opt": ["sgd"]}}),
        ("int(1,8) if opt == a|'b c'", {**_range("int", "1", "8"), "when": {"opt": ["a", "b c"]}}),
        ("[1,2] if opt in [a, b] and n=2", {**_list("discrete", "1", "2"), "when": {"opt": ["a", "b"], "n": ["2"]}}),
        ("uniform(0,1) if `num-layers`=2", {**_range("double", "0", "1"), "when": {"num-layers": ["2"]}}),
        ("choice(adam, sgd)", _list("categorical", "adam", "sgd")),
        ("[adam,sgd]", _list("categorical", "adam", "sgd")),
        ("choice([adam, sgd])", _list("categorical", "adam", "sgd")),
        ("choice('a, b',\"c)\")", _list("categorical", "a, b", "c)")),
        ("[16,32,64]", _list("discrete", "16", "32", "64")),
        ("adam", _list("categorical", "adam")),
        ("a=b", _list("categorical", "a=b")),
        ("10", _range("int", "10", "10") | {"feasibleSpace": {"min": "10", "max": "10"}}),
        ("constant(0.5)", {"parameterType": "double", "feasibleSpace": {"min": "0.5", "max": "0.5"}}),
    ],
)
def test_a_dimension_becomes_katibs_parameter(text: str, expected: dict[str, Any]) -> None:
    assert parse_dimension(f"p={text}") == {"name": "p", **expected}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("lr", '"lr" is not a parameter', "write for example lr=loguniform(1e-5,1e-1)"),
        ("lr=", '"lr=" is not a parameter', "write for example lr=loguniform(1e-5,1e-1)"),
        ("=3", '"=3" is not a parameter', "write for example lr=loguniform(1e-5,1e-1)"),
        ("lr=uniform(1,0)", "lr: min must be below max", '1 is above 0; mend: {min: "0", max: "1"}'),
        ("lr=uniform(1)", "lr: uniform takes (low, high), not (1)", None),
        ("lr=quniform(0,1)", "lr: quniform takes (low, high, step), not (0, 1)", None),
        (
            "lr=loguniform(0,1)",
            "lr: min 0 must be above 0 for the distribution logUniform",
            "a logarithm needs positive numbers",
        ),
        ("lr=int(1,a)", 'lr: "a" is not a finite number', None),
        ("lr=normal(0,0)", "lr: the deviation 0 must be above 0", None),
        ("lr=lognormal(999,1)", "lr: lognormal(999, 1) is not made of usable numbers", None),
        ("lr=[]", "lr: the list of values is empty", 'write for example ["adam", "sgd"]'),
        ("lr=[a,,b]", "lr: (a,,b) is not a list of values", "separate the values by commas"),
        ("lr=uniform(0,1", 'lr: "uniform(0,1" lacks a closing bracket', None),
        ("lr=constant(1,2)", "lr: constant takes one value", None),
        ("lr=" + "x" * 3000, "lr: longer than 2,000 characters", "write a YAML list"),
    ],
)
def test_a_wrong_dimension_is_one_sentence(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_dimension(text)
    assert caught.value.message == message
    if hint is not None:
        assert caught.value.hint == hint


def test_a_misspelled_function_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_dimension("lr=logunifrm(1,2)")
    assert str(caught.value.hint).startswith("did you mean loguniform?")


def _quick(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "name": "digits",
        "command": ["python", "train.py", "--lr", "{lr}", "--opt={opt}"],
        "parameters": [parse_dimension("lr=loguniform(1e-5,1e-1)"), parse_dimension("opt=[adam,'on',1e3]")],
        "direction": "maximize",
        "metric": "accuracy",
        "trials": 24,
    }
    return quick_experiment(**{**arguments, **changes})


def test_an_image_without_a_command_gets_the_parameters_as_arguments() -> None:
    spec = load_experiment(_quick(command=None, image="img")).manifest()["spec"]
    (container,) = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    assert container == {
        "name": "trial",
        "image": "img",
        "args": ["--lr=${trialParameters.lr}", "--opt=${trialParameters.opt}"],
    }


def test_a_quick_experiment_is_complete() -> None:
    data = _quick(goal=0.9, parallel=4, failures=2, seed=1, namespace="team", image="img", working_dir="/w")
    spec = load_experiment(data).manifest()["spec"]
    assert spec["objective"]["goal"] == 0.9
    assert (spec["parallelTrialCount"], spec["maxTrialCount"], spec["maxFailedTrialCount"]) == (4, 24, 2)
    container = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][3:] == ["${trialParameters.lr}", "--opt=${trialParameters.opt}"]
    assert container["image"] == "img"
    assert (spec["seed"], spec["workingDir"]) == (1, "/w")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": "python train.py --lr {lr}"}, 'the command does not use the parameter "opt"'),
        ({"command": "python 'train.py"}, "a quote is not closed"),
        ({"command": "  "}, "the command is empty"),
        ({"command": []}, "the command is empty"),
    ],
)
def test_a_command_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _quick(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"goal": 1e-3, "additional": ["loss"], "seed": 3, "deadline": "2h", "trial_deadline": "5m"},
        {"command": "cd a && python t.py {lr} {opt} > 'log: #1'", "image": "a/b:c", "namespace": "team"},
        {"algorithm": "tpe", "settings": {"gamma": "0.2"}, "failures": 3, "parallel": 2, "working_dir": "a b: #c"},
        {"command": ["sh", "-c", "a\n\"b\"\t{lr}'{opt}'", "", " x", "- y", "ü😀", "yes", "*a", "[b"]},
    ],
)
def test_the_commented_yaml_reads_back_as_the_same_experiment(changes: dict[str, Any]) -> None:
    data = _quick(**changes)
    text = commented_yaml(data)
    (document,) = parse_documents(text, "x")
    assert document.problems == []
    assert document.data == data
    assert load_experiment(document.data).name == "digits"
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) > 10
