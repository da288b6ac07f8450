"""worsening: stops a trial whose objective gets worse and worse, report by report.

A report without a finite number counts as worse. Needs no other trials. A rule is asked by several processes and
threads, so what it remembers of an attempt is handed to it and back, as JSON.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from evertune.domain.metrics import Objective
from evertune.domain.setting import EARLY_STOPPING, Rule, settings_problems, text_of, whole
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.errors import Problem
from evertune.protocols import JsonDict


class Worsening:
    name: ClassVar[str] = "worsening"
    about: ClassVar[str] = "stops what gets worse from report to report; needs no other trials"
    peers: ClassVar[Literal["none", "succeeded", "all"]] = "none"
    settings: ClassVar[Mapping[str, Rule]] = {
        "times": whole(1, "reports in a row, each worse than the one before, after which a trial is stopped", "3")
    }
    silent_s = None  # time is nothing to it

    @classmethod
    def check(cls, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        return settings_problems(cls.name, settings, cls.settings, path=EARLY_STOPPING)

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        self._objective = objective
        self._times = int(text_of("times", settings, self.settings))

    @property
    def metrics(self) -> Sequence[str]:
        return (self._objective.metric,)

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        return None  # nobody compares with anybody

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        value, before = prefix.value, memory.get("before")
        worse = value is None or (before is not None and self._objective.better(before, value))
        times = memory.get("times", 0) + 1 if worse else 0
        reason = f"{self._objective.metric} got worse {times} times in a row" if times >= self._times else ""
        return Ruling(reason, {"before": before if value is None else value, "times": times})
