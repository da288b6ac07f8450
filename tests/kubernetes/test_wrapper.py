"""The wrapper in a trial's container, run by the very busybox that a collector image carries.

Skipped where no static busybox is installed (Debian's package is busybox-static).
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.runners.kubernetes import inject

MARK = "EVERTUNE_TEST_CONTAINER"  # in the environment of all that runs in a container of these tests
SHOW = (
    "import sys, os; sys.stdout.buffer.write(b''.join(os.fsencode(word) + b'\\0' for word in sys.argv[1:])); "
    "sys.stdout.flush()"
)


def static_busybox() -> Path | None:
    found = shutil.which("busybox")
    if found is None:
        return None
    linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=False)
    return Path(found) if linked.returncode or "not a dynamic" in linked.stdout + linked.stderr else None


BUSYBOX = static_busybox()
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="no static busybox is installed (Debian: busybox-static)")


class Container:
    """What the init container leaves in the shared directory, and a main container that runs in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        directory.chmod(0o777)
        assert BUSYBOX is not None
        shutil.copy(BUSYBOX, directory / "busybox")
        shutil.copy(inject.WRAPPER, directory / "wrapper.sh")
        self.started: list[subprocess.Popen[bytes]] = []

    def prefix(self, who: str = "trial", grace_s: int = 30, cap_mib: int = 8) -> list[str]:
        return inject.wrapped(who, grace_s, cap_mib, str(self.directory))

    def start(
        self,
        *argv: str,
        who: str = "trial",
        grace_s: int = 30,
        cap_mib: int = 8,
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        stdin: int | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*before, *self.prefix(who, grace_s, cap_mib), *argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, MARK: str(self.directory), **(environment or {})},
        )
        self.started.append(process)
        return process

    def run(self, *argv: str, **options: object) -> tuple[int, bytes, bytes]:
        process = self.start(*argv, **options)  # type: ignore[arg-type]
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def kill(self) -> None:
        """As the kernel does when a container's first process has ended: all that runs in it, and nobody sees another
        one die."""
        mark = f"{MARK}={self.directory}".encode()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for entry in Path("/proc").iterdir():
                with suppress(OSError):
                    if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                        os.kill(int(entry.name), number)
        for process in self.started:
            process.communicate(timeout=60)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path / "evertune")
    yield made
    made.kill()


def eventually(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, f"not within 60 s: {what}"
        time.sleep(0.02)


def python(text: str) -> list[str]:
    return [sys.executable, "-u", "-c", text]


# ---------------------------------------------------------------------------------------------------- status


@pytest.mark.parametrize("status", [0, 1, 3, 42, 126, 127, 137, 139, 143, 255])
def test_an_exit_status_stays_what_it_was(container: Container, status: int) -> None:
    assert container.run("sh", "-c", f"exit {status}")[0] == status
    assert container.read("exit") == f"{status}\n"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGABRT"])
def test_a_death_by_signal_is_the_status_that_kubernetes_shows(container: Container, name: str) -> None:
    number = signal.Signals[name]

    assert container.run(*python(f"import os; os.kill(os.getpid(), {int(number)})"))[0] == 128 + number


def test_a_command_that_is_not_there_is_127_and_named(container: Container) -> None:
    status, out, _ = container.run("no-such-program", "x")

    assert status == 127
    assert b"no-such-program" in out
    assert "no-such-program" in container.read("log")


def test_a_path_that_is_not_there_is_127(container: Container) -> None:
    assert container.run("/no/such/program")[0] == 127


def test_an_empty_command_is_127(container: Container) -> None:
    assert container.run("")[0] == 127


def test_what_cannot_be_executed_is_126(container: Container, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("text")

    assert container.run(str(tmp_path / "plain"))[0] == 126


def test_the_shell_that_waits_for_the_program_may_be_killed_too(container: Container) -> None:
    """As by the kernel when memory is short: somebody must still say that the trial has ended."""
    process = container.start(*python("import os, time, signal; os.kill(os.getppid(), 9); time.sleep(600)"))

    process.communicate(timeout=60)

    assert process.returncode == 137
    assert container.read("exit") == "137\n"


# ----------------------------------------------------------------------------------------------------- words

NASTY = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "--x=\"{'a': 1}\"",
    "$HOME",
    "$(id)",
    "`id`",
    "$$",
    "*",
    "/*",
    "?",
    "[a-z]",
    "~",
    "-n",
    "-e",
    "--",
    "-",
    "\\",
    "\\n",
    "a\nb",
    "\n",
    "\t",
    ";",
    "&& false",
    "| cat",
    "> x",
    "#",
    "!",
    "{1..3}",
    "é ü ✓ 汉字",
    "%s%n",
    "a=b",
    "END",
    "x" * 100_000,
]


def shown(container: Container, words: Sequence[str], **options: object) -> list[bytes]:
    status, out, err = container.run(*python(SHOW), *words, **options)
    assert status == 0, err
    return out.split(b"\0")[:-1]


def test_arguments_arrive_word_by_word(container: Container) -> None:
    assert shown(container, NASTY) == [os.fsencode(word) for word in NASTY]


def test_arguments_arrive_word_by_word_beside_a_variable_that_no_shell_knows(container: Container) -> None:
    odd = {"my.name": "one\ntwo * $HOME 'x'\n", "-dash": "d", "other-name": ""}
    look = "import os, sys; print(repr([os.environ.get(name) for name in ('my.name', '-dash', 'other-name')]))"

    assert shown(container, NASTY, environment=odd) == [os.fsencode(word) for word in NASTY]
    status, out, _ = container.run(*python(look), environment=odd)
    assert (status, out.decode().strip()) == (0, repr(["one\ntwo * $HOME 'x'\n", "d", ""]))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20), max_size=6
    )
)
def test_any_arguments_arrive_word_by_word(container: Container, words: list[str]) -> None:
    assert shown(container, words) == [os.fsencode(word) for word in words]


def test_the_environment_arrives_as_it_was(container: Container) -> None:
    script = "import os, sys; print(sorted(os.environ.items()))"
    given = {"A": "1", "B": " x ", "PATH": os.environ["PATH"], "HOME": "/", "PWD": str(Path.cwd())}
    process = subprocess.run(
        [*container.prefix(), *python(script)], env=given, capture_output=True, timeout=60, check=True
    )
    bare = subprocess.run(python(script), env=given, capture_output=True, timeout=60, check=True)

    assert process.stdout == bare.stdout


def test_the_images_own_program_runs_and_not_busyboxs_applet(container: Container, tmp_path: Path) -> None:
    """busybox has a `cat` of its own, and prefers it."""
    own = tmp_path / "bin" / "cat"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\necho the image\n")
    own.chmod(0o755)

    assert container.run("cat", environment={"PATH": f"{own.parent}:/usr/bin:/bin"})[1] == b"the image\n"


def test_a_program_is_told_its_own_name(container: Container) -> None:
    assert container.run("bash", "-c", 'read -r -d "" name </proc/self/cmdline; echo "$name"')[1] == b"bash\n"


def test_standard_input_is_the_containers(container: Container) -> None:
    process = container.start("cat", stdin=subprocess.PIPE)

    assert process.communicate(b"hello", timeout=60)[0] == b"hello"


def test_the_programs_umask_is_the_containers(container: Container) -> None:
    before = ["sh", "-c", 'umask 027; exec "$@"', "sh"]

    assert container.run("sh", "-c", "umask", before=before)[1] == b"0027\n"


# ---------------------------------------------------------------------------------------------------- output


def test_output_is_printed_and_kept_in_order(container: Container) -> None:
    status, out, _ = container.run("sh", "-c", "echo one; echo two >&2; echo three")

    assert (status, out) == (0, b"one\ntwo\nthree\n")
    assert container.read("log") == "one\ntwo\nthree\n"


def test_output_is_in_the_log_while_the_program_runs(container: Container) -> None:
    container.start("sh", "-c", "echo loss=1; sleep 600")

    eventually(lambda: (container.directory / "log").exists() and container.read("log") == "loss=1\n", "the line")


def test_much_output_is_whole_when_the_exit_file_appears(container: Container) -> None:
    status, out, _ = container.run(*python("for n in range(60000): print(n)"))

    assert status == 0
    assert out.decode() == container.read("log") == "".join(f"{n}\n" for n in range(60000))


def test_beyond_the_cap_output_is_printed_and_not_kept(container: Container) -> None:
    status, out, err = container.run(*python("print('x' * 99); print('y' * (3 << 20))"), cap_mib=1)

    assert status == 0
    assert len(out) == 100 + (3 << 20) + 1
    assert (container.directory / "log").stat().st_size == 1 << 20
    assert b"first 1 MiB" in err


@pytest.mark.slow
def test_a_daemon_that_keeps_the_output_open_does_not_keep_the_container(container: Container) -> None:
    """In a pod it dies with the container's first process."""
    daemon = 'setsid sh -c \'echo $$; touch "$0"; exec sleep 600\' "$0" & until [ -e "$0" ]; do sleep 0.05; done'
    process = container.start("sh", "-c", daemon, str(container.directory / "away"))

    eventually(lambda: process.poll() is not None, "the end")
    assert process.returncode == 0
    assert alive(int(container.read("log")))


def test_what_the_program_started_ends_with_it(container: Container) -> None:
    _, out, _ = container.run("sh", "-c", "sleep 600 & echo $!")

    eventually(lambda: not alive(int(out)), "the death of a process that was left behind")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------- signals

SLOW_TO_END = """
import os, signal, sys, time
def end(number, frame):
    print("got", signal.Signals(number).name)
    sys.exit(7)
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
    signal.signal(signal.Signals[name], end)
print("ready")
time.sleep(600)
"""


def ready(container: Container, word: str = "ready\n") -> None:
    eventually(lambda: (container.directory / "log").exists() and word in container.read("log"), word)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_signals_reach_the_program_and_its_answer_is_the_status(container: Container, name: str) -> None:
    process = container.start(*python(SLOW_TO_END))
    ready(container)

    process.send_signal(signal.Signals[name])
    process.communicate(timeout=60)

    assert (process.returncode, container.read("log")) == (7, f"ready\ngot {name}\n")


def test_a_signal_reaches_the_children_of_a_shell_too(container: Container) -> None:
    process = container.start("sh", "-c", 'echo ready; "$@"; echo never', "sh", *python(SLOW_TO_END))
    ready(container, "ready\nready\n")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 143
    assert "got SIGTERM" in container.read("log")


def test_a_program_without_a_handler_dies_of_the_signal(container: Container) -> None:
    process = container.start("sh", "-c", "echo ready; exec sleep 600")
    ready(container)

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 143


def test_a_program_that_does_not_listen_is_killed_after_the_grace(container: Container) -> None:
    process = container.start("sh", "-c", "trap '' TERM; echo ready; sleep 600 & wait; wait", grace_s=2)
    ready(container)

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 137


def test_no_signal_is_ignored_at_the_start_of_the_program(container: Container) -> None:
    look = "import signal; print([s.name for s in signal.valid_signals() if s in list(signal.Signals) " \
        "and signal.getsignal(s) == signal.SIG_IGN])"  # fmt: skip
    bare = subprocess.run(python(look), capture_output=True, timeout=60, check=True).stdout

    assert container.run(*python(look))[1] == bare


# ---------------------------------------------------------------------------------------------- stop, restart


def test_the_stop_file_ends_the_program_and_the_container_succeeds(container: Container) -> None:
    process = container.start(*python(SLOW_TO_END))
    ready(container)

    (container.directory / "stop").write_text("the experiment asked for it\n")
    process.communicate(timeout=60)

    assert (process.returncode, container.read("log")) == (0, "ready\ngot SIGTERM\n")


def test_a_stopped_trial_does_not_start_again(container: Container) -> None:
    (container.directory / "stop").write_text("")

    assert container.run("sh", "-c", "echo started")[:2] == (0, b"")


def test_a_restart_in_the_same_pod_appends_and_has_a_status_of_its_own(container: Container) -> None:
    assert container.run("sh", "-c", "echo first; exit 3")[0] == 3
    assert container.run("sh", "-c", "echo second")[0] == 0

    assert container.read("log") == "first\nsecond\n"
    assert container.read("exit") == "0\n"


def test_a_restart_after_sigkill_works_as_well(container: Container) -> None:
    process = container.start("sh", "-c", "echo first; exec sleep 600")
    ready(container, "first\n")
    container.kill()

    assert process.returncode == -signal.SIGKILL
    assert not (container.directory / "exit").exists()
    assert container.run("sh", "-c", "echo second")[0] == 0
    assert container.read("log") == "first\nsecond\n"


def test_the_life_pipe_ends_when_the_wrapper_is_killed(container: Container) -> None:
    process = container.start("sh", "-c", "echo ready; exec sleep 600")
    ready(container)
    ended = threading.Event()
    pipe = (container.directory / "life").open("rb")  # now: without a writer nobody could open it

    def read() -> None:
        with pipe:
            pipe.read()
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert not ended.wait(0.2)
    process.kill()
    assert ended.wait(60)
    reader.join()


# ----------------------------------------------------------------------------------------- another's collector


def test_a_collector_beside_always_succeeds(container: Container) -> None:
    assert container.run("sh", "-c", "echo '{}'; exit 9", who="beside")[0] == 0
    assert container.read("collector/log") == "{}\n"


def test_a_collector_that_failed_stays_until_it_is_told_to_end(container: Container) -> None:
    """As a native sidecar it would be started again and again."""
    process = container.start("sh", "-c", "echo failed; exit 9", who="stay")
    eventually(lambda: (container.directory / "collector" / "exit").exists(), "the collector's end")
    assert process.poll() is None

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 0


def test_a_collector_may_finish_its_work_after_sigterm(container: Container) -> None:
    process = container.start("sh", "-c", "echo ready; while [ ! -e $0/go ]; do sleep 0.05; done; echo value",
                              str(container.directory), who="stay")  # fmt: skip
    eventually(lambda: (container.directory / "collector/log").exists() and "ready" in container.read("collector/log"),
               "ready")  # fmt: skip

    process.send_signal(signal.SIGTERM)
    (container.directory / "go").touch()
    process.communicate(timeout=60)

    assert (process.returncode, container.read("collector/log")) == (0, "ready\nvalue\n")


def test_a_collector_that_never_ends_is_terminated_after_the_grace(container: Container) -> None:
    process = container.start("sh", "-c", "echo ready; sleep 600", who="stay", grace_s=1)
    eventually(lambda: (container.directory / "collector/log").exists(), "the log")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 0


# ------------------------------------------------------------------------------------------------ other users


def test_files_can_be_read_and_reported_to_by_other_users(container: Container) -> None:
    container.run("true", before=["sh", "-c", 'umask 077; exec "$@"', "sh"])

    assert stat.S_IMODE((container.directory / "reports").stat().st_mode) == 0o666
    assert stat.S_IMODE((container.directory / "log").stat().st_mode) & 0o444 == 0o444


@pytest.fixture
def nobodys() -> Iterator[Container]:
    """In a directory that any user can reach, which pytest's are not."""
    if os.getuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("needs root, unshare and setpriv, to make a container's surroundings")
    with tempfile.TemporaryDirectory(prefix="evertune-") as directory:
        Path(directory).chmod(0o755)
        made = Container(Path(directory) / "evertune")
        yield made
        made.kill()


NOBODY = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
]


def test_a_directory_that_cannot_be_written_is_said(nobodys: Container) -> None:
    nobodys.directory.chmod(0o755)

    status, _, err = nobodys.run("true", before=[*NOBODY, "--"])

    assert status == 125
    assert b"cannot be written to" in err


def test_it_runs_as_nobody_without_capabilities_on_a_read_only_root(nobodys: Container) -> None:
    bound = f"mount --bind {nobodys.directory} {nobodys.directory} && mount -o remount,ro,bind / || exit 99"
    shell = f'{bound}; exec {" ".join(NOBODY)} -- "$@"'
    before = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", shell, "sh"]

    status, out, err = nobodys.run("sh", "-c", "id -u; touch /x; exit 42", before=before)

    if b"unshare:" in err or status == 99:
        pytest.skip(f"no namespace with a read-only root here: {err.decode().strip()}")
    assert status == 42
    assert out.startswith(b"65534\n")
    assert b"Read-only file system" in out
    assert nobodys.read("log") == out.decode()
