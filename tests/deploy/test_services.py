"""docker-compose.yml at work: its services by hand, an experiment through the gateway, and SIGKILL meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from evertune.domain.states import TrialState
from evertune.settings import Settings
from evertune.stack import temporal
from evertune.store import Store, open_store
from tests import servers
from tests.deploy.services import IMAGE_HOME, SCRATCH, Container
from tests.ports import free_port
from tests.repository.checkout import ROOT
from tests.stack.conftest import processes_of
from tests.workflow.conftest import serve
from tests.workflow.harness import manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        servers.mariadb_binaries() is None or shutil.which("mysql") is None, reason="MariaDB and its client are wanted"
    ),
]

TRIALS, STEPS, KILLS = 30, 6, 8
EACH = 3  # so many trials may end before the first kill, and between two
SECRETS = {
    "MYSQL_ROOT_PASSWORD": "",
    "TEMPORAL_DB_PASSWORD": "temporals",
    "EVERTUNE_DB_PASSWORD": "evertunes",
    "EVERTUNE_INGEST_KEY": "0a" * 32,
}
# One line for each execution; then values that nobody can read from a file or an output: they go through the gateway.
# It waits for the kills that are to come before its end: however slow they are, they meet trials.
TRIAL = """
import os, time
with open("witness", "a") as witness:
    witness.write(os.environ["EVERTUNE_TRIAL"] + " " + os.environ["EVERTUNE_ATTEMPT"] + "\\n")
while len(os.listdir("kills")) < min(KILLS, int(os.environ["EVERTUNE_TRIAL_NUMBER"]) // EACH):
    time.sleep(0.05)
del os.environ["EVERTUNE_REPORT_FILE"]
from evertune.report import params, report
for step in range(STEPS):
    report(objective=params()["x"] + step, step=step)
    time.sleep(0.1)
"""


@contextmanager
def database() -> Iterator[URL]:
    """The server of `mysql`, MariaDB in its place, prepared by the script that the service mounts."""
    with servers.mariadb() as text:
        url = make_url(text)
        client = {"MYSQL_HOST": url.host or "", "MYSQL_TCP_PORT": str(url.port), "PATH": os.environ["PATH"]}
        drop = ["mysql", "-u", "root", "-e", "DROP DATABASE evertune"]
        subprocess.run(drop, env=client, check=True, capture_output=True)
        script = ROOT / "deploy" / "compose" / "mysql-users.sh"
        subprocess.run(["sh", str(script)], env={**client, **SECRETS}, check=True, capture_output=True)
        yield url


@pytest.fixture
def services(tmp_path: Path) -> Iterator[dict[str, Container]]:
    """`worker` and `server`, not started yet; their Temporal and their database are up."""
    with database() as url, contextmanager(serve)(temporal.binary()) as address:
        port = free_port()
        here = {
            "temporal:7233": address,
            "@mysql/": f"@{url.host}:{url.port}/",
            "//server:8090": f"//127.0.0.1:{port}",
            "127.0.0.1:8090": f"127.0.0.1:{port}",
            "0.0.0.0": "127.0.0.1",
            "8090": str(port),
            SCRATCH: str(tmp_path / "scratch"),
            IMAGE_HOME: str(tmp_path / "home"),
        }
        home = tmp_path / "home"
        home.mkdir()
        made = {
            name: Container(name, SECRETS, here, tmp_path / folder, tmp_path / f"{name}.log")
            for name, folder in (("worker", "home"), ("server", "scratch"))
        }
        try:
            yield made
        finally:
            for container in made.values():
                if container.started:
                    container.kill(everything=True)


def stored(container: Container) -> Store:
    return open_store(Settings.load(container.environment).database_url)


def test_everything_is_accounted_for_after_both_were_killed_again_and_again(
    services: dict[str, Container], tmp_path: Path
) -> None:
    worker, server = services["worker"], services["server"]
    worker.up()
    server.up()
    figures = f"STEPS, KILLS, EACH = {STEPS}, {KILLS}, {EACH}\n"
    (tmp_path / "trial.py").write_text(figures + TRIAL)
    (tmp_path / "kills").mkdir()
    command = f"PYTHONPATH={ROOT} exec {sys.executable} trial.py"
    document = manifest("composed", command, maxTrialCount=TRIALS, parallelTrialCount=4, maxFailedTrialCount=1)
    (tmp_path / "experiment.json").write_text(json.dumps(document))
    submitted = worker.exec("evertune", "submit", "experiment.json")
    assert submitted.returncode == 0, submitted.stderr
    store = stored(worker)
    uid = store.experiment("default", "composed").uid
    dice, killed, before = random.Random(5), 0, -1
    deadline = time.monotonic() + 500
    while not store.experiment_by_uid(uid).state.terminal:
        assert time.monotonic() < deadline, worker.log.read_text(errors="replace")[-4000:]
        finished = store.counts(uid).finished
        if killed < KILLS and finished > before:
            time.sleep(dice.uniform(0, 0.5))
            victims = [[server], [worker], [server, worker]][killed % 3]
            for victim in victims:
                victim.kill(everything=victim is worker and killed % 2 == 1)
            for victim in victims:
                victim.up()
            killed, before = killed + 1, finished
            (tmp_path / "kills" / str(killed)).touch()
        time.sleep(0.05)

    record = store.experiment_by_uid(uid)
    trials = store.trials(uid)
    assert (record.reason, killed) == ("ExperimentMaxTrialsReached", KILLS), record.message
    assert [trial.state for trial in trials] == [TrialState.SUCCEEDED] * TRIALS
    executed = (tmp_path / "witness").read_text().splitlines()
    assert len(set(executed)) == len(executed), "an attempt was executed twice"
    assert len(executed) > TRIALS, "no kill met a trial"
    for trial in trials:
        attempts = store.attempts(uid, trial.number)
        last = attempts[-1].attempt
        assert f"{trial.name} {last}" in executed
        assert {line for line in executed if line.split()[0] == trial.name} <= {
            f"{trial.name} {attempt.attempt}" for attempt in attempts
        }
        reached = [point.step for _, point in store.points(uid, trial.number, attempt=last)]
        assert reached == list(range(STEPS)), "each report is stored once"
        assert float(trial.objective or "nan") == pytest.approx(float(trial.parameters["x"]) + STEPS - 1)
    got = worker.exec("evertune", "get", "composed", "-o", "json")
    assert json.loads(got.stdout)["trials"]["succeeded"] == TRIALS
    assert not (tmp_path / "home" / "stack.json").exists(), "nobody started a second worker"
    store.close()
    worker.kill(everything=True)
    assert processes_of(tmp_path / "home") == []
