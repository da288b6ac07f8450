"""`import evertune` and `evertune --help` are cheap: they pull in none of the heavy libraries, and take little time.

Times are ratios to `python -c pass` on the same machine, each the minimum of several runs, so that a busy machine
does not fail them. The bounds of 60 ms and 250 ms on an idle machine are measured by `make bench`; these are tighter.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.repository.checkout import ROOT

HEAVY = (
    "sqlalchemy",
    "alembic",
    "kubernetes",
    "numpy",
    "scipy",
    "sklearn",
    "hyperopt",
    "optuna",
    "matplotlib",
    "plotly",
    "temporalio",
)
IMPORT = ["-c", "import evertune"]
HELP = ["-m", "evertune.cli", "--help"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


def imported_by(arguments: list[str]) -> set[str]:
    """Names of the modules that `python -X importtime` saw."""
    lines = run("-X", "importtime", *arguments).stderr.splitlines()
    return {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")}


def cheapest(*arguments: str) -> float:
    """CPU seconds of a run: what else the machine does at that moment costs it little."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(7))


@pytest.mark.parametrize("arguments", [IMPORT, HELP], ids=["import", "help"])
def test_no_database_cluster_plotting_or_numeric_library_is_imported(arguments: list[str]) -> None:
    modules = imported_by(arguments)

    assert "evertune" in modules
    assert sorted(name for name in modules if name.split(".")[0] in HEAVY) == []


@pytest.mark.parametrize(("arguments", "times"), [(IMPORT, 3.0), (HELP, 8.0)], ids=["import", "help"])
def test_it_takes_no_more_than_a_few_times_an_empty_python(arguments: list[str], times: float) -> None:
    empty = cheapest("-c", "pass")

    assert cheapest(*arguments) <= times * empty
