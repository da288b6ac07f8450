"""The base object of Katib's validator tests, and small helpers to bend it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algorithms.stoppers import registry as stoppers
from evertune.domain.metrics import Objective
from evertune.domain.space import SearchProblem
from evertune.errors import Problem
from evertune.spec import Document, Verdict, check

EXAMPLES = Path(__file__).parents[2] / "data" / "katib"

COMPLETE = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
FAILED = 'status.conditions.#(type=="Failed")#|#(status=="True")#'

_BASE: dict[str, Any] = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "fake", "namespace": "default"},
    "spec": {
        "parallelTrialCount": 3,
        "maxTrialCount": 6,
        "metricsCollectorSpec": {"collector": {"kind": "StdOut"}},
        "objective": {"type": "maximize", "goal": 0.99, "objectiveMetricName": "accuracy"},
        "algorithm": {"algorithmName": "random"},
        "parameters": [
            {"name": "layers", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "5"}},
            {"name": "opt", "parameterType": "categorical", "feasibleSpace": {"list": ["sgd", "adam", "ftrl"]}},
        ],
        "trialTemplate": {
            "primaryContainerName": "training",
            "successCondition": COMPLETE,
            "failureCondition": FAILED,
            "trialParameters": [
                {"name": "numLayers", "description": "layers", "reference": "layers"},
                {"name": "optimizer", "description": "optimizer", "reference": "opt"},
            ],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {
                                    "name": "training",
                                    "image": "mnist",
                                    "command": [
                                        "python",
                                        "train.py",
                                        "--layers=${trialParameters.numLayers}",
                                        "--opt=${trialParameters.optimizer}",
                                    ],
                                }
                            ],
                        }
                    }
                },
            },
        },
    },
}

REMOVED = object()


def base(**changes: Any) -> dict[str, Any]:
    """A valid Experiment; each change is a path with `__` between its steps (numbers are list indices)."""
    data = copy.deepcopy(_BASE)
    for path, value in changes.items():
        put(data, [int(step) if step.isdigit() else step for step in path.split("__")], value)
    return data


def put(data: Any, steps: Sequence[str | int], value: Any) -> None:
    for step in steps[:-1]:
        if isinstance(data, dict) and step not in data:
            data[step] = {}
        data = data[step]
    if value is REMOVED:
        del data[steps[-1]]
    elif isinstance(data, list) and steps[-1] == len(data):
        data.append(value)
    else:
        data[steps[-1]] = value


class SomeAlgorithms:
    """A catalog of seven; `picky` refuses every setting, to see problems come through.

    The rules of early stopping are the real ones.
    """

    RUNNING = ("random", "grid", "tpe", "multivariate-tpe", "picky")

    def names(self) -> Sequence[str]:
        return (*self.RUNNING, "cmaes", "auto")

    def check(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        if name != "picky":
            return ()
        return [
            Problem(path=f"spec.algorithm.algorithmSettings[{i}].name", type="Invalid", message=f"no setting {key}")
            for i, key in enumerate(problem.settings)
        ] + [Problem(path="spec.parameters[0]", type="Invalid", message="not this one")]

    def settings(self, name: str) -> Sequence[str]:
        return ("random_state",) if name in ("random", "grid") else ()

    def handed_out(self, name: str, problem: SearchProblem) -> Sequence[str] | None:
        return None

    def warnings(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        return ()

    def stoppers(self) -> Sequence[str]:
        return stoppers.names()

    def check_stopper(self, name: str, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        return stoppers.check(name, settings, objective)

    def stopper_warnings(
        self, name: str, settings: Mapping[str, str], objective: Objective, problem: SearchProblem
    ) -> Sequence[Problem]:
        return stoppers.warnings(name, settings, objective, problem)


def judge(data: Any, **options: Any) -> Verdict:
    return check(Document(source="test", data=data), options.pop("catalog", SomeAlgorithms()), **options)


def found(data: Any, **options: Any) -> list[tuple[str, str]]:
    """(class, path) of every error, sorted."""
    return sorted((problem.type, problem.path) for problem in judge(data, **options).problems)
