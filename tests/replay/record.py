"""Records the histories that `test_replay` replays: `python -m tests.replay.record VERSION`, on a real server.

Run it when a release changes the workflow; commit the new files beside the old ones.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError

from evertune.stack import temporal
from tests.workflow.conftest import serve
from tests.workflow.harness import House, a_house, manifest

HISTORIES = Path(__file__).parent / "histories"
Scenario = Callable[[House], Awaitable[str]]


async def finished(house: House) -> str:
    handle = await house.submit(manifest("finished", maxTrialCount=5))
    await house.ended(handle)
    return handle.workflow_id


async def goal(house: House) -> str:
    objective = {"type": "maximize", "goal": 0.0, "objectiveMetricName": "objective"}
    command = 'echo objective=1; [ "$EVERTUNE_TRIAL_NUMBER" = 0 ] || exec sleep 30'
    handle = await house.submit(manifest("goal", command, objective=objective))
    await house.ended(handle)
    return handle.workflow_id


async def failed(house: House) -> str:
    handle = await house.submit(manifest("failed", "exit 1", maxFailedTrialCount=1))
    await house.ended(handle)
    return handle.workflow_id


async def paused(house: House) -> str:
    handle = await house.submit(manifest("paused", "sleep 0.2; echo objective=1", maxTrialCount=6))
    await asyncio.sleep(0.3)
    await handle.pause(now=True)
    await asyncio.sleep(0.3)
    await handle.resume()
    await house.ended(handle)
    return handle.workflow_id


async def cancelled(house: House) -> str:
    handle = await house.submit(manifest("cancelled", "sleep 30"))
    await asyncio.sleep(0.5)
    await handle.cancel(reason="recorded")
    await house.ended(handle)
    return handle.workflow_id


async def continued(house: House) -> str:
    handle = await house.submit(manifest("continued", maxTrialCount=40))
    await house.ended(handle)
    return handle.workflow_id


async def refused(house: House) -> str:
    handle = await house.temporal.start_workflow("Experiment", {"kind": "?"}, id="refused", task_queue="evertune")
    try:
        await handle.result()
    except WorkflowFailureError:
        return "refused"
    raise AssertionError("a junk manifest was admitted")


async def record(version: str) -> None:
    scenarios: list[tuple[Scenario, tuple[str, ...]]] = [
        (scenario, ()) for scenario in (finished, goal, failed, paused, cancelled, refused)
    ]
    scenarios.append((continued, ("limit.historyCount.suggestContinueAsNew=60",)))
    for scenario, dynamic in scenarios:
        with contextmanager(serve)(temporal.binary(), *dynamic) as address, tempfile.TemporaryDirectory() as home:
            async with a_house(address, Path(home)) as house:
                workflow_id = await scenario(house)
                await _dump(house, workflow_id, f"{scenario.__name__}-{version}")


async def _dump(house: House, workflow_id: str, stem: str) -> None:
    """Every run of the chain, each its own file: the first run has a number 0."""
    runs: list[Any] = [execution async for execution in house.temporal.list_workflows(f"WorkflowId = '{workflow_id}'")]
    runs.sort(key=lambda execution: execution.start_time)
    for index, execution in enumerate(runs[:3]):
        history = await house.temporal.get_workflow_handle(workflow_id, run_id=execution.run_id).fetch_history()
        (HISTORIES / f"{stem}-run{index}.json").write_text(
            json.dumps(_without_traces(history.to_json_dict()), indent=1)
        )
        sys.stdout.write(f"{stem}-run{index}: {len(history.events)} events\n")


def _without_traces(history: Any) -> Any:
    """Stack traces name the recorder's machine and mean nothing to a replay."""
    if isinstance(history, dict):
        return {key: "" if key == "stackTrace" else _without_traces(value) for key, value in history.items()}
    return [_without_traces(entry) for entry in history] if isinstance(history, list) else history


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
