"""The examples of architecture search, really trained: with each algorithm that can search their networks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState, TrialState
from tests.workflow.harness import House

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def example(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "nas" / f"{name}.yaml").read_text())
    return document


async def ran(house: House, document: dict[str, Any]) -> tuple[ExperimentRecord, list[TrialRecord]]:
    """Where its files say that it is to be started: in the root of the repository."""
    pytest.importorskip("autograd")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    context = StartContext(working_dir=str(ROOT), backend="local", environment={"PATH": path})
    record = await house.ended(await house.client.submit(document, context=context), 280)
    assert record.state is ExperimentState.SUCCEEDED, f"{record.reason}: {record.message}"
    trials = house.store.trials(record.uid)
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    return record, trials


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "algorithm",
    [
        "enas",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("nas-evolution", "tpe", "random", "multivariate-tpe")
        ),
    ],
)
async def test_each_of_its_algorithms_searches_the_networks_of_the_enas_example(house: House, algorithm: str) -> None:
    document = example("enas")
    document["spec"] |= {"maxTrialCount": 3, "maxFailedTrialCount": 0}
    # The second network is asked for with the first one's outcome, the third with both: a model sees what it learns of.
    document["spec"]["parallelTrialCount"] = 1
    settings = document["spec"]["algorithm"]["algorithmSettings"]
    if algorithm != "enas":
        settings[:] = [setting for setting in settings if setting["name"] == "random_state"]
    if algorithm in ("tpe", "multivariate-tpe"):
        settings.append({"name": "n_startup_jobs" if algorithm == "tpe" else "n_startup_trials", "value": "1"})
    document["spec"]["algorithm"]["algorithmName"] = algorithm
    record, trials = await ran(house, document)
    for trial in trials:
        assert set(trial.parameters) == {"architecture", "nn_config"}
        rows = json.loads(str(trial.parameters["architecture"]))
        config = json.loads(str(trial.parameters["nn_config"]).replace("'", '"'))
        assert [len(row) for row in rows] == [1, 2, 3, 4]
        assert set(config["embedding"]) == {str(row[0]) for row in rows}
        assert set(trial.metrics) >= {"Validation-Accuracy", "Training-Accuracy", "Validation-Loss"}
    accuracies = [float(trial.objective or "nan") for trial in trials]
    assert record.best is not None
    assert record.best.objective_value == max(accuracies)
    assert max(accuracies) > 0.5, "ten digits: chance is 0.1"


@pytest.mark.timeout(300)
async def test_the_darts_example_searches_a_cell_and_its_best_is_the_genotype(house: House) -> None:
    document = example("darts")
    for setting in document["spec"]["algorithm"]["algorithmSettings"]:
        setting["value"] = "1" if setting["name"] == "num_epochs" else setting["value"]
    record, (trial,) = await ran(house, document)
    assert record.best == trial
    assert (trial.objective or "").startswith("Genotype(normal=[[(")
    assert float(trial.metrics["Supernet-Accuracy"]) > 0.1
