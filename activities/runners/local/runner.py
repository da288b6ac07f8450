"""Runs attempts as processes of this machine that survive the worker. Implements `protocols.TrialRunner`.

`create` takes the attempt's lock and hands it to a supervisor (`supervisor.sh`), which claims the directory and runs
the command; from then on the directory alone says what happened, to this worker or to any later one on this host.
Decides nothing about retries, budgets or metrics.

A collector of the user's own is started in the same way in a directory of its own below the attempt's (`beside` says
what becomes of it). `wait`, `stop` and `find_orphans` mean both.

A Job's `backoffLimit`, only when the manifest sets it above 0, runs a failing command again within the same attempt, at
once and with the same log; the metrics of all runs count. Kubernetes' default of 6 is not applied: evertune retries
what is worth retrying by itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from activities.runners.local import beside, paths
from activities.runners.local.attempt import Attempt
from activities.runners.local.command import Command, prepare
from activities.runners.local.gpus import Gpus, visible_devices
from activities.runners.local.identity import boot_id
from activities.runners.local.live import live_attempts, mark_live, unmark_live
from activities.runners.local.oom import oom_kills
from activities.runners.local.variables import checkpoint_dir
from activities.runners.local.watch import ProcessWatch
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import ConflictError, EnvironmentProblem, LaunchError
from evertune.protocols import Launch, Sources

DEADLINE_GRACE_S = 10
SUPERVISOR_WAIT_S = 5.0  # after SIGKILL of the trial, before the supervisor itself counts as stuck
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.25
CREATOR_WAIT_S = 1.0

INHERITED = re.compile(r"HOME|LANG|LC_\w+|TMPDIR|CUDA_\w+|NVIDIA_\w+|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH")
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


class LocalRunner:
    def __init__(
        self,
        root: Path,
        *,
        environment: Mapping[str, str] | None = None,
        tools: Tools | None = None,
        collector_patience_s: float = beside.PATIENCE_S,
        collector_grace_s: float = beside.GRACE_S,
    ) -> None:
        """`environment` is the worker's own; a trial inherits the few variables of it that `INHERITED` names.

        A collector of the user's own has `collector_patience_s` after its trial's end to end by itself; then it is sent
        SIGTERM, and `collector_grace_s` later SIGKILL.
        """
        self._root = root.absolute()
        worker = os.environ if environment is None else environment
        self._inherited = {name: value for name, value in worker.items() if INHERITED.fullmatch(name)}
        self._inherited["PATH"] = worker.get("PATH", os.defpath)  # until a submitter's is recorded
        self._tools = tools or Tools.find()
        self._collector_patience_s, self._collector_grace_s = collector_patience_s, collector_grace_s
        self._watch = ProcessWatch()
        self._gpus = Gpus(self._root, visible_devices(worker))
        _keep_descriptors()

    # --------------------------------------------------------------------------------------- TrialRunner

    async def create(self, launch: Launch) -> None:
        for pid in await asyncio.to_thread(self._start, launch):
            self._watch.add(pid)

    async def wait(self, ref: AttemptRef) -> AttemptEnd:
        attempt = Attempt.of(self._root, ref)
        end = await self._ended(attempt)
        if (collector := attempt.collector) is not None:
            warning = await self._finish(attempt, collector, end)
            end = replace(end, warnings=(*end.warnings, *warning))
        unmark_live(self._root, ref)
        return end

    async def stop(self, ref: AttemptRef, *, reason: str, grace_s: float = 10.0) -> None:
        """Also for an attempt that was never created: it then never will be executed. Returns when it has ended.

        Called again after a crash it goes on: the grace counts from the first request.
        """
        attempt = Attempt.of(self._root, ref)
        if attempt.settled():
            return
        await self._stop(attempt, reason, grace_s)
        # Its collector as well, also when the trial itself had ended before: whoever stops wants nothing left.
        if (collector := attempt.collector) is not None:
            await self._stop(collector, reason, min(grace_s, self._collector_grace_s))
        await self.wait(ref)

    async def _ended(self, attempt: Attempt) -> AttemptEnd:
        pause = FIRST_PAUSE_S
        while True:
            end = attempt.end()
            if end is not None:
                return end
            if not attempt.locked():
                try:
                    await asyncio.to_thread(attempt.seal)
                except OSError as error:
                    raise _unusable(attempt.directory, error) from error
                continue
            supervisor = attempt.supervisor()
            if supervisor is not None and supervisor.alive() and await self._watch.ended(supervisor.pid):
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _stop(self, attempt: Attempt, reason: str, grace_s: float) -> None:
        """SIGTERM, then SIGKILL: one supervisor's process, until it has ended."""
        if attempt.over():
            return
        try:
            requested = await asyncio.to_thread(attempt.request_stop, reason)
        except OSError as error:
            raise _unusable(attempt.directory, error) from error
        kill_at = time.monotonic() + max(0.0, grace_s - max(0.0, time.time() - requested))
        end = asyncio.ensure_future(self._ended(attempt))
        try:
            terminated = False
            while not end.done():
                now = time.monotonic()
                if now >= kill_at:
                    attempt.signal(signal.SIGKILL)
                elif not terminated:
                    terminated = attempt.signal(signal.SIGTERM)
                if now >= kill_at + SUPERVISOR_WAIT_S and (supervisor := attempt.supervisor()) is not None:
                    supervisor.signal(signal.SIGKILL)
                await asyncio.wait({end}, timeout=kill_at - now if terminated and now < kill_at else 0.02)
            await end
        finally:
            end.cancel()

    async def _finish(self, attempt: Attempt, collector: Attempt, end: AttemptEnd) -> list[str]:
        """Give the collector its time after the trial's end, then stop it; what to warn of."""
        left = beside.patience(attempt, end, self._collector_patience_s)
        finishing = asyncio.ensure_future(self._ended(collector))
        try:
            await asyncio.wait({finishing}, timeout=left)
            if not finishing.done():
                await self._stop(collector, beside.OVERTIME, self._collector_grace_s)
            return beside.warnings(await finishing, end, self._collector_patience_s)
        finally:
            finishing.cancel()

    async def remove(self, ref: AttemptRef) -> None:
        attempt = Attempt.of(self._root, ref)
        if not attempt.directory.exists():
            return
        if not attempt.settled():
            raise ConflictError(f"attempt {ref.attempt} of trial {ref.trial_name} still runs", "stop it first")
        await asyncio.to_thread(attempt.remove)

    async def fetch(self, ref: AttemptRef) -> None:
        """Nothing to do: all of it was written here."""

    async def release(self, ref: AttemptRef) -> None:
        """Nothing to do: a directory costs nothing while its experiment is kept."""

    def sidecar(self, launch: Launch) -> bool:
        return False

    def phase(self, ref: AttemptRef) -> str:
        return ""

    def log_path(self, ref: AttemptRef) -> Path:
        return Attempt.of(self._root, ref).log

    def sources(self, launch: Launch, path: str | None) -> Sources:
        attempt = Attempt.of(self._root, launch.ref)
        private = None if path is None else Path(paths.rewrite_text(path, launch.shared_paths, attempt.files))
        collector = attempt.collector
        return Sources(
            log=attempt.log,
            notes=attempt.directory,
            path=private,
            reports=attempt.directory / "reports",
            printed=None if collector is None else collector.log,
        )

    # ------------------------------------------------------------------------------- what only local has

    def directory(self, ref: AttemptRef) -> Path:
        """Where the attempt's own copies of shared paths are: the `directory` of `paths.rewrite`."""
        return Attempt.of(self._root, ref).files

    def find_orphans(self, known: set[str]) -> list[AttemptRef]:
        """Attempts that run on this host under this root and whose key is not `known`; end them with `stop`."""
        return [ref for ref in live_attempts(self._root) if ref.key not in known]

    def close(self) -> None:
        """Stop watching. Attempts go on."""
        self._watch.close()

    # ------------------------------------------------------------------------------------------ starting

    def _start(self, launch: Launch) -> list[int]:
        """Start what was not started before; the pids of the supervisors that are ours now. In a thread."""
        attempt, pids = Attempt.of(self._root, launch.ref), []
        collector = beside.command(launch, attempt, self._inherited)
        if not attempt.claimed():
            manifest = paths.rewrite(launch.manifest, launch.shared_paths, attempt.files)
            command = prepare(launch, manifest, self._inherited, attempt.directory)
            if isinstance(collector, LaunchError):
                command = replace(command, warnings=(beside.not_run(collector),))
            elif collector is not None:
                try:
                    attempt.make_collector()
                except OSError as error:
                    raise _unusable(attempt.directory, error) from error
            pids.append(self._claim(launch, attempt, lambda: self._set_up(launch, attempt, command)))
        below = attempt.collector
        if below is not None and isinstance(collector, Command) and attempt.stop_reason() is None:
            # What the system refuses now is told as a warning at the end: the trial runs already.
            with suppress(LaunchError):
                pids.append(self._claim(launch, below, lambda: collector))
        return [pid for pid in pids if pid is not None]

    def _claim(self, launch: Launch, attempt: Attempt, set_up: Callable[[], Command]) -> int | None:
        """Start a supervisor and return its pid; None when the attempt was started before, or is this very moment."""
        try:
            attempt.make()
            give_up = time.monotonic() + CREATOR_WAIT_S
            while True:
                with attempt.exclusive() as lock:
                    if attempt.claimed():
                        return None
                    if lock is not None:
                        return self._spawn(launch, attempt, set_up(), lock)
                # Somebody starts it this very moment, or only asks whether it lives.
                if time.monotonic() > give_up:
                    return None
                time.sleep(FIRST_PAUSE_S)
        except OSError as error:
            raise _unusable(attempt.directory, error) from error

    def _set_up(self, launch: Launch, attempt: Attempt, command: Command) -> Command:
        """What the trial's own process needs, under its lock."""
        mark_live(self._root, launch.ref)
        paths.make_directories(launch.shared_paths, attempt.files)
        checkpoint_dir(attempt.directory).mkdir(mode=0o700, exist_ok=True)
        if not command.gpus:
            return command
        devices = ",".join(self._gpus.give(launch.ref, command.gpus))
        return replace(command, environment={**command.environment, "CUDA_VISIBLE_DEVICES": devices})

    def _spawn(self, launch: Launch, attempt: Attempt, command: Command, lock: int) -> int:
        attempt.write_plan(command.plan(launch))
        environment, odd = _split(command.environment)
        carried = [self._tools.env, *(f"{name}={value}" for name, value in odd.items())] if odd else []
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
            self._tools.mv,
            self._tools.sleep,
            *self._tools.setsid,
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


def _keep_descriptors() -> None:
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


def _unusable(directory: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the attempt's directory {directory} cannot be written: {error.strerror}",
        "free space, or set EVERTUNE_HOME to a directory that can be written",
    )
