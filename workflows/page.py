"""What the Temporal UI shows of an experiment: search attributes and the details page. Pure functions of the state."""

from __future__ import annotations

from typing import Any

from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from workflows.state import RunState

STATE = SearchAttributeKey.for_keyword("EvertuneState")
ALGORITHM = SearchAttributeKey.for_keyword("EvertuneAlgorithm")
BEST = SearchAttributeKey.for_float("EvertuneBest")
FINISHED = SearchAttributeKey.for_int("EvertuneFinished")


def search_attributes(state: RunState) -> list[SearchAttributeUpdate[Any]]:
    updates: list[SearchAttributeUpdate[Any]] = [
        STATE.value_set(state.state.value),
        ALGORITHM.value_set(state.algorithm),
        FINISHED.value_set(state.finished),
    ]
    if state.best is not None and state.best.value is not None:
        updates.append(BEST.value_set(state.best.value))
    return updates


def milestone(state: RunState) -> tuple[object, ...]:
    """Changes when the search attributes are worth a history event: state, best, each twentieth of the budget."""
    every = max(1, (state.limits.max_trials or 200) // 20)
    return (state.state, state.best.number if state.best else None, state.finished // every)


def details(state: RunState) -> str:
    """Markdown for the workflow's current details."""
    limits = state.limits
    budget = f" of {limits.max_trials}" if limits.max_trials is not None else ""
    rows = [
        ("State", f"{state.state}{': ' + state.reason if state.reason else ''}"),
        ("Trials", f"{state.finished} finished{budget}, {len(state.in_flight)} running"),
        *((name, str(count)) for name, count in sorted(state.counts.items())),
        ("Search", f"{state.algorithm}, {limits.parallel} parallel"),
        ("Objective", f"{'maximize' if limits.maximize else 'minimize'} {limits.metric}"),
    ]
    if state.best is not None:
        infeasible = ", which is not feasible: no trial is yet" if state.best.violation else ""
        rows.append(("Best", f"{state.best.text} at trial {state.best.number}{infeasible}"))
    if limits.goal is not None:
        rows.append(("Goal", f"{limits.goal:g}"))
    if state.bad_signals:
        rows.append(("Signals that could not be read", str(state.bad_signals)))
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    return f"### {state.namespace}/{state.name}\n\n| | |\n|---|---|\n{table}\n\n`evertune get {state.name}`"
