"""What validation asks of the algorithm registry. `protocols.AlgorithmCatalog` has the same shape, one floor up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from evertune.domain.metrics import Objective
from evertune.domain.space import SearchProblem
from evertune.errors import Problem


class Catalog(Protocol):
    def names(self) -> Sequence[str]:
        """All names that a spec may use."""
        ...

    def check(self, name: str, problem: SearchProblem, /) -> Sequence[Problem]:
        """Everything wrong with settings and space for one of `names`."""
        ...

    def settings(self, name: str, /) -> Collection[str]:
        """The settings that it knows; empty where nobody says."""
        ...

    def handed_out(self, name: str, problem: SearchProblem, /) -> Sequence[str] | None:
        """The names of the values that a trial gets; None where nobody says."""
        ...

    def warnings(self, name: str, problem: SearchProblem, /) -> Sequence[Problem]:
        """What to mind of an experiment that `check` has found nothing wrong with. Raises nothing."""
        ...

    def stoppers(self) -> Sequence[str]:
        """The names of all rules that stop trials early."""
        ...

    def check_stopper(self, name: str, settings: Mapping[str, str], objective: Objective, /) -> Sequence[Problem]:
        """Everything wrong with the settings of an early stopping rule, or with its name."""
        ...

    def stopper_warnings(
        self, name: str, settings: Mapping[str, str], objective: Objective, problem: SearchProblem, /
    ) -> Sequence[Problem]:
        """What to mind of settings that `check_stopper` has found nothing wrong with. Raises nothing."""
        ...
