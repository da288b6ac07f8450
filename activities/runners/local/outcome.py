"""From an exit status to an outcome: reason, message and failure class. Pure; called by `attempt`.

A status of 128 + n reads as signal n, as shells and the kubelet read it: a wrapper script that passes on the death of
its training process says it in no other way.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd

MESSAGE_LINES = 10
LINE_LENGTH = 300
EXIT_WORDS = {126: "the command cannot be executed", 127: "command not found"}

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_TRACEBACK = "Traceback (most recent call last):"


class Why(StrEnum):
    """Why an attempt ended, as the supervisor (or `Attempt.seal`) recorded it at that moment."""

    END = "end"
    STOP = "stop"
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "oom"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The line in `exit`. `status` is the shell's, None when nobody saw the process end."""

    status: int | None
    why: Why
    runs: int
    note: str = ""

    def line(self) -> str:
        return f"{'-' if self.status is None else self.status} {self.why} {self.runs} {self.note}\n"

    @classmethod
    def parse(cls, text: str) -> ExitRecord | None:
        """None for a line that is not complete: power was lost between writing and syncing it."""
        words = text.rstrip("\n").split(" ", 3)
        if not text.endswith("\n") or len(words) < 3:
            return None
        status = None if words[0] == "-" else int(words[0])
        return cls(status, Why(words[1]), int(words[2]), words[3] if len(words) == 4 else "")


def conclude(
    record: ExitRecord,
    *,
    stop_reason: str | None,
    plan: Mapping[str, Any],
    tail: bytes,
    started: datetime | None,
    ended: datetime,
) -> AttemptEnd:
    lines = last_lines(tail)
    number = signal_of(record.status)
    state, reason, message, failure = AttemptState.FAILED, "", "\n".join(lines[-MESSAGE_LINES:]), None
    match record.why:
        case Why.STOP:
            state, failure = AttemptState.KILLED, FailureClass.STOPPED
            reason, message = stop_reason or "stopped", _ended_by(record.status)
        case Why.LOST:
            state, failure = AttemptState.LOST, FailureClass.INFRASTRUCTURE
            reason, message = "Lost", record.note or "its command could not be started"
        case Why.DEADLINE:
            failure = FailureClass.DEADLINE
            reason = f"ran longer than {plan.get('deadline_s', 0):g} s"
        case Why.OUT_OF_MEMORY:
            failure = FailureClass.OUT_OF_MEMORY
            reason = "out of memory: the kernel killed it (signal 9)"
        case Why.END if record.status == 0:
            state, reason, message = AttemptState.SUCCEEDED, "Succeeded", ""
        case Why.END if number is not None:
            failure = FailureClass.SIGNAL
            reason = signal_text(number)
        case Why.END:
            configuration = record.status in EXIT_WORDS
            failure = FailureClass.CONFIGURATION if configuration else FailureClass.PROGRAM
            reason = _exit_reason(record.status or 0, lines)
            if hint := plan.get("hint"):
                message = f"{message}\n{hint}".strip()
    if record.runs > 1 and failure not in (None, FailureClass.STOPPED):
        message = f"{message}\n(run {record.runs} times, backoffLimit)".strip()
    return AttemptEnd(
        state=state,
        reason=reason,
        message=message,
        failure=failure,
        exit_code=None if number is not None else record.status,
        signal=number,
        started=started,
        ended=ended,
        warnings=tuple(plan.get("warnings") or ()),
    )


def signal_of(status: int | None) -> int | None:
    return status - 128 if status is not None and 128 < status < 160 else None


def signal_text(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def last_lines(tail: bytes) -> list[str]:
    """The non-empty lines of a log's end, readable: no colours, no progress bar but its last state."""
    lines = []
    for line in _ESCAPES.sub("", tail.decode("utf-8", errors="replace")).split("\n"):
        text = line.rstrip().rpartition("\r")[2].rstrip()
        if text:
            lines.append(text[:LINE_LENGTH])
    return lines


def _exit_reason(status: int, lines: list[str]) -> str:
    words = EXIT_WORDS.get(status)
    start = f"exit {status} ({words})" if words else f"exit {status}"
    return f"{start}: {telling(lines)}" if lines else start


def telling(lines: list[str]) -> str:
    """The exception of the last Python traceback, else the last line."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].endswith(_TRACEBACK):
            return next((line for line in lines[index + 1 :] if not line.startswith(" ")), lines[-1]).strip()
    return lines[-1].strip()


def _ended_by(status: int | None) -> str:
    if status is None:
        return ""
    number = signal_of(status)
    return signal_text(number) if number is not None else f"exit {status}"
