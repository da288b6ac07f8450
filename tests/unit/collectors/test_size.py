"""The sidecar is small and starts fast: ratios to an empty Python. `python -m bench collecting` prints the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.collecting import EMPTY, FIRST_READ, started
from tests.repository.checkout import ROOT

OUR_OWN = {"collectors", "evertune", "re2"}


@pytest.mark.parametrize(
    "spec", [{"kind": "StdOut"}, {"kind": "File", "format": "TEXT"}, {"kind": "File", "format": "JSON"}]
)
def test_to_read_a_file_nothing_is_imported_but_re2_and_the_standard_library(
    spec: dict[str, str], tmp_path: Path
) -> None:
    code = FIRST_READ + "\nprint(sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n{code}",
            json.dumps(spec),
            str(tmp_path),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    imported = set(json.loads(run.stdout.splitlines()[-1].replace("'", '"')))
    strangers = {name for name in imported if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert strangers - {"sitecustomize", "usercustomize"} == OUR_OWN


def test_it_starts_and_reads_in_a_few_times_what_python_needs_to_start(tmp_path: Path) -> None:
    empty = min(started(EMPTY, tmp_path) for _ in range(5))
    ready = min(started(FIRST_READ, tmp_path) for _ in range(5))
    print(f"Python alone {empty.cpu_s * 1000:.0f} ms, {empty.rss_mb:.1f} MB; to the first read {ready}")
    assert ready.cpu_s < 15 * empty.cpu_s  # 5 when nothing else runs
    assert ready.rss_mb < 3 * empty.rss_mb + 10  # 1.9 times
    assert ready.rss_mb - empty.rss_mb < 30, (
        "what it was promised to cost at most; memory does not depend on the machine"
    )
