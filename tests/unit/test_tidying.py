"""What is done after a trial's end was answered: in which order, and what becomes of it when something fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from activities.tidying import Tidier
from evertune import archive
from evertune.domain.trial import AttemptRef
from evertune.errors import UnavailableError
from evertune.testing.fake_runner import FakeRunner
from evertune.testing.scripts import Script, attempt_ref

LONG = b"a line\n" * 20_000


class Cluster(FakeRunner):
    """Has the only copy of each log until it is fetched, and each object until it is released."""

    def __init__(self, root: Path, *, broken: tuple[int, ...] = ()) -> None:
        super().__init__(root, lambda _: Script())
        self._broken = broken
        self.released: dict[int, bool] = {}  # by number: whether the log was here, archived

    async def fetch(self, ref: AttemptRef) -> None:
        if ref.number in self._broken:
            raise UnavailableError("the node gives no log")
        self.log_path(ref).parent.mkdir(parents=True, exist_ok=True)
        self.log_path(ref).write_bytes(LONG)

    async def release(self, ref: AttemptRef) -> None:
        self.released[ref.number] = archive.archived(self.log_path(ref)).exists()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.01)


async def test_an_object_goes_only_when_its_log_is_here_and_archived(tmp_path: Path) -> None:
    runner = Cluster(tmp_path)
    tidier = Tidier(runner, after_s=0.0)
    for number in range(10):
        tidier.later(attempt_ref(number=number), fetch=True)
    await until(lambda: len(runner.released) == 10)
    assert set(runner.released.values()) == {True}


async def test_an_object_whose_log_cannot_be_had_stays_and_holds_up_no_other(tmp_path: Path) -> None:
    runner = Cluster(tmp_path, broken=(0, 1, 2, 3, 4))
    tidier = Tidier(runner, after_s=0.0)
    for number in range(10):
        tidier.later(attempt_ref(number=number), fetch=True)
    await until(lambda: len(runner.released) == 5)
    await tidier.close()
    assert sorted(runner.released) == [5, 6, 7, 8, 9]


async def test_nothing_is_done_at_once_but_everything_when_the_worker_ends(tmp_path: Path) -> None:
    runner = Cluster(tmp_path)
    tidier = Tidier(runner, after_s=3600.0)
    for number in range(10):
        tidier.later(attempt_ref(number=number), fetch=True)
    await asyncio.sleep(0.05)
    assert not runner.released
    await tidier.close()
    assert len(runner.released) == 10


async def test_a_cluster_that_hangs_does_not_keep_the_worker_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.tidying.CLOSING_S", 0.2)

    class Hanging(Cluster):
        async def release(self, ref: AttemptRef) -> None:
            await asyncio.Event().wait()

    runner = Hanging(tmp_path)
    tidier = Tidier(runner, after_s=0.0)
    tidier.later(attempt_ref(), fetch=True)
    await until(lambda: archive.archived(runner.log_path(attempt_ref())).exists())
    async with asyncio.timeout(20):
        await tidier.close()
