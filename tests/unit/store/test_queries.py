"""Every query of the store is answered by an index, and their number does not depend on how much there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from evertune.domain.metrics import Point, Report
from evertune.domain.states import ExperimentState, TrialState
from evertune.domain.trial import Assignment
from evertune.store import Store, open_store
from evertune.testing.store.making import NOW, create, finish, suggest

Statement = tuple[str, Any]


@contextmanager
def recorded() -> Iterator[list[Statement]]:
    statements: list[Statement] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            statements.append((statement, parameters[0] if many else parameters))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evertune.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{path}") as store:
        yield store


def one_round(store: Store, uid: str, request_no: int) -> None:
    (trial,) = suggest(store, uid, request_no, [Assignment({"layers": request_no})])
    store.open_attempt(uid, trial.number, 0, home_id="home-1", at=NOW)
    store.add_points(uid, trial.number, 0, [Point("loss", str(seq), seq) for seq in range(3)])
    finish(store, uid, trial.number, float(request_no))


READS: dict[str, Callable[[Store, str], object]] = {
    "experiment": lambda store, uid: store.experiment(store.experiment_by_uid(uid).namespace, "digits"),
    "unfinished": lambda store, _: store.unfinished(),
    "counts and best": lambda store, uid: (store.counts(uid), store.best(uid)),
    "audit": lambda store, uid: store.audit(uid),
    "requests": lambda store, uid: (store.request(uid, 1), store.requests(uid), store.trials_of_request(uid, 1)),
    "algorithm state": lambda store, uid: store.algorithm_state(uid, 3),
    "history": lambda store, uid: store.history(uid, cut=3, first_number=3),
    "new history": lambda store, uid: store.history_since(uid, after=1, from_number=2, cut=3, first_number=3),
    "trials": lambda store, uid: (store.trials(uid), store.trials(uid, limit=2, after=0)),
    "trials by state": lambda store, uid: store.trials(uid, states=[TrialState.RUNNING, TrialState.CREATED]),
    "best trials": lambda store, uid: (
        store.trials(uid, sort="best", limit=1),
        store.trials(uid, sort="best", after=0),
    ),
    "attempts": lambda store, uid: (store.trial(uid, 0), store.attempts(uid, 0)),
    "leases": lambda store, uid: (store.running_attempts(home_id="home-1"), store.running_attempts(uid)),
    "what is new": lambda store, uid: (store.told_trials(uid, after=1, limit=2), store.progress(uid, "loss")),
    "points": lambda store, uid: (store.points(uid, 0), store.points(uid, 0, metric="loss", attempt=0)),
}
READS |= {
    "the end of a series": lambda store, uid: store.points(uid, 0, newest=1),
    "a page of a series": lambda store, uid: store.page(uid, 0, "loss", 0, after=0, limit=1),
    "the last end": lambda store, uid: store.last_ended(uid),
    "series": lambda store, uid: (store.series(uid, 0), store.summaries(uid, 0, 0)),
    "a curve": lambda store, uid: store.curve(uid, 0, "loss", 0, at_most=2),
    "late reports": lambda store, uid: store.late(uid),
    "finished trials": lambda store, uid: store.settled(uid, below=2, without=[0]),
    "revisions": lambda store, uid: store.last_revision(uid),
}
WRITES: dict[str, Callable[[Store, str], object]] = {
    "a whole trial": lambda store, uid: one_round(store, uid, 3),
    "a state": lambda store, uid: store.set_state(uid, ExperimentState.RUNNING, key="k", goal=1.0, at=NOW),
    "reports": lambda store, uid: store.add_reports(
        [Report(uid, 0, 0, [Point("loss", "1", 1), Point("loss", "2", 9)])]
    ),
    "a wish to stop": lambda store, uid: store.request_stop(uid, {0: 0}, "why"),
    "a deletion": lambda store, uid: store.delete_experiment(uid),
}


@pytest.mark.parametrize("what", [*READS, *WRITES])
def test_no_query_reads_a_table_from_end_to_end(store: Store, path: Path, what: str) -> None:
    uid = create(store).uid
    for request_no in range(3):
        one_round(store, uid, request_no)
    with recorded() as statements:
        {**READS, **WRITES}[what](store, uid)
    assert statements
    connection = sqlite3.connect(path)
    for statement, parameters in statements:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        read = [step for step in plan if step.startswith("SCAN") and not step.endswith("CONSTANT ROWS")]
        assert not read, (statement, plan)
        if statement.startswith("SELECT") and "LIMIT" in statement:
            assert not [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step], (statement, plan)
    connection.close()


def test_the_list_is_one_query_however_many_experiments_there_are(store: Store) -> None:
    for _ in range(5):
        one_round(store, create(store).uid, 0)
    with recorded() as statements:
        assert len(store.list_experiments()) == 5
    assert len(statements) == 1


def test_a_trial_costs_as_many_statements_late_as_early(store: Store) -> None:
    uid = create(store).uid
    costs = []
    for request_no in range(12):
        with recorded() as statements:
            one_round(store, uid, request_no)
        costs.append(len(statements))
    assert len(set(costs[4:])) == 1
    assert costs[-1] <= 40
