"""Katib's own validator cases, as (class, path): what its webhook answers, ours answers too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.spec.samples import REMOVED, base, found

T = "spec.trialTemplate"
C = "spec.metricsCollectorSpec"
JOB = "spec__trialTemplate__trialSpec"
CONTAINER = f"{JOB}__spec__template__spec__containers__0"
PARAMETERS = "spec__trialTemplate__trialParameters"
LAYERS = "spec__parameters__0"
TEMPLATES = {("ns", "templates", "job.yaml"): "apiVersion: batch/v1\nkind: Job\n${trialParameters.numLayers}: x\n"}

CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "valid": ({}, []),
    # TestValidateExperiment
    "name too long": ({"metadata__name": "a" * 41}, [("Invalid", "metadata.name")]),
    "name starts with a digit": ({"metadata__name": "1234-test"}, [("Invalid", "metadata.name")]),
    "no objective": ({"spec__objective": REMOVED}, [("Required", "spec.objective")]),
    "objective type unknown": ({"spec__objective__type": ""}, [("Invalid", "spec.objective.type")]),
    "no objective metric": (
        {"spec__objective__objectiveMetricName": ""},
        [("Required", "spec.objective.objectiveMetricName")],
    ),
    "objective among the additional": (
        {"spec__objective__additionalMetricNames": ["loss", "accuracy"]},
        [("Invalid", "spec.objective.additionalMetricNames")],
    ),
    "no algorithm": ({"spec__algorithm": REMOVED}, [("Required", "spec.algorithm")]),
    "no algorithm name": ({"spec__algorithm__algorithmName": ""}, [("Required", "spec.algorithm.algorithmName")]),
    "unknown algorithm": (
        {"spec__algorithm__algorithmName": "invalid-algorithm"},
        [("Invalid", "spec.algorithm.algorithmName")],
    ),
    "no early stopping name": ({"spec__earlyStopping": {}}, [("Required", "spec.earlyStopping.algorithmName")]),
    "unknown early stopping": (
        {"spec__earlyStopping": {"algorithmName": "none"}},
        [("Invalid", "spec.earlyStopping.algorithmName")],
    ),
    "negative maxFailedTrialCount": ({"spec__maxFailedTrialCount": -1}, [("Invalid", "spec.maxFailedTrialCount")]),
    "negative maxTrialCount": ({"spec__maxTrialCount": -1}, [("Invalid", "spec.maxTrialCount")]),
    "zero maxTrialCount": ({"spec__maxTrialCount": 0}, [("Invalid", "spec.maxTrialCount")]),
    "negative parallelTrialCount": ({"spec__parallelTrialCount": -1}, [("Invalid", "spec.parallelTrialCount")]),
    "maxFailed above max": ({"spec__maxFailedTrialCount": 7}, [("Invalid", "spec.maxFailedTrialCount")]),
    "maxFailed equals max": ({"spec__maxFailedTrialCount": 6}, []),
    "parallel above max": ({"spec__parallelTrialCount": 7}, [("Invalid", "spec.parallelTrialCount")]),
    "parallel equals max": ({"spec__parallelTrialCount": 6}, []),
    "the default parallel counts": (
        {"spec__parallelTrialCount": REMOVED, "spec__maxTrialCount": 2},
        [("Invalid", "spec.parallelTrialCount")],
    ),
    "resume policy unknown": ({"spec__resumePolicy": "invalid-policy"}, [("Invalid", "spec.resumePolicy")]),
    "neither parameters nor nasConfig": (
        {"spec__parameters": [], PARAMETERS: [], CONTAINER + "__command": ["x"]},
        [("Required", "spec")],
    ),
    "parameters and nasConfig": ({"spec__nasConfig": {"operations": []}}, [("Invalid", "spec")]),
    "no trial template": ({"spec__trialTemplate": REMOVED}, [("Required", T)]),
    # TestValidateParameters
    "bad parameter type": ({f"{LAYERS}__parameterType": "invalid"}, [("Invalid", "spec.parameters[0].parameterType")]),
    "empty space": ({f"{LAYERS}__feasibleSpace": REMOVED}, [("Required", "spec.parameters[0].feasibleSpace")]),
    "list on an int": (
        {f"{LAYERS}__feasibleSpace__list": ["1"]},
        [("Invalid", "spec.parameters[0].feasibleSpace.list")],
    ),
    "no min": ({f"{LAYERS}__feasibleSpace__min": ""}, [("Required", "spec.parameters[0].feasibleSpace.max")]),
    "no max": ({f"{LAYERS}__feasibleSpace__max": REMOVED}, [("Required", "spec.parameters[0].feasibleSpace.max")]),
    "max on a categorical": (
        {"spec__parameters__1__feasibleSpace__max": "1"},
        [("Invalid", "spec.parameters[1].feasibleSpace")],
    ),
    "bad distribution": (
        {f"{LAYERS}__feasibleSpace__distribution": "invalid"},
        [("Invalid", "spec.parameters[0].feasibleSpace.distribution")],
    ),
    # TestValidateTrialTemplate
    "no trialParameters": ({PARAMETERS: REMOVED}, [("Required", f"{T}.trialParameters")]),
    "no trial source": ({JOB: REMOVED}, [("Required", f"{T}.TrialSource")]),
    "both trial sources": (
        {
            "spec__trialTemplate__configMap": {
                "configMapName": "a",
                "configMapNamespace": "b",
                "templatePath": "c",
            }
        },
        [("Required", T)],
    ),
    "incomplete configMap": (
        {JOB: REMOVED, "spec__trialTemplate__configMap": {"configMapName": "templates"}},
        [("Required", f"{T}.configMap")],
    ),
    "wrong path in the configMap": (
        {
            JOB: REMOVED,
            "spec__trialTemplate__configMap": {
                "configMapName": "templates",
                "configMapNamespace": "ns",
                "templatePath": "wrong",
            },
        },
        [("Invalid", T)],
    ),
    "empty reference": (
        {f"{PARAMETERS}__0__reference": ""},
        [("Invalid", T), ("Invalid", f"{T}.trialParameters[0]")],
    ),
    "bad name": (
        {f"{PARAMETERS}__0__name": "{invalid-name}"},
        [("Invalid", T), ("Invalid", f"{T}.trialParameters[0]")],
    ),
    "duplicate name": (
        {f"{PARAMETERS}__1__name": "numLayers"},
        [("Invalid", T), ("Invalid", f"{T}.trialParameters[1].name")],
    ),
    "duplicate reference": (
        {f"{PARAMETERS}__1__reference": "layers"},
        [("Invalid", T), ("Invalid", f"{T}.trialParameters[1].reference")],
    ),
    "unknown reference": (
        {f"{PARAMETERS}__1__reference": "wrong-ref"},
        [("Invalid", f"{T}.trialParameters[1].reference")],
    ),
    "any reference without parameters": (
        {"spec__parameters": REMOVED, "spec__nasConfig": {"operations": []}, f"{PARAMETERS}__0__reference": "any"},
        [],
    ),
    "metadata references": (
        {
            f"{PARAMETERS}__2": {"name": "trial", "reference": "${trialSpec.Name}"},
            f"{PARAMETERS}__3": {"name": "note", "reference": "${trialSpec.Annotations[a.b/c]}"},
            f"{PARAMETERS}__4": {"name": "label", "reference": "${trialSpec.Labels[team]}"},
            f"{JOB}__metadata": {"annotations": {"a.b/c": "x"}, "labels": {"team": "y"}},
            f"{CONTAINER}__args": [
                "${trialParameters.trial}",
                "${trialParameters.note}",
                "${trialParameters.label}",
            ],
        },
        [],
    ),
    "metadata reference unknown": (
        {
            f"{PARAMETERS}__2": {"name": "uid", "reference": "${trialSpec.Uid}"},
            f"{CONTAINER}__args": ["${trialParameters.uid}"],
        },
        [("Invalid", f"{T}.trialParameters[2].reference")],
    ),
    "missing placeholder": (
        {f"{CONTAINER}__command": ["python", "${trialParameters.optimizer}"]},
        [("Invalid", f"{T}.trialParameters[0].name")],
    ),
    "extra placeholder": ({f"{CONTAINER}__args": ["${trialParameters.extra}"]}, [("Invalid", T)]),
    "name and namespace present": ({f"{JOB}__metadata": {"name": "x", "namespace": "y"}}, [("Invalid", T)]),
    "no kind": ({f"{JOB}__kind": REMOVED}, [("Invalid", T)]),
    "no apiVersion": ({f"{JOB}__apiVersion": REMOVED}, [("Required", T)]),
    "custom kind": ({f"{JOB}__kind": "CustomJob", f"{JOB}__apiVersion": "org/v1"}, []),
    "no primary container": (
        {"spec__trialTemplate__primaryContainerName": ""},
        [("Required", f"{T}.primaryContainerName")],
    ),
    "no success condition": (
        {"spec__trialTemplate__successCondition": "", f"{JOB}__kind": "CustomJob"},
        [("Required", T)],
    ),
    # TestValidateTrialJob
    "wrong type in the Job": ({f"{JOB}__spec__backoffLimit": "three"}, [("Invalid", T)]),
    "unknown field in the Job": ({f"{JOB}__spec__NotExistAttribute": "Invalid"}, [("Invalid", T)]),
    "GPU resources in the Job": (
        {f"{CONTAINER}__resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"nvidia.com/gpu": "1"}}},
        [],
    ),
    "another Job's fields are not looked at": (
        {f"{JOB}__apiVersion": "org/v1", f"{JOB}__spec__NotExistAttribute": "x"},
        [],
    ),
    # TestValidateMetricsCollector
    "collector unknown": ({"spec__metricsCollectorSpec__collector__kind": "x"}, [("Invalid", f"{C}.collector.kind")]),
    "collector without kind": (
        {"spec__metricsCollectorSpec__collector": {}},
        [("Invalid", f"{C}.collector.kind")],
    ),
    "File with a relative path": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"path": "not/absolute"}},
            }
        },
        [("Required", f"{C}.source.fileSystemPath.path")],
    ),
    "File that is a directory": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"path": "/a", "kind": "Directory"}},
            }
        },
        [("Required", f"{C}.source.fileSystemPath.path")],
    ),
    "events with a relative path": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "TensorFlowEvent"},
                "source": {"fileSystemPath": {"path": "not/absolute"}},
            }
        },
        [("Required", f"{C}.source")],
    ),
    "events with a format": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "TensorFlowEvent"},
                "source": {"fileSystemPath": {"path": "/a", "format": "JSON"}},
            }
        },
        [("Invalid", f"{C}.source.fileSystemPath.format")],
    ),
    "scrape with bad port and path": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "PrometheusMetric"},
                "source": {"httpGet": {"port": "Port", "path": "not/absolute"}},
            }
        },
        [("Invalid", f"{C}.source.httpGet.path"), ("Invalid", f"{C}.source.httpGet.port")],
    ),
    "scrape with defaults": ({"spec__metricsCollectorSpec__collector__kind": "PrometheusMetric"}, []),
    "Custom without container": (
        {"spec__metricsCollectorSpec__collector__kind": "Custom"},
        [("Required", f"{C}.collector.customCollector")],
    ),
    "Custom with a bad path": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "Custom", "customCollector": {"name": "c"}},
                "source": {"fileSystemPath": {"path": "not/absolute", "kind": "File"}},
            }
        },
        [("Invalid", f"{C}.source.fileSystemPath")],
    ),
    "filter is no regular expression": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"filter": {"metricsFormat": ["[)(}"]}},
            }
        },
        [("Invalid", f"{C}.source.filter.metricsFormat")],
    ),
    "filter with one group": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"filter": {"metricsFormat": [r"accuracy=([\d.]+)"]}},
            }
        },
        [("Invalid", f"{C}.source.filter.metricsFormat")],
    ),
    "bad file format": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"path": "/a", "format": "CSV"}},
            }
        },
        [("Required", f"{C}.source.fileSystemPath.format")],
    ),
    "filter with JSON": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"path": "/a", "format": "JSON"}, "filter": {}},
            }
        },
        [("Invalid", f"{C}.source.filter")],
    ),
    "valid JSON file": (
        {
            "spec__metricsCollectorSpec": {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"path": "/a", "format": "JSON"}},
            }
        },
        [],
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_a_case_of_katibs_validator_gets_katibs_classes_and_paths(case: str) -> None:
    changes, expected = CASES[case]
    assert found(base(**changes), templates=TEMPLATES) == expected


def test_a_template_that_is_not_readable_after_substitution_is_refused() -> None:
    data = base(
        **{
            JOB: REMOVED,
            "spec__trialTemplate__configMap": {
                "configMapName": "templates",
                "configMapNamespace": "ns",
                "templatePath": "job.yaml",
            },
        }
    )
    text = "apiVersion: batch/v1\nkind: [${trialParameters.numLayers}\n# ${trialParameters.optimizer}\n"
    assert found(data, templates={("ns", "templates", "job.yaml"): text}) == [("Invalid", T)]
    good = "apiVersion: org/v1\nkind: X\nreplicas: ${trialParameters.numLayers}\nopt: ${trialParameters.optimizer}\n"
    assert found(data, templates={("ns", "templates", "job.yaml"): good}) == []


def test_a_configmap_that_is_not_at_hand_is_refused() -> None:
    data = base(
        **{
            JOB: REMOVED,
            "spec__trialTemplate__configMap": {
                "configMapName": "templates",
                "configMapNamespace": "ns",
                "templatePath": "job.yaml",
            },
        }
    )
    assert found(data, templates={}) == [("Invalid", T)]
    assert found(data) == []


def test_without_a_catalog_the_algorithm_is_not_judged() -> None:
    assert found(base(spec__algorithm__algorithmName="anything"), catalog=None) == []
