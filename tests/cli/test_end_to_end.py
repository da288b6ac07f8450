"""The command against a stack of its own: Temporal, a worker, and trials that really run."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.test_process import EVERTUNE, environment, evertune


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("stack") / "home"
    yield home
    done = evertune(home, "down", timeout_s=60)
    assert done.returncode == 0
    assert not [line for line in _processes() if str(home) in line]


def _processes() -> list[str]:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def run(stack: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *words, **changes: evertune(stack, *words, timeout_s=90, **changes)


Run = Callable[..., subprocess.CompletedProcess[str]]
SLOW = "sh -c 'for i in 1 2 3 4 5 6; do echo loss={x}; sleep 0.5; done'"


def test_a_run_prints_progress_on_stderr_and_only_the_result_on_stdout(
    run: Run, experiment_file: Callable[..., Path]
) -> None:
    path = experiment_file(name="first")
    done = run("run", str(path), "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "Succeeded"
    assert document["reason"] == "ExperimentMaxTrialsReached: 4 of 4 trials finished"
    assert document["trials"]["succeeded"] == 4
    lines = done.stderr.splitlines()
    assert sum(line.startswith("[") for line in lines) == 4
    assert any(line.startswith("first submitted: random, 4 trials, 2 parallel, http://127.0.0.1:") for line in lines)
    assert json.loads(run("get", "first", "-o", "json").stdout) == document

    trials = json.loads(run("trials", "first", "-o", "json").stdout)
    assert min(trial["objective"] for trial in trials) == document["best"]["objective"]["value"]
    first = run("render", str(path), "--trial", "0", "-o", "json").stdout
    assert f"loss={trials[0]['parameters']['x']!r}" in first

    replayed = run("replay", "first", "--verify", "-o", "json")
    assert replayed.returncode == 0
    assert json.loads(replayed.stdout)["identical"] is True

    taken = run("run", str(path))
    assert (taken.returncode, taken.stdout) == (2, "")
    assert "the name first is taken" in taken.stderr

    more = run("extend", "first", "+2")
    assert more.returncode == 0, more.stderr
    assert run("watch", "first", "--timeout", "60").returncode == 0
    assert json.loads(run("get", "first", "-o", "json").stdout)["trials"]["created"] == 6


def test_a_run_that_fails_says_why_and_is_exit_code_1(run: Run, experiment_file: Callable[..., Path]) -> None:
    done = run("run", str(experiment_file(name="broken", command="no-such-program {x}")))
    assert done.returncode == 1
    assert done.stdout.startswith("broken  ✘ Failed after ")
    assert "no-such-program" in done.stdout
    assert "evertune explain broken" in done.stderr
    assert run("watch", "broken").returncode == 1


def test_a_running_experiment_can_be_paused_changed_and_stopped(run: Run, experiment_file: Callable[..., Path]) -> None:
    path = experiment_file(name="slow", command=f'"{SLOW}"', budget="{trials: 40, parallel: 2}")
    submitted = run("submit", str(path), "-o", "name")
    assert (submitted.returncode, submitted.stdout) == (0, "slow\n")

    assert "slow  ‖ Paused" in run("pause", "slow").stdout
    assert run("pause", "slow").returncode == 2
    assert "paused it" in run("explain", "slow").stdout
    assert "/30 trials, 3 parallel" in run("edit", "slow", "--parallel", "3", "--max-trials", "30").stdout
    assert run("edit", "slow", "--parallel", "31").returncode == 2
    assert "◐ Running" in run("resume", "slow").stdout

    logs = run("logs", "slow", "--trial", "0", "-f")
    assert logs.stdout.count("loss=") == 6
    assert run("stop", "slow", "--reason", "enough seen").returncode == 0
    assert run("watch", "slow", "--timeout", "60").returncode == 0
    document = json.loads(run("get", "slow", "-o", "json").stdout)
    assert document["reason"] == "ExperimentStopped: enough seen"
    assert document["trials"]["created"] < 40


def test_tuning_needs_no_file_and_finds_a_free_name(run: Run) -> None:
    words = ("tune", "-p", "x=uniform(0,1)", "--minimize", "loss", "--trials", "2", "--algorithm", "random")
    for name in ("sh", "sh-2"):
        done = run(*words, "-o", "json", "--", "sh", "-c", "echo loss={x}")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == name


def test_a_running_experiment_is_deleted_by_force_with_all_it_left(
    run: Run, stack: Path, experiment_file: Callable[..., Path]
) -> None:
    run("submit", str(experiment_file(name="gone", command=f'"{SLOW}"')))
    assert run("delete", "gone", "--yes").returncode == 2
    deleted = run("delete", "gone", "--yes", "--force")
    assert deleted.returncode == 0, deleted.stderr
    assert run("get", "gone").returncode == 3
    assert not [line for line in _processes() if "loss=" in line and str(stack) in line]


def test_a_watch_survives_a_restart_of_the_stack(run: Run, stack: Path, experiment_file: Callable[..., Path]) -> None:
    run("submit", str(experiment_file(name="tough", command=f'"{SLOW}"')))
    watching = subprocess.Popen(
        [*EVERTUNE, "watch", "tough", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(stack),
        text=True,
    )
    time.sleep(0.5)
    assert run("down", "--keep-trials").returncode == 0
    assert run("up").returncode == 0
    out, err = watching.communicate(timeout=90)
    assert watching.returncode == 0, err
    document = json.loads(out)
    assert (document["state"], document["trials"]["succeeded"]) == ("Succeeded", 4)
