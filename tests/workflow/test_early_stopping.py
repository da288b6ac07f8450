"""Early stopping from a trial's report to its end, with real processes, a real Temporal and every path of reports."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import evertune.contracts as c
from activities.stop import Stopping
from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState, TrialState
from tests.workflow.harness import House, manifest, until

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "examples/katib"

# Trial 0 is good and ends; the others are bad and would run for a minute. What SIGTERM did to them is in a file.
BAD = (
    'if [ "$EVERTUNE_TRIAL_NUMBER" = 0 ]; then for v in 1 2 9; do echo objective=$v; done; exit; fi; '
    "trap 'date +%s.%N > $EVERTUNE_TRIAL_NUMBER.stopped; exit 143' TERM; "
    "for v in 3 3 3; do echo objective=$v; done; date +%s.%N > $EVERTUNE_TRIAL_NUMBER.reported; "
    "for i in $(seq 600); do sleep 0.1; done"
)


def stopping(name: str, **settings: str) -> dict[str, Any]:
    return {
        "algorithmName": name,
        "algorithmSettings": [{"name": key, "value": value} for key, value in settings.items()],
    }


def by_state(house: House, record: ExperimentRecord, state: TrialState) -> list[TrialRecord]:
    return house.store.trials(record.uid, states={state})


async def test_a_trial_below_katibs_average_is_stopped_and_counts_as_finished_but_not_as_failed(house: House) -> None:
    rule = stopping("medianstop", min_trials_required="1", start_step="3")
    document = manifest("median", BAD, earlyStopping=rule, parallelTrialCount=1, maxTrialCount=3, maxFailedTrialCount=1)
    record = await house.ended(await house.submit(document), 60)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentMaxTrialsReached")
    counts = record.counts
    assert (counts.succeeded, counts.early_stopped, counts.failed, counts.killed) == (1, 2, 0, 0)
    stopped = by_state(house, record, TrialState.EARLY_STOPPED)
    assert [trial.number for trial in stopped] == [1, 2]
    for trial in stopped:
        sentence = "medianstop: best objective 3 at step 3 is worse than 4, the mean of 1 earlier trial"
        assert trial.reason == f"EarlyStopped: {sentence}"
        assert (trial.objective, trial.metrics) == ("3", {"objective": "3"}), "it keeps what it had reached"
        assert [attempt.stop for attempt in house.store.attempts(record.uid, trial.number)] == [trial.reason]
        reported, ended = (
            float((house.workdir / f"{trial.number}.{what}").read_text()) for what in ("reported", "stopped")
        )
        assert ended - reported < 15, "SIGTERM reaches it soon after the report that decided"
    assert [(each.number, each.step) for each in house.store.stop_decisions(record.uid)] == [(1, 3), (2, 3)]
    noted = [entry for entry in house.store.audit(record.uid) if entry.action == "early-stop"]
    assert [(entry.actor, entry.detail["trial"]) for entry in noted] == [("medianstop", 1), ("medianstop", 2)]
