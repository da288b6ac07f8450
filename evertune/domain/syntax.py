"""The grammar of `expressions`: from text to a tree, with the position of what is wrong. Nothing is computed here.

Length, depth and the number of operations are bounded, so that whoever walks a tree may recurse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MAX_LENGTH = 1_000
MAX_DEPTH = 40
MAX_OPERATIONS = 100

Number = int | float

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
FUNCTIONS: Mapping[str, tuple[int, int]] = {  # least and most arguments
    "min": (2, 20),
    "max": (2, 20),
    "abs": (1, 1),
    "log": (1, 2),
    "exp": (1, 1),
    "sqrt": (1, 1),
    "int": (1, 1),
}
WORDS = ("and", "or", "not")


class ExpressionError(ValueError):
    """The text is not an expression. `position` counts characters from 0, `hint` is a mend."""

    def __init__(self, message: str, position: int, hint: str | None = None) -> None:
        super().__init__(f"{message}, at character {position + 1}")
        self.message, self.position, self.hint = message, position, hint


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


def parse_tree(text: str) -> Node:
    """The tree of the expression in `text`; raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH:,} characters", MAX_LENGTH)
    return _Parser(text).whole()


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
        least, most = FUNCTIONS[name.text]
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
