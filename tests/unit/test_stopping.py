"""Early stopping in the path of reports: it holds nobody up, outlives faults, and costs what a report costs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from activities import stop
from activities.stop import Stopping
from algorithms.stoppers import registry
from evertune.domain.metrics import Objective, ObjectiveType, Point, Report
from evertune.domain.stopping import Decision
from evertune.errors import UnavailableError
from evertune.store import Store, open_store
from evertune.testing.store.making import NOW, finish, with_trials
from tests.workflow.harness import until

OBJECTIVE = Objective(ObjectiveType.MINIMIZE, "loss")


def with_rule(store: Store, how_many: int, name: str | None = "threshold", **settings: str) -> str:
    entries = [{"name": key, "value": value} for key, value in settings.items()]
    rule = None if name is None else {"algorithmName": name, "algorithmSettings": entries}
    manifest = {
        "apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "x"},
        "spec": {"earlyStopping": rule} if rule else {},
    }  # fmt: skip
    uid = with_trials(store, how_many, objective=OBJECTIVE, manifest=manifest)
    for number in range(how_many):
        store.open_attempt(uid, number, 0, home_id="home", at=NOW)
    return uid


def report(store: Store, uid: str, number: int, *values: float, first: int = 0) -> None:
    points = [Point("loss", repr(value), first + at) for at, value in enumerate(values)]
    store.add_reports([Report(uid, number, 0, points)])


class Told:
    """Whoever is told of decisions."""

    def __init__(self) -> None:
        self.decisions: list[tuple[str, Decision]] = []

    async def __call__(self, uid: str, decisions: Sequence[Decision]) -> None:
        self.decisions += [(uid, each) for each in decisions]

    @property
    def numbers(self) -> list[int]:
        return [each.number for _, each in self.decisions]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'evertune.db'}") as opened:
        yield opened


async def test_reports_that_come_while_others_are_weighed_are_weighed_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, calls, all_there = Told(), list[int](), threading.Event()
    uid = with_rule(store, 50, value="0.5")
    stopping = Stopping(store, told)
    weigh = store.weigh

    def counted(uid: str, rule: Any, metric: str, attempts: Any, at: Any) -> Any:
        calls.append(len(attempts))
        assert all_there.wait(60)
        return weigh(uid, rule, metric, attempts, at)

    monkeypatch.setattr(store, "weigh", counted)
    for number in range(50):
        report(store, uid, number, 0.9 if number % 10 == 0 else 0.1)
        stopping.take(uid, number, 0)
        await asyncio.sleep(0)
    await until(lambda: len(calls) == 1)
    all_there.set()
    await until(lambda: told.numbers == [0, 10, 20, 30, 40])
    assert sum(calls) == 50
    assert len(calls) == 2
    await stopping.close()


async def test_without_a_rule_reports_cost_nothing_after_the_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    uid = with_rule(store, 1, None)
    stopping = Stopping(store, told)
    report(store, uid, 0, 9.0)
    stopping.take(uid, 0, 0)
    await until(lambda: stopping._rules.get(uid, ...) is None)

    def never(*_: object) -> Any:
        raise AssertionError("it has no rule")

    monkeypatch.setattr(store, "weigh", never)
    monkeypatch.setattr(store, "experiment_by_uid", never)
    stopping.take(uid, 0, 0)
    assert stopping._waiting == {}
    assert told.decisions == []
    await stopping.close()


async def test_a_database_that_is_away_delays_a_decision_and_loses_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "AGAIN_S", 0.05)
    told, failures = Told(), [UnavailableError("away")] * 3
    uid = with_rule(store, 1, value="0.5")
    weigh = store.weigh

    def flaky(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return weigh(*args)

    monkeypatch.setattr(store, "weigh", flaky)
    stopping = Stopping(store, told)
    report(store, uid, 0, 0.9)
    stopping.take(uid, 0, 0)
    await until(lambda: told.numbers == [0])
    assert failures == []
    await stopping.close()


async def test_a_rule_that_cannot_be_made_here_or_fails_stops_nothing_and_harms_nobody_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        name, peers, metrics, silent_s = "broken", "none", ("loss",), None

        def mark(self, prefix: object, *, last: bool) -> None:
            return None

        def judge(self, *_: object) -> object:
            raise RuntimeError("out of order")

    create = registry.create
    monkeypatch.setattr(registry, "create", lambda name, *rest: Broken() if name == "broken" else create(name, *rest))
    told = Told()
    stopping = Stopping(store, told)
    missing, broken, good = with_rule(store, 1, "gone"), with_rule(store, 1, "broken"), with_rule(store, 1, value="0.5")
    for uid in (missing, broken, good):
        report(store, uid, 0, 0.9)
        stopping.take(uid, 0, 0)
    await until(lambda: [uid for uid, _ in told.decisions] == [good])
    assert stopping._waiting == {}
    await stopping.close()


async def test_a_decision_on_its_way_is_not_told_with_every_report_but_again_after_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "TOLD_AGAIN_S", 600.0)
    told, rounds, undelivered = Told(), list[int](), store.undelivered_stops
    uid = with_rule(store, 1, value="0.5")
    stopping = Stopping(store, told)
    for at in range(5):
        report(store, uid, 0, 0.9, first=at)
        stopping.take(uid, 0, 0)
        await until(lambda: not stopping._waiting and stopping._weighing is not None and stopping._weighing.done())
    assert told.numbers == [0]
    monkeypatch.setattr(stop, "WATCH_EVERY_S", 0.05)
    monkeypatch.setattr(stop, "TOLD_AGAIN_S", 0.1)
    stopping._told.clear()  # as after a restart

    def counted() -> Any:
        rounds.append(len(told.numbers))
        return undelivered()

    monkeypatch.setattr(store, "undelivered_stops", counted)
    watching = asyncio.create_task(stopping.watch())
    await until(lambda: len(told.numbers) >= 3, what="it is told again until somebody asks the attempt to stop")
    store.request_stop(uid, {0: 0}, "EarlyStopped")
    asked = len(rounds)
    await until(lambda: len(rounds) >= asked + 2)  # what had begun before has been told by then
    count = len(told.numbers)
    await until(lambda: len(rounds) >= asked + 10)
    assert len(told.numbers) == count
    watching.cancel()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("medianstop", {"statistic": "median", "check": "every", "min_trials_required": "1", "start_step": "1"}),
        ("asha", {"eta": "2"}),
    ],
)
def test_what_a_report_costs_does_not_grow_with_the_trials_or_with_the_points(
    store: Store, name: str, settings: dict[str, str]
) -> None:
    def cost(trials: int, steps: int) -> float:
        """CPU seconds to weigh 60 reports of one value each, after as many trials of so many steps."""
        uid = with_rule(store, trials + 1, name, **settings)
        rule = registry.create(name, settings, OBJECTIVE)
        for number in range(trials):
            report(store, uid, number, *(0.5 + (number * 7919 % 1000) / 1000 / (step + 1) for step in range(steps)))
            finish(store, uid, number, 0.5)
        report(store, uid, trials, *[0.1] * (steps - 60))
        while store.weigh(uid, rule, "loss", [(trials, 0)], NOW)[1]:
            pass
        spent = 0.0
        for at in range(steps - 60, steps):
            report(store, uid, trials, 0.1, first=at)
            began = time.process_time()
            assert store.weigh(uid, rule, "loss", [(trials, 0)], NOW) == ([], [])
            spent += time.process_time() - began
        return spent

    cost(5, 100)  # statements are compiled once
    few, many = cost(10, 100), cost(1000, 400)
    assert many < 4 * few, f"{few:.3f} s with 10 trials, {many:.3f} s with 1,000 of four times the length"
