"""A home of its own for each test, with a database in which something has happened."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evertune.cli import run
from evertune.domain.metrics import Objective, ObjectiveType, Point
from evertune.domain.records import Budget, ExperimentRecord
from evertune.domain.space import Parameter, ParameterType, SearchSpace, Value
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, Ending
from evertune.settings import Settings
from evertune.store import Store, open_store
from evertune.testing.store.making import NOW, create, finish, suggest

SPACE = SearchSpace(
    (
        Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1),
        Parameter(name="layers", type=ParameterType.INT, low=1, high=8),
        Parameter(name="batch", type=ParameterType.DISCRETE, values=("16", "32")),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam")),
    )
)


class Shell:
    """`evertune …` in this process: exit code, standard output, standard error."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._capture.readouterr()
        code = run(words)
        captured = self._capture.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    ours = [name for name in os.environ if name.startswith(("EVERTUNE_", "TEMPORAL_"))]
    for name in (*ours, "KUBECONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVERTUNE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    yield Shell(capsys)
    logging.captureWarnings(capture=False)  # a command routes them to its log; tests want them as errors


@pytest.fixture
def settings(home: Path) -> Settings:
    settings = Settings.load()
    settings.prepare_home()
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings.database_url) as store:
        yield store


@pytest.fixture
def digits(store: Store, settings: Settings) -> ExperimentRecord:
    """A finished experiment of three trials: 0.5, failed, 0.9."""
    uid = create(
        store,
        namespace="default",
        workflow_id="experiment/default/digits",
        space=SPACE,
        objective=Objective(ObjectiveType.MAXIMIZE, "accuracy", 0.985),
        budget=Budget(parallel=2, max_trials=3, max_failed=2),
        home_id=settings.home_id,
        context={"working_dir": "/somewhere", "environment": {"PATH": "/bin"}},
        manifest={"metadata": {"name": "digits"}},
    ).uid
    store.set_state(uid, ExperimentState.RUNNING, key="start", at=NOW)
    parameters: list[dict[str, Value]] = [
        {"lr": 0.1 / (number + 3), "layers": number + 1, "batch": "32", "optimizer": "adam"} for number in range(3)
    ]
    suggest(store, uid, 1, [Assignment(entry) for entry in parameters])
    finish(store, uid, 0, 0.5)
    _fail(store, uid, 1)
    store.open_attempt(uid, 2, 0, home_id=settings.home_id, at=NOW)
    store.add_points(uid, 2, 0, [Point("accuracy", "0.7", 1), Point("accuracy", "0.9", 2)])
    finish(store, uid, 2, 0.9)
    store.set_state(
        uid,
        ExperimentState.SUCCEEDED,
        reason="ExperimentMaxTrialsReached",
        message="3 of 3 trials finished",
        key="end",
        at=NOW,
    )
    for number, text in enumerate(("accuracy=0.5\n", "boom\n", "accuracy=0.7\naccuracy=0.9\nlast line without end")):
        directory = settings.trials_dir / uid / str(number) / "0"
        directory.mkdir(parents=True)
        (directory / "log").write_text(text)
    return store.experiment_by_uid(uid)


@pytest.fixture
def running(store: Store, settings: Settings) -> ExperimentRecord:
    """One of 24 trials has ended, one runs; nobody moves it."""
    uid = create(
        store,
        namespace="default",
        name="slow",
        workflow_id="experiment/default/slow",
        space=SPACE,
        home_id=settings.home_id,
    ).uid
    store.set_state(uid, ExperimentState.RUNNING, key="start", at=NOW)
    parameters: dict[str, Value] = {"lr": 0.1, "layers": 1, "batch": "32", "optimizer": "adam"}
    suggest(store, uid, 1, [Assignment(parameters), Assignment(parameters)])
    finish(store, uid, 0, 0.5)
    store.open_attempt(uid, 1, 0, home_id=settings.home_id, at=NOW)
    return store.experiment_by_uid(uid)


def _fail(store: Store, uid: str, number: int) -> None:
    store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
    end = AttemptEnd(AttemptState.FAILED, "exit 1: ValueError: boom", "boom", FailureClass.PROGRAM, 1, ended=NOW)
    store.end_attempt(uid, number, 0, lambda _: Ending(end=end, charged=True, trial_state=TrialState.FAILED))


@pytest.fixture
def experiment_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a short, valid experiment; `changes` replace or (None) remove lines."""

    def write(filename: str = "experiment.yaml", **changes: str | None) -> Path:
        lines: dict[str, str | None] = {
            "name": "short",
            "command": "echo loss={x}",
            "parameters": "{x: 'uniform(0, 1)'}",
            "objective": "minimize loss",
            "budget": "{trials: 4, parallel: 2}",
            "algorithm": "random",
            "seed": "3",
            **changes,
        }
        path = tmp_path / filename
        path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None))
        return path

    return write
