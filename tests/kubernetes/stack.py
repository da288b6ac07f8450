"""Stacks whose trials run in a real cluster: processes of `evertune up`, or a worker in the test beside a gateway."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evertune.client import ExperimentHandle
from evertune.contracts import StartContext
from evertune.settings import Settings
from evertune.stack import status
from evertune.stack.state import recorded_parent
from evertune.store import Store, open_store
from tests.kubernetes.real import Manifest, gateway_host
from tests.ports import free_port
from tests.repository.checkout import ROOT
from tests.server.conftest import ServerProcess
from tests.workflow.harness import House, a_house

EVERYTHING = ("parent", "worker", "server", "temporal")


@dataclass
class Stack:
    home: Path
    environment: dict[str, str]
    settings: Settings

    def evertune(self, *words: str, timeout_s: float = 120) -> str:
        """Its output; what fails is a failure of the test."""
        done = subprocess.run(
            [sys.executable, "-m", "evertune.cli", *words],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, document: Manifest) -> str:
        """The experiment's uid."""
        name = document["metadata"]["name"]
        path = self.home / f"{name}.json"
        path.write_text(json.dumps(document))
        self.evertune("submit", str(path))
        with self.store() as store:
            return store.experiment(document["metadata"]["namespace"], name).uid

    @contextmanager
    def store(self) -> Iterator[Store]:
        with open_store(self.settings.database_url) as store:
            yield store

    def kill(self, *names: str) -> None:
        """kill -9 of these, of those that run, at one moment."""
        running = {service.name: service.pid for service in status(self.settings).services if service.pid}
        if (parent := recorded_parent(self.settings)) is not None:
            running["parent"] = parent.pid
        for pid in [running[name] for name in names if name in running]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def a_stack(directory: Path, kubeconfig: Path) -> Iterator[Stack]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
        "EVERTUNE_HOME": str(directory / "home"),
        "EVERTUNE_KUBECONFIG": str(kubeconfig),
        "EVERTUNE_SERVER_HOST": "0.0.0.0",
        "EVERTUNE_SERVER_PORT": str(port),
        "EVERTUNE_INGEST_URL": f"http://{gateway_host(kubeconfig)}:{port}",
    }
    made = Stack(directory, environment, Settings.load(environment))
    made.evertune("up")
    try:
        yield made
    finally:
        made.evertune("down")


@dataclass
class Gateway:
    """The real server, where pods reach it."""

    process: ServerProcess

    async def start(self) -> None:
        await asyncio.to_thread(self.process.start)

    def kill(self) -> None:
        self.process.kill()


@asynccontextmanager
async def a_real_house(
    address: str, directory: Path, kubeconfig: Path, **overrides: Any
) -> AsyncIterator[tuple[House, Gateway]]:
    port = free_port()
    url = f"http://{gateway_host(kubeconfig)}:{port}"
    async with a_house(address, directory, kubeconfig=str(kubeconfig), ingest_url=url, **overrides) as house:
        seen = Settings.load(
            house.settings.environment(), server_host="0.0.0.0", server_port=port, temporal_address=address
        )
        gateway = Gateway(ServerProcess(seen))
        try:
            await gateway.start()
            yield house, gateway
        finally:
            gateway.process.close()


async def submit(house: House, document: Manifest) -> ExperimentHandle:
    return await house.client.submit(document, context=StartContext(backend="kubernetes"))
