"""What must travel through continue-as-new: parked trials, a drain, a stop that an earlier run decided."""

from __future__ import annotations

import asyncio

import evertune.contracts as c
from evertune.client import ExperimentHandle
from evertune.domain.states import ExperimentState, TrialState
from tests.workflow.harness import House, manifest, until


async def force_continue_as_new(house: House, handle: ExperimentHandle) -> None:
    """Signals that change nothing, until the run is another."""
    workflow = house.temporal.get_workflow_handle(handle.workflow_id)
    first = (await handle.status()).runs

    async def continued() -> bool:
        await workflow.signal(c.SIGNAL_OBSERVE, c.ObserveSignal(observations=[]))
        return (await handle.status()).runs > first

    await until(continued, what="another run")


async def test_parked_trials_stay_parked_in_the_next_run_and_run_on_resume(impatient_house: House) -> None:
    house = impatient_house
    handle = await house.submit(manifest("parked", "[ -e go ] || exec sleep 60; echo objective=1", maxTrialCount=3))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    await handle.pause(now=True)
    await until(lambda: not house.store.running_attempts(handle.uid))
    await force_continue_as_new(house, handle)
    (house.workdir / "go").touch()
    await asyncio.sleep(0.5)
    assert house.store.counts(handle.uid).succeeded == 0
    await handle.resume()
    record = await house.ended(handle)
    assert (record.counts.succeeded, record.counts.charged) == (3, 0)
    assert len(house.store.attempts(record.uid, 0)) == 2


async def test_a_drain_after_the_goal_goes_on_in_the_next_run(impatient_house: House) -> None:
    house = impatient_house
    objective = {"type": "maximize", "goal": 0.9, "objectiveMetricName": "objective"}
    command = (
        'if [ "$EVERTUNE_TRIAL_NUMBER" = 0 ]; then while [ ! -e go ]; do sleep 0.05; done; fi; echo objective=0.95'
    )
    document = manifest("drained", command, objective=objective, onCompletion="drain", maxTrialCount=20)
    handle = await house.submit(document)

    async def draining() -> bool:
        return (await handle.record()).state is ExperimentState.STOPPING

    await until(draining)
    await force_continue_as_new(house, handle)
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentGoalReached")
    assert house.store.trial(record.uid, 0).state is TrialState.SUCCEEDED


async def test_an_early_stop_is_carried_out_once_and_keeps_the_trials_value(impatient_house: House) -> None:
    house = impatient_house
    command = '[ "$EVERTUNE_TRIAL_NUMBER" != 0 ] || { echo objective=0.3; exec sleep 60; }; sleep 0.2; echo objective=1'
    handle = await house.submit(manifest("early-stop", command, maxTrialCount=16))
    await until(lambda: house.store.counts(handle.uid).running > 0 and bool(house.store.points(handle.uid, 0)))
    workflow = house.temporal.get_workflow_handle(handle.workflow_id)
    stop = c.ObserveSignal(observations=[c.Observation(number=0, seq=10**6, stop="worse than the median")])
    for _ in range(3):
        await workflow.signal(c.SIGNAL_OBSERVE, stop)
    record = await house.ended(handle, 100)
    stopped = house.store.trial(record.uid, 0)
    assert (stopped.state, stopped.objective) == (TrialState.EARLY_STOPPED, "0.3")
    assert "worse than the median" in stopped.reason
    assert (record.counts.early_stopped, record.counts.succeeded) == (1, 15)
