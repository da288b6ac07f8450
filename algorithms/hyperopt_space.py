"""Hyperopt without its loop: our encoding as a hyperopt space, and the seeds that `fmin` would have drawn.

Shared by `random_search` and `tpe`. `fmin(rstate=default_rng(seed))` draws one seed per trial and hands it to the
algorithm; the i-th draw belongs to trial i, so a trial's number and the experiment's seed are all there is to keep.
Hyperopt is imported when an algorithm is made, never before.
"""

from __future__ import annotations

import math
from typing import Any

from algorithms.space import Choices, Dimension, EncodedSpace, Line, Steps
from evertune.domain.space import SearchSpace
from evertune.domain.trial import Assignment, HistoryTrial


class HyperoptSpace:
    def __init__(self, space: SearchSpace) -> None:
        import hyperopt

        self.encoded = EncodedSpace(space)
        self._choices = {dimension.name for dimension in self.encoded.dimensions if isinstance(dimension, Choices)}
        expression = {dimension.name: _expression(dimension) for dimension in self.encoded.dimensions}
        self.domain = hyperopt.Domain(_no_objective, expression) if expression else None

    @property
    def constant(self) -> bool:
        """There is nothing to search: hyperopt must not be asked."""
        return not self.encoded.dimensions

    def values(self, trial: HistoryTrial) -> dict[str, float]:
        """The internal values of a trial, of the types that hyperopt itself gives them."""
        point = self.encoded.encode(trial)
        return {name: value if name in self._choices else float(value) for name, value in point.items()}

    def point(self, document: dict[str, Any]) -> dict[str, float]:
        """The internal values in a document that hyperopt suggested, as plain numbers."""
        suggested = document["misc"]["vals"]
        return {name: int(value) if name in self._choices else float(value) for name, (value,) in suggested.items()}

    def constants(self, k: int) -> tuple[Assignment, ...]:
        return tuple(Assignment(self.encoded.decode({})) for _ in range(k))


def seeds(seed: int, first: int, k: int) -> list[int]:
    """The seeds of trials first…first+k-1: draws of `default_rng(seed)`, made in one go (40 us for 5,000)."""
    import numpy as np

    draws: list[int] = np.random.default_rng(seed).integers(2**31 - 1, size=first + k)[first:].tolist()
    return draws


def _expression(dimension: Dimension) -> Any:
    from hyperopt import hp

    if isinstance(dimension, Line):
        if dimension.log:
            return hp.loguniform(dimension.name, math.log(dimension.low), math.log(dimension.high))
        return hp.uniform(dimension.name, dimension.low, dimension.high)
    if isinstance(dimension, Choices):
        return hp.choice(dimension.name, list(dimension.values))
    if isinstance(dimension, Steps):  # half a step more at each end: otherwise the ends come up half as often
        return hp.quniform(dimension.name, -0.5, dimension.count - 0.5, 1)
    return hp.uniform(dimension.name, 0.0, 1.0)


def _no_objective(_: Any) -> float:
    raise NotImplementedError("trials run elsewhere")
