"""What the attempts of a test do: `Script`s, which fakes act and real runners execute."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from evertune.domain.trial import AttemptRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What an attempt does: print, take its time, end. `signal` is one that comes from elsewhere, not from us.

    `beside_s`, `beside_exit_code`: of the other containers of a pod, once the main one has ended.
    `until`: in memory only, where a test decides the moment: what follows its first line is after that.
    """

    lines: tuple[str, ...] = ()
    pause_s: float = 0.0  # before each line
    duration_s: float = 0.0
    exit_code: int = 0
    signal: int | None = None
    ignores_sigterm: bool = False
    refused: str | None = None  # the sentence of the LaunchError with which it cannot start
    beside_s: float = 0.0
    beside_exit_code: int = 0
    until: asyncio.Event | None = None


FOR_EVER = 3600.0


def attempt_ref(number: int = 0, attempt: int = 0) -> AttemptRef:
    return AttemptRef("0123456789abcdef0123456789abcdef", number, attempt, f"experiment-{number:08d}")
