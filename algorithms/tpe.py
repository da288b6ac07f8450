"""`tpe`: the Tree-structured Parzen Estimator of hyperopt, told of every trial: finished, failed and running.

A running trial has no loss yet, which hyperopt takes for a bad one; so trials that are asked for together, or while
others run, keep away from each other. Settings are Katib's, and `n_startup_jobs`: how many trials are drawn at random
before the estimator decides (hyperopt's 20; Katib silently takes the size of the first request).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from algorithms import settings, space
from algorithms.results import Result, result_of
from evertune.domain.metrics import ObjectiveType
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, AskSession, JsonDict, SearchProblem

_OPTIONS = (
    settings.real("gamma", 0.25, above=0, below=1),
    settings.real("prior_weight", 1.0, above=0),
    settings.whole("n_EI_candidates", 24, at_least=1),
    settings.whole("n_startup_jobs", 20, at_least=1),
)
SETTINGS = (*_OPTIONS, settings.RANDOM_STATE)


class Tpe:
    name: ClassVar[str] = "tpe"
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
    """Keeps hyperopt's documents; everything that decides is made anew for each ask."""

    def __init__(self, problem: SearchProblem) -> None:
        from algorithms.hyperopt_space import HyperoptSpace

        self._seed = problem.seed
        self._sign = -1.0 if problem.direction is ObjectiveType.MAXIMIZE else 1.0
        self._options = settings.values(_OPTIONS, problem.settings)
        self._space = HyperoptSpace(problem.space)
        self._documents: dict[int, dict[str, Any]] = {}

    def ask(self, changes: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        import hyperopt

        from algorithms.hyperopt_space import seeds

        if self._space.constant:
            return Answer(assignments=self._space.constants(k))
        for trial in changes:
            self._documents[trial.number] = self._document(trial)
        trials = hyperopt.Trials(refresh=False)
        trials._insert_trial_docs(self._documents.values())
        trials.refresh()
        assignments = []
        for number, seed in enumerate(seeds(self._seed, first_number, k), start=first_number):
            documents = hyperopt.tpe.suggest([number], self._space.domain, trials, seed, **self._options, verbose=False)
            trials._insert_trial_docs(documents)  # the next of this batch must know of it
            trials.refresh()
            point = self._space.point(documents[0])
            assignments.append(Assignment(self._space.encoded.decode(point), meta=self._space.encoded.meta(point)))
        return Answer(assignments=tuple(assignments))

    def _document(self, trial: HistoryTrial) -> dict[str, Any]:
        import hyperopt

        point = self._space.values(trial)
        result, value = result_of(trial)
        tid = [trial.number]  # one list for all names: history is the bulk of the memory
        outcome: dict[str, Any] = {"status": hyperopt.STATUS_FAIL}
        if result is Result.RUNNING:
            outcome = {"status": hyperopt.STATUS_NEW}
        elif result is Result.COMPLETE:
            outcome = {"status": hyperopt.STATUS_OK, "loss": self._sign * value}
        return {
            "tid": trial.number,
            "state": hyperopt.JOB_STATE_RUNNING if result is Result.RUNNING else hyperopt.JOB_STATE_DONE,
            "result": outcome,
            "misc": {
                "tid": trial.number,
                "idxs": dict.fromkeys(point, tid),
                "vals": {name: [internal] for name, internal in point.items()},
            },
        }
