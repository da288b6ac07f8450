"""Trials whose collectors stand beside them end while the gateway is away: no result is lost, and none counts twice."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from activities.trial import FINAL_WAIT_S, TrialActivities
from evertune.client import ExperimentHandle
from evertune.domain.metrics import SOURCE, CollectorSpec, place
from evertune.domain.states import ExperimentState, TrialState
from evertune.domain.trial import AttemptRef
from evertune.protocols import Launch
from evertune.settings import Settings
from evertune.testing.scripts import FOR_EVER, Script
from evertune.testing.sidecars import SidecarRunner
from tests.ports import free_port
from tests.server.conftest import ServerProcess
from tests.workflow.harness import House, a_house, manifest, until

TRIALS = 10
LINES = 12
OUTAGE_S, SHORT_WAIT_S = 3.0, 1.0
PATIENT_S = 150.0  # for collectors that are starved and gateways that take their time to start


def lines_of(number: int) -> tuple[str, ...]:
    return tuple(f"epoch {step}: objective={number + step / 100}" for step in range(LINES))


@dataclasses.dataclass
class Cluster:
    """A house whose trials have collectors beside them, and the gateway that those report to."""

    house: House
    runner: SidecarRunner
    gateway: ServerProcess
    go_on: asyncio.Event  # until then a trial prints one line, and does not end

    async def start_gateway(self) -> None:
        await asyncio.to_thread(self.gateway.start)

    async def submit(self, name: str, **spec: Any) -> ExperimentHandle:
        wanted = {"parallelTrialCount": TRIALS, "maxTrialCount": TRIALS, **spec}
        return await self.house.submit(manifest(name, **wanted))

    async def first_words(self, uid: str) -> None:
        """All trials run, and something of each has got through, but not all."""
        await until(lambda: self.house.store.counts(uid).running >= TRIALS)
        await until(lambda: all(self.house.store.points(uid, number) for number in range(TRIALS)), what="first words")

    def ending(self) -> list[Launch]:
        """The attempts that end by themselves."""
        return [launch for launch in self.runner.launches if launch.ref.number < TRIALS]

    async def processes_ended(self) -> None:
        for launch in self.ending():
            await self.runner.wait(launch.ref)

    async def delivered(self) -> None:
        """Their collectors have said all that they had to say, or given up."""
        await asyncio.gather(*(self.runner.collected(launch.ref) for launch in self.ending()))

    def settled(self, uid: str) -> bool:
        return len(self.house.store.trials(uid, states=[s for s in TrialState if s.terminal])) >= TRIALS

    def states(self, uid: str) -> set[TrialState]:
        return {trial.state for trial in self.house.store.trials(uid)[:TRIALS]}

    def unheard(self, uid: str) -> list[int]:
        """The trials whose collector has not said that this was all."""
        return [number for number in range(TRIALS) if not self.house.store.attempts(uid, number)[-1].collected]

    def assert_nothing_lost(self, uid: str) -> None:
        """Every line is one point at its place, and every verdict is the one that its lines call for."""
        for number in range(TRIALS):
            offset, expected = 0, []
            for line in lines_of(number):
                before, _, value = line.partition("=")
                expected.append((place(SOURCE, offset + len(before) + 1), value))
                offset += len(line) + 1
            assert [(p.seq, p.value) for _, p in self.house.store.points(uid, number)] == expected
            trial = self.house.store.trial(uid, number)
            assert (trial.state, trial.objective) == (TrialState.SUCCEEDED, str(number + (LINES - 1) / 100))
            assert len(self.house.store.attempts(uid, number)) == 1
        best = self.house.store.best(uid)
        assert best is not None
        assert best.number == TRIALS - 1


Opens = Callable[..., Any]


@pytest.fixture
def cluster(temporal_address: str, tmp_path: Path) -> Opens:
    @asynccontextmanager
    async def opened(
        *,
        pause_s: float = 0.25,
        wait_s: float = SHORT_WAIT_S,
        leaves: Callable[[AttemptRef], bool] = lambda _: True,
        waits: Callable[[int], bool] = lambda _: False,
        up: bool = True,
    ) -> AsyncIterator[Cluster]:
        go_on = asyncio.Event()

        def script(launch: Launch) -> Script:
            number = launch.ref.number
            lasts = FOR_EVER if waits(number) else 0.0
            return Script(lines=lines_of(number), pause_s=pause_s, duration_s=lasts, until=go_on)

        runner = SidecarRunner(
            tmp_path / "cluster", script, CollectorSpec(kind="StdOut", metrics=("objective",)), leaves=leaves
        )

        def adapt(trial: TrialActivities) -> TrialActivities:
            return dataclasses.replace(trial, runner=runner, final_wait_s=wait_s)

        port = free_port()
        async with a_house(temporal_address, tmp_path, adapt=adapt, ingest_url=f"http://127.0.0.1:{port}") as house:
            seen = Settings.load(house.settings.environment(), server_port=port, temporal_address=temporal_address)
            gateway = ServerProcess(seen)
            try:
                if up:
                    await asyncio.to_thread(gateway.start)
                yield Cluster(house, runner, gateway, go_on)
            finally:
                await runner.close()
                gateway.close()

    return opened


@pytest.mark.slow
async def test_collectors_that_deliver_within_the_wait_are_waited_for(cluster: Opens) -> None:
    async with cluster(wait_s=PATIENT_S, leaves=lambda _: False) as there:
        handle = await there.submit("in-time")
        await there.first_words(handle.uid)
        there.gateway.kill()
        there.go_on.set()
        await there.processes_ended()
        await asyncio.sleep(OUTAGE_S)
        assert there.states(handle.uid) == {TrialState.RUNNING}, "judged before its collector could speak"
        await there.start_gateway()
        record = await there.house.ended(handle)
        assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, TRIALS)
        assert not there.unheard(handle.uid)
        there.assert_nothing_lost(handle.uid)


@pytest.mark.slow
async def test_when_the_wait_is_over_the_log_that_is_left_is_read_and_the_delivery_changes_nothing(
    cluster: Opens,
) -> None:
    async with cluster() as there:
        handle = await there.submit("left-over")
        await there.first_words(handle.uid)
        there.gateway.kill()
        there.go_on.set()
        record = await there.house.ended(handle)
        assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, TRIALS)
        assert there.unheard(handle.uid)
        there.assert_nothing_lost(handle.uid)
        trials = there.house.store.trials(handle.uid)
        await there.start_gateway()
        await asyncio.wait_for(there.delivered(), 60)
        assert not there.unheard(handle.uid)
        there.assert_nothing_lost(handle.uid)
        assert there.house.store.trials(handle.uid) == trials
        assert there.house.store.last_revision(handle.uid) == 0


@pytest.mark.parametrize(
    ("goes_on", "had_words"),
    [
        pytest.param(True, True, id="of a running experiment with first words", marks=pytest.mark.slow),
        pytest.param(False, False, id="of one that has ended without a word"),
        pytest.param(True, False, id="of a running experiment without a word", marks=pytest.mark.slow),
        pytest.param(False, True, id="of one that has ended with first words", marks=pytest.mark.slow),
    ],
)
async def test_what_comes_when_nothing_was_left_to_read_amends_the_verdicts(
    cluster: Opens, goes_on: bool, had_words: bool
) -> None:
    judged = TrialState.SUCCEEDED if had_words else TrialState.METRICS_UNAVAILABLE
    async with cluster(
        pause_s=0.2, leaves=lambda _: False, waits=lambda number: number == TRIALS, up=had_words
    ) as there:
        more, store = TRIALS + goes_on, there.house.store
        handle = await there.submit(f"amended-{more}-{judged.lower()}", parallelTrialCount=more, maxTrialCount=more)
        await until(lambda: store.counts(handle.uid).running == more)
        if had_words:
            await there.first_words(handle.uid)
            there.gateway.kill()
        there.go_on.set()
        await until(lambda: there.settled(handle.uid))
        assert there.states(handle.uid) == {judged}
        if not goes_on:
            await there.house.ended(handle)
        await there.start_gateway()
        await asyncio.wait_for(there.delivered(), 60)
        await until(lambda: not store.late(handle.uid))
        there.assert_nothing_lost(handle.uid)
        if goes_on:
            await handle.stop_trial(TRIALS)
        record = await there.house.ended(handle)
        assert (record.counts.succeeded, record.counts.metrics_unavailable) == (TRIALS, 0)


@pytest.mark.chaos
async def test_collectors_and_gateway_that_are_killed_at_any_moment_lose_nothing(cluster: Opens) -> None:
    chance = random.Random(seed := time.time_ns())
    print(f"seed {seed}")
    async with cluster(pause_s=0.4, wait_s=PATIENT_S, leaves=lambda _: False) as there:
        handle = await there.submit("killed")
        await until(lambda: len(there.runner.launches) == TRIALS)
        await until(lambda: there.runner.kill_collector(chance.choice(there.runner.launches).ref), what="a collector")
        there.go_on.set()
        ended = asyncio.ensure_future(there.house.ended(handle, 300))
        for _ in range(5):
            for launch in chance.sample(there.runner.launches, 3):
                there.runner.kill_collector(launch.ref)
            await asyncio.sleep(chance.random())
            there.gateway.kill()
            await asyncio.sleep(chance.random() / 2)
            await there.start_gateway()
        assert sum(there.runner.starts.values()) > TRIALS
        await ended
        there.assert_nothing_lost(handle.uid)


@pytest.mark.slow
async def test_two_minutes_without_the_gateway_while_ten_trials_end_lose_nothing(cluster: Opens) -> None:
    async with cluster(wait_s=FINAL_WAIT_S, leaves=lambda ref: ref.number % 2 == 0) as there:
        handle = await there.submit("two-minutes")
        await there.first_words(handle.uid)
        there.gateway.kill()
        there.go_on.set()
        began = time.monotonic()
        record = await there.house.ended(handle, 100)
        assert record.counts.succeeded == TRIALS, "judged by what was there"
        await asyncio.sleep(120 - (time.monotonic() - began))
        await there.start_gateway()
        await asyncio.wait_for(there.delivered(), 60)
        there.assert_nothing_lost(handle.uid)
