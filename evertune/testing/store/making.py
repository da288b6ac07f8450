"""What the contract's tests are made of: experiments, suggestions, ends, and calls that start together."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from evertune.domain.metrics import Objective, ObjectiveType, Point, Strategy
from evertune.domain.records import Budget, ExperimentRecord, TrialRecord
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace
from evertune.domain.states import AttemptState, FailureClass, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, Ending
from evertune.protocols import Answer
from evertune.store import NewExperiment, Store

T = TypeVar("T")

NOW = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5, microseconds=1)
TEXT = "naïve Ωmega 漢字 🦊👩‍🔬 'quoted' \"twice\" back\\slash %s :name \t\n end"
DOUBLES = (
    0.1,
    1 / 3,
    1e-5,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    9007199254740993.0,
    123456789.12345679,
    0.30000000000000004,
    1e22,
    1e23,
    -1e-300,
    math.pi,
)
SPACE = SearchSpace(
    (
        Parameter(
            name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1, step=None, distribution=Distribution.LOG_UNIFORM
        ),
        Parameter(name="layers", type=ParameterType.INT, low=1, high=8, step=1),
        Parameter(name="batch", type=ParameterType.DISCRETE, values=("0.10", "16")),
        Parameter(name="optimizer 🦊", type=ParameterType.CATEGORICAL, values=("sgd", "Sgd", TEXT)),
    )
)


def new_experiment(**changes: Any) -> NewExperiment:
    """A new experiment with a name of its own in a namespace of its own."""
    uid = uuid4().hex
    new = NewExperiment(
        uid=uid,
        namespace=f"ns-{uid[:12]}",
        name="digits",
        workflow_id=f"experiment/ns-{uid[:12]}/digits",
        first_run_id=f"run-{uid[:8]}",
        manifest={"kind": "Experiment", "spec": {"note": TEXT, "goal": 0.1 + 0.2}},
        context={"working_dir": "/somewhere", "environment": {"PATH": "/bin"}},
        algorithm="tpe",
        settings={"n_startup_trials": "5"},
        seed=2**31 - 1,
        objective=Objective(ObjectiveType.MAXIMIZE, "accuracy", 0.985, ("loss",), {"loss": Strategy.LATEST}),
        space=SPACE,
        budget=Budget(parallel=4, max_trials=24, max_failed=3),
        backend="local",
        home_id="home-1",
        created=NOW,
    )
    return replace(new, **changes)


def create(store: Store, **changes: Any) -> ExperimentRecord:
    return store.claim_experiment(new_experiment(**changes))


def suggest(store: Store, uid: str, request_no: int, assignments: Sequence[Assignment]) -> list[TrialRecord]:
    store.open_request(uid, request_no, max(1, len(assignments)), 1)
    answer = Answer(assignments=tuple(assignments), state={"asked": request_no})
    return store.commit_answer(uid, request_no, answer, NOW)


def with_trials(store: Store, how_many: int, **changes: Any) -> str:
    """The uid of a new experiment with that many trials, none of them started."""
    uid = create(store, **changes).uid
    suggest(store, uid, 0, [Assignment({"layers": number}) for number in range(how_many)])
    return uid


def finish(
    store: Store,
    uid: str,
    number: int,
    value: float | str | None,
    state: TrialState = TrialState.SUCCEEDED,
    attempt: int = 0,
) -> tuple[TrialRecord, int]:
    store.open_attempt(uid, number, attempt, home_id="home-1", at=NOW)
    ending = Ending(
        end=AttemptEnd(AttemptState(state.value), "Completed", ended=LATER),
        charged=state.counts_as_failed,
        trial_state=state,
        objective=None if value is None else str(value),
        objective_value=value if isinstance(value, float) else None,
    )
    return store.end_attempt(uid, number, attempt, lambda _: ending)


def lose(store: Store, uid: str, number: int, attempt: int) -> tuple[TrialRecord, int]:
    """End an attempt that gets another one."""
    end = AttemptEnd(AttemptState.LOST, "HostLost", "the host went away", FailureClass.INFRASTRUCTURE, ended=LATER)
    return store.end_attempt(uid, number, attempt, lambda _: Ending(end=end, again=True))


def series_of(store: Store, uid: str, number: int, **which: Any) -> list[Point]:
    return [point for _, point in store.points(uid, number, **which)]


def at_once(calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """Run the calls in threads that start together; results or exceptions, in order."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | BaseException:
        gate.wait(timeout=100)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
