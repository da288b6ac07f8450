"""Histories recorded by released workflow code must replay on today's; a change that breaks one needs a patch marker.

`python -m tests.replay.record` adds new ones; old ones are never changed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from worker.compose import workflow_runner
from workflows.experiment import ExperimentWorkflow

STARVED = "TMPRL1101"  # it got no CPU for two seconds, which the SDK takes for a deadlock
HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    replayer = Replayer(
        workflows=[ExperimentWorkflow],
        data_converter=pydantic_data_converter,
        workflow_runner=workflow_runner(),
    )
    for _ in range(5):  # a real deadlock is there every time
        result = await replayer.replay_workflow(
            WorkflowHistory.from_json(path.stem, path.read_text()), raise_on_replay_failure=False
        )
        if STARVED not in str(result.replay_failure):
            break
    assert result.replay_failure is None


def test_there_are_histories_of_every_way_to_end() -> None:
    assert {path.stem.split("-", 1)[0] for path in HISTORIES} >= {
        "finished",
        "goal",
        "failed",
        "paused",
        "cancelled",
        "continued",
        "refused",
    }
