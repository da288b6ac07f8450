"""asha: asynchronous successive halving: no trial ever waits for others.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht & Talwalkar 2020, "A System for Massively Parallel
Hyperparameter Tuning", MLSys, algorithm 2. Rung i, counted from 0, has the resource r_l * eta^(i - s_max), where s_max
= floor(log_eta(r_l / r_min)). Whenever a worker is free, the highest rung is looked for in which one of the best
floor(ended / eta) trials has not been promoted; if there is none, a new configuration begins at rung 0.

Departures: the rungs are fitted to r_l from above, so that the highest one has exactly r_l; failed trials count as
ended and are never promoted; ties go to the trial with the lower number. Katib has no asha; its names for hyperband's
settings hold. As in the paper, the order in which trials end decides what comes next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from algorithms import cautions
from algorithms.halving import RESOURCE_SETTINGS, Climbing, Ladder, problems_of
from algorithms.planning import Planner, place_of
from algorithms.settings import Rule, whole
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict

SETTINGS: Mapping[str, Rule] = {
    **RESOURCE_SETTINGS,
    "max_configs": whole(1, "configurations in all; then the best only go on", "no limit: maxTrialCount ends it"),
}


class Asha(Planner):
    """Asynchronous successive halving; see the module for the rule, the paper and the departures."""

    name: ClassVar[str] = "asha"
    about: ClassVar[str] = (
        "Successive halving without waiting: the best of what has ended goes on at once, for many workers and "
        "trainings of uneven length."
    )
    advice: ClassVar[str] = (
        "maxTrialCount counts every rung's trial, most of them short: choose r_min so that the shortest takes much "
        "longer than its start; any parallelism works."
    )
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return problems_of(cls.name, problem, SETTINGS)

    @classmethod
    def ends(cls, problem: SearchProblem) -> bool:
        """Whether it may have nothing more to suggest some day."""
        return "max_configs" in problem.settings

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        ladder = Ladder.of(problem)
        rungs, most = least_of_rungs(ladder), problem.max_trials
        found = []
        if most is not None and most < sum(rungs):
            usual = sum(math.ceil(ladder.eta**rung) for rung in range(ladder.top + 1))
            message = f"maxTrialCount is {most:,}, and no trial can come to r_l in fewer than {sum(rungs):,}"
            mend = f"maxTrialCount: {usual:,}, after which one usually does"
            found.append(cautions.caution(cautions.BUDGET, message, mend, "or r_min nearer to r_l"))
        if "max_configs" in problem.settings:
            configs = int(problem.settings["max_configs"])
            if configs < rungs[0]:
                message = f"max_configs is {configs:,}, and of fewer than {rungs[0]:,} configurations none comes to r_l"
                path = place_of(problem)("max_configs")
                found.append(cautions.caution(path, message, f"{rungs[0]:,} or more", "or r_min nearer to r_l"))
            why = f"max_configs is {configs:,}, each of which is in one trial at a time"
            found += cautions.idle(problem, configs, why, "or more max_configs")
        return found

    def session(self) -> AshaSession:
        return AshaSession(self.problem)


def least_of_rungs(ladder: Ladder) -> list[int]:
    """How many trials each rung has, from the lowest, when the first one comes to the highest.

    The first promotion needs eta trials that have ended, each further one just one more: if that is the best by then.
    """
    first = math.ceil(ladder.eta)
    rungs = [1]
    for _ in range(ladder.top):
        rungs.insert(0, first + rungs[0] - 1)
    return rungs


class AshaSession:
    def __init__(self, problem: SearchProblem) -> None:
        self._climbing = Climbing(problem)
        self._most = int(problem.settings["max_configs"]) if "max_configs" in problem.settings else None

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            self._climbing.take(trial)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        climbing, top = self._climbing, self._climbing.ladder.top
        given: list[Assignment] = []
        # What is given here has not ended, so that nothing becomes promotable within one ask.
        for rung, parent in self._promotable():
            if len(given) == k:
                break
            given.append(climbing.promoted(parent, rung, top - rung, {}))
        configs = len(climbing.rung(0, 0).trials)
        while len(given) < k and (self._most is None or configs < self._most):
            fresh = climbing.draws.fresh(configs, configs)
            given.append(climbing.started(fresh, first_number + len(given), top, {}))
            configs += 1
        for number, assignment in enumerate(given, first_number):
            climbing.take(HistoryTrial(number, assignment.parameters, TrialState.RUNNING, labels=assignment.labels))
        if given:
            return Answer(assignments=tuple(given), wait=len(given) < k)
        if running := sum(rung.running for rung in climbing.rungs.values()):
            return Answer(wait=True, reason=f"promotions wait for {running} trial{'s' * (running != 1)} to end")
        return Answer(exhausted=True, reason=f"all {self._most} configurations have gone as far as they go")

    def _promotable(self) -> Iterator[tuple[int, HistoryTrial]]:
        """Trials that may go on, and to which rung: the highest first, of each rung the best first."""
        climbing = self._climbing
        for i in range(climbing.ladder.top - 1, -1, -1):
            here, above = climbing.rung(0, i), climbing.rung(0, i + 1).trials
            for config, trial in here.best(int(len(here.ended) // climbing.ladder.eta)):
                if config not in above:
                    yield i + 1, trial
