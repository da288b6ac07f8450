"""The user's own collector runs beside its trial, never decides its outcome, and is never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptEnd
from evertune.errors import ConflictError
from evertune.protocols import Launch
from tests.unit.runners.world import mentioning, ref, running, sh, until

UNTIL_THE_END = 'while [ ! -e "$EVERTUNE_EXIT_FILE" ]; do sleep 0.02; done; '


def patient(tmp_path: Path, patience_s: float = 60.0, grace_s: float = 1.0) -> LocalRunner:
    return LocalRunner(tmp_path / "trials", collector_patience_s=patience_s, collector_grace_s=grace_s)


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = patient(tmp_path)
    yield runner
    runner.close()
    await until(lambda: mentioning(str(tmp_path)) == [])  # nothing stays behind


def shell(script: str, **container: Any) -> dict[str, Any]:
    return {"name": "mine", "command": ["/bin/sh", "-c", script.replace("$", "$$")], **container}


def attempt(runner: LocalRunner) -> Attempt:
    return Attempt(runner.log_path(ref()).parent)


def collector(runner: LocalRunner) -> Attempt:
    found = attempt(runner).collector
    assert found is not None
    return found


async def run(runner: LocalRunner, of: Launch) -> AttemptEnd:
    await runner.create(of)
    return await ended(runner)


async def ended(runner: LocalRunner) -> AttemptEnd:
    return await asyncio.wait_for(runner.wait(ref()), 90)


async def test_it_reads_the_trials_file_and_reports_before_the_end_is_told(runner: LocalRunner) -> None:
    script = (
        UNTIL_THE_END + """sed 's/.*/{"metrics": {"&": 1}}/' /katib/mnist.log >>"$EVERTUNE_REPORT_FILE"; echo read"""
    )
    of = sh("echo accuracy >/katib/mnist.log; sleep 0.1", shared_paths=("/katib",), custom_collector=shell(script))
    end = await run(runner, of)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ())
    sources = runner.sources(of, "/katib/mnist.log")
    assert sources.reports is not None
    assert json.loads(sources.reports.read_text()) == {"metrics": {"accuracy": 1}}
    assert sources.printed is not None
    assert sources.printed.read_text() == "read\n"
    assert sources.path is not None, "the last resort, should nobody report the objective"
    assert sources.path.read_text() == "accuracy\n"
    assert runner.log_path(ref()).read_text() == ""


async def test_it_gets_its_own_variables_and_the_trials(runner: LocalRunner) -> None:
    env = [
        {"name": "TrialNamePrefix", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "WHERE", "value": "/katib/x"},
    ]
    mine = {
        "name": "mine",
        "command": ["/bin/echo"],
        "args": ["$(TrialNamePrefix)", "$(WHERE)", "$(EVERTUNE_TRIAL_NUMBER)", "$(EVERTUNE_PARAMETERS)"],
        "env": env,
    }
    await run(runner, sh("true", shared_paths=("/katib",), parameters={"lr": 0.1}, custom_collector=mine))
    private = attempt(runner).files
    assert collector(runner).log.read_text() == f'experiment-00000000 {private}/katib/x 0 {{"lr": 0.1}}\n'


async def test_its_program_is_the_entrypoint_in_the_directory_of_its_image(runner: LocalRunner, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "entrypoint").write_text('#!/bin/sh\necho "$@"\n')
    (image / "entrypoint").chmod(0o755)
    mine = {"image": "example/collector:latest", "args": ["-path", "/katib/mnist.log"]}
    of = sh("true", shared_paths=("/katib",), image_roots={"example/collector": str(image)}, custom_collector=mine)
    end = await run(runner, of)
    assert end.warnings == ()
    assert collector(runner).log.read_text() == f"-path {attempt(runner).files}/katib/mnist.log\n"


async def test_where_it_cannot_run_that_is_a_warning_and_the_file_is_left_to_us(runner: LocalRunner) -> None:
    mine = {"name": "mine", "image": "example/collector", "args": ["-m", "accuracy"]}
    of = sh("echo accuracy=1 >/katib/log", shared_paths=("/katib",), custom_collector=mine)
    end = await run(runner, of)
    assert end.state is AttemptState.SUCCEEDED
    (warning,) = end.warnings
    assert warning.startswith("the custom collector is not run: container mine has no command")
    assert attempt(runner).collector is None
    sources = runner.sources(of, "/katib/log")
    assert sources.path is not None
    assert sources.path.read_text() == "accuracy=1\n"
    assert sources.printed is None


async def test_a_program_that_is_not_there_is_a_warning_too(runner: LocalRunner) -> None:
    end = await run(runner, sh("true", custom_collector={"name": "mine", "command": ["no-such-collector"]}))
    assert end.state is AttemptState.SUCCEEDED
    assert "command 'no-such-collector' is not on PATH" in end.warnings[0]


async def test_its_failure_is_a_warning(runner: LocalRunner) -> None:
    end = await run(runner, sh("sleep 0.1", custom_collector=shell("echo no such column; exit 3")))
    assert (end.state, end.warnings) == (
        AttemptState.SUCCEEDED,
        ("the custom collector failed: exit 3: no such column",),
    )
    again = await ended(runner)
    assert again == end


async def test_a_failed_trial_fails_as_it_would_alone(runner: LocalRunner) -> None:
    end = await run(runner, sh("exit 4", custom_collector=shell(UNTIL_THE_END + "exit 0")))
    assert (end.state, end.exit_code, end.warnings) == (AttemptState.FAILED, 4, ())


@pytest.mark.parametrize("script", ["exec sleep 1000", "trap '' TERM; while :; do sleep 0.05; done"])
async def test_one_that_does_not_end_is_stopped_after_its_time(tmp_path: Path, script: str) -> None:
    runner = patient(tmp_path, patience_s=0.3, grace_s=0.2)
    end = await run(runner, sh("true", custom_collector=shell(f"{script} # {tmp_path}")))
    assert end.state is AttemptState.SUCCEEDED
    (warning,) = end.warnings
    assert warning.startswith("the custom collector still ran 0.3 s after the trial had ended and was stopped")
    await until(lambda: mentioning(str(tmp_path)) == [])
    runner.close()


async def test_its_time_counts_from_the_trials_end_also_for_a_worker_that_comes_later(tmp_path: Path) -> None:
    runner = patient(tmp_path, patience_s=1000)
    of = sh("true", custom_collector=shell(f"sleep 1000 # {tmp_path}"))
    await runner.create(of)
    await until(attempt(runner).over)
    runner.close()
    exited = attempt(runner).directory / "exit"
    os.utime(exited, (exited.stat().st_atime, exited.stat().st_mtime - 2000))
    again = patient(tmp_path, patience_s=1000)
    await again.create(of)
    assert "still ran" in (await ended(again)).warnings[0]
    again.close()
    await until(lambda: mentioning(str(tmp_path)) == [])


async def test_a_stop_ends_both(runner: LocalRunner, tmp_path: Path) -> None:
    of = sh(f"sleep 1000 # {tmp_path}", custom_collector=shell(f"sleep 1000 # {tmp_path}"))
    await runner.create(of)
    await until(lambda: collector(runner).child())
    await asyncio.wait_for(runner.stop(ref(), reason="MaxTrialsReached"), 30)
    await until(lambda: mentioning(str(tmp_path)) == [])
    end = await ended(runner)
    assert (end.state, end.reason, end.warnings) == (AttemptState.KILLED, "MaxTrialsReached", ())


async def test_a_stop_between_the_trials_end_and_its_collectors_does_not_wait_for_it(tmp_path: Path) -> None:
    runner = patient(tmp_path, patience_s=1000)
    await runner.create(sh("true", custom_collector=shell(f"sleep 1000 # {tmp_path}")))
    await until(attempt(runner).over)
    assert runner.find_orphans(set()) == [ref()], "it may be all that is left of the attempt"
    with pytest.raises(ConflictError):
        await runner.remove(ref())
    await asyncio.wait_for(runner.stop(ref(), reason="StackDown"), 30)
    await until(lambda: mentioning(str(tmp_path)) == [])
    end = await ended(runner)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ("the custom collector was stopped: StackDown",))
    assert runner.find_orphans(set()) == []
    await runner.remove(ref())
    assert await ended(runner) == end
    runner.close()


async def test_a_restarted_worker_attaches_to_both(tmp_path: Path, runner: LocalRunner) -> None:
    counted = tmp_path / "counted"
    of = sh(
        f"echo trial >>{counted}; sleep 0.3",
        custom_collector=shell(f"echo collector >>{counted}; {UNTIL_THE_END}"),
    )
    await asyncio.gather(*(runner.create(of) for _ in range(4)))
    again = patient(tmp_path)
    await again.create(of)
    end = await ended(again)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ())
    await again.create(of)
    again.close()
    assert sorted(counted.read_text().split()) == ["collector", "trial"]


async def test_a_worker_that_died_between_the_two_starts_leaves_the_second_to_the_next(runner: LocalRunner) -> None:
    attempt(runner).make()
    attempt(runner).make_collector()
    await runner.create(sh("echo done"))
    await until(attempt(runner).over)
    await runner.create(sh("echo done", custom_collector=shell(UNTIL_THE_END + "echo read")))
    end = await ended(runner)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ())
    assert collector(runner).log.read_text() == "read\n"


async def test_once_the_end_was_told_it_is_not_started_any_more(runner: LocalRunner, tmp_path: Path) -> None:
    attempt(runner).make()
    attempt(runner).make_collector()
    await runner.create(sh("true"))
    end = await ended(runner)
    assert "lost before its command was executed" in end.warnings[0]
    await runner.create(sh("true", custom_collector=shell(f"touch {tmp_path}/started")))
    assert await ended(runner) == end
    assert not (tmp_path / "started").exists()


async def test_its_supervisor_killed_alone_costs_a_warning_and_leaves_nothing(
    runner: LocalRunner, tmp_path: Path
) -> None:
    await runner.create(sh("sleep 0.5", custom_collector=shell(f"sleep 1000 # {tmp_path}")))
    await until(lambda: collector(runner).child())
    supervisor, child = collector(runner).supervisor(), collector(runner).child()
    assert supervisor is not None
    assert child is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    end = await ended(runner)
    assert (end.state, end.warnings) == (
        AttemptState.SUCCEEDED,
        ("the custom collector was lost: its supervisor was killed",),
    )
    await until(lambda: not running(child.pid))


async def test_the_trials_supervisor_killed_alone_takes_the_collector_along(
    runner: LocalRunner, tmp_path: Path
) -> None:
    await runner.create(sh("sleep 1000", custom_collector=shell(f"sleep 1000 # {tmp_path}")))
    await until(lambda: collector(runner).child())
    supervisor = attempt(runner).supervisor()
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    end = await ended(runner)
    assert (end.state, end.warnings) == (AttemptState.LOST, ())
    await until(lambda: mentioning(str(tmp_path)) == [])


async def test_the_token_is_in_no_file_of_the_collector(runner: LocalRunner, tmp_path: Path) -> None:
    mine = shell('echo "${#EVERTUNE_TOKEN}"', args=["$(EVERTUNE_TOKEN)"])
    await run(runner, sh("true", token="et1.k.claims.mac", custom_collector=mine))
    assert collector(runner).log.read_text() == "16\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"et1.k.claims" in path.read_bytes()]


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.unit.runners.test_beside import patient, random_launch, ref
async def main():
    directory = Path(sys.argv[1])
    runner = patient(directory, patience_s=0.3, grace_s=0.2)
    await runner.create(random_launch(directory))
    await runner.wait(ref())
asyncio.run(main())
"""


def start_worker(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(directory)], cwd=Path(__file__).parents[3])


def random_launch(directory: Path) -> Launch:
    counted = directory / "counted"
    return sh(
        f"echo trial >>{counted}; sleep 0.4; echo value=1 # {directory}",
        custom_collector=shell(f"echo collector >>{counted}; {UNTIL_THE_END}exec sleep 0.2 # {directory}"),
    )


@pytest.mark.parametrize("seed", range(10))
async def test_whoever_is_killed_and_when_nothing_runs_twice_and_nothing_is_left(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    worker = start_worker(tmp_path)
    runner = patient(tmp_path, patience_s=0.3, grace_s=0.2)
    await until(lambda: attempt(runner).supervisor() or worker.poll() is not None)
    for _ in range(chance.randrange(1, 4)):
        await asyncio.sleep(chance.random() * 0.4)
        beside = attempt(runner).collector
        owners = [attempt(runner).supervisor(), beside.supervisor() if beside else None]
        victims = [owner.pid for owner in owners if owner is not None and owner.alive()]
        for victim in chance.sample([*victims, worker.pid], chance.randrange(1, len(victims) + 2)):
            if victim != worker.pid or worker.poll() is None:
                with suppress(ProcessLookupError):  # it may have ended since
                    os.kill(victim, signal.SIGKILL)
    if worker.poll() is None:
        worker.kill()
    worker.wait()
    await runner.create(random_launch(tmp_path))
    end = await ended(runner)
    assert end.state in (AttemptState.SUCCEEDED, AttemptState.LOST)
    assert end.state is AttemptState.LOST or runner.log_path(ref()).read_text() == "value=1\n"
    await until(lambda: mentioning(str(tmp_path)) == [])
    counted = tmp_path / "counted"
    executed = counted.read_text().split() if counted.exists() else []
    assert sorted(executed) == sorted(set(executed)), "nothing is executed twice"
    assert runner.find_orphans(set()) == []
    runner.close()
