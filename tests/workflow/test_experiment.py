"""Experiments from start to end on a real Temporal server, with real processes as trials."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import evertune.contracts as c
import evertune.errors as errors
from evertune.domain.states import AttemptState, ExperimentState, TrialState
from tests.workflow.harness import House, gated, manifest, until


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_an_experiment_runs_its_budget_and_finds_its_best_trial(house: House) -> None:
    handle = await house.submit(manifest("plain", maxTrialCount=6, parallelTrialCount=3))
    record = await house.ended(handle)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentMaxTrialsReached")
    trials = house.store.trials(record.uid)
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    assert record.best is not None
    assert record.best.objective_value == max(trial.objective_value or 0 for trial in trials)
    assert record.best.objective_value == record.best.parameters["x"]
    assert sorted(trial.told_seq or 0 for trial in trials) == list(range(1, 7))


async def test_reaching_the_goal_kills_what_still_runs_and_keeps_its_last_value(house: House) -> None:
    document = manifest(
        "goal",
        'if [ "$EVERTUNE_TRIAL_NUMBER" = 0 ]; then echo objective=0.2; touch said; exec sleep 60; fi; '
        "until [ -e said ]; do sleep 0.05; done; echo objective=0.99",
        maxTrialCount=10,
        objective={"type": "maximize", "goal": 0.9, "objectiveMetricName": "objective"},
    )
    handle = await house.submit(document)
    record = await house.ended(handle)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentGoalReached")
    first = house.store.trial(record.uid, 0)
    assert (first.state, first.objective) == (TrialState.KILLED, "0.2")


async def test_failures_are_counted_and_fail_the_experiment_at_katibs_limit(house: House) -> None:
    handle = await house.submit(manifest("fails", "echo no luck >&2; exit 3", maxTrialCount=8, maxFailedTrialCount=2))
    record = await house.ended(handle)
    assert (record.state, record.reason) == (ExperimentState.FAILED, "ExperimentFailed")
    assert record.counts.failed >= 2
    assert "exit 3" in record.message


async def test_a_command_that_is_not_there_fails_the_experiment_after_equal_failures(house: House) -> None:
    document = manifest("nocommand", maxTrialCount=50)
    job = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    job["containers"][0]["command"] = ["no-such-trainer", "--x=$X"]
    record = await house.ended(await house.submit(document))
    assert record.state is ExperimentState.FAILED
    assert "no-such-trainer" in record.message
    assert record.counts.created < 8


async def test_a_trial_without_the_objective_says_what_was_seen_instead(house: House) -> None:
    handle = await house.submit(manifest("unseen", "echo accuracy=$X", maxTrialCount=1, parallelTrialCount=1))
    record = await house.ended(handle)
    trial = house.store.trial(record.uid, 0)
    assert trial.state is TrialState.METRICS_UNAVAILABLE
    assert "accuracy" in trial.message


async def test_a_worker_that_goes_away_costs_no_trial_and_runs_none_twice(house: House) -> None:
    document = manifest("restart", "echo $EVERTUNE_TRIAL >> starts; sleep 0.7; echo objective=1", maxTrialCount=8)
    handle = await house.submit(document)
    starts = house.workdir / "starts"
    for seen in (2, 5):
        await until(lambda seen=seen: len(lines(starts)) >= seen)  # type: ignore[misc]
        await house.stop_worker()
        await house.start_worker()
    record = await house.ended(handle)
    assert record.counts.succeeded == 8
    assert len(lines(starts)) == len(set(lines(starts))) == 8


async def test_continue_as_new_attaches_to_running_trials_and_loses_no_update(impatient_house: House) -> None:
    house = impatient_house
    document = manifest("long", "echo $EVERTUNE_TRIAL >> starts; sleep 0.2; echo objective=$X", maxTrialCount=40)
    handle = await house.submit(document)
    await until(lambda: len(lines(house.workdir / "starts")) >= 3)
    await handle.edit(c.EditRequest(parallel=5))
    status = await handle.status()
    assert status.limits.parallel == 5
    record = await house.ended(handle)
    assert record.counts.succeeded == 40
    starts = lines(house.workdir / "starts")
    assert len(starts) == len(set(starts)) == 40
    assert record.budget.parallel == 5
    runs = 0
    async for execution in house.temporal.list_workflows(f"WorkflowId = '{handle.workflow_id}'"):
        runs += execution.id == handle.workflow_id
    assert runs > 2


async def test_pause_starts_nothing_new_and_resume_goes_on(house: House) -> None:
    handle = await house.submit(manifest("pause", gated(), maxTrialCount=5))
    starts, gate = house.workdir / "starts", house.workdir / "go"
    await until(lambda: len(lines(starts)) == 2)
    await handle.pause(actor="ann")
    gate.touch()
    await until(lambda: house.store.counts(handle.uid).succeeded == 2)
    await asyncio.sleep(0.5)
    assert (await handle.record()).state is ExperimentState.PAUSED
    assert sorted(lines(starts)) == ["0", "1"]
    with pytest.raises(errors.ConflictError, match="paused already"):
        await handle.pause()
    await handle.resume(actor="ann")
    record = await house.ended(handle)
    assert record.counts.succeeded == 5
    assert [row.action for row in house.store.audit(handle.uid) if row.actor == "ann"] == ["pause", "resume"]


async def test_a_pause_while_the_first_trials_are_asked_for_loses_none_and_starts_none_twice(house: House) -> None:
    handle = await house.submit(manifest("early", gated()))
    await handle.pause()  # the ask is to come, on its way, or just answered: the trials are parked, or run already
    await asyncio.sleep(0.5)
    assert (await handle.record()).state is ExperimentState.PAUSED
    (house.workdir / "go").touch()
    await handle.resume()
    record = await house.ended(handle)
    assert record.counts.succeeded == 4
    assert sorted(lines(house.workdir / "starts")) == ["0", "1", "2", "3"]


async def test_pause_now_stops_trials_uncharged_and_resume_runs_them_again(house: House) -> None:
    command = "echo $EVERTUNE_TRIAL >> starts; [ -e go ] || sleep 60; echo objective=1"
    handle = await house.submit(manifest("park", command, maxTrialCount=2, maxFailedTrialCount=1))
    await until(lambda: len(lines(house.workdir / "starts")) == 2)
    await handle.pause(now=True)
    await until(lambda: not house.store.running_attempts(handle.uid))
    (house.workdir / "go").touch()
    await handle.resume()
    record = await house.ended(handle)
    assert (record.counts.succeeded, record.counts.charged) == (2, 0)
    attempts = house.store.attempts(record.uid, 0)
    assert (attempts[0].state, attempts[0].reason) == (AttemptState.KILLED, "Paused")
    assert attempts[1].state is AttemptState.SUCCEEDED


async def test_stop_lets_running_trials_finish_and_cancel_does_not(house: House) -> None:
    slow = await house.submit(manifest("drain", gated(), maxTrialCount=50))
    await until(lambda: house.store.counts(slow.uid).running == 2)
    await slow.stop()
    (house.workdir / "go").touch()
    record = await house.ended(slow)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentStopped")
    assert (record.counts.succeeded, record.counts.killed) == (2, 0)

    stuck = await house.submit(manifest("now", "sleep 60", maxTrialCount=50))
    await until(lambda: house.store.counts(stuck.uid).running == 2)
    await stuck.cancel(reason="wrong data")
    record = await house.ended(stuck)
    assert (record.state, record.message) == (ExperimentState.CANCELLED, "wrong data")
    assert record.counts.killed == 2
    with pytest.raises(errors.ConflictError, match="has ended"):
        await stuck.pause()


async def test_one_trial_can_be_stopped_and_another_takes_its_place(house: House) -> None:
    command = '[ "$EVERTUNE_TRIAL_NUMBER" != 0 ] || exec sleep 60; echo objective=1'
    handle = await house.submit(manifest("stop-one", command, maxTrialCount=3))
    await until(lambda: any(trial.number == 0 for trial in house.store.trials(handle.uid, states={TrialState.RUNNING})))
    with pytest.raises(errors.ConflictError, match="trial 9 is not running"):
        await handle.stop_trial(9)
    await handle.stop_trial(0, reason="too slow")
    record = await house.ended(handle)
    stopped = house.store.trial(record.uid, 0)
    assert stopped.state is TrialState.KILLED
    assert "too slow" in stopped.reason
    assert record.counts.succeeded == 2


async def test_an_edit_is_checked_against_what_has_happened(house: House) -> None:
    handle = await house.submit(manifest("edit", gated(), maxTrialCount=6))
    await until(lambda: house.store.counts(handle.uid).created == 2)
    for request, rule in (
        (c.EditRequest(), "nothing to change"),
        (c.EditRequest(max_trials=1), "maxTrialCount must be at least"),
        (c.EditRequest(parallel=7), "parallelTrialCount must be at most"),
    ):
        with pytest.raises(errors.UsageError, match=rule):
            await handle.edit(request)
    await handle.edit(c.EditRequest(max_trials=4, goal=2.0, actor="ben"))
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert (record.counts.succeeded, record.budget.max_trials, record.objective.goal) == (4, 4, 2.0)
    assert [(row.actor, row.action) for row in house.store.audit(record.uid)] == [("ben", "edit")]


async def test_a_finished_experiment_is_extended_and_goes_on_from_its_trials(house: House) -> None:
    handle = await house.submit(manifest("more", maxTrialCount=3))
    record = await house.ended(handle)
    with pytest.raises(errors.UsageError, match="maxTrialCount must be above 3"):
        await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=3))
    again = await house.client.reopen(c.ReopenCommand(uid=record.uid, max_trials=7, actor="ann"))
    record = await house.ended(again)
    assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, 7)
    numbers = [trial.number for trial in house.store.trials(record.uid)]
    assert numbers == list(range(7))
    values = [trial.parameters["x"] for trial in house.store.trials(record.uid)]
    assert len(set(values)) == 7


async def test_a_signal_that_cannot_be_read_is_counted_and_shown(house: House) -> None:
    handle = await house.submit(manifest("signals", gated(), maxTrialCount=1, parallelTrialCount=1))
    flow = house.temporal.get_workflow_handle(handle.workflow_id)
    await flow.signal("observe", args=["junk", 3])
    await flow.signal("no-such-signal")
    await until(_async_equals(handle, 2))
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert record.counts.succeeded == 1


def _async_equals(handle: object, count: int):  # type: ignore[no-untyped-def]
    async def check() -> bool:
        return (await handle.status()).bad_signals == count  # type: ignore[attr-defined, no-any-return]

    return check


async def test_points_of_a_running_trial_reach_the_database_and_the_workflow(house: House) -> None:
    command = "for i in 1 2 3; do echo objective=0.$i; sleep 0.6; done; until [ -e go ]; do sleep 0.05; done"
    handle = await house.submit(manifest("live", command, maxTrialCount=1, parallelTrialCount=1))

    async def seen() -> bool:
        status = await handle.status()
        return bool(status.in_flight) and status.in_flight[0].value == "0.3"

    await until(seen, what="the last value in the status query")
    assert [point.value for _, point in house.store.points(handle.uid, 0)] == ["0.1", "0.2", "0.3"]
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert record.best is not None
    assert record.best.objective == "0.3"


async def test_the_row_tells_of_a_verb_as_soon_as_it_is_answered(house: House) -> None:
    handle = await house.submit(manifest("told", "echo objective=0.4; sleep 60"))
    await until(lambda: house.store.counts(handle.uid).running == 2)  # a stop with nothing running ends at once
    for verb, state in (
        (handle.pause, ExperimentState.PAUSED),
        (handle.resume, ExperimentState.RUNNING),
        (handle.stop, ExperimentState.STOPPING),
        (handle.resume, ExperimentState.RUNNING),
        (handle.pause, ExperimentState.PAUSED),
    ):
        assert (await verb()).state is state
        assert (await handle.record()).state is state
    await handle.cancel()
    await house.ended(handle)
