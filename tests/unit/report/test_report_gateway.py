"""`report` in a trial that has only a gateway: what is delivered, when, and what happens when the gateway fails."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evertune.testing.gateway import FakeGateway
from tests.ports import free_port
from tests.unit.report.programs import TRIAL, beside_a_gateway, run, start, values

OFFSETS = 1 << 42


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway(port=free_port()) as served:
        yield served


def until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_all_that_was_reported_is_delivered_when_the_program_ends(gateway: FakeGateway, tmp_path: Path) -> None:
    _, err = run("for i in range(1200): report(loss=i, text='é', step=i)", beside_a_gateway(gateway, tmp_path))
    points = [point for point in gateway.points(TRIAL) if point.metric == "loss"]
    assert [point.value for point in points] == [str(i) for i in range(1200)]
    assert [point.step for point in points] == list(range(1200))
    assert all(point.timestamp for point in points)
    assert {point.seq // OFFSETS for point in points} == {1}
    assert {point.value for point in gateway.points(TRIAL) if point.metric == "text"} == {"é"}
    assert err == ""


def test_points_arrive_while_the_program_runs(gateway: FakeGateway, tmp_path: Path) -> None:
    process = start("report(loss=1); time.sleep(60)", beside_a_gateway(gateway, tmp_path))
    until(lambda: values(gateway) == ["1"])
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_gateway_that_is_away_at_first_gets_everything_later(gateway: FakeGateway, tmp_path: Path) -> None:
    environment = beside_a_gateway(gateway, tmp_path)
    gateway.down()
    process = start("for i in range(50): report(loss=i)\nprint('told', flush=True)\ntime.sleep(1.5)", environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "told\n"
    time.sleep(1.0)
    gateway.up()
    _, err = process.communicate(timeout=100)
    assert values(gateway) == [str(i) for i in range(50)]
    assert err == ""


def test_what_a_program_could_not_deliver_the_next_process_of_the_trial_does(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    environment = beside_a_gateway(gateway, tmp_path, EVERTUNE_FLUSH_S="0.3")
    gateway.down()
    _, err = run("report(loss=1)", environment)
    assert "not all reports of trial short-1 are delivered; they wait in" in err
    gateway.up()
    run("report(loss=2)", beside_a_gateway(gateway, tmp_path))
    assert values(gateway) == ["1", "2"]


def test_a_key_rotation_between_two_processes_does_not_hide_the_spool(gateway: FakeGateway, tmp_path: Path) -> None:
    environment = beside_a_gateway(gateway, tmp_path, EVERTUNE_FLUSH_S="0")
    gateway.down()
    run("report(loss=1)", environment)
    gateway.up()
    gateway.rotate()
    run("report(loss=2)", beside_a_gateway(gateway, tmp_path))
    assert values(gateway) == ["1", "2"]


def test_a_spool_that_was_lost_with_its_container_costs_no_later_point(gateway: FakeGateway, tmp_path: Path) -> None:
    for value in (1, 2):
        run(f"report(loss={value})", beside_a_gateway(gateway, tmp_path / str(value)))
    assert sorted(values(gateway)) == ["1", "2"]


@pytest.mark.parametrize("status", [429, 500, 503, 404, 302])
def test_a_gateway_that_asks_for_patience_gets_it(status: int, gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.fail(status, times=2, retry_after_s=1 if status == 429 else None)
    began = time.monotonic()
    _, err = run("report(loss=1)", beside_a_gateway(gateway, tmp_path))
    assert values(gateway) == ["1"]
    assert err == ""
    assert status != 429 or time.monotonic() - began >= 2.0


def test_an_answer_that_is_not_the_gateways_counts_as_none(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.fail(200, times=2)
    run("report(loss=1)", beside_a_gateway(gateway, tmp_path))
    assert values(gateway) == ["1"]


@pytest.mark.parametrize("status", [401, 403, 410])
def test_a_refusal_for_ever_ends_the_sending_with_one_warning(
    status: int, gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.fail(status, times=100)
    program = "report(loss=1); flush(60)\nfor i in range(3): report(loss=i); flush(1)"
    _, err = run(program, beside_a_gateway(gateway, tmp_path))
    assert err.count("\n") == 1
    assert f"the gateway takes no more reports of trial short-1: {status} the test asks for it" in err
    assert gateway.requests == 1


def test_a_program_learns_from_answers_that_it_should_stop(gateway: FakeGateway, tmp_path: Path) -> None:
    environment = beside_a_gateway(gateway, tmp_path)
    gateway.ask_to_stop(TRIAL)
    program = "print(should_stop()); report(loss=1); flush(60); print(should_stop())"
    assert run(program, environment)[0] == "False\nTrue\n"


def test_a_process_that_does_not_send_itself_learns_it_as_well(gateway: FakeGateway, tmp_path: Path) -> None:
    environment = beside_a_gateway(gateway, tmp_path)
    gateway.ask_to_stop(TRIAL)
    run("report(loss=1)", environment)
    assert run("print(should_stop())", environment)[0] == "True\n"


def test_a_program_that_only_asks_whether_to_stop_is_told(gateway: FakeGateway, tmp_path: Path) -> None:
    environment = beside_a_gateway(gateway, tmp_path)
    gateway.ask_to_stop(TRIAL)
    program = "module.POLL_S = 0.1\nwhile not should_stop(): time.sleep(0.05)\nprint('stopped')"
    assert run(program, environment)[0] == "stopped\n"


def test_a_point_that_the_gateway_refuses_costs_no_other_one(gateway: FakeGateway, tmp_path: Path) -> None:
    program = """
module.MAX_NAME = 10000
for i in range(40): report({"n" * 600 if i == 17 else "loss": i})
"""
    _, err = run(program, beside_a_gateway(gateway, tmp_path))
    assert values(gateway) == [str(i) for i in range(40) if i != 17]
    first, last = err.splitlines()
    assert "the gateway refuses a point of trial short-1: 422 points[0].metric" in first
    assert last == "evertune: 1 points of trial short-1 are lost"


def test_the_spool_has_a_limit_and_beyond_it_points_are_dropped_and_counted(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    environment = beside_a_gateway(gateway, tmp_path, EVERTUNE_SPOOL_MIB="1", EVERTUNE_FLUSH_S="0")
    gateway.down()
    _, err = run("for i in range(100): report(loss=i, text='x' * 20000)", environment)
    assert err.splitlines()[0].startswith(
        "evertune: points are dropped from now on: the gateway has not taken the 1 MiB"
    )
    assert "points of trial short-1 are lost" in err.splitlines()[-1]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1.1 * 2**20
    gateway.up()
    run("report(loss='after')", beside_a_gateway(gateway, tmp_path))
    kept = values(gateway)
    assert kept == [*[str(i) for i in range(len(kept) - 1)], "after"]
    assert 40 < len(kept) < 60


def test_where_no_spool_can_be_written_points_go_from_memory(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    environment = beside_a_gateway(gateway, tmp_path / "file" / "spool")
    for process in (0, 1):
        _, err = run(f"for i in range(600): report(loss={process} * 600 + i)", environment)
        assert err == ""
    assert sorted(map(int, values(gateway))) == list(range(1200))


def test_a_proxy_in_the_environment_is_not_used(gateway: FakeGateway, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    environment = beside_a_gateway(gateway, tmp_path, http_proxy=nowhere, HTTP_PROXY=nowhere, ALL_PROXY=nowhere)
    run("report(loss=1)", environment)
    assert values(gateway) == ["1"]


def test_the_spool_is_private_where_no_directory_is_given(gateway: FakeGateway, tmp_path: Path) -> None:
    environment = beside_a_gateway(gateway, tmp_path, TMPDIR=str(tmp_path), EVERTUNE_SPOOL_DIR="")
    run("report(loss=1)", environment)
    (folder,) = tmp_path.glob("evertune-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    for file in folder.iterdir():
        file.unlink()
    run("report(loss=2)", environment)
    assert list(folder.iterdir()) == []
    assert sorted(values(gateway)) == ["1", "2"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_https_trusts_the_authority_that_is_given_and_no_other(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    making = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*making.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FakeGateway(tls=context) as gateway:
        environment = beside_a_gateway(gateway, tmp_path / "spool", EVERTUNE_FLUSH_S="2")
        _, err = run("report(loss=1)", environment)
        assert "not all reports" in err
        assert values(gateway) == []
        run("report(loss=2)", {**environment, "EVERTUNE_FLUSH_S": "30", "EVERTUNE_CA_FILE": str(certificate)})
        assert values(gateway) == ["1", "2"]
