"""One Temporal dev server per session; a home of its own for each test."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from evertune.stack import temporal
from tests.ports import free_port
from tests.workflow.harness import House, a_house


@pytest.fixture(scope="session")
def binary() -> str:
    return temporal.binary()


def serve(binary: str, *dynamic: str) -> Iterator[str]:
    port = free_port()
    values = [f"--dynamic-config-value={value}" for value in ('history.timerProcessorMaxTimeShift="50ms"', *dynamic)]
    process = subprocess.Popen(
        [binary, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port), *values],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None, f"Temporal has ended with {process.returncode}"
            assert time.monotonic() < deadline, "Temporal does not listen"
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def temporal_address(binary: str) -> Iterator[str]:
    yield from serve(binary)


@pytest.fixture(scope="session")
def impatient_address(binary: str) -> Iterator[str]:
    """A server that suggests continue-as-new after 60 events."""
    yield from serve(binary, "limit.historyCount.suggestContinueAsNew=60")


@pytest.fixture
async def house(temporal_address: str, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(temporal_address, tmp_path) as opened:
        yield opened


@pytest.fixture
async def impatient_house(impatient_address: str, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(impatient_address, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def _let_temporal_settle() -> Iterator[None]:
    """temporalio's threads may touch a finalising interpreter; a short wait keeps the exit code ours."""
    yield
    asyncio.run(asyncio.sleep(0.3))
