"""Stops a trial whose objective has not become better for a number of reports, as Keras' EarlyStopping does.

An improvement is a value that is better than the best one at the last improvement by more than `min_delta`. Values that
are not finite numbers are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from algorithms.stoppers.base import Stopper, reports, shown
from evertune.domain.metrics import Objective
from evertune.domain.setting import Rule, not_negative, whole
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.protocols import JsonDict


class Patience(Stopper):
    name: ClassVar[str] = "patience"
    about: ClassVar[str] = "stops what has stopped improving; needs no other trials"
    settings: ClassVar[Mapping[str, Rule]] = {
        "patience": whole(1, "reports without an improvement after which a trial is stopped", "10"),
        "min_delta": not_negative("by how much a value must be better to count as an improvement", "0"),
        "start_step": whole(0, "reports that do not count yet", "0"),
    }

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        super().__init__(settings, objective)
        self._patience = self.whole("patience")
        self._delta = self.number("min_delta")
        self._start = self.whole("start_step")

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        best, since = memory.get("best"), int(memory.get("since", self._start))
        if prefix.value is not None and (best is None or self._improved(prefix.value, best)):
            return Ruling("", {"best": prefix.value, "since": max(prefix.step, self._start)})
        silent = prefix.step - since
        kept = {"best": best, "since": since}
        if silent < self._patience:
            return Ruling("", kept)
        than = "" if best is None else f" than {shown(best)} at step {since}"
        delta = f" by more than {self._delta:g}" if self._delta else ""
        return Ruling(f"{self.objective.metric} has not become better{than}{delta} for {reports(silent)}", kept)

    def _improved(self, value: float, best: float) -> bool:
        return best - value > self._delta if not self.descending else value - best > self._delta
