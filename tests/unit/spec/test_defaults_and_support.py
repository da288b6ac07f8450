"""Katib's defaults per kind and collector, what this version runs on which backend, and how long a verdict takes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from evertune.spec import check, load_experiment, parse_documents, unsupported_here
from tests.unit.spec.samples import EXAMPLES, REMOVED, SomeAlgorithms, base

JOB = "spec__trialTemplate__trialSpec"
ARGS = ["${trialParameters.numLayers}", "${trialParameters.optimizer}"]
COLLECTING = "spec__metricsCollectorSpec"


def _spec(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = load_experiment(base(**changes)).manifest()["spec"]
    return spec


def _condition(kind: str) -> str:
    return f'status.conditions.#(type=="{kind}")#|#(status=="True")#'


@pytest.mark.parametrize(
    ("kind", "success", "labels"),
    [
        ("Job", "Complete", None),
        ("TFJob", "Succeeded", {"training.kubeflow.org/job-role": "master"}),
        ("PyTorchJob", "Succeeded", {"training.kubeflow.org/job-role": "master"}),
        ("XGBoostJob", "Succeeded", {"training.kubeflow.org/job-role": "master"}),
        ("MPIJob", "Succeeded", {"training.kubeflow.org/job-role": "master"}),
        (
            "TrainJob",
            "Complete",
            {
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": "0",
            },
        ),
    ],
)
def test_each_kind_has_its_conditions_and_labels(kind: str, success: str, labels: dict[str, str] | None) -> None:
    changes: dict[str, Any] = {
        "spec__trialTemplate__successCondition": REMOVED,
        "spec__trialTemplate__failureCondition": REMOVED,
    }
    if kind != "Job":
        pod = {"spec": {"containers": [base()["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]]}}
        pod["spec"]["containers"][0] = pod["spec"]["containers"][0]["spec"]["containers"][0]
        replicas = {"pytorchReplicaSpecs": {"Master": {"template": pod}}}
        changes |= {f"{JOB}__kind": kind, f"{JOB}__apiVersion": "kubeflow.org/v1", f"{JOB}__spec": replicas}
    template = _spec(**changes)["trialTemplate"]
    assert template["successCondition"] == _condition(success)
    assert template["failureCondition"] == _condition("Failed")
    assert template.get("primaryPodLabels") == labels


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (REMOVED, {"collector": {"kind": "StdOut"}}),
        (
            {"source": {"filter": {"metricsFormat": ["(a)(b)"]}}},
            {"collector": {"kind": "StdOut"}, "source": {"filter": {"metricsFormat": ["(a)(b)"]}}},
        ),
        (
            {"collector": {"kind": "File"}},
            {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"path": "/var/log/katib/metrics.log", "kind": "File", "format": "TEXT"}},
            },
        ),
        (
            {"collector": {"kind": "TensorFlowEvent"}},
            {
                "collector": {"kind": "TensorFlowEvent"},
                "source": {"fileSystemPath": {"path": "/var/log/katib/tfevent/", "kind": "Directory"}},
            },
        ),
        (
            {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"port": "0"}}},
            {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"path": "/metrics", "port": 8080}}},
        ),
    ],
)
def test_each_collector_has_its_source(given: Any, expected: dict[str, Any]) -> None:
    assert _spec(**{COLLECTING: given})["metricsCollectorSpec"] == expected


def test_strategies_follow_the_objective_and_keep_the_users() -> None:
    spec = _spec(
        spec__objective__additionalMetricNames=["loss", "f1"],
        spec__objective__metricStrategies=[{"name": "loss", "value": "latest"}],
    )
    assert spec["objective"]["metricStrategies"] == [
        {"name": "loss", "value": "latest"},
        {"name": "accuracy", "value": "max"},
        {"name": "f1", "value": "max"},
    ]


def test_parallelism_defaults_to_three_and_the_trial_budget_to_none() -> None:
    spec = _spec(spec__parallelTrialCount=REMOVED, spec__maxTrialCount=REMOVED)
    assert spec["parallelTrialCount"] == 3
    assert "maxTrialCount" not in spec
    assert "maxFailedTrialCount" not in spec


@pytest.mark.parametrize(
    ("changes", "backend", "paths"),
    [
        ({}, "local", []),
        ({}, "kubernetes", []),
        ({}, "slurm", ["metadata.annotations[evertune.io/backend]"]),
        ({f"{COLLECTING}__collector__kind": "None"}, "local", []),
        ({f"{COLLECTING}__collector__kind": "Push"}, "local", []),
        ({f"{COLLECTING}__collector__kind": "File"}, "local", []),
        ({f"{COLLECTING}__collector__kind": "TensorFlowEvent"}, "local", []),
        (
            {f"{COLLECTING}__collector": {"kind": "Custom", "customCollector": {"name": "c", "image": "i"}}},
            "local",
            [],
        ),
        ({f"{COLLECTING}__collector__kind": "PrometheusMetric", "spec__parallelTrialCount": 1}, "local", []),
        (
            {f"{COLLECTING}__collector__kind": "PrometheusMetric", "spec__parallelTrialCount": 2},
            "local",
            ["spec.metricsCollectorSpec.source.httpGet.port"],
        ),
        (
            {f"{JOB}__spec__template__spec__containers__0": {"name": "training", "args": ARGS}},
            "local",
            ["spec.trialTemplate.trialSpec.spec.template.spec.containers[0].command"],
        ),
        (
            {f"{JOB}__kind": "Workflow", f"{JOB}__apiVersion": "argoproj.io/v1alpha1"},
            "local",
            ["spec.trialTemplate.trialSpec.kind"],
        ),
    ],
)
def test_what_this_version_cannot_run_is_a_second_verdict(
    changes: dict[str, Any], backend: str, paths: list[str]
) -> None:
    problems = unsupported_here(load_experiment(base(**changes)), backend)
    assert [(problem.type, problem.path) for problem in problems] == [("Forbidden", path) for path in paths]


def test_trials_that_would_share_a_scrape_port_are_told_what_to_do() -> None:
    changes = {f"{COLLECTING}__collector__kind": "PrometheusMetric", "spec__parallelTrialCount": 4}
    (problem,) = unsupported_here(load_experiment(base(**changes)), "local")
    assert str(problem) == (
        "spec.metricsCollectorSpec.source.httpGet.port: 4 trials at once on one machine cannot all show their metrics "
        "on port 8080; set spec.parallelTrialCount to 1, or let trials push: evertune.report and the collector Push"
    )


def test_a_verdict_takes_less_than_five_milliseconds() -> None:
    text = (EXAMPLES / "hp-tuning" / "random.yaml").read_bytes()
    fastest = 1.0
    for _ in range(20):
        started = time.perf_counter()
        assert check(parse_documents(text, "random.yaml")[0], SomeAlgorithms()).valid
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 0.005
