"""Asynchronous successive halving as a stopping rule: at each rung only the best 1/eta go on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), algorithm 2, in the form that stops
instead of promoting (section 3.3 there; also Optuna's SuccessiveHalvingPruner, whose arithmetic this is). Rungs are at
`min_resource * eta**(min_early_stopping_rate + k)` reports. A trial that reaches one is compared, by its value there,
with all trials that have reached it, itself included and running ones too: it goes on if it is among the best
`floor(n / eta)`, at least one. The first one at a rung always goes on. Nothing ever waits, no trial is started twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from algorithms.stoppers.base import Stopper, said, shown
from evertune.domain.metrics import Objective
from evertune.domain.setting import Rule, is_int, whole
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.protocols import JsonDict


class Asha(Stopper):
    name: ClassVar[str] = "asha"
    about: ClassVar[str] = "lets the best 1/eta of all trials pass each rung; for many trials that report often"
    peers: ClassVar[Literal["none", "succeeded", "all"]] = "all"
    settings: ClassVar[Mapping[str, Rule]] = {
        "min_resource": whole(1, "reports up to the first rung", "1"),
        "eta": Rule("a whole number from 2", is_int(2), "one of eta trials passes a rung", "4"),
        "min_early_stopping_rate": whole(0, "rungs that are left out at the beginning", "0"),
    }

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        super().__init__(settings, objective)
        self._eta = self.whole("eta")
        self._first = self.whole("min_resource") * self._eta ** min(self.whole("min_early_stopping_rate"), 64)

    def rung(self, step: int) -> int | None:
        """Which rung, from 0, is at that step."""
        at, rung = self._first, 0
        while at < step:
            at, rung = at * self._eta, rung + 1
        return rung if at == step else None

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        return (prefix.step, prefix.value) if prefix.value is not None and self.rung(prefix.step) is not None else None

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        rung = self.rung(prefix.step)
        if rung is None:
            return Ruling()
        count = peers.count  # with this one, unless its value is no number
        if not count:
            return Ruling()
        place = max(count // self._eta - 1, 0)
        limit = peers.at(count - 1 - place if self.descending else place)
        if not self.worse(prefix.value, than=limit):
            return Ruling()
        return Ruling(
            f"{said(self.objective.metric, prefix.value)} at rung {rung} (step {prefix.step}) is worse than "
            f"{shown(limit)}: not among the best {place + 1} of {count} trials there"
        )
