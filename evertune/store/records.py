"""Between rows and the plain records of `evertune.domain`: the one place that knows both.

Used by `experiments`, `requests` and `trials`. Refuses nothing: what is in the database was checked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from evertune.domain.metrics import Constraint, Further, Objective, ObjectiveType, Strategy
from evertune.domain.records import AttemptRecord, Budget, Counts, ExperimentRecord, RequestRecord, TrialRecord
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, When
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from evertune.store.models import (
    AttemptRow,
    AuditRow,
    ExperimentRow,
    LaunchRow,
    LeftoverRow,
    MarkRow,
    OriginRow,
    PointRow,
    RequestRow,
    RevisionRow,
    SeriesRow,
    StoppingRow,
    TrialRow,
    table_of,
)

EXPERIMENTS = table_of(ExperimentRow)
REQUESTS = table_of(RequestRow)
TRIALS = table_of(TrialRow)
ATTEMPTS = table_of(AttemptRow)
SERIES = table_of(SeriesRow)
POINTS = table_of(PointRow)
REVISIONS = table_of(RevisionRow)
AUDIT = table_of(AuditRow)
LAUNCHES = table_of(LaunchRow)
LEFTOVERS = table_of(LeftoverRow)
ORIGINS = table_of(OriginRow)
STOPPING = table_of(StoppingRow)
MARKS = table_of(MarkRow)

REQUEST_COLUMNS = [column for column in REQUESTS.c if column.name not in ("id", "experiment_id", "state")]

# The experiment's counter of each trial state.
COUNTER = {
    TrialState.CREATED: "pending",
    TrialState.RUNNING: "running",
    TrialState.SUCCEEDED: "succeeded",
    TrialState.FAILED: "failed",
    TrialState.EARLY_STOPPED: "early_stopped",
    TrialState.METRICS_UNAVAILABLE: "metrics_unavailable",
    TrialState.KILLED: "killed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExperiment:
    """Everything about an experiment that is fixed when it is admitted."""

    uid: str  # 32 hexadecimal digits
    namespace: str
    name: str
    workflow_id: str
    first_run_id: str  # Temporal's first execution run id: continue-as-new keeps it
    manifest: Mapping[str, Any]  # the full, defaulted Experiment
    context: Mapping[str, Any]
    algorithm: str
    settings: Mapping[str, str]
    seed: int
    objective: Objective
    space: SearchSpace
    budget: Budget
    backend: str
    home_id: str | None
    created: datetime


def counts(row: Any) -> Counts:
    return Counts(created=row.trials, **{name: getattr(row, name) for name in COUNTER.values()})


def experiment(row: Any, best: TrialRecord | None) -> ExperimentRecord:
    return ExperimentRecord(
        uid=row.uid,
        namespace=row.namespace,
        name=row.name,
        workflow_id=row.workflow_id,
        first_run_id=row.first_run_id,
        state=ExperimentState(row.state),
        reason=row.reason,
        message=row.message,
        algorithm=row.algorithm,
        settings=row.settings,
        seed=row.seed,
        objective=load_objective(row.objective),
        space=load_space(row.space),
        budget=Budget(parallel=row.parallel, max_trials=row.max_trials, max_failed=row.max_failed),
        backend=row.backend,
        home_id=row.home_id,
        revision=row.revision,
        manifest=row.manifest,
        context=row.context,
        counts=counts(row),
        best=best,
        created=row.created,
        started=row.started,
        ended=row.ended,
    )


def trial(row: Any) -> TrialRecord:
    return TrialRecord(
        number=row.number,
        name=row.name,
        state=TrialState(row.state),
        reason=row.reason,
        message=row.message,
        parameters=row.parameters,
        metrics=row.metrics or {},
        objective=row.objective,
        objective_value=row.objective_value,
        violation=row.violation,
        spread=row.spread or {},
        labels=row.labels or {},
        attempts=row.attempts,
        told_seq=row.told_seq,
        created=row.created,
        started=row.started,
        ended=row.ended,
    )


def attempt(row: Any) -> AttemptRecord:
    return AttemptRecord(
        number=row.number,
        attempt=row.attempt,
        state=AttemptState(row.state),
        reason=row.reason,
        message=row.message,
        failure=None if row.failure is None else FailureClass(row.failure),
        charged=row.charged,
        again=row.again,
        home_id=row.home_id,
        exit_code=row.exit_code,
        signal=row.signal,
        started=row.started,
        ended=row.ended,
        collected=row.collected,
        stop=row.stop or "",
        phase=row.phase or "",
    )


def request(row: Row[Any]) -> RequestRecord:
    return RequestRecord(
        request_no=row.request_no,
        k=row.k,
        revision=row.revision,
        cut=row.cut,
        first_number=row.first_number,
        committed=row.committed is not None,
        answered=row.answered,
        wait=row.wait,
        exhausted=row.exhausted,
        reason=row.reason,
    )


def dump_objective(objective: Objective) -> dict[str, Any]:
    return {
        "type": objective.type,
        "metric": objective.metric,
        "goal": objective.goal,
        "additional": list(objective.additional),
        "strategies": dict(objective.strategies),
        "further": [asdict(each) for each in objective.further],
        "constraints": [asdict(constraint) for constraint in objective.constraints],
    }


def load_objective(data: Mapping[str, Any]) -> Objective:
    return Objective(
        type=ObjectiveType(data["type"]),
        metric=data["metric"],
        goal=data["goal"],
        additional=tuple(data["additional"]),
        strategies={metric: Strategy(name) for metric, name in data["strategies"].items()},
        further=tuple(Further(each["metric"], ObjectiveType(each["type"])) for each in data.get("further", ())),
        constraints=tuple(Constraint(**each) for each in data.get("constraints", ())),
    )


def dump_space(space: SearchSpace) -> list[dict[str, Any]]:
    return [asdict(parameter) for parameter in space]


def load_space(data: list[dict[str, Any]]) -> SearchSpace:
    return SearchSpace(
        tuple(
            Parameter(
                **{
                    **entry,
                    "type": ParameterType(entry["type"]),
                    "values": tuple(entry["values"]),
                    "distribution": Distribution(entry["distribution"]),
                    "when": tuple(When(each["parameter"], tuple(each["values"])) for each in entry.get("when", ())),
                }
            )
            for entry in data
        )
    )
