"""Reports that come through the gateway, as the experiment's workflow sees them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from evertune.client import ExperimentHandle
from evertune.domain.states import ExperimentState, TrialState
from evertune.settings import Settings
from evertune.testing.gateway import Attempt
from evertune.tokens import Claims, TokenKeys
from tests.ports import free_port
from tests.server.conftest import in_thread, post
from tests.workflow.harness import House, a_house, manifest, until

# Silent until the test lets them go; without that file they would wait a minute.
WAITS = "n=0; while [ ! -e go ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done"


class Way:
    """A forwarder to Temporal that can be cut: what the gateway sees is a server that goes away and comes back."""

    def __init__(self, target: str) -> None:
        self.host, _, port = target.rpartition(":")
        self.target, self.port = int(port), free_port()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            self._server = None

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it was being accepted when the way was cut
            writer.transport.abort()
            return
        self._open.add(writer)
        there, back = await asyncio.open_connection(self.host, self.target)
        self._open.add(back)
        if writer.transport.is_closing():
            back.transport.abort()
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)
        self._open -= {writer, back}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def seen_from_the_gateway(house: House, temporal: str) -> Settings:
    return Settings.load(house.settings.environment(), server_port=free_port(), temporal_address=temporal)


def attempt_of(house: House, uid: str, number: int) -> Attempt:
    trial = house.store.trial(uid, number)
    claims = Claims(uid, number, trial.attempts - 1, trial.name)
    return Attempt(trial.name, TokenKeys.load(house.settings).mint(claims))


async def send(settings: Settings, attempt: Attempt, value: float, seq: int) -> tuple[int, dict[str, Any]]:
    report = {"points": [{"metric": "objective", "value": value, "seq": seq, "timestamp": 1e9 + seq}]}
    status, answer, _ = await asyncio.to_thread(post, settings, attempt, report)
    return status, answer


async def value_of(handle: ExperimentHandle, number: int) -> str | None:
    status = await handle.status()
    return next((trial.value for trial in status.in_flight if trial.number == number), None)


@asynccontextmanager
async def waiting(house: House, name: str, **spec: Any) -> AsyncIterator[ExperimentHandle]:
    """An experiment whose two trials run until the context ends."""
    spec = {"parallelTrialCount": 2, "maxTrialCount": 2, **spec}
    handle = await house.submit(manifest(name, f"{WAITS}; echo objective=$X", **spec))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    try:
        yield handle
    finally:
        (house.workdir / "go").touch()
        await house.ended(handle)


async def test_a_running_trials_last_value_reaches_the_workflow(house: House) -> None:
    settings = seen_from_the_gateway(house, house.address)
    async with waiting(house, "told") as handle:
        with in_thread(settings):
            for seq in range(5):
                status, answer = await send(settings, attempt_of(house, handle.uid, 1), seq / 10, seq)
                assert (status, answer["accepted"], answer["stop"]) == (200, 1, False)

            async def told() -> bool:
                return await value_of(handle, 1) == "0.4"

            await until(told)
            assert await value_of(handle, 0) is None


async def test_while_temporal_is_away_points_are_stored_and_the_last_value_is_told_when_it_is_back(
    house: House,
) -> None:
    way = Way(house.address)
    settings = seen_from_the_gateway(house, way.address)
    async with waiting(house, "away") as handle:
        with in_thread(settings):
            attempt = attempt_of(house, handle.uid, 0)
            assert (await send(settings, attempt, 0.1, 1))[0] == 200, "it was never there"
            await way.up()

            async def told(value: str) -> bool:
                return await value_of(handle, 0) == value

            await until(lambda: told("0.1"))
            await way.down()
            for seq in range(2, 6):
                assert (await send(settings, attempt, seq / 10, seq))[0] == 200
            assert len(house.store.points(handle.uid, 0)) == 5
            assert await value_of(handle, 0) == "0.1"
            await way.up()
            await until(lambda: told("0.5"))
        await way.down()


async def test_a_late_report_changes_the_verdict_of_a_running_experiments_trial(house: House) -> None:
    settings = seen_from_the_gateway(house, house.address)
    silent_first = f'[ "$EVERTUNE_TRIAL_NUMBER" -gt 0 ] || exit 0; {WAITS}; echo objective=$X'
    spec: dict[str, Any] = {"parallelTrialCount": 1, "maxTrialCount": 2, "maxFailedTrialCount": 2}
    handle = await house.submit(manifest("late", silent_first, **spec))
    await until(lambda: house.store.counts(handle.uid).metrics_unavailable == 1)
    await until(lambda: house.store.counts(handle.uid).running == 1)
    with in_thread(settings):
        status, answer = await send(settings, attempt_of(house, handle.uid, 0), 0.75, 1)
        assert (status, answer["stop"]) == (200, True)
        await until(lambda: house.store.trial(handle.uid, 0).state is TrialState.SUCCEEDED)
    assert house.store.trial(handle.uid, 0).objective == "0.75"
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert record.state is ExperimentState.SUCCEEDED
    assert (record.counts.succeeded, record.counts.metrics_unavailable) == (2, 0)


PUSHES = """
import os
del os.environ["EVERTUNE_REPORT_FILE"]  # as where nobody can read a file of this trial
from evertune.report import params, report
for step in range(50):
    report(objective=params()["x"] + step, step=step)
"""


async def test_a_trial_that_can_only_reach_the_gateway_pushes_with_its_token(
    temporal_address: str, tmp_path: Path
) -> None:
    port = free_port()
    async with a_house(temporal_address, tmp_path, ingest_url=f"http://127.0.0.1:{port}") as house:
        (house.workdir / "push.py").write_text(PUSHES)
        command = f"EVERTUNE_FLUSH_S=60 PYTHONPATH={Path(__file__).parents[2]} {sys.executable} push.py"
        with in_thread(Settings.load(house.settings.environment(), server_port=port)):
            handle = await house.submit(manifest("push", command))
            record = await house.ended(handle)
        assert record.counts.succeeded == 4
        for number in range(4):
            trial = house.store.trial(handle.uid, number)
            points = [point for _, point in house.store.points(handle.uid, number)]
            assert [point.step for point in points] == list(range(50))
            assert trial.objective == points[-1].value, "the objective is maximized"
        await house.stop_worker()  # nothing is written or archived any more
        for file in house.settings.trials_dir.rglob("*"):
            assert not file.is_file() or b"et1." not in file.read_bytes(), f"a token is kept in {file}"
