"""A quantity of memory (`512Mi`, `1.5G`, `1e9`) that grows. Called by `render` for a trial that gets more of it."""

from __future__ import annotations

import math
from fractions import Fraction

from evertune.protocols import MemoryGrowth
from evertune.spec.quantity import BINARY, exact_quantity


def shown(number: Fraction) -> str:
    """Whole units, rounded up, with the largest binary suffix that keeps them whole."""
    whole = math.ceil(number)
    for suffix, unit in reversed(BINARY.items()):
        if whole and whole % unit == 0:
            return f"{whole // unit}{suffix}"
    return str(whole)


def grown(quantity: str | int | float, growth: MemoryGrowth) -> str | int | float:
    """`quantity` times the factor, at most the maximum; never less than it was. ValueError when one is no quantity."""
    before = exact_quantity(quantity)
    after = before * Fraction(str(growth.factor))
    if growth.maximum is not None:
        after = min(after, exact_quantity(growth.maximum))
    return shown(after) if after > before else quantity
