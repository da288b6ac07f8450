"""Which algorithms there are, by name: a table of our own, and the entry points `evertune.algorithms` of others.

Asked by validation (through `Registry`), by the ask process and by `replay`. A module is imported when its algorithm is
named, and the built-in ones import their library when they are asked: to list and to check costs next to nothing.
Katib's algorithms that do not run in this version are refused by name, not mistaken for a slip of the pen.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from algorithms.session import open_session
from evertune.errors import AlgorithmError, Problem
from evertune.protocols import Algorithm, AskSession, SearchProblem

ENTRY_POINTS = "evertune.algorithms"

_BUILT_IN = {
    "random": "algorithms.random_search:RandomSearch",
    "tpe": "algorithms.tpe:Tpe",
    "multivariate-tpe": "algorithms.multivariate_tpe:MultivariateTpe",
    "grid": "algorithms.grid:Grid",
}
# Asked in a thread of the worker: no library, no history, microseconds per point.
_CHEAP = frozenset({"grid"})


class Registry:
    """This module as `evertune.protocols.AlgorithmCatalog`."""

    def names(self) -> Sequence[str]:
        return names()

    def check(self, name: str, problem: SearchProblem, /) -> Sequence[Problem]:
        return check(name, problem)


def names() -> tuple[str, ...]:
    """Ours first, then those of others by name."""
    return (*_BUILT_IN, *sorted(_others()))


def get(name: str) -> type[Algorithm]:
    """The class; AlgorithmError when there is none of that name, or when it cannot be imported."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(type[Algorithm], getattr(importlib.import_module(module), attribute))
    entry = _others().get(name)
    if entry is None:
        problem = _unknown(name)
        raise AlgorithmError(problem.message, problem.hint)
    try:
        return cast(type[Algorithm], entry.load())
    except Exception as error:
        message = f"the algorithm {name} cannot be loaded from {entry.value}: {_words(error)}"
        raise AlgorithmError(message, "mend or reinstall the package that registers it") from error


def check(name: str, problem: SearchProblem) -> Sequence[Problem]:
    """What the algorithm has to say against the settings and the space; one problem when there is no such algorithm."""
    if name not in names():
        return [_unknown(name)]
    try:
        return get(name).check(problem)
    except AlgorithmError as error:
        return [_problem(error.message, error.hint)]
    except Exception as error:
        if name in _BUILT_IN:
            raise
        return [_problem(f"the algorithm {name} failed to judge this experiment: {_words(error)}")]


def create(name: str, problem: SearchProblem) -> Algorithm:
    return get(name)(problem)


def session(name: str, problem: SearchProblem) -> AskSession:
    """The algorithm, ready to be asked many times about a growing history."""
    return open_session(create(name, problem))


def is_cheap(name: str) -> bool:
    """Whether an ask is so small that a process of its own would be a waste."""
    return name in _CHEAP


@cache
def _others() -> dict[str, EntryPoint]:
    """Nobody takes a built-in name. Of two others with one name the first by module stays, on every machine."""
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.value, reverse=True)
    return {entry.name: entry for entry in found if entry.name not in _BUILT_IN}


def _unknown(name: str) -> Problem:
    from evertune.spec.findings import quote, suggestion  # who reports a mistake has the spec loaded
    from evertune.spec.rules.search import KATIB_ALGORITHMS

    if name in KATIB_ALGORITHMS:
        return _problem(f"{quote(name)} is not available in this version", f"known: {' '.join(names())}")
    return _problem(f"{quote(name)} is not an algorithm", suggestion(name, names(), "known"))


def _problem(message: str, hint: str | None = None) -> Problem:
    return Problem(path="spec.algorithm.algorithmName", type="Invalid", message=message, hint=hint)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
