"""Rendering a trial: Katib's text replacement, metadata references, and its checks at trial creation."""

from __future__ import annotations

from typing import Any

import pytest

from evertune.domain.space import Value
from evertune.errors import SpecError
from evertune.spec import Experiment, load_experiment, pod_labels, render_trial, trial_labels
from tests.unit.spec.samples import REMOVED, base

JOB = "spec__trialTemplate__trialSpec"
CONTAINER = f"{JOB}__spec__template__spec__containers__0"
PARAMETERS = "spec__trialTemplate__trialParameters"
VALUES: dict[str, Value] = {"layers": 3, "opt": "sgd"}


def _command(experiment: Experiment, values: dict[str, Value] | None = None) -> list[str]:
    manifest = render_trial(experiment, trial_name="fake-x", parameters=values or VALUES)
    command: list[str] = manifest["spec"]["template"]["spec"]["containers"][0]["command"]
    return command


def test_values_replace_every_occurrence_of_their_placeholder() -> None:
    twice = "n=${trialParameters.numLayers}${trialParameters.numLayers}"
    experiment = load_experiment(base(**{f"{CONTAINER}__command__4": twice}))
    assert _command(experiment) == ["python", "train.py", "--layers=3", "--opt=sgd", "n=33"]


@pytest.mark.parametrize("value", [0.1, 1e-5, 1 / 3, 123456789.123, 5e-324])
def test_a_double_reaches_the_trial_exactly(value: float) -> None:
    space = {"name": "layers", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1e9"}}
    experiment = load_experiment(base(spec__parameters__0=space))
    text = _command(experiment, {"layers": value, "opt": "sgd"})[2].removeprefix("--layers=")
    assert float(text) == value


def test_the_trial_gets_its_name_and_namespace_and_keeps_its_labels() -> None:
    experiment = load_experiment(base(**{f"{JOB}__metadata": {"labels": {"a": "b"}}}))
    manifest = render_trial(experiment, trial_name="fake-x", namespace="team", parameters=VALUES)
    assert manifest["metadata"] == {"labels": {"a": "b"}, "name": "fake-x", "namespace": "team"}


def test_rendering_leaves_the_experiment_as_it_was() -> None:
    experiment = load_experiment(base())
    before = experiment.manifest()
    render_trial(experiment, trial_name="fake-x", parameters=VALUES)
    assert experiment.manifest() == before


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("${trialSpec.Name}", "fake-x"),
        ("${trialSpec.Namespace}", "default"),
        ("${trialSpec.Kind}", "Job"),
        ("${trialSpec.APIVersion}", "batch/v1"),
        ("${trialSpec.Annotations[a.b/c]}", "note"),
        ("${trialSpec.Labels[team]}", "vision"),
        ("text around ${trialSpec.Name} is dropped", "fake-x"),
    ],
)
def test_metadata_of_the_trial_can_be_referred_to(reference: str, expected: str) -> None:
    changes: dict[str, Any] = {
        f"{JOB}__metadata": {"annotations": {"a.b/c": "note"}, "labels": {"team": "vision"}},
        f"{PARAMETERS}__2": {"name": "meta", "reference": reference},
        f"{CONTAINER}__command__4": "${trialParameters.meta}",
    }
    assert _command(load_experiment(base(**changes)))[4] == expected


def test_a_missing_label_fails_the_trial_with_a_sentence() -> None:
    changes: dict[str, Any] = {
        f"{PARAMETERS}__2": {"name": "meta", "reference": "${trialSpec.Labels[team]}"},
        f"{CONTAINER}__command__4": "${trialParameters.meta}",
    }
    with pytest.raises(SpecError, match=r'metadata.labels has no "team"'):
        _command(load_experiment(base(**changes)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 3}, 'no value for "opt"'),
        ({"layers": 3, "opt": "sgd", "lr": 0.1}, "nothing refers to lr"),
        ({"layers": 3, "opt": 'a"b'}, "not readable after substitution"),
    ],
)
def test_an_assignment_that_does_not_fit_is_refused(values: dict[str, Value], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        _command(load_experiment(base()), values)


def test_in_a_configmap_template_a_value_can_be_a_number() -> None:
    source = {"configMapName": "templates", "configMapNamespace": "ns", "templatePath": "t.yaml"}
    text = "apiVersion: org/v1\nkind: Thing\nn: ${trialParameters.numLayers}\nopt: ${trialParameters.optimizer}\n"
    templates = {("ns", "templates", "t.yaml"): text}
    experiment = load_experiment(base(**{JOB: REMOVED, "spec__trialTemplate__configMap": source}), templates=templates)
    manifest = render_trial(experiment, trial_name="fake-x", parameters=VALUES, templates=templates)
    assert manifest["n"] == 3
    assert manifest["opt"] == "sgd"
    with pytest.raises(SpecError, match="not at hand"):
        render_trial(experiment, trial_name="fake-x", parameters=VALUES)


def test_labels_are_katibs() -> None:
    experiment = load_experiment(base(metadata__labels={"team": "vision"}))
    assert trial_labels(experiment, {"generation": "2"}) == {
        "team": "vision",
        "katib.kubeflow.org/experiment": "fake",
        "generation": "2",
    }
    assert pod_labels(experiment, "fake-x")["katib.kubeflow.org/trial"] == "fake-x"
