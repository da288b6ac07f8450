"""The real gateway on a real database: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from evertune.app import child_environment, module_command
from evertune.domain.trial import Assignment
from evertune.server.app import Gateway, create_app
from evertune.server.serving import Server, bound, configured
from evertune.settings import Settings
from evertune.store import Store, open_store
from evertune.testing.gateway import Attempt
from evertune.testing.store.making import create, suggest
from evertune.tokens import Claims, TokenKeys
from tests.ports import free_port


def settings_in(folder: Path, **overrides: Any) -> Settings:
    return Settings.load({"EVERTUNE_HOME": str(folder / "home"), "EVERTUNE_LOG": "warning"}, **overrides)


class World:
    """A database with an experiment whose trials report, and the keys to their tokens."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.prepare_home()
        self.keys = TokenKeys.load(settings)
        self.store: Store = open_store(settings.database_url)
        self.uid = create(self.store).uid
        self._requests = 0

    def open_attempts(self, how_many: int) -> list[Attempt]:
        """Running attempts of as many new trials; the objective is called accuracy."""
        made = suggest(self.store, self.uid, self._requests, [Assignment({"layers": 1})] * how_many)
        self._requests += 1
        for trial in made:
            self.store.open_attempt(self.uid, trial.number, 0, home_id="home-1", at=datetime.now(UTC))
        return [Attempt(trial.name, self.token(trial.number, trial.name)) for trial in made]

    def token(self, number: int, name: str, attempt: int = 0) -> str:
        return self.keys.mint(Claims(self.uid, number, attempt, name))

    def number(self, attempt: Attempt) -> int:
        claims = self.keys.verify(attempt.token)
        assert isinstance(claims, Claims)
        return claims.number

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # Port 9 of this machine: nobody is there, as when Temporal is away.
    made = World(settings_in(tmp_path, server_port=free_port(), temporal_address="127.0.0.1:9"))
    yield made
    made.close()


@contextmanager
def in_thread(settings: Settings, prepare: Callable[[Gateway], None] = lambda _: None) -> Iterator[Gateway]:
    """Serve until the context ends, on the settings' port."""
    ready = threading.Event()
    running: dict[str, Any] = {}

    class InThread(Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    async def serve() -> None:
        gateway = Gateway.of(settings, TokenKeys.load(settings), temporal_address=settings.temporal_address or "")
        prepare(gateway)
        server = InThread(configured(create_app(gateway)))
        running.update(loop=asyncio.get_running_loop(), server=server, gateway=gateway)
        listener = bound(settings.server_host, settings.server_port or 0)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        ready.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    try:
        yield running["gateway"]
    finally:
        running["loop"].call_soon_threadsafe(running["server"].stop)
        thread.join(60)
        assert not thread.is_alive()


class ServerProcess:
    """`python -m evertune.server`, that can be killed and started again on its port."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**child_environment(), **self.settings.environment()}
        self.process = subprocess.Popen(module_command("evertune.server"), env=environment)
        deadline = time.monotonic() + 60
        while not self.listens():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.settings.server_port or 0)) == 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def rss_mib(self) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def server(world: World) -> Iterator[ServerProcess]:
    made = ServerProcess(world.settings)
    yield made
    made.close()


def post(
    settings: Settings,
    attempt: Attempt,
    body: Any,
    *,
    headers: dict[str, str] | None = None,
    connection: HTTPConnection | None = None,
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers (lower case) of the answer to one report."""
    own = connection or HTTPConnection("127.0.0.1", settings.server_port, timeout=30)
    given = {"Content-Type": "application/json", "Authorization": f"Bearer {attempt.token}", **(headers or {})}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        own.request("POST", f"/ingest/v1/trials/{attempt.trial}/reports", data, given)
        response = own.getresponse()
        answer = json.loads(response.read())
        return response.status, answer, {name.lower(): value for name, value in response.getheaders()}
    finally:
        if connection is None:
            own.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.01)


def health(settings: Settings, path: str = "/healthz") -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", settings.server_port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def points(count: int = 1, *, metric: str = "accuracy", first: int = 0) -> list[dict[str, Any]]:
    return [
        {"metric": metric, "value": f"0.{seq:04}", "seq": seq, "timestamp": 1_770_000_000.0 + seq, "step": seq}
        for seq in range(first, first + count)
    ]
