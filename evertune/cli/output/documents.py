"""Records as the documents that `-o json|yaml|csv` print. Their keys are promises: other programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evertune.cli.output.numbers import number_or_text, utc
from evertune.domain.metrics import Objective
from evertune.domain.pareto import Front
from evertune.domain.records import CHOSEN, ExperimentRecord, TrialRecord
from evertune.domain.space import SearchSpace

JsonDict = dict[str, Any]


def experiment_document(record: ExperimentRecord) -> JsonDict:
    counts = record.counts
    return {
        "name": record.name,
        "namespace": record.namespace,
        "state": str(record.state),
        "reason": reason_text(record.reason, record.message),
        "algorithm": record.algorithm,
        **({"algorithmReason": chosen["why"]} if (chosen := record.context.get(CHOSEN)) else {}),
        "backend": record.backend,
        "warnings": [
            {"path": warning.path, "message": warning.message, "hint": warning.hint} for warning in record.warnings
        ],
        "trials": {
            "created": counts.created,
            "running": counts.running,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "earlyStopped": counts.early_stopped,
            "metricsUnavailable": counts.metrics_unavailable,
            "killed": counts.killed,
        },
        "best": best_document(record),
        "started": utc(record.started),
        "ended": utc(record.ended),
    }


def best_document(record: ExperimentRecord) -> JsonDict | None:
    best = record.best
    if best is None:
        return None
    return {
        "trial": best.number,
        "parameters": record.space.typed(best.parameters),
        "metrics": metrics_document(best),
        "objective": {"name": record.objective.metric, "value": objective_value(best)},
        **_beyond(best, record.objective),
    }


def front_document(record: ExperimentRecord, found: Front, trials: Mapping[int, TrialRecord]) -> JsonDict:
    """The best trial of the first objective, and beside it the whole front: `hypervolume` up to its `reference`."""
    names = record.objective.objectives
    return {
        **(best_document(record) or {}),
        "front": [
            {
                "trial": number,
                "parameters": record.space.typed(trials[number].parameters),
                "metrics": metrics_document(trials[number]),
                "objectives": dict(zip(names, values, strict=True)),
            }
            for number, values in zip(found.numbers, found.values, strict=True)
        ],
        "hypervolume": {
            "value": found.hypervolume,
            "reference": dict(zip(names, found.reference, strict=True)) if found.reference else None,
        },
    }


def _beyond(trial: TrialRecord, objective: Objective | None) -> JsonDict:
    """What only experiments with constraints, several objectives or replicates have."""
    more: JsonDict = {}
    if objective is not None and objective.further:
        more["objectives"] = dict(zip(objective.objectives, objective.values(trial.metrics), strict=True))
    if objective is not None and objective.constraints:
        more["feasible"] = trial.feasible if trial.objective is not None else None
    if trial.spread:
        more["std"] = dict(trial.spread)
    return more


def trial_document(trial: TrialRecord, space: SearchSpace, objective: Objective | None = None) -> JsonDict:
    """`objective`: the experiment's, for what follows from it."""
    return {
        "number": trial.number,
        "name": trial.name,
        "state": str(trial.state),
        "reason": reason_text(trial.reason, trial.message if " " not in trial.reason else ""),
        "parameters": space.typed(trial.parameters),
        "metrics": metrics_document(trial),
        "objective": objective_value(trial),
        **_beyond(trial, objective),
        "attempts": trial.attempts,
        "started": utc(trial.started),
        "ended": utc(trial.ended),
    }


def reason_text(reason: str, message: str) -> str:
    """Katib's word first, for programs; the sentence behind it, for people."""
    first = message.partition("; last lines:")[0].partition("\n")[0]
    return f"{reason}: {first}" if reason and first else reason or first


def metrics_document(trial: TrialRecord) -> JsonDict:
    return {name: number_or_text(text) for name, text in trial.metrics.items()}


def objective_value(trial: TrialRecord) -> float | str | None:
    return trial.objective_value if trial.objective_value is not None else trial.objective


def flattened(document: Mapping[str, Any], prefix: str = "") -> JsonDict:
    """One level, for CSV: `best.objective.value`."""
    flat: JsonDict = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def rows_of(documents: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[JsonDict]]:
    """Flat rows and the columns of all of them, in the order in which they first appear."""
    rows = [flattened(document) for document in documents]
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    nested = {name.rpartition(".")[0] for name in columns}
    return [name for name in columns if name not in nested], rows
