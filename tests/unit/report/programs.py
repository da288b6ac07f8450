"""Training programs for tests of `evertune.report`: each runs in a process of its own, as it does in a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evertune.testing.gateway import FakeGateway
from tests.repository.checkout import ROOT

TRIAL = "short-1"
HEAD = "from evertune.report import *\nimport evertune.report as module, os, sys, time\n"


def clean() -> dict[str, str]:
    """This process's environment without what a trial has."""
    foreign = ("EVERTUNE", "KATIB", "HTTP_PROXY", "http_proxy")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def beside_a_reader(file: Path, **more: str) -> dict[str, str]:
    """A trial whose report file somebody reads."""
    return {**clean(), "EVERTUNE_TRIAL": TRIAL, "EVERTUNE_REPORT_FILE": str(file), **more}


def beside_a_gateway(gateway: FakeGateway, spool: Path, trial: str = TRIAL, **more: str) -> dict[str, str]:
    return {
        **clean(),
        "EVERTUNE_TRIAL": trial,
        "EVERTUNE_ATTEMPT": "1",
        "EVERTUNE_INGEST_URL": gateway.url,
        "EVERTUNE_TOKEN": gateway.open_attempt(trial),
        "EVERTUNE_SPOOL_DIR": str(spool),
        "EVERTUNE_FLUSH_S": "60",  # of a busy machine; a program that has delivered does not wait
        **more,
    }


def start(program: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HEAD + program],
        env=dict(environment),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(program: str, environment: Mapping[str, str], code: int = 0) -> tuple[str, str]:
    """What it said on standard output and error."""
    process = start(program, environment)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    return out, err


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines() if line]


def metrics(file: Path) -> list[dict[str, Any]]:
    return [line["metrics"] for line in lines(file)]


def values(gateway: FakeGateway, metric: str = "loss", trial: str = TRIAL) -> list[str]:
    return [point.value for point in gateway.points(trial) if point.metric == metric]
