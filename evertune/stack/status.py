"""`status`: what of a home's stack runs now. For `doctor` and for commands that need the address; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evertune.settings import Settings
from evertune.stack.processes import alive
from evertune.stack.state import (
    Service,
    StackState,
    announced_pid,
    answers,
    foreground_worker,
    log_file,
    recorded_parent,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    name: str  # parent, temporal, worker or server
    pid: int | None  # None: it does not run
    ready: bool
    last_exit: str  # how it ended last time, "" when it never did
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    home: Path
    embedded: bool
    temporal_address: str | None  # None: no stack was started yet
    ui_url: str | None
    server_url: str | None  # of our HTTP side; None: this stack has none, or was not started yet
    reachable: bool  # something accepts connections at temporal_address
    services: tuple[ServiceStatus, ...]
    problem: str | None = None  # why the parent cannot start something
    told: dict[str, str] | None = None  # `Settings.told_of_clusters` of the stack's worker; None: none runs

    @property
    def up(self) -> bool:
        """Experiments can run. The server may still be starting: local trials do not need it."""
        return self.reachable and all(service.ready for service in self.services if service.name != "server")


def status(settings: Settings) -> StackStatus:
    """Needs no lock, and no home: where there is none, nothing runs."""
    if (other := foreground_worker(settings)) is not None:
        worker = ServiceStatus(name="worker", pid=other.pid, ready=True, last_exit="", log=log_file(settings, "worker"))
        address = settings.temporal_address
        return StackStatus(
            home=settings.home,
            embedded=False,
            temporal_address=address,
            ui_url=settings.ui_url,
            server_url=None,
            reachable=address is not None and answers(address),
            services=(worker,),
        )
    state = StackState.load(settings.state_file)
    embedded = state.embedded if state else settings.temporal_address is None
    address = (state.temporal_address if state else settings.temporal_address) or None
    names = ["parent", *(["temporal"] if embedded else []), "worker"]
    names += ["server"] if state and state.server_url else []
    worker_runs = state is not None and alive(state.worker.identity)
    known = {"parent": Service(identity=recorded_parent(settings), ready=True), **(state.services() if state else {})}
    return StackStatus(
        home=settings.home,
        embedded=embedded,
        temporal_address=address,
        ui_url=state.ui_url if state else settings.ui_url,
        server_url=state.server_url if state else None,
        reachable=address is not None and answers(address),
        services=tuple(_service(settings, name, known.get(name, Service())) for name in names),
        problem=state.problem["message"] if state and state.problem else None,
        told=state.told if state and worker_runs else None,
    )


def _service(settings: Settings, name: str, service: Service) -> ServiceStatus:
    pid = service.identity.pid if service.identity and alive(service.identity) else None
    ready = pid is not None and (announced_pid(settings) == pid if name == "worker" else service.ready)
    return ServiceStatus(name=name, pid=pid, ready=ready, last_exit=service.exit, log=log_file(settings, name))
