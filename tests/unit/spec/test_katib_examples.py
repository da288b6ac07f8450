"""Katib's own example files, unmodified: each gets the verdict that Katib gives it, and one trial of each renders."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithms.registry import Registry
from evertune.domain.space import Value
from evertune.spec import check, check_all, parse_documents, render_trial, to_space, unsupported_here
from tests.unit.spec.samples import EXAMPLES

ALGORITHM = "spec.algorithm.algorithmName"

# file -> Katib's verdict: the problems; and, of a valid one, the paths that keep it from running here as local trials
VERDICTS: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "early-stopping/median-stop": ([], []),
    "hp-tuning/bayesian-optimization": ([], []),
    "hp-tuning/cma-es": ([], []),
    "hp-tuning/grid": ([], []),
    "hp-tuning/hyperband": ([], []),
    "hp-tuning/multivariate-tpe": ([], []),
    "hp-tuning/optuna-distribution": ([], []),
    "hp-tuning/random": ([], []),
    "hp-tuning/simple-pbt": ([("Invalid", "spec.maxFailedTrialCount")], []),
    "hp-tuning/sobol": ([], []),
    "hp-tuning/tpe": ([], []),
    "kubeflow-training-operator/pytorchjob-mnist": ([], []),
    "kubeflow-training-operator/tfjob-mnist-with-summaries": ([], []),
    "metrics-collector/custom-metrics-collector": ([], []),
    "metrics-collector/file-metrics-collector": ([], []),
    "metrics-collector/file-metrics-collector-with-json-format": ([], []),
    "nas/darts-cpu": ([], []),
    "nas/darts-gpu": ([], []),
    "nas/enas-cpu": ([], []),
    "resume-experiment/long-running-resume": ([], []),
    "trial-template/trial-configmap-source": ([], ["spec.trialTemplate.configMap"]),
}

# The ConfigMap that Katib ships: its placeholders are not those of the example, so Katib refuses the example.
SHIPPED = {
    ("kubeflow", "trial-templates", "defaultTrialTemplate.yaml"): """
apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      containers:
        - name: training-container
          image: ghcr.io/kubeflow/katib/pytorch-mnist-cpu:latest
          command: [python3, mnist.py, "--lr=${trialParameters.learningRate}", "--momentum=${trialParameters.momentum}"]
      restartPolicy: Never
"""
}


def _read(name: str) -> bytes:
    return (EXAMPLES / f"{name}.yaml").read_bytes()


def test_the_table_names_every_example() -> None:
    files = {str(path.relative_to(EXAMPLES).with_suffix("")) for path in Path(EXAMPLES).rglob("*.yaml")}
    assert files == set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_an_example_gets_katibs_verdict(name: str) -> None:
    problems, refused_here = VERDICTS[name]
    (document,) = parse_documents(_read(name), name)
    verdict = check(document, Registry())
    assert [(problem.type, problem.path) for problem in verdict.problems] == problems
    assert all(problem.line is not None for problem in (*verdict.problems, *verdict.warnings))
    if verdict.experiment is not None:
        unsupported = unsupported_here(verdict.experiment, "local")
        assert [(problem.type, problem.path) for problem in unsupported] == [("Forbidden", at) for at in refused_here]
        assert (ALGORITHM in refused_here) == (ALGORITHM in {warning.path for warning in verdict.warnings})


VALID = [name for name, (problems, _) in VERDICTS.items() if not problems and "configmap" not in name]


@pytest.mark.parametrize("name", VALID)
def test_a_trial_of_an_example_renders(name: str) -> None:
    (document,) = parse_documents(_read(name), name)
    experiment = check(document).experiment
    assert experiment is not None
    assert experiment.spec is not None
    assert experiment.spec.trial_template is not None
    values: dict[str, Value] = {
        parameter.name: parameter.low if parameter.numeric else parameter.values[0]
        for parameter in to_space(experiment)
    }
    if experiment.spec.nas_config is not None:
        values = {item.reference or "": "{'a': 1}" for item in experiment.spec.trial_template.trial_parameters or ()}
    manifest = render_trial(experiment, trial_name="trial-x", parameters=values)
    assert manifest["metadata"] == {"name": "trial-x", "namespace": "kubeflow"}
    assert "trialParameters" not in str(manifest)


def test_a_template_in_a_configmap_that_is_not_at_hand_is_not_checked_and_that_is_said() -> None:
    text = _read("trial-template/trial-configmap-source")
    (verdict,) = check_all(parse_documents(text, "x"))
    assert verdict.valid
    (warning,) = verdict.warnings
    assert warning.path == "spec.trialTemplate.configMap"
    assert "not checked: the template is in the ConfigMap kubeflow/trial-templates" in warning.message
    assert "--configmap FILE" in (warning.hint or "")


def test_beside_other_configmaps_a_template_that_is_missing_is_a_mistake_as_in_katib() -> None:
    text = _read("trial-template/trial-configmap-source")
    (verdict,) = check_all(parse_documents(text, "x"), templates={("kubeflow", "others", "a"): "kind: Job"})
    (problem,) = verdict.problems
    assert (problem.type, problem.path) == ("Invalid", "spec.trialTemplate")
    assert "there is no ConfigMap kubeflow/trial-templates" in problem.message
    assert "into the same file" in (problem.hint or "")


def test_a_configmap_without_the_wanted_key_is_another_mistake() -> None:
    (document,) = parse_documents(_read("trial-template/trial-configmap-source"), "x")
    (problem,) = check(document, templates={("kubeflow", "trial-templates", "default.yaml"): "kind: Job"}).problems
    assert problem.message == 'the ConfigMap kubeflow/trial-templates has no key "defaultTrialTemplate.yaml"'
    assert problem.hint == 'did you mean "default.yaml"?; keys: default.yaml'


def test_the_shipped_configmap_does_not_fit_its_example_and_that_is_said() -> None:
    (document,) = parse_documents(_read("trial-template/trial-configmap-source"), "x")
    verdict = check(document, templates=SHIPPED)
    assert {(problem.type, problem.path) for problem in verdict.problems} == {
        ("Invalid", "spec.trialTemplate.trialParameters[1].name"),
        ("Invalid", "spec.trialTemplate.trialParameters[2].name"),
    }


def test_katibs_defaults_are_all_in_the_manifest() -> None:
    (document,) = parse_documents(_read("hp-tuning/random"), "x")
    experiment = check(document).experiment
    assert experiment is not None
    spec = experiment.manifest()["spec"]
    assert spec["resumePolicy"] == "Never"
    assert spec["metricsCollectorSpec"] == {"collector": {"kind": "StdOut"}}
    assert spec["objective"]["metricStrategies"] == [{"name": "loss", "value": "min"}]
    assert [item["feasibleSpace"]["distribution"] for item in spec["parameters"]] == ["uniform", "uniform"]
    template = spec["trialTemplate"]
    assert template["successCondition"] == 'status.conditions.#(type=="Complete")#|#(status=="True")#'
    assert template["failureCondition"] == 'status.conditions.#(type=="Failed")#|#(status=="True")#'
    assert "primaryPodLabels" not in template


@pytest.mark.parametrize(
    ("name", "success", "labels"),
    [
        ("pytorchjob-mnist", "Succeeded", {"training.kubeflow.org/job-role": "master"}),
        ("tfjob-mnist-with-summaries", "Succeeded", {"training.kubeflow.org/replica-type": "worker"}),
    ],
)
def test_training_jobs_get_their_own_defaults_unless_given(name: str, success: str, labels: dict[str, str]) -> None:
    (document,) = parse_documents(_read(f"kubeflow-training-operator/{name}"), name)
    experiment = check(document).experiment
    assert experiment is not None
    template = experiment.manifest()["spec"]["trialTemplate"]
    assert success in template["successCondition"]
    assert template["primaryPodLabels"] == labels
