"""The status of an Experiment object: how its experiment stands, and what is wrong with it. Pure, and small.

Whatever users write is cut, so that a status stays below 32 KB however large the experiment is; trials are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState
from evertune.errors import Problem

JsonDict = dict[str, Any]
Truth = Literal["True", "False", "Unknown"]

ACCEPTED = "Accepted"  # the spec was read and an experiment made of it
SYNCED = "Synced"  # the experiment is what the spec says now
STATES = (ExperimentState.RUNNING, ExperimentState.SUCCEEDED, ExperimentState.FAILED, ExperimentState.CANCELLED)

MESSAGE_CHARACTERS = 8000
REASON_CHARACTERS = 1024
ASSIGNMENTS = 64
VALUE_CHARACTERS = 128


@dataclass(frozen=True)
class Condition:
    type: str
    status: Truth
    reason: str
    message: str = ""


def accepted(reason: str = "Admitted", message: str = "") -> Condition:
    return Condition(ACCEPTED, "True", reason, message)


def admitted(record: ExperimentRecord) -> Condition:
    """With what is to be minded, a line each."""
    return accepted(message="\n".join(str(warning) for warning in record.warnings)[:MESSAGE_CHARACTERS])


def refused(reason: str, message: str) -> Condition:
    return Condition(ACCEPTED, "False", reason, message)


def waiting(reason: str, message: str) -> Condition:
    return Condition(ACCEPTED, "Unknown", reason, message)


def invalid(problems: Sequence[Problem]) -> Condition:
    """Every problem, one a line; what would not fit is counted."""
    lines = [str(problem) for problem in problems]
    text = "\n".join(lines)
    if len(text) > MESSAGE_CHARACTERS:
        kept: list[str] = []
        while lines and sum(len(line) + 1 for line in kept) + len(lines[0]) < MESSAGE_CHARACTERS - 80:
            kept.append(lines.pop(0))
        text = "\n".join([*kept, f"and {len(lines)} more: evertune validate names them all"])
    return refused("InvalidSpec", text)


def of_record(record: ExperimentRecord) -> JsonDict:
    """What the database says of the experiment, without conditions."""
    counts, limit = record.counts, record.budget.max_trials
    return {
        "state": record.state.value,
        "reason": record.reason,
        "message": record.message[:REASON_CHARACTERS],
        "experimentUid": record.uid,
        "workflowId": record.workflow_id,
        "trials": f"{counts.finished}/{limit}" if limit is not None else str(counts.finished),
        "running": counts.running,
        "succeeded": counts.succeeded,
        "earlyStopped": counts.early_stopped,
        "failed": counts.charged,
        "best": _best(record.best) if record.best is not None and record.best.feasible else None,
        "startTime": _time(record.started),
        "completionTime": _time(record.ended),
    }


def state_conditions(record: ExperimentRecord) -> list[Condition]:
    """Katib's conditions, for `kubectl wait --for=condition=Succeeded`."""
    return [
        Condition(
            state.value,
            "True" if _stands(record.state, state) else "False",
            (record.reason if _stands(record.state, state) else "") or f"Experiment{record.state}",
            record.message[:REASON_CHARACTERS] if _stands(record.state, state) else "",
        )
        for state in STATES
    ]


def _stands(now: ExperimentState, asked: ExperimentState) -> bool:
    return now is asked or (asked is ExperimentState.RUNNING and not now.terminal)


def _best(trial: TrialRecord) -> JsonDict:
    return {
        "trial": trial.name,
        "value": (trial.objective or "")[:VALUE_CHARACTERS],
        "assignments": [
            {"name": name[:VALUE_CHARACTERS], "value": str(value)[:VALUE_CHARACTERS]}
            for name, value in list(trial.parameters.items())[:ASSIGNMENTS]
        ],
    }


def patch(status: Mapping[str, Any], news: JsonDict, conditions: Sequence[Condition], generation: int) -> JsonDict:
    """A merge patch from the status there is to the one there should be; empty when it says all that already."""
    wanted = dict(news)
    merged = merge_conditions(status.get("conditions") or (), conditions, generation)
    if merged != [dict(one) for one in status.get("conditions") or ()]:
        wanted["conditions"] = merged
    return {name: value for name, value in wanted.items() if _plain(status.get(name)) != value}


def merge_conditions(
    there: Sequence[Mapping[str, Any]], new: Sequence[Condition], generation: int, now: datetime | None = None
) -> list[JsonDict]:
    """The time of a condition is that of its last change from true to false or back, as everywhere in Kubernetes."""
    stamp = _time(now or datetime.now(UTC))
    by_type: dict[str, JsonDict] = {str(one.get("type")): dict(one) for one in there}
    for condition in new:
        old = by_type.get(condition.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == condition.status else None
        by_type[condition.type] = {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message[:MESSAGE_CHARACTERS],
            "lastTransitionTime": since or stamp,
            "observedGeneration": generation,
        }
    return list(by_type.values())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
