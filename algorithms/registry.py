"""Finds algorithms by name: the built-in ones in a table, third parties' through the entry point `evertune.algorithms`.

Asked by `admit` and `evertune validate` (check) and by the ask process (create). Checking a built-in imports no
numeric library; creating one does, lazily.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from algorithms import auto, later
from algorithms.settings import SETTINGS, Rule
from algorithms.stoppers import registry as stoppers
from evertune.domain.metrics import Objective
from evertune.domain.space import SearchProblem
from evertune.errors import AlgorithmError, Problem
from evertune.protocols import Algorithm

ENTRY_POINT_GROUP = "evertune.algorithms"

BUILT_IN = {
    "random": "algorithms.hyperopt_search:Random",
    "tpe": "algorithms.hyperopt_search:Tpe",
    "multivariate-tpe": "algorithms.optuna_search:MultivariateTpe",
    "grid": "algorithms.grid:Grid",
    "enas": "algorithms.enas:Enas",
    "nas-evolution": "algorithms.nas_evolution:NasEvolution",
    "darts": "algorithms.darts:Darts",
    "bayesianoptimization": "algorithms.bayesian:BayesianOptimization",
    "cmaes": "algorithms.cma:CmaEs",
    "sobol": "algorithms.sobol:Sobol",
    "anneal": "algorithms.hyperopt_search:Anneal",
    "motpe": "algorithms.optuna_search:Motpe",
    "nsgaii": "algorithms.optuna_search:NsgaII",
    "gp": "algorithms.optuna_search:Gp",
    "auto": "algorithms.auto:Auto",
}

# Those that need no library and no time: asked in the worker itself.
_IN_PROCESS = frozenset({"grid", "darts"})


@functools.cache
def _third_party() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in BUILT_IN}


def names() -> tuple[str, ...]:
    """Every name that a spec may use: those that run, then Katib's others."""
    running = (*BUILT_IN, *sorted(_third_party()))
    return (*running, *(name for name in later.CHECKS if name not in running))


def closest(name: str) -> str | None:
    """The name that somebody may have meant."""
    close = difflib.get_close_matches(name, names(), 1, 0.6)
    return close[0] if close else None


def built_in(name: str) -> bool:
    return name in BUILT_IN


def runs(name: str) -> bool:
    """False for names that are unknown, and for those of Katib's algorithms that are only checked."""
    return name in BUILT_IN or name in _third_party()


def in_process(name: str) -> bool:
    """True for algorithms that may be asked in a thread of the worker."""
    return name in _IN_PROCESS


@functools.cache
def get(name: str) -> type[Algorithm]:
    """The class behind a name. Raises AlgorithmError for one that is not registered or cannot be imported."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: type[Algorithm] = getattr(importlib.import_module(module), attribute)
        return found
    if name in _third_party():
        point = _third_party()[name]
        try:
            loaded: type[Algorithm] = point.load()
        except Exception as error:  # whatever a plugin does at import
            raise AlgorithmError(f"the algorithm {name} cannot be imported from {point.value}: {error}") from error
        return loaded
    fault = "does not run in this version" if name in later.CHECKS else "is not an algorithm"
    raise AlgorithmError(f"{name} {fault}; it runs: {', '.join(filter(runs, names()))}")


def settings(name: str) -> Mapping[str, Rule]:
    """The settings of an algorithm, for whoever lists them; empty where a third party's says nothing of them."""
    if name in later.TABLES:
        return later.TABLES[name][0]
    if name in SETTINGS:
        return SETTINGS[name]
    found: Mapping[str, Rule] = getattr(sys.modules[get(name).__module__], "SETTINGS", {})
    return found


def resolved(name: str, problem: SearchProblem) -> auto.Choice:
    """The algorithm that does the work, and why when `auto` took it."""
    return auto.choose(problem) if name == auto.NAME else auto.Choice(name, "")


def create(name: str, problem: SearchProblem) -> Algorithm:
    return get(resolved(name, problem).algorithm)(problem)


def check(name: str, problem: SearchProblem) -> Sequence[Problem]:
    """Everything wrong with the name, the settings and the space for this algorithm. Raises nothing."""
    path = "spec.algorithm.algorithmName"
    if runs(name):
        try:
            return get(name).check(problem)
        except AlgorithmError as error:
            return [Problem(path=path, type="Invalid", message=error.message)]
        except Exception as error:  # whatever a plugin does; the built-in ones are tested not to
            message = f"{name} cannot check this experiment: {type(error).__name__}: {error}"
            return [Problem(path=path, type="Invalid", message=message)]
    if name in later.CHECKS:
        return later.check(name, problem)
    known = f"known: {', '.join(names())}"
    close = closest(name)
    hint = f'did you mean "{close}"? {known}' if close else known
    return [Problem(path=path, type="Invalid", message=f'"{name}" is not an algorithm', hint=hint)]


class Registry:
    """The registry as validation asks for it (`protocols.AlgorithmCatalog`)."""

    def names(self) -> Sequence[str]:
        return names()

    def check(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        return check(name, problem)

    def runs(self, name: str) -> bool:
        return runs(name)

    def stoppers(self) -> Sequence[str]:
        return stoppers.names()

    def check_stopper(self, name: str, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        return stoppers.check(name, settings, objective)
