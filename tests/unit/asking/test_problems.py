"""What an experiment's row says to its algorithm: features, trials of others, and the libraries it began with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from activities import problems
from activities.asks import AskJob, Asks
from activities.replay import verify_replay
from evertune import spec
from evertune.domain.metrics import Constraint, Further, Objective, ObjectiveType
from evertune.domain.records import OTHER_LIBRARIES, ExperimentRecord
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.store import Store
from evertune.testing.store.making import create, finish
from tests.unit.asking.driving import GRID, SPACE, Drive, cold, new_experiment, warm

LOSS = Objective(ObjectiveType.MINIMIZE, "loss")
PROBLEM = SearchProblem(space=SPACE, direction=ObjectiveType.MINIMIZE, seed=1)
FEATURES = {
    "parameterConstraints": ["layers >= 2"],
    "initialTrials": [{"layers": 8, "optimizer": "sgd"}],
    "onDuplicate": "resample",
    "onFailure": "worst",
    "maxTrialCount": 20,
    "parallelTrialCount": 2,
}


def started(store: Store, algorithm: str = "tpe", space: SearchSpace = SPACE, **changes: Any) -> ExperimentRecord:
    settings = {"n_startup_jobs": "4"} if algorithm == "tpe" else {}
    given = {"algorithm": algorithm, "seed": 7, "settings": settings, "space": space, "objective": LOSS, **changes}
    return create(store, **given)


async def a_source(store: Store, seed: int = 1, objective: Objective = LOSS) -> ExperimentRecord:
    record = started(store, "random", seed=seed, objective=objective)
    await Drive(store, record.uid).run(cold(store), 8, 2)
    return record


def begun_with(store: Store, *sources: ExperimentRecord) -> list[dict[str, Any]]:
    document = {
        "metadata": {"name": "new", "namespace": "default"},
        "spec": {"warmStart": {"from": [f"{source.namespace}/{source.name}" for source in sources]}},
    }
    return problems.sources(store, spec.load_stored(document))


def begins_with(store: Store, mode: str, *sources: ExperimentRecord, **changes: Any) -> ExperimentRecord:
    names = [f"{source.namespace}/{source.name}" for source in sources]
    manifest = {"spec": {"warmStart": {"from": names, "mode": mode}}}
    context = {problems.WARM_START: begun_with(store, *sources)}
    return started(store, manifest=manifest, context=context, **changes)


def test_the_admitted_manifest_fills_the_problem(store: Store) -> None:
    objective = replace(LOSS, further=(Further("size", ObjectiveType.MAXIMIZE),), constraints=(Constraint("ms", le=2),))
    problem = problems.problem_of(started(store, manifest={"spec": FEATURES}, objective=objective))
    assert problem.directions == (ObjectiveType.MINIMIZE, ObjectiveType.MAXIMIZE)
    assert (problem.constraints, problem.max_trials, problem.parallel) == (1, 20, 2)
    assert problem.parameter_constraints == ("layers >= 2",)
    assert problem.initial == ({"layers": 8, "optimizer": "sgd"},)
    assert (problem.on_duplicate, problem.on_failure) == ("resample", "worst")
    assert not problem.independent


@pytest.mark.parametrize("algorithm", ["random", "tpe", "multivariate-tpe", "grid"])
async def test_kept_and_rebuilt_steered_sessions_are_one_sequence_and_are_verified(
    store: Store, algorithm: str
) -> None:
    space = GRID if algorithm == "grid" else SPACE
    one, other = (Drive(store, started(store, algorithm, space, manifest={"spec": FEATURES}).uid) for _ in range(2))
    kept = await one.run(warm(store), 18, 3)
    assert kept == await other.run(cold(store), 18, 3)
    assert kept[0]["layers"] == 8
    assert all(int(each["layers"]) >= 2 for each in kept)
    replay = verify_replay(store, one.uid)
    assert replay.identical, str(replay.divergence)
    assert replay.trials == 18


async def test_a_retried_ask_of_a_steered_session_gives_the_same(store: Store) -> None:
    drive = Drive(store, started(store, manifest={"spec": FEATURES}).uid)
    ask = warm(store)
    await drive.run(ask, 9, 3)
    job = drive.open(2)
    assert await ask(job) == await ask(job) == await cold(store)(job)


# ------------------------------------------------------------------------------------------------- warm start


async def test_identical_trials_are_told_as_they_were_at_the_cut(store: Store) -> None:
    source = await a_source(store)
    record = begins_with(store, "identical", source)
    known = problems.known_before(store, record, problems.problem_of(record))
    own = [trial for trial in store.trials(source.uid) if trial.objective_value is not None]
    assert [trial.number for trial in known] == list(range(-len(own), 0))
    assert [(trial.parameters, trial.value) for trial in known] == [
        (trial.parameters, trial.objective_value) for trial in own
    ]
    finish(store, source.uid, Drive(store, source.uid).running()[0], -5.0)
    assert problems.known_before(store, record, problems.problem_of(record)) == known


@pytest.mark.parametrize("mode", ["identical", "transfer"])
async def test_a_warm_start_is_one_sequence_kept_or_rebuilt_and_verified(store: Store, mode: str) -> None:
    first, second = await a_source(store, 1), await a_source(store, 2)
    one, other = (Drive(store, begins_with(store, mode, first, second).uid) for _ in range(2))
    plain = Drive(store, started(store).uid)
    kept = await one.run(warm(store), 12, 3)
    assert kept == await other.run(cold(store), 12, 3)
    assert kept != await plain.run(warm(store), 12, 3)
    assert verify_replay(store, one.uid).identical


async def test_a_transfer_takes_what_both_have_and_the_new_space_allows(store: Store) -> None:
    source = await a_source(store)
    layers, optimizer = SPACE.parameters[2], SPACE.parameters[3]
    space = SearchSpace((replace(layers, high=4.0), replace(optimizer, name="method")))
    record = begins_with(store, "transfer", source, space=space)
    known = problems.known_before(store, record, problems.problem_of(record))
    expected = [
        {"layers": trial.parameters["layers"]}
        for trial in store.trials(source.uid)
        if trial.objective_value is not None and int(trial.parameters["layers"]) <= 4
    ]
    assert [trial.parameters for trial in known] == expected
    assert len(await Drive(store, record.uid).run(warm(store), 8, 2)) == 8


async def test_the_best_points_of_another_objective_are_tried_first(store: Store) -> None:
    source = await a_source(store, objective=Objective(ObjectiveType.MAXIMIZE, "accuracy"))
    record = begins_with(store, "transfer", source)
    assert problems.known_before(store, record, problems.problem_of(record)) == []
    drive = Drive(store, record.uid)
    await drive.run(warm(store), 12, 2)
    ranked = sorted(
        (trial for trial in store.trials(source.uid) if trial.objective_value is not None),
        key=lambda trial: -float(trial.objective_value or 0),
    )
    most = min(problems.MOST_FIRST, len(ranked))
    assert drive.parameters()[:most] == [trial.parameters for trial in ranked[:most]]
    assert verify_replay(store, drive.uid).identical


async def test_a_deleted_source_ends_no_experiment(store: Store) -> None:
    source = await a_source(store)
    drive = Drive(store, begins_with(store, "identical", source).uid)
    await drive.run(warm(store), 6, 2)
    store.delete_experiment(source.uid)
    assert len(await drive.run(cold(store), 10, 2)) == 10
    (entry,) = [entry for entry in store.audit(drive.uid) if entry.action == OTHER_LIBRARIES]
    assert entry.detail["deleted"] == source.name


# -------------------------------------------------------------------------------------------------- libraries


def test_the_versions_of_what_an_algorithm_uses_are_known() -> None:
    assert set(problems.libraries("tpe")) == {"hyperopt", "numpy", "scipy"}
    assert all(problems.libraries("tpe").values())
    assert problems.libraries("grid") == {}


async def test_other_libraries_are_said_once_and_the_search_goes_on(store: Store) -> None:
    record = started(store, context={problems.LIBRARIES: {**problems.libraries("tpe"), "hyperopt": "0.0.1"}})
    drive = Drive(store, record.uid)
    await drive.run(warm(store), 6, 2)
    await drive.run(cold(store), 9, 2)
    (entry,) = [entry for entry in store.audit(record.uid) if entry.action == OTHER_LIBRARIES]
    assert entry.detail["request"] == 0
    assert entry.detail["libraries"].startswith("hyperopt 0.0.1 -> ")
    asks = Asks(store)
    asks.answer(AskJob(record.uid, drive.requests, 1, 9, 0))
    ((_, _, independent),) = asks._algorithms
    assert independent


async def test_a_difference_under_other_libraries_is_no_evidence(store: Store) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    await drive.run(warm(store), 4, 1)
    versions = {problems.LIBRARIES: {"hyperopt": "0.0.1", "numpy": "1.0"}}
    other = Drive(store, started(store, "random", seed=8, context=versions).uid)
    for number in range(4):  # what those versions might have given
        job = other.open(1)
        answer = await cold(store)(AskJob(drive.uid, job.request_no, 1, number, 0))
        other.commit(answer)
        finish(store, other.uid, number, 0.5, TrialState.SUCCEEDED)
    replay = verify_replay(store, other.uid)
    assert not replay.identical
    assert "hyperopt 0.0.1 -> " in replay.versions
    assert verify_replay(store, drive.uid).versions == ""
