"""One document of a file as plain data that remembers where everything stood, and the limits every document keeps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from evertune.errors import Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 50_000
MAX_DOCUMENTS = 1_000

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]*\Z")


class Position(NamedTuple):
    """Where a value (or, for a block, its key) starts, from 1, and how many characters of that line it covers."""

    line: int
    column: int
    width: int = 1


@dataclass(slots=True)
class Document:
    """One YAML or JSON document. `data` is None when it could not be read; `problems` then says why.

    `positions` and `raw` are keyed by field path (`spec.parameters[0].name`). `raw` holds the text of numbers,
    booleans and nulls as the user wrote it; `keys` the places of mapping keys.
    """

    source: str
    index: int = 0
    data: Any = None
    positions: dict[str, Position] = field(default_factory=dict)
    keys: dict[str, Position] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _widths: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def width(self, line: int, column: int) -> int:
        """How many characters the value or key covers that starts here; 1 when nothing does."""
        if not self._widths:
            places = (*self.keys.values(), *self.positions.values())
            self._widths = {(place.line, place.column): place.width for place in places}
        return self._widths.get((line, column), 1)

    def locate(self, path: str) -> Position | None:
        """The place of `path`, or of the nearest thing above it that is in the file."""
        while path:
            if path in self.positions:
                return self.positions[path]
            path = path[: path.rindex("[")] if path.endswith("]") and "[" in path else path.rpartition(".")[0]
        return self.positions.get("")


def child_path(path: str, key: str | int) -> str:
    """Kubernetes' spelling of field paths: `a.b`, `a[0]`, `a[key.with/dots]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if _PLAIN_KEY.match(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{key}]"


def too_big(data: Any) -> str | None:
    """Why `data` is not a document we take, or None: depth and size are bounded before anything recurses into it."""
    level: list[Any] = [data]
    total = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    return "the keys of a document must be text"
                below.extend(value.values())
            elif isinstance(value, list | tuple):
                below.extend(value)
        total += len(below)
        if total > MAX_VALUES:
            return f"the document holds more than {MAX_VALUES:,} values"
        if not below:
            return None
        level = below
    return f"nested deeper than {MAX_DEPTH} levels"
