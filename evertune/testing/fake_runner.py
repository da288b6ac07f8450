"""A runner in memory that passes `RunnerContract`, for tests of what drives a runner.

Its processes are scripted, take no CPU, and survive `reborn`, but not the process of the test.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import ConflictError, LaunchError
from evertune.protocols import Launch, Sources
from evertune.testing.scripts import Script


@dataclass
class _Process:
    script: Script
    log: Path
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    end: AttemptEnd | None = None
    stop_reason: str | None = None
    life: asyncio.Task[None] | None = None


class FakeRunner:
    """Runs scripts in memory. `script_of` decides what each launch does; logs are real files below `root`."""

    def __init__(self, root: Path, script_of: Callable[[Launch], Script]) -> None:
        self._root = root
        self._script_of = script_of
        self._processes: dict[str, _Process] = {}
        self.executions: dict[str, int] = {}  # by ref.key
        self.launches: list[Launch] = []  # those that were executed, in order

    def reborn(self) -> Self:
        """Another runner for the same processes, as after a restart of the worker."""
        return copy.copy(self)

    async def create(self, launch: Launch) -> None:
        if launch.ref.key in self._processes:
            return
        script = self._script_of(launch)
        if script.refused is not None:
            raise LaunchError(script.refused)
        log = self.output(launch.ref)
        log.parent.mkdir(parents=True, exist_ok=True)
        process = self._processes[launch.ref.key] = _Process(script, log)
        self.executions[launch.ref.key] = self.executions.get(launch.ref.key, 0) + 1
        self.launches.append(launch)
        _print(log, () if script.pause_s or script.until else script.lines)
        process.life = asyncio.ensure_future(_live(process))

    async def wait(self, ref: AttemptRef) -> AttemptEnd:
        process = self._processes.get(ref.key)
        if process is None:
            process = self._never_executed(ref)
            _close(process, AttemptState.LOST, "Lost", FailureClass.INFRASTRUCTURE)
        await process.ended.wait()
        assert process.end is not None
        return process.end

    async def stop(self, ref: AttemptRef, *, reason: str, grace_s: float = 10.0) -> None:
        process = self._processes.get(ref.key)
        if process is None:
            process = self._never_executed(ref)
            _close(process, AttemptState.KILLED, reason, FailureClass.STOPPED)
        if process.end is not None:
            return
        process.stop_reason = process.stop_reason or reason
        if process.script.ignores_sigterm:
            await asyncio.wait([asyncio.ensure_future(process.ended.wait())], timeout=grace_s)
        _close(
            process,
            AttemptState.KILLED,
            process.stop_reason,
            FailureClass.STOPPED,
            signal=9 if process.script.ignores_sigterm else 15,
        )

    async def remove(self, ref: AttemptRef) -> None:
        process = self._processes.get(ref.key)
        if process is not None and process.end is None:
            raise ConflictError(f"attempt {ref.attempt} of trial {ref.trial_name} still runs", "stop it first")

    async def fetch(self, ref: AttemptRef) -> None:
        """Nothing to do: all of it was written here."""

    async def release(self, ref: AttemptRef) -> None:
        """Nothing to do: it costs nothing."""

    def sidecar(self, launch: Launch) -> bool:
        return False

    def phase(self, ref: AttemptRef) -> str:
        return ""

    def output(self, ref: AttemptRef) -> Path:
        """Where the attempt prints to, before anybody fetched it."""
        return self.log_path(ref)

    def log_path(self, ref: AttemptRef) -> Path:
        return self._root / ref.experiment_uid / str(ref.number) / str(ref.attempt) / "log"

    def sources(self, launch: Launch, path: str | None) -> Sources:
        log = self.log_path(launch.ref)
        private = None if path is None else log.parent / path.lstrip("/")
        return Sources(log=log, notes=log.parent, path=private, reports=log.parent / "reports")

    def lose(self, ref: AttemptRef) -> None:
        """The host, or what supervised the attempt there, is gone."""
        _close(self._processes[ref.key], AttemptState.LOST, "Lost", FailureClass.INFRASTRUCTURE)

    def _never_executed(self, ref: AttemptRef) -> _Process:
        process = self._processes[ref.key] = _Process(Script(), self.output(ref))
        return process


def _print(log: Path, lines: Iterable[str]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


async def _live(process: _Process) -> None:
    script = process.script
    for line in script.lines if script.pause_s or script.until else ():
        await asyncio.sleep(script.pause_s)
        _print(process.log, (line,))
        if script.until is not None:
            await script.until.wait()
    await asyncio.sleep(script.duration_s)
    if script.signal is not None:
        _close(process, AttemptState.FAILED, f"signal {script.signal}", FailureClass.SIGNAL, signal=script.signal)
    elif script.exit_code == 0:
        _close(process, AttemptState.SUCCEEDED, "Succeeded", None, exit_code=0)
    else:
        last = f": {script.lines[-1]}" if script.lines else ""
        reason = f"exit {script.exit_code}{last}"
        _close(process, AttemptState.FAILED, reason, FailureClass.PROGRAM, exit_code=script.exit_code)


def _close(
    process: _Process,
    state: AttemptState,
    reason: str,
    failure: FailureClass | None,
    *,
    exit_code: int | None = None,
    signal: int | None = None,
) -> None:
    if process.end is not None:
        return
    process.end = AttemptEnd(
        state=state,
        reason=reason,
        message="\n".join(process.script.lines[-10:]) if state is AttemptState.FAILED else "",
        failure=failure,
        exit_code=exit_code,
        signal=signal,
        started=process.started,
        ended=datetime.now(UTC),
    )
    process.ended.set()
    if process.life is not None and process.life is not asyncio.current_task():
        process.life.cancel()
