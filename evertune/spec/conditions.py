"""Success and failure conditions: the part of GJSON that Katib's expressions need, with errors that say what is wrong.

`rules.conditions` parses and tries every condition at submit, runners ask `holds` for each change of an object. Values
compare as in Katib's GJSON, which looks at their text and not at their type. What is beyond the subset is refused when
it is parsed: an expression never turns out at run time to be one that nobody understands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from evertune.spec.findings import quote

SUPPORTED = (
    'supported: a.b.c, a\\.b for a dot in a key, a.0, a.#, a.#.b, a.#(type=="x") first match, a.#(type=="x")# all'
    " matches, | and [@this]; operators == != < <= > >= % !%"
)
LONGEST = 1000  # characters
MOST_STEPS = 50  # from pipe to pipe
DEEPEST = 10  # queries within queries

_OPERATORS = ("==", "!=", "<=", ">=", "!%", "=", "<", ">", "%")
_MISSING: Final = object()


class ConditionError(ValueError):
    """The expression cannot be read. `position` counts characters from 1."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} at character {position}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Found:
    """A condition holds, and this is what the object says about it."""

    reason: str = ""
    message: str = ""


# ------------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class _Query:
    path: _Path | None  # None: the element itself
    operator: str  # "": that the path exists is enough
    text: str
    number: float


@dataclass(frozen=True, slots=True)
class _Step:
    kind: str  # key | count | each | first | all | this | wrap
    key: str = ""
    index: int = -1
    query: _Query | None = None


_Path = tuple[tuple[_Step, ...], ...]  # what stands between pipes


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition. Make it with `parse`."""

    text: str
    _path: _Path = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ConditionError, a ValueError, with the position. Parsed ones are cached by their text."""
        return _parsed(text)

    def value(self, obj: Any) -> Any:
        """What the expression finds in an object, None where it finds nothing. Never raises."""
        found = _path_value(self._path, obj)
        return None if found is _MISSING else found

    def holds(self, obj: Mapping[str, Any]) -> Found | None:
        """As in Katib: only an object or a list that is not empty counts; a text, number or boolean never does."""
        found = _path_value(self._path, obj)
        if isinstance(found, list) and found:
            found = found[0]
        elif not isinstance(found, dict):
            return None
        if not isinstance(found, dict):
            return Found()
        return Found(_shown(found.get("reason")), _shown(found.get("message")))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# -------------------------------------------------------------------------------------------------- evaluation


def _path_value(path: _Path, value: Any) -> Any:
    for steps in path:
        value = _steps_value(steps, 0, value)
        if value is _MISSING:
            break
    return value


def _steps_value(steps: tuple[_Step, ...], start: int, value: Any) -> Any:
    for position in range(start, len(steps)):
        step = steps[position]
        if step.kind == "key":
            value = _member(step, value)
        elif step.kind == "wrap":
            value = [value]
        elif step.kind != "this":
            if not isinstance(value, list):
                return _MISSING
            if step.kind == "count":
                value = len(value)
            elif step.kind == "first":
                assert step.query is not None
                value = next((item for item in value if _matches(step.query, item)), _MISSING)
            else:  # what follows is asked of each element, up to the next pipe
                chosen = value if step.query is None else [item for item in value if _matches(step.query, item)]
                found = (_steps_value(steps, position + 1, item) for item in chosen)
                return [item for item in found if item is not _MISSING]
        if value is _MISSING:
            break
    return value


def _member(step: _Step, value: Any) -> Any:
    if isinstance(value, dict):
        return value.get(step.key, _MISSING)
    if isinstance(value, list) and 0 <= step.index < len(value):
        return value[step.index]
    return _MISSING


def _matches(query: _Query, item: Any) -> bool:
    value = item
    if query.path is not None:
        value = _path_value(query.path, item) if isinstance(item, dict | list) else _MISSING
    if value is _MISSING:
        return False
    operator = query.operator
    if not operator:
        return True
    if isinstance(value, bool):  # false is less than true, and any other text is neither
        text = "true" if value else "false"
        if operator in ("==", "!="):
            return (text == query.text) == (operator == "==")
        other = "false" if value else "true"
        return operator in ((">", ">=") if value else ("<", "<=")) and (operator[1:] == "=" or query.text == other)
    if isinstance(value, int | float):
        return _compare(operator, value, query.number)
    if not isinstance(value, str):
        return False  # neither null nor an object or a list equals or differs from anything
    if operator in ("%", "!%"):
        return _like(value, query.text) == (operator == "%")
    return _compare(operator, value, query.text)


def _compare(operator: str, left: Any, right: Any) -> bool:
    if operator == "==":
        return bool(left == right)
    if operator == "!=":
        return bool(left != right)
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    if operator == ">":
        return bool(left > right)
    return operator == ">=" and bool(left >= right)


@lru_cache(maxsize=256)
def _wildcards(pattern: str) -> tuple[str, ...]:
    """The pattern's parts: `*` and `?` as they are, any other character behind an `=`, where it cannot be mistaken."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return tuple(part if part in ("*", "?") else f"={part[-1]}" for part in parts)


def _like(text: str, pattern: str) -> bool:
    """`*` is any text, `?` one character, a backslash takes the next one as it is. Quadratic at worst."""
    parts = _wildcards(pattern)
    at = part = 0
    star, resume = -1, 0
    while at < len(text):
        if part < len(parts) and parts[part] == "*":
            star, resume = part, at
            part += 1
        elif part < len(parts) and parts[part] in ("?", f"={text[at]}"):
            at, part = at + 1, part + 1
        elif star >= 0:
            resume += 1
            at, part = resume, star + 1
        else:
            return False
    return all(rest == "*" for rest in parts[part:])


# ----------------------------------------------------------------------------------------------------- parsing


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Condition:
    if len(text) > LONGEST:
        raise ConditionError(f"the expression is longer than {LONGEST} characters", LONGEST + 1)
    source = text.rstrip()
    start = len(source) - len(source.lstrip())
    if start == len(source):
        raise ConditionError("the expression is empty", 1)
    parser = _Parser(source, start)
    path = parser.path()
    if parser.at < len(source):
        raise parser.error(f"{quote(source[parser.at])} closes nothing")
    return Condition(text, path)


@dataclass(slots=True)
class _Parser:
    text: str
    at: int
    depth: int = 0

    def error(self, reason: str, at: int | None = None) -> ConditionError:
        return ConditionError(reason, (self.at if at is None else at) + 1)

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.text[place] if place < len(self.text) else ""

    def path(self) -> _Path:
        """Up to the end, or to what only the query around it knows: an operator or its closing parenthesis."""
        segments: list[tuple[_Step, ...]] = []
        steps: list[_Step] = []
        while True:
            if len(steps) == MOST_STEPS:
                raise self.error(f"the path has more than {MOST_STEPS} steps")
            steps.append(self._step())
            separator = self.peek()
            if separator == "|":
                segments.append(tuple(steps))
                steps = []
            elif separator != ".":
                return (*segments, tuple(steps))
            self.at += 1

    def _step(self) -> _Step:
        rest = self.peek()
        if rest in ("", ".", "|", ")"):
            raise self.error("a key is missing")
        if rest == "#":
            return self._hash()
        if rest == "[":
            if not self.text.startswith("[@this]", self.at):
                raise self.error("in square brackets only [@this] is supported")
            self.at += len("[@this]")
            return self._ended(_Step("wrap"), "[@this]")
        if rest == "@":
            if not self.text.startswith("@this", self.at):
                raise self.error("the only modifier that is supported is @this")
            self.at += len("@this")
            return self._ended(_Step("this"), "@this")
        return self._key()

    def _ended(self, step: _Step, name: str) -> _Step:
        inside = self.depth and (self.peek().isspace() or self._operator())
        if self.peek() not in ("", ".", "|", ")") and not inside:
            raise self.error(f"{name} is followed by {quote(self.peek())}, but only . or | may stand there")
        return step

    def _hash(self) -> _Step:
        self.at += 1
        if self.peek() != "(":
            return self._ended(_Step("each" if self.peek() == "." else "count"), "#")
        query = self._query()
        if self.peek() == "#":
            self.at += 1
            return self._ended(_Step("all", query=query), "#(…)#")
        return self._ended(_Step("first", query=query), "#(…)")

    def _query(self) -> _Query:
        opened = self.at
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} queries are nested")
        self.at += 1
        self._spaces()
        path = None if self._operator() else self.path()
        self._spaces()
        operator, value = self._operator(), ""
        if operator:
            self.at += len(operator)
            self._spaces()
            value = self._value(opened, pattern="%" in operator)
        if self.peek() != ")":
            if self.at >= len(self.text):
                raise self.error("this parenthesis is not closed", opened)
            raise self.error(f"an operator or ) is wanted, not {quote(self.peek())}")
        self.at += 1
        self.depth -= 1
        return _Query(path, "==" if operator == "=" else operator, value, _number(value))

    def _spaces(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def _operator(self) -> str:
        return next((operator for operator in _OPERATORS if self.text.startswith(operator, self.at)), "")

    def _value(self, opened: int, *, pattern: bool) -> str:
        started = self.at
        if self.peek() == '"':
            value = self._quoted()
            value = value if pattern or "\\" not in value else _unescaped(value)
            self._spaces()
            return value
        while self.peek() not in ("", ")"):
            if self.peek() in '"([{~' or self._operator():
                raise self.error(f"{quote(self.peek())} in a value needs double quotes around the value")
            self.at += 1
        value = self.text[started : self.at].rstrip()
        if not value and self.peek():
            raise self.error("a value is missing")
        if not self.peek():
            raise self.error("this parenthesis is not closed", opened)
        if value.startswith("'"):
            raise self.error("a text stands in double quotes, not in single ones", started)
        return value

    def _quoted(self) -> str:
        started = self.at
        end = started + 1
        while end < len(self.text) and self.text[end] != '"':
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            raise self.error("this quote is not closed", started)
        self.at = end + 1
        return self.text[started + 1 : end]

    def _key(self) -> _Step:
        started = self.at
        name: list[str] = []
        while True:
            char = self.peek()
            if char in ("", ".", "|", ")"):
                break
            if self.depth and (char.isspace() or self._operator()):
                break
            if char == "\\":
                self.at += 1
                char = self.peek()
                if not char:
                    raise self.error("nothing follows the backslash", self.at - 1)
            elif char.isspace():
                raise self.error("a space stands here")
            elif char in '*?"([]{}#!@':
                means = "a key with * or ? in it" if char in "*?" else f"{quote(char)} in a key"
                raise self.error(f"{means} is not supported, except after a backslash")
            name.append(char)
            self.at += 1
        key = "".join(name)
        plain = self.text[started : self.at]
        return _Step(
            "key", key=key, index=int(plain) if plain.isascii() and plain.isdigit() and len(plain) < 10 else -1
        )


def _unescaped(text: str) -> str:
    """JSON's escapes; any other character after a backslash stands for itself."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _number(text: str) -> float:
    """As Go's ParseFloat with its error dropped: what is no number compares as 0."""
    if "_" in text or not text.isascii():
        return 0.0
    try:
        return float(text)
    except ValueError:
        return 0.0
