"""Starts a supervisor: the argv of `supervisor.sh`, the programs it needs, and what it inherits. Called by `runner`."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from activities.runners.local.attempt import Attempt
from activities.runners.local.command import Command
from activities.runners.local.identity import boot_id
from activities.runners.local.oom import oom_kills
from evertune.errors import EnvironmentProblem, LaunchError
from evertune.protocols import Launch

DEADLINE_GRACE_S = 10

# What a shell would change, or drop, on the way from our environment to the user's process: env(1) carries these.
SHELL_OWN = {"IFS", "OPTARG", "OPTIND", "PPID", "PS1", "PS2", "PS4", "LINENO", "_"}
_PERL_SETSID = "use POSIX; POSIX::setsid(); exec { $ARGV[0] } @ARGV; exit 127"


@dataclass(frozen=True, slots=True)
class Tools:
    """The few programs that a supervisor needs, by absolute path: the user's PATH is not ours to rely on."""

    mv: str
    sleep: str
    env: str
    setsid: tuple[str, ...]

    @classmethod
    def find(cls, path: str | None = None) -> Tools:
        folders = os.pathsep.join([path or os.environ.get("PATH", ""), "/usr/bin", "/bin"])

        def tool(name: str) -> str:
            found = shutil.which(name, path=folders)
            if found is None:
                raise EnvironmentProblem(f"the program {name} is not on this machine", "local trials need it")
            return str(Path(found).absolute())

        setsid = shutil.which("setsid", path=folders)
        launcher = (str(Path(setsid).absolute()),) if setsid else cls.perl(tool("perl"))
        return cls(mv=tool("mv"), sleep=tool("sleep"), env=tool("env"), setsid=launcher)

    @staticmethod
    def perl(path: str) -> tuple[str, ...]:
        """The launcher where there is no setsid(1): macOS."""
        return path, "-e", _PERL_SETSID


def spawn(tools: Tools, launch: Launch, attempt: Attempt, command: Command, lock: int) -> int:
    """Hand the attempt's locked `lock` to a supervisor; its pid. LaunchError for what the system does not take."""
    attempt.write_plan(command.plan(launch))
    environment, odd = _split(command.environment)
    carried = [tools.env, *(f"{name}={value}" for name, value in odd.items())] if odd else []
    counter = oom_kills()
    argv = [
        "/bin/sh",
        str(Path(__file__).with_name("supervisor.sh")),
        str(attempt.directory),
        boot_id(),
        command.cwd,
        str(command.runs),
        _seconds(command.deadline_s),
        str(DEADLINE_GRACE_S),
        str(counter.file) if counter else "",
        str(counter.count) if counter else "0",
        tools.mv,
        tools.sleep,
        str(command.restarts_from),
        command.shared_restarts,
        str(command.most_restarts),
        *tools.setsid,
        *carried,
        *command.argv,
    ]
    log = os.open(attempt.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return os.posix_spawn(
            "/bin/sh",
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, lock, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=_DEFAULT_SIGNALS,
        )
    except (OSError, ValueError) as error:
        raise _cannot_spawn(error) from error
    finally:
        os.close(log)


# Python ignores some signals, and whoever started the worker may have had it ignore others.
_DEFAULT_SIGNALS = [
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
]  # fmt: skip


def keep_descriptors() -> None:
    """What this process was given open, a pipe of the shell that started it say, must not live as long as a trial."""
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        with suppress(OSError):  # the one that listed the directory
            if descriptor > 2:
                os.set_inheritable(descriptor, False)


def _seconds(deadline: float | None) -> str:
    """For sleep(1), where 0 means that there is no deadline."""
    return "0" if deadline is None else f"{max(deadline, 0.001):.3f}".rstrip("0").rstrip(".")


def _split(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    odd = {
        name: value
        for name, value in environment.items()
        if name in SHELL_OWN or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    }
    return {name: value for name, value in environment.items() if name not in odd}, odd


def _cannot_spawn(error: OSError | ValueError) -> LaunchError | EnvironmentProblem:
    if isinstance(error, ValueError):
        return LaunchError(f"command or environment cannot be handed to a process: {error}")
    if error.errno == errno.E2BIG:
        return LaunchError("command and environment are longer than this system takes", "pass large values in a file")
    return EnvironmentProblem(f"no process can be started: {error.strerror}", "see `ulimit -u` and free memory")


def unusable(directory: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the attempt's directory {directory} cannot be written: {error.strerror}",
        "free space, or set EVERTUNE_HOME to a directory that can be written",
    )
