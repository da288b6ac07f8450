"""Kubernetes' quantities (`64Gi`, `1.5G`, `500m`, `1e9`) and factors (`x1.5`).

Called by rules and by whoever compares or scales memory.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})"
_QUANTITY = re.compile(rf"({_NUMBER})(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d{{1,3}}))?\Z", re.ASCII)
_FACTOR = re.compile(r"x(\d{1,3}(?:\.\d{1,6})?)\Z")
_UNITS = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def parse_quantity(value: str | float) -> float:
    """The number that a quantity stands for, for memory in bytes; raises ValueError."""
    match = _QUANTITY.match(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} is not a quantity")
    exponent = int(match[3] or 0)
    return float(Decimal(match[1]) * _UNITS[match[2] or ""] * Decimal(10) ** exponent)


def parse_factor(value: str | float | None) -> float:
    """1.5 of `x1.5`; raises ValueError."""
    match = _FACTOR.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a factor")
    return float(match[1])
