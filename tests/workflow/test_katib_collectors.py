"""Katib's metric collector examples, whole experiments, with the stand-ins of examples/katib."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from evertune.contracts import StartContext
from evertune.domain.states import ExperimentState, TrialState
from tests.workflow.harness import House

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "examples/katib"
MINE = {
    "name": "mine",
    "command": ["sh", "-c"],
    "args": [
        'while [ ! -e "$EVERTUNE_EXIT_FILE" ]; do sleep 0.1; done; echo reading; '
        """sed -n 's/.*metricName: accuracy, metricValue: \\([0-9.]*\\).*/{"metrics": {"accuracy": \\1}}/p' """
        "/katib/mnist.log"
    ],
}


def roots(*, without: str = "nothing") -> dict[str, str]:
    images = yaml.safe_load((STAND_INS / "images.yaml").read_text())
    return {image: str(STAND_INS / folder) for image, folder in images.items() if without not in image}


@pytest.mark.parametrize(
    ("name", "own", "without", "warned"),
    [
        ("file-metrics-collector", None, "nothing", False),
        ("file-metrics-collector-with-json-format", None, "nothing", False),
        ("custom-metrics-collector", None, "nothing", False),
        ("custom-metrics-collector", None, "custom", True),
        ("custom-metrics-collector", MINE, "custom", False),
    ],
)
async def test_an_experiment_with_a_collector_of_katibs_finds_its_best_trial(
    house: House,
    request: pytest.FixtureRequest,
    name: str,
    own: dict[str, object] | None,
    without: str,
    warned: bool,
) -> None:
    document = yaml.safe_load((ROOT / "tests/data/katib/metrics-collector" / f"{name}.yaml").read_text())
    document["metadata"]["name"] = request.node.callspec.id.lower()  # Temporal is the same for all of them
    document["spec"].update(maxTrialCount=4, parallelTrialCount=2, maxFailedTrialCount=1)
    if own is not None:
        document["spec"]["metricsCollectorSpec"]["collector"]["customCollector"] = own
    context = StartContext(
        working_dir=str(house.workdir),
        backend="local",
        environment={"PATH": os.environ["PATH"], "STAND_IN_SECONDS": "0"},
        image_roots=roots(without=without),
    )
    record = await house.ended(await house.client.submit(document, context=context), 110)
    assert record.state is ExperimentState.SUCCEEDED, record.message
    trials = house.store.trials(record.uid)
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    values = [trial.objective_value for trial in trials if trial.objective_value is not None]
    assert len(values) == 4
    assert record.best is not None
    assert record.best.objective_value == max(values)
    assert [trial for trial in trials if "accuracy" not in trial.metrics] == []
    # What the stand-in computes: the nearer to lr 0.02 and momentum 0.6, the better.
    points = house.store.points(record.uid, record.best.number, metric="accuracy")
    assert [point.number for _, point in points] == [record.best.objective_value], "reported once"
    said = [attempt.message for trial in trials for attempt in house.store.attempts(record.uid, trial.number)]
    assert all(("warning: the custom collector is not run" in message) == warned for message in said)
