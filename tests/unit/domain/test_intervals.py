"""Interval arithmetic over expressions: what holds at a point of a box may hold in the box, whatever the box."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evertune.domain.expressions import parse
from evertune.domain.intervals import may_hold
from tests.unit.domain.test_expressions import CONDITIONS, STEADY

SIDES = st.tuples(st.floats(-10, 20), st.floats(-10, 20)).map(lambda ends: (min(ends), max(ends)))
SHARES = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@settings(STEADY, max_examples=400)
@given(text=CONDITIONS, sides=st.lists(SIDES, min_size=3, max_size=3), points=st.lists(SHARES, min_size=1, max_size=5))
def test_what_holds_somewhere_is_never_refuted(
    text: str, sides: list[tuple[float, float]], points: list[list[float]]
) -> None:
    expression = parse(text)
    box = dict(zip("xyz", sides, strict=True))
    possible = may_hold(expression.tree, box)
    for shares in points:
        values = {
            name: min(max(low + share * (high - low), low), high)
            for (name, (low, high)), share in zip(box.items(), shares, strict=True)
        }
        assert possible or not expression.holds(values), values


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("x > 1", False),
        ("x >= 1", True),
        ("x * y > 6", False),
        ("x * y > 5", True),
        ("x + y == 7", False),
        ("x ** 2 > 1.1", False),
        ("exp(x) < 0.9", False),
        ("sqrt(y) > 2.5", False),
        ("log(y) < 0.6", False),
        ("abs(x - 1) > 1.1", False),
        ("min(x, y) > 1.1 or max(x, y) < 1.9", False),
        ("int(y) == 6 or y // 2 > 3", False),
        ("y % 7 > 5.1", False),
        ("not x <= 1", False),
        ("0 < x < 1", True),
        ("opt == 'sgd' and x > 2", False),
        ("opt == 'rms'", False),
        ("opt != 'sgd'", True),
        ("1 / x > 0", True),
        ("(x > 2) + (y > 6) >= 1", False),
    ],
)
def test_a_box_where_nothing_holds_is_refuted(text: str, possible: bool) -> None:
    box: dict[str, Any] = {"x": (0.0, 1.0), "y": (2.0, 5.0), "opt": frozenset({"sgd", "adam"})}
    assert may_hold(parse(text).tree, box) is possible
