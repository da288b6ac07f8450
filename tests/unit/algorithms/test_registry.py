"""Which names are known, where a third party's come from, and what a check may import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from algorithms import later, registry
from algorithms.grid import Grid
from evertune.app import child_environment
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem
from evertune.errors import AlgorithmError
from evertune.protocols import AlgorithmCatalog
from evertune.testing.algorithms import STEPPED

PROBLEM = SearchProblem(space=STEPPED, direction=ObjectiveType.MINIMIZE, seed=1)
RUNNING = tuple(registry.BUILT_IN)
JUDGED = tuple(later.CHECKS)
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
        registry._third_party.cache_clear()
        registry.get.cache_clear()
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
    assert set(registry.names()) >= {*RUNNING, *JUDGED}
    for name in RUNNING:
        assert registry.runs(name)
        assert registry.get(name).name == name
        assert name == "auto" or registry.create(name, PROBLEM).name == name


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


@pytest.mark.parametrize("name", JUDGED)
def test_katibs_other_names_are_known_but_do_not_run(name: str) -> None:
    assert not registry.runs(name)
    assert "is not an algorithm" not in " ".join(found.message for found in registry.check(name, PROBLEM))
    with pytest.raises(AlgorithmError, match=f"{name} does not run in this version; it runs: random, tpe, "):
        registry.create(name, PROBLEM)


def test_getting_an_unknown_name_says_which_run() -> None:
    with pytest.raises(AlgorithmError, match="nothing is not an algorithm; it runs: random, tpe, multivariate-tpe"):
        registry.get("nothing")


def test_an_installed_algorithm_is_found_by_its_entry_point(install: Install) -> None:
    install("mine = thirdparty:Mine", GOOD)
    assert "mine" in registry.names()
    assert registry.runs("mine")
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
    program = f"""
import sys
from algorithms import registry
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Parameter, ParameterType, SearchProblem, SearchSpace
space = SearchSpace((Parameter(name="n", type=ParameterType.INT, low=1, high=4),))
problem = SearchProblem(space=space, direction=ObjectiveType.MINIMIZE, seed=1, settings={{"random_state": "1"}})
registry.check({name!r}, problem)
registry.create({name!r}, problem)
heavy = {{"numpy", "scipy", "hyperopt", "optuna", "sklearn", "sqlalchemy", "pydantic"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], env=child_environment(), check=True)
