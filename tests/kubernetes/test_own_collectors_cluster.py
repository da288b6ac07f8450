"""Collectors of the user's own whose image starts by itself, beside real pods: those that end, fail, or never end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from evertune.domain.states import ExperimentState, TrialState
from tests.kubernetes.real import IMAGE, a_namespace, experiment, nothing_left
from tests.kubernetes.stack import a_real_house, submit

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]

TRAINING = "echo $X > /out/metrics.log; sleep 2; touch /out/done"
REPORT = (
    "until [ -e /out/done ]; do sleep 0.2; done; sleep 1; "
    """printf '{"metrics": {"objective": %s}}\\n' "$(cat /out/metrics.log)" >> "$EVERTUNE_REPORT_FILE"; """
)


@pytest.mark.parametrize(
    ("then", "warning"),
    [
        ("exit 0", None),
        ("exit 3", "the collector's container own ended with 3"),
        ("while :; do sleep 1; done", "the collector's container own went on for 30 s, and was ended"),
    ],
    ids=["ends", "fails", "goes-on"],
)
async def test_a_trial_ends_with_its_training_whatever_its_own_collector_does_then(
    full_cluster: Path, temporal_address: str, tmp_path: Path, then: str, warning: str | None
) -> None:
    own = {"name": "own", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["/bin/sh", "-c", REPORT + then]}
    collector = {
        "collector": {"kind": "Custom", "customCollector": own},
        "source": {"fileSystemPath": {"kind": "File", "path": "/out/metrics.log"}},
    }
    with a_namespace(full_cluster) as namespace:
        async with a_real_house(temporal_address, tmp_path, full_cluster) as (house, _):
            handle = await submit(
                house,
                experiment(
                    "own",
                    namespace.name,
                    TRAINING,
                    metricsCollectorSpec=collector,
                    maxTrialCount=1,
                    parallelTrialCount=1,
                ),
            )
            record = await house.ended(handle, 120)
            (trial,) = house.store.trials(handle.uid)
            assert (record.state, trial.state) == (ExperimentState.SUCCEEDED, TrialState.SUCCEEDED), trial.message
            assert trial.objective_value == float(trial.parameters["x"])
            points = house.store.points(handle.uid, trial.number)
            assert [point.number for _, point in points] == [trial.objective_value]  # it ran once
            assert warning is None or warning in trial.message
            assert warning is not None or "own" not in trial.message
            await asyncio.to_thread(nothing_left, namespace, handle.uid)
