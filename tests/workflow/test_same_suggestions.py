"""A worker that ends between any two asks changes no suggestion."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from activities.replay import verify_replay
from tests.workflow.harness import House, manifest, until

TRIALS = 7
TPE = {
    "algorithmName": "tpe",
    "algorithmSettings": [{"name": "random_state", "value": "7"}, {"name": "n_EI_candidates", "value": "24"}],
}
# Each trial waits for its turn, so that a worker ends between its ask and the next.
COMMAND = 'while [ ! -e "turn-$EVERTUNE_TRIAL_NUMBER" ]; do sleep 0.05; done; echo objective=$X'


def tpe(name: str, command: str = "echo objective=$X") -> dict[str, Any]:
    return manifest(name, command, algorithm=TPE, maxTrialCount=TRIALS, parallelTrialCount=1)


@pytest.mark.slow
async def test_tpe_suggests_the_same_when_the_worker_is_replaced_between_any_two_asks(house: House) -> None:
    unbroken = await house.ended(await house.submit(tpe("unbroken")), 60)
    broken = await house.submit(tpe("broken", COMMAND))
    for number in range(TRIALS):
        await until(lambda number=number: house.store.counts(broken.uid).created == number + 1)  # type: ignore[misc]
        await house.stop_worker()
        (house.workdir / f"turn-{number}").touch()
        await house.start_worker()
    record = await house.ended(broken, 60)
    assert record.counts.succeeded == TRIALS
    ours, theirs = ([trial.parameters for trial in house.store.trials(uid)] for uid in (record.uid, unbroken.uid))
    assert ours == theirs
    for uid in (record.uid, unbroken.uid):
        replay = await asyncio.to_thread(verify_replay, house.store, uid)
        assert replay.identical, replay.divergence
        assert replay.trials == TRIALS
