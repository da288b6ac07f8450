"""The short form: ten lines become a full Experiment, and its mistakes are told in its own lines."""

from __future__ import annotations

from typing import Any

import pytest

from evertune.spec import Experiment, check, parse_documents, render_trial, to_budget, to_space
from tests.unit.spec.samples import SomeAlgorithms

TEN_LINES = """\
name: digits
command: python train.py --C {C} --kernel {kernel} --out {trial.name}
parameters:
  C: loguniform(0.01, 1000)
  kernel: [rbf, poly]
  epochs: {min: 5, max: 20, step: 5}
objective: maximize accuracy
goal: 0.985
budget: {trials: 24, parallel: 4, failures: 3}
env: {EPOCHS: "{epochs}", SHELL_VARIABLE: "${HOME}"}
"""


def _expand(text: str) -> Experiment:
    verdict = check(parse_documents(text, "x")[0], SomeAlgorithms())
    assert verdict.experiment is not None, [str(problem) for problem in verdict.problems]
    return verdict.experiment


def _problems(text: str) -> list[tuple[str, int | None]]:
    verdict = check(parse_documents(text, "x")[0], SomeAlgorithms())
    return [(problem.path, problem.line) for problem in verdict.problems]


def test_ten_lines_are_a_whole_experiment() -> None:
    experiment = _expand(TEN_LINES)
    budget = to_budget(experiment)
    assert (budget.max_trials, budget.parallel, budget.max_failed) == (24, 4, 3)
    assert to_space(experiment).names() == ("C", "kernel", "epochs")
    manifest = experiment.manifest()
    assert manifest["apiVersion"] == "kubeflow.org/v1beta1"
    assert manifest["spec"]["algorithm"] == {"algorithmName": "tpe"}
    assert manifest["spec"]["objective"]["goal"] == 0.985


def test_braces_become_values_and_other_braces_stay() -> None:
    trial = render_trial(
        _expand(TEN_LINES), trial_name="digits-b", parameters={"C": 0.5, "kernel": "rbf", "epochs": 10}
    )
    (container,) = trial["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "train.py", "--C", "0.5", "--kernel", "rbf", "--out", "digits-b"]
    assert container["env"] == [{"name": "EPOCHS", "value": "10"}, {"name": "SHELL_VARIABLE", "value": "${HOME}"}]


def test_the_expanded_form_is_a_valid_full_form() -> None:
    first = _expand(TEN_LINES).manifest()
    again = check(parse_documents(__import__("json").dumps(first), "x")[0]).experiment
    assert again is not None
    assert again.manifest() == first


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python train.py --lr {lr}", ["python", "train.py", "--lr", "${trialParameters.lr}"]),
        ("'python train.py' \"{lr}\"", ["python train.py", "${trialParameters.lr}"]),
        ("[python, train.py, 3, '{ lr }']", ["python", "train.py", "3", "${trialParameters.lr}"]),
        ("cd src && python t.py {lr}", ["sh", "-c", "cd src && python t.py ${trialParameters.lr}"]),
        ("X=1 python t.py {lr}", ["sh", "-c", "X=1 python t.py ${trialParameters.lr}"]),
        ("|\n  a {lr}\n  b\n", ["sh", "-c", "a ${trialParameters.lr}\nb"]),
        ("echo 'a|b' {lr}", ["echo", "a|b", "${trialParameters.lr}"]),
        ("awk '{print}' {lr}", ["awk", "{print}", "${trialParameters.lr}"]),
        ("run ${trialParameters.lr}", ["sh", "-c", "run ${trialParameters.lr}"]),
    ],
)
def test_a_command_is_words_or_a_shell_line(command: str, words: list[str]) -> None:
    text = f"name: a\ncommand: {command}\nparameters: {{lr: 'uniform(0, 1)'}}\nobjective: minimize loss\ntrials: 9\n"
    if command.startswith(("'", "X", "echo", "awk", "cd", "python", "run")):
        text = text.replace(f"command: {command}", f"command: >-\n  {command}")
    spec = _expand(text).manifest()["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["command"] == words


SHORT = "name: a\ncommand: run {lr}\nparameters:\n  lr: uniform(0, 1)\nobjective: minimize loss\ntrials: 9\n"


@pytest.mark.parametrize(
    ("before", "after", "problems"),
    [
        ("", "", []),
        ("name: a", "name: A", [("name", 1)]),
        ("name: a\n", "", [("name", 1)]),
        ("{lr}", "{lrr}", [("parameters.lr", 4)]),
        ("uniform(0, 1)", "uniform(1, 0)", [("parameters.lr", 4)]),
        ("uniform(0, 1)", "unifrm(0, 1)", [("parameters.lr", 4)]),
        ("uniform(0, 1)", "{min: 0, max: 1, stp: 2}", [("parameters.lr.stp", 4)]),
        ("uniform(0, 1)", "{min: 3, max: 1}", [("parameters.lr", 4)]),
        ("uniform(0, 1)", "{min: 0, max: 1, type: flot}", [("parameters.lr.type", 4)]),
        ("uniform(0, 1)", "[[1]]", [("parameters.lr", 4)]),
        ("  lr: uniform(0, 1)", "  lr: null", [("parameters.lr", 4)]),
        ("minimize loss", "minimise loss", [("objective", 5)]),
        ("minimize loss", "{minimize: loss, gaol: 3}", [("objective.gaol", 5)]),
        ("minimize loss", "3", [("objective", 5)]),
        ("trials: 9", "trials: '9'", [("trials", 6)]),
        ("trials: 9", "trials: 0", [("trials", 6)]),
        ("trials: 9", "trials: [9]", [("trials", 6)]),
        ("trials: 9", "trials: 9\nparallel: 10", [("parallel", 7)]),
        ("trials: 9", "budget: {trials: 9, parallel: 10}", [("budget.parallel", 6)]),
        ("trials: 9", "budget: {trails: 9}", [("budget.trails", 6)]),
        ("trials: 9", "budget: 9", [("budget", 6)]),
        ("trials: 9", "trials: 9\nalgorithm: tpee", [("algorithm", 7)]),
        ("trials: 9", "trials: 9\nalgorithm: {name: picky, gama: 1}", [("parameters.lr", 4), ("algorithm.gama", 7)]),
        ("trials: 9", "trials: 9\ngoal: '0.5'", [("goal", 7)]),
        ("trials: 9", "trials: 9\nseed: -1", [("seed", 7)]),
        ("trials: 9", "trials: 9\nmetrics: [loss]", [("metrics", 7)]),
        ("trials: 9", "trials: 9\nparalel: 2", [("paralel", 7)]),
        ("trials: 9", "trials: 9\nmaxTrialCount: 2", [("maxTrialCount", 7)]),
        ("trials: 9", "trials: 9\nconstraints: [x]", [("constraints[0]", 7)]),
        ("trials: 9", "trials: 9\nconstraints: [x < 3]", [("constraints[0]", 7)]),
        ("trials: 9", "trials: 9\nconstraints: [{metric: x}]", [("constraints[0]", 7)]),
        ("trials: 9", "trials: 9\nobjectives: [minimize loss]", [("objectives[0].metric", 7)]),
        ("trials: 9", "trials: 9\nobjectives:\n- maximize a\n- minimise b", [("objectives[1]", 9)]),
        ("objective: minimize loss", "objectives:\n- minimize", [("objectives[0]", 6)]),
        ("objective: minimize loss", "objectives: [minimize loss]\ngoal: x", [("goal", 6)]),
        ("trials: 9", "trials: 9\ninitialTrials: [lr=2]", [("initialTrials[0].lr", 7)]),
        ("trials: 9", "trials: 9\ninitialTrials: [lr]", [("initialTrials[0]", 7)]),
        ("trials: 9", "trials: 9\nparameterConstraints:\n- lr > 2", [("parameterConstraints[0]", 8)]),
        ("uniform(0, 1)", "uniform(0, 1) if x=1", [("parameters.lr", 4)]),
        ("uniform(0, 1)", "uniform(0, 1) if x", [("parameters.lr", 4)]),
        ("uniform(0, 1)", "{min: 0, max: 1, when: {x: [1]}}", [("parameters.lr.when.x", 4)]),
        ("uniform(0, 1)", "{min: 0, max: 1, when: [x]}", [("parameters.lr.when", 4)]),
        ("trials: 9", "trials: 9\nenv: [x]", [("env", 7)]),
        ("run {lr}", "run '{lr}", [("command", 2)]),
        ("command: run {lr}", "command: 3", [("command", 2)]),
        ("command: run {lr}\n", "", [("command", 1)]),
        ("parameters:\n  lr: uniform(0, 1)", "parameters: [lr]", [("parameters", 3)]),
    ],
)
def test_a_mistake_is_told_at_the_users_own_line(
    before: str, after: str, problems: list[tuple[str, int | None]]
) -> None:
    assert _problems(SHORT.replace(before, after)) == problems


PHRASES = """\
name: a
command: run --opt {opt} --momentum {momentum} --beta {beta}
parameters:
  opt: [sgd, adam, other]
  momentum: uniform(0, 1) if opt=sgd
  beta: {min: 0.5, max: 1, when: {opt: [adam, other]}}
objectives: [maximize accuracy, minimize latency_ms]
goal: 0.9
metrics: [loss]
constraints: [latency_ms <= 20, {metric: memory, ge: 2}]
parameterConstraints: [momentum < 0.5]
initialTrials: ["opt=sgd, momentum=0.1", {opt: adam}]
warmStart: older
replicates: 3
trials: 9
"""


def test_phrases_stand_for_what_the_full_form_has() -> None:
    spec = _expand(PHRASES).manifest()["spec"]
    assert spec["objective"]["objectiveMetricName"] == "accuracy"
    assert (spec["objective"]["goal"], spec["objective"]["additionalMetricNames"]) == (0.9, ["loss"])
    assert spec["objectives"] == [{"type": "minimize", "metric": "latency_ms"}]
    assert spec["constraints"] == [{"metric": "latency_ms", "le": 20.0}, {"metric": "memory", "ge": 2.0}]
    assert [parameter.get("when") for parameter in spec["parameters"]] == [
        None, {"opt": ["sgd"]}, {"opt": ["adam", "other"]},
    ]  # fmt: skip
    assert spec["initialTrials"] == [{"opt": "sgd", "momentum": "0.1"}, {"opt": "adam"}]
    assert spec["warmStart"] == {"from": ["older"], "mode": "identical"}
    assert spec["replicates"] == {"count": 3, "aggregate": "mean"}


def test_a_misspelled_placeholder_is_explained() -> None:
    (problem,) = check(parse_documents(SHORT.replace("{lr}", "{lrr}"), "x")[0]).problems
    assert problem.hint == "the command has {lrr}; write {lr}"


def test_fewer_trials_than_the_default_parallelism_are_fine() -> None:
    assert to_budget(_expand(SHORT.replace("trials: 9", "trials: 2"))).parallel == 2


@pytest.mark.parametrize(
    ("written", "parameter"),
    [
        ("[0.10, 1e-3]", {"parameterType": "discrete", "feasibleSpace": {"list": ["0.10", "1e-3"]}}),
        ("[yes, no]", {"parameterType": "categorical", "feasibleSpace": {"list": ["yes", "no"]}}),
        ("10", {"parameterType": "int", "feasibleSpace": {"min": "10", "max": "10"}}),
        ("{min: 1e-5, max: 1}", {"parameterType": "double", "feasibleSpace": {"min": "1e-5", "max": "1"}}),
        ("{min: 1, max: 9}", {"parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}}),
        ("{list: [a, 1]}", {"parameterType": "categorical", "feasibleSpace": {"list": ["a", "1"]}}),
    ],
)
def test_a_parameter_keeps_the_text_that_the_user_wrote(written: str, parameter: dict[str, Any]) -> None:
    (found,) = _expand(SHORT.replace("uniform(0, 1)", written)).manifest()["spec"]["parameters"]
    found["feasibleSpace"].pop("distribution")
    assert found == {"name": "lr", **parameter}
