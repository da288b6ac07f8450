"""`python -m collectors` as a process, against a gateway that answers, is away, is slow, refuses, or wants an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collectors.__main__ import GRACE_S
from tests.ports import free_port
from tests.repository.checkout import ROOT
from tests.unit.collectors.endpoint import Gateway

SPEC = json.dumps({"kind": "StdOut", "metrics": ["loss"]})


def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Trial:
    """A folder in which a trial writes and a sidecar reads."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.exit = folder / "exit"
        self.stop = folder / "stop"
        self.environment = {
            "PATH": os.environ["PATH"],
            "EVERTUNE_COLLECTOR": SPEC,
            "EVERTUNE_INGEST_URL": f"http://127.0.0.1:{port}",
            "EVERTUNE_TOKEN": "et1.k.c.m",
            "EVERTUNE_TRIAL": "exp-1",
            "EVERTUNE_LOG_FILE": str(self.log),
            "EVERTUNE_NOTES_DIR": str(folder / "notes"),
            "EVERTUNE_REPORT_FILE": str(folder / "reports"),
            "EVERTUNE_STOP_FILE": str(self.stop),
            "EVERTUNE_EXIT_FILE": str(self.exit),
        }

    @contextmanager
    def sidecar(self, *flags: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, "-m", "collectors", *flags],
            cwd=ROOT,
            env=self.environment | environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def say(self, *lines: str) -> None:
        with self.log.open("a") as log:
            log.writelines(line + "\n" for line in lines)


def catches_sigterm(process: subprocess.Popen[str]) -> bool:
    """Since it has begun its work."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def ended(process: subprocess.Popen[str]) -> str:
    """What it said on standard error, once it has ended well."""
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    return said


def test_points_arrive_while_the_trial_runs_and_final_when_it_has_ended(tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        with trial.sidecar() as process:
            trial.say("loss=3", "loss=2")
            begun = time.monotonic()
            until(lambda: gateway.values() == ["3", "2"])
            print(f"{time.monotonic() - begun:.2f} s after the lines, the start of Python included")
            (tmp_path / "reports").write_text('{"metrics": {"acc": 0.5}, "step": 4, "time": 1732620000.5}\n')
            until(lambda: gateway.values("acc") == ["0.5"])
            with trial.log.open("a") as log:
                log.write("loss=1")  # no newline
            trial.exit.write_text("0\n")
            assert ended(process) == ""
    assert gateway.values() == ["3", "2", "1"]
    assert gateway.final
    assert not any(report["final"] for report in gateway.reports[:-1])
    assert gateway.paths == {("/ingest/v1/trials/exp-1/reports", "Bearer et1.k.c.m")}
    assert len(gateway.connections) == 1
    (pushed,) = [point for (name, _), point in gateway.points.items() if name == "acc"]
    assert (pushed["step"], pushed["timestamp"]) == (4, 1732620000.5)


def test_a_token_in_a_file_is_read_again_for_each_report_and_waited_for(tmp_path: Path) -> None:
    gateway = Gateway()
    token = tmp_path / "token"
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        with trial.sidecar(EVERTUNE_TOKEN_FILE=str(token)) as process:
            trial.say("loss=3")
            assert process.stderr is not None
            said = process.stderr.readline()
            assert gateway.reports == []
            token.write_text("first\n")
            until(lambda: gateway.values() == ["3"])
            (tmp_path / "new").write_text("second")
            (tmp_path / "new").replace(token)
            trial.say("loss=2")
            until(lambda: gateway.values() == ["3", "2"])
            trial.exit.write_text("0\n")
            said += ended(process)
    assert {authorization for _, authorization in gateway.paths} == {"Bearer first", "Bearer second"}
    assert "the token cannot be read" in said
    assert len(gateway.connections) == 1


def test_killed_and_started_again_it_sends_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        for round in range(4):
            with trial.sidecar() as process:
                trial.say(*(f"loss={round * 100 + number}" for number in range(100)))
                until(lambda: len(gateway.points) > round * 100)  # noqa: B023
                process.kill()
        trial.exit.touch()
        with trial.sidecar() as process:
            ended(process)
    assert gateway.values() == [str(number) for number in range(400)]
    assert gateway.again <= 400, "what was acknowledged is not sent again, but for the last batch before a kill"
    assert gateway.final


def test_a_gateway_that_is_away_costs_nothing_but_time(tmp_path: Path) -> None:
    gateway, port = Gateway(), free_port()
    trial = Trial(tmp_path, port)
    trial.say(*(f"loss={number}" for number in range(2500)))
    with trial.sidecar() as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        trial.exit.touch()
        time.sleep(0.5)
        with gateway.open(port):
            said += ended(process)
    assert gateway.values() == [str(number) for number in range(2500)]
    assert [len(report["points"]) for report in gateway.reports] == [1000, 1000, 500, 0]
    assert gateway.final
    assert said.count("they wait") == 1
    assert "takes reports again" in said


def test_refusals_that_pass_are_waited_for_as_long_as_the_gateway_says(tmp_path: Path) -> None:
    gateway = Gateway(refusals=[(429, {"Retry_After": "0.1"}), (503, {"Retry_After": "0"}), (500, {}), (404, {})])
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        trial.say("loss=1")
        trial.exit.touch()
        with trial.sidecar() as process:
            ended(process)
    assert gateway.values() == ["1"]
    assert gateway.final


def test_a_report_that_the_gateway_finds_wrong_is_left_out_and_said(tmp_path: Path) -> None:
    gateway = Gateway(refusals=[(422, {})])
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        trial.say(*(f"loss={number}" for number in range(1500)))
        trial.exit.touch()
        with trial.sidecar() as process:
            said = ended(process)
    assert gateway.values() == [str(number) for number in range(1000, 1500)]
    assert "the gateway refuses a report, it is left out: status 422" in said
    assert gateway.final


def test_when_the_gateway_wants_an_end_the_stop_file_appears(tmp_path: Path) -> None:
    gateway = Gateway(answer={"next_after_s": 0.0, "stop": True})
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        with trial.sidecar() as process:
            trial.say("loss=1")
            until(trial.stop.exists)
            assert process.poll() is None
            process.terminate()
            ended(process)
    assert gateway.final


def test_sigterm_sends_what_is_left(tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        with trial.sidecar() as process:
            trial.say("loss=2")
            until(lambda: gateway.values() == ["2"])
            trial.say("loss=1")
            process.send_signal(signal.SIGTERM)
            ended(process)
    assert gateway.values() == ["2", "1"]
    assert gateway.final


def test_with_the_gateway_away_sigterm_ends_it_within_the_grace(tmp_path: Path) -> None:
    trial = Trial(tmp_path, free_port())
    trial.say("loss=2")
    with trial.sidecar("--grace-s", "1") as process:
        until(lambda: catches_sigterm(process))
        process.terminate()
        begun = time.monotonic()
        assert "left to the log" in ended(process)
        assert time.monotonic() - begun < GRACE_S


def test_the_life_pipe_and_the_process_tell_the_end_too(tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        pipe = tmp_path / "life"
        os.mkfifo(pipe)
        trial.say("loss=2")
        with trial.sidecar("--life", str(pipe)) as process:
            holder = os.open(pipe, os.O_RDWR)
            until(lambda: gateway.values() == ["2"])
            time.sleep(0.6)
            assert process.poll() is None
            os.close(holder)
            ended(process)
        assert gateway.final
        with subprocess.Popen(["sleep", "1"]) as program:
            with trial.sidecar("--until-pid", str(program.pid)) as process:
                ended(process)
            assert program.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"EVERTUNE_COLLECTOR": "{"}, "EVERTUNE_COLLECTOR is not a collector as JSON"),
        ({"EVERTUNE_COLLECTOR": '{"kind": "StdOut", "metrics": ["a"], "filters": ["("]}'}, "regular expression of RE2"),
        ({"EVERTUNE_COLLECTOR": '{"kind": "File", "metrics": ["a"]}'}, "needs a path"),
        ({"EVERTUNE_INGEST_URL": "ftp://x"}, "not the address of a gateway"),
        ({"EVERTUNE_LOG_FILE": ""}, "needs --notes and --log"),
        ({"EVERTUNE_GRACE_S": "soon"}, "cannot start like this"),
        ({"EVERTUNE_NOTES_DIR": "/dev/null/notes"}, "Not a directory"),
    ],
)
def test_what_it_cannot_start_with_is_one_sentence_and_no_failure(
    environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    with Trial(tmp_path, 1).sidecar(**environment) as process:
        lines = ended(process)
    assert said in lines
    assert "Traceback" not in lines
    assert lines.rstrip().endswith("nothing is collected")


def test_a_failure_that_is_followed_by_a_restart_is_not_the_end(tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        with trial.sidecar(EVERTUNE_RESTARTS="1") as process:
            trial.say("loss=2")
            trial.exit.write_text("1\n")
            until(lambda: gateway.values() == ["2"])
            time.sleep(1.2)
            assert process.poll() is None
            trial.exit.unlink()
            trial.say("loss=1")
            trial.exit.write_text("0\n")
            ended(process)
        assert gateway.values() == ["2", "1"]
        assert gateway.final


def test_the_users_own_collector_may_end_after_the_trial_and_what_it_printed_counts(tmp_path: Path) -> None:
    gateway = Gateway()
    printed, beside = tmp_path / "printed", tmp_path / "beside-exit"
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        told = {
            "EVERTUNE_COLLECTOR": json.dumps({"kind": "Custom", "metrics": ["loss"]}),
            "EVERTUNE_PRINTED_FILE": str(printed),
            "EVERTUNE_BESIDE_EXIT_FILE": str(beside),
        }
        with trial.sidecar(**told) as process:
            trial.exit.write_text("0\n")
            until(lambda: catches_sigterm(process))
            time.sleep(0.5)
            assert process.poll() is None
            printed.write_text('ready\n{"metrics": {"loss": 3}}\n')
            beside.write_text("0\n")
            ended(process)
        assert [float(value) for value in gateway.values()] == [3.0]
        assert gateway.final


@pytest.mark.parametrize("role", ["", "worker"])
def test_in_a_pod_that_does_not_report_it_waits_for_the_end_and_sends_nothing(role: str, tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        trial.say("loss=2")
        with trial.sidecar(EVERTUNE_ROLE=role) as process:
            until(lambda: catches_sigterm(process))
            time.sleep(0.3)
            assert process.poll() is None
            trial.exit.write_text("0\n")
            assert "another pod reports" in ended(process)
        with trial.sidecar(EVERTUNE_ROLE=role, EVERTUNE_EXIT_FILE="") as process:
            until(lambda: catches_sigterm(process))
            process.terminate()
            ended(process)
    assert gateway.reports == []


def test_the_pod_whose_role_is_wanted_reports(tmp_path: Path) -> None:
    gateway = Gateway()
    with gateway.open() as port:
        trial = Trial(tmp_path, port)
        trial.say("loss=2")
        trial.exit.write_text("0\n")
        with trial.sidecar(EVERTUNE_ROLE="0/worker", EVERTUNE_PRIMARY_ROLE="0/worker") as process:
            ended(process)
    assert gateway.values() == ["2"]
