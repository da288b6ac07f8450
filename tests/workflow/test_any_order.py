"""Whatever people do to an experiment, in whatever order: it ends, its counters add up, and nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter

import pytest

import evertune.contracts as c
import evertune.errors as errors
from evertune.client import ExperimentHandle
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import AttemptState
from tests.workflow.harness import House, manifest

VERBS = ("pause", "pause now", "resume", "edit parallel", "edit budget", "stop a trial", "stop", "cancel")
# Mostly what can be undone: an experiment that is cancelled first shows nothing.
WEIGHTS = (3, 4, 6, 3, 2, 4, 1, 1)
COMMAND = "echo $EVERTUNE_TRIAL >> starts-{name}; sleep 0.$(($EVERTUNE_TRIAL_NUMBER % 4)); echo objective=$X"


async def act(handle: ExperimentHandle, verb: str, dice: random.Random) -> None:
    """Whoever gets no answer, on a machine that is busy with forty experiments, asks once more."""
    with contextlib.suppress(errors.UnavailableError):
        return await say(handle, verb, dice)
    return await say(handle, verb, dice)


async def say(handle: ExperimentHandle, verb: str, dice: random.Random) -> None:
    if verb == "pause":
        await handle.pause()
    elif verb == "pause now":
        await handle.pause(now=True)
    elif verb == "resume":
        await handle.resume()
    elif verb == "edit parallel":
        await handle.edit(c.EditRequest(parallel=dice.randint(1, 4)))
    elif verb == "edit budget":
        await handle.edit(c.EditRequest(max_trials=dice.randint(4, 12)))
    elif verb == "stop a trial":
        running = (await handle.status()).in_flight
        await handle.stop_trial(dice.choice(running).number if running else 0)
    elif verb == "stop":
        await handle.stop()
    else:
        await handle.cancel()


async def live_through(house: House, name: str, seed: int) -> None:
    dice = random.Random(seed)
    handle = await house.submit(manifest(name, COMMAND.format(name=name), maxTrialCount=8, parallelTrialCount=3))
    done: list[str] = []
    waves = [dice.choices(VERBS, WEIGHTS, k=dice.choice((1, 1, 2, 3))) for _ in range(6)]
    for wave in waves:
        await asyncio.sleep(dice.choice((0, 0, 0.05, 0.2)))
        # A wave is sent at once, as several people would.
        answers = await asyncio.gather(*(act(handle, verb, dice) for verb in wave), return_exceptions=True)
        done += wave
        for answer in answers:
            # A refusal is an answer; so is "it has ended" when the last trial was quicker.
            if answer is not None and not isinstance(answer, errors.ConflictError | errors.UsageError):
                raise AssertionError(f"{name} after {done}: {answer!r}")
    with contextlib.suppress(errors.ConflictError):
        await handle.resume()
    try:
        record = await house.ended(handle, 90)
    except TimeoutError:
        raise AssertionError(f"{name} never ended after {done}; {await handle.status()}") from None
    check(house, record, [*done, f"{record.state}: {record.message}"])


def check(house: House, record: ExperimentRecord, story: list[str]) -> None:
    trials = house.store.trials(record.uid)
    counts = record.counts
    assert record.state.terminal, story
    assert all(trial.state.terminal for trial in trials), story
    assert counts.created == counts.finished == len(trials), story
    assert (counts.running, counts.pending, counts.failed) == (0, 0, 0), story
    assert sorted(trial.told_seq or 0 for trial in trials) == list(range(1, len(trials) + 1)), story
    assert record.budget.max_trials is not None
    assert len(trials) <= record.budget.max_trials, story
    assert not house.store.running_attempts(record.uid), story
    assert house.parts is not None
    left = [ref for ref in house.parts.runner.find_orphans(set()) if ref.experiment_uid == record.uid]
    assert not left, story
    starts = house.workdir / f"starts-{record.name}"
    executed = Counter(starts.read_text().splitlines()) if starts.exists() else Counter()
    attempts = {trial.name: house.store.attempts(record.uid, trial.number) for trial in trials}
    assert set(executed) <= set(attempts), story
    for name, times in executed.items():
        assert times <= len(attempts[name]), (story, name)
    # Only a pause gives a trial another attempt.
    for attempt in itertools.chain.from_iterable(attempts.values()):
        assert attempt.state in (AttemptState.SUCCEEDED, AttemptState.KILLED), (story, attempt)
        assert attempt.again == (attempt.reason == "Paused"), (story, attempt)


async def test_after_any_order_of_verbs_it_ends_and_everything_adds_up(house: House) -> None:
    await asyncio.gather(*(live_through(house, f"order-{seed}", seed) for seed in range(8)))


@pytest.mark.slow
async def test_the_same_holds_while_it_is_continued_as_new(impatient_house: House) -> None:
    await asyncio.gather(*(live_through(impatient_house, f"order-can-{seed}", 100 + seed) for seed in range(4)))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(4))
async def test_after_many_more_orders_as_well(house: House, batch: int) -> None:
    seeds = range(1000 + 6 * batch, 1006 + 6 * batch)
    await asyncio.gather(*(live_through(house, f"many-{seed}", seed) for seed in seeds))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(4))
async def test_after_many_more_orders_while_continued_as_new(impatient_house: House, batch: int) -> None:
    seeds = range(2000 + 6 * batch, 2006 + 6 * batch)
    await asyncio.gather(*(live_through(impatient_house, f"many-can-{seed}", seed) for seed in seeds))
