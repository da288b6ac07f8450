"""Katib's own experiments in a real cluster, with stand-ins under the very names of their images.

`deploy/cluster/stand-ins.sh` puts those there. What is changed of a file: the namespace, fewer trials, and that an
image which is there is not pulled - `latest` would be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.protocols import JsonDict
from tests.kubernetes.real import Namespace, a_namespace, nothing_left
from tests.kubernetes.rendering import KATIB
from tests.kubernetes.stack import a_real_house
from tests.workflow.harness import House

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

TRIALS = 3


@pytest.fixture
def namespace(full_cluster: Path) -> Iterator[Namespace]:
    with a_namespace(full_cluster) as made:
        yield made


@pytest.fixture
async def house(temporal_address: str, full_cluster: Path, tmp_path: Path) -> AsyncIterator[House]:
    async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
        yield house


def unpulled(value: Any) -> Any:
    """The same, but every container takes an image that is there."""
    if isinstance(value, list):
        return [unpulled(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: unpulled(each) for key, each in value.items()}
    return {**found, "imagePullPolicy": "IfNotPresent"} if "image" in found else found


def example(name: str, namespace: Namespace) -> JsonDict:
    document: JsonDict = unpulled(yaml.safe_load((KATIB / f"{name}.yaml").read_text()))
    document["metadata"]["namespace"] = namespace.name
    document["spec"].update(maxTrialCount=TRIALS, parallelTrialCount=2, maxFailedTrialCount=1)
    return document


async def ended(house: House, document: JsonDict) -> ExperimentRecord:
    handle = await house.client.submit(document, context=StartContext(backend="kubernetes"))
    return await house.ended(handle, 200)


@pytest.mark.parametrize(
    ("name", "objective", "points"),
    [
        ("hp-tuning/random", "loss", 10),
        ("hp-tuning/grid", "loss", 10),
        ("metrics-collector/file-metrics-collector", "accuracy", 1),
        ("metrics-collector/file-metrics-collector-with-json-format", "accuracy", 1),
        ("metrics-collector/custom-metrics-collector", "accuracy", 1),
        ("kubeflow-training-operator/tfjob-mnist-with-summaries", "accuracy", 1),
        ("kubeflow-training-operator/pytorchjob-mnist", "loss", 10),
    ],
)
async def test_katibs_example_finds_its_best_trial_by_its_collector(
    house: House, namespace: Namespace, name: str, objective: str, points: int
) -> None:
    record = await ended(house, example(name, namespace))

    trials = house.store.trials(record.uid)
    assert record.state is ExperimentState.SUCCEEDED, (record.message, [trial.message for trial in trials])
    assert [trial.state for trial in trials] == [TrialState.SUCCEEDED] * TRIALS
    values = [trial.objective_value for trial in trials if trial.objective_value is not None]
    assert len(values) == TRIALS
    best = max(values) if objective == "accuracy" else min(values)
    assert record.best is not None
    assert record.best.objective_value == best
    for trial in trials:
        # By the collector in the pod, while it ran: the worker itself has read no file and no log.
        found = house.store.points(record.uid, trial.number, metric=objective)
        assert len(found) >= points
        assert {point.number for _, point in found} >= {trial.objective_value}
    # A PyTorch worker takes its 30 s of grace.
    await asyncio.to_thread(nothing_left, namespace, record.uid, timeout_s=90)
