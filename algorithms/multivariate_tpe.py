"""`multivariate-tpe`: Optuna's TPE over all parameters at once, with the constant liar for running trials.

Optuna draws from two generators that go on from ask to ask, so their states travel in `Answer.state`; trials need no
attributes, because each carries all of its parameters. Settings are Katib's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from algorithms import settings, space
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, AskSession, JsonDict, SearchProblem

if TYPE_CHECKING:
    from optuna.samplers._lazy_random_state import LazyRandomState

_OPTIONS = (
    settings.whole("n_startup_trials", 10, at_least=0),
    settings.whole("n_ei_candidates", 24, at_least=1),
)
SETTINGS = (*_OPTIONS, settings.RANDOM_STATE)


class MultivariateTpe:
    name: ClassVar[str] = "multivariate-tpe"
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = True

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return [*settings.problems(cls.name, SETTINGS, problem.settings), *space.problems(problem.space)]

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return self.session().ask(history, k, first_number, state)

    def session(self) -> AskSession:
        return _Session(self._problem)


class _Session:
    """Keeps the study; the generators are set anew from `state` for each ask."""

    def __init__(self, problem: SearchProblem) -> None:
        from optuna.samplers import TPESampler

        from algorithms.optuna_study import FollowedStudy

        options = settings.values(_OPTIONS, problem.settings)
        self._seed = problem.seed
        self._space = space.EncodedSpace(problem.space)
        self._sampler = TPESampler(
            n_startup_trials=int(options["n_startup_trials"]),
            n_ei_candidates=int(options["n_ei_candidates"]),
            seed=problem.seed,
            multivariate=True,
            group=False,
            constant_liar=True,
        )
        self._study = FollowedStudy(self._space, problem.direction, self._sampler)

    def ask(self, changes: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        for trial in sorted(changes, key=lambda trial: trial.number):  # Optuna numbers by place
            self._study.tell(trial)
        self._restore(state)
        points = [self._study.ask() for _ in range(k)]
        self._study.forget(first_number)
        assignments = [Assignment(self._space.decode(point), meta=self._space.meta(point)) for point in points]
        return Answer(assignments=tuple(assignments), state=self._state())

    def _restore(self, state: JsonDict | None) -> None:
        from algorithms.optuna_study import unpack

        for name, generator in self._generators().items():
            if state is None:
                generator.rng.seed(self._seed)
            else:
                unpack(state[name], generator.rng)

    def _state(self) -> JsonDict:
        from algorithms.optuna_study import pack

        return {name: pack(generator.rng) for name, generator in self._generators().items()}

    def _generators(self) -> dict[str, LazyRandomState]:
        return {"model": self._sampler._rng, "startup": self._sampler._random_sampler._rng}
