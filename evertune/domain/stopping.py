"""What early stopping is decided by: what one attempt has reported up to one of its values, and what others had there.

Made by the store as points arrive, read by the rules (`protocols.EarlyStopper`). A step is the ordinal of a value of a
metric within its attempt, from 1, as in Katib: no collector has to know the program's own count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from evertune.domain.metrics import Objective, ObjectiveType

MAX_REASON = 200  # characters: it travels through Temporal and stands in tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """An attempt's values of one metric up to and including one of them, summed up.

    A value that is not a finite number counts as a step and changes nothing else.
    """

    metric: str
    step: int = 0  # how many values these are
    value: float | None = None  # the last of them, None when it is not a finite number
    numbers: int = 0  # how many of them are finite numbers
    total: float = 0.0  # their sum
    low: float | None = None
    high: float | None = None

    def then(self, value: float | None) -> Prefix:
        """With one more value."""
        if value is None:
            return Prefix(
                metric=self.metric, step=self.step + 1, numbers=self.numbers, total=self.total, low=self.low,
                high=self.high,
            )  # fmt: skip
        return Prefix(
            metric=self.metric,
            step=self.step + 1,
            value=value,
            numbers=self.numbers + 1,
            total=self.total + value,
            low=value if self.low is None else min(self.low, value),
            high=value if self.high is None else max(self.high, value),
        )

    @property
    def mean(self) -> float | None:
        return self.total / self.numbers if self.numbers else None

    def best(self, objective: Objective) -> float | None:
        return self.low if objective.type is ObjectiveType.MINIMIZE else self.high


class Peers(Protocol):
    """What other trials of the experiment had at one step, as `EarlyStopper.mark` gave it: numbers, ascending."""

    @property
    def count(self) -> int: ...

    def mean(self) -> float:
        """Of all of them; at least one is there."""
        ...

    def at(self, rank: int) -> float:
        """The one of that rank, from 0 for the lowest to count - 1."""
        ...


class ListedPeers:
    """Peers in memory, for tests of rules."""

    def __init__(self, values: Sequence[float]) -> None:
        self._values = sorted(values)

    @property
    def count(self) -> int:
        return len(self._values)

    def mean(self) -> float:
        return sum(self._values) / len(self._values)

    def at(self, rank: int) -> float:
        return self._values[rank]


@dataclass(frozen=True, slots=True)
class Ruling:
    """A rule's answer. `reason`: a sentence why the trial is to be stopped, "" when it goes on.

    `memory`: JSON, given to the rule with the attempt's next value.
    """

    reason: str = ""
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """That one attempt is to be stopped: taken once, and stored with its reason."""

    number: int
    attempt: int
    step: int  # of the metric that decided; 0 where time did
    reason: str  # the rule's name and its sentence
