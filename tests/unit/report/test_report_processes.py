"""Several processes of a trial report through one spool: forked, spawned, killed, while the gateway comes and goes."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evertune.testing.gateway import FakeGateway
from tests.ports import free_port
from tests.repository.checkout import ROOT
from tests.unit.report.programs import HEAD, beside_a_gateway, run, start, values

POOL = """
import multiprocessing
def work(name):
    for i in range(100): report(loss=f"{name}-{i}")
if __name__ == "__main__":
    report(loss="parent")
    context = multiprocessing.get_context("METHOD")
    children = [context.Process(target=work, args=(n,)) for n in range(3)]
    for child in children: child.start()
    for child in children: child.join()
    assert all(child.exitcode == 0 for child in children)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_processes_of_multiprocessing_report_is_delivered_once(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(HEAD + POOL.replace("METHOD", method))
    with FakeGateway() as gateway:
        environment = beside_a_gateway(gateway, tmp_path / "spool", PYTHONPATH=str(ROOT))
        run(f"os.execv(sys.executable, [sys.executable, {str(program)!r}])", environment)
        expected = ["parent", *[f"{n}-{i}" for n in range(3) for i in range(100)]]
        assert sorted(values(gateway)) == sorted(expected)


def test_a_child_that_reports_alone_delivers_although_its_parent_never_does(tmp_path: Path) -> None:
    program = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=report, kwargs={"loss": 1})
child.start(); child.join()
"""
    with FakeGateway() as gateway:
        run(program, beside_a_gateway(gateway, tmp_path))
        assert values(gateway) == ["1"]


def test_a_fork_in_the_middle_of_reporting_and_sending_never_hangs(tmp_path: Path) -> None:
    program = """
import threading, warnings
warnings.simplefilter("ignore")
going = True
def work(n):
    i = 0
    while going:
        report(loss=f"thread{n}-{i}"); i += 1; time.sleep(0.0005)
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
[t.start() for t in threads]
for k in range(30):
    pid = os.fork()
    if not pid:
        report(loss=f"child-{k}"); flush(5); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
going = False
[t.join() for t in threads]
"""
    with FakeGateway(next_after_s=0.05, limited=False) as gateway:
        run(program, beside_a_gateway(gateway, tmp_path))
        found = values(gateway)
        assert len(found) == len(set(found))
        assert {f"child-{k}" for k in range(30)} <= set(found)


def test_two_processes_at_once_send_each_point_once(tmp_path: Path) -> None:
    with FakeGateway(next_after_s=5.0, limited=False) as gateway:
        environment = beside_a_gateway(gateway, tmp_path)
        # Whoever ends first waits for the other one, which sends for both.
        program = "module.EXIT_SHARED_S = 60.0\nfor i in range(2000): report(loss='NAME-%d' % i)"
        both = [start(program.replace("NAME", name), environment) for name in "ab"]
        for process in both:
            _, err = process.communicate(timeout=100)
            assert (process.returncode, err) == (0, "")
        found = values(gateway)
        assert sorted(found) == sorted(f"{name}-{i}" for name in "ab" for i in range(2000))
        assert gateway.requests < 60  # and not each of them twice


LOOP = """
import itertools
for i in itertools.count():
    report(loss=f"NAME-{i}", other=i, step=i)
    os.write(1, b"%d\\n" % i)
    time.sleep(PAUSE)
"""


def _read(descriptor: int, seconds: float) -> bytes:
    data, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            data += os.read(descriptor, 1 << 16)
    return data


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lives=st.lists(
        st.tuples(
            st.floats(0.15, 0.9),  # seconds until the kill
            st.sampled_from([0.0, 0.0005, 0.02]),  # between reports
            st.sampled_from(["up", "down", "returns", "leaves", "slow", "busy"]),
        ),
        min_size=1,
        max_size=3,
    )
)
@pytest.mark.chaos
def test_whatever_is_killed_each_report_that_returned_is_delivered_exactly_once(
    lives: list[tuple[float, float, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool = tmp_path_factory.mktemp("spool")
    with FakeGateway(next_after_s=0.05, limited=False, port=free_port()) as gateway:
        environment = beside_a_gateway(gateway, spool)
        returned: list[str] = []
        for life, (seconds, pause, weather) in enumerate(lives):
            gateway.latency_s = 0.2 if weather == "slow" else 0.0
            if weather in ("down", "returns"):
                gateway.down()
            if weather == "busy":
                gateway.fail(503, times=2)
            process = start(LOOP.replace("NAME", str(life)).replace("PAUSE", str(pause)), environment)
            assert process.stdout is not None
            told = _read(process.stdout.fileno(), seconds / 2)
            {"returns": gateway.up, "leaves": gateway.down}.get(weather, lambda: None)()
            told += _read(process.stdout.fileno(), seconds / 2)
            os.kill(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            told += out.encode()
            returned += [f"{life}-{i}" for i in told.decode().split("\n")[:-1]]
            gateway.down()
            gateway.up()
        gateway.latency_s = 0.0
        run("report(end=1); assert flush(60)", environment)

        stored = gateway.points("short-1")
        assert len({(point.metric, point.seq) for point in stored}) == len(stored)
        found = [point.value for point in stored if point.metric == "loss"]
        assert len(set(found)) == len(found)
        assert set(returned) <= set(found)
        assert len(found) - len(set(returned)) <= len(lives)  # at most the report that a kill interrupted
        assert len([point for point in stored if point.metric == "other"]) == len(found)
