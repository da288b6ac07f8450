"""kill -9 of every process of a stack, and a restart of the API server, while real pods train.

EVERTUNE_TEST_RESTART_API is a command that restarts the API server of the cluster; without it that one step is left
out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.store import Store
from tests.kubernetes.real import Witness, a_namespace, experiment, nothing_left, wait_for
from tests.kubernetes.stack import EVERYTHING, Stack, a_stack

# A real API server that is killed leaves sockets of the synchronous client, which only asks for the accounting.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TRIALS, PARALLEL = 30, 6
RESTART_API = "EVERTUNE_TEST_RESTART_API"
PROGRAM = "echo objective=0; sleep $(( $$ % 3 + 1 )); echo objective=$X"


def restart_api() -> None:
    command = os.environ.get(RESTART_API)
    if command is None:
        sys.stdout.write(f"the API server was not restarted: {RESTART_API} names no command for it\n")
        return
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def everything(stack: Stack) -> None:
    stack.kill(*EVERYTHING)
    stack.evertune("up")


def killing(*names: str) -> Callable[[Stack], None]:
    return lambda stack: stack.kill(*names)


# By the number of trials that have finished.
STEPS: dict[int, tuple[str, Callable[[Stack], None]]] = {
    2: ("worker", killing("worker")),
    7: ("Temporal", killing("temporal")),
    11: ("worker", killing("worker")),
    14: ("API server", lambda _: restart_api()),
    18: ("server", killing("server")),
    20: ("worker", killing("worker")),
    24: ("everything", everything),
}


def has_finished(store: Store, uid: str, trials: int) -> bool:
    return store.counts(uid).finished >= trials


def check_books(store: Store, record: ExperimentRecord, witness: Witness) -> None:
    """Each trial once: in the database, in the algorithm's history, and in the cluster."""
    trials = store.trials(record.uid)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentMaxTrialsReached")
    assert (record.counts.created, record.counts.succeeded) == (TRIALS, TRIALS)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}, [trial.reason for trial in trials]
    assert all(trial.objective_value == trial.parameters["x"] for trial in trials)
    assert len({trial.parameters["x"] for trial in trials}) == TRIALS
    assert sorted(trial.told_seq or 0 for trial in trials) == list(range(1, TRIALS + 1))
    for plural, seen in witness.seen.items():
        assert {number: len(uids) for number, uids in seen.items()} == dict.fromkeys(range(TRIALS), 1), plural


def test_thirty_trials_survive_the_death_of_every_process_and_none_runs_twice(
    full_cluster: Path, tmp_path: Path
) -> None:
    with a_namespace(full_cluster) as namespace, a_stack(tmp_path, full_cluster) as stack, stack.store() as store:
        witness = Witness(namespace)
        with witness.watching():
            spec: dict[str, Any] = {"parallelTrialCount": PARALLEL, "maxTrialCount": TRIALS}
            uid = stack.submit(experiment("chaos", namespace.name, PROGRAM, **spec))
            began = time.monotonic()
            for finished, (what, act) in STEPS.items():
                wait_for(partial(has_finished, store, uid, finished), f"{finished} finished", 120)
                seen = store.counts(uid).finished
                act(stack)
                sys.stdout.write(f"{time.monotonic() - began:.0f} s, {seen} finished: {what}\n")
            wait_for(lambda: store.experiment_by_uid(uid).state.terminal, "the end", 90)
            record = store.experiment_by_uid(uid)
            again = {trial.number: trial.attempts for trial in store.trials(uid) if trial.attempts > 1}
            sys.stdout.write(f"attempts beyond the first: {again}; looks unanswered: {witness.missed}\n")
            nothing_left(namespace, timeout_s=60)
        check_books(store, record, witness)
        assert not store.running_attempts(uid)
