"""Katib's own example files, unmodified: each gets the verdict that Katib gives it, and one trial of each renders."""

from __future__ import annotations

from pathlib import Path

import pytest

from evertune.domain.space import Value
from evertune.spec import check, parse_documents, render_trial, to_space, unsupported_here
from tests.unit.spec.samples import EXAMPLES, SomeAlgorithms

LATER = [("Invalid", "spec.algorithm.algorithmName")]  # known to Katib, not available in this version
ALGORITHM = "spec.algorithm.algorithmName"

# file -> problems of structure (Katib's verdict), what this version's catalog adds, paths that local trials refuse
VERDICTS: dict[str, tuple[list[tuple[str, str]], bool, list[str]]] = {
    "early-stopping/median-stop": ([], True, []),
    "hp-tuning/bayesian-optimization": ([], False, []),
    "hp-tuning/cma-es": ([], False, []),
    "hp-tuning/grid": ([], True, []),
    "hp-tuning/hyperband": ([], False, []),
    "hp-tuning/multivariate-tpe": ([], True, []),
    "hp-tuning/optuna-distribution": ([], True, []),
    "hp-tuning/random": ([], True, []),
    "hp-tuning/simple-pbt": ([("Invalid", "spec.maxFailedTrialCount")], False, []),
    "hp-tuning/sobol": ([], False, []),
    "hp-tuning/tpe": ([], True, []),
    "kubeflow-training-operator/pytorchjob-mnist": ([], True, ["spec.trialTemplate.trialSpec.kind"]),
    "kubeflow-training-operator/tfjob-mnist-with-summaries": (
        [],
        True,
        ["spec.metricsCollectorSpec.collector.kind", "spec.trialTemplate.trialSpec.kind"],
    ),
    "metrics-collector/custom-metrics-collector": ([], True, ["spec.metricsCollectorSpec.collector.kind"]),
    "metrics-collector/file-metrics-collector": ([], True, ["spec.metricsCollectorSpec.collector.kind"]),
    "metrics-collector/file-metrics-collector-with-json-format": (
        [],
        True,
        ["spec.metricsCollectorSpec.collector.kind"],
    ),
    "nas/darts-cpu": ([], False, ["spec.nasConfig"]),
    "nas/darts-gpu": ([], False, ["spec.nasConfig"]),
    "nas/enas-cpu": ([], False, ["spec.nasConfig"]),
    "resume-experiment/long-running-resume": ([], True, []),
    "trial-template/trial-configmap-source": ([], False, ["spec.trialTemplate.configMap"]),
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
    structure, available, refused_here = VERDICTS[name]
    (document,) = parse_documents(_read(name), name)
    verdict = check(document)
    assert [(problem.type, problem.path) for problem in verdict.problems] == structure
    judged = check(document, SomeAlgorithms())
    later = [] if available else LATER
    assert sorted((problem.type, problem.path) for problem in judged.problems) == sorted(structure + later)
    assert all(problem.line is not None for problem in judged.problems)
    if verdict.experiment is not None:
        assert [problem.path for problem in unsupported_here(verdict.experiment, "local")] == refused_here


IN_A_CLUSTER = "trial-template/trial-configmap-source"  # its template is in a ConfigMap
VALID = [name for name, (structure, _, _) in VERDICTS.items() if not structure and name != IN_A_CLUSTER]


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


def test_an_unavailable_algorithm_is_said_to_be_known_but_not_here() -> None:
    (document,) = parse_documents(_read("hp-tuning/cma-es"), "cma-es.yaml")
    (problem,) = check(document, SomeAlgorithms()).problems
    assert problem.message == '"cmaes" is not available in this version'
    assert problem.hint == "known: random grid tpe multivariate-tpe picky"


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
