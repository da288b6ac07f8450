"""Expressions over parameters, such as `layers * width <= 4096`: parsed by our own small grammar, never by eval.

Written by users as `parameterConstraints`, judged by the rules of a spec, asked by whoever draws assignments.

    expression  or, and, not; comparisons (== != < <= > >=), chained as in Python; + - * / // % **; parentheses
    operands    numbers, 'texts', names, `names with dashes`
    functions   min(a, b, …) max(a, b, …) abs(a) exp(a) sqrt(a) int(a) log(a) log(a, base)

Precedence, short circuits and arithmetic are Python's; a condition counts as 1 or 0 in arithmetic. What cannot be
computed (a division by zero, an overflow, a root of what is negative) makes the whole expression false. Length, depth
and the size of numbers are bounded, so that no expression takes long.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evertune.domain.space import Value
from evertune.domain.syntax import (
    Arithmetic,
    Call,
    Comparison,
    Literal,
    Logic,
    Name,
    Node,
    Not,
    Number,
    Sign,
    nodes,
    parse_tree,
)

MAX_BITS = 4_096  # of a whole number: 2 ** 4096 still is one, 9 ** 9 ** 9 is not computed

Operand = int | float | str | bool


class Undefined(ArithmeticError):
    """It has no value here."""


_COMPARISONS: Mapping[str, Callable[[Operand, Operand], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_BINARY: Mapping[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "log": math.log,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "int": int,
}


@dataclass(frozen=True)
class Expression:
    """A condition over parameters. `names` are those it mentions, each once, in their order."""

    text: str
    tree: Node = field(repr=False)
    names: tuple[str, ...]

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether it holds for these values (as `SearchSpace.typed` gives them).

        It is not asked, and so holds, where a parameter that it names is not there: an inactive conditional one.
        """
        if any(name not in values for name in self.names):
            return True
        try:
            return bool(_value(self.tree, values))
        except (ArithmeticError, ValueError, TypeError):
            return False


def parse(text: str) -> Expression:
    """The expression in `text`; raises ExpressionError, a ValueError, with the position of what is wrong."""
    tree = parse_tree(text)
    names = dict.fromkeys(node.name for node in nodes(tree) if isinstance(node, Name))
    return Expression(text, tree, tuple(names))


# -------------------------------------------------------------------------------------------------- evaluation


def _value(node: Node, values: Mapping[str, Value]) -> Operand:
    if isinstance(node, Name):
        return values[node.name]
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Arithmetic):
        return arithmetic(node.operator, _number(node.left, values), _number(node.right, values))
    if isinstance(node, Comparison):
        left = _value(node.first, values)
        for sign, operand in node.rest:
            right = _value(operand, values)
            if not _compare(sign, left, right):
                return False
            left = right
        return True
    if isinstance(node, Logic):
        wanted = node.operator == "or"
        return wanted if any(bool(_value(one, values)) is wanted for one in node.operands) else not wanted
    if isinstance(node, Not):
        return not _value(node.operand, values)
    if isinstance(node, Sign):
        return -_number(node.operand, values)
    assert isinstance(node, Call)
    return call(node.function, [_number(argument, values) for argument in node.arguments])


def _number(node: Node, values: Mapping[str, Value]) -> Number:
    return _as_number(_value(node, values))


def _as_number(value: Operand) -> Number:
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        return float(value)


def _compare(sign: str, left: Operand, right: Operand) -> bool:
    if isinstance(left, str) is not isinstance(right, str):  # a number as text, as lists of values have them
        left, right = _as_number(left), _as_number(right)
    return _COMPARISONS[sign](left, right)


def arithmetic(sign: str, left: Number, right: Number) -> Number:
    """One operation; raises ArithmeticError or ValueError where it has no finite real result."""
    return finite(_power(left, right) if sign == "**" else _BINARY[sign](left, right))


def call(function: str, arguments: Sequence[Number]) -> Number:
    """One function; raises ArithmeticError or ValueError where it has no finite real result."""
    return finite(_FUNCTIONS[function](*arguments))


def finite(value: Number) -> Number:
    if isinstance(value, float) and not math.isfinite(value):
        raise Undefined
    return value


def _power(base: Number, exponent: Number) -> Number:
    whole = isinstance(base, int) and isinstance(exponent, int) and base not in (-1, 0, 1)
    if whole and exponent > 0 and int(base).bit_length() * exponent > MAX_BITS:
        raise Undefined
    result = base**exponent
    if isinstance(result, complex):
        raise Undefined
    return result
