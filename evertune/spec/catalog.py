"""What validation asks of the algorithm registry. `protocols.AlgorithmCatalog` has the same shape, one floor up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from evertune.domain.space import SearchProblem
from evertune.errors import Problem


class Catalog(Protocol):
    def names(self) -> Sequence[str]: ...

    def check(self, name: str, problem: SearchProblem, /) -> Sequence[Problem]: ...
