"""The server as a process: `evertune server`, what it says of bad options, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from evertune.testing.gateway import Attempt
from evertune.tokens import Claims, TokenKeys
from tests.ports import free_port
from tests.server.conftest import World, in_thread, points, post, settings_in

ROOT = Path(__file__).parents[2]


def command(home: Path, *words: str, **environ: str) -> subprocess.Popen[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("EVERTUNE", "TEMPORAL"))}
    return subprocess.Popen(
        [sys.executable, "-m", "evertune.cli", *words],
        env={**plain, "EVERTUNE_HOME": str(home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def serving(world: World) -> Iterator[subprocess.Popen[str]]:
    port = world.settings.server_port or 0
    process = command(world.settings.home, "server", "--only", "ingest", "--port", str(port))
    deadline = time.monotonic() + 60
    while not listens(port):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def test_the_command_serves_reports_and_ends_with_code_0(world: World, serving: subprocess.Popen[str]) -> None:
    (attempt,) = world.open_attempts(1)
    assert post(world.settings, attempt, {"points": points(3)})[1]["accepted"] == 3
    with urllib.request.urlopen(f"http://127.0.0.1:{world.settings.server_port}/healthz", timeout=30) as answer:
        found = json.loads(answer.read())
    assert (found["status"], found["reports"], found["points"]) == ("ok", 1, 3)
    serving.send_signal(signal.SIGTERM)
    _, said = serving.communicate(timeout=60)
    assert serving.returncode == 0
    assert f"http://127.0.0.1:{world.settings.server_port}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "environ", "code", "sentence"),
    [
        (("--only", "everything"), {}, 2, "ingest"),
        (("--port", "80"), {}, 2, "a port is a whole number from 1024 to 65535"),
        (("--host", "http://here"), {}, 2, "a host is a name or an address without a port"),
        ((), {"EVERTUNE_INGEST_KEYS": "k1:short"}, 2, "each secret 16 to 64 bytes"),
        (("--host", "203.0.113.7", "--port", "8090"), {}, 1, "cannot listen on 203.0.113.7:8090"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(
    tmp_path: Path, words: tuple[str, ...], environ: dict[str, str], code: int, sentence: str
) -> None:
    process = command(tmp_path / "home", "server", *words, **environ)
    _, said = process.communicate(timeout=90)
    assert process.returncode == code, said
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = command(tmp_path / "home", "server", "--port", port)
        _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in said
    assert "EVERTUNE_SERVER_PORT" in said


def test_a_gateway_with_keys_of_its_own_makes_its_home(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, ingest_keys=f"k1:{'ab' * 32}", server_port=free_port())
    assert not settings.home.exists()
    token = TokenKeys.load(settings).mint(Claims("0" * 32, 0, 0, "trial-x"))
    with in_thread(settings):
        status, answer, _ = post(settings, Attempt("trial-x", token), {"points": points()})
    assert status == 404, answer


def test_a_damaged_key_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ingest.key").write_text("damaged")
    process = command(tmp_path, "server", "--port", str(free_port()))
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "ingest.key is damaged" in said


def test_an_idle_server_has_imported_no_database_and_no_temporal() -> None:
    code = (
        "import sys, evertune.server.__main__;"
        "print([name for name in ('sqlalchemy', 'temporalio', 'activities', 'alembic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout == "[]\n", done.stderr
