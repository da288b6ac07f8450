"""The warm child process: it may die, idle out or be killed at any point, and the answers stay the same."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from activities import asking
from activities.ask_child import HEAVY_NICE
from activities.asking import AskHost, AskJob
from algorithms import registry
from evertune.app import child_environment
from evertune.errors import AlgorithmError, UnavailableError
from evertune.protocols import Answer
from evertune.store import Store
from evertune.testing.store.making import create
from tests.unit.asking.driving import Drive, cold, new_experiment

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
PLUGINS = Path(__file__).with_name("plugins.py")


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine any ask may take long; which of them counts as stuck says the test that is about it."""
    monkeypatch.setattr(asking, "STUCK_S", 600.0)
    monkeypatch.setattr(asking, "LOADING_S", 600.0)


@pytest.fixture
async def host(store: Store, database_url: str) -> AsyncIterator[AskHost]:
    host = AskHost(store, database_url)
    yield host
    await host.close()


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of plugins.py as an installed distribution of somebody else."""
    place = tmp_path / "site"
    info = place / "bad_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (place / "bad_plugins.py").write_text(PLUGINS.read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugins\nVersion: 1.0\n")
    names = ("Loud", "Deadly", "Slow", "Burning", "Greedy", "Silent", "Undefined", "Unwritable")
    lines = [f"{name.lower()} = bad_plugins:{name}\n" for name in names]
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\n{''.join(lines)}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH", "")])))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.02)


async def test_the_child_answers_as_the_library_in_this_process(store: Store, host: AskHost) -> None:
    ours, control = (Drive(store, new_experiment(store, "multivariate-tpe")) for _ in range(2))
    assert await ours.run(host.ask, 14, 3) == await control.run(cold(store), 14, 3)


@pytest.mark.slow
async def test_a_kill_between_asks_and_in_the_middle_of_one_changes_nothing(store: Store, host: AskHost) -> None:
    ours, control = (Drive(store, new_experiment(store, "tpe")) for _ in range(2))
    pids = set()

    async def ask(job: AskJob) -> object:
        if host.pid is not None and job.request_no % 4 == 1:
            os.kill(host.pid, signal.SIGKILL)  # between
        asking = asyncio.create_task(host.ask(job))
        if job.request_no % 4 == 3:
            await asyncio.sleep(0.005)  # in the middle: it has been written to
            if host.pid is not None:
                os.kill(host.pid, signal.SIGKILL)
        answer = await asking
        pids.add(host.pid)
        return answer

    assert await ours.run(ask, 9, 1) == await control.run(cold(store), 9, 1)  # type: ignore[arg-type]
    assert len(pids) >= 4


@pytest.mark.usefixtures("plugins")
async def test_a_kill_during_the_algorithm_is_followed_by_the_same_ask(
    store: Store, host: AskHost, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    uid = create(store, algorithm="slow", settings={"file": str(started), "seconds": "600", "once": ""}).uid
    asking = asyncio.create_task(host.ask(AskJob(uid, 0, 2, 0, 0)))
    await until(lambda: started.exists() and started.read_text())
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    answer = await asking
    assert [assignment.parameters for assignment in answer.assignments] == [{"n": 0}, {"n": 1}]
    assert len(set(started.read_text().split())) == 2


@pytest.mark.slow
async def test_an_idle_child_ends_and_the_next_ask_starts_another(store: Store, database_url: str) -> None:
    host = AskHost(store, database_url, idle_s=0.3)
    ours, control = (Drive(store, new_experiment(store, "random")) for _ in range(2))

    def last() -> int:
        process = host._children[0]._process  # which may be gone by now
        assert process is not None
        return process.pid

    await ours.step(host.ask)
    first = last()
    await until(lambda: not alive(first))
    await ours.step(host.ask)
    assert last() != first
    for _ in range(2):
        await control.step(cold(store))
    assert ours.parameters() == control.parameters()
    await host.close()


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("code", ["0", "3"])
async def test_an_ask_that_kills_its_process_three_times_fails_with_its_last_words(
    store: Store, host: AskHost, code: str
) -> None:
    uid = create(store, algorithm="deadly", settings={"code": code}).uid
    words = "the ask process died 3 times on request 0: the library tore its process down"
    with pytest.raises(AlgorithmError, match=words):
        await host.ask(AskJob(uid, 0, 1, 0, 0))
    drive = Drive(store, new_experiment(store, "random"))
    assert (await drive.step(host.ask)).assignments, "the next experiment is asked as if nothing had been"


@pytest.mark.usefixtures("plugins")
async def test_a_library_that_prints_does_no_harm(store: Store, host: AskHost) -> None:
    uid = create(store, algorithm="loud", settings={}).uid
    for number in range(3):
        answer = await host.ask(AskJob(uid, number, 1, number, 0))
        assert answer.assignments[0].parameters == {"n": number}


@pytest.mark.usefixtures("plugins")
async def test_an_answer_that_is_not_json_is_the_algorithms_failure(store: Store, host: AskHost) -> None:
    uid = create(store, algorithm="unwritable", settings={}).uid
    with pytest.raises(AlgorithmError, match="request 0 cannot be written as JSON: Object of type set"):
        await host.ask(AskJob(uid, 0, 1, 0, 0))


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("greedy", "plugin gave 3 assignments where 2 were asked"),
        ("silent", "plugin gave nothing for trial 0 and does not say why"),
        ("undefined", "cannot be written as JSON"),
    ],
)
@pytest.mark.usefixtures("plugins")
async def test_an_answer_that_breaks_the_contract_fails_the_experiment(
    store: Store, host: AskHost, plugin: str, words: str
) -> None:
    drive = Drive(store, new_experiment(store, plugin))
    with pytest.raises(AlgorithmError, match=words):
        await host.ask(drive.open(2))


async def test_the_databases_url_is_not_on_the_command_line(store: Store, database_url: str, host: AskHost) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    await drive.step(host.ask, 1)
    command = Path(f"/proc/{host.pid}/cmdline").read_bytes().decode()
    assert "activities.asking_process" in command
    assert database_url.removeprefix("sqlite:///") not in command


@pytest.mark.usefixtures("plugins")
async def test_a_cancelled_ask_leaves_nothing_for_the_next_to_read(store: Store, host: AskHost, tmp_path: Path) -> None:
    started = tmp_path / "started"
    slow = create(store, algorithm="slow", settings={"file": str(started), "seconds": "30"}).uid
    asking = asyncio.create_task(host.ask(AskJob(slow, 0, 1, 41, 0)))
    await until(lambda: started.exists() and started.read_text())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    drive = Drive(store, new_experiment(store, "random"))
    answer = await drive.step(host.ask)
    assert "lr" in answer.assignments[0].parameters
    assert not alive(int(started.read_text()))


@pytest.mark.usefixtures("plugins")
async def test_close_ends_an_ask_under_way_and_leaves_no_process(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    host = AskHost(store, database_url)
    started = tmp_path / "started"
    uid = create(store, algorithm="slow", settings={"file": str(started), "seconds": "30"}).uid
    asking = asyncio.create_task(host.ask(AskJob(uid, 0, 1, 0, 0)))
    await until(lambda: started.exists() and started.read_text())
    await host.close()
    with pytest.raises(UnavailableError, match="shutting down"):
        await asking
    assert not alive(int(started.read_text()))
    assert host.pid is None
    await host.close()


async def test_a_database_that_is_away_is_asked_again_later(store: Store, host: AskHost, tmp_path: Path) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    job = drive.open(1)
    store.experiment_by_uid(drive.uid)
    database, away = tmp_path / "evertune.db", tmp_path / "away.db"
    await host._algorithm(drive.uid)  # known to this worker: only the child meets the hole
    database.rename(away)
    with pytest.raises(UnavailableError) as caught:
        await host.ask(job)
    assert caught.value.retryable
    assert "evertune.db" in caught.value.message
    assert not database.exists(), "an empty database in its place would hide the loss"
    away.rename(database)
    assert len((await host.ask(job)).assignments) == 1


async def test_asks_at_the_same_time_wait_for_each_other(store: Store, host: AskHost) -> None:
    drives = [Drive(store, new_experiment(store, "random", seed=seed)) for seed in range(4)]
    controls = [Drive(store, new_experiment(store, "random", seed=seed)) for seed in range(4)]
    await asyncio.gather(*(drive.step(host.ask, 2) for drive in drives))
    for drive, control in zip(drives, controls, strict=True):
        await control.step(cold(store), 2)
        assert drive.parameters() == control.parameters()


async def test_a_warm_child_has_loaded_its_library_and_answers_as_a_cold_one(store: Store, host: AskHost) -> None:
    ours, control = (Drive(store, new_experiment(store, "tpe")) for _ in range(2))
    await host.warm(ours.uid)
    pid = host.pid
    assert pid is not None
    assert any("numpy" in file for file in mapped(pid)), "hyperopt and all that it needs"
    assert await ours.run(host.ask, 6, 2) == await control.run(cold(store), 6, 2)
    assert host.pid == pid


async def test_warming_an_experiment_that_is_gone_does_no_harm(store: Store, host: AskHost) -> None:
    await host.warm("0" * 32)
    drive = Drive(store, new_experiment(store, "random"))
    assert len(await drive.run(host.ask, 2, 1)) == 2


async def begun(host: AskHost, uid: str, started: Path) -> asyncio.Task[Answer]:
    long = asyncio.create_task(host.ask(AskJob(uid, 0, 1, 0, 0)))
    await until(lambda: started.exists() and started.read_text())
    return long


@pytest.mark.usefixtures("plugins")
async def test_a_heavy_ask_stands_before_no_other(store: Store, host: AskHost, tmp_path: Path) -> None:
    started = tmp_path / "started"
    uid = create(store, algorithm="slow", settings={"file": str(started), "seconds": "600"}).uid
    long = await begun(host, uid, started)
    heavy = int(started.read_text())
    drive = Drive(store, new_experiment(store, "random"))
    assert len(await drive.run(host.ask, 6, 2)) == 6
    assert not long.done()
    assert os.getpriority(os.PRIO_PROCESS, heavy) == os.getpriority(os.PRIO_PROCESS, 0) + HEAVY_NICE
    (light,) = set(host.pids) - {heavy}
    assert os.getpriority(os.PRIO_PROCESS, light) == os.getpriority(os.PRIO_PROCESS, 0)
    long.cancel()


@pytest.mark.usefixtures("plugins")
async def test_an_ask_that_nobody_expected_to_take_long_is_left_alone(
    store: Store, host: AskHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    uid = create(store, algorithm="slow", settings={"file": str(started), "seconds": "600"}).uid
    (await host._algorithm(uid)).heavy = False  # a third party's would be, for all that anybody knows
    slow = await begun(host, uid, started)
    drives = [Drive(store, new_experiment(store, "random", seed=seed)) for seed in range(3)]
    host._children[0].answered = 1  # its libraries are there
    monkeypatch.setattr(asking, "STUCK_S", 2.0)
    others = asyncio.gather(*(drive.run(host.ask, 4, 1) for drive in drives))
    await until(lambda: host._children[0].heavy)
    monkeypatch.setattr(asking, "STUCK_S", 600.0)
    await others
    assert not slow.done()
    assert len(host.pids) == 2
    slow.cancel()


@pytest.mark.usefixtures("plugins")
async def test_what_takes_long_twice_is_heavy_from_then_on(
    store: Store, host: AskHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "HEAVY_CPU_S", 0.05)
    drive = Drive(store, create(store, algorithm="burning", settings={"cpu": "0.1"}).uid)
    (await host._algorithm(drive.uid)).heavy = False
    pids = []
    for _ in range(5):
        await drive.step(host.ask)
        pids.append((await host._algorithm(drive.uid)).child)
    assert pids[0] is pids[1] is pids[2] is not pids[3] is pids[4]
    assert [child is not None and child.heavy for child in pids] == [False, False, False, True, True]
    assert drive.parameters() == [{"n": number} for number in range(5)]


async def test_there_are_never_more_processes_than_that(store: Store, database_url: str) -> None:
    host = AskHost(store, database_url, processes=3)
    try:
        drives = [Drive(store, new_experiment(store, "random", seed=seed)) for seed in range(12)]
        await asyncio.gather(*(drive.run(host.ask, 3, 1) for drive in drives))
        assert 1 <= len(host.pids) <= 2, "a place is left for a heavy one"
        homes = {drive.uid: (await host._algorithm(drive.uid)).child for drive in drives}
        await asyncio.gather(*(drive.run(host.ask, 6, 1) for drive in drives))
        assert homes == {drive.uid: (await host._algorithm(drive.uid)).child for drive in drives}
    finally:
        await host.close()
    assert host.pids == []


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.usefixtures("plugins")
async def test_a_heavy_experiment_beside_a_quick_one_takes_little_from_it(store: Store, host: AskHost) -> None:
    quick = Drive(store, new_experiment(store, "random"))
    heavy = Drive(store, create(store, algorithm="burning", settings={"cpu": "0.6"}).uid)
    await heavy.step(host.ask)

    async def rate() -> float:
        begin = time.perf_counter()
        for _ in range(60):
            await quick.step(host.ask)
        return 60 / (time.perf_counter() - begin)

    async def without_end() -> None:
        while True:
            await heavy.step(host.ask)

    await rate()
    alone, beside = [], []
    for _ in range(5):  # in turn, so that what else the machine does falls on both
        alone.append(await rate())
        burning = asyncio.create_task(without_end())
        await asyncio.sleep(0.1)
        beside.append(await rate())
        burning.cancel()
        await asyncio.gather(burning, return_exceptions=True)
    assert max(beside) > max(alone) / 3, (alone, beside)  # a hundredth of it, were they to wait for each other


def mapped(pid: int) -> list[str]:
    """Files that the process has mapped: shared libraries, among others numpy's."""
    return [line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]


async def test_grid_needs_no_child(store: Store, host: AskHost) -> None:
    drive = Drive(store, new_experiment(store, "grid"))
    answer = await drive.step(host.ask, 30)
    assert len(answer.assignments) == 24
    assert (await drive.step(host.ask, 1)).exhausted
    assert host.pid is None


def test_the_child_ends_with_its_parent(store: Store, database_url: str) -> None:
    drive = Drive(store, new_experiment(store, "random"))
    job = drive.open(1)
    program = f"""
        import asyncio, time
        from activities.asking import AskHost, AskJob
        from evertune.store import open_store

        async def main():
            host = AskHost(open_store({database_url!r}), {database_url!r})
            await host.ask(AskJob({job.uid!r}, 0, 1, 0, 0))
            print(host.pid, flush=True)
            time.sleep(60)

        asyncio.run(main())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], env=child_environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    end = time.monotonic() + 30
    while alive(child):
        assert time.monotonic() < end, "it outlived its parent"
        time.sleep(0.02)
