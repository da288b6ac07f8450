"""The content of the collector's image, assembled from this environment and run without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.checkout import ROOT

SCRIPT = ROOT / "deploy" / "images" / "collector.py"
SIDECAR = (sys.executable, "-S", "-P", "-m", "collectors")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no static busybox is installed (Debian: busybox-static)")
    made = tmp_path_factory.mktemp("image")
    done = subprocess.run(
        [sys.executable, SCRIPT, "assemble", made, "--busybox", busybox], capture_output=True, text=True, check=False
    )
    if "linked dynamically" in done.stderr:
        pytest.skip("no static busybox is installed (Debian: busybox-static)")
    assert done.returncode == 0, done.stderr
    return made / "opt" / "evertune"


def run(image: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With nothing of this environment's packages."""
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(image / "lib"), **environment}
    return subprocess.run(command, cwd="/", env=clean, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.parametrize(
    "wanted",
    [
        {"kind": "StdOut", "metrics": ["loss"]},
        {"kind": "TensorFlowEvent", "metrics": ["accuracy"]},
        {"kind": "PrometheusMetric", "metrics": ["loss"], "scrape": {"port": 9}},
        {"kind": "Push", "metrics": ["loss"]},
    ],
    ids=lambda wanted: str(wanted["kind"]),
)
def test_every_kind_of_collector_runs_from_the_image_alone(
    image: Path, wanted: dict[str, object], tmp_path: Path
) -> None:
    look = (
        "import json, sys, pathlib, collectors, collectors.__main__ as m, evertune.protocols as p\n"
        "folder, events = map(pathlib.Path, sys.argv[2:])\n"
        "made = collectors.create(m.spec_of(sys.argv[1]), p.Sources(log=folder / 'log', notes=folder, path=events))\n"
        "points = list(made.read()) + list(made.finish())\n"
        "print(len(points), 'numpy' in sys.modules, made.findings().warnings)\n"
    )
    (tmp_path / "log").write_text("loss=1\n")
    events = ROOT / "tests" / "data" / "events"

    done = run(image, *SIDECAR[:3], "-c", look, json.dumps(wanted), str(tmp_path), str(events))

    assert done.returncode == 0, done.stderr
    count, numpy, _ = done.stdout.split(maxsplit=2)
    assert numpy == "False"
    assert int(count) == {"StdOut": 1, "Push": 0, "PrometheusMetric": 0}.get(str(wanted["kind"]), int(count))
    assert int(count) > 0 or wanted["kind"] in ("Push", "PrometheusMetric")


def test_the_sidecar_starts_from_the_image_and_says_what_it_lacks(image: Path) -> None:
    done = run(image, *SIDECAR)

    assert done.returncode == 0
    assert "nothing is collected" in done.stderr


def test_the_image_is_small_and_holds_nothing_secret_or_writable(image: Path) -> None:
    files = [path for path in image.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < 20 << 20
    assert {path.name for path in files if os.access(path, os.X_OK)} == {"busybox"} or os.getuid() != 0
    assert all(path.stat().st_mode & 0o022 == 0 and path.stat().st_mode & 0o004 for path in files)
    assert {path.name for path in image.iterdir()} == {"busybox", "lib", "wrapper.sh"}


def test_the_image_installs_what_the_lock_pins() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "requirements"], capture_output=True, text=True, check=True)
    pinned = [line.partition("==")[0] for line in done.stdout.splitlines() if "==" in line]

    assert pinned == ["google-re2", "prometheus-client", "protobuf", "tensorboardx"]
    assert done.stdout.count("--hash=sha256:") >= len(pinned)
    assert done.stdout.strip() in (ROOT / "requirements" / "runtime.txt").read_text() or all(
        entry in (ROOT / "requirements" / "runtime.txt").read_text() for entry in done.stdout.splitlines()
    )


def test_a_busybox_that_needs_libraries_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "assemble", tmp_path, "--busybox", sys.executable], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "is linked dynamically: install busybox-static" in done.stderr
