"""A third party's package, `examples/plugin`: installed as anybody would, found, listed, checked and run."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repository.checkout import ROOT

PLUGIN = ROOT / "examples" / "plugin"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the plugin in it; all else is this one's, evertune as well."""
    home = tmp_path_factory.mktemp("plugin")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    python = home / "venv" / "bin" / "python"
    places = {"base": str(home / "venv"), "platbase": str(home / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", vars=places))
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    source = shutil.copytree(PLUGIN, home / "source", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([python, "-m", "pip", "install", *options, source], check=True, timeout=300)
    assert (site / "one_plus_one" / "algorithm.py").is_file()
    return python


@pytest.fixture(scope="module")
def evertune(installed: Path) -> Iterator[Run]:
    # Its path is short: sockets live there.
    with tempfile.TemporaryDirectory(prefix="evertune-plugin-", ignore_cleanup_errors=True) as home:
        environment = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        environment |= {
            "PATH": os.pathsep.join([str(installed.parent), os.environ["PATH"]]),
            "EVERTUNE_HOME": home,
            "PYTHONUTF8": "1",
        }

        def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
            command = [str(installed), "-m", "evertune.cli", *map(str, words)]
            return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

        yield run
        run("down")


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_imports_nothing_of_ours_but_evertune() -> None:
    ours = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} - {"evertune"}
    assert {"algorithms", "activities"} <= ours
    for file in PLUGIN.rglob("*.py"):
        found = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
        }
        assert not found & ours, file


def test_the_algorithm_is_listed_with_its_settings(evertune: Run) -> None:
    assert "one-plus-one" in {entry["name"] for entry in told(evertune("algorithms", "-o", "json"))}
    entry = told(evertune("algorithms", "one-plus-one", "-o", "json"))
    assert (entry["builtIn"], entry["settings"][1]) == (
        False,
        {
            "name": "initial_step",
            "mustBe": "a number above 0, at most 1",
            "meaning": "standard deviation of the first steps, as a share of a parameter's range",
            "default": "0.2",
            "required": False,
        },
    )
    assert {"double", "int", "discrete", "categorical"} <= set(entry["types"])
    assert {"warmStart", "when", "parameterConstraints", "earlyStopping"} <= set(entry["supports"])
    page = evertune("algorithms", "one-plus-one")
    assert (page.returncode, "initial_step" in page.stdout) == (0, True)


def test_settings_of_both_are_checked_as_those_of_our_own_are(evertune: Run, tmp_path: Path) -> None:
    assert evertune("validate", PLUGIN / "experiment.yaml").returncode == 0
    document = yaml.safe_load((PLUGIN / "experiment.yaml").read_text())
    document["algorithm"] = {"name": "one-plus-one", "initial_step": "2", "inital_step": "0.1"}
    document["earlyStopping"]["algorithmSettings"] = [{"name": "times", "value": "0"}]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(document))
    done = evertune("validate", wrong)
    assert done.returncode == 2
    for sentence in (
        'initial_step must be a number above 0, at most 1; got "2"',
        '"inital_step" is not a setting of one-plus-one',
        'did you mean "initial_step"?',
        'times must be a whole number from 1; got "0"',
    ):
        assert sentence in done.stdout + done.stderr
    wrong.write_text((PLUGIN / "experiment.yaml").read_text().replace("name: one-plus-one,", "name: one-plus-two,"))
    done = evertune("validate", wrong)
    assert 'did you mean "one-plus-one"?' in done.stdout + done.stderr


@pytest.mark.slow
def test_an_experiment_with_it_runs_stops_what_diverges_and_is_replayed(evertune: Run) -> None:
    result = told(evertune("run", PLUGIN / "experiment.yaml", "-o", "json"))
    assert (result["state"], result["algorithm"]) == ("Succeeded", "one-plus-one")
    trials = told(evertune("trials", "one-plus-one", "-o", "json"))
    assert len(trials) == 16
    stopped = [trial for trial in trials if trial["state"] == "EarlyStopped"]
    assert stopped[0]["number"] == 0, "the one that the file begins with"
    assert all(trial["parameters"]["x"] > 3 for trial in stopped)
    assert all("worsening: loss got worse 4 times in a row" in trial["reason"] for trial in stopped)
    assert result["best"]["objective"]["value"] == min(
        trial["objective"] for trial in trials if trial["state"] == "Succeeded"
    )
    assert told(evertune("replay", "one-plus-one", "--verify", "-o", "json"))["identical"] is True


@pytest.mark.slow
def test_its_own_tests_pass_where_it_is_installed(installed: Path) -> None:
    done = subprocess.run(
        [str(installed), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=installed.parents[2] / "source",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
