"""Stops a trial whose best value so far is not among the best `percentile` percent of what others had at that step.

The rule of Optuna's PercentilePruner (https://optuna.readthedocs.io/en/stable/reference/generated/
optuna.pruners.PercentilePruner.html): the limit is the percentile, linear between neighbours, of the values that the
trials which succeeded had reported at the same step. Departure: a step is the ordinal of a report, not a number that
the program gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from algorithms.cautions import nobody_to_compare
from algorithms.settings import Rule, is_float, whole
from algorithms.stoppers.base import Stopper, quantile, said, shown
from evertune.domain.metrics import Objective
from evertune.domain.setting import text_of
from evertune.domain.space import SearchProblem
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.errors import Problem
from evertune.protocols import JsonDict


class Percentile(Stopper):
    name: ClassVar[str] = "percentile"
    about: ClassVar[str] = "keeps trials that are among the best percent of earlier ones at the same step"
    peers: ClassVar[Literal["none", "succeeded", "all"]] = "succeeded"
    settings: ClassVar[Mapping[str, Rule]] = {
        "percentile": Rule(
            "a number above 0, below 100",
            is_float(lambda value: 0 < value < 100),
            "how many percent of the earlier trials' values count as good",
            "25",
        ),
        "min_trials_required": whole(1, "trials that must have succeeded before any is stopped", "5"),
        "start_step": whole(1, "the first report at which a trial is judged", "1"),
        "interval_steps": whole(1, "reports from one judgement to the next", "1"),
    }

    @classmethod
    def warnings(cls, settings: Mapping[str, str], objective: Objective, problem: SearchProblem) -> Sequence[Problem]:
        needed = int(text_of("min_trials_required", settings, cls.settings))
        return nobody_to_compare(cls.name, problem, needed, "min_trials_required")

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        super().__init__(settings, objective)
        percentile = self.number("percentile") / 100
        self._fraction = 1 - percentile if self.descending else percentile
        self._min_trials = self.whole("min_trials_required")
        self._start, self._interval = self.whole("start_step"), self.whole("interval_steps")

    def _due(self, step: int) -> bool:
        return step >= self._start and (step - self._start) % self._interval == 0

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        return (prefix.step, prefix.value) if prefix.value is not None and self._due(prefix.step) else None

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        if not self._due(prefix.step) or peers.count < self._min_trials:
            return Ruling()
        limit = quantile(peers, self._fraction)
        best = prefix.best(self.objective)
        if not self.worse(best, than=limit):
            return Ruling()
        return Ruling(
            f"{said(self.objective.metric, best, best=True)} at step {prefix.step} is worse than {shown(limit)}: not "
            f"in the best {self.number('percentile'):g} % of {peers.count} earlier trials"
        )
