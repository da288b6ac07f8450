"""A watchdog: stops a trial that has reported nothing at all for a while, whatever the metric.

Judged by time, not by reports; the clock begins when the trial runs, and does not run while it waits for its place in a
cluster. `activities.stop` asks it every few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from algorithms.stoppers.base import Stopper
from evertune.domain.metrics import Objective
from evertune.domain.setting import Rule, is_float
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.protocols import JsonDict


class NoReport(Stopper):
    name: ClassVar[str] = "no-report"
    about: ClassVar[str] = "stops what has gone silent; for programs that hang"
    settings: ClassVar[Mapping[str, Rule]] = {
        "seconds": Rule(
            "a number of seconds from 1",
            is_float(lambda value: 1 <= value <= 1e9),
            "without any report, after which a trial is stopped",
            None,
        ),
    }

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        super().__init__(settings, objective)
        self.silent_s = self.number("seconds")

    @property
    def metrics(self) -> Sequence[str]:
        return ()

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        return Ruling()
