"""`ensure_up`, `down` and `status`: what commands do with the stack of a home.

Called by the CLI. They never talk to Temporal beyond asking whether its port answers, and never touch a trial: that
is the worker's business, or the hook's that `down` is given.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from evertune import __version__
from evertune.app import child_environment, module_command
from evertune.errors import EnvironmentProblem, UnavailableError, UsageError
from evertune.settings import Settings, home_problem
from evertune.stack import files, temporal
from evertune.stack.parent import Plan
from evertune.stack.ports import is_open
from evertune.stack.processes import Identity, alive, send, wait_gone
from evertune.stack.shutdown import KILLED_S, Stopped, stop_services
from evertune.stack.state import (
    Service,
    StackState,
    command_lock,
    database_digest,
    log_file,
    parent_lock,
    recorded_parent,
)

Progress = Callable[[str], None]

# Temporal's own file is 3 MB when empty, its write-ahead log and ours grow to 4 MB each before they are folded back.
MIN_FREE_BYTES = 32 * 1024 * 1024
QUICK_FAILURES = 3  # a worker that dies as often while `up` waits will not get better by waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class StackInfo:
    """A stack that is up."""

    temporal_address: str
    ui_url: str | None
    embedded: bool
    parent_pid: int
    temporal_pid: int | None  # None: a configured server
    worker_pid: int
    started: bool  # this call started something
    notes: tuple[str, ...] = ()  # sentences for the person: a port that moved, a restart after an upgrade


@dataclass(frozen=True, slots=True, kw_only=True)
class DownReport:
    """What `down` did. `trials`: "stopped", "kept", or "unknown" when nobody was there to stop them."""

    stopped: tuple[str, ...]
    killed: tuple[str, ...] = ()
    trials: str = "kept"

    @property
    def nothing_was_running(self) -> bool:
        return not self.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    name: str
    pid: int | None  # None: it does not run
    ready: bool
    detail: str  # how it ended last, or ""
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    home: str
    embedded: bool
    temporal_address: str | None
    ui_url: str | None
    reachable: bool  # something answers at temporal_address
    services: tuple[ServiceStatus, ...]
    problem: str | None = None

    @property
    def up(self) -> bool:
        return self.reachable and all(service.pid is not None and service.ready for service in self.services)


# ---------------------------------------------------------------------------------------------------------- up


def ensure_up(
    settings: Settings,
    *,
    wait_s: float = 30.0,
    on_progress: Progress | None = None,
    worker_command: Sequence[str] | None = None,
) -> StackInfo:
    """Return once Temporal answers and the worker of this home polls; start what is missing, and nothing twice.

    With a configured Temporal server only the worker is started. Raises EnvironmentProblem (the home, a port or the
    binary is unusable), UsageError (the stack runs with other settings) or UnavailableError (not ready in `wait_s`).
    """
    say = on_progress or (lambda _: None)
    deadline = time.monotonic() + wait_s
    settings.prepare_home()
    if settings.temporal_address is not None:
        _require_answer(settings.temporal_address)
    if (info := _ready(settings)) is not None:
        return info
    _require_space(settings)
    plan = Plan(
        program=temporal.binary() if settings.temporal_address is None else None,
        worker_command=list(worker_command or module_command("evertune.app", "worker")),
        search_attributes=_search_attributes(),
    )
    try:
        with files.lock(command_lock(settings), wait_s=wait_s) as held:
            if not held:
                raise UnavailableError(f"another command has been starting or stopping the stack for {wait_s:.0f} s")
            notes = _replace_older_version(settings, say)
            settings.down_file.unlink(missing_ok=True)
            if not alive(recorded_parent(settings)):
                say("starting Temporal and the worker" if plan.program else "starting the worker")
                _start_parent(settings, plan)
            return _wait_ready(settings, deadline, wait_s, notes)
    except OSError as error:
        raise home_problem(settings.home, error) from error


def _ready(settings: Settings, *, started: bool = False, notes: Sequence[str] = ()) -> StackInfo | None:
    parent = recorded_parent(settings)
    state = StackState.load(settings.state_file)
    if parent is None or not alive(parent) or state is None or state.version != __version__:
        return None
    _require_same_settings(settings, state)
    worker = state.worker.identity
    if worker is None or not alive(worker) or _announced_pid(settings) != worker.pid:
        return None
    server = state.temporal.identity if state.embedded else None
    if state.embedded and (not state.temporal.ready or not alive(server) or not _answers(state.temporal_address)):
        return None
    return StackInfo(
        temporal_address=state.temporal_address,
        ui_url=state.ui_url,
        embedded=state.embedded,
        parent_pid=parent.pid,
        temporal_pid=server.pid if server else None,
        worker_pid=worker.pid,
        started=started,
        notes=(*notes, *state.notes) if started else (),
    )


def _wait_ready(settings: Settings, deadline: float, wait_s: float, notes: Sequence[str]) -> StackInfo:
    while (info := _ready(settings, started=True, notes=notes)) is None:
        state = StackState.load(settings.state_file)
        if state is not None:
            if state.problem is not None:
                raise EnvironmentProblem(state.problem["message"], hint=state.problem["hint"] or None)
            for name, service in state.services().items():
                if service.failures >= QUICK_FAILURES:
                    raise EnvironmentProblem(*_why(settings, name, f"{name} cannot start: {service.exit}"))
        if not alive(recorded_parent(settings)):
            raise EnvironmentProblem(*_why(settings, "parent", "the stack's parent ended"))
        if time.monotonic() > deadline:
            name = "temporal" if state and state.embedded and not state.temporal.ready else "worker"
            who = "Temporal" if name == "temporal" else "the worker"
            raise UnavailableError(*_why(settings, name, f"{who} was not ready within {wait_s:.0f} s"))
        time.sleep(0.03)
    return info


def _why(settings: Settings, name: str, sentence: str) -> tuple[str, str]:
    log = log_file(settings, name)
    last = files.last_lines(log, 1)
    return (f"{sentence}: {last[0]}" if last else sentence), f"its log is {log}"


def _start_parent(settings: Settings, plan: Plan) -> None:
    environment = {**child_environment(), **settings.environment()}
    done = subprocess.run(
        module_command("evertune.stack", plan.as_json()),
        env=environment,
        cwd=settings.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise EnvironmentProblem(f"the stack's parent did not start: {last[0]}") from None
    if "problem" in answer:
        raise EnvironmentProblem(answer["problem"], hint=answer.get("hint") or None)


def _replace_older_version(settings: Settings, say: Progress) -> list[str]:
    """After an upgrade the old worker must not go on; its trials do, and are attached by the new one."""
    state = StackState.load(settings.state_file)
    running = state is not None and any(alive(service.identity) for service in state.services().values())
    if state is None or not running:
        return []
    _require_same_settings(settings, state)
    if state.version == __version__:
        return []
    say(f"restarting the stack: it ran evertune {state.version}")
    with _without_parent(settings):
        stop_services(settings, state)
    return [f"the stack was restarted with evertune {__version__}; it ran {state.version}"]


def _require_same_settings(settings: Settings, state: StackState) -> None:
    running = state.temporal_address if not state.embedded else None
    differences = []
    if state.database != database_digest(settings):
        differences.append(f"database {state.database_shown}, not {settings.shown_database_url}")
    if running != settings.temporal_address:
        names = (running or "the embedded Temporal", settings.temporal_address or "the embedded one")
        differences.append(f"{names[0]}, not {names[1]}")
    if state.temporal_namespace != settings.temporal_namespace:
        differences.append(f"Temporal namespace {state.temporal_namespace}, not {settings.temporal_namespace}")
    if differences:
        raise UsageError(
            f"the stack of {settings.home} runs with {' and with '.join(differences)}",
            hint="evertune down first, or use another EVERTUNE_HOME",
        )


def _require_answer(address: str) -> None:
    if not _answers(address, timeout_s=5.0):
        raise UnavailableError(
            f"cannot reach Temporal at {address}: nothing accepts connections there",
            hint="correct TEMPORAL_ADDRESS, or unset it to use the embedded server",
        )


def _answers(address: str, timeout_s: float = 1.0) -> bool:
    host, _, port = address.rpartition(":")
    return is_open(host.strip("[]"), int(port), timeout_s)


def _announced_pid(settings: Settings) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(settings.worker_ready_file.read_text(encoding="ascii"))
    return None


def _require_space(settings: Settings) -> None:
    free = shutil.disk_usage(settings.home).free
    if free < MIN_FREE_BYTES:
        raise EnvironmentProblem(
            f"the disk of {settings.home} is full: {free // 1024} KiB are free, "
            f"evertune needs {MIN_FREE_BYTES // (1024 * 1024)} MiB",
            hint="free some space, or set EVERTUNE_HOME to a directory on another disk",
        )


def _search_attributes() -> dict[str, str]:
    from evertune.contracts import SEARCH_ATTRIBUTES  # pydantic: not for the parent, which imports this module

    return dict(SEARCH_ATTRIBUTES)


# -------------------------------------------------------------------------------------------------------- down


def down(
    settings: Settings,
    *,
    keep_trials: bool = False,
    stop_trials: Callable[[], object] | None = None,
    on_progress: Progress | None = None,
) -> DownReport:
    """Stop the stack of this home: parent, worker, Temporal. A no-op when nothing runs.

    Local trials are stopped by the worker, which finds `settings.down_file`, and deletes it when they are stopped.
    When the worker could not (it was dead), `stop_trials` is called instead. A `down` that is killed half-way can be
    repeated.
    """
    say = on_progress or (lambda _: None)
    if not settings.home.is_dir():
        return DownReport(stopped=(), trials="kept" if keep_trials else "stopped")
    try:
        with files.lock(command_lock(settings), wait_s=60) as held:
            if not held:
                raise UnavailableError("another command has been starting or stopping the stack for 60 s")
            if not keep_trials:
                settings.down_file.touch()
            with _without_parent(settings) as parent:
                state = StackState.load(settings.state_file)
                report = stop_services(settings, state, on_progress=say) if state else Stopped()
                if report.left:
                    raise EnvironmentProblem(f"{' and '.join(report.left)} cannot be ended, not even by SIGKILL")
                trials = _end_of_trials(settings, keep_trials, stop_trials)
                for file in (settings.worker_ready_file, settings.state_file, settings.down_file):
                    file.unlink(missing_ok=True)
    except OSError as error:
        raise home_problem(settings.home, error) from error
    stopped = (*(("parent",) if parent else ()), *report.stopped)
    return DownReport(stopped=stopped, killed=tuple(report.killed), trials=trials)


def _end_of_trials(settings: Settings, keep_trials: bool, stop_trials: Callable[[], object] | None) -> str:
    if keep_trials:
        return "kept"
    if not settings.down_file.exists():  # the worker has done it
        return "stopped"
    if stop_trials is None:
        return "unknown"
    stop_trials()
    return "stopped"


@contextlib.contextmanager
def _without_parent(settings: Settings) -> Iterator[Identity | None]:
    """End the parent and keep another from starting. Yields the one that was ended, None if there was none.

    SIGKILL, not SIGTERM: the parent has nothing to lose, and must not stop what its killer is about to stop.
    """
    ended: Identity | None = None
    deadline = time.monotonic() + KILLED_S
    with parent_lock(settings).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                parent = recorded_parent(settings)
                if parent is not None and send(parent, signal.SIGKILL):
                    ended = parent
                    wait_gone([parent], KILLED_S)
                elif time.monotonic() > deadline:
                    raise EnvironmentProblem(
                        f"{parent_lock(settings)} is held by a process that is not of this machine",
                        hint="stop evertune on the machine or in the container that shares this home",
                    ) from None
                else:
                    time.sleep(0.02)  # it has the lock but has not written its name yet
        yield ended


# ------------------------------------------------------------------------------------------------------ status


def status(settings: Settings) -> StackStatus:
    """What is running now; changes nothing and needs no lock."""
    state = StackState.load(settings.state_file)
    parent = recorded_parent(settings)
    embedded = state.embedded if state else settings.temporal_address is None
    address = (state.temporal_address if state else settings.temporal_address) or None
    services = [_service(settings, "parent", Service(identity=parent, ready=True))]
    if embedded:
        services.append(_service(settings, "temporal", state.temporal if state else Service()))
    worker = _service(settings, "worker", state.worker if state else Service())
    services.append(worker)
    return StackStatus(
        home=str(settings.home),
        embedded=embedded,
        temporal_address=address,
        ui_url=state.ui_url if state else settings.ui_url,
        reachable=address is not None and _answers(address),
        services=tuple(services),
        problem=state.problem["message"] if state and state.problem else None,
    )


def _service(settings: Settings, name: str, service: Service) -> ServiceStatus:
    pid = service.identity.pid if service.identity and alive(service.identity) else None
    ready = pid is not None and (service.ready if name != "worker" else _announced_pid(settings) == pid)
    return ServiceStatus(name=name, pid=pid, ready=ready, detail=service.exit, log=os.fspath(log_file(settings, name)))
