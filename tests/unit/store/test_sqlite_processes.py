"""Several processes on one SQLite file, and what is left when one of them is killed."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from evertune.domain.records import Counts
from evertune.domain.states import TrialState
from evertune.store import Store, open_store
from evertune.store.records import COUNTER
from evertune.testing.store.making import create

# Carries an experiment on from wherever it is, like a worker that starts again.
WORKER = """
import sys, time
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment
from evertune.protocols import Answer
from evertune.store import open_store
from evertune.testing.store.making import NOW, finish, lose

url, uid, until = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(url) as store:
    print("ready", flush=True)
    while store.counts(uid).finished < until:
        for trial in store.trials(uid, states=[TrialState.CREATED, TrialState.RUNNING]):
            attempt = max(0, trial.attempts - (trial.state is TrialState.RUNNING))
            store.open_attempt(uid, trial.number, attempt, home_id="home-1", at=NOW)
            if trial.number % 3 == 0 and attempt == 0:
                lose(store, uid, trial.number, attempt)
            else:
                finish(store, uid, trial.number, float(trial.number % 7), attempt=attempt)
        number = len(store.requests(uid))
        if number and not store.request(uid, number - 1).committed:
            number -= 1
        store.open_request(uid, number, 3, 1)
        answer = Answer(assignments=tuple(Assignment({"layers": i}) for i in range(3)), state={"n": number})
        store.commit_answer(uid, number, answer, NOW)
"""


def worker(url: str, uid: str, until: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", WORKER, url, uid, str(until)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> int:
    with process:
        return process.wait(timeout=100)


def assert_consistent(store: Store, uid: str) -> None:
    trials = store.trials(uid)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    told = sorted(trial.told_seq for trial in trials if trial.told_seq is not None)
    assert told == list(range(1, len(told) + 1))
    assert len(told) == sum(trial.state.terminal for trial in trials)
    by_state = Counter(COUNTER[trial.state] for trial in trials)
    assert store.counts(uid) == Counts(created=len(trials), **by_state)
    assert set(COUNTER.values()) == {field.name for field in fields(Counts)} - {"created"}
    assert [attempt.number for _, attempt in store.running_attempts(uid)] == [
        trial.number for trial in trials if trial.state is TrialState.RUNNING
    ]
    ranked = store.trials(uid, sort="best", limit=1)
    assert store.best(uid) == (ranked[0] if ranked else None)
    answered = sum(request.answered for request in store.requests(uid))
    assert answered == len(trials)


@pytest.mark.chaos
def test_a_writer_killed_at_any_moment_leaves_a_consistent_database(tmp_path: Path) -> None:
    path = tmp_path / "evertune.db"
    url = f"sqlite:///{path}"
    rng = random.Random(5)
    with open_store(url) as store:
        uid = create(store).uid
        for _ in range(5):
            more = store.counts(uid).finished + rng.randint(5, 25)
            process = worker(url, uid, 100_000)
            give_up = time.monotonic() + 60
            while store.counts(uid).finished < more:
                assert time.monotonic() < give_up, "it does not get on"
            time.sleep(rng.uniform(0.0, 0.02))
            process.kill()
            assert end(process) == -signal.SIGKILL
            assert_consistent(store, uid)
        reached = store.counts(uid).finished
        assert reached > 20
        assert end(worker(url, uid, reached + 10)) == 0
        assert_consistent(store, uid)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


@pytest.mark.slow
def test_processes_that_write_at_once_never_see_a_locked_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'evertune.db'}"
    with open_store(url) as store:
        uids = [create(store).uid for _ in range(4)]
        processes = [worker(url, uid, 60) for uid in uids]
        while any(process.poll() is None for process in processes):
            assert len(store.list_experiments()) == 4
        assert [end(process) for process in processes] == [0] * 4
        for uid in uids:
            assert store.counts(uid).finished >= 60
            assert_consistent(store, uid)
