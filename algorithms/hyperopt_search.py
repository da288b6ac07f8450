"""random and tpe: hyperopt's own search, asked trial by trial and rebuilt anywhere.

Stateless: the seed of trial i is the i-th draw of `default_rng(seed).integers(2**31 - 1)`, which is what
`fmin(rstate=default_rng(seed))` draws, so a sequential experiment gives fmin's very sequence. Running trials are told
as running: hyperopt gives them infinite loss, its built-in constant liar, so that parallel asks spread out (Katib
ignores them and gets identical points).

TPE: Bergstra, Bardenet, Bengio & Kégl 2011, "Algorithms for Hyper-Parameter Optimization", section 4. Departures from
Katib: parameters are encoded by `algorithms.space`, `n_startup_jobs` is hyperopt's 20 and not the size of the request.
Pinned here and nowhere else: `Trials._insert_trial_docs`, which skips a slow validation of documents that are ours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

from algorithms.base import SessionAlgorithm, loss_of, setting
from algorithms.settings import problems_of
from algorithms.space import Codec, Dimension, Kind, Raw
from evertune.domain.space import SearchProblem
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict

_KEPT = "raw"  # in a trial's meta: raw values that its parameters cannot give back exactly


class _Hyperopt(SessionAlgorithm):
    name: ClassVar[str]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return problems_of(cls.name, problem)


class Random(_Hyperopt):
    name: ClassVar[str] = "random"
    reads_history: ClassVar[bool] = False

    def session(self) -> HyperoptSession:
        from hyperopt import rand

        return HyperoptSession(self.problem, rand.suggest, {})


class Tpe(_Hyperopt):
    name: ClassVar[str] = "tpe"
    reads_history: ClassVar[bool] = True

    def session(self) -> HyperoptSession:
        from hyperopt import tpe

        settings = self.problem.settings
        return HyperoptSession(
            self.problem,
            tpe.suggest,
            {
                "prior_weight": setting(settings, "prior_weight", 1.0),
                "n_startup_jobs": int(setting(settings, "n_startup_jobs", 20)),
                "n_EI_candidates": int(setting(settings, "n_EI_candidates", 24)),
                "gamma": setting(settings, "gamma", 0.25),
                "verbose": False,
            },
        )


class HyperoptSession:
    """A `Trials` object that holds one document per trial, updated in place as trials end."""

    def __init__(self, problem: SearchProblem, suggest: Callable[..., Any], options: dict[str, Any]) -> None:
        import hyperopt

        self._hyperopt = hyperopt
        self._problem = problem
        self._codec = Codec.of(problem.space)
        self._suggest, self._options = suggest, options
        self._domain = hyperopt.Domain(_no_objective, hyperopt_space(self._codec))
        self._trials = hyperopt.Trials()
        self._documents: dict[int, dict[str, Any]] = {}
        self._seeds = _Seeds(problem.seed)

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        new = []
        for trial in trials:
            result, state = self._result(trial)
            if (known := self._documents.get(trial.number)) is not None:
                known["result"], known["state"] = result, state
                continue
            document = self._document(trial, result, state)
            self._documents[trial.number] = document
            new.append(document)
        self._insert(new)

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        if not self._codec.free:
            return Answer(assignments=(Assignment(self._codec.decode({})),) * k)
        assignments = []
        asked: list[dict[str, Any]] = []
        for number in range(first_number, first_number + k):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._suggest([number], self._domain, self._trials, self._seeds[number], **self._options)
            raw: dict[str, Raw] = {name: _plain(values[0]) for name, values in found[0]["misc"]["vals"].items()}
            kept = self._codec.keep(raw)
            assignments.append(Assignment(self._codec.decode(raw), meta={_KEPT: kept} if kept else {}))
            # The next of the batch must see this one as running.
            found[0]["state"], found[0]["result"] = self._hyperopt.JOB_STATE_RUNNING, {"status": "new"}
            asked += found
            self._insert(found)
        self._forget(asked)
        return Answer(assignments=tuple(assignments))

    def _insert(self, documents: list[dict[str, Any]]) -> None:
        if documents:
            self._trials._insert_trial_docs(documents)
        self._trials.refresh()

    def _forget(self, documents: list[dict[str, Any]]) -> None:
        """Until the database has them, asked trials do not exist: the same ask may come again."""
        gone = {id(document) for document in documents}
        kept = [document for document in self._trials._dynamic_trials if id(document) not in gone]
        self._trials._dynamic_trials = kept
        self._trials.refresh()

    def _result(self, trial: HistoryTrial) -> tuple[dict[str, Any], int]:
        if trial.state in (TrialState.CREATED, TrialState.RUNNING):
            return {"status": "new"}, self._hyperopt.JOB_STATE_RUNNING
        loss = loss_of(trial, self._problem.direction)
        if loss is None:
            return {"status": "fail"}, self._hyperopt.JOB_STATE_DONE
        return {"status": "ok", "loss": loss}, self._hyperopt.JOB_STATE_DONE

    def _document(self, trial: HistoryTrial, result: dict[str, Any], state: int) -> dict[str, Any]:
        raw = self._codec.encode(trial.parameters, trial.meta.get(_KEPT))
        misc = {
            "tid": trial.number,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {name: [trial.number] for name in raw},
            "vals": {name: [value] for name, value in raw.items()},
        }
        return {
            "tid": trial.number,
            "spec": None,
            "result": result,
            "misc": misc,
            "state": state,
            "exp_key": None,
            "owner": None,
            "version": 0,
            "book_time": None,
            "refresh_time": None,
        }


class _Seeds:
    """Draw i of `default_rng(seed).integers(2**31 - 1)`, drawn in blocks: the stream does not depend on their size."""

    BLOCK = 4096

    def __init__(self, seed: int) -> None:
        import numpy as np

        self._generator = np.random.default_rng(seed)
        self._drawn: list[int] = []

    def __getitem__(self, number: int) -> int:
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


def _plain(value: Any) -> Raw:
    number: Raw = value.item() if hasattr(value, "item") else value
    return number
