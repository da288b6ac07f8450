"""How a client waits for what it has submitted: it asks ever less often, and a few questions at a time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from temporalio.client import WorkflowQueryFailedError

import evertune.contracts as c
from evertune.client import ADMIT_POLL_S, ASKED_AT_ONCE, Client
from evertune.domain.states import ExperimentState


class Run:
    """A workflow in Temporal that is admitted after so many questions."""

    asked_now = most = 0

    def __init__(self, refusals: float) -> None:
        self._refusals = refusals
        self.asked = 0
        self.moments: list[float] = []

    async def query(self, *_: Any, **__: Any) -> c.Status:
        self.asked += 1
        self.moments.append(asyncio.get_running_loop().time())
        Run.asked_now += 1
        Run.most = max(Run.most, Run.asked_now)
        await asyncio.sleep(0.001)
        Run.asked_now -= 1
        if self.asked <= self._refusals:
            raise WorkflowQueryFailedError("it is not admitted yet")
        return c.Status.model_construct(uid="u", state=ExperimentState.RUNNING)


def client() -> Client:
    nobody = cast(Any, None)
    return Client(temporal=nobody, store=nobody, address="")


async def test_three_hundred_that_are_submitted_at_once_ask_a_few_at_a_time() -> None:
    asking = client()
    runs = [Run(3) for _ in range(300)]
    found = await asyncio.gather(*(asking._until_status(cast(Any, run)) for run in runs))
    assert {status.uid for status in found} == {"u"}
    assert Run.most <= ASKED_AT_ONCE


async def test_what_is_not_admitted_soon_is_asked_ever_less_often() -> None:
    run = Run(float("inf"))
    waiting = asyncio.create_task(client()._until_status(cast(Any, run)))
    async with asyncio.timeout(60):
        while run.asked < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    waiting.cancel()
    assert run.moments[7] - run.moments[0] > 20 * ADMIT_POLL_S  # 7 at the first pace
    assert run.moments[7] - run.moments[6] > 5 * ADMIT_POLL_S
