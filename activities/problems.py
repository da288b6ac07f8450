"""The search problem of an admitted experiment, the trials of others that it begins with, and the libraries it uses.

Asked by `admit` before an experiment is stored, and by whoever asks its algorithm afterwards. All of it follows from
the experiment's row: what others had told by then is read at the cut that was recorded, the same for ever.

A warm start that is `identical` tells the trials of the others as they are. One that is a `transfer` tells what both
spaces have and the new one allows; the rest is drawn by chance (`algorithms.steering`). Values of another objective
are on another scale and would only mislead: of such an experiment the best points become first trials instead
(Feurer, Springenberg & Hutter 2015, "Initializing Bayesian Hyperparameter Optimization via Meta-Learning").
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, zip_longest
from typing import Any

from algorithms import registry
from algorithms.space import dimensions
from evertune import spec
from evertune.domain.metrics import Objective
from evertune.domain.records import OTHER_LIBRARIES, ExperimentRecord
from evertune.domain.space import SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.errors import NotFoundError
from evertune.store import Store

WARM_START = "warm_start"  # in an experiment's context: whose trials, up to which cut
LIBRARIES = "libraries"  # the same: version by name
INDEPENDENT = "each trial is drawn by its own seed: the search goes on, but not as the libraries alone would"
ACTOR = "evertune worker"
MOST_FIRST = 10  # points of other objectives that become first trials

_TELLING = (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED)


def problem_of(record: ExperimentRecord) -> SearchProblem:
    """The search problem as it was admitted: edits of the budget must not change answers, so the manifest's counts.

    What has a column of its own in the row is taken from there.
    """
    experiment = spec.load_stored(record.manifest)
    found = spec.search_problem(experiment, record.seed, space=record.space, objective=record.objective)
    return replace(found, settings=record.settings)


def asked_problem(store: Store, record: ExperimentRecord, *, independent: bool) -> SearchProblem:
    """What the algorithm is asked about: the problem with what others add to it."""
    problem = problem_of(record)
    return replace(
        problem, initial=(*problem.initial, *first_of_others(store, record, problem)), independent=independent
    )


# ------------------------------------------------------------------------------------------------- warm start


def known_before(store: Store, record: ExperimentRecord, problem: SearchProblem) -> list[HistoryTrial]:
    """Trials of others as the algorithm is told them, with numbers below 0. Those of deleted experiments are gone."""
    found: list[HistoryTrial] = []
    for source, trials in _sources(store, record):
        if _same_objective(source.objective, record.objective):
            found += (trial for trial in trials if _has_values(trial, problem))
    if problem.warm_start == "transfer":
        found = [replace(trial, parameters=shared) for trial in found if (shared := _shared(trial, problem))]
    return [replace(trial, number=index - len(found)) for index, trial in enumerate(found)]


def first_of_others(store: Store, record: ExperimentRecord, problem: SearchProblem) -> list[Mapping[str, Value]]:
    """Points to begin with: the best ones of the sources whose objective is another, each source's in turn."""
    if problem.warm_start != "transfer":
        return []
    rankings: list[list[Mapping[str, Value]]] = []
    for source, trials in _sources(store, record):
        if not _same_objective(source.objective, record.objective):
            best = sorted(trials, key=lambda trial: _loss(trial, source.objective))
            rankings.append(
                [
                    shared
                    for trial in best
                    if math.isfinite(_loss(trial, source.objective)) and (shared := _shared(trial, problem))
                ]
            )
    most = min(MOST_FIRST, max(1, (problem.max_trials or 4 * MOST_FIRST) // 4))
    distinct = {repr(sorted(each.items())): each for each in chain(*zip_longest(*rankings)) if each is not None}
    return list(distinct.values())[:most]


def _sources(store: Store, record: ExperimentRecord) -> Iterable[tuple[ExperimentRecord, list[HistoryTrial]]]:
    for source in record.context.get(WARM_START, ()):
        try:
            other = store.experiment_by_uid(source["uid"])
            yield other, store.history(source["uid"], cut=source["cut"], first_number=source["trials"])
        except NotFoundError:
            continue


def _gone(store: Store, record: ExperimentRecord) -> list[str]:
    """The names of experiments whose trials this one began with and that were deleted since."""
    gone = []
    for source in record.context.get(WARM_START, ()):
        try:
            store.experiment_by_uid(source["uid"])
        except NotFoundError:
            gone.append(source["name"])
    return gone


def _same_objective(one: Objective, other: Objective) -> bool:
    def told(objective: Objective) -> Any:
        return objective.metric, objective.type, objective.further, objective.constraints

    return bool(told(one) == told(other))


def _has_values(trial: HistoryTrial, problem: SearchProblem) -> bool:
    values = trial.values if len(problem.all_directions) > 1 else (trial.value,)
    return trial.state in _TELLING and all(value is not None and math.isfinite(value) for value in values)


def _loss(trial: HistoryTrial, objective: Objective) -> float:
    if trial.state not in _TELLING or trial.value is None or not trial.feasible:
        return math.inf
    return -trial.value if objective.better(1.0, 0.0) else trial.value


def _shared(trial: HistoryTrial, problem: SearchProblem) -> dict[str, Value]:
    """What the new space has of a trial's parameters and allows, as values of the new space."""
    found: dict[str, Value] = {}
    for dimension in dimensions(problem.space):
        value = trial.parameters.get(dimension.name)
        if value is not None and dimension.has(value):
            found[dimension.name] = value
    return problem.space.active(found)


def sources(store: Store, experiment: spec.Experiment) -> list[dict[str, Any]]:
    """What is recorded of the experiments that this one begins with: what they have told by now.

    `activities.warm_start` has judged them; one that has told nothing yet has nothing to give.
    """
    wanted = spec.warm_start_of(experiment)
    recorded = []
    for namespace, name in wanted.experiments if wanted else ():
        try:
            other = store.experiment(namespace, name)
        except NotFoundError:  # deleted since an earlier try of this admission, whose record stands
            continue
        last = store.last_ended(other.uid)
        if last is not None and last.told_seq is not None:
            recorded.append({"uid": other.uid, "name": name, "cut": last.told_seq, "trials": other.counts.created})
    return recorded


# -------------------------------------------------------------------------------------------------- libraries


def libraries(algorithm: str) -> dict[str, str]:
    """The versions of what the algorithm's answers depend on, as they are installed here."""
    found = {}
    for name in registry.libraries(algorithm):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def changed_libraries(record: ExperimentRecord) -> str:
    """`hyperopt 0.3.0 -> 0.3.1`, of those that the experiment began with; empty when they are the same, or unknown."""
    recorded: Mapping[str, str] = record.context.get(LIBRARIES) or {}
    if not recorded:
        return ""
    here = libraries(record.algorithm)
    return ", ".join(
        f"{name} {version or 'none'} -> {here[name] or 'none'}"
        for name, version in recorded.items()
        if name in here and here[name] != version
    )


def independent_from(store: Store, uid: str) -> int | None:
    """The first request that was answered with other libraries, or without others' trials; None when none was."""
    found = [int(entry.detail["request"]) for entry in store.audit(uid) if entry.action == OTHER_LIBRARIES]
    return min(found, default=None)


def note_changes(store: Store, uid: str, request_no: int) -> int | None:
    """As `independent_from`, after a look whether it is this very request. Said once, in the experiment's audit."""
    known = independent_from(store, uid)
    if known is not None:
        return known
    record = store.experiment_by_uid(uid)
    detail = {"libraries": changed_libraries(record), "deleted": ", ".join(_gone(store, record))}
    if not any(detail.values()):
        return None
    found = {"request": request_no, **{name: text for name, text in detail.items() if text}, "then": INDEPENDENT}
    store.note(uid, key="other-libraries", actor=ACTOR, action=OTHER_LIBRARIES, detail=found, at=datetime.now(UTC))
    return independent_from(store, uid)  # perhaps another worker's word
