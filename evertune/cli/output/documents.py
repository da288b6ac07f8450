"""Records as the documents that `-o json|yaml|csv` print. Their keys are promises: other programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evertune.cli.output.numbers import number_or_text, utc
from evertune.domain.records import ExperimentRecord, TrialRecord
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
        "backend": record.backend,
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
    }


def trial_document(trial: TrialRecord, space: SearchSpace) -> JsonDict:
    return {
        "number": trial.number,
        "name": trial.name,
        "state": str(trial.state),
        "reason": reason_text(trial.reason, trial.message if " " not in trial.reason else ""),
        "parameters": space.typed(trial.parameters),
        "metrics": metrics_document(trial),
        "objective": objective_value(trial),
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
