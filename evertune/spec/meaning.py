"""Whether an expression over parameters makes sense in a search space: names, and numbers, texts and conditions.

Asked by the rules about `parameterConstraints`. Whether anything satisfies it is `feasible`'s question.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from evertune.domain.expressions import Expression
from evertune.domain.space import Parameter, ParameterType, SearchSpace
from evertune.domain.syntax import (
    Arithmetic,
    Call,
    Comparison,
    Literal,
    Logic,
    Name,
    Node,
    Not,
    Sign,
)
from evertune.spec.findings import did_you_mean, quote, suggestion


class Kind(StrEnum):
    NUMBER = "a number"
    TEXT = "a text"
    CONDITION = "a condition"


class Fault(NamedTuple):
    """One thing that is wrong in an expression, and the character (from 0) where it is."""

    position: int
    message: str
    hint: str | None = None


def faults(expression: Expression, space: SearchSpace) -> list[Fault]:
    """Everything wrong with the expression's names and types, in the order of the text."""
    judge = _Judge({parameter.name: parameter for parameter in space})
    kind = judge.kind(expression.tree)
    if kind is not None and kind is not Kind.CONDITION:
        judge.found.append(Fault(expression.tree.position, f"it is {kind}, not a condition", "compare it: … <= 4096"))
    elif kind is not None and not expression.names:
        judge.found.append(Fault(expression.tree.position, "it is about no parameter"))
    return sorted(judge.found)


class _Judge:
    """`kind` is None where something below is wrong: one mistake, one message."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = parameters
        self.found: list[Fault] = []

    def kind(self, node: Node) -> Kind | None:
        if isinstance(node, Literal):
            return Kind.TEXT if isinstance(node.value, str) else Kind.NUMBER
        if isinstance(node, Name):
            return self.name(node)
        if isinstance(node, Arithmetic):
            return self.numbers(f"{node.operator} takes numbers", node.left, node.right)
        if isinstance(node, Sign):
            return self.numbers("- takes a number", node.operand)
        if isinstance(node, Call):
            return self.numbers(f"{node.function} takes numbers", *node.arguments)
        if isinstance(node, Not):
            return self.conditions("not", node.operand)
        if isinstance(node, Logic):
            return self.conditions(node.operator, *node.operands)
        assert isinstance(node, Comparison)
        return self.comparison(node)

    def name(self, node: Name) -> Kind | None:
        parameter = self.parameters.get(node.name)
        if parameter is None:
            hint = suggestion(node.name, self.parameters, "parameters")
            dashed = [name for name in self.parameters if "-" in name and name.split("-")[0] == node.name]
            if dashed:
                hint = f"a name with dashes stands in backquotes: `{dashed[0]}`; {hint}"
            self.found.append(Fault(node.position, f"no parameter is called {quote(node.name)}", hint))
            return None
        return Kind.TEXT if parameter.type is ParameterType.CATEGORICAL else Kind.NUMBER

    def numbers(self, rule: str, *operands: Node) -> Kind | None:
        kinds = [self.kind(operand) for operand in operands]
        for operand, kind in zip(operands, kinds, strict=True):
            if kind is Kind.TEXT:
                hint = "a list of numbers: parameterType: discrete" if isinstance(operand, Name) else None
                self.found.append(Fault(operand.position, f"{rule}, and {_shown(operand)} is a text", hint))
        return None if None in kinds or Kind.TEXT in kinds else Kind.NUMBER

    def conditions(self, word: str, *operands: Node) -> Kind | None:
        kinds = [self.kind(operand) for operand in operands]
        for operand, kind in zip(operands, kinds, strict=True):
            if kind in (Kind.NUMBER, Kind.TEXT):
                message = f"{word} takes conditions, and {_shown(operand)} is {kind}"
                self.found.append(Fault(operand.position, message, "compare it: … > 0"))
        return Kind.CONDITION if all(kind is Kind.CONDITION for kind in kinds) else None

    def comparison(self, node: Comparison) -> Kind | None:
        operands = (node.first, *(operand for _, operand in node.rest))
        kinds = [self.kind(operand) for operand in operands]
        if None in kinds:
            return None
        good = True
        for index, (sign, right) in enumerate(node.rest):
            left = operands[index]
            texts = {kinds[index] is Kind.TEXT, kinds[index + 1] is Kind.TEXT}
            if texts == {True, False}:
                message = f"{_shown(left)} is {kinds[index]} and {_shown(right)} is {kinds[index + 1]}"
                self.found.append(Fault(right.position, f"{message}: they are never equal"))
                good = False
            elif texts == {True} and sign not in ("==", "!="):
                self.found.append(Fault(right.position, f"texts have no order: {sign} compares numbers"))
                good = False
            elif texts == {True}:
                good = self.known(left, right) and self.known(right, left) and good
        return Kind.CONDITION if good else None

    def known(self, name: Node, literal: Node) -> bool:
        """A text that a parameter is compared with must be one of its values."""
        if not isinstance(name, Name) or not isinstance(literal, Literal):
            return True
        values = self.parameters[name.name].values
        if literal.value in values:
            return True
        close = did_you_mean(str(literal.value), values)
        listed = f"values: {' '.join(values[:20])}{' …' if len(values) > 20 else ''}"
        hint = f"did you mean {quote(close)}?; {listed}" if close else listed
        self.found.append(Fault(literal.position, f"{name.name} is never {quote(literal.value)}", hint))
        return False


def _shown(node: Node) -> str:
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Literal):
        return quote(node.value)
    return f"{node.function}(…)" if isinstance(node, Call) else "what stands there"
