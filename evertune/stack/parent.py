"""The stack's parent: starts Temporal, the worker and the server, and starts each again when it dies.

One small process per home, started by `evertune.stack.ensure_up` through `python -m evertune.stack`. It sleeps until
a child ends, a signal comes or a restart is due. When it dies its children go on; the next parent finds them on
record and adopts them. It knows nothing of experiments.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from evertune import __version__
from evertune.app import child_environment
from evertune.errors import EnvironmentProblem
from evertune.settings import Settings, home_problem
from evertune.stack import ports, temporal
from evertune.stack.child import MAX_DELAY_S, Child
from evertune.stack.files import cap_log
from evertune.stack.processes import Held, alive, send
from evertune.stack.shutdown import end_group, stop_services
from evertune.stack.state import Service, StackState, announced_pid, answers, log_file, parent_lock, ports_file

CHECK_STARTED_S = 0.05  # only while Temporal or the server is starting
CHECK_WORKER_S = 0.1  # only while the server waits for the worker to have started
SERVER_AFTER_S = 5.0
PREPARE_TIMEOUT_S = 10.0
HOUSEKEEPING_S = 60.0  # log sizes; also how late a death is noticed should a wait ever miss it
NO_PIDFD_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; made by `ensure_up`, which may import what the parent must not."""

    program: str | None  # the Temporal binary; None: a configured server is used, only the worker is ours
    worker_command: list[str]
    search_attributes: dict[str, str]
    database: str  # digest of the database's URL, for the record
    server_command: list[str] | None = None  # None: no HTTP side is wanted

    def as_json(self) -> str:
        return json.dumps(
            [self.program, self.worker_command, self.search_attributes, self.database, self.server_command]
        )

    @classmethod
    def of(cls, text: str) -> Plan:
        return cls(*json.loads(text))


class Parent:
    def __init__(self, settings: Settings, plan: Plan, *, lock: int) -> None:
        self.settings = settings
        self.lock = lock
        self.plan = plan
        self.environment = {**child_environment(), **settings.environment()}
        before = StackState.load(settings.state_file)
        self.state = StackState(
            version=__version__,
            database=plan.database,
            database_shown=settings.shown_database_url,
            embedded=plan.program is not None,
            temporal_namespace=settings.temporal_namespace,
            temporal_address=settings.temporal_address or (before.temporal_address if before else ""),
            ui_url=settings.ui_url if plan.program is None else (before.ui_url if before else None),
            temporal=before.temporal if before and plan.program is not None else Service(),
            worker=before.worker if before else Service(),
            server=before.server if before else Service(),
            server_url=before.server_url if before and plan.server_command else None,
            told=before.told if before else {},
        )
        self.temporal = Child("temporal", self.state.temporal)
        self.worker = Child("worker", self.state.worker)
        self.server = Child("server", self.state.server)
        self.children = [self.worker] if plan.program is None else [self.temporal, self.worker]
        if plan.server_command is not None or self.server.running:  # running: left by a parent that wanted one
            self.children.append(self.server)
        self.next_housekeeping = time.monotonic()

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self, on_started: Callable[[], None]) -> None:
        """Supervise until SIGTERM, which stops the stack but no trial. `on_started` is called once adopted children
        are on record."""
        with _signals() as wake:
            self._adopt()
            self._save()
            on_started()
            while True:
                stopping = self._sleep(wake)
                self._notice_deaths()
                if stopping or not self._home_is_ours():
                    break
                self._start_due()
                self._check_temporal()
                self._check_server()
                self._housekeeping()
        _say("stopping: the stack goes down, trials go on")
        stop_services(self.settings, self.state)

    def _adopt(self) -> None:
        for child in self.children:
            identity = child.record.identity
            child.record.failures = 0
            if identity is None:
                continue
            if alive(identity):
                child.watch(identity)
                _say(f"{child.name} is running already, pid {identity.pid}")
            else:
                end_group(self.settings, identity)
                child.record.identity, child.record.ready = None, False

    def _home_is_ours(self) -> bool:
        """False when the home was deleted under us: a next stack there could not know of this one."""
        try:
            found = parent_lock(self.settings).stat()
        except OSError as error:
            return not isinstance(error, (FileNotFoundError, NotADirectoryError))
        return os.path.samestat(found, os.fstat(self.lock))

    def _sleep(self, wake: socket.socket) -> bool:
        """Wait for something to do. True when a signal asks to stop."""
        due = [child.due for child in self.children if not child.running and self._may_start(child)]
        due += [child.due for child in (self.temporal, self.server) if child.running and not child.record.ready]
        if self.plan.server_command is not None and not self.server.running and not self._worker_first():
            due.append(time.monotonic() + CHECK_WORKER_S)
        timeout_s = max(0.0, min([self.next_housekeeping, *due]) - time.monotonic())
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        for child in self.children:
            if child.pidfd is not None:
                poller.register(child.pidfd, select.POLLIN)
            elif child.running:
                timeout_s = min(timeout_s, NO_PIDFD_POLL_S)
        events = poller.poll(timeout_s * 1000)
        return any(descriptor == wake.fileno() for descriptor, _ in events) and _drain(wake)

    def _notice_deaths(self) -> None:
        for child in self.children:
            if not child.running or (how := child.ended()) is None:
                continue
            assert child.record.identity is not None
            _say(f"{child.name}, pid {child.record.identity.pid}, ended: {how}")
            end_group(self.settings, child.record.identity)
            child.died(how, served=self._served(child))
            self._save()

    def _served(self, child: Child) -> bool:
        pid = child.record.identity.pid if child.record.identity else None
        return announced_pid(self.settings) == pid if child is self.worker else child.record.ready

    def _may_start(self, child: Child) -> bool:
        if child is self.server and (self.plan.server_command is None or not self._worker_first()):
            return False
        return child is self.temporal or self.plan.program is None or self.temporal.record.ready

    def _worker_first(self) -> bool:
        """Whether the worker polls, or takes long: the server, for which nobody waits, must not take its processor."""
        identity = self.worker.record.identity
        polls = identity is not None and announced_pid(self.settings) == identity.pid
        return polls or time.monotonic() - self.worker.since > SERVER_AFTER_S

    def _start_due(self) -> None:
        for child in self.children:
            if child.running or child.due > time.monotonic() or not self._may_start(child):
                continue
            try:
                self._starter_of(child)()
                if self.state.problem is not None and self.state.problem["which"] == child.name:
                    self.state.problem = None
                    self._save()
            except (OSError, EnvironmentProblem) as error:
                problem = home_problem(self.settings.home, error) if isinstance(error, OSError) else error
                child.record.failures += 1
                child.postpone()
                message = f"{child.name} cannot be started: {problem}"
                self.state.problem = {"which": child.name, "message": message, "hint": problem.hint or ""}
                _say(self.state.problem["message"])
                self._save()

    # -------------------------------------------------------------------------------------------- the services

    def _starter_of(self, child: Child) -> Callable[[], None]:
        return {"temporal": self._start_temporal, "worker": self._start_worker, "server": self._start_server}[
            child.name
        ]

    def _start_temporal(self) -> None:
        assert self.plan.program is not None
        wanted = {"temporal": self.settings.temporal_port, "ui": self.settings.ui_port}
        chosen, notes = ports.choose(ports_file(self.settings), wanted)
        for note in notes:
            _say(note)
        self.state.notes = notes
        address = f"{ports.LOOPBACK}:{chosen['temporal']}"
        if address != self.state.temporal_address:
            self._restart(self.worker, "Temporal has another address now")
            self._restart(self.server, "Temporal has another address now")
        self.state.temporal_address = address
        self.state.ui_url = f"http://{ports.LOOPBACK}:{chosen['ui']}"
        command = temporal.server_command(self.plan.program, self.settings, chosen, self.plan.search_attributes)
        self._launch(self.temporal, command, temporal.environment(self.environment))
        self.temporal.due = time.monotonic() + CHECK_STARTED_S

    def _start_worker(self) -> None:
        self.settings.worker_ready_file.unlink(missing_ok=True)
        addresses = {"EVERTUNE_TEMPORAL_ADDRESS": self.state.temporal_address}
        if self.plan.server_command is not None:
            self._choose_server_port()
            addresses["EVERTUNE_INGEST_URL"] = self.settings.ingest_url or self.state.server_url or ""
        self.state.told = self.settings.told_of_clusters()
        self._launch(self.worker, self.plan.worker_command, {**self.environment, **addresses})

    def _start_server(self) -> None:
        assert self.plan.server_command is not None
        port = self._choose_server_port()
        addresses = {"EVERTUNE_TEMPORAL_ADDRESS": self.state.temporal_address, "EVERTUNE_SERVER_PORT": str(port)}
        self._launch(self.server, self.plan.server_command, {**self.environment, **addresses})
        self.server.due = time.monotonic() + CHECK_STARTED_S

    def _choose_server_port(self) -> int:
        """The port of the server that runs, else the one of the next. A worker that was told another starts again."""
        known = self.state.server_url
        if self.server.running and known is not None:
            return int(known.rpartition(":")[2])
        chosen, notes = ports.choose(ports_file(self.settings), {"server": self.settings.server_port})
        for note in notes:
            _say(note)
        host = self.settings.server_host
        url = f"http://{_reachable(host)}:{chosen['server']}"
        if known is not None and known != url:
            self.state.notes = [*self.state.notes, *notes]
            self._restart(self.worker, "the server has another address now")
        self.state.server_url = url
        return chosen["server"]

    def _restart(self, child: Child, why: str) -> None:
        if child.record.identity is None:
            return
        _say(f"the {child.name} restarts: {why}")
        if child is self.worker:
            self.settings.worker_ready_file.unlink(missing_ok=True)
        send(child.record.identity, signal.SIGTERM)

    def _launch(self, child: Child, command: list[str], environment: Mapping[str, str]) -> None:
        log = log_file(self.settings, child.name)
        cap_log(log)
        held = Held(command, environment=environment, cwd=self.settings.home, log=log)
        child.record.identity, child.record.ready = held.identity, False
        try:
            self.state.save(self.settings.state_file)
        except OSError:
            held.abandon()
            child.record.identity = None
            raise
        child.process = held.go()
        child.since = time.monotonic()
        child.watch(held.identity)
        _say(f"started {child.name}, pid {held.identity.pid}")

    def _check_temporal(self) -> None:
        """Once the port answers, set the retention; the success of that is what "ready" means."""
        child = self.temporal
        if not child.running or child.record.ready or child.due > time.monotonic():
            return
        starting_s = time.monotonic() - child.since
        child.due = time.monotonic() + min(MAX_DELAY_S, max(CHECK_STARTED_S, starting_s / 10))
        if not answers(self.state.temporal_address):
            return
        assert self.plan.program is not None
        command = temporal.prepare_command(
            self.plan.program, self.state.temporal_address, self.settings.temporal_namespace
        )
        try:
            done = subprocess.run(
                command,
                env=temporal.environment(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PREPARE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return
        if done.returncode == 0:
            child.record.ready = True
            self._save()
        else:
            _say(f"Temporal is not ready: {done.stderr.decode(errors='replace').strip()}")

    def _check_server(self) -> None:
        """It listens once it can answer."""
        child = self.server
        if not child.running or child.record.ready or child.due > time.monotonic():
            return
        child.due = time.monotonic() + min(MAX_DELAY_S, max(CHECK_STARTED_S, (time.monotonic() - child.since) / 10))
        if self.state.server_url is not None and answers(self.state.server_url.rpartition("/")[2]):
            child.record.ready = True
            self._save()

    # --------------------------------------------------------------------------------------------------- upkeep

    def _housekeeping(self) -> None:
        if time.monotonic() < self.next_housekeeping:
            return
        self.next_housekeeping = time.monotonic() + HOUSEKEEPING_S
        for name in ("temporal", "worker", "server", "parent"):
            with contextlib.suppress(OSError):
                cap_log(log_file(self.settings, name))

    def _save(self) -> None:
        """Record a change that nobody's safety depends on: a full disk must not end the parent."""
        try:
            self.state.save(self.settings.state_file)
        except OSError as error:
            _say(f"{self.settings.state_file} cannot be written: {error.strerror}")


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Turn SIGTERM and SIGINT into a readable socket; SIGHUP (a closed terminal) is not for us."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}  # children get the defaults
    before = signal.set_wakeup_fd(sender.fileno())
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()


def _reachable(host: str) -> str:
    """How this machine reaches a server that listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - all addresses, this one among them
        return ports.LOOPBACK
    return f"[{host}]" if ":" in host else host


def _drain(wake: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return any(number in (signal.SIGTERM, signal.SIGINT) for number in wake.recv(64))
    return False


def _say(sentence: str) -> None:
    """To the parent's log (its stderr). A full disk must not end the parent."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {sentence}\n")
        sys.stderr.flush()
