"""What may meet: a stop and a start, an update and an ask, a sweep and an end, a Cancel and anything at all."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.worker import Worker

import evertune.contracts as c
import evertune.errors as errors
from evertune.client import ExperimentHandle
from evertune.domain.states import AttemptState, ExperimentState, TrialState
from tests.workflow.harness import House, a_house, gated, manifest, until
from worker.compose import Parts, compose, trial_activities, workers
from worker.reconcile import reconciler_of

STARTS = "echo $EVERTUNE_TRIAL >> starts; "
DECIDING, ASKING, RUNNING = 0, 1, 2


@dataclass
class Stage:
    """A worker whose queues are polled one after the other, so that what comes late in life comes late here."""

    parts: Parts
    queues: list[Worker]
    stack: AsyncExitStack

    async def start(self, *queues: int) -> None:
        for queue in queues:
            await self.stack.enter_async_context(self.queues[queue])


@asynccontextmanager
async def staged(house: House, *queues: int) -> AsyncIterator[Stage]:
    await house.stop_worker()
    parts = await compose(house.settings, house.temporal, house.store)
    async with AsyncExitStack() as stack:
        stage = Stage(parts, workers(parts, trial_activities(parts), None), stack)
        await stage.start(*queues)
        yield stage
    await parts.host.close()


def starts(house: House) -> list[str]:
    path = house.workdir / "starts"
    return path.read_text().split() if path.exists() else []


async def reach(handle: ExperimentHandle, state: ExperimentState) -> None:
    async def reached() -> bool:
        return (await handle.record()).state is state

    await until(reached, what=f"the experiment is {state}")


async def asks(house: House, handle: ExperimentHandle) -> None:
    """The workflow has asked for trials, and nobody has answered."""
    workflow_id = (await handle.record()).workflow_id

    async def asking() -> bool:
        description = await house.temporal.get_workflow_handle(workflow_id).describe()
        pending = description.raw_description.pending_activities
        return any(activity.activity_type.name == c.ACTIVITY_SUGGEST for activity in pending)

    await until(asking, what="it asks for trials")


# ------------------------------------------------------------------------------------------- a stop and a start


async def test_a_host_that_was_away_when_its_experiment_was_cancelled_runs_nothing_on(house: House) -> None:
    async with staged(house, DECIDING, ASKING) as stage:
        handle = await house.submit(manifest("away", STARTS + "exec sleep 60", parallelTrialCount=4))
        await until(lambda: house.store.counts(handle.uid).created == 4)
        await handle.cancel()
        await stage.start(RUNNING)  # the starts and their stop are dispatched in the same moment
        record = await house.ended(handle)
        assert not stage.parts.runner.find_orphans(set())
    assert record.state is ExperimentState.CANCELLED
    assert {trial.state for trial in house.store.trials(record.uid)} == {TrialState.KILLED}


async def test_a_pause_now_reaches_trials_whose_start_is_on_its_way(house: House) -> None:
    async with staged(house, DECIDING, ASKING) as stage:
        handle = await house.submit(manifest("early", gated(), maxTrialCount=2))
        await until(lambda: house.store.counts(handle.uid).created == 2)
        pausing = asyncio.create_task(handle.pause(now=True))
        await reach(handle, ExperimentState.PAUSED)
        await stage.start(RUNNING)
        status = await pausing
        ends = [AttemptState.KILLED] * 2
        await until(lambda: [each.state for k in (0, 1) for each in house.store.attempts(handle.uid, k)] == ends)
        (house.workdir / "go").touch()
        await asyncio.sleep(0.5)
        assert house.store.counts(handle.uid).succeeded == 0
        assert len(status.in_flight) == 2
        await handle.resume()
        record = await house.ended(handle)
    assert (record.counts.succeeded, record.counts.charged) == (2, 0)


# -------------------------------------------------------------------------------------------- an update and an ask


async def test_what_was_asked_for_before_a_pause_waits_for_the_resume(house: House) -> None:
    async with staged(house, DECIDING, RUNNING) as stage:
        handle = await house.submit(manifest("asked", STARTS + "echo objective=1"))
        await asks(house, handle)
        await handle.pause()
        await stage.start(ASKING)
        await until(lambda: house.store.counts(handle.uid).created == 2)
        await asyncio.sleep(0.3)
        assert starts(house) == []
        await handle.resume()
        assert (await house.ended(handle)).counts.succeeded == 4


async def test_what_was_asked_for_before_a_stop_never_starts(house: House) -> None:
    async with staged(house, DECIDING, RUNNING) as stage:
        handle = await house.submit(manifest("too-late", STARTS + "echo objective=1"))
        await asks(house, handle)
        await handle.stop()
        await stage.start(ASKING)
        record = await house.ended(handle)
    assert (record.state, record.reason, record.counts.killed) == (ExperimentState.SUCCEEDED, "ExperimentStopped", 2)
    assert starts(house) == []


async def test_an_edit_counts_what_is_being_asked_for(house: House) -> None:
    async with staged(house, DECIDING, RUNNING) as stage:
        handle = await house.submit(manifest("edit-asked"))
        await asks(house, handle)
        with pytest.raises(errors.UsageError, match="at least 2, the trials created"):
            await handle.edit(c.EditRequest(max_trials=1))
        await stage.start(ASKING)
        assert (await house.ended(handle)).counts.succeeded == 4


async def test_a_drain_takes_no_new_pause(house: House) -> None:
    handle = await house.submit(manifest("drain-pause", gated()))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    await handle.stop()
    with pytest.raises(errors.ConflictError, match="resume it first"):
        await handle.pause(now=True)
    await handle.resume()
    (house.workdir / "go").touch()
    assert (await house.ended(handle)).counts.succeeded == 4


# ------------------------------------------------------------------------------------------- Temporal's own Cancel


@pytest.mark.parametrize("missing", ["a record", "an ask"])
async def test_temporals_cancel_is_ours_whatever_the_workflow_awaits(house: House, missing: str) -> None:
    async with staged(house, DECIDING, RUNNING) as stage:
        handle = await house.submit(manifest("await", STARTS + "sleep 60"))
        workflow = house.temporal.get_workflow_handle(handle.workflow_id)
        if missing == "a record":
            with locked(house):  # the record of the state cannot be written while Cancel arrives
                await stage.start(ASKING)
                pausing = asyncio.create_task(handle.pause())
                await asyncio.sleep(0.4)
                await workflow.cancel()
                await asyncio.sleep(0.4)
            await asyncio.gather(pausing, return_exceptions=True)
        else:
            await workflow.cancel()
            await asyncio.sleep(0.3)
            await stage.start(ASKING)
        record = await house.ended(handle)
        assert (record.state, record.message) == (ExperimentState.CANCELLED, "cancelled through Temporal")
        description = await workflow.describe()
        assert description.status is WorkflowExecutionStatus.CANCELED
        assert not stage.parts.runner.find_orphans(set())
    assert record.counts.finished == record.counts.created


class locked:
    """The database's write lock, held by somebody else."""

    def __init__(self, house: House) -> None:
        self._connection = sqlite3.connect(house.settings.database_url.removeprefix("sqlite:///"), isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("COMMIT")
        self._connection.close()


# ----------------------------------------------------------------------------------------------- a sweep and an end


async def test_a_sweep_that_saw_an_experiment_run_leaves_the_end_it_reached_meanwhile(house: House) -> None:
    handle = await house.submit(manifest("swept", gated(), maxTrialCount=2))
    seen = await handle.record()
    assert not seen.state.terminal
    (house.workdir / "go").touch()
    await house.ended(handle)
    assert house.parts is not None
    broom = reconciler_of(house.parts, settle_s=0)
    # What a sweep does with a row that it read before the end.
    await broom.consider(seen)
    assert (await handle.record()).state is ExperimentState.SUCCEEDED


# ---------------------------------------------------------------------------------------- a disk that cannot be written


async def test_trials_that_cannot_be_written_cost_time_and_nothing_else(house: House) -> None:
    folder = house.settings.trials_dir
    aside = folder.with_name("aside")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    folder.touch()  # a file where the directory should be: even root cannot write below it
    handle = await house.submit(manifest("disk", maxTrialCount=2))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    await asyncio.sleep(0.5)
    assert not (await handle.record()).state.terminal
    folder.unlink()
    aside.rename(folder)
    record = await house.ended(handle)
    assert (record.counts.succeeded, record.counts.charged) == (2, 0)


# ------------------------------------------------------------------------------------------------- words of strangers


async def test_a_reason_of_any_length_stops_a_trial(house: House) -> None:
    handle = await house.submit(manifest("wordy", "exec sleep 60", maxTrialCount=2))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    await asyncio.wait_for(handle.stop_trial(0, reason="ü\n" * 40_000), 45)
    assert house.store.trial(handle.uid, 0).state is TrialState.KILLED
    await handle.cancel(reason="x" * 500_000, actor="y" * 100_000)
    assert (await house.ended(handle)).state is ExperimentState.CANCELLED


@pytest.mark.slow
async def test_updates_that_nobody_can_read_are_refused_and_nothing_happens(house: House, binary: str) -> None:
    handle = await house.submit(manifest("junk", gated(), maxTrialCount=2))
    update = ["workflow", "update", "execute", "-w", handle.workflow_id]
    for name, *inputs in (
        ("edit", "--input", '{"parallel": 0}'),
        ("edit", "--input", '{"max_trials": 1e30}'),
        ("edit", "--input", '"no object"'),
        ("edit",),
        ("stop_trial", "--input", "{}"),
        ("pause", "--input", "{}", "--input", "{}", "--input", "[]"),
        ("no-such-update", "--input", "{}"),
    ):
        done = await house.temporal_cli(binary, *update, "--name", name, *inputs)
        assert done.returncode != 0, (name, inputs, done.stdout)
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert (record.counts.succeeded, house.store.audit(record.uid)) == (2, [])


@pytest.mark.slow
async def test_a_flood_of_signals_and_updates_ends_like_any_other(impatient_house: House) -> None:
    house = impatient_house
    handle = await house.submit(manifest("flood", "sleep 0.3; echo objective=$X", maxTrialCount=12))
    workflow = house.temporal.get_workflow_handle(handle.workflow_id)
    observation = c.Observation(number=0, seq=1, value="0.1" * 1000)

    async def signals() -> None:
        for _ in range(60):
            await workflow.signal("observe", c.ObserveSignal(observations=[observation]))

    async def edits(offset: int) -> None:
        for count in range(6):
            await handle.edit(c.EditRequest(goal=2.0 + offset + count))

    answers = await asyncio.gather(signals(), signals(), *(edits(10 * k) for k in range(3)), return_exceptions=True)
    # The experiment may end before the flood does.
    assert all(
        answer is None or "ended" in str(answer) or "ending" in str(answer) or "already completed" in str(answer)
        for answer in answers
    ), answers
    record = await house.ended(handle)
    assert record.counts.succeeded == 12
    assert len(house.store.audit(record.uid)) >= 1


async def test_a_name_longer_than_temporal_takes_is_not_called_an_outage(house: House) -> None:
    with pytest.raises(errors.EvertuneError) as caught:
        await house.submit(manifest("n" * 3000))
    assert caught.value.exit_code == 2, caught.value


@pytest.mark.slow
async def test_an_admission_that_cannot_succeed_yet_says_what_the_worker_says(house: House, tmp_path: Path) -> None:
    async with a_house(house.address, tmp_path / "other") as other:
        await other.stop_worker()  # only a worker with another database is left
        with pytest.raises(errors.UnavailableError, match="this worker has database"):
            await other.client.submit(manifest("orphan"), timeout_s=10)
        await other.temporal.get_workflow_handle("experiment/default/orphan").terminate()
