"""Kubernetes' quantities (`64Gi`, `1.5G`, `500m`, `1e9`) and factors (`x1.5`).

Called by rules and by whoever compares or scales memory.
"""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})"
_QUANTITY = re.compile(rf"({_NUMBER})(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d{{1,3}}))?\Z", re.ASCII)
_FACTOR = re.compile(r"x(\d{1,3}(?:\.\d{1,6})?)\Z")
BINARY = {f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)}
_UNITS: dict[str, int | Fraction] = {
    **{unit: Fraction(1000) ** power for power, unit in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)},
    **BINARY,
}


def exact_quantity(value: str | float) -> Fraction:
    """The number that a quantity stands for, for memory in bytes; raises ValueError."""
    match = _QUANTITY.match(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} is not a quantity such as 512Mi or 2G")
    exponent = int(match[3] or 0)
    return Fraction(match[1]) * _UNITS[match[2] or ""] * Fraction(10) ** exponent


def parse_quantity(value: str | float) -> float:
    """`exact_quantity`, to be compared and printed."""
    return float(exact_quantity(value))


def parse_factor(value: str | float | None) -> float:
    """1.5 of `x1.5`; raises ValueError."""
    match = _FACTOR.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a factor")
    return float(match[1])
