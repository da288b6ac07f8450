"""The libraries as their own users drive them: live objects and written-out spaces, to compare our sequences with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import hyperopt
import numpy as np
import optuna
from hyperopt import hp
from optuna.trial import TrialState as OptunaState

from algorithms.space import EncodedSpace
from evertune.domain.space import Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.protocols import Answer, JsonDict
from evertune.testing.algorithms import SPACE

SEED = 11
ENCODED = EncodedSpace(SPACE)
CHOICES = {"discrete": ["0.10", "1", "16"], "categorical Ω": ["adam", "sgd", ""]}
UNITS = ("normal", "log normal", "log step", "normal step", "log int", "normal int", "log normal int")
COUNTS = {"step": 5, "int": 12, "int step": 4}

Objective = Callable[[int, Mapping[str, Value]], float | None]  # number, parameters -> value, None = failed


def decoded(suggested: Mapping[str, Any]) -> dict[str, Value]:
    """The assignment for what the library calls the parameters; choices arrive as entries of their lists."""
    point = {name: CHOICES[name].index(value) if name in CHOICES else value for name, value in suggested.items()}
    return ENCODED.decode(point)


def hyperopt_space() -> dict[str, Any]:
    dimensions = {
        "uniform": hp.uniform("uniform", -1.0, 2.5),
        "log": hp.loguniform("log", math.log(1e-5), math.log(0.1)),
        **{name: hp.uniform(name, 0.0, 1.0) for name in UNITS},
        **{name: hp.quniform(name, -0.5, count - 0.5, 1) for name, count in COUNTS.items()},
        **{name: hp.choice(name, values) for name, values in CHOICES.items()},
    }
    return {name: dimensions[name] for name in SPACE.names() if name in dimensions}


def optuna_point(trial: optuna.Trial) -> dict[str, Any]:
    suggest: dict[str, Callable[[str], Any]] = {
        "uniform": lambda name: trial.suggest_float(name, -1.0, 2.5),
        "log": lambda name: trial.suggest_float(name, 1e-5, 0.1, log=True),
        **dict.fromkeys(UNITS, lambda name: trial.suggest_float(name, 0.0, 1.0)),
        **dict.fromkeys(COUNTS, lambda name: trial.suggest_int(name, 0, COUNTS[name] - 1)),
        **dict.fromkeys(CHOICES, lambda name: trial.suggest_categorical(name, CHOICES[name])),
    }
    return {name: suggest[name](name) for name in SPACE.names() if name in suggest}


def fmin(algorithm: Callable[..., Any], trials: int, objective: Objective, sign: float = 1.0) -> list[dict[str, Value]]:
    """What hyperopt's own loop tries, one trial after the other."""
    tried: list[dict[str, Value]] = []

    def evaluate(suggested: dict[str, Any]) -> dict[str, Any]:
        tried.append(decoded(suggested))
        value = objective(len(tried) - 1, tried[-1])
        return {"status": "fail"} if value is None else {"status": "ok", "loss": sign * value}

    hyperopt.fmin(
        evaluate,
        hyperopt_space(),
        algo=algorithm,
        max_evals=trials,
        rstate=np.random.default_rng(SEED),
        show_progressbar=False,
        verbose=False,
        return_argmin=False,
    )
    return tried


def optimize(
    trials: int, objective: Objective, direction: Literal["minimize", "maximize"] = "minimize", **options: int
) -> list[dict[str, Value]]:
    """What Optuna's own loop tries."""
    tried: list[dict[str, Value]] = []

    def evaluate(trial: optuna.Trial) -> float:
        tried.append(decoded(optuna_point(trial)))
        value = objective(trial.number, tried[-1])
        if value is None:
            raise ArithmeticError
        return value

    study(direction, **options).optimize(evaluate, n_trials=trials, catch=(ArithmeticError,))
    return tried


def study(direction: Literal["minimize", "maximize"] = "minimize", **options: Any) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    sampler = optuna.samplers.TPESampler(seed=SEED, multivariate=True, constant_liar=True, **options)
    return optuna.create_study(direction=direction, sampler=sampler)


class LiveHyperopt:
    """Hyperopt's live `Trials` for several workers: each suggestion stays in it and is updated when its trial ends."""

    def __init__(self, algorithm: Callable[..., Any]) -> None:
        self._algorithm = algorithm
        self._domain = hyperopt.Domain(lambda _: 0.0, hyperopt_space())
        self._trials = hyperopt.Trials()
        self._rng = np.random.default_rng(SEED)

    def __call__(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        for trial, document in zip(history, self._trials.trials, strict=True):
            document["state"] = hyperopt.JOB_STATE_RUNNING
            if trial.state is not TrialState.RUNNING:
                document["state"] = hyperopt.JOB_STATE_DONE
                told = trial.state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED) and trial.value is not None
                document["result"] = {"status": "ok", "loss": trial.value} if told else {"status": "fail"}
        self._trials.refresh()
        given = []
        for number in range(first_number, first_number + k):
            documents = self._algorithm([number], self._domain, self._trials, self._rng.integers(2**31 - 1))
            self._trials.insert_trial_docs(documents)
            self._trials.refresh()
            config = {name: value[0] for name, value in documents[0]["misc"]["vals"].items()}
            given.append(Assignment(decoded(hyperopt.space_eval(hyperopt_space(), config))))
        return Answer(assignments=tuple(given))


class LiveOptuna:
    """An Optuna study for several workers, by ask and tell."""

    def __init__(self) -> None:
        self._study = study()
        self._open: set[int] = set()

    def __call__(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        for number in sorted(self._open):
            trial = history[number]
            if trial.state is TrialState.RUNNING:
                continue
            self._open.remove(number)
            told = trial.state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED) and trial.value is not None
            if told:
                self._study.tell(number, trial.value)
            else:
                self._study.tell(number, state=OptunaState.FAIL)
        asked = [self._study.ask() for _ in range(k)]
        self._open |= {trial.number for trial in asked}
        return Answer(assignments=tuple(Assignment(decoded(optuna_point(trial))) for trial in asked))
