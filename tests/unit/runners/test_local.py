"""What the local runner does with a Job, and with the machine it runs on."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.oom import Counter
from activities.runners.local.spawn import Tools
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import EnvironmentProblem, LaunchError
from evertune.protocols import Launch
from tests.unit.runners.world import UID, launch, mentioning, ref, sh, until

SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), sys.path]))"


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials")
    yield runner
    runner.close()
    await until(lambda: mentioning(str(tmp_path)) == [])  # nothing stays behind


async def run(runner: LocalRunner, of: Launch) -> AttemptEnd:
    await runner.create(of)
    return await asyncio.wait_for(runner.wait(of.ref), 90)


async def shown(runner: LocalRunner, of: Launch) -> tuple[list[str], dict[str, str], str, list[str]]:
    end = await run(runner, of)
    assert end.state is AttemptState.SUCCEEDED, end
    argv, environment, cwd, path = json.loads(runner.log_path(of.ref).read_text())
    return argv, environment, cwd, path


# -------------------------------------------------------------------------------- arguments and environment


@pytest.mark.parametrize(
    "arguments",
    [
        ["", "two", ""],
        ["größe=3", "学習率", "🚀", "\udcff"],
        ["a\nb", "tab\there", "'single'", '"double"', "back\\slash", "* ? [x]", "-n", "--", "; rm -rf /", "`id`"],
        ["x" * 100_000],
        [],
    ],
)
async def test_arguments_arrive_exactly_as_written(runner: LocalRunner, arguments: list[str]) -> None:
    argv, _, _, _ = await shown(runner, launch(sys.executable, "-c", SHOW, *arguments))
    assert argv == arguments


async def test_variables_arrive_exactly_also_those_that_a_shell_would_lose(runner: LocalRunner) -> None:
    wanted = {"TEXT": "a\nb=c \t'\"", "EMPTY": "", "MY.DOTTED-NAME": "1", "IFS": ",", "PS4": "x", "UML": "größe"}
    of = launch(sys.executable, "-c", SHOW, env=[{"name": name, "value": value} for name, value in wanted.items()])
    _, environment, _, _ = await shown(runner, of)
    assert {name: environment.get(name) for name in wanted} == wanted


async def test_a_large_environment_arrives(runner: LocalRunner) -> None:
    wanted = {f"VARIABLE_{number}": "x" * 1000 for number in range(500)}
    of = launch(sys.executable, "-c", SHOW, env=[{"name": name, "value": value} for name, value in wanted.items()])
    _, environment, _, _ = await shown(runner, of)
    assert wanted.items() <= environment.items()


async def test_what_is_larger_than_the_system_takes_is_refused_in_a_sentence(runner: LocalRunner) -> None:
    of = launch("echo", env=[{"name": "HUGE", "value": "x" * 10_000_000}])
    with pytest.raises(LaunchError, match="longer than this system takes"):
        await runner.create(of)


async def test_a_nul_character_is_refused_in_a_sentence(runner: LocalRunner) -> None:
    with pytest.raises(LaunchError, match="cannot be handed to a process"):
        await runner.create(launch("echo", "a\0b"))


async def test_little_of_the_workers_environment_is_inherited(tmp_path: Path) -> None:
    worker = {
        "HOME": "/home/someone",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": "/tmp",
        "CUDA_HOME": "/cuda",
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONPATH": "/ours",
        "PATH": "/the/workers",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    runner = LocalRunner(tmp_path / "trials", environment=worker)
    of = launch(sys.executable, "-c", SHOW, environment={"VIRTUAL_ENV": "/venv", "PATH": "/usr/bin:/bin"})
    _, environment, _, path = await shown(runner, of)
    runner.close()
    attempt = tmp_path / "trials" / UID / "0" / "0"
    del worker["PYTHONPATH"], worker["AWS_SECRET_ACCESS_KEY"]
    worker["PATH"] = "/usr/bin:/bin"
    assert {name: value for name, value in environment.items() if name not in ("LC_CTYPE", "SHLVL", "_")} == worker | {
        "PWD": "/",
        "VIRTUAL_ENV": "/venv",
        "PYTHONUNBUFFERED": "1",
        "KATIB_TRIAL_NAME": "experiment-00000000",
        "EVERTUNE_TRIAL": "experiment-00000000",
        "EVERTUNE_TRIAL_NUMBER": "0",
        "EVERTUNE_EXPERIMENT": "experiment",
        "EVERTUNE_ATTEMPT": "0",
        "EVERTUNE_PARAMETERS": "{}",
        "EVERTUNE_REPORT_FILE": f"{attempt}/reports",
        "EVERTUNE_STOP_FILE": f"{attempt}/stop",
        "EVERTUNE_EXIT_FILE": f"{attempt}/exit",
        "EVERTUNE_CHECKPOINT_DIR": f"{attempt.parent}/checkpoint",
    }
    assert not [folder for folder in path if "evertune" in folder or folder == "/ours"]


async def test_the_users_own_value_of_pythonunbuffered_stands(runner: LocalRunner) -> None:
    of = launch(sys.executable, "-c", SHOW, env=[{"name": "PYTHONUNBUFFERED", "value": ""}])
    _, environment, _, _ = await shown(runner, of)
    assert environment["PYTHONUNBUFFERED"] == ""


async def test_it_runs_in_the_submitters_directory_or_in_workingdir(runner: LocalRunner, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    show = [sys.executable, "-c", SHOW]
    assert (await shown(runner, launch(*show, of=ref(1), working_dir=str(tmp_path))))[2] == str(tmp_path)
    below = launch(*show, of=ref(2), working_dir=str(tmp_path), workingDir="below")
    assert (await shown(runner, below))[2] == str(tmp_path / "below")


async def test_a_gpu_limit_becomes_visible_devices_spread_over_running_trials(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path / "trials", environment={"CUDA_VISIBLE_DEVICES": "3,5"})
    limits = {"limits": {"nvidia.com/gpu": 1}}
    for number in range(3):
        await runner.create(sh("echo $CUDA_VISIBLE_DEVICES; exec sleep 1000", of=ref(number), resources=limits))
    await until(lambda: all(runner.log_path(ref(number)).read_text() for number in range(3)))
    assert [runner.log_path(ref(number)).read_text().strip() for number in range(3)] == ["3", "5", "3"]
    await asyncio.gather(*(runner.stop(ref(number), reason="over") for number in range(3)))
    both = sh("echo $CUDA_VISIBLE_DEVICES", of=ref(3), resources={"limits": {"nvidia.com/gpu": "2"}})
    await run(runner, both)
    assert runner.log_path(ref(3)).read_text() == "3,5\n"
    with pytest.raises(LaunchError, match=r"asks for 3 nvidia.com/gpu, this machine has 2"):
        await runner.create(launch("echo", of=ref(4), resources={"limits": {"nvidia.com/gpu": 3}}))
    runner.close()


async def test_only_what_stands_in_for_an_image_runs_without_the_gpu_that_this_machine_has_not(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path / "trials", environment={"CUDA_VISIBLE_DEVICES": ""})
    limits = {"limits": {"nvidia.com/gpu": 1}}
    with pytest.raises(LaunchError, match=r"asks for 1 nvidia.com/gpu, this machine has none"):
        await runner.create(sh("echo ran", of=ref(0), resources=limits))
    stands_in = sh("echo ran", of=ref(1), image="cuda", resources=limits)
    end = await run(runner, replace(stands_in, image_roots={"cuda": str(tmp_path)}))
    assert end.state is AttemptState.SUCCEEDED
    assert end.warnings == ("the trial asks for 1 nvidia.com/gpu, this machine has none: what stands in runs without",)
    runner.close()


# --------------------------------------------------------------------------------------------------- endings


async def test_the_exception_of_a_traceback_is_the_reason(runner: LocalRunner) -> None:
    code = "print('epoch 1')\nraise ValueError('degree must be at least 1')"
    end = await run(runner, launch(sys.executable, "-c", code))
    assert end.reason == "exit 1: ValueError: degree must be at least 1"
    assert "epoch 1" in end.message
    assert end.failure is FailureClass.PROGRAM


async def test_a_missing_script_is_refused_before_the_start(runner: LocalRunner) -> None:
    with pytest.raises(LaunchError, match=r"no/such\.py does not exist"):
        await runner.create(launch(sys.executable, "no/such.py"))


async def test_a_command_that_a_shell_does_not_find_is_a_configuration_error(runner: LocalRunner) -> None:
    end = await run(runner, sh("pyhton train.py"))
    assert end.failure is FailureClass.CONFIGURATION
    assert end.reason.startswith("exit 127 (command not found): ")
    assert "pyhton" in end.reason


async def test_killed_by_a_foreign_signal_is_not_the_programs_failure(runner: LocalRunner) -> None:
    end = await run(runner, sh("kill -SEGV $$"))
    assert (end.failure, end.signal, end.exit_code) == (FailureClass.SIGNAL, 11, None)
    assert end.reason == "signal 11 (SIGSEGV)"


async def test_sigkill_with_an_out_of_memory_kill_is_told_apart(
    runner: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 2\noom_kill 1\n")
    monkeypatch.setattr("activities.runners.local.spawn.oom_kills", lambda: Counter(counter, 1))
    end = await run(runner, sh(f"printf 'low 0\\noom_kill 2\\n' >{counter}; kill -KILL $$"))
    assert (end.failure, end.signal) == (FailureClass.OUT_OF_MEMORY, 9)
    counter.write_text("oom_kill 1\n")
    end = await run(runner, sh("kill -KILL $$", of=ref(1)))
    assert end.failure is FailureClass.SIGNAL


async def test_the_shorter_deadline_counts(runner: LocalRunner) -> None:
    of = launch("sleep", "1000", deadline_s=0.2, job={"activeDeadlineSeconds": 500})
    end = await run(runner, of)
    assert (end.failure, end.reason) == (FailureClass.DEADLINE, "ran longer than 0.2 s")


async def test_a_deadline_that_is_not_reached_leaves_no_timer(runner: LocalRunner, tmp_path: Path) -> None:
    end = await run(runner, launch("true", deadline_s=987_654))
    assert end.state is AttemptState.SUCCEEDED
    await until(lambda: mentioning("987654") == [])


async def test_an_explicit_backoff_limit_runs_it_again_in_the_same_attempt(runner: LocalRunner) -> None:
    end = await run(runner, sh("echo run; exit 3", job={"backoffLimit": 2}))
    assert runner.log_path(ref()).read_text() == "run\nrun\nrun\n"
    assert end.exit_code == 3
    assert "3 times" in end.message


async def test_without_a_backoff_limit_a_failure_is_final(runner: LocalRunner) -> None:
    await run(runner, sh("echo run; exit 3"))
    assert runner.log_path(ref()).read_text() == "run\n"


async def test_a_run_again_that_succeeds_is_a_success(runner: LocalRunner, tmp_path: Path) -> None:
    of = sh(f"[ -e {tmp_path}/second ] || {{ : >{tmp_path}/second; exit 1; }}", job={"backoffLimit": 6})
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED


async def test_a_stopped_attempt_is_not_run_again(runner: LocalRunner) -> None:
    of = sh("echo run; exec sleep 1000", job={"backoffLimit": 5})
    await runner.create(of)
    await until(lambda: runner.log_path(ref()).exists() and runner.log_path(ref()).read_text())
    await runner.stop(ref(), reason="over")
    assert (await runner.wait(ref())).state is AttemptState.KILLED
    assert runner.log_path(ref()).read_text() == "run\n"


async def test_what_the_main_process_leaves_running_dies_with_it(runner: LocalRunner, tmp_path: Path) -> None:
    of = sh(f"(exec sleep 1000) & echo $! >{tmp_path}/member; exit 0")
    assert (await run(runner, of)).state is AttemptState.SUCCEEDED
    member = int((tmp_path / "member").read_text())
    await until(lambda: not Path(f"/proc/{member}/cwd").exists())


async def test_the_whole_group_gets_the_signal_and_may_end_gracefully(runner: LocalRunner) -> None:
    of = sh("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    await runner.create(of)
    await until(lambda: runner.log_path(ref()).exists() and "ready" in runner.log_path(ref()).read_text())
    await runner.stop(ref(), reason="paused")
    end = await runner.wait(ref())
    assert "saved" in runner.log_path(ref()).read_text()
    assert (end.state, end.reason) == (AttemptState.KILLED, "paused")


async def test_signals_that_the_worker_ignores_are_not_ignored_in_the_trial(runner: LocalRunner) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        await runner.create(sh("grep -E 'SigIgn|SigBlk' /proc/self/status"))
    finally:
        signal.signal(signal.SIGINT, before)
    await runner.wait(ref())
    for line in runner.log_path(ref()).read_text().splitlines():
        assert int(line.split()[1], 16) % (1 << 31) == 0, line  # those above are the C library's own


async def test_nothing_that_is_open_in_the_worker_is_open_in_the_trial(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    runner = LocalRunner(tmp_path / "trials")
    await run(runner, sh("ls /proc/self/fd | wc -l"))
    assert runner.log_path(ref()).read_text().strip() == "4"  # 0, 1, 2 and the directory that ls reads
    for descriptor in (read, write):
        os.close(descriptor)
    runner.close()


# ------------------------------------------------------------------------------------------------ the machine


async def test_two_hundred_at_once_leave_no_zombie_and_no_open_file(runner: LocalRunner, tmp_path: Path) -> None:
    gc.collect()  # what other tests have left open is closed now, not in the middle
    before, zombies = len(list(Path("/proc/self/fd").iterdir())), _zombies()
    refs = [ref(number) for number in range(200)]
    ends = await asyncio.gather(*(run(runner, sh(f"echo {of.number} >>{tmp_path}/done", of=of)) for of in refs))
    assert {end.state for end in ends} == {AttemptState.SUCCEEDED}
    assert sorted(map(int, (tmp_path / "done").read_text().split())) == list(range(200))
    await until(lambda: _zombies() <= zombies)
    await until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
    assert runner.find_orphans(set()) == []


async def test_a_child_nobody_waits_for_is_reaped(runner: LocalRunner) -> None:
    zombies = _zombies()  # of runners that other tests have closed
    await runner.create(launch("true"))
    await until(lambda: _zombies() <= zombies and not mentioning(str(runner.log_path(ref()).parent)))


async def test_without_pidfds_it_polls(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert (await run(runner, sh("sleep 0.1; exit 4"))).exit_code == 4
    await runner.create(launch("sleep", "1000", of=ref(1)))
    await runner.stop(ref(1), reason="over")
    assert (await runner.wait(ref(1))).state is AttemptState.KILLED


async def test_perl_stands_in_where_setsid_is_missing(tmp_path: Path) -> None:
    for name in ("mv", "sleep", "env", "perl"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    tools = Tools.find()
    perl = str(tmp_path / "perl")
    runner = LocalRunner(tmp_path / "trials", tools=Tools(tools.mv, tools.sleep, tools.env, Tools.perl(perl)))
    await runner.create(launch("sleep", "1000"))
    attempt = Attempt(runner.log_path(ref()).parent)
    await until(attempt.child)
    child = attempt.child()
    assert child is not None
    await until(lambda: os.getpgid(child.pid) == child.pid)
    await runner.stop(ref(), reason="over")
    assert (await runner.wait(ref())).signal == 15
    runner.close()


async def test_orphans_are_those_that_run_and_are_not_known(runner: LocalRunner) -> None:
    await run(runner, launch("true", of=ref(0)))
    for number in (1, 2):
        await runner.create(launch("sleep", "1000", of=ref(number)))
    assert runner.find_orphans({ref(1).key}) == [ref(2)]
    assert runner.find_orphans(set()) == [ref(1), ref(2)]
    await asyncio.gather(*(runner.stop(orphan, reason="StackDown") for orphan in runner.find_orphans(set())))
    assert runner.find_orphans(set()) == []
    assert (await runner.wait(ref(1))).reason == "StackDown"


async def test_a_root_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runner = LocalRunner(tmp_path / "file" / "trials")
    with pytest.raises(EnvironmentProblem, match="cannot be written: Not a directory"):
        await runner.create(launch("true"))
    runner.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_one_sentence(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: real("/dev/full" if "plan" in str(path) else path, *rest))
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        await runner.create(launch("true"))


async def test_private_paths_of_parallel_trials_never_meet(runner: LocalRunner) -> None:
    for number in range(3):
        script = "sleep 0.1; echo $0 >>/katib/mnist.log; cat /katib/mnist.log"
        of = sh(script, of=ref(number), shared_paths=("/katib",), args=[str(number)])
        await runner.create(of)
    for number in range(3):
        assert (await runner.wait(ref(number))).state is AttemptState.SUCCEEDED
        assert runner.log_path(ref(number)).read_text() == f"{number}\n"
    assert not Path("/katib").exists()
    await runner.remove(ref(0))
    assert not runner.directory(ref(0)).exists()


async def test_a_start_is_cheap(runner: LocalRunner) -> None:
    count = 20
    own, all_of_it = time.process_time(), _cpu_s()
    for number in range(count):
        await run(runner, launch("/bin/true", of=ref(number)))
    own, trial = (time.process_time() - own) / count, (_cpu_s() - all_of_it) / count
    interpreter = _interpreter_start()
    print(f"{trial * 1000:.1f} ms a trial, {own * 1000:.1f} of them ours; a Python start: {interpreter * 1000:.1f} ms")
    assert trial < 1.5 * interpreter, "something starts an interpreter for each trial"  # 0.6 without


def _interpreter_start() -> float:
    begun = _cpu_s()
    for _ in range(10):
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (_cpu_s() - begun) / 10


def _cpu_s() -> float:
    """Processor time of this process and of all that it has waited for: what else the machine does is not in it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _zombies() -> set[str]:
    """Children of this process that have ended and were not reaped."""
    listed = subprocess.run(["ps", "-o", "stat=,pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {line.split()[1] for line in listed.stdout.splitlines() if line.startswith("Z")}


def test_the_name_of_an_attempt_is_its_directory(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path)
    path = runner.log_path(AttemptRef("f" * 32, 12, 3, "mnist-bcdfghjk"))
    assert path == tmp_path / ("f" * 32) / "12" / "3" / "log"
