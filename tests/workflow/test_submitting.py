"""Whoever submits waits for the admission, also over a Temporal that goes away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import evertune.errors as errors
from evertune.client import Client, ExperimentHandle
from evertune.contracts import StartContext
from evertune.settings import Settings
from tests.workflow.harness import House, manifest, until
from tests.workflow.test_gateway import Way

pytestmark = pytest.mark.slow
GIVES_UP_S = 15.0  # Temporal's client tries again by itself for less


@asynccontextmanager
async def submitting(
    house: House, name: str, timeout_s: float
) -> AsyncIterator[tuple[Way, asyncio.Task[ExperimentHandle]]]:
    """Somebody waits for an experiment that is started, and that no worker has read."""
    await house.stop_worker()
    way = Way(house.address)
    await way.up()
    seen = Settings.load(house.settings.environment(), temporal_address=way.address)
    async with Client.connect(seen) as client:
        context = StartContext(working_dir=str(house.workdir), backend="local")
        waits = asyncio.create_task(client.submit(manifest(name), context=context, timeout_s=timeout_s))

        async def started() -> bool:
            runs = house.temporal.list_workflows(f"WorkflowId = 'experiment/default/{name}'")
            return [run.id async for run in runs] != []

        await until(started)
        yield way, waits
    await way.down()


async def test_a_temporal_that_was_away_while_the_admission_was_awaited_has_lost_nothing(house: House) -> None:
    async with submitting(house, "comes-back", 60) as (way, waits):
        await way.down()
        await asyncio.sleep(GIVES_UP_S)
        assert not waits.done()
        await way.up()
        await house.start_worker()
        assert (await house.ended(await waits)).counts.succeeded == 4


async def test_a_temporal_that_stays_away_is_named_when_the_time_is_up(house: House) -> None:
    async with submitting(house, "stays-away", GIVES_UP_S) as (way, waits):
        await way.down()
        with pytest.raises(errors.UnavailableError, match=r"no worker has read it within 15 s: cannot reach Temporal"):
            await waits
    await house.temporal.get_workflow_handle("experiment/default/stays-away").terminate()
