"""What Temporal's own UI and client show of an experiment: its page reads without ours."""

from __future__ import annotations

import asyncio
import json

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError

import evertune.contracts as c
from tests.workflow.harness import House, manifest, until
from workflows import page


async def test_temporals_ui_shows_state_best_context_and_what_each_activity_does(house: House) -> None:
    handle = await house.submit(manifest("page", "sleep 0.2; echo objective=$X", maxTrialCount=3))
    record = await house.ended(handle)
    assert record.best is not None
    workflow = house.temporal.get_workflow_handle(handle.workflow_id)
    description = await workflow.describe()
    shown = description.typed_search_attributes
    assert shown[page.STATE] == "Succeeded"
    assert shown[page.ALGORITHM] == "grid"
    assert shown[page.FINISHED] == 3
    assert shown[page.BEST] == record.best.objective_value
    assert await description.static_summary() == "default/page"
    memo = await description.memo()
    assert memo[c.MEMO_CONTEXT]["working_dir"] == str(house.workdir)

    summaries = [
        json.loads(event.user_metadata.summary.data)
        for event in (await workflow.fetch_history()).events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    assert summaries[0] == "read, check and claim"
    x = house.store.trial(record.uid, 0).parameters["x"]
    assert f"trial 0 x={x:.4g}" in summaries
    assert "2 from grid" in summaries
    assert "state Succeeded" in summaries
    assert all(summaries)


async def test_experiments_are_found_by_their_state(house: House) -> None:
    handle = await house.submit(manifest("found", "exec sleep 60"))
    query = f"EvertuneState = 'Paused' AND WorkflowId = '{handle.workflow_id}'"

    async def found() -> bool:
        return [run.id async for run in house.temporal.list_workflows(query)] == [handle.workflow_id]

    assert not await found()
    await handle.pause()
    await until(found, what="the paused experiment in Temporal's list")
    await handle.cancel()
    await house.ended(handle)


async def test_the_current_details_are_a_page_about_the_experiment(house: House, binary: str) -> None:
    handle = await house.submit(manifest("details", "echo objective=0.7; exec sleep 60", maxTrialCount=9))
    await until(lambda: bool(house.store.points(handle.uid, 0)) if house.store.counts(handle.uid).created else False)
    done = await house.temporal_cli(binary, "workflow", "metadata", "-w", handle.workflow_id, "-o", "json")
    assert done.returncode == 0, done.stderr
    for text in ("default/details", "of 9", "2 running", "maximize objective", "grid, 2 parallel"):
        assert text in done.stdout
    # The updates are offered with their names, so that the UI's own form can send them.
    for verb in ("edit", "pause", "resume", "stop", "cancel", "stop_trial"):
        assert f'"{verb}"' in done.stdout
    await handle.cancel()
    await house.ended(handle)


async def test_ten_thousand_mistakes_fit_into_temporals_failure(house: House) -> None:
    document = manifest("worst")
    long = "x" * 300
    document["spec"]["parameters"] = [
        {"name": f"{long}{index}", "parameterType": long, "feasibleSpace": {"min": long, "max": ""}}
        for index in range(700)
    ]
    document["spec"]["algorithm"]["algorithmName"] = "y" * 200_000
    run = await house.temporal.start_workflow(c.WORKFLOW_TYPE, document, id="worst", task_queue=c.QUEUE)
    try:
        await asyncio.wait_for(run.result(), 50)
    except WorkflowFailureError:
        history = await run.fetch_history()
        assert history.events[-1].ByteSize() < 200_000
    else:
        raise AssertionError("it was admitted")
