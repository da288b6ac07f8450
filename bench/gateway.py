"""Reports a second through the ingest gateway into SQLite, load generator and gateway on the same machine.

Keep-alive connections send prepared reports as fast as they are answered; afterwards the database is counted. There are
so many attempts that the limit of each, 20 reports a second, does not bind.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from bench.figures import Figure
from bench.idle import cpu_s, pss_mb
from evertune.app import child_environment, module_command
from evertune.domain.metrics import Objective, ObjectiveType, place
from evertune.domain.records import Budget
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace
from evertune.domain.trial import Assignment
from evertune.protocols import Answer
from evertune.settings import Settings
from evertune.store import NewExperiment, Store, open_store
from evertune.tokens import Claims, TokenKeys

ATTEMPTS = 400
REPORTS, WARM_UP = 60, 2  # of each attempt
POINTS = 20
CONNECTIONS = 64


@dataclass(frozen=True)
class Reporter:
    """One attempt, and the requests that it will send."""

    number: int
    requests: list[bytes]


@contextmanager
def gateway(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A server process of its own; gone afterwards."""
    environment = {**child_environment(), **settings.environment()}
    process = subprocess.Popen(module_command("evertune.server"), env=environment)
    try:
        deadline = time.monotonic() + 20
        while not _listens(settings):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("the gateway did not start")
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _listens(settings: Settings) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((settings.server_host, settings.server_port or 0)) == 0


def trials(store: Store, how_many: int) -> str:
    """A new experiment with that many running trials; its uid."""
    uid = uuid4().hex
    now = datetime.now(UTC)
    low_high = {"low": 0.0, "high": 1.0, "step": None, "distribution": Distribution.UNIFORM}
    space = SearchSpace((Parameter(name="x", type=ParameterType.DOUBLE, **low_high),))  # type: ignore[arg-type]
    store.claim_experiment(
        NewExperiment(
            uid=uid, namespace="default", name=f"load-{uid[:8]}", workflow_id=f"bench/{uid}", first_run_id="run",
            manifest={}, context={}, algorithm="random", settings={}, seed=1,
            objective=Objective(ObjectiveType.MINIMIZE, "loss"), space=space,
            budget=Budget(parallel=1000, max_trials=how_many, max_failed=None), backend="local", home_id="bench",
            created=now,
        )
    )  # fmt: skip
    store.open_request(uid, 0, how_many, 1)
    answer = Answer(assignments=tuple(Assignment({"x": 0.5}) for _ in range(how_many)))
    for trial in store.commit_answer(uid, 0, answer, now):
        store.open_attempt(uid, trial.number, 0, home_id="bench", at=now)
    return uid


def reporters(settings: Settings, store: Store, uid: str) -> list[Reporter]:
    keys = TokenKeys.load(settings)
    made = []
    for trial in store.trials(uid):
        token = keys.mint(Claims(uid, trial.number, 0, trial.name))
        requests = [_request(trial.name, token, report) for report in range(REPORTS + WARM_UP)]
        made.append(Reporter(trial.number, requests))
    return made


def _request(trial: str, token: str, report: int) -> bytes:
    points = [
        {
            "metric": ("loss", "accuracy", "val/loss", "lr")[index % 4],
            "value": f"{0.5 + index / 997:.6f}",
            "seq": place(1, (report * POINTS + index) * 90),
            "timestamp": 1_770_000_000 + report + index / 100,
            "step": report * 5 + index // 4,
        }
        for index in range(POINTS)
    ]
    body = json.dumps({"points": points, "final": False}).encode()
    head = (
        f"POST /ingest/v1/trials/{trial}/reports HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send(settings: Settings, share: list[list[bytes]]) -> tuple[list[float], list[str]]:
    """Every connection sends its requests one after the other; seconds of each answer, and answers other than 200."""
    took: list[float] = []
    bad: list[str] = []

    async def connection(requests: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection(settings.server_host, settings.server_port)
        for request in requests:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            took.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200"):
                bad.append(f"{head.splitlines()[0].decode()}: {body.decode()}")
        writer.close()

    await asyncio.gather(*map(connection, share))
    return took, bad


def shared(made: list[Reporter], reports: range) -> list[list[bytes]]:
    """One list of requests for each connection; the reports of an attempt stay in order, attempts take turns."""
    shares: list[list[bytes]] = [[] for _ in range(CONNECTIONS)]
    for report in reports:
        for index, reporter in enumerate(made):
            shares[index % CONNECTIONS].append(reporter.requests[report])
    return shares


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="evertune-bench-") as name:
        settings = Settings.load(
            {"HOME": name, "EVERTUNE_HOME": f"{name}/home", "EVERTUNE_LOG": "warning"}, server_port=free_port()
        )
        settings.prepare_home()
        with open_store(settings.database_url) as store, gateway(settings) as process:
            uid = trials(store, ATTEMPTS)
            made = reporters(settings, store, uid)
            idle_mb = pss_mb(process.pid)
            asyncio.run(send(settings, shared(made, range(WARM_UP))))
            began, before_s = time.perf_counter(), cpu_s(process.pid)
            took, bad = asyncio.run(send(settings, shared(made, range(WARM_UP, WARM_UP + REPORTS))))
            seconds, used_s = time.perf_counter() - began, cpu_s(process.pid) - before_s
            if bad:
                raise AssertionError(f"{len(bad)} reports were not taken: {bad[0]}")
            stored = sum(series.points for number in range(ATTEMPTS) for series in store.series(uid, number))
            points = sum(len(store.points(uid, number)) for number in range(0, ATTEMPTS, 20))
            sent = ATTEMPTS * (REPORTS + WARM_UP) * POINTS
            busy_mb = pss_mb(process.pid)
        took.sort()
        yield Figure(
            name=f"reports of {POINTS} points into SQLite",
            value=len(took) / seconds,
            unit="reports/s",
            at_least=2000,
            note=f"{CONNECTIONS} connections, {ATTEMPTS} attempts",
        )
        yield Figure(
            name="processor time of the gateway for a report",
            value=1e6 * used_s / len(took),
            unit="us",
            at_most=700,
            note="the same on a busy machine",
        )
        yield Figure(name="answer to a report under that load, median", value=1000 * took[len(took) // 2], unit="ms")
        yield Figure(name="answer to a report, slowest of a hundred", value=1000 * took[-len(took) // 100], unit="ms")
        whole = points == ATTEMPTS // 20 * (REPORTS + WARM_UP) * POINTS
        yield Figure(
            name="points that were answered for and are not there",
            value=float(sent - stored) if whole else float("nan"),
            unit="points",
            at_most=0,
            note=f"of {sent:,}",
        )
        yield Figure(name="gateway, memory when idle", value=idle_mb, unit="MB PSS", note=f"{busy_mb:.0f} under load")
