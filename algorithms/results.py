"""What a trial of the history means to a search: a value, a failure, or still on its way.

As in Katib, a trial that was stopped early counts with the value it had, and one that was killed or has no objective
counts as failed. Unlike Katib, the search is told of failed and running trials.
"""

from __future__ import annotations

import math
from enum import Enum, auto

from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial


class Result(Enum):
    RUNNING = auto()
    COMPLETE = auto()
    FAILED = auto()


def result_of(trial: HistoryTrial) -> tuple[Result, float]:
    """The class of a trial, and its raw objective; NaN unless it is complete."""
    if not trial.state.terminal:
        return Result.RUNNING, math.nan
    if trial.state not in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED):
        return Result.FAILED, math.nan
    if trial.value is None or not math.isfinite(trial.value):
        return Result.FAILED, math.nan
    return Result.COMPLETE, trial.value
