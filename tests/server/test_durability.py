"""What is answered for is stored, once: whatever is killed, away or late."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

import evertune.contracts as c
from activities import observing
from activities.observing import Observer
from evertune.connection import connect_temporal
from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.domain.states import AttemptState, ExperimentState, TrialState
from evertune.domain.trial import AttemptEnd, Ending
from evertune.server.app import Gateway
from evertune.server.database import LateStore
from evertune.server.telling import Teller
from evertune.testing.gateway import Attempt
from tests.ports import free_port
from tests.server.conftest import ServerProcess, World, health, in_thread, points, post, settings_in, until


class Sender(threading.Thread):
    """Reports until `count` reports are answered with 200, repeating whatever was not."""

    def __init__(self, world: World, attempt: Attempt, count: int) -> None:
        super().__init__()
        self.world, self.attempt, self.count = world, attempt, count
        self.repeated = self.cut_off = 0
        self.answered = 0

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.world.settings.server_port, timeout=30)
        while self.answered < self.count:
            body = {"points": points(5, first=5 * self.answered)}
            try:
                status, answer, headers = post(self.world.settings, self.attempt, body, connection=connection)
            except (OSError, HTTPException):
                connection.close()
                self.cut_off += 1
                time.sleep(0.02)
                continue
            if status == 200:
                assert answer["accepted"] == 5
                self.answered += 1
            else:
                assert status in (429, 503), answer
                self.repeated += 1
                time.sleep(min(float(headers["retry-after"]), 0.2))
        connection.close()


@pytest.mark.chaos
def test_kill_9_under_load_loses_nothing_and_stores_nothing_twice(world: World, server: ServerProcess) -> None:
    attempts = world.open_attempts(12)
    senders = [Sender(world, attempt, 60) for attempt in attempts]
    server.start()
    for sender in senders:
        sender.start()
    kills = 0
    while any(sender.is_alive() for sender in senders) and kills < 4:
        time.sleep(random.uniform(0.1, 0.6))
        server.kill()
        kills += 1
        server.start()
    for sender in senders:
        sender.join(90)
        assert not sender.is_alive()
    assert sum(sender.cut_off for sender in senders) > 0, "the kills met somebody"
    for attempt in attempts:
        stored = world.store.points(world.uid, world.number(attempt))
        assert [point.seq for _, point in stored] == list(range(300))
        (series,) = world.store.series(world.uid, world.number(attempt))
        assert series.points == 300


def test_sigterm_answers_what_is_there_and_ends_in_time(world: World, server: ServerProcess) -> None:
    attempts = world.open_attempts(8)
    senders = [Sender(world, attempt, 1_000_000) for attempt in attempts]
    server.start()
    for sender in senders:
        sender.daemon = True
        sender.start()
    deadline = time.monotonic() + 60
    while sum(sender.answered for sender in senders) < 40:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert server.stop() == 0
    for sender in senders:
        answered = sender.answered
        sender.count = 0
        sender.join(60)
        stored = world.store.points(world.uid, world.number(sender.attempt))
        assert 5 * answered <= len(stored) <= 5 * (answered + 1)


def test_when_the_database_is_away_reports_are_put_off_and_nothing_hangs(tmp_path: Path, world: World) -> None:
    (attempt,) = world.open_attempts(1)
    away = settings_in(
        tmp_path, server_port=world.settings.server_port,
        database_url=f"mysql+pymysql://nobody:secret@127.0.0.1:{free_port()}/evertune",
    )  # fmt: skip
    with in_thread(away):
        status, answer, headers = post(away, attempt, {"points": points()})
        assert (status, headers["retry-after"]) == (503, "2")
        assert "repeat it" in answer["error"]
        assert "secret" not in answer["error"]
        status, found = health(away)
        assert (status, found["status"]) == (503, "unavailable")
        assert health(away, "/livez") == (200, {"status": "ok"}), "a restart would not bring the database back"
        assert "secret" not in json.dumps(found)
    with in_thread(world.settings):
        assert post(world.settings, attempt, {"points": points()})[0] == 200
        assert health(world.settings)[0] == 200


def test_reports_are_stored_while_temporal_is_away_and_one_that_comes_again_is_the_same(world: World) -> None:
    (attempt,) = world.open_attempts(1)
    with in_thread(world.settings) as gateway:  # port 9 is nobody's
        for _ in range(3):
            assert post(world.settings, attempt, {"points": points(20), "final": True})[1] == {
                "accepted": 20,
                "next_after_s": 1.0,
                "stop": False,
            }
        deadline = time.monotonic() + 30
        # Between two attempts to reach Temporal the news wait here.
        while (observer := gateway.teller._observer) is None or not (news := observer._pending.get(world.uid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (waiting,) = news.values()
        assert (waiting.value, waiting.final) == ("0.0019", True)
    number = world.number(attempt)
    assert len(world.store.points(world.uid, number)) == 20
    assert world.store.attempts(world.uid, number)[0].collected


def ended(world: World, attempt: Attempt, state: AttemptState, *, ago: timedelta = timedelta()) -> None:
    end = AttemptEnd(state, state.value, ended=datetime.now(UTC) - ago)
    ending = Ending(end=end, charged=True, trial_state=TrialState(state.value))
    world.store.end_attempt(world.uid, world.number(attempt), 0, lambda _: ending)


def test_a_late_report_of_a_finished_experiment_revises_the_verdict_before_it_is_answered(world: World) -> None:
    (attempt,) = world.open_attempts(1)
    number = world.number(attempt)
    ended(world, attempt, AttemptState.METRICS_UNAVAILABLE)
    now = datetime.now(UTC)
    world.store.set_state(world.uid, ExperimentState.FAILED, reason="over", key="end", at=now)
    assert world.store.trial(world.uid, number).objective is None
    with in_thread(world.settings):
        for _ in range(2):
            status, answer, _ = post(world.settings, attempt, {"points": points(3)})
            assert (status, answer["stop"]) == (200, True)
            trial = world.store.trial(world.uid, number)
            assert (trial.state, trial.objective) == (TrialState.SUCCEEDED, "0.0002")
    assert [row.action for row in world.store.audit(world.uid)].count("amend") == 1
    assert world.store.counts(world.uid).succeeded == 1


def test_a_late_report_that_nobody_can_be_told_of_is_put_off_and_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evertune.server import telling

    monkeypatch.setattr(telling, "LATE_WAIT_S", 0.5)
    (attempt,) = world.open_attempts(1)
    ended(world, attempt, AttemptState.METRICS_UNAVAILABLE)
    with in_thread(world.settings):
        status, _, headers = post(world.settings, attempt, {"points": points(3)})
        assert (status, "retry-after" in headers) == (503, True)
    assert len(world.store.points(world.uid, world.number(attempt))) == 3


def test_reports_of_an_attempt_that_ended_long_ago_wait_for_the_gateways_own_ten_minutes(world: World) -> None:
    (attempt,) = world.open_attempts(1)
    ended(world, attempt, AttemptState.SUCCEEDED, ago=timedelta(hours=2))
    offset = [0.0]

    def prepare(gateway: Gateway) -> None:
        gateway.ingest.clock = lambda: time.time() + offset[0]

    with in_thread(world.settings, prepare):
        assert post(world.settings, attempt, {"points": points()})[0] == 200, "the gateway may have been away"
        offset[0] = 660.0
        status, answer, _ = post(world.settings, attempt, {"points": points(first=1)})
        assert (status, answer["stop"]) == (410, True)
    assert len(world.store.points(world.uid, world.number(attempt))) == 1


# ------------------------------------------------------------------------------------------- telling the workflow


async def test_what_was_not_told_yet_is_not_forgotten_for_a_newer_value(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "AWAY_AGAIN_S", 600.0)  # one attempt to reach it, and no more
    observer = Observer(await connect_temporal("127.0.0.1:9", "default", lazy=True), world.store)
    first = c.Observation(number=3, attempt=1, seq=5, value="0.5", final=True, late=True)
    await observer.observe(world.uid, first)
    await asyncio.sleep(0)
    assert not observer._pending, "it is on its way"
    await observer.observe(world.uid, c.Observation(number=3, attempt=1, seq=7, value="0.7"))
    await until(lambda: observer._pending[world.uid][3].late)
    assert observer._pending[world.uid][3] == first.model_copy(update={"seq": 7, "value": "0.7"})
    await observer.observe(world.uid, c.Observation(number=3, attempt=1, seq=9, value="0.9"))
    await observer.observe(world.uid, c.Observation(number=4, attempt=0, seq=1, value="0.1"))
    assert observer._pending[world.uid][3] == first.model_copy(update={"seq": 9, "value": "0.9"})
    assert observer._pending[world.uid][4].value == "0.1"
    await observer.observe(world.uid, c.Observation(number=3, attempt=2, seq=1))
    assert not observer._pending[world.uid][3].late, "another attempt is another story"
    await observer.close()


async def test_news_of_deleted_experiments_are_dropped(world: World) -> None:
    observer = Observer(await connect_temporal("127.0.0.1:9", "default", lazy=True), world.store)
    await observer.observe("0" * 32, c.Observation(number=1, seq=1))
    await asyncio.wait_for(observer.delivered("0" * 32), 30)
    assert not observer._pending
    await observer.close()


async def test_news_that_come_while_the_way_to_temporal_is_made_are_passed_on(world: World) -> None:
    teller = Teller(world.settings, LateStore(world.settings), "127.0.0.1:9")
    taken = Taken(state=AttemptState.RUNNING, new=1, objective=(1, 7, "0.5"))
    await teller.take(Report(world.uid, 2, 0), taken)
    await teller.take(Report(world.uid, 2, 0), replace(taken, objective=(2, 8, "0.6")))
    observer = await teller._build()
    await until(lambda: observer._pending)  # not while an attempt to reach Temporal is on its way
    assert observer._pending[world.uid][2].value == "0.6"
    await teller.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_with_code_0(server: ServerProcess, number: signal.Signals) -> None:
    server.start()
    assert server.process is not None
    server.process.send_signal(number)
    assert server.process.wait(60) == 0
