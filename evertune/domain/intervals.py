"""What an expression over parameters can be in a whole box of them: interval arithmetic, rounded outwards.

Used to prove that nothing satisfies a constraint. The answer is never too narrow; it is often too wide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from evertune.domain.syntax import Arithmetic, Call, Comparison, Literal, Logic, Name, Node, Not, Sign

Interval = tuple[float, float]
Texts = frozenset[str]
Box = Mapping[str, Interval | Texts]
Truth = frozenset[bool]

ANYTHING: Interval = (-math.inf, math.inf)
_TRUE, _FALSE, _EITHER = frozenset({True}), frozenset({False}), frozenset({True, False})


def may_hold(tree: Node, box: Box) -> bool:
    """False only when the condition holds nowhere in the box. Names that are not in the box are not expected."""
    return True in _truth(tree, box)


def _truth(node: Node, box: Box) -> Truth:
    if isinstance(node, Not):
        return frozenset(not value for value in _truth(node.operand, box))
    if isinstance(node, Logic):
        truths = [_truth(operand, box) for operand in node.operands]
        absorbing = node.operator == "or"
        return _combined(truths, absorbing)
    if isinstance(node, Comparison):
        operands = (node.first, *(operand for _, operand in node.rest))
        signs = [sign for sign, _ in node.rest]
        pairs = zip(signs, itertools.pairwise(operands), strict=True)
        return _combined([_compared(sign, left, right, box) for sign, (left, right) in pairs], False)
    return _EITHER


def _combined(truths: Sequence[Truth], absorbing: bool) -> Truth:
    """Of `or` (True absorbs) and `and` (False does), as if the parts had nothing to do with one another."""
    found = set()
    if any(absorbing in truth for truth in truths):
        found.add(absorbing)
    if all((not absorbing) in truth for truth in truths):
        found.add(not absorbing)
    return frozenset(found)


def _compared(sign: str, left: Node, right: Node, box: Box) -> Truth:
    texts = _texts(left, box), _texts(right, box)
    if texts[0] is not None and texts[1] is not None:
        equal = _equality(bool(texts[0] & texts[1]), len(texts[0] | texts[1]) == 1)
        return equal if sign == "==" else frozenset(not value for value in equal) if sign == "!=" else _EITHER
    if texts[0] is not None or texts[1] is not None:
        return _EITHER
    (low, high), (other_low, other_high) = _range(left, box), _range(right, box)
    if sign in ("==", "!="):
        equal = _equality(low <= other_high and other_low <= high, low == high == other_low == other_high)
        return equal if sign == "==" else frozenset(not value for value in equal)
    if sign in (">", ">="):
        low, high, other_low, other_high = other_low, other_high, low, high
    if sign in ("<", ">"):
        always, never = high < other_low, low >= other_high
    else:
        always, never = high <= other_low, low > other_high
    return _TRUE if always else _FALSE if never else _EITHER


def _equality(possible: bool, certain: bool) -> Truth:
    return _TRUE if certain else _EITHER if possible else _FALSE


def _texts(node: Node, box: Box) -> Texts | None:
    """The texts that a name or a literal may be; None for what is a number."""
    if isinstance(node, Literal) and isinstance(node.value, str):
        return frozenset({node.value})
    found = box[node.name] if isinstance(node, Name) else None
    return found if isinstance(found, frozenset) else None


def _range(node: Node, box: Box) -> Interval:
    if isinstance(node, Literal):
        return ANYTHING if isinstance(node.value, str) else _point(node.value)
    if isinstance(node, Name):
        found = box[node.name]
        return ANYTHING if isinstance(found, frozenset) else found
    if isinstance(node, Sign):
        low, high = _range(node.operand, box)
        return -high, -low
    if isinstance(node, Arithmetic):
        return _arithmetic(node.operator, _range(node.left, box), _range(node.right, box))
    if isinstance(node, Call):
        return _called(node.function, [_range(argument, box) for argument in node.arguments])
    truth = _truth(node, box)  # a condition counts as 1 or 0
    return float(min(truth)), float(max(truth))


def _bounds(values: Iterable[float]) -> Interval:
    """The least interval of doubles around all values, which may be whole numbers of any size; nan is anything."""
    try:
        found = [float(value) for value in values]
    except OverflowError:
        return ANYTHING
    return ANYTHING if any(map(math.isnan, found)) else (min(found), max(found))


def _point(value: float) -> Interval:
    found = _bounds([value])
    return found if found[0] == value else _outwards(found)


def _outwards(interval: Interval) -> Interval:
    low, high = interval
    return math.nextafter(low, -math.inf), math.nextafter(high, math.inf)


def _arithmetic(sign: str, left: Interval, right: Interval) -> Interval:
    corners = list(itertools.product(left, right))
    if sign == "+":
        return _outwards(_bounds([left[0] + right[0], left[1] + right[1]]))
    if sign == "-":
        return _outwards(_bounds([left[0] - right[1], left[1] - right[0]]))
    if sign == "*":
        return _outwards(_bounds(a * b for a, b in corners))
    if sign in ("/", "//"):
        if right[0] <= 0 <= right[1]:
            return ANYTHING
        low, high = _outwards(_bounds(a / b for a, b in corners))
        if sign == "/" or not (math.isfinite(low) and math.isfinite(high)):
            return low, high
        return float(math.floor(low)), float(math.floor(high))
    if sign == "%":
        if right[0] <= 0:
            return ANYTHING
        return left if left[0] >= 0 and left[1] < right[0] else (0.0, right[1])
    return _power(left, right, corners)


def _power(base: Interval, exponent: Interval, corners: Sequence[Interval]) -> Interval:
    try:
        if base[0] > 0:  # monotone in each of the two
            return _outwards(_bounds(a**b for a, b in corners))
        if exponent[0] == exponent[1] and exponent[0] >= 0 and exponent[0] == int(exponent[0]):
            power = int(exponent[0])
            low, high = _bounds([base[0] ** power, base[1] ** power])
            return _outwards((0.0 if power and power % 2 == 0 and base[0] <= 0 <= base[1] else low, high))
    except (OverflowError, ZeroDivisionError):
        return ANYTHING
    return ANYTHING


def _called(function: str, arguments: Sequence[Interval]) -> Interval:
    lows, highs = [low for low, _ in arguments], [high for _, high in arguments]
    low, high = arguments[0]
    try:
        if function == "min":
            return min(lows), min(highs)
        if function == "max":
            return max(lows), max(highs)
        if function == "abs":
            return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
        if function == "sqrt":
            return _outwards((math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))))
        if function == "exp":
            return _outwards((math.exp(low), math.exp(high)))
        if function == "int":
            return float(math.trunc(low)), float(math.trunc(high))
        if len(arguments) == 1 and high > 0:
            return _outwards((math.log(low) if low > 0 else -math.inf, math.log(high)))
    except (OverflowError, ValueError):
        return ANYTHING
    return ANYTHING
