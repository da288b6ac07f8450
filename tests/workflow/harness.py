"""A real Temporal dev server, a real database and real local trials, for tests of the workflow.

Temporal is configured so that rare things happen early (timers below a second, continue-as-new after few events), so
that production code needs no flag for tests.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client as TemporalClient
from temporalio.service import RPCError

from activities.runners.local import LocalRunner
from activities.trial import TrialActivities
from evertune.client import Client, ExperimentHandle
from evertune.connection import connect_temporal
from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord
from evertune.errors import UnavailableError
from evertune.settings import Settings
from evertune.store import Store, open_store
from worker.compose import Parts, compose, run_until, stop_local_trials, trial_activities
from worker.reconcile import reconciler_of

T = TypeVar("T")

# Deadlines only: on a busy machine all of it takes its time. Shorter than the minute that trials sleep which are to be
# stopped.
SOON_S = 50.0


def gated(command: str = "echo objective=1", gate: str = "go") -> str:
    """A trial that says it has started, in the file `starts`, and goes on when the test opens the gate: its own time
    decides nothing."""
    return f"echo $EVERTUNE_TRIAL_NUMBER >> starts; until [ -e {gate} ]; do sleep 0.05; done; {command}"


def manifest(name: str, command: str = "echo objective=$X", **spec: Any) -> dict[str, Any]:
    """A small Experiment in Katib's form: one double x, a shell command as the trial."""
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "objective"},
            # grid is asked in the worker itself: no process to start for each test's home.
            "algorithm": {"algorithmName": "grid", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
            "parallelTrialCount": 2,
            "maxTrialCount": 4,
            "parameters": [
                {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1", "step": "0.001"}},
            ],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {
                        "template": {
                            "spec": {
                                "restartPolicy": "Never",
                                "containers": [
                                    {
                                        "name": "trial",
                                        "image": "none",
                                        "command": ["/bin/sh", "-c", command],
                                        "env": [{"name": "X", "value": "${trialParameters.x}"}],
                                    }
                                ],
                            }
                        }
                    },
                },
            },
            **spec,
        },
    }


@dataclass
class House:
    """One home: database, trials directory, and workers that can be started and stopped."""

    address: str
    settings: Settings
    store: Store
    client: Client
    workdir: Path
    _stop: asyncio.Event | None = None
    _task: asyncio.Task[None] | None = None
    parts: Parts | None = field(default=None)
    adapt: Callable[[TrialActivities], TrialActivities] | None = None  # another runner, other waits

    async def start_worker(self) -> None:
        temporal = await patiently(lambda: connect_temporal(self.address, "default"))
        self.parts = await compose(self.settings, temporal, self.store)
        self._stop, ready = asyncio.Event(), asyncio.Event()
        trial = trial_activities(self.parts)
        trial = trial if self.adapt is None else self.adapt(trial)
        self._task = asyncio.create_task(run_until(self.parts, self._stop, ready.set, trial=trial))
        await asyncio.wait_for(ready.wait(), SOON_S)

    async def stop_worker(self) -> None:
        """As SIGTERM does: activities detach, trials go on."""
        if self._stop is None or self._task is None or self.parts is None:
            return
        self._stop.set()
        await self._task
        await self.parts.close()
        self._stop = self._task = None

    async def leave(self) -> None:
        """What still runs of this house, as after a test that failed, is not left to Temporal: names come again."""
        for record in self.store.unfinished():
            with suppress(RPCError):
                await self.temporal.get_workflow_handle(record.workflow_id).terminate()

    @property
    def temporal(self) -> TemporalClient:
        return self.client.temporal

    async def submit(self, document: dict[str, Any]) -> ExperimentHandle:
        return await self.client.submit(document, context=StartContext(working_dir=str(self.workdir), backend="local"))

    async def ended(self, handle: ExperimentHandle, timeout_s: float = SOON_S) -> ExperimentRecord:
        return await asyncio.wait_for(handle.result(), timeout_s)

    async def sweep(self) -> int:
        assert self.parts is not None
        return await reconciler_of(self.parts, settle_s=0).sweep()

    async def temporal_cli(self, binary: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Temporal's own command line; in a thread, because the worker polls in this event loop."""
        return await asyncio.to_thread(
            subprocess.run,
            [binary, *words, "--address", self.address],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    def write(self, name: str, document: Any) -> str:
        path = self.workdir / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(path)


@asynccontextmanager
async def a_house(
    address: str,
    home: Path,
    *,
    adapt: Callable[[TrialActivities], TrialActivities] | None = None,
    **overrides: Any,
) -> AsyncIterator[House]:
    workdir = home / "work"
    workdir.mkdir(parents=True)
    settings = Settings.load(
        {"EVERTUNE_HOME": str(home / "home"), "TEMPORAL_ADDRESS": address, "HOME": str(home)}, **overrides
    )
    settings.home.mkdir(parents=True, exist_ok=True)
    store = open_store(settings.database_url)
    try:
        async with AsyncExitStack() as stack:
            client = await patiently(lambda: stack.enter_async_context(Client.connect(settings)))
            house = House(address=address, settings=settings, store=store, client=client, workdir=workdir, adapt=adapt)
            try:
                await house.start_worker()
                yield house
            finally:
                await house.stop_worker()
                await house.leave()
                await stop_local_trials(LocalRunner(settings.trials_dir), reason="TestOver")
    finally:
        store.close()


async def until(condition: Callable[[], Awaitable[bool] | bool], *, timeout_s: float = SOON_S, what: str = "") -> None:
    """Poll until true; the test fails with `what` when it never is."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        assert loop.time() < end, f"not within {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.05)


async def patiently(connect: Callable[[], Awaitable[T]]) -> T:
    """Temporal has five seconds for its first answer, and beside other tests it may need more."""
    end = asyncio.get_running_loop().time() + SOON_S
    while True:
        try:
            return await connect()
        except UnavailableError:
            if asyncio.get_running_loop().time() > end:
                raise
