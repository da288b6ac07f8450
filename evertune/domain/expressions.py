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
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from evertune.domain.space import Value

MAX_LENGTH = 1_000
MAX_DEPTH = 40
MAX_OPERATIONS = 100
MAX_BITS = 4_096  # of a whole number: 2 ** 4096 still is one, 9 ** 9 ** 9 is not computed

Number = int | float
Operand = int | float | str | bool


class ExpressionError(ValueError):
    """The text is not an expression. `position` counts characters from 0, `hint` is a mend."""

    def __init__(self, message: str, position: int, hint: str | None = None) -> None:
        super().__init__(f"{message}, at character {position + 1}")
        self.message, self.position, self.hint = message, position, hint


class Undefined(ArithmeticError):
    """It has no value here."""


# ----------------------------------------------------------------------------------------------------- the tree


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression; `position` is that of the character where it stands, from 0."""

    position: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    value: Number | str


@dataclass(frozen=True, slots=True)
class Name(Node):
    name: str


@dataclass(frozen=True, slots=True)
class Sign(Node):
    """-operand"""

    operand: Node


@dataclass(frozen=True, slots=True)
class Not(Node):
    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """first OPERATOR operand OPERATOR operand …"""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """`and` or `or`"""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: str
    arguments: tuple[Node, ...]


COMPARISONS: Mapping[str, Callable[[Operand, Operand], bool]] = {
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
FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Number]]] = {  # least and most arguments
    "min": (2, 20, min),
    "max": (2, 20, max),
    "abs": (1, 1, abs),
    "log": (1, 2, math.log),
    "exp": (1, 1, math.exp),
    "sqrt": (1, 1, math.sqrt),
    "int": (1, 1, int),
}
WORDS = ("and", "or", "not")


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


def nodes(tree: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield tree
    for child in children(tree):
        yield from nodes(child)


def children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Sign | Not):
        return (node.operand,)
    if isinstance(node, Arithmetic):
        return node.left, node.right
    if isinstance(node, Comparison):
        return node.first, *(operand for _, operand in node.rest)
    if isinstance(node, Logic):
        return node.operands
    return node.arguments if isinstance(node, Call) else ()


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
    return COMPARISONS[sign](left, right)


def arithmetic(sign: str, left: Number, right: Number) -> Number:
    """One operation; raises ArithmeticError or ValueError where it has no finite real result."""
    return finite(_power(left, right) if sign == "**" else _BINARY[sign](left, right))


def call(function: str, arguments: Sequence[Number]) -> Number:
    """One function; raises ArithmeticError or ValueError where it has no finite real result."""
    return finite(FUNCTIONS[function][2](*arguments))


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


# ----------------------------------------------------------------------------------------------------- parsing


class _Token(NamedTuple):
    kind: str  # number, text, name, sign, word, end
    text: str
    position: int


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
    | (?P<text>'[^']*'|"[^"]*")
    | `(?P<quoted>[^`]+)`
    | (?P<name>[^\W\d]\w*(?:\.\w+)*)
    | (?P<sign>\*\*|//|<=|>=|==|!=|[-+*/%<>(),])
    )""",
    re.VERBOSE,
)
_WRONG_SIGNS = {
    "=": "write == to compare",
    "&": "write and",
    "|": "write or",
    "!": "write not",
    "^": "write ** for powers",
}
_MINUS = ("+", "-")
_LEVELS = (("+", "-"), ("*", "/", "//", "%"))


def parse(text: str) -> Expression:
    """The expression in `text`; raises ExpressionError, a ValueError, with the position of what is wrong."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH:,} characters", MAX_LENGTH)
    parser = _Parser(text)
    tree = parser.whole()
    names = dict.fromkeys(node.name for node in nodes(tree) if isinstance(node, Name))
    return Expression(text, tree, tuple(names))


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            char = text[at]
            if char in "'\"`":
                raise ExpressionError(f"the quote {char} is not closed", at)
            raise ExpressionError(f'"{char}" has no meaning here', at, _WRONG_SIGNS.get(char))
        kind = str(match.lastgroup)
        word = match[kind]
        kind = "word" if kind == "name" and word in WORDS else "name" if kind == "quoted" else kind
        yield _Token(kind, word, match.start(match.lastgroup or 0))
        at = match.end()
    yield _Token("end", "", len(text))


class _Parser:
    """One method per level of precedence, loosest first. `depth` bounds the recursion."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.depth = 0
        self.operations = 0

    def whole(self) -> Node:
        tree = self.logic("or")
        if self.now.kind != "end":
            raise self.unexpected()
        return tree

    @property
    def now(self) -> _Token:
        return self.tokens[self.at]

    def take(self, kind: str, *texts: str) -> _Token | None:
        token = self.now
        if token.kind != kind or token.text not in texts:
            return None
        self.at += 1
        return token

    def unexpected(self) -> ExpressionError:
        token = self.now
        if token.kind == "end":
            return ExpressionError("something is missing at the end", token.position)
        return ExpressionError(f'"{token.text}" is not expected here', token.position)

    def logic(self, word: str) -> Node:
        below = self.negation if word == "and" else lambda: self.logic("and")
        position = self.now.position
        operands = [below()]
        while self.take("word", word):
            operands.append(below())
        return operands[0] if len(operands) == 1 else Logic(position, word, tuple(operands))

    def negation(self) -> Node:
        found = self.take("word", "not")
        if found is None:
            return self.comparison()
        return Not(found.position, self.deeper(self.negation, found.position))

    def comparison(self) -> Node:
        position = self.now.position
        first = self.terms(0)
        rest = []
        while sign := self.take("sign", *COMPARISONS):
            rest.append((sign.text, self.terms(0)))
        return Comparison(position, first, tuple(rest)) if rest else first

    def terms(self, level: int) -> Node:
        below = self.signed if level + 1 == len(_LEVELS) else lambda: self.terms(level + 1)
        left = below()
        while sign := self.take("sign", *_LEVELS[level]):
            left = Arithmetic(sign.position, sign.text, left, below())
            self.operations += 1
            if self.operations > MAX_OPERATIONS:  # a long sum is a deep tree
                raise ExpressionError(f"more than {MAX_OPERATIONS} operations", sign.position)
        return left

    def signed(self) -> Node:
        sign = self.take("sign", *_MINUS)
        if sign is None:
            return self.power()
        operand = self.deeper(self.signed, sign.position)
        return Sign(sign.position, operand) if sign.text == "-" else operand

    def power(self) -> Node:
        base = self.atom()
        sign = self.take("sign", "**")
        if sign is None:
            return base
        return Arithmetic(sign.position, "**", base, self.deeper(self.signed, sign.position))

    def atom(self) -> Node:
        token = self.now
        if token.kind in ("end", "word") or (token.kind == "sign" and token.text != "("):
            raise self.unexpected()
        self.at += 1
        if token.kind == "sign":
            inner = self.deeper(lambda: self.logic("or"), token.position)
            self.close(token)
            return inner
        if token.kind == "number":
            return Literal(token.position, _literal(token))
        if token.kind == "text":
            return Literal(token.position, token.text[1:-1])
        opened = self.take("sign", "(")
        return Name(token.position, token.text) if opened is None else self.call(token, opened)

    def call(self, name: _Token, opened: _Token) -> Node:
        if name.text not in FUNCTIONS:
            raise ExpressionError(f"there is no function {name.text}", name.position, f"known: {' '.join(FUNCTIONS)}")
        arguments = [self.deeper(lambda: self.logic("or"), opened.position)]
        while self.take("sign", ","):
            arguments.append(self.deeper(lambda: self.logic("or"), opened.position))
        self.close(opened)
        least, most, _ = FUNCTIONS[name.text]
        if not least <= len(arguments) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ExpressionError(f"{name.text} takes {wanted} arguments, not {len(arguments)}", name.position)
        return Call(name.position, name.text, tuple(arguments))

    def close(self, opened: _Token) -> None:
        if self.take("sign", ")") is None:
            if self.now.kind == "end":
                raise ExpressionError("the parenthesis is not closed", opened.position)
            raise self.unexpected()

    def deeper(self, parser: Callable[[], Node], position: int) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH} levels", position)
        node = parser()
        self.depth -= 1
        return node


def _literal(token: _Token) -> Number:
    try:
        return int(token.text)
    except ValueError:
        value = float(token.text)
    if not math.isfinite(value):
        raise ExpressionError("the number is too large", token.position)
    return value
