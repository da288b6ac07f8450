"""The shell that a native sidecar starts with: no SIGTERM is lost, however late the collector is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from activities.runners.kubernetes.inject import FIRST_PROCESS, SHARED
from tests.repository.checkout import ROOT

BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="busybox is the shell of the collector's image")


def start(directory: Path, *, late_s: float) -> subprocess.Popen[str]:
    """As the first process does, but for the directory; Python comes late, as it does with little CPU."""
    programs = directory / "bin"
    programs.mkdir()
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\necho started >{directory}/started\nsleep {late_s}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (directory / "log").write_text("loss=0.5\n")
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EVERTUNE_COLLECTOR": json.dumps({"kind": "StdOut", "metrics": ["loss"]}),
        "EVERTUNE_INGEST_URL": "http://127.0.0.1:9",  # nobody is there: it says so when it gives up
        "EVERTUNE_TRIAL": "trial",
        "EVERTUNE_LOG_FILE": f"{directory}/log",
        "EVERTUNE_NOTES_DIR": f"{directory}/notes",
        "EVERTUNE_EXIT_FILE": f"{directory}/terminated",
        "EVERTUNE_GRACE_S": "1",
        "EVERTUNE_LINGER_S": "1",
    }
    script = FIRST_PROCESS.replace(SHARED, str(directory))
    assert BUSYBOX is not None
    return subprocess.Popen(
        [BUSYBOX, "sh", "-c", script, BUSYBOX],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def appears(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"there is no {path.name}"
        time.sleep(0.02)


@pytest.mark.parametrize("sign", ["started", "notes"], ids=["before Python is there", "while it collects"])
def test_a_sigterm_ends_it_after_the_last_report_was_tried(tmp_path: Path, sign: str) -> None:
    first = start(tmp_path, late_s=0.5 if sign == "started" else 0)
    try:
        appears(tmp_path / sign)
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=60)
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)

    assert first.returncode == 0
    assert "the gateway was away until the end" in said
