"""pbt: population based training, one generation after the other, planned from the history alone.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv:1711.09846, algorithm 1 with truncation
selection (section 4.1.1). A generation of P = n_population members is planned once the one before has ended. A member
among the last ceil(P * truncation_threshold) of it takes parameters and checkpoint of one of the first that many, drawn
evenly (exploit), and then changes every parameter (explore): drawn anew with probability resample_probability, else
multiplied by one of `factors`, by one step at least, and kept within its range; a list's entry moves to one beside it.
Everybody else goes on with its own parameters and checkpoint.

Departures from Katib's service: the loser gets the winner's checkpoint, not its own; only losers explore, as in the
paper; a failed member does what the last ones do and is not run again under a new name; a generation is complete when
all its members have ended; a parameter that is not drawn anew is perturbed; lists do not wrap around; doubles need no
step; every choice is seeded by generation and member, so that any number of workers gives the same trials; at
most half of a population is replaced. Where a whole generation has failed, the next one begins anew.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

from algorithms import cautions, limits
from algorithms.planning import MAX_TRIES, Draws, Planner, perturbed, rank
from algorithms.settings import RANDOM_STATE, Rule, fraction, is_float, settings_problems, whole
from algorithms.space import Dimension, from_quantile
from evertune.domain import labels
from evertune.domain.space import SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict

MAX_FACTORS = 20


def _factors(text: str) -> bool:
    parts = text.split(",")
    allowed = is_float(lambda value: 1e-3 <= value <= 1e3 and value != 1)
    return len(parts) <= MAX_FACTORS and all(allowed(part.strip()) for part in parts)


SETTINGS: Mapping[str, Rule] = {
    "suggestion_trial_dir": Rule("a directory", bool, "where a trial's container finds its checkpoint", None),
    "n_population": whole(5, "trials of one generation", None),
    "truncation_threshold": fraction("the share of a generation that is replaced", None),
    "resample_probability": fraction("how often a parameter is drawn anew", "none: parameters are perturbed"),
    "generations": whole(1, "generations in all", "no limit: maxTrialCount ends it"),
    "factors": Rule(
        "numbers other than 1 with commas between",
        _factors,
        "what a number is multiplied by",
        "0.8,1.2",
    ),
    "random_state": RANDOM_STATE,
}
INIT, CONTINUE, EXPLOIT = "init", "continue", "exploit-explore"
_TRIES = 50  # of one member's changes; then the prior is asked for what the parameter constraints allow


class Pbt(Planner):
    """Population based training; see the module for the rule, the paper and the departures."""

    name: ClassVar[str] = "pbt"
    about: ClassVar[str] = (
        "A population of trainings that copy the better ones' weights and vary their parameters as they go: finds "
        "schedules, for training that goes on from a checkpoint."
    )
    advice: ClassVar[str] = (
        "maxTrialCount is n_population times the generations, 10 or more of them; parallelism up to n_population is "
        "used, and a divisor of it leaves nobody idle."
    )
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        # Katib's service lets settings pass that it does not know.
        return [*settings_problems(cls.name, problem, SETTINGS, others=True), *limits.problems_of(problem.space)]

    @classmethod
    def ends(cls, problem: SearchProblem) -> bool:
        """Whether it may have nothing more to suggest some day."""
        return "generations" in problem.settings

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        size = int(problem.settings["n_population"])
        why = f"the first generation of pbt has {size:,} trials: nothing is ever copied or perturbed"
        return [
            *cautions.never_learns(problem, size, why, f"or n_population below {problem.max_trials}"),
            *cautions.idle(problem, size, f"n_population is {size:,}", "or a larger n_population"),
        ]

    def session(self) -> PbtSession:
        return PbtSession(self.problem)


class PbtSession:
    """The generations as far as they have come; of several trials of a member the last counts."""

    def __init__(self, problem: SearchProblem) -> None:
        settings = problem.settings
        self._draws = Draws(problem)
        self._direction = problem.direction
        self._size = int(settings["n_population"])
        replaced = math.ceil(Fraction(settings["truncation_threshold"]) * self._size)
        self._replaced = min(replaced, self._size // 2)
        self._resample = float(settings.get("resample_probability", "0"))
        self._factors = tuple(float(part) for part in settings.get("factors", "0.8,1.2").split(","))
        self._last = int(settings["generations"]) if "generations" in settings else None
        self._generations: dict[int, dict[int, HistoryTrial]] = {}

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            given = trial.labels
            if trial.number < 0 or labels.GENERATION not in given or labels.MEMBER not in given:
                continue
            generation = self._generations.setdefault(int(given[labels.GENERATION]), {})
            known = generation.get(int(given[labels.MEMBER]))
            if known is None or known.number <= trial.number:
                generation[int(given[labels.MEMBER])] = trial

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        now = max(self._generations, default=0)
        members = self._generations.get(now, {})
        if len(members) == self._size and all(trial.state.terminal for trial in members.values()):
            now += 1
        if self._last is not None and now >= self._last:
            return Answer(exhausted=True, reason=f"all {self._last} generations are done")
        members = self._generations.setdefault(now, {})
        missing = [member for member in range(self._size) if member not in members][:k]
        given = list(self._planned(now, missing)) if missing else []
        for number, (member, assignment) in enumerate(zip(missing, given, strict=True), first_number):
            parameters = assignment.parameters
            members[member] = HistoryTrial(number, parameters, TrialState.RUNNING, labels=assignment.labels)
        if given:
            return Answer(assignments=tuple(given), wait=len(given) < k)
        running = sum(not trial.state.terminal for trial in members.values())
        reason = f"generation {now} waits for {running} trial{'s' * (running != 1)} to end"
        return Answer(wait=True, reason=reason)

    def _planned(self, generation: int, members: Sequence[int]) -> Iterator[Assignment]:
        before = self._generations.get(generation - 1, {})
        ranked = sorted(before.values(), key=lambda trial: rank(trial, self._direction))
        good = [trial for trial in ranked if not rank(trial, self._direction)[0]]
        best = good[: max(1, self._replaced)]
        worst = {trial.number for trial in ranked[len(ranked) - self._replaced :]}
        for member in members:
            own = {labels.GENERATION: str(generation), labels.MEMBER: str(member)}
            if not good:
                fresh = self._draws.fresh(member if generation == 0 else self._size + member, generation, member)
                yield Assignment(self._draws.complete(fresh, {}), labels={**own, labels.ACTION: INIT})
                continue
            last = before[member]
            if last.number not in worst and not rank(last, self._direction)[0]:
                own |= {labels.PARENT: str(last.number), labels.ACTION: CONTINUE}
                yield Assignment(dict(last.parameters), labels=own)
                continue
            luck = self._draws.luck(generation, member, MAX_TRIES)  # no try of `Draws.fresh` has this place
            source = best[int(luck.random() * len(best))]
            changed = self._explored(source.parameters, luck, generation, member)
            own |= {labels.PARENT: str(source.number), labels.ACTION: EXPLOIT}
            yield Assignment(self._draws.complete(changed, {}), labels=own)

    def _explored(
        self, source: Mapping[str, Value], luck: random.Random, generation: int, member: int
    ) -> dict[str, Value]:
        for _ in range(_TRIES):
            values = self._draws.settled(
                {dimension.name: self._changed(dimension, source, luck) for dimension in self._draws.codec.dimensions}
            )
            if self._draws.allows(values):
                return values
        return self._draws.fresh(self._size * (generation + 1), generation, member)

    def _changed(self, dimension: Dimension, source: Mapping[str, Value], luck: random.Random) -> Value:
        """What the source does not have, as its condition does not hold there, is drawn for the case that it will."""
        if dimension.name not in source or luck.random() < self._resample:
            return dimension.decode(from_quantile(dimension, luck.random()))
        return perturbed(dimension, source[dimension.name], luck, self._factors)
