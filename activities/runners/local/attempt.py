"""One attempt's directory: what its files mean, whether it is over, and how it is declared lost or stopped.

    plan      argv, environment, working directory and trial name, as JSON
    lock      flocked for as long as the supervisor, or its child before exec, lives
    claim child timer exit        written by `supervisor.sh`, which says what they hold
    log       standard output and error, appended; `log.gz` once it was archived
    stop      the reason why we end it, durable before the first signal
    files/    the attempt's own copy of paths that trials would otherwise share
    collector/ the same again for the user's own collector: a second process of the attempt, if there is one
    replicas/  the same again for each replica of a distributed job, whose own directory then has no claim and no child:
               `group` says what else it holds

The directory is the only truth: any worker, after any crash, reads the same outcome from it. `exit` is written once,
by the supervisor or, when that is dead, by `seal` under the lock; afterwards nothing changes any more.
Called by `runner` only. Starts nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

from activities.runners.local.identity import ProcessId, boot_id
from activities.runners.local.outcome import ExitRecord, Why, conclude
from evertune import archive
from evertune.domain.trial import AttemptEnd, AttemptRef

TAIL_BYTES = 16_384  # of the log, for the reason of a failure
KILL_WAIT_S = 2.0
REPLICAS = "replicas"


@dataclass(frozen=True, slots=True)
class Attempt:
    """`output` is where its process prints to, when that is not its own `log`."""

    directory: Path
    output: Path | None = None

    @classmethod
    def of(cls, root: Path, ref: AttemptRef) -> Attempt:
        return cls(root / ref.experiment_uid / str(ref.number) / str(ref.attempt))

    @property
    def log(self) -> Path:
        return self.output or self.directory / "log"

    @property
    def files(self) -> Path:
        return self.directory / "files"

    @property
    def collector(self) -> Attempt | None:
        """The user's own collector beside the trial; None where none was to be run."""
        beside = Attempt(self.directory / "collector")
        return beside if beside.directory.is_dir() else None

    @property
    def replicas(self) -> dict[str, Attempt]:
        """By name, the one that prints to our log among them; empty for what is one process."""
        if not (self.directory / REPLICAS).is_dir():
            return {}
        plan = self.plan()
        return {
            entry["name"]: Attempt(
                self.directory / REPLICAS / entry["name"], self.log if entry["name"] == plan["primary"] else None
            )
            for entry in plan["replicas"]
        }

    @property
    def replicated(self) -> bool:
        return (self.directory / REPLICAS).is_dir()

    # ------------------------------------------------------------------------------------------ what it says

    def claimed(self) -> bool:
        """True once a supervisor took it, or `seal` closed it: it will never be executed (again)."""
        return (self.directory / "claim").exists() or self.replicated

    def supervisor(self) -> ProcessId | None:
        return ProcessId.read(self.directory / "claim")

    def child(self) -> ProcessId | None:
        return ProcessId.read(self.directory / "child")

    def plan(self) -> dict[str, Any]:
        """What was to be started; empty when that was never written (completely)."""
        try:
            plan: dict[str, Any] = json.loads((self.directory / "plan").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return plan

    def stop_reason(self) -> str | None:
        try:
            return (self.directory / "stop").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def over(self) -> bool:
        return self.record() is not None

    def settled(self) -> bool:
        """Over, and so are its replicas and the collector beside it: no process of this attempt is left."""
        return (
            self.over()
            and ((beside := self.collector) is None or beside.over())
            and all(replica.over() for replica in self.replicas.values())
        )

    def end(self) -> AttemptEnd | None:
        """The outcome; None while nobody has written one."""
        record = self.record()
        if record is None:
            return None
        claim = self.supervisor()
        return conclude(
            record,
            stop_reason=self.stop_reason(),
            plan=self.plan(),
            tail=self.tail(),
            started=datetime.fromtimestamp(claim.written, UTC) if claim else None,
            ended=datetime.fromtimestamp((self.directory / "exit").stat().st_mtime, UTC),
        )

    def record(self) -> ExitRecord | None:
        try:
            return ExitRecord.parse((self.directory / "exit").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def tail(self) -> bytes:
        return archive.last_bytes(self.log, TAIL_BYTES)

    # -------------------------------------------------------------------------------------------- the lock

    def locked(self) -> bool:
        """True while a supervisor lives, or is being started."""
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that those who only ask do not take one another for a supervisor.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def exclusive(self) -> Iterator[int | None]:
        """The lock's descriptor, or None when another holds it. Leaving closes our copy, not a supervisor's."""
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)

    # ---------------------------------------------------------------------------------------- what we write

    def make(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make_collector(self) -> None:
        """From now on an end of this attempt means an end of its collector as well."""
        Attempt(self.directory / "collector").make()

    def write_plan(self, plan: dict[str, Any]) -> None:
        self.write("plan", json.dumps(plan, ensure_ascii=True, indent=1), durable=False)

    def request_stop(self, reason: str) -> float:
        """Make the reason durable; the first one stands. Returns when it was first requested, in epoch seconds."""
        stop = self.directory / "stop"
        if not stop.exists():
            self.make()
            self.write("stop", reason, durable=True)
        return stop.stat().st_mtime

    def seal(self) -> None:
        """Close an attempt whose supervisor is dead or never came: kill what is left of it and write its end.

        A no-op while the lock is held and after the end. Dying half-way leaves it to the next caller.
        """
        self.make()
        with self.exclusive() as lock:
            if lock is None or self.over() or self.replicated:
                return
            child = self.child()
            if child is not None:
                self._kill(child)
            timer = ProcessId.read(self.directory / "timer")
            if timer is not None and timer.alive():
                with suppress(ProcessLookupError):  # its `sleep` is in the same group, the dead supervisor's
                    os.killpg(os.getpgid(timer.pid), SIGKILL)
            claim = self.supervisor()
            if not self.claimed():
                (self.directory / "claim").touch(mode=0o600)  # nobody may execute it any more
            self.write("exit", ExitRecord(None, self._why(), 0, _lost(child, claim)).line(), durable=False)

    def remove(self) -> None:
        """Delete scratch. What proves that it was executed, and its log, stay."""
        if (beside := self.collector) is not None:
            beside.remove()
        for replica in self.replicas.values():
            replica.remove()
        shutil.rmtree(self.files, ignore_errors=True)
        for name in ("lock", "timer", "deadline"):
            (self.directory / name).unlink(missing_ok=True)

    def mark(self) -> bytes:
        """What every process of the attempt has in its environment, whatever became of its parents."""
        return f"EVERTUNE_TRIAL={self.plan().get('trial', '')}".encode()

    def signal(self, number: Signals) -> bool:
        child = self.child()
        return child is not None and child.signal_group(number, mark=self.mark())

    def _kill(self, child: ProcessId) -> None:
        mark, give_up = self.mark(), time.monotonic() + KILL_WAIT_S
        # A process that has not called setsid yet is killed alone, so ask again until nothing is there.
        while child.signal_group(SIGKILL, mark=mark) and time.monotonic() < give_up:
            time.sleep(0.002)

    def _why(self) -> Why:
        if (self.directory / "stop").exists():
            return Why.STOP
        return Why.DEADLINE if (self.directory / "deadline").exists() else Why.LOST

    def write(self, name: str, text: str, *, durable: bool) -> None:
        """Whole or not at all; `durable` survives a power loss as well."""
        new = self.directory / f"{name}.{os.getpid()}.{threading.get_ident()}.new"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        new.replace(self.directory / name)
        if durable:
            descriptor = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _lost(child: ProcessId | None, claim: ProcessId | None) -> str:
    known = child or claim
    if known is not None and known.boot != boot_id():
        return "the host was restarted"
    if child is not None:
        return "its supervisor was killed"
    return "it was lost before its command was executed"
