"""Keeps the logs of ended experiments in order: archives what a killed worker left, deletes what is past its time.

Called by the reconciler, at most hourly, in a thread. `run_trial` archives the logs of the trials that it ends itself;
this finds the rest: trials that were killed, lost, or recorded by a worker that died right after. Touches only what is
below this home, only attempts that have ended, and nothing of an experiment that the database does not know.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from activities.launch import LaunchPlans
from activities.runners.local.attempt import Attempt
from evertune import archive
from evertune.domain.records import ExperimentRecord
from evertune.errors import EvertuneError
from evertune.store import Store
from worker import homes

log = structlog.get_logger()

EVERY_S = 3600.0
MARK = "logs"  # in an experiment's directory: "END kept" or "END gone", END being when that experiment had ended


@dataclass
class LogKeeper:
    store: Store
    plans: LaunchPlans
    trials_dir: Path
    cap: int = archive.CAP
    retention: timedelta | None = None
    _next: float = field(default=0.0)

    def due(self) -> bool:
        """True once an hour, beginning with the first time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + EVERY_S
        return True

    def tend(self, now: datetime | None = None) -> None:
        """Every experiment of this home that has ended. Killed half-way, or called twice, it does no harm."""
        now = now or datetime.now(UTC)
        for record, directory in homes.experiments(self.store, self.trials_dir):
            if record.state.terminal and record.ended is not None:
                self._tend(record, directory, now - record.ended)

    def _tend(self, record: ExperimentRecord, directory: Path, age: timedelta) -> None:
        gone = self.retention is not None and age > self.retention
        mark = f"{record.ended:%Y-%m-%dT%H:%M:%S.%f} {'gone' if gone else 'kept'}\n"
        if _read(directory / MARK) == mark:
            return
        problems = [problem for attempt in _ended(directory, record) for problem in self._treat(record, attempt, gone)]
        for problem in problems[:3]:
            log.warning("logs were not put in order, the next hour tries again", reason=problem)
        if not problems:
            (directory / MARK).write_text(mark, encoding="ascii")
            if gone:
                log.info("logs deleted", experiment=f"{record.namespace}/{record.name}", days=age.days)

    def _treat(self, record: ExperimentRecord, attempt: Path, gone: bool) -> list[str]:
        try:
            file = self.plans.reported_file(record.uid, attempt)
        except EvertuneError:  # a manifest of another version: the log itself is found without it
            file = None
        if not gone:
            return archive.keep(attempt, file, cap=self.cap)
        try:
            archive.forget(attempt, file)
        except OSError as error:
            return [f"{attempt}: {(error.strerror or str(error)).lower()}"]
        return []


def _ended(directory: Path, record: ExperimentRecord) -> Iterator[Path]:
    """Those of a cluster have ended with their experiment: nothing here says so of each."""
    in_cluster = record.backend != "local"
    for attempt in directory.glob("*/*"):
        if attempt.name.isdigit() and attempt.is_dir() and (in_cluster or Attempt(attempt).settled()):
            yield attempt


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ""
