"""Verdicts that are revised: by a report that comes late, and by reading the kept logs again with other rules."""

from __future__ import annotations

import asyncio

import pytest

import evertune.contracts as c
from activities.observing import Observer
from evertune.client import ExperimentHandle
from evertune.domain.metrics import PUSHED, Point, Report, place
from evertune.domain.states import ExperimentState, TrialState
from tests.workflow.harness import House, manifest, until

UNAVAILABLE = TrialState.METRICS_UNAVAILABLE
# Trials 0 and 1 call their objective by another name; the later ones wait for the test.
MISNAMED = (
    'echo "result: 0.$EVERTUNE_TRIAL_NUMBER"5; '
    '[ "$EVERTUNE_TRIAL_NUMBER" -lt 2 ] || while [ ! -e go ]; do sleep 0.05; done'
)


async def two_without_objective(house: House, name: str, **spec: object) -> ExperimentHandle:
    handle = await house.submit(manifest(name, MISNAMED, maxTrialCount=4, **spec))

    async def there() -> bool:
        return (await handle.status()).counts.get(UNAVAILABLE, 0) == 2

    await until(there)
    return handle


async def reparse(house: House, handle: ExperimentHandle, **rereading: object) -> c.Revised:
    workflow = house.temporal.get_workflow_handle(handle.workflow_id)
    request = c.ReparseUpdate(rereading=c.Rereading.model_validate(rereading), actor="ada")
    revised: c.Revised = await workflow.execute_update(c.UPDATE_REPARSE, request, result_type=c.Revised)
    return revised


async def late_report(house: House, uid: str, number: int, value: str) -> None:
    """What the gateway does with a report: store it, then tell the workflow."""
    report = Report(uid, number, 0, [Point("objective", value, place(PUSHED, 1), 1.7e9)])
    (taken,) = house.store.add_reports([report])
    assert taken.late
    await Observer(house.temporal, house.store).take(report, taken)


async def test_logs_read_again_change_verdicts_counts_and_best_of_a_running_experiment(house: House) -> None:
    handle = await two_without_objective(house, "misnamed", maxFailedTrialCount=3)
    revised = await reparse(house, handle, metric="result", filters=[r"(\w+): ([\d.]+)"])
    assert (sorted(revised.changed), revised.total) == ([0, 1], 2)
    status = await handle.status()
    assert status.counts == {TrialState.SUCCEEDED: 2}
    assert status.best is not None
    assert (status.best.number, status.best.value) == (1, 0.15)
    trial = house.store.trial(handle.uid, 0)
    assert (trial.state, trial.objective, trial.metrics) == (TrialState.SUCCEEDED, "0.05", {"objective": "0.05"})
    (row,) = (row for row in house.store.audit(handle.uid) if row.action == "reparse")
    assert (row.actor, row.detail["metric"], row.detail["changed"]) == ("ada", "result", 2)
    again = await reparse(house, handle, metric="result", filters=[r"(\w+): ([\d.]+)"])
    assert (again.total, again.counts) == (0, {TrialState.SUCCEEDED: 2})
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    counts = record.counts
    assert (counts.succeeded, counts.metrics_unavailable) == (2, 2), "later trials are judged by the spec as it stands"
    assert record.best is not None
    assert record.best.number == 1


async def test_stored_values_count_for_the_objective_also_when_their_source_is_not_kept(house: House) -> None:
    named = {"type": "maximize", "objectiveMetricName": "objective", "additionalMetricNames": ["other"]}
    handle = await two_without_objective(house, "rotated", objective=named)
    lost = Report(handle.uid, 0, 0, [Point("other", "0.9", place(PUSHED, 1))])  # as if from a file that is gone
    house.store.add_reports([lost])
    revised = await reparse(house, handle, metric="other")
    assert revised.changed == [0]
    trial = house.store.trial(handle.uid, 0)
    assert (trial.state, trial.objective) == (TrialState.SUCCEEDED, "0.9")
    assert (await reparse(house, handle, metric="other")).total == 0
    await handle.cancel()


async def test_a_filter_that_is_none_is_refused_and_nothing_changes(house: House) -> None:
    handle = await two_without_objective(house, "refused")
    with pytest.raises(Exception) as refusal:
        await reparse(house, handle, filters=["(x"])
    assert "not a regular expression of RE2" in str(refusal.value.__cause__)
    assert (await handle.status()).counts == {UNAVAILABLE: 2}


async def test_a_late_report_gives_a_running_experiment_its_trial_back(house: House) -> None:
    handle = await two_without_objective(house, "late")
    await late_report(house, handle.uid, 0, "0.75")

    async def amended() -> bool:
        return (await handle.status()).counts == {UNAVAILABLE: 1, TrialState.SUCCEEDED: 1}

    await until(amended)
    best = (await handle.status()).best
    assert best is not None
    assert (best.number, best.value) == (0, 0.75)
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert (record.counts.succeeded, record.counts.metrics_unavailable) == (1, 3)


async def test_a_late_report_that_reaches_the_goal_ends_the_experiment(house: House) -> None:
    objective = {"type": "maximize", "goal": 0.9, "objectiveMetricName": "objective"}
    handle = await two_without_objective(house, "late-goal", objective=objective)
    await late_report(house, handle.uid, 1, "0.95")
    record = await house.ended(handle)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentGoalReached")
    assert record.best is not None
    assert record.best.number == 1


async def test_late_reports_survive_the_worker_and_are_taken_once(house: House) -> None:
    handle = await two_without_objective(house, "late-killed")
    await house.stop_worker()
    for number in (0, 1):
        for _ in range(2):
            await late_report(house, handle.uid, number, f"0.{number + 1}")
    await asyncio.sleep(0.2)
    await house.start_worker()

    async def amended() -> bool:
        return (await handle.status()).counts == {TrialState.SUCCEEDED: 2}

    await until(amended)
    assert house.store.counts(handle.uid).succeeded == 2
    (house.workdir / "go").touch()
    assert (await house.ended(handle)).counts.finished == 4


async def test_a_late_report_that_nobody_told_the_workflow_is_found_by_the_next_sweep(house: House) -> None:
    handle = await two_without_objective(house, "late-untold")
    house.store.add_points(handle.uid, 1, 0, [Point("objective", "0.5", place(PUSHED, 1))])
    await house.sweep()

    async def amended() -> bool:
        return (await handle.status()).counts == {UNAVAILABLE: 1, TrialState.SUCCEEDED: 1}

    await until(amended)


async def test_what_the_workflow_was_told_too_late_is_amended_with_its_end(house: House) -> None:
    handle = await two_without_objective(house, "late-end")
    house.store.add_points(handle.uid, 0, 0, [Point("objective", "0.5", place(PUSHED, 1))])
    await handle.cancel(actor="ada")
    record = await house.ended(handle)

    async def amended() -> bool:
        return house.store.counts(record.uid).succeeded == 1

    await until(amended)
    assert house.store.trial(record.uid, 0).objective == "0.5"
    (row,) = (row for row in house.store.audit(record.uid) if row.action == "amend")
    assert row.detail == {"trials": [0]}
    await house.sweep()
    assert house.store.counts(record.uid).succeeded == 1
