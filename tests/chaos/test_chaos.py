"""kill -9 of the worker, Temporal, their parent, or all of them, at random moments over 200 short trials.

Afterwards the books are checked from the database, from the trials' own witness (each appends its name to a file), and
against the suggestions of an experiment that nobody killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from algorithms.registry import create
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.settings import Settings
from evertune.store import Store, open_store
from tests.workflow.harness import manifest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

KILLS = 20
TRIALS = 200
UNAVAILABLE = 4  # exit code: not ready yet
PATIENCE_S = 120


def evertune(
    home: Path, *words: str, timeout_s: float = 120, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "EVERTUNE_HOME": str(home / "home")}
    environment["PYTHONPATH"] = str(Path.cwd())
    return subprocess.run(
        [sys.executable, "-m", "evertune.cli", *words],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def pids(settings: Settings) -> dict[str, int]:
    """The living processes of the stack by name."""
    from evertune.stack import status
    from evertune.stack.state import recorded_parent

    found = {service.name: service.pid for service in status(settings).services if service.pid}
    parent = recorded_parent(settings)
    if parent is not None:
        found["parent"] = parent.pid
    return found


def kill_some(settings: Settings, dice: random.Random) -> str:
    """Kill -9 a random part of the stack; returns what was killed."""
    victims = dice.choice(
        [["worker"], ["temporal"], ["parent"], ["worker", "parent"], ["worker", "temporal", "parent"]]
    )
    running = pids(settings)
    killed = [name for name in victims if name in running]
    for name in killed:
        try:
            os.kill(running[name], signal.SIGKILL)
        except ProcessLookupError:
            continue
    return "+".join(killed)


def restore(home: Path) -> None:
    """`evertune up`, until all of it is up; only slowness is forgiven."""
    deadline = time.monotonic() + PATIENCE_S
    while (up := evertune(home, "up")).returncode != 0:
        assert up.returncode == UNAVAILABLE, up.stderr
        assert time.monotonic() < deadline, up.stderr


def paced(trials: int) -> str:
    """Waits until there were as many kills as the trial's number calls for: the last one ends after all of them,
    however fast the machine is. A fifth of the trials may be ahead, so that kills meet work."""
    ahead = trials // 5
    steps = trials - 1 - ahead
    due = f"$(( ({KILLS} * ($EVERTUNE_TRIAL_NUMBER - {ahead}) + {steps - 1}) / {steps} ))"
    return f"until [ $(wc -l < kills) -ge {due} ]; do sleep 0.1; done"


def finished(store: Store, uid: str) -> int:
    return store.counts(uid).finished


def wait_for_progress(store: Store, uid: str, beyond: int, timeout_s: float) -> float:
    """Seconds until more than `beyond` trials have finished."""
    begin = time.monotonic()
    while finished(store, uid) <= beyond:
        if store.experiment_by_uid(uid).state.terminal:
            break
        assert time.monotonic() - begin < timeout_s, f"no new result within {timeout_s} s"
        time.sleep(0.05)
    return time.monotonic() - begin


def run_with_kills(tmp_path: Path, document: dict[str, Any], seed: int) -> tuple[Store, str, list[str], list[float]]:
    """Submit, kill KILLS times, restore, wait for the end. Returns store, uid, kills and recovery times."""
    dice = random.Random(seed)
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(document))
    kept = tmp_path / "kills"
    kept.touch()
    submitted = evertune(tmp_path, "submit", str(path))
    assert submitted.returncode == 0, submitted.stderr
    settings = Settings.load({"HOME": str(tmp_path), "EVERTUNE_HOME": str(tmp_path / "home")})
    store = open_store(settings.database_url)
    uid = store.experiment("default", document["metadata"]["name"]).uid
    kills: list[str] = []
    recoveries: list[float] = []
    while not store.experiment_by_uid(uid).state.terminal:
        time.sleep(dice.uniform(0.2, 1.2))
        if len(kills) >= KILLS:
            wait_for_progress(store, uid, finished(store, uid), PATIENCE_S)
            continue
        if what := kill_some(settings, dice):
            kills.append(what)
            with kept.open("a") as lines:
                lines.write(f"{what}\n")
            restore(tmp_path)
            recoveries.append(wait_for_progress(store, uid, finished(store, uid), PATIENCE_S))
    return store, uid, kills, recoveries


@pytest.mark.parametrize(("algorithm", "parallel"), [("random", 4), ("grid", 4), ("tpe", 1)])
def test_twenty_kills_lose_nothing_and_run_nothing_twice(tmp_path: Path, algorithm: str, parallel: int) -> None:
    trials = TRIALS if parallel > 1 else 60  # one at a time is slow enough to be killed as often
    step = {"step": "0.001"} if algorithm == "grid" else {}
    document = manifest(
        f"chaos-{algorithm}",
        # Slow enough that twenty kills find something running; the witness is one atomic append.
        f"echo $EVERTUNE_TRIAL >> witness; sleep 0.4; {paced(trials)}; echo objective=$X",
        maxTrialCount=trials,
        parallelTrialCount=parallel,
        algorithm={"algorithmName": algorithm, "algorithmSettings": [{"name": "random_state", "value": "11"}]},
        parameters=[
            {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1", **step}},
        ],
    )
    store, uid, kills, recoveries = run_with_kills(tmp_path, document, seed=42)
    try:
        sys.stdout.write(
            f"{algorithm}: {len(kills)} kills ({', '.join(kills)}); recovery up to {max(recoveries):.1f} s\n"
        )
        record = store.experiment_by_uid(uid)
        assert len(kills) == KILLS
        assert (record.reason, record.counts.succeeded) == ("ExperimentMaxTrialsReached", trials)
        witness = (tmp_path / "witness").read_text().split()
        assert len(witness) == len(set(witness)) == trials
        names = {trial.name for trial in store.trials(uid)}
        assert set(witness) == names
        assert [trial.parameters for trial in store.trials(uid)] == undisturbed(algorithm, trials, step)
    finally:
        store.close()
        down = evertune(tmp_path, "down")
        assert down.returncode == 0, down.stderr


def undisturbed(algorithm: str, trials: int, step: dict[str, str]) -> list[dict[str, Value]]:
    """The suggestions of an experiment that nobody killed, from the algorithm itself, one ask after the other."""
    from evertune.domain.trial import HistoryTrial

    space = SearchSpace(
        (
            Parameter(
                name="x",
                type=ParameterType.DOUBLE,
                low=0.0,
                high=1.0,
                step=float(step["step"]) if step else None,
            ),
        )
    )
    problem = SearchProblem(
        space=space,
        direction=ObjectiveType.MAXIMIZE,
        seed=11,
        settings={"random_state": "11"},
        max_trials=trials,
    )
    searcher = create(algorithm, problem)
    history: list[HistoryTrial] = []
    state: dict[str, Any] | None = None
    for number in range(trials):
        answer = searcher.ask(history, 1, number, state)
        state = answer.state
        parameters = dict(answer.assignments[0].parameters)
        value = float(parameters["x"])
        history.append(
            HistoryTrial(number, parameters, TrialState.SUCCEEDED, value, number + 1, meta=answer.assignments[0].meta)
        )
    return [dict(trial.parameters) for trial in history]
