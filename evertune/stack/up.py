"""`ensure_up`: Temporal answers and a worker of this home polls, or one sentence says why not.

Called by `run`, `up` and `tune`. It only checks and starts the parent; the parent starts the rest.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evertune import __version__
from evertune.app import child_environment, module_command
from evertune.errors import EnvironmentProblem, UnavailableError, UsageError
from evertune.settings import Settings, home_problem
from evertune.stack import files, temporal
from evertune.stack.parent import Plan
from evertune.stack.processes import alive
from evertune.stack.shutdown import stop_services, without_parent
from evertune.stack.state import (
    StackState,
    announced_pid,
    answers,
    command_lock,
    database_digest,
    foreground_worker,
    foreground_worker_starts,
    log_file,
    parent_lock,
    recorded_parent,
)

Progress = Callable[[str], None]

# Temporal's own file is 3 MB when empty, its write-ahead log and ours grow to 4 MB each before they are folded back.
MIN_FREE_BYTES = 32 * 1024 * 1024
QUICK_FAILURES = 3  # what dies as often while `up` waits will not get better by waiting
POLL_S = 0.03
REACH_S = 5.0  # how long a configured Temporal server may take to accept a connection
PARENT_START_S = 30.0
NAMED_S = 5.0  # how long the holder of the parent's lock may take to write its name into it


@dataclass(frozen=True, slots=True, kw_only=True)
class StackInfo:
    """A stack that is up."""

    temporal_address: str
    ui_url: str | None
    embedded: bool
    parent_pid: int | None  # None: a worker in the foreground is used, and there is no stack
    temporal_pid: int | None  # None: a configured server
    worker_pid: int
    server_url: str | None = None  # of the HTTP side, which may still be starting; None: this stack has none
    started: bool = False  # this call had to start something
    notes: tuple[str, ...] = ()  # sentences for the person: a port that moved, a restart after an upgrade


def ensure_up(
    settings: Settings,
    *,
    wait_s: float = 30.0,
    on_progress: Progress | None = None,
    worker_command: Sequence[str] | None = None,
    server_command: Sequence[str] | None = None,
) -> StackInfo:
    """Return once Temporal answers and the worker of this home polls; start what is missing, and nothing twice.

    With a configured Temporal server only ours are started, and nothing where a worker polls in the foreground.
    `worker_command` stands in for evertune's worker, and then there is a server only if `server_command` is given.
    Nobody waits for the server.
    Raises EnvironmentProblem (the home, a port or the binary is unusable, or the worker cannot start), UsageError
    (the stack runs with other settings) or UnavailableError (not ready within `wait_s`).
    """
    say = on_progress or (lambda _: None)
    deadline = time.monotonic() + wait_s
    settings.prepare_home()
    if settings.temporal_address is not None and not answers(settings.temporal_address, REACH_S):
        raise UnavailableError(
            f"cannot reach Temporal at {settings.temporal_address}: nothing accepts connections there",
            hint="correct EVERTUNE_TEMPORAL_ADDRESS or TEMPORAL_ADDRESS, or unset it to use the embedded server",
        )
    while (info := _ready(settings)) is None and foreground_worker_starts(settings):
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the worker of {settings.home} runs, but has not polled for {wait_s:.0f} s",
                hint="its log says what it waits for",
            )
        time.sleep(POLL_S)
    if info is not None:
        return info
    _require_space(settings)
    if worker_command is None and server_command is None:
        server_command = module_command("evertune.server")
    plan = Plan(
        program=temporal.binary() if settings.temporal_address is None else None,
        worker_command=list(worker_command or module_command("evertune.app", "worker")),
        search_attributes=_search_attributes(),
        database=database_digest(settings),
        server_command=list(server_command) if server_command is not None else None,
    )
    try:
        with files.lock(command_lock(settings), wait_s=wait_s) as held:
            if not held:
                raise UnavailableError(f"another command has been starting or stopping the stack for {wait_s:.0f} s")
            notes = _end_what_is_outdated(settings, say)
            settings.down_file.unlink(missing_ok=True)
            if not alive(recorded_parent(settings)):
                say("starting Temporal and the worker" if plan.program else "starting the worker")
                _start_parent(settings, plan)
            while (info := _ready(settings)) is None:
                _refuse_to_wait(settings, deadline, wait_s)
                if not alive(recorded_parent(settings)):  # it was being killed when we looked first
                    _start_parent(settings, plan)
                time.sleep(POLL_S)
            moved = state.notes if (state := StackState.load(settings.state_file)) else []
            return dataclasses.replace(info, started=True, notes=(*notes, *moved))
    except OSError as error:
        raise home_problem(settings.home, error) from error


def _ready(settings: Settings) -> StackInfo | None:
    if (other := foreground_worker(settings)) is not None:
        return StackInfo(
            temporal_address=settings.temporal_address or "",
            ui_url=settings.ui_url,
            embedded=False,
            parent_pid=None,
            temporal_pid=None,
            worker_pid=other.pid,
            server_url=settings.ingest_url,
        )
    parent = recorded_parent(settings)
    state = StackState.load(settings.state_file)
    if parent is None or not alive(parent) or state is None or state.version != __version__:
        return None
    _require_same_settings(settings, state)
    worker = state.worker.identity
    if worker is None or not alive(worker) or announced_pid(settings) != worker.pid:
        return None
    server = state.temporal.identity if state.embedded else None
    if state.embedded and not (state.temporal.ready and alive(server) and answers(state.temporal_address)):
        return None
    return StackInfo(
        temporal_address=state.temporal_address,
        ui_url=state.ui_url,
        embedded=state.embedded,
        parent_pid=parent.pid,
        temporal_pid=server.pid if server else None,
        worker_pid=worker.pid,
        server_url=state.server_url,
    )


def _refuse_to_wait(settings: Settings, deadline: float, wait_s: float) -> None:
    """Raise when waiting on is of no use: the parent says why it cannot start something, or the time is up."""
    state = StackState.load(settings.state_file)
    if state is not None:
        if state.problem is not None:
            raise EnvironmentProblem(state.problem["message"], hint=state.problem["hint"] or None)
        for name, service in state.services().items():
            if service.failures >= QUICK_FAILURES and name != "server":
                raise EnvironmentProblem(*_why(settings, name, f"{_WHO[name]} cannot start, {service.exit}"))
    if time.monotonic() > deadline:
        if not alive(recorded_parent(settings)):
            raise EnvironmentProblem(*_why(settings, "parent", "the stack's parent keeps ending"))
        name = "temporal" if state and state.embedded and not state.temporal.ready else "worker"
        raise UnavailableError(*_why(settings, name, f"{_WHO[name]} was not ready within {wait_s:.0f} s"))


_WHO = {"temporal": "Temporal", "worker": "the worker"}


def _why(settings: Settings, name: str, sentence: str) -> tuple[str, str]:
    log = log_file(settings, name)
    last = files.last_lines(log, 1)
    return (f"{sentence}: {_words(last[0])}" if last else sentence), f"its log is {log}"


def _words(line: str) -> str:
    """What a line of a log says: the worker's are JSON."""
    try:
        entry = json.loads(line)
        return ": ".join(str(entry[key]) for key in ("event", "error") if entry.get(key)) or line
    except (ValueError, AttributeError):
        return line


def _start_parent(settings: Settings, plan: Plan) -> None:
    try:
        done = subprocess.run(
            module_command("evertune.stack", plan.as_json()),
            env={**child_environment(), **settings.environment()},
            cwd=settings.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PARENT_START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"the stack's parent did not start within {PARENT_START_S:g} s",
            hint=f"its log is {log_file(settings, 'parent')}",
        ) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it gave no reason"]
        raise EnvironmentProblem(f"the stack's parent did not start: {last[0]}") from None
    if "problem" in answer:
        raise EnvironmentProblem(answer["problem"], hint=answer["hint"] or None)
    if not answer["started"]:
        _wait_for_its_name(settings)


def _wait_for_its_name(settings: Settings) -> None:
    """Somebody holds the parent's lock: a parent of an `up` that was killed, which says next who it is and may end
    before it does; or one that we never see alive."""
    deadline = time.monotonic() + NAMED_S
    descriptor = files.open_lock(parent_lock(settings))
    try:
        while not alive(recorded_parent(settings)) and not files.try_lock(descriptor):
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"the home {settings.home} is in use: a process of another machine or container holds "
                    f"{parent_lock(settings)}",
                    hint="stop evertune there, or use another EVERTUNE_HOME",
                )
            time.sleep(POLL_S)
    finally:
        os.close(descriptor)


def _end_what_is_outdated(settings: Settings, say: Progress) -> list[str]:
    """After an upgrade nothing of the old version may go on. A parent that is stuck between restarts is replaced: its
    successor tries again at once, with this command's environment. Trials go on in both cases."""
    state = StackState.load(settings.state_file)
    services = [service for service in state.services().values() if alive(service.identity)] if state else []
    parent = alive(recorded_parent(settings))
    if state is None or not (services or parent):
        return []
    _require_same_settings(settings, state)
    if state.version != __version__:
        say(f"restarting the stack: it ran evertune {state.version}")
        with without_parent(settings):
            stop_services(settings, state)
        return [f"the stack was restarted with evertune {__version__}; it ran {state.version}"]
    if parent and (state.problem or any(each.failures >= QUICK_FAILURES for each in state.services().values())):
        with without_parent(settings):
            say("trying again to start what is missing")
    return []


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


def _require_space(settings: Settings) -> None:
    free = shutil.disk_usage(settings.home).free
    if free < MIN_FREE_BYTES:
        raise EnvironmentProblem(
            f"the disk of {settings.home} is full: {free // 1024} KiB are free, "
            f"evertune needs {MIN_FREE_BYTES // (1024 * 1024)} MiB",
            hint="free some space, or set EVERTUNE_HOME to a directory on another disk",
        )


def _search_attributes() -> dict[str, str]:
    from evertune.contracts import SEARCH_ATTRIBUTES  # pydantic: not for the parent, which imports this package

    return dict(SEARCH_ATTRIBUTES)
