"""Optuna without its loop: our encoding as distributions, a study that follows our history, and its random numbers.

Used by `multivariate_tpe`. Optuna is imported with this module, so import it where an algorithm is made, never above.
It leans on private parts of Optuna 5 (the storage's list of trials, the samplers' random states), because the public
way validates and copies each trial: 0.1 ms where this takes 10 us. The tests of exactness are the alarm for upgrades.
"""

from __future__ import annotations

import base64
import math
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from algorithms.results import Result, result_of
from algorithms.space import Choices, Dimension, EncodedSpace, Line, Point, Steps
from evertune.domain.metrics import ObjectiveType
from evertune.domain.trial import HistoryTrial
from evertune.protocols import JsonDict

_STATES = {Result.RUNNING: TrialState.RUNNING, Result.COMPLETE: TrialState.COMPLETE, Result.FAILED: TrialState.FAIL}
_SOME_TIME = datetime(2000, 1, 1)  # samplers do not look at the time


class FollowedStudy:
    """A study whose trials are our history. Its own proposals last as long as the ask that made them."""

    def __init__(self, space: EncodedSpace, direction: ObjectiveType, sampler: BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._choices = {d.name: d for d in space.dimensions if isinstance(d, Choices)}
        self._distributions = {dimension.name: _distribution(dimension) for dimension in space.dimensions}
        self._storage = _Storage()
        self._study = optuna.create_study(
            study_name="evertune", storage=self._storage, sampler=sampler, direction=direction.value
        )

    def tell(self, trial: HistoryTrial) -> None:
        """Put a trial of our history where it belongs; one that is there is replaced."""
        result, value = result_of(trial)
        point = self._space.encode(trial)
        choices = {name: dimension.values[int(point[name])] for name, dimension in self._choices.items()}
        self._storage.put(
            FrozenTrial(
                number=trial.number,
                trial_id=trial.number,
                state=_STATES[result],
                value=None if math.isnan(value) else value,
                params={**point, **choices},
                distributions=self._distributions,
                datetime_start=_SOME_TIME,
                datetime_complete=None if result is Result.RUNNING else _SOME_TIME,
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
        )

    def ask(self) -> Point:
        """The internal values of the next trial, which counts as running until `forget`."""
        suggested = self._study.ask(fixed_distributions=self._distributions).params
        return {
            name: self._choices[name].encode(value) if name in self._choices else value
            for name, value in suggested.items()
        }

    def forget(self, first_number: int) -> None:
        """Drop what was proposed: trials from `first_number` on."""
        self._storage.truncate(first_number)


class _Storage(InMemoryStorage):
    """In memory, with trials that can be replaced and taken back. The study is number 0, trial n has the id n."""

    def put(self, trial: FrozenTrial) -> None:
        trials = self._studies[0].trials
        if trial.number < len(trials):
            trials[trial.number] = trial
            return
        assert trial.number == len(trials), "trial numbers are dense, and told in order"
        trials.append(trial)
        self._trial_id_to_study_id_and_number[trial.number] = (0, trial.number)
        self._max_trial_id = trial.number

    def truncate(self, length: int) -> None:
        trials = self._studies[0].trials
        for number in range(length, len(trials)):
            del self._trial_id_to_study_id_and_number[number]
        del trials[length:]
        self._max_trial_id = length - 1


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Line):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension, Steps):
        return IntDistribution(0, dimension.count - 1)
    return FloatDistribution(0.0, 1.0)


def pack(random: np.random.RandomState) -> JsonDict:
    """The state of a generator as JSON: 3.4 kB."""
    state: dict[str, Any] = random.get_state(legacy=False)
    return {
        "key": base64.b64encode(state["state"]["key"].astype("<u4").tobytes()).decode("ascii"),
        "pos": int(state["state"]["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def unpack(packed: JsonDict, random: np.random.RandomState) -> None:
    key = np.frombuffer(base64.b64decode(packed["key"]), "<u4")
    random.set_state(("MT19937", key, packed["pos"], packed["has_gauss"], packed["gauss"]))
