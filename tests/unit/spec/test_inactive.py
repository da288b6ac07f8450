"""Conditional parameters that a trial does not have are absent from its command, arguments and environment."""

from __future__ import annotations

from typing import Any

import pytest

from evertune.errors import SpecError
from evertune.spec import load_experiment, render_trial
from tests.unit.spec.samples import base

M = "${trialParameters.momentum}"
REF = {"fieldRef": {"fieldPath": "status.podIP"}}
POD = "spec__trialTemplate__trialSpec__spec__template__spec__containers__0"


def rendered(values: dict[str, Any] | None = None, templates: Any = None, **changes: Any) -> dict[str, Any]:
    """The container of a trial whose optimizer has no momentum."""
    momentum = {"name": "momentum", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}
    data = base(
        **{
            "spec__parameters__2": {**momentum, "when": {"opt": ["sgd"]}},
            "spec__trialTemplate__trialParameters__2": {"name": "momentum", "reference": "momentum"},
            **changes,
        }
    )
    experiment = load_experiment(data, templates=templates)
    manifest = render_trial(
        experiment, trial_name="t", parameters=values or {"layers": 2, "opt": "adam"}, templates=templates
    )
    container: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (["train", f"--momentum={M}", "--x"], ["train", "--x"]),
        (["train", "--momentum", M, "--x"], ["train", "--x"]),
        (["train", "-m", M], ["train"]),
        (["train", M, "--x"], ["train", "--x"]),
        (["train", "1", M], ["train", "1"]),
        (["train", "--a=1", M], ["train", "--a=1"]),
        (["train", "--verbose", f"momentum={M}"], ["train", "--verbose"]),
        (["sh", "-c", f"train --lr 1 --momentum {M} --x"], ["sh", "-c", "train --lr 1 --x"]),
        (["sh", "-c", f"train --momentum={M} | tee log"], ["sh", "-c", "train | tee log"]),
        (["sh", "-c", f'train --momentum "{M}"'], ["sh", "-c", "train"]),
        (["sh", "-c", f'train "a b {M}"'], ["sh", "-c", 'train "a b "']),
        (["sh", "-c", f"train\\\n  --x \\\n  --momentum {M}\necho 1"], ["sh", "-c", "train\\\n  --x \\\necho 1"]),
        (["python", "-c", f"print({M} + 1)"], ["python", "-c", "print( + 1)"]),
        (["sh", "-c", f"{M} train"], ["sh", "-c", "train"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["command", "args"])
def test_an_argument_that_is_not_there_is_left_out_with_its_flag(key: str, written: list[str], left: list[str]) -> None:
    other = {"command": "args", "args": "command"}[key]
    uses: Any = ["--layers=${trialParameters.numLayers}", "--opt=${trialParameters.optimizer}"]
    changes: dict[str, Any] = {f"{POD}__{key}": written, f"{POD}__{other}": uses}
    assert rendered(**changes)[key] == left


def test_an_entry_of_the_environment_that_is_not_there_is_left_out() -> None:
    env: list[Any] = [{"name": "MOMENTUM", "value": M}, {"name": "A", "value": "1"}, {"name": "N", "valueFrom": REF}]
    changes: dict[str, Any] = {f"{POD}__env": env}
    assert rendered(**changes)["env"] == env[1:]


def test_elsewhere_it_is_an_empty_text() -> None:
    changes: dict[str, Any] = {f"{POD}__workingDir": f"/runs/{M}/x"}
    assert rendered(**changes)["workingDir"] == "/runs//x"


def test_a_parameter_that_is_there_is_filled_in() -> None:
    values = {"layers": 2, "opt": "sgd", "momentum": 0.9}
    changes: dict[str, Any] = {f"{POD}__args": ["--momentum", M]}
    assert rendered(values, **changes)["args"] == ["--momentum", "0.9"]


def test_a_parameter_that_should_be_there_and_has_no_value_is_an_error() -> None:
    changes: dict[str, Any] = {f"{POD}__args": ["--momentum", M]}
    with pytest.raises(SpecError, match="no value for"):
        rendered({"layers": 2, "opt": "sgd"}, **changes)


def test_a_template_in_a_configmap_is_treated_alike() -> None:
    source = {"configMapName": "t", "configMapNamespace": "ns", "templatePath": "t.yaml"}
    text = """
apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: training
          image: mnist
          args: ["${trialParameters.numLayers}", "${trialParameters.optimizer}", -m, "${trialParameters.momentum}"]
          env:
            - name: MOMENTUM
              value: ${trialParameters.momentum}
"""
    templates = {("ns", "t", "t.yaml"): text}
    data: dict[str, Any] = {"spec__trialTemplate__trialSpec": None, "spec__trialTemplate__configMap": source}
    container = rendered(templates=templates, **data)
    assert container["args"] == ["2", "adam"]
    assert container["env"] == []
