"""Going on after the end: extended twice, after a goal, a failure, a deadline, a cancel; tried again and reset."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

import evertune.contracts as c
import evertune.errors as errors
from activities.admit import AdmitActivities
from evertune.domain.states import ExperimentState
from tests.workflow.harness import House, gated, manifest, until


async def test_an_experiment_is_extended_again_and_again(house: House) -> None:
    handle = await house.submit(manifest("more", "echo $EVERTUNE_TRIAL >> starts; echo objective=$X", maxTrialCount=2))
    record = await house.ended(handle)
    for budget in (4, 7):
        again = await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=budget))
        assert (await house.ended(again)).counts.succeeded == budget
    starts = (house.workdir / "starts").read_text().split()
    assert len(starts) == len(set(starts)) == 7
    assert [row.action for row in house.store.audit(record.uid)] == ["extend", "extend"]


async def test_two_who_extend_at_once_extend_once(house: House) -> None:
    command = "[ $EVERTUNE_TRIAL_NUMBER -lt 2 ] || until [ -e go ]; do sleep 0.05; done; echo objective=$X"
    handle = await house.submit(manifest("both", command, maxTrialCount=2))
    record = await house.ended(handle)
    commands = (c.ReopenCommand(uid=record.uid, max_trials=4), c.ReopenCommand(uid=record.uid, max_trials=4))
    answers = await asyncio.gather(*(house.client.reopen(command) for command in commands), return_exceptions=True)
    assert sorted(isinstance(answer, errors.ConflictError) for answer in answers) == [False, True], answers
    (house.workdir / "go").touch()
    assert (await house.ended(handle)).counts.succeeded == 4
    assert [row.action for row in house.store.audit(record.uid)] == ["extend"]


async def test_one_that_runs_is_not_reopened_whoever_asks(house: House) -> None:
    handle = await house.submit(manifest("runs", gated(), maxTrialCount=2))
    with pytest.raises(errors.ConflictError, match="only a finished one"):
        await house.client.reopen(c.ReopenCommand(uid=handle.uid, max_trials=9))
    (house.workdir / "go").touch()
    assert (await house.ended(handle)).counts.succeeded == 2


@pytest.mark.slow
async def test_a_cancelled_one_goes_on_with_what_is_left_of_its_budget(house: House) -> None:
    handle = await house.submit(manifest("undo", "[ -e go ] || exec sleep 60; echo objective=1", maxTrialCount=5))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    await handle.cancel()
    record = await house.ended(handle)
    (house.workdir / "go").touch()
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, command="resume"))
    record = await house.ended(again)
    assert (record.state, record.counts.killed, record.counts.succeeded) == (ExperimentState.SUCCEEDED, 2, 3)


async def test_one_that_failed_needs_room_for_more_failures(house: House) -> None:
    handle = await house.submit(
        manifest("unlucky", "[ -e go ] || exit 3; echo objective=1", maxTrialCount=6, maxFailedTrialCount=2)
    )
    record = await house.ended(handle)
    assert record.state is ExperimentState.FAILED
    with pytest.raises(errors.UsageError, match=r"maxFailedTrialCount must be above \d"):
        await house.client.reopen(c.ReopenCommand(uid=record.uid, command="resume"))
    (house.workdir / "go").touch()
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, command="resume", max_failed=5))
    record = await house.ended(again)
    assert (record.state, record.counts.created) == (ExperimentState.SUCCEEDED, 6)


async def test_a_written_never_asks_for_force(house: House) -> None:
    record = await house.ended(await house.submit(manifest("never", maxTrialCount=2, resumePolicy="Never")))
    with pytest.raises(errors.ConflictError, match="resumePolicy: Never"):
        await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=3))
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=3, force=True))
    assert (await house.ended(again)).counts.succeeded == 3


@pytest.mark.slow
async def test_after_its_goal_or_its_deadline_it_goes_on_without_them(house: House) -> None:
    objective = {"type": "maximize", "goal": 0.5, "objectiveMetricName": "objective"}
    handle = await house.submit(
        manifest("beyond", "echo objective=0.9", maxTrialCount=9, parallelTrialCount=1, objective=objective)
    )
    record = await house.ended(handle)
    assert record.reason == "ExperimentGoalReached"
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=3))
    record = await house.ended(again)
    assert (record.reason, record.counts.succeeded) == ("ExperimentMaxTrialsReached", 3)

    late = await house.submit(
        manifest("late", "[ -e go ] || exec sleep 60; echo objective=1", deadline=1, maxTrialCount=4)
    )
    record = await house.ended(late)
    assert record.reason == "ExperimentDeadlineExceeded"
    (house.workdir / "go").touch()
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, command="resume"))
    assert (await house.ended(again)).reason == "ExperimentMaxTrialsReached"


def points(count: int) -> list[dict[str, Any]]:
    """A search space of so many points."""
    space = {"min": "0", "max": str(count - 1)}
    return [{"name": "x", "parameterType": "int", "feasibleSpace": space}]


async def test_a_grid_that_was_tried_wholly_is_not_reopened_and_one_that_was_not_goes_on(house: House) -> None:
    record = await house.ended(await house.submit(manifest("grid", maxTrialCount=2, parameters=points(5))))
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=5))
    record = await house.ended(again)
    assert (record.counts.succeeded, record.reason) == (5, "ExperimentMaxTrialsReached")
    for command in (
        c.ReopenCommand(uid=record.uid, max_trials=9),  # whose last answer had filled the budget exactly
        c.ReopenCommand(uid=record.uid, max_trials=9, goal=0.5, parallel=3, force=True),
    ):
        with pytest.raises(errors.ConflictError, match=r"nothing more to try, .*: all 5 combinations were tried"):
            await house.client.reopen(command)
    record = await again.record()
    assert (record.state, record.budget.max_trials) == (ExperimentState.SUCCEEDED, 5)
    assert [row.action for row in house.store.audit(record.uid)] == ["extend"]


async def test_one_whose_algorithm_came_to_its_end_is_not_reopened(house: House) -> None:
    record = await house.ended(await house.submit(manifest("end", maxTrialCount=2, parameters=points(3))))
    record = await house.ended(await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=20)))
    assert (record.counts.succeeded, record.reason) == (3, "ExperimentSuggestionEndReached")
    with pytest.raises(errors.ConflictError, match=r"all 3 combinations were tried \(start another one"):
        await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=40))


async def test_a_finite_space_without_duplicates_is_exhausted_and_one_with_them_is_not(house: House) -> None:
    algorithm = {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]}
    common: dict[str, Any] = {"algorithm": algorithm, "maxTrialCount": 3, "parameters": points(3)}
    record = await house.ended(await house.submit(manifest("new", onDuplicate="resample", **common)))
    assert record.reason == "ExperimentMaxTrialsReached"
    with pytest.raises(errors.ConflictError, match="no point is left that was not tried"):
        await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=4))
    record = await house.ended(await house.submit(manifest("old", **common)))
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=4))
    assert (await house.ended(again)).counts.succeeded == 4


async def test_a_reopening_that_is_tried_again_gives_the_same_answer(house: House) -> None:
    objective = {"type": "maximize", "goal": 0.5, "objectiveMetricName": "objective"}
    handle = await house.submit(manifest("twice", "echo objective=0.9", parallelTrialCount=1, objective=objective))
    record = await house.ended(handle)
    assert house.parts is not None
    admit = AdmitActivities(house.store, house.settings.home_id, "local", False, house.parts.temporal_id)
    command = json.dumps({"reopen": {"uid": record.uid, "max_trials": 8}})
    request = c.AdmitRequest(
        inputs=[c.RawInput(encoding="json/plain", data=base64.b64encode(command.encode()).decode())],
        workflow_id=record.workflow_id,
        run_id="a-run",
        first_run_id="a-run",
    )
    first, second = await admit.admit(request), await admit.admit(request)
    assert first == second
    assert first.limits.goal is None
    assert [row.action for row in house.store.audit(record.uid)] == ["extend"]


async def test_a_finished_one_that_is_reset_runs_nothing_again(house: House, binary: str) -> None:
    command = "echo $EVERTUNE_TRIAL >> starts; echo objective=1"
    handle = await house.submit(manifest("again", command, maxTrialCount=3))
    before = await house.ended(handle)
    again = await house.client.reopen(c.ReopenCommand(uid=before.uid, max_trials=5))
    await house.ended(again)
    words = [
        "workflow",
        "reset",
        "-w",
        handle.workflow_id,
        "--type",
        "FirstWorkflowTask",
        "--reason",
        "test",
    ]
    done = await house.temporal_cli(binary, *words)
    assert done.returncode == 0, done.stderr
    answer = await asyncio.wait_for(house.temporal.get_workflow_handle(handle.workflow_id).result(), 50)
    assert (answer["state"], answer["counts"]) == ("Succeeded", {"Succeeded": 5})
    starts = (house.workdir / "starts").read_text().split()
    assert len(starts) == len(set(starts)) == 5
