"""A filter that would have found the objective: for a trial that ended without one. Called by `lines` and `explain`.

Tries the shapes in which programs print numbers, the commonest first, on lines that mention the name. The first that
gives a number is written as an RE2 filter that can be pasted into `metricsFormat`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import re2

NUMBER = r"[+-]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_PLAIN = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
LINES = 2000  # of those that mention the name; the newest
LINE = 4096  # bytes of a line that are looked at

# {name} and {number}, each in a group; all are RE2.
_SHAPES = (
    r"({name})\s*=\s*({number})",
    r"({name})\s*:\s*({number})",
    r'"({name})"\s*:\s*"?({number})',
    r"'({name})'\s*:\s*'?({number})",
    r"({name})\s+({number})",
    r"({name})\s*(?:is|->|→|\|)\s*({number})",
    r"({name})[^\w.+-]{{1,8}}({number})",
)


def suggested_filter(objective: str, lines: Iterable[bytes]) -> str:
    """Empty when no shape finds a number behind the name. `lines` are `plain`."""
    name = objective.encode()
    mentioning = [line[:LINE] for line in lines if name in line][-LINES:]
    if not mentioning:
        return ""
    for shape in _SHAPES:
        for number in (_PLAIN, NUMBER):
            text = shape.format(name=_escaped(objective), number=number)
            pattern = re2.compile(text.encode())
            for line in mentioning:
                match = pattern.search(line)
                if match is None or not _begins(line, match.start(1)):
                    continue
                if number is _PLAIN and line[match.end(2) : match.end(2) + 1] == b",":
                    rest = line[match.end(2) + 1 : match.end(2) + 4]
                    if len(rest) == 3 and rest.isdigit():
                        continue  # 1,234: the other number takes all of it
                return text
    return ""


def _begins(line: bytes, at: int) -> bool:
    """Whether a name starts here, not in the middle of another."""
    return at == 0 or not (line[at - 1 : at].isalnum() or line[at - 1 : at] in b"_-")


def _escaped(name: str) -> str:
    return re.sub(r"([^\w\s/-])", r"\\\1", name)
