"""hyperband: brackets of successive halving, planned from the history alone.

Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization", JMLR 18(185), algorithm 1. With R = r_l, s_max = floor(log_eta(R / r_min)), bracket s = s_max … 0 begins
with n = ceil((s_max + 1) * eta^s / (s + 1)) configurations of R * eta^-s, and its rung i has the best
n_i = floor(n * eta^-i) of the rung below, at R * eta^(i - s).

Departures from Katib's service, which cannot end a rung (katib#1168): n is the textbook's and not the size of the
request, a rung waits for its last trial with a short answer, failed trials use up their place and are never promoted,
promoted trials go on from their own checkpoint, s_max is exact, draws are seeded and honour distribution and step,
any parallelTrialCount will do, and after the last bracket the experiment ends. A whole-numbered resource is rounded
down. Ties go to the trial with the lower number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from algorithms import cautions
from algorithms.halving import RESOURCE_SETTINGS, Climbing, Ladder, problems_of
from algorithms.planning import Planner
from algorithms.settings import Rule, whole
from evertune.domain import labels
from evertune.domain.space import SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict

SETTINGS: Mapping[str, Rule] = {
    **RESOURCE_SETTINGS,
    "max_open_brackets": whole(1, "brackets that may run at once, so that a rung's end leaves nobody idle", "1"),
    "cycles": whole(1, "how often the brackets are gone through", "1"),
}


class Hyperband(Planner):
    """Brackets of successive halving; see the module for the equations, the paper and the departures."""

    name: ClassVar[str] = "hyperband"
    about: ClassVar[str] = (
        "Many configurations get little of a resource, the best of them more: for training that can go on from a "
        "checkpoint and shows early what it is worth."
    )
    advice: ClassVar[str] = (
        "One cycle needs about (s_max + 1)^2 / eta * r_l of the resource; any parallelism works, and max_open_brackets "
        "2 keeps more workers busy at the end of a rung."
    )
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return problems_of(cls.name, problem, cls.settings, others=True)  # Katib's own state may be among them

    @classmethod
    def ends(cls, problem: SearchProblem) -> bool:
        """Whether it may have nothing more to suggest some day."""
        return True

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        ladder, most = Ladder.of(problem), problem.max_trials
        brackets = [sizes_of(ladder, s) for s in range(ladder.top, -1, -1)]
        cycle, found = sum(map(sum, brackets)), []
        if most is not None and most < cycle:
            message = f"maxTrialCount is {most:,}, and one cycle of the brackets of {cls.name} has {cycle:,} trials"
            hint = (f"maxTrialCount: {cycle:,}", "or a smaller r_l, or a larger eta: then a cycle is shorter")
            found.append(cautions.caution(cautions.BUDGET, message, *hint))
        why = f"max_open_brackets is {problem.settings.get('max_open_brackets', '1')}"
        found += cautions.idle(problem, _at_once(problem, brackets), why, "or more max_open_brackets")
        return found

    def session(self) -> HyperbandSession:
        return HyperbandSession(self.problem)


def sizes_of(ladder: Ladder, s: int) -> list[int]:
    """Configurations at each rung of the bracket that has s + 1 of them."""
    n = math.ceil((ladder.top + 1) * ladder.eta**s / (s + 1))
    return [math.floor(n / ladder.eta**i) for i in range(s + 1)]


def _at_once(problem: SearchProblem, brackets: Sequence[Sequence[int]]) -> int:
    """At most so many trials run at a time: the first rungs of the largest brackets that may be open together."""
    left, cycles = (int(problem.settings.get(name, "1")) for name in ("max_open_brackets", "cycles"))
    trials = 0
    for sizes in sorted(brackets, key=max, reverse=True):
        taken = min(left, cycles)
        trials, left = trials + taken * max(sizes), left - taken
    return trials


class HyperbandSession:
    """The brackets as far as they have come. What `ask` gives is taken in when it comes back as history."""

    def __init__(self, problem: SearchProblem) -> None:
        self.climbing = Climbing(problem)
        self._open = int(problem.settings.get("max_open_brackets", "1"))
        self._brackets = (self.climbing.ladder.top + 1) * int(problem.settings.get("cycles", "1"))

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            self.climbing.take(trial)

    def fresh(self, bracket: int, place: int, ordinal: int) -> dict[str, Value]:
        """A new configuration: the `place`-th of its bracket, the `ordinal`-th of all."""
        return self.climbing.draws.fresh(ordinal, bracket, place)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        given: list[Assignment] = []
        opened, waits_for = 0, ""
        for bracket in range(self._brackets):
            if len(given) >= k or opened >= self._open:
                break
            waiting = self._plan(bracket, k - len(given), first_number + len(given), given)
            if waiting is not None:
                opened += 1
                waits_for = waits_for or waiting
        if given or opened:
            return Answer(assignments=tuple(given), wait=len(given) < k, reason=waits_for if not given else "")
        return Answer(exhausted=True, reason=f"all {self._brackets} brackets are done")

    def _sizes(self, bracket: int) -> list[int]:
        """Configurations at each rung of a bracket."""
        ladder = self.climbing.ladder
        return sizes_of(ladder, ladder.top - bracket % (ladder.top + 1))

    def _plan(self, bracket: int, room: int, number: int, given: list[Assignment]) -> str | None:
        """Hand out at most `room` trials of a bracket, from `number` on. None: it is over; else what it waits for."""
        climbing = self.climbing
        sizes = self._sizes(bracket)
        own = {labels.BRACKET: str(bracket)}
        for i, size in enumerate(sizes):
            rung, below = climbing.rung(bracket, i), len(sizes) - 1 - i
            if i == 0:
                missing = size - len(rung.trials)
                for place in range(len(rung.trials), len(rung.trials) + min(missing, room)):
                    fresh = self.fresh(bracket, place, self._before(bracket) + place)
                    assignment = climbing.started(fresh, number, below, own)
                    given.append(assignment)
                    self._pend(assignment, number)
                    number += 1
            else:
                below_it = climbing.rung(bracket, i - 1).best(size)
                left = [trial for config, trial in below_it if config not in rung.trials]
                missing = len(left)
                for trial in left[:room]:
                    assignment = climbing.promoted(trial, i, below, own)
                    given.append(assignment)
                    self._pend(assignment, number)
                    number += 1
            running = climbing.rung(bracket, i).running
            if missing > room or running:
                return f"rung {i} of bracket {bracket} waits for {running} trial{'s' * (running != 1)} to end"
        return None

    def _before(self, bracket: int) -> int:
        return sum(self._sizes(earlier)[0] for earlier in range(bracket))

    def _pend(self, assignment: Assignment, number: int) -> None:
        """It counts as running from now on; as history it comes back under the same number."""
        pending = HistoryTrial(number, assignment.parameters, TrialState.RUNNING, labels=assignment.labels)
        self.climbing.take(pending)
