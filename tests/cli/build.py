"""Records as the store would return them, for screens of known content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from evertune.cli.follow.snapshot import Ended, RunningTrial, Snapshot
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.records import AuditRecord, Budget, Counts, ExperimentRecord, TrialRecord
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, Value
from evertune.domain.states import ExperimentState, TrialState

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

SPACE = SearchSpace(
    (
        Parameter(name="C", type=ParameterType.DOUBLE, low=0.01, high=1000, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="gamma", type=ParameterType.DOUBLE, low=1e-5, high=1, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="kernel", type=ParameterType.CATEGORICAL, values=("rbf", "poly")),
        Parameter(name="batch", type=ParameterType.DISCRETE, values=("32", "0.5")),
    )
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def trial(
    number: int,
    state: TrialState = TrialState.SUCCEEDED,
    value: float | None = None,
    *,
    text: str | None = None,
    reason: str = "",
    message: str = "",
    parameters: Mapping[str, Value] | None = None,
    started: float = 0,
    ended: float | None = None,
    attempts: int = 1,
) -> TrialRecord:
    objective = text if text is not None else None if value is None else repr(value)
    return TrialRecord(
        number=number,
        name=f"digits-{number:08d}",
        state=state,
        reason=reason or str(state),
        message=message,
        parameters=parameters
        if parameters is not None
        else {"C": 12.4312, "gamma": 0.0010634, "kernel": "rbf", "batch": "32"},
        metrics={"accuracy": objective} if objective is not None else {},
        objective=objective,
        objective_value=value,
        attempts=attempts,
        told_seq=number + 1 if state.terminal else None,
        created=START,
        started=at(started),
        ended=at(ended) if ended is not None else None,
    )


def experiment(state: ExperimentState = ExperimentState.RUNNING, **changes: Any) -> ExperimentRecord:
    record = ExperimentRecord(
        uid="0" * 32,
        namespace="default",
        name="digits",
        workflow_id="experiment/default/digits",
        state=state,
        algorithm="tpe",
        seed=20,
        objective=Objective(ObjectiveType.MAXIMIZE, "accuracy", goal=0.985),
        space=SPACE,
        budget=Budget(parallel=4, max_trials=24, max_failed=3),
        backend="local",
        home_id="1" * 32,
        manifest={"metadata": {"annotations": {"evertune.io/baseline": "0.9611"}}},
        context={"working_dir": "/home/mira/digits", "environment": {"PATH": "/venv/bin:/usr/bin"}},
        counts=Counts(created=19, running=4, succeeded=12, failed=2, early_stopped=1),
        best=trial(11, value=0.9778, ended=32),
        created=START,
        started=START,
    )
    return dataclasses.replace(record, **changes)


def snapshot(
    record: ExperimentRecord | None = None,
    *,
    now: float = 41,
    running: int = 4,
    events: Sequence[Ended] | None = None,
    audit: Sequence[AuditRecord] = (),
    **changes: Any,
) -> Snapshot:
    best = trial(11, value=0.9778, ended=32)
    made = Snapshot(
        record=record or experiment(),
        at=at(now),
        running=[
            RunningTrial(trial(16 + index, TrialState.RUNNING, started=now - 9 + index), 8 - index, f"0.96{index}1")
            for index in range(running)
        ],
        events=events
        if events is not None
        else [
            Ended(best, best, new_best=True, before=0.9694),
            Ended(
                trial(
                    13,
                    TrialState.EARLY_STOPPED,
                    0.6111,
                    reason="EarlyStopped: stopped at step 3: below the median 0.8917",
                    ended=35,
                ),
                best,
            ),
            Ended(trial(14, TrialState.FAILED, reason="exit 1: ValueError: degree must be at least 1", ended=38), best),
            Ended(trial(15, value=0.9667, ended=40), best),
        ],
        curve=[0.25, 0.5, 0.5, 0.8, 0.8, 0.9, 0.9694, 0.9778],
        eta_s=25,
        audit=audit,
        url="http://127.0.0.1:8233/namespaces/default/workflows/experiment%2Fdefault%2Fdigits",
        title="evertune run digits.yaml",
        you="mira",
    )
    return dataclasses.replace(made, **changes)
