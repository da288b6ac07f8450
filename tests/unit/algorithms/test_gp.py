"""gp beside its library: the torch that it needs, threads, and points that were refused. Most of it needs torch.

That its sequence is Optuna's own is tested with the others', in `test_optuna_native` and `test_fresh_processes`.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from algorithms.optuna_search import Gp
from algorithms.registry import create
from evertune.app import child_environment
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Answer, JsonDict
from evertune.testing.play import Play, score
from evertune.testing.spaces import ONE_DOUBLE
from tests.unit.algorithms.test_optuna_native import GP, has_torch

needs_torch = pytest.mark.skipif(not has_torch, reason="gp needs torch")
PROBLEM = SearchProblem(space=ONE_DOUBLE, direction=ObjectiveType.MINIMIZE, seed=7, settings=GP, max_trials=100)
CUBE = SearchSpace(tuple(Parameter(name=f"x{i}", type=ParameterType.DOUBLE, low=0.0, high=1.0) for i in range(4)))

LOADS_IT = """
import sys
from algorithms.registry import check, create, libraries
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
from evertune.errors import AlgorithmError
x = Parameter(name="x", type=ParameterType.DOUBLE, low=0.0, high=1.0)
problem = SearchProblem(space=SearchSpace((x,)), direction=ObjectiveType.MINIMIZE, seed=1)
found, algorithm = check("gp", problem), create("gp", problem)
print(len(found), "torch" in libraries("gp"), "torch" in sys.modules, "optuna" in sys.modules)
try:
    algorithm.ask((), 1, 0, None)
except AlgorithmError as error:
    print(error)
"""


def run(program: str, question: Any = None, **environment: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(question),
        stdout=subprocess.PIPE,
        env={**child_environment(), **environment},
        check=True,
        timeout=100,
    )
    return done.stdout


def test_a_torch_that_cannot_be_loaded_is_named_with_its_reason_and_the_command(tmp_path: Path) -> None:
    """As PyTorch does without the libraries that its wheel asks for."""
    (tmp_path / "torch").mkdir()
    reason = "libcublas.so.*[0-9] not found in the system path " + str([f"/somewhere/{i}" for i in range(99)])
    (tmp_path / "torch" / "__init__.py").write_text(f"raise ValueError({reason!r})")
    path = os.pathsep.join([str(tmp_path), child_environment().get("PYTHONPATH", "")])
    checked, said = run(LOADS_IT, PYTHONPATH=path).decode().splitlines()
    assert checked == "0 True False False"
    assert said.startswith(
        "gp needs torch, which is installed but cannot be loaded (ValueError: libcublas.so.*[0-9] not found"
    )
    assert said.endswith('): pip install "evertune[gp]"')
    assert len(said) < 300


def test_only_an_ask_loads_torch() -> None:
    """Neither the worker, nor the command line, nor admission: it has half a gigabyte."""
    checked = run(LOADS_IT).decode().splitlines()[0]
    assert checked == f"{0 if has_torch else 1} True False False"


def found_within(constraint: str, trials: int) -> list[float]:
    """x of a bowl around 0.3, of the trials after the random ones."""
    algorithm = create("gp", replace(PROBLEM, parameter_constraints=(constraint,)))
    play = Play(lambda history, k, first, state: algorithm.ask(history, k, first, state))
    for number in range(trials):
        play.suggest(1)
        play.tell(number, TrialState.SUCCEEDED, (float(play.trials[number].parameters["x"]) - 0.3) ** 2)
    return [float(parameters["x"]) for parameters in play.parameters]


@needs_torch
def test_where_the_best_point_is_forbidden_the_model_finds_the_best_that_is_allowed() -> None:
    """It would give the forbidden one again and again, and trials would be drawn by chance."""
    found = found_within("x >= 0.5", 14)
    assert all(x >= 0.5 for x in found)
    assert min(found[6:]) < 0.505


@needs_torch
def test_it_ends_at_a_thousand_trials_and_says_with_what_to_go_on() -> None:
    given = replace(PROBLEM, settings={"n_startup_trials": "2000"}, max_trials=None)
    history = ended(999)
    last = Gp(given).ask(history, 3, 999, None)
    assert len(last.assignments) == 1
    more = Gp(given).ask((*history, replace(history[0], number=999)), 3, 1000, last.state)
    assert (more.assignments, more.exhausted, more.state) == ((), True, last.state)
    assert "ends at 1,000 trials" in more.reason
    assert "multivariate-tpe" in more.reason


ASK = """
import pickle, sys
problem, history = pickle.load(sys.stdin.buffer)
from algorithms.optuna_search import Gp
answer = Gp(problem).ask(history, 2, len(history), None)
sys.stdout.buffer.write(pickle.dumps(answer))
"""


def ended(trials: int, space: SearchSpace = ONE_DOUBLE) -> Sequence[HistoryTrial]:
    random = Gp(replace(PROBLEM, space=space)).ask((), trials, 0, None)
    return [
        HistoryTrial(number, each.parameters, TrialState.SUCCEEDED, score(each.parameters), number + 1)
        for number, each in enumerate(random.assignments)
    ]


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_number_of_threads_and_cores_changes_no_bit() -> None:
    question = (replace(PROBLEM, space=CUBE), ended(220, CUBE))  # enough for torch to share the work among threads
    answers: list[Answer] = [
        pickle.loads(run(ASK, question, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads))
        for threads in ("1", "2", "5")
    ]
    state: JsonDict | None = answers[0].state
    assert state is not None
    assert state["kernels"]
    assert [repr(answer) for answer in answers[1:]] == [repr(answers[0])] * 2
