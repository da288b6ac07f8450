"""Kubernetes' quantities (`512Mi`, `1.5G`, `1e9`), exactly. Called by `render` for a trial that gets more memory."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from evertune.protocols import MemoryGrowth

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_UNITS: dict[str, int | Fraction] = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18, **_BINARY,
}  # fmt: skip
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))(?:[eE]([+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE]|))"
)


def parse(quantity: str | int | float) -> Fraction:
    """The number that a quantity stands for. ValueError when it is none."""
    found = _QUANTITY.fullmatch(str(quantity).strip())
    if found is None:
        raise ValueError(f"{quantity!r} is not a quantity such as 512Mi or 2G")
    exponent = Fraction(10) ** int(found[2]) if found[2] else _UNITS[found[3] or ""]
    return Fraction(found[1]) * exponent


def shown(number: Fraction) -> str:
    """Whole units, rounded up, with the largest binary suffix that keeps them whole."""
    whole = math.ceil(number)
    for suffix, unit in reversed(_BINARY.items()):
        if whole and whole % unit == 0:
            return f"{whole // unit}{suffix}"
    return str(whole)


def grown(quantity: str | int | float, growth: MemoryGrowth) -> str | int | float:
    """`quantity` times the factor, at most the maximum; never less than it was. ValueError when one is no quantity."""
    before = parse(quantity)
    after = before * Fraction(str(growth.factor))
    if growth.maximum is not None:
        after = min(after, parse(growth.maximum))
    return shown(after) if after > before else quantity
