"""Which names are known, where a third party's come from, and what a check may import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from algorithms import registry
from algorithms.grid import Grid
from algorithms.steering.features import supported, wanted
from evertune.app import child_environment
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace, When
from evertune.errors import AlgorithmError
from evertune.protocols import LEARNED, AlgorithmCatalog, Feature
from evertune.testing.spaces import STEPPED

PROBLEM = SearchProblem(space=STEPPED, direction=ObjectiveType.MINIMIZE, seed=1)
RUNNING = tuple(registry.BUILT_IN)
# Settings without a default.
NEEDED = {
    **{key: {"r_l": "3", "resource_name": "n"} for key in ("hyperband", "asha", "bohb")},
    "pbt": {"suggestion_trial_dir": "/checkpoints", "n_population": "5", "truncation_threshold": "0.2"},
}
KNOWN = f"known: {', '.join(registry.names())}"

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one module and its entry points on sys.path, as pip would."""

    def installs(entry_points: str, module: str) -> None:
        info = tmp_path / "thirdparty-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[evertune.algorithms]\n{entry_points}\n")
        (tmp_path / "thirdparty.py").write_text(module)
        monkeypatch.syspath_prepend(str(tmp_path))
        forget()

    def forget() -> None:
        registry.PLUGINS.forget()
        sys.modules.pop("thirdparty", None)

    yield installs
    monkeypatch.undo()
    forget()


GOOD = """
from algorithms.grid import Grid

class Mine(Grid):
    name = "mine"

    @classmethod
    def check(cls, problem):
        return []
"""


def test_the_names_are_katibs() -> None:
    assert set(registry.names()) >= set(RUNNING)
    for name in RUNNING:
        assert registry.get(name).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("randm", f'did you mean "random"? {KNOWN}'),
        ("multivariate_tpe", f'did you mean "multivariate-tpe"? {KNOWN}'),
        ("TPE!", KNOWN),
        ("", KNOWN),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    (found,) = registry.check(name, PROBLEM)
    assert (found.path, found.type) == ("spec.algorithm.algorithmName", "Invalid")
    assert found.message == f'"{name}" is not an algorithm'
    assert found.hint == hint


def test_getting_an_unknown_name_says_which_run() -> None:
    with pytest.raises(AlgorithmError, match="nothing is not an algorithm; it runs: random, sobol, "):
        registry.get("nothing")


def test_an_installed_algorithm_is_found_by_its_entry_point(install: Install) -> None:
    install("mine = thirdparty:Mine", GOOD)
    assert "mine" in registry.names()
    assert "mine" in registry.names()
    assert list(registry.check("mine", PROBLEM)) == []
    assert isinstance(registry.create("mine", PROBLEM), Grid)
    assert not registry.in_process("mine"), "nobody knows what it imports or how long it takes"
    (found,) = registry.check("mne", PROBLEM)
    assert found.hint is not None
    assert found.hint.startswith('did you mean "mine"?')


def test_a_built_in_name_cannot_be_taken_over(install: Install) -> None:
    install("grid = thirdparty:Mine", GOOD)
    assert registry.get("grid") is Grid
    assert registry.names().count("grid") == 1


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("import no_such_library", "cannot be imported from thirdparty:Mine: No module named 'no_such_library'"),
        ("", "cannot be imported from thirdparty:Mine: module 'thirdparty' has no attribute 'Mine'"),
    ],
)
def test_a_broken_installation_is_one_sentence(install: Install, module: str, words: str) -> None:
    install("mine = thirdparty:Mine", module)
    (found,) = registry.check("mine", PROBLEM)
    assert found.path == "spec.algorithm.algorithmName"
    assert words in found.message
    with pytest.raises(AlgorithmError, match=words):
        registry.create("mine", PROBLEM)


def test_a_check_that_crashes_is_one_sentence(install: Install) -> None:
    install("mine = thirdparty:Mine", GOOD.replace("return []", "return 1 / 0"))
    (found,) = registry.check("mine", PROBLEM)
    assert found.path == "spec.algorithm.algorithmName"
    assert found.message == "mine cannot check this experiment: ZeroDivisionError: division by zero"


def test_the_catalog_is_the_registry() -> None:
    catalog: AlgorithmCatalog = registry.Registry()
    assert tuple(catalog.names()) == registry.names()
    assert list(catalog.check("nothing", PROBLEM)) == list(registry.check("nothing", PROBLEM))


@pytest.mark.parametrize("name", RUNNING)
def test_checking_imports_no_numeric_library(name: str) -> None:
    needed = {"random_state": "1", **NEEDED.get(name, {})}
    program = f"""
import sys
from algorithms import registry
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
space = SearchSpace((Parameter(name="n", type=ParameterType.INT, low=1, high=4),))
problem = SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=1, settings={needed!r})
registry.check({name!r}, problem)
registry.create({name!r}, problem)
heavy = {{"numpy", "scipy", "hyperopt", "optuna", "sklearn", "sqlalchemy", "pydantic"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], env=child_environment(), check=True)


# ------------------------------------------------------------------------------------------------ features

TWO = (ObjectiveType.MINIMIZE, ObjectiveType.MAXIMIZE)


@pytest.mark.parametrize(
    ("name", "changes", "path", "words"),
    [
        ("tpe", {"directions": TWO}, "spec.objectives", "tpe cannot do objectives"),
        ("tpe", {"constraints": 1}, "spec.constraints", "tpe cannot do constraints"),
        ("random", {"warm_start": "identical"}, "spec.warmStart", "random cannot do warmStart"),
    ],
)
def test_what_an_algorithm_cannot_is_refused_with_those_that_can(
    name: str, changes: dict[str, Any], path: str, words: str
) -> None:
    (found,) = registry.check(name, replace(PROBLEM, **changes))
    assert (found.path, found.type, found.message) == (path, "Forbidden", words)
    (feature,) = wanted(replace(PROBLEM, **changes))
    able = registry.supporting(feature)
    assert able == sorted(able)
    assert name not in able
    assert found.hint == f"algorithms that can: {', '.join(able)}"


@pytest.mark.parametrize("name", ["random", "grid", "sobol"])
def test_what_never_hears_how_trials_ended_takes_whatever_they_are_judged_by(name: str) -> None:
    assert list(registry.check(name, replace(PROBLEM, directions=TWO, constraints=2))) == []


def test_a_condition_is_refused_where_it_stands() -> None:
    class Plain(Grid):
        supports = frozenset()

    conditional = replace(STEPPED.parameters[1], when=(When(STEPPED.parameters[0].name, ("0.1",)),))
    problem = replace(PROBLEM, space=SearchSpace((STEPPED.parameters[0], conditional)))
    assert registry._place(Feature.WHEN, problem) == "spec.parameters[1].when"
    assert Feature.WHEN in wanted(problem)
    assert supported(Plain) == frozenset()


def test_what_works_with_any_algorithm_is_accepted_everywhere() -> None:
    problem = replace(
        PROBLEM,
        space=SearchSpace(STEPPED.parameters[:3]),
        parameter_constraints=(),
        initial=({},),
        on_duplicate="resample",
        on_failure="worst",
        early_stopping=True,
    )
    for name in ("random", "tpe", "multivariate-tpe"):
        assert list(registry.check(name, problem)) == []
        assert type(registry.create(name, problem)) is not registry.get(name)


def test_a_third_party_without_a_word_on_features_gets_what_is_done_around_any(install: Install) -> None:
    install("mine = thirdparty:Mine", SILENT)
    assert registry.supports("mine") == LEARNED
    assert registry.libraries("mine") == ("thirdparty",)
    assert registry.heavy("mine"), "nobody knows"
    (found,) = registry.check("mine", replace(PROBLEM, constraints=1))
    assert found.path == "spec.constraints"
    space = SearchSpace((Parameter(name="n", type=ParameterType.INT, low=1, high=4),))
    answer = registry.create("mine", replace(PROBLEM, space=space, on_duplicate="resample")).ask((), 4, 0, None)
    assert {each.parameters["n"] for each in answer.assignments} == {1, 2, 3, 4}


SILENT = """
from evertune.domain.trial import Assignment
from evertune.protocols import Answer

class Mine:
    name = "mine"
    on_edit = "continue"
    reads_history = True

    def __init__(self, problem):
        pass

    @classmethod
    def check(cls, problem):
        return []

    def ask(self, history, k, first_number, state):
        return Answer(assignments=tuple(Assignment({"n": 1}) for _ in range(k)))
"""


def test_each_built_in_algorithm_names_libraries_that_are_installed() -> None:
    for name in registry.BUILT_IN:
        for library in set(registry.libraries(name)) - {"torch", "greenlet"}:  # of the extra gp
            assert version(library)
