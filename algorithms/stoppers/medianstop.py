"""Katib's median stopping rule, and the one of the paper by setting.

Katib's (service medianstop, https://www.kubeflow.org/docs/components/katib/user-guides/early-stopping/): each trial
that succeeded counts with the average of its first `start_step` values (fewer if it has fewer). Once
`min_trials_required` of them are there, a trial is stopped at its `start_step`-th value, and never later, if its best
value so far is worse than the mean - not the median - of those averages.

With `statistic: median` and `check: every` it is the rule of Golovin et al., "Google Vizier" (KDD 2017), section 3.2.2:
at each step from `start_step` on, the trial's best value so far against the median of what the running averages of
others were at that very step. The two settings are independent of each other.

Departures from Katib: the mean is of the trials that have succeeded when the value comes, where Katib fixes it when a
trial is created; a trial that reports no number at all is stopped, where Katib's collector dies of it; every collector
can stop, where only Katib's file collector does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from algorithms.cautions import nobody_to_compare
from algorithms.settings import Rule, choice, whole
from algorithms.stoppers.base import Stopper, quantile, said, shown
from evertune.domain.metrics import Objective
from evertune.domain.setting import text_of
from evertune.domain.space import SearchProblem
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.errors import Problem
from evertune.protocols import JsonDict


class MedianStop(Stopper):
    name: ClassVar[str] = "medianstop"
    about: ClassVar[str] = "stops what is worse than the average of earlier trials; Katib's rule, a good first one"
    peers: ClassVar[Literal["none", "succeeded", "all"]] = "succeeded"
    settings: ClassVar[Mapping[str, Rule]] = {
        "min_trials_required": whole(1, "trials that must have succeeded before any is stopped", "3"),
        "start_step": whole(1, "the report at which a trial is judged, and how many are averaged", "4"),
        "statistic": choice("what the averages of others are summed up by", "mean", "mean", "median"),
        "check": choice("once, at start_step, or at every report from there on", "once", "once", "every"),
    }

    @classmethod
    def warnings(cls, settings: Mapping[str, str], objective: Objective, problem: SearchProblem) -> Sequence[Problem]:
        needed = int(text_of("min_trials_required", settings, cls.settings))
        return nobody_to_compare(cls.name, problem, needed, "min_trials_required")

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None:
        super().__init__(settings, objective)
        self._min_trials = self.whole("min_trials_required")
        self._start = self.whole("start_step")
        self._once = self.text("check") == "once"
        self._statistic = self.text("statistic")

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        if prefix.mean is None:
            return None
        if prefix.step == self._start or (prefix.step > self._start and not self._once):
            return prefix.step, prefix.mean
        return (self._start, prefix.mean) if last and prefix.step < self._start else None

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        if prefix.step < self._start or (self._once and prefix.step > self._start):
            return Ruling()
        if peers.count < self._min_trials:
            return Ruling()
        limit = peers.mean() if self._statistic == "mean" else quantile(peers, 0.5)
        best = prefix.best(self.objective)
        if not self.worse(best, than=limit):
            return Ruling()
        return Ruling(
            f"{said(self.objective.metric, best, best=True)} at step {prefix.step} is worse than {shown(limit)}, "
            f"the {self._statistic} of {peers.count} earlier {'trial' if peers.count == 1 else 'trials'}"
        )
