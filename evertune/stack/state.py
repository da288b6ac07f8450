"""What is on record about a home's stack: `stack.json` and the parent's lock, read by every command.

The parent is the only writer of `stack.json`. A process is recorded before it does anything, so the record may name
processes that have ended but never misses one that runs.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evertune.settings import Settings
from evertune.stack.files import open_lock, read_json, try_lock, write_json
from evertune.stack.ports import is_open
from evertune.stack.processes import Identity, identity_of

FORMAT = 1
READY_FOR_S = 60.0  # a worker touches its file every twenty seconds
_SERVICES = ("temporal", "worker", "server")


def command_lock(settings: Settings) -> Path:
    """Held by `up` and `down` while they work: one at a time per home."""
    return settings.home / "stack.lock"


def parent_lock(settings: Settings) -> Path:
    """Held by the parent for its life, with its identity inside; by `down` while there must be no parent."""
    return settings.home / "parent.lock"


def ports_file(settings: Settings) -> Path:
    return settings.home / "ports.json"


def log_file(settings: Settings, name: str) -> Path:
    """Log of `parent`, `temporal`, `worker` or `server`."""
    return settings.logs_dir / f"{name}.log"


@dataclass(slots=True)
class Service:
    """One supervised process. `failures` counts quick deaths in a row, `exit` says how the last one ended."""

    identity: Identity | None = None
    ready: bool = False
    failures: int = 0
    exit: str = ""

    def as_dict(self) -> dict[str, Any]:
        process = self.identity.as_dict() if self.identity else None
        return {"process": process, "ready": self.ready, "failures": self.failures, "exit": self.exit}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Service:
        process = data.get("process")
        identity = Identity.of(process) if process else None
        return cls(identity, bool(data.get("ready")), int(data.get("failures", 0)), str(data.get("exit", "")))


@dataclass(slots=True)
class StackState:
    version: str  # of the evertune that runs it
    database: str  # digest of the URL: a password never reaches this file
    database_shown: str
    embedded: bool
    temporal_namespace: str
    temporal_address: str = ""
    ui_url: str | None = None
    temporal: Service = field(default_factory=Service)
    worker: Service = field(default_factory=Service)
    server: Service = field(default_factory=Service)
    server_url: str | None = None  # of our HTTP side; None: there is none in this stack
    told: dict[str, str] = field(default_factory=dict)  # the worker, at its start, of clusters: variables
    notes: list[str] = field(default_factory=list)  # for the person at `up`: a port that moved
    problem: dict[str, str] | None = None  # why something cannot be started now: which, message, hint

    def services(self) -> dict[str, Service]:
        """By name, in the order in which they are stopped."""
        return {"worker": self.worker, "server": self.server, "temporal": self.temporal}

    def save(self, path: Path) -> None:
        data = {slot: getattr(self, slot) for slot in self.__slots__ if slot not in _SERVICES}
        data |= {name: service.as_dict() for name, service in self.services().items()}
        write_json(path, {"format": FORMAT, **data})

    @classmethod
    def load(cls, path: Path) -> StackState | None:
        """None when there is no record, or none that this version understands."""
        data = read_json(path)
        if data is None or data.pop("format", None) != FORMAT:
            return None
        try:
            data |= {name: Service.of(data.get(name, {})) for name in _SERVICES}
            return cls(**data)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def database_digest(settings: Settings) -> str:
    import hashlib  # maps OpenSSL, 3 MB: not for the parent

    return hashlib.sha256(settings.database_url.encode()).hexdigest()[:32]


def recorded_parent(settings: Settings) -> Identity | None:
    """The parent that last took the lock; it may have ended since."""
    data = read_json(parent_lock(settings))
    try:
        return Identity.of(data) if data else None
    except (KeyError, TypeError, ValueError):
        return None


def announced_pid(settings: Settings) -> int | None:
    """The worker that polls now or did last, from `worker.ready`."""
    with contextlib.suppress(OSError, ValueError):
        return int(settings.worker_ready_file.read_text(encoding="ascii"))
    return None


def foreground_worker(settings: Settings) -> Identity | None:
    """The worker that polls from this home with no stack of ours around it: in a container, or under a service manager.

    None where a stack was ever started: its parent then looks after the worker.
    """
    if settings.temporal_address is None or settings.state_file.exists():
        return None
    try:
        age = time.time() - settings.worker_ready_file.stat().st_mtime
    except OSError:
        return None
    pid = announced_pid(settings)
    return identity_of(pid) if pid is not None and age < READY_FOR_S else None


def foreground_worker_starts(settings: Settings) -> bool:
    """A worker as above runs and does not poll yet: it waits for Temporal or the database."""
    if settings.temporal_address is None or settings.state_file.exists() or not settings.worker_lock_file.exists():
        return False
    descriptor = open_lock(settings.worker_lock_file)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def answers(address: str, timeout_s: float = 1.0) -> bool:
    """True when something accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    return is_open(host.strip("[]"), int(port), timeout_s)
