"""Small phrases of the short form and of the command line that stand for mappings of the full form.

    minimize latency_ms                          a further objective
    latency_ms <= 20, memory >= 2                a constraint
    uniform(0, 1) if optimizer=sgd|adam          a dimension with its condition; several: … and layers=2
    lr=0.1, optimizer=sgd                        an initial trial

Whether names and values make sense is for `rules` to say, so that all forms hear the same sentences.
"""

from __future__ import annotations

import re

from evertune.spec.findings import did_you_mean, quote
from evertune.spec.model import JsonDict
from evertune.spec.values import as_number

_DIRECTIONS = ("minimize", "maximize")
_BOUND = re.compile(r"\s*(.+?)\s*(<=|>=|<|>|==|=)\s*(\S+)\s*\Z")
_IF = re.compile(r"(?s)(.*?\S)\s+if\s+(\S.*)\Z")
_ONE_CONDITION = re.compile(r"\s*(`[^`]+`|[^\s=`]+)\s*(?:==?|\bin\b)\s*(\[[^\[\]]*\]|[^\s\[].*?)\s*\Z")
_NEXT_ASSIGNMENT = re.compile(r",\s*(?=[^,=\s]+\s*=)")


class PhraseError(ValueError):
    """The text is not such a phrase."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def objective_in(text: str) -> JsonDict:
    """`minimize latency_ms`; raises PhraseError."""
    direction, _, metric = text.strip().partition(" ")
    if direction not in _DIRECTIONS or not metric.strip():
        close = did_you_mean(direction, _DIRECTIONS)
        hint = "for example: minimize latency_ms"
        meant = f"did you mean {close}?; {hint}" if close and close != direction else hint
        raise PhraseError(f"{quote(text)} does not say what to maximize or minimize", meant)
    return {"type": direction, "metric": metric.strip()}


def constraint_in(text: str) -> JsonDict:
    """`latency_ms <= 20`; raises PhraseError."""
    found = _BOUND.match(text)
    if found is None or (bound := as_number(found[3])) is None:
        raise PhraseError(f"{quote(text)} is not a bound of a metric", "for example: latency_ms <= 20")
    if found[2] not in ("<=", ">="):
        raise PhraseError(f"{quote(text)}: a bound is <= or >=, not {found[2]}", "for example: latency_ms <= 20")
    return {"metric": found[1], "le" if found[2] == "<=" else "ge": bound}


def condition_in(text: str) -> tuple[str, dict[str, list[str]]]:
    """The dimension, and as `when` what follows its `if`, empty without one; raises PhraseError."""
    found = _IF.match(text)
    if found is None:
        return text, {}
    when: dict[str, list[str]] = {}
    for part in re.split(r"\s+and\s+", found[2]):
        one = _ONE_CONDITION.match(part)
        if one is None:
            message = f"{quote(part.strip())} is not a condition"
            raise PhraseError(message, "for example: uniform(0, 1) if optimizer=sgd")
        name, listed = one[1].strip("`"), one[2]
        values = listed[1:-1].split(",") if listed.startswith("[") else listed.split("|")
        if name in when:
            raise PhraseError(f"{quote(name)} stands in two conditions", f"write {name}={'|'.join(when[name])}|…")
        when[name] = [_unquoted(value.strip()) for value in values if value.strip()]
    return found[1], when


def assignment_in(text: str) -> dict[str, str]:
    """`lr=0.1, optimizer=sgd`; raises PhraseError."""
    values: dict[str, str] = {}
    for part in _NEXT_ASSIGNMENT.split(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise PhraseError(f"{quote(part.strip())} is not a value of a parameter", "for example: lr=0.1, layers=2")
        if name.strip() in values:
            raise PhraseError(f"{quote(name.strip())} has two values", "keep one")
        values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
