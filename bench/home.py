"""A stack in a temporary EVERTUNE_HOME, as a user has it: embedded Temporal, one worker, SQLite; gone afterwards."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evertune.client import Client, ExperimentHandle
from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord
from evertune.settings import Settings
from evertune.stack import StackStatus, down, ensure_up, status
from evertune.store import Store, open_store

POLL_S = 0.2


@dataclass
class Home:
    """A running stack, and the database behind it."""

    settings: Settings
    store: Store
    folder: Path

    def up(self) -> None:
        ensure_up(self.settings)

    def status(self) -> StackStatus:
        return status(self.settings)

    def pids(self) -> dict[str, int]:
        """The stack's own processes that live: parent, temporal, worker."""
        return {service.name: service.pid for service in self.status().services if service.pid is not None}

    def submit(self, manifest: dict[str, Any]) -> str:
        """Start an experiment in this home's folder; returns its uid once it is admitted."""
        return asyncio.run(self._submit(manifest))

    async def _submit(self, manifest: dict[str, Any]) -> str:
        address = self.status().temporal_address
        context = StartContext(
            working_dir=str(self.folder), environment={"PATH": os.environ["PATH"]}, backend=self.settings.backend
        )
        async with Client.connect(self.settings, address=address) as client:
            handle: ExperimentHandle = await client.submit(manifest, context=context)
            return handle.uid

    def finish(self, manifest: dict[str, Any], *, within_s: float = 600.0) -> ExperimentRecord:
        """Submit and wait for the end. Looks seldom: the machine is for the experiment."""
        uid = self.submit(manifest)
        deadline = time.monotonic() + within_s
        while not (record := self.store.experiment_by_uid(uid)).state.terminal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{record.name} is {record.state} after {within_s:.0f} s: {record.counts}")
            time.sleep(POLL_S)
        return record

    def finished(self, uid: str) -> int:
        return self.store.counts(uid).finished


@contextmanager
def home(**overrides: Any) -> Iterator[Home]:
    """`overrides`: settings by their field names."""
    with tempfile.TemporaryDirectory(prefix="evertune-bench-") as name:
        folder = Path(name)
        settings = Settings.load(
            {"HOME": name, "EVERTUNE_HOME": str(folder / "home"), "EVERTUNE_LOG": "warning"}, **overrides
        )
        ensure_up(settings)
        store = open_store(settings.database_url)
        try:
            yield Home(settings, store, folder)
        finally:
            store.close()
            down(settings)


def experiment(name: str, command: str, *, trials: int, parallel: int, algorithm: str = "random") -> dict[str, Any]:
    """A maximisation over one double x whose trial is `/bin/sh -c command`."""
    container = {"name": "trial", "image": "none", "command": ["/bin/sh", "-c", command]}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "objective"},
            "algorithm": {
                "algorithmName": algorithm,
                "algorithmSettings": [{"name": "random_state", "value": "1"}],
            },
            "parallelTrialCount": parallel,
            "maxTrialCount": trials,
            "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
                },
            },
        },
    }


NO_OP = "echo objective=${trialParameters.x}"
