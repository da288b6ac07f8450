"""What validation asks of the algorithm registry. `protocols.AlgorithmCatalog` has the same shape, one floor up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from evertune.domain.metrics import Objective
from evertune.domain.space import SearchProblem
from evertune.errors import Problem
from evertune.spec.findings import quote


class Catalog(Protocol):
    def names(self) -> Sequence[str]:
        """All names that a spec may use."""
        ...

    def check(self, name: str, problem: SearchProblem, /) -> Sequence[Problem]:
        """Everything wrong with settings and space for one of `names`."""
        ...

    def runs(self, name: str, /) -> bool:
        """Whether this version runs it, too. Katib's names are judged even where they do not run."""
        ...

    def stoppers(self) -> Sequence[str]:
        """The names of all rules that stop trials early."""
        ...

    def check_stopper(self, name: str, settings: Mapping[str, str], objective: Objective, /) -> Sequence[Problem]:
        """Everything wrong with the settings of an early stopping rule, or with its name."""
        ...


def not_run(name: str, catalog: Catalog) -> str | None:
    """The sentence about a name that can be judged but not run; None for all others."""
    names = catalog.names()
    if name not in names or catalog.runs(name):
        return None
    running = ", ".join(known for known in names if catalog.runs(known))
    return f"{quote(name)} is checked, but does not run in this version; it runs: {running}"
