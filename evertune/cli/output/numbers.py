"""Numbers as people read them. `-o json` never comes here: it gives values exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from evertune.domain.space import Value

DIGITS = 4  # of an objective
SMALL, LARGE = 1e-4, 1e7


class Decimals:
    """Writes objective values with the same decimals: four digits for the largest of `values`."""

    def __init__(self, values: Iterable[float | None]) -> None:
        top = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
        self._scientific = top > 0 and not SMALL <= top < LARGE
        exponent = math.floor(math.log10(top)) if top > 0 else -1
        self._decimals = max(DIGITS - 1 - max(exponent, -4), 0)

    def text(self, value: float) -> str:
        if self._scientific:
            return _short_exponent(f"{value:.{DIGITS - 1}e}")
        return f"{value:.{self._decimals}f}"


def objective_text(value: float | None, text: str | None, decimals: Decimals, none: str = "–") -> str:
    """A number with its column's decimals, a text as it is, else `none`."""
    if value is not None:
        return decimals.text(value)
    return none if text is None else text


def parameter_text(value: Value, digits: int = 3) -> str:
    """Three digits: `0.0215`, `8.71e-4`, `12.4`; integers and texts as they are."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e5:
        return _short_exponent(f"{value:.{digits - 1}e}")
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{decimals}f}"


def number_or_text(text: str | None) -> float | int | str | None:
    """A reported value as JSON should hold it: exact where it is a number."""
    if text is None:
        return None
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def age(seconds: float) -> str:
    """`9s`, `61m`, `2h04m`, `3d`."""
    seconds = max(seconds, 0)
    if seconds < 60:
        return f"{int(seconds)}s"
    minutes = int(seconds // 60)
    if minutes < 72:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes // (24 * 60)}d"


def clock(seconds: float) -> str:
    """How long something has been going on, or will: `00:41` below an hour, then `5h40m`, then days."""
    seconds = max(seconds, 0)
    if seconds < 3600:
        return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
    return f"{int(seconds // 86400)}d{int(seconds % 86400 // 3600):02d}h"


def interval(seconds: float) -> str:
    """`0.8s`, `3.1s`, `42s`, `2m14s`, `1h12m`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return age(seconds)


def utc(at: datetime | None) -> str | None:
    """ISO 8601 with `Z`, milliseconds."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _short_exponent(text: str) -> str:
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}"
