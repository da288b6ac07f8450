"""The commit queue: many reports become one call, everybody is answered after it, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from evertune.domain.metrics import Point, Report
from evertune.domain.records import Taken
from evertune.domain.states import AttemptState
from evertune.errors import UnavailableError
from evertune.server import queue as queues
from evertune.server.queue import CommitQueue, QueueFullError
from tests.server.conftest import until


class Database:
    """Takes reports one call at a time; `hold()` makes calls wait, `refuse` says which reports make a call fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.refuse: Callable[[int], Exception | None] = lambda number: None

    def add_reports(self, reports: Sequence[Report]) -> list[Taken]:
        assert self.open.wait(30)
        for report in reports:
            if (error := self.refuse(report.number)) is not None:
                raise error
        self.batches.append([report.number for report in reports])
        return [Taken(state=AttemptState.RUNNING, new=report.number) for report in reports]

    @property
    def stored(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


def report(number: int, points: int = 1) -> Report:
    return Report("uid", number, 0, [Point("loss", "1", seq) for seq in range(points)])


@pytest.fixture
def database() -> Database:
    return Database()


async def test_reports_that_come_while_others_are_stored_go_together_and_each_gets_its_own_answer(
    database: Database,
) -> None:
    queue = CommitQueue(database.add_reports)
    database.open.clear()
    answers = [queue.put(report(0))]
    await asyncio.sleep(0.05)
    answers += [queue.put(report(number)) for number in range(1, 50)]
    assert not any(answer.done() for answer in answers), "nobody is answered before the commit"
    database.open.set()
    taken = await asyncio.gather(*answers)
    assert [one.new for one in taken] == list(range(50))
    assert database.batches == [[0], list(range(1, 50))]
    await queue.close(1)


async def test_a_batch_is_bounded_in_reports_and_in_points(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "BATCH_REPORTS", 4)
    monkeypatch.setattr(queues, "BATCH_POINTS", 10)
    queue = CommitQueue(database.add_reports)
    await asyncio.gather(*(queue.put(report(number)) for number in range(6)))
    await asyncio.gather(*(queue.put(report(number, points=6)) for number in range(4)))
    assert [len(batch) for batch in database.batches] == [4, 2, 2, 2]
    await queue.close(1)


async def test_a_full_queue_refuses_and_takes_reports_again_when_it_has_room(database: Database) -> None:
    queue = CommitQueue(database.add_reports, max_reports=5, max_points=20)
    database.open.clear()
    answers = [queue.put(report(0))]
    await asyncio.sleep(0.05)  # the writer has this one
    answers += [queue.put(report(number)) for number in range(1, 6)]
    assert queue.fullness == 1.0
    with pytest.raises(QueueFullError):
        queue.put(report(6))
    database.open.set()
    await asyncio.gather(*answers)
    with pytest.raises(QueueFullError):
        queue.put(report(7, points=21))
    await queue.put(report(8, points=20))
    assert queue.fullness == 0.0
    assert database.stored == [0, 1, 2, 3, 4, 5, 8]
    await queue.close(1)


async def test_one_report_that_cannot_be_stored_fails_alone(database: Database) -> None:
    database.refuse = lambda number: ValueError("unforeseen") if number == 13 else None
    queue = CommitQueue(database.add_reports)
    answers = await asyncio.gather(*(queue.put(report(number)) for number in range(20)), return_exceptions=True)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, ValueError)] == [13]
    assert sorted(database.stored) == [number for number in range(20) if number != 13]
    await queue.close(1)


async def test_when_the_database_is_away_all_that_wait_hear_of_it_and_later_ones_are_stored(database: Database) -> None:
    database.refuse = lambda number: UnavailableError("the database is away") if number < 10 else None
    queue = CommitQueue(database.add_reports)
    answers = await asyncio.gather(*(queue.put(report(number)) for number in range(10)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["the database is away"] * 10
    assert (await queue.put(report(11))).new == 11
    await queue.close(1)


async def test_a_database_that_does_not_answer_makes_nobody_wait_longer_than_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "STUCK_S", 0.2)
    monkeypatch.setattr(queues, "ANSWER_S", 0.3)
    monkeypatch.setattr(queues, "WATCH_S", 0.05)
    queue = CommitQueue(database.add_reports)
    database.open.clear()
    waiting = [queue.put(report(number)) for number in range(3)]
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)
    assert all(isinstance(answer, UnavailableError) for answer in answers)
    with pytest.raises(UnavailableError, match="has not answered for"):
        queue.put(report(9))
    database.open.set()
    await until(lambda: queue.busy_s == 0.0)
    assert database.stored == [0, 1, 2], "stored all the same: who repeats it stores nothing twice"
    assert (await queue.put(report(10))).new == 10
    await queue.close(1)


async def test_a_client_that_has_gone_before_its_turn_costs_the_database_nothing(database: Database) -> None:
    queue = CommitQueue(database.add_reports)
    database.open.clear()
    first = queue.put(report(0))
    await asyncio.sleep(0.05)
    gone, stays = queue.put(report(1)), queue.put(report(2))
    gone.cancel()
    database.open.set()
    await asyncio.gather(first, stays)
    assert database.stored == [0, 2]
    await queue.close(1)


async def test_close_stores_what_waits_and_gives_up_on_a_database_that_does_not_answer(database: Database) -> None:
    queue = CommitQueue(database.add_reports)
    answers = [queue.put(report(number)) for number in range(5)]
    await queue.close(30)
    assert [(await answer).new for answer in answers] == list(range(5))

    stuck = CommitQueue(database.add_reports)
    database.open.clear()
    answers = [stuck.put(report(0))]
    await asyncio.sleep(0.05)
    answers += [stuck.put(report(1))]
    await stuck.close(0.2)
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [str(result) for result in results] == ["the gateway is stopping"] * 2
    database.open.set()
