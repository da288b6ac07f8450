"""Which trials tell a search something: Katib's, and nothing that is not a finite number."""

from __future__ import annotations

import math

import pytest

from algorithms.base import loss_of
from evertune.domain.metrics import ObjectiveType
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial

TELLING = {TrialState.SUCCEEDED, TrialState.EARLY_STOPPED}


@pytest.mark.parametrize("state", TrialState)
def test_only_finished_and_early_stopped_trials_tell_their_value(state: TrialState) -> None:
    loss = loss_of(HistoryTrial(0, {}, state, 0.25), ObjectiveType.MINIMIZE)
    assert loss == (0.25 if state in TELLING else None)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_no_number_is_no_loss(value: float | None) -> None:
    assert loss_of(HistoryTrial(0, {}, TrialState.SUCCEEDED, value), ObjectiveType.MAXIMIZE) is None


def test_what_is_maximised_is_negated() -> None:
    assert loss_of(HistoryTrial(0, {}, TrialState.SUCCEEDED, 2.0), ObjectiveType.MAXIMIZE) == -2.0
