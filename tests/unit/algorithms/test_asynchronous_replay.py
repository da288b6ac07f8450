"""A parallel run with failures is replayed bit for bit by another process, from its history alone: every algorithm.

The recorded run keeps its session where the algorithm has one; the replaying process rebuilds everything for each ask.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from algorithms import registry
from evertune.app import child_environment
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, When
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Answer, Feature, JsonDict
from evertune.testing.play import Play, chance
from evertune.testing.spaces import names_of

pytestmark = pytest.mark.slow
TRIALS, PARALLEL = 30, 4

SPACE = SearchSpace(
    (
        Parameter(name="lr", type=ParameterType.DOUBLE, low=0.01, high=0.3, step=0.01),
        Parameter(name="momentum", type=ParameterType.DOUBLE, low=0.1, high=0.9, step=0.1),
        Parameter(name="layers", type=ParameterType.INT, low=1, high=6),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
        Parameter(name="epochs", type=ParameterType.INT, low=1, high=9),
    )
)
NAS: JsonDict = {
    "graphConfig": {"numLayers": 3, "inputSizes": [8, 8, 1], "outputSizes": [10]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [
                {
                    "name": "filter_size",
                    "parameterType": "categorical",
                    "feasibleSpace": {"list": ["3", "5", "7"]},
                }
            ],
        }
    ],
}
# What an algorithm cannot do without.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "hyperband": {"r_l": "9", "resource_name": "epochs"},
    "asha": {"r_l": "9", "resource_name": "epochs"},
    "bohb": {"r_l": "9", "resource_name": "epochs"},
    "pbt": {"suggestion_trial_dir": "/tmp/pbt", "n_population": "5", "truncation_threshold": "0.4"},
}
PROGRAM = """
import pickle, sys
from algorithms import registry
name, problem, questions = pickle.load(sys.stdin.buffer)
answers = [registry.create(name, problem).ask(*question) for question in questions]
sys.stdout.flush()
sys.stdout.buffer.write(pickle.dumps(answers))
"""


def problem_for(name: str, **features: Any) -> SearchProblem:
    if "torch" in registry.libraries(name):
        pytest.importorskip("torch", reason="evertune[gp] is not installed")
    searches_networks = Feature.NAS_CONFIG in getattr(registry.get(name), "handles", ())
    directions = (ObjectiveType.MINIMIZE,)
    found = SearchProblem(
        space=SearchSpace(()) if searches_networks else SPACE,
        direction=directions[0],
        seed=11,
        settings=dict(SETTINGS.get(name, {})),
        max_trials=TRIALS,
        parallel=9,
        nas=NAS if searches_networks else None,
        **features,
    )
    wrong = registry.check(name, found)
    assert not wrong, f"SETTINGS of this test must say what {name} needs: {[str(each) for each in wrong]}"
    return found


def recorded(name: str, problem: SearchProblem, before: Sequence[HistoryTrial] = ()) -> tuple[list[Any], list[Answer]]:
    """The questions and answers of a run whose trials end in a random order, a fifth of them badly."""
    algorithm = registry.create(name, problem)
    make_session = getattr(algorithm, "session", None)
    session = None if make_session is None else make_session()
    seen: list[HistoryTrial] = []
    questions: list[Any] = []

    def ask(history: Sequence[HistoryTrial], k: int, first: int, state: JsonDict | None) -> Answer:
        everything = (*before, *history)
        questions.append((everything, k, first, state))
        if session is None:
            return algorithm.ask(everything, k, first, state)
        changed = [trial for trial in history if trial.number >= len(seen) or trial != seen[trial.number]]
        session.update(changed if len(questions) > 1 else [*before, *changed])
        seen[:] = history
        answer: Answer = session.ask(k, first, state)
        return answer

    play = Play(ask).run(TRIALS, PARALLEL, chance(17))
    return questions, play.answers


def replayed(name: str, problem: SearchProblem, questions: list[Any]) -> list[Answer]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=pickle.dumps((name, problem, questions)),
        stdout=subprocess.PIPE,
        env={**child_environment(), "PYTHONHASHSEED": "99", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=100,
    )
    found: list[Answer] = pickle.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_a_parallel_run_with_failures_is_replayed_from_its_history(name: str) -> None:
    problem = problem_for(name)
    questions, answers = recorded(name, problem)
    assert sum(len(answer.assignments) for answer in answers) >= 5 or answers[-1].exhausted
    assert repr(replayed(name, problem, questions)) == repr(answers)


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_a_steered_run_is_replayed_as_well(name: str) -> None:
    features: dict[Feature, dict[str, Any]] = {
        Feature.PARAMETER_CONSTRAINTS: {"parameter_constraints": ("layers * momentum <= 3",)},
        Feature.INITIAL_TRIALS: {"initial": ({"layers": 2}, {"lr": 0.1, "optimizer": "adam"})},
        Feature.ON_DUPLICATE: {"on_duplicate": "resample"},
        Feature.ON_FAILURE: {"on_failure": "worst"},
    }
    wanted: dict[str, Any] = {}
    for feature, each in features.items():
        wanted |= each if feature in registry.supports(name) else {}
    if not wanted:
        pytest.skip(f"nothing is done around {name}")
    problem = problem_for(name, **wanted)
    questions, answers = recorded(name, problem)
    assert repr(replayed(name, problem, questions)) == repr(answers)


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_a_warm_start_in_a_conditional_space_is_replayed_as_well(name: str) -> None:
    if not {Feature.WARM_START, Feature.WHEN} <= registry.supports(name):
        pytest.skip(f"{name} does not learn from others, or knows no conditions")
    momentum = replace(SPACE.parameters[1], when=(When("optimizer", ("sgd",)),))
    tree = SearchSpace((SPACE.parameters[0], momentum, *SPACE.parameters[2:]))
    problem = replace(problem_for(name), space=tree, warm_start="transfer")
    assert not registry.check(name, problem)
    others = [
        HistoryTrial(-3, {"lr": 0.05, "layers": 2}, TrialState.SUCCEEDED, 0.3),
        HistoryTrial(-2, {"lr": 0.1, "momentum": 0.5, "optimizer": "sgd"}, TrialState.SUCCEEDED, 0.1),
        HistoryTrial(-1, {"lr": 0.2, "layers": 5, "optimizer": "adam", "epochs": 3}, TrialState.SUCCEEDED, 0.2),
    ]
    questions, answers = recorded(name, problem, others)
    assert repr(replayed(name, problem, questions)) == repr(answers)
    for answer in answers:
        for assignment in answer.assignments:
            assert set(assignment.parameters) == names_of(tree, assignment.parameters)
