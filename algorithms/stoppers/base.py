"""What the rules share: settings read and checked, values compared in the objective's direction, numbers in sentences.

A rule's module has its settings in the class, as the algorithms' modules do; nothing here is imported by anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.setting import EARLY_STOPPING, Rule, settings_problems, text_of
from evertune.domain.stopping import Peers, Prefix
from evertune.errors import Problem


class Stopper:
    """Base of the built-in rules: those that compare the objective, one value after the other."""

    name: ClassVar[str]
    about: ClassVar[str]
    settings: ClassVar[Mapping[str, Rule]]
    peers: ClassVar[Literal["none", "succeeded", "all"]] = "none"
    silent_s: float | None = None

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        self.objective = objective
        self._settings = stripped(settings)

    @classmethod
    def check(cls, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        return settings_problems(cls.name, stripped(settings), cls.settings, path=EARLY_STOPPING)

    @property
    def metrics(self) -> Sequence[str]:
        return (self.objective.metric,)

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        return None

    def text(self, name: str) -> str:
        """A setting, or its default."""
        return text_of(name, self._settings, self.settings)

    def whole(self, name: str) -> int:
        return int(self.text(name))

    def number(self, name: str) -> float:
        return float(self.text(name))

    def worse(self, value: float | None, than: float) -> bool:
        """Strictly; what has no number at all is worse than any."""
        return value is None or self.objective.better(than, value)

    @property
    def descending(self) -> bool:
        """Whether the best is the highest."""
        return self.objective.type is ObjectiveType.MAXIMIZE


def stripped(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings without blanks around their values, which no rule minds."""
    return {name: text.strip() for name, text in settings.items()}


def quantile(peers: Peers, fraction: float) -> float:
    """Linear between the two nearest, as numpy's default; `fraction` from 0 to 1 of the ascending values."""
    place = fraction * (peers.count - 1)
    below = int(place)
    low = peers.at(below)
    if below == place:
        return low
    high = peers.at(below + 1)
    return low + (high - low) * (place - below)


def shown(value: float) -> str:
    return f"{value:.6g}"


def said(metric: str, value: float | None, *, best: bool = False) -> str:
    if value is None:
        return f"{metric} without a number"
    return f"{'best ' * best}{metric} {shown(value)}"


def reports(count: int) -> str:
    return f"{count} report" if count == 1 else f"{count} reports"
