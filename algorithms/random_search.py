"""`random`: independent draws, by hyperopt. An ask costs the same at any trial, and knows nothing of other trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from algorithms import settings, space
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict, SearchProblem


class RandomSearch:
    name: ClassVar[str] = "random"
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = False

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        known = (settings.RANDOM_STATE,)
        return [*settings.problems(cls.name, known, problem.settings), *space.problems(problem.space)]

    def __init__(self, problem: SearchProblem) -> None:
        import hyperopt

        from algorithms.hyperopt_space import HyperoptSpace

        self._seed = problem.seed
        self._space = HyperoptSpace(problem.space)
        self._no_trials = hyperopt.Trials()

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        from hyperopt import rand

        from algorithms.hyperopt_space import seeds

        if self._space.constant:
            return Answer(assignments=self._space.constants(k))
        assignments = []
        for number, seed in enumerate(seeds(self._seed, first_number, k), start=first_number):
            (document,) = rand.suggest([number], self._space.domain, self._no_trials, seed)
            assignments.append(Assignment(self._space.encoded.decode(self._space.point(document))))
        return Answer(assignments=tuple(assignments))
