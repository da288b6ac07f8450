"""Times as programs write them: RFC 3339, or seconds since the epoch. Called by the rules of every format.

A time that lies is no time. More than a day in the future, or before the year 2000, it would decide what `latest` is;
so it counts as missing, with one warning for the source. Katib's zero time (`0001-01-01T00:00:00Z`) means missing, and
needs no warning.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from collectors.warnings import Warnings

EARLIEST = 946684800.0  # 2000-01-01T00:00:00Z
AHEAD_S = 86400.0  # clocks and time zones are wrong by hours, not by days

_RFC3339 = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)")
_ZERO = -62135596800.0  # the year 1


class Clock:
    """Reads times and doubts them. Remembers the last one: lines come in bursts of a second."""

    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings
        self._token = b""
        self._seconds: float | None = None

    def at_start(self, line: bytes, number: int) -> float | None:
        """Katib's TEXT rule: the time is what stands before the first blank, if it is RFC 3339."""
        token, blank, _ = line.partition(b" ")
        return self.rfc3339(token, number) if blank else None

    def rfc3339(self, token: bytes, number: int) -> float | None:
        if token == self._token:
            return self._seconds
        seconds = parsed(token)
        if seconds is not None:
            seconds = self.believed(seconds, number, token)
            self._token, self._seconds = token, seconds
        return seconds

    def believed(self, seconds: float, number: int, said: object = None) -> float | None:
        """`seconds` since the epoch, or None for one that lies in line `number`."""
        if EARLIEST <= seconds <= time.time() + AHEAD_S:
            return seconds
        if seconds != _ZERO:
            text = said.decode("ascii", "replace") if isinstance(said, bytes) else f"{seconds:.15g}"
            self._warnings.add("time", number, text)
        return None


def parsed(token: bytes) -> float | None:
    """RFC 3339 as UTC seconds since the epoch; None for anything else."""
    if not _RFC3339.fullmatch(token):
        return None
    try:
        return datetime.fromisoformat(token.decode().replace(",", ".")).timestamp()
    except ValueError:  # the 31st of February
        return None
