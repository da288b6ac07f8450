"""random, tpe and anneal: hyperopt's own search, asked trial by trial and rebuilt anywhere.

Stateless: the seed of trial i is the i-th draw of `default_rng(seed).integers(2**31 - 1)`, which is what
`fmin(rstate=default_rng(seed))` draws, so a sequential experiment gives fmin's very sequence. Running trials are told
as running: hyperopt gives them infinite loss, its built-in constant liar, so that parallel asks spread out (Katib
ignores them and gets identical points).

TPE: Bergstra, Bardenet, Bengio & Kégl 2011, "Algorithms for Hyper-Parameter Optimization", section 4. Annealing:
hyperopt's own, draws around one of the best points in a neighbourhood that shrinks with the trials. Departures from
Katib: parameters are encoded by `algorithms.space`, `n_startup_jobs` is hyperopt's 20 and not the size of the request.
Pinned here and nowhere else: `Trials._insert_trial_docs`, `_dynamic_trials` and `_trials`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from algorithms import limits
from algorithms.base import SessionAlgorithm, loss_of, setting
from algorithms.cautions import never_modelled
from algorithms.settings import (
    RANDOM_STATE,
    SETTINGS,
    Rule,
    is_float,
    not_negative,
    problems_of,
    settings_problems,
)
from algorithms.space import Codec, Dimension, Kind, Raw
from evertune.domain.setting import text_of
from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import BLIND, LEARNED, Answer, Feature, JsonDict

_KEPT = "raw"  # in a trial's meta: raw values that its parameters cannot give back exactly


class _Hyperopt(SessionAlgorithm):
    name: ClassVar[str]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return problems_of(cls.name, problem)


class Random(_Hyperopt):
    name: ClassVar[str] = "random"
    about: ClassVar[str] = "Draws each parameter by its distribution: the baseline, and for very many parallel trials."
    advice: ClassVar[str] = "Any budget, any parallelTrialCount."
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS["random"]
    reads_history: ClassVar[bool] = False
    supports: ClassVar[frozenset[Feature]] = BLIND | {Feature.NAS_CONFIG}

    def search(self) -> RandomSession:
        return RandomSession(self.problem)


class Tpe(_Hyperopt):
    name: ClassVar[str] = "tpe"
    about: ClassVar[str] = "Densities of good and bad trials, one parameter at a time: for any space, cheap to ask."
    advice: ClassVar[str] = "From some 50 trials on; parallelTrialCount up to about 10 costs little."
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = LEARNED | {Feature.NAS_CONFIG}
    settings: ClassVar[Mapping[str, Rule]] = SETTINGS["tpe"]

    @classmethod
    def warnings(cls, problem: SearchProblem) -> Sequence[Problem]:
        first = int(text_of("n_startup_jobs", problem.settings, cls.settings))
        return never_modelled(cls.name, problem, first, "n_startup_jobs")

    def search(self) -> TpeSession:
        return TpeSession(self.problem)


ANNEAL_SETTINGS: Mapping[str, Rule] = {
    "random_state": RANDOM_STATE,
    "avg_best_idx": Rule(
        "a number from 1", is_float(lambda value: value >= 1), "rank, on average, of the trial it draws around", "2.0"
    ),
    "shrink_coef": not_negative("how fast the neighbourhood shrinks", "0.1"),
}


class Anneal(_Hyperopt):
    name: ClassVar[str] = "anneal"
    about: ClassVar[str] = "Draws around one of the best points, ever closer: simple and strong on smooth objectives."
    advice: ClassVar[str] = "For 30 to 200 trials; best with a small parallelTrialCount."
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = LEARNED | {Feature.NAS_CONFIG}
    settings: ClassVar[Mapping[str, Rule]] = ANNEAL_SETTINGS

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return [*settings_problems(cls.name, problem, cls.settings), *limits.problems_of(problem.space)]

    def search(self) -> AnnealSession:
        return AnnealSession(self.problem)


class RandomSession:
    """The answer depends on seed and trial number alone, so nothing is told and nothing is kept."""

    def __init__(self, problem: SearchProblem) -> None:
        import hyperopt

        self._codec = Codec.of(problem.space)
        self._domain = hyperopt.Domain(_no_objective, hyperopt_space(self._codec))
        self._trials = hyperopt.Trials()
        self._seeds = _Seeds(problem.seed)

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        pass

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        from hyperopt import rand

        assignments = []
        for number in range(first_number, first_number + k):
            found = rand.suggest([number], self._domain, self._trials, self._seeds[number])
            assignments.append(Assignment(self._codec.decode(_raw_of(found))))
        return Answer(assignments=tuple(assignments))

    def refuse(self, number: int) -> None:
        self._seeds.refuse(number)


class TpeSession:
    """A `Trials` object that holds one document per trial, updated in place as trials end."""

    def __init__(self, problem: SearchProblem) -> None:
        import hyperopt

        self._hyperopt = hyperopt
        self._direction = problem.direction
        self._codec = Codec.of(problem.space)
        self._suggest, self._options = self._method(problem)
        self._domain = hyperopt.Domain(_no_objective, hyperopt_space(self._codec))
        self._trials = hyperopt.Trials()
        # `refresh` would copy and filter all documents at each ask. Every one of ours is in a valid state: the list
        # that is filled and the list that is read may be the same.
        self._trials._trials = self._trials._dynamic_trials
        self._documents: dict[int, dict[str, Any]] = {}
        self._seeds = _Seeds(problem.seed)

    def _method(self, problem: SearchProblem) -> tuple[Any, dict[str, Any]]:
        """hyperopt's `suggest` and its arguments."""
        from hyperopt import tpe

        return tpe.suggest, tpe_options(problem)

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        for trial in trials:
            own = trial.number >= 0  # else of a warm start: hyperopt takes trials in the order of their numbers
            if not own and not self._codec.covers(trial.parameters):
                continue
            if trial.number not in self._documents:
                raw = self._codec.encode(trial.parameters, trial.meta.get(_KEPT) if own else None)
                self._insert(trial.number, raw)
            document = self._documents[trial.number]
            document["result"], document["state"] = self._result(trial)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        assignments = []
        for number in range(first_number, first_number + k):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._suggest([number], self._domain, self._trials, self._seeds[number], **self._options)
            raw = _raw_of(found)
            kept = self._codec.keep(raw)
            assignments.append(Assignment(self._codec.decode(raw), meta={_KEPT: kept} if kept else {}))
            self._insert(number, raw)  # as running: the next of the batch must see it
        return Answer(assignments=tuple(assignments))

    def refuse(self, number: int) -> None:
        self._seeds.refuse(number)
        del self._documents[number]
        self._trials._dynamic_trials.pop()  # the last one that was inserted

    def _insert(self, number: int, raw: Mapping[str, Raw]) -> None:
        misc = {
            "tid": number,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {name: [number] for name in raw},
            "vals": {name: [value] for name, value in raw.items()},
        }
        document = {
            "tid": number,
            "spec": None,
            "result": {"status": "new"},
            "misc": misc,
            "state": self._hyperopt.JOB_STATE_RUNNING,
            "exp_key": None,
            "owner": None,
            "version": 0,
            "book_time": None,
            "refresh_time": None,
        }
        self._documents[number] = document
        self._trials._insert_trial_docs([document])

    def _result(self, trial: HistoryTrial) -> tuple[dict[str, Any], int]:
        if not trial.state.terminal:
            return {"status": "new"}, self._hyperopt.JOB_STATE_RUNNING
        loss = loss_of(trial, self._direction)
        if loss is None:
            return {"status": "fail"}, self._hyperopt.JOB_STATE_DONE
        return {"status": "ok", "loss": loss}, self._hyperopt.JOB_STATE_DONE


class AnnealSession(TpeSession):
    """Told what has ended only: as long as nothing has, it would draw around the trials that run."""

    def _method(self, problem: SearchProblem) -> tuple[Any, dict[str, Any]]:
        import hyperopt
        from hyperopt import anneal

        def suggest(new_ids: list[int], domain: Any, trials: Any, seed: int, **options: Any) -> Any:
            ended = hyperopt.Trials(refresh=False)
            ended._trials = [each for each in trials.trials if each["state"] == hyperopt.JOB_STATE_DONE]
            return anneal.suggest(new_ids, domain, ended, seed, **options)

        return suggest, anneal_options(problem)


def anneal_options(problem: SearchProblem) -> dict[str, Any]:
    """The arguments of `anneal.suggest`."""
    settings = problem.settings
    return {
        "avg_best_idx": setting(settings, "avg_best_idx", 2.0),
        "shrink_coef": setting(settings, "shrink_coef", 0.1),
    }


def tpe_options(problem: SearchProblem) -> dict[str, Any]:
    """The arguments of `tpe.suggest`."""
    settings = problem.settings
    return {
        "prior_weight": setting(settings, "prior_weight", 1.0),
        "n_startup_jobs": int(setting(settings, "n_startup_jobs", 20)),
        "n_EI_candidates": int(setting(settings, "n_EI_candidates", 24)),
        "gamma": setting(settings, "gamma", 0.25),
        "verbose": False,
    }


class _Seeds:
    """Draw i of `default_rng(seed).integers(2**31 - 1)`, drawn in blocks: the stream does not depend on their size."""

    BLOCK = 4096

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._seed = seed
        self._generator = np.random.default_rng(seed)
        self._drawn: list[int] = []
        self._refused: tuple[int, int] = (-1, 0)  # the last number that was, and how often

    def refuse(self, number: int) -> None:
        """The next draw for this number is another one, and a stream of its own: no other number's changes."""
        self._refused = (number, self._refused[1] + 1 if self._refused[0] == number else 1)

    def __getitem__(self, number: int) -> int:
        if number == self._refused[0]:
            import numpy as np

            return int(np.random.default_rng([self._seed, *self._refused]).integers(2**31 - 1))
        while number >= len(self._drawn):
            self._drawn += self._generator.integers(2**31 - 1, size=self.BLOCK).tolist()
        return self._drawn[number]


def hyperopt_space(codec: Codec) -> dict[str, Any]:
    """The encoded space as hyperopt's user writes it."""
    return {dimension.name: _expression(dimension) for dimension in codec.free}


def _expression(dimension: Dimension) -> Any:
    from hyperopt import hp

    name = dimension.name
    if dimension.kind is Kind.CHOICE:
        return hp.choice(name, list(dimension.parameter.values))
    if dimension.kind is Kind.INDEX:
        return hp.quniform(name, -0.5, dimension.count - 0.5, 1)
    if dimension.kind is Kind.LOG:
        return hp.loguniform(name, math.log(dimension.low), math.log(dimension.high))
    return hp.uniform(name, dimension.low, dimension.high)


def _no_objective(_: Any) -> float:
    return 0.0


def _raw_of(found: Sequence[Any]) -> dict[str, Raw]:
    """The one suggested document's values, as plain Python numbers."""
    return {name: values[0].item() for name, values in found[0]["misc"]["vals"].items()}
