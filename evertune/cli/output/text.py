"""Styled lines as plain values, and how they are measured, cleaned and cut.

A line is a list of (text, style) segments; the styles are the keys of `STYLES`. Without colour only the texts remain,
so no meaning may hang on a style alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

Segment = tuple[str, str]
Line = list[Segment]

# The sixteen ANSI colours only: the reader's own theme decides what they look like.
STYLES = {
    "": "",
    "bold": "bold",
    "dim": "dim",
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "waiting": "yellow",
    "early": "magenta",
    # those of evertune.spec.report
    "error": "red",
    "warning": "yellow",
    "place": "blue",
    "gutter": "blue",
    "caret": "red",
    "mend": "green",
    "good": "green",
}


def plain(line: Iterable[Segment]) -> str:
    return "".join(text for text, _ in line)


def clean(text: str) -> str:
    """One line that cannot move the cursor: whitespace collapsed, control characters dropped."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


@lru_cache(maxsize=4096)
def width_of(text: str) -> int:
    """Columns on a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def line_width(line: Iterable[Segment]) -> int:
    return sum(width_of(text) for text, _ in line)


def cut_middle(text: str, width: int, ellipsis: str = "…") -> str:
    """`resnet50-…-augment`: both ends tell more than the middle."""
    if width_of(text) <= width:
        return text
    if width <= len(ellipsis):
        return ellipsis[:width]
    keep = width - len(ellipsis)
    head, tail = (keep + 1) // 2, keep // 2
    while head + tail > 0 and width_of(text[:head] + ellipsis + text[len(text) - tail :]) > width:  # wide characters
        head, tail = (head - 1, tail) if head > tail else (head, tail - 1)
    return text[:head] + ellipsis + text[len(text) - tail :]


def cut_end(text: str, width: int, ellipsis: str = "…") -> str:
    """For sentences: the start tells most."""
    if width_of(text) <= width:
        return text
    keep = max(width - len(ellipsis), 0)
    while keep > 0 and width_of(text[:keep]) > width - len(ellipsis):
        keep -= 1
    return (text[:keep].rstrip() + ellipsis)[:width] if width > 0 else ""


def fit(line: Sequence[Segment], width: int, ellipsis: str = "…") -> Line:
    """The line cut at its end to `width`, styles kept."""
    if line_width(line) <= width:
        return list(line)
    fitted: Line = []
    left = width
    for text, style in line:
        if width_of(text) >= left:
            fitted.append((cut_end(text + " ", left, ellipsis) if left > 0 else "", style))
            return [segment for segment in fitted if segment[0]]
        fitted.append((text, style))
        left -= width_of(text)
    return fitted


def between(left: Sequence[Segment], right: Sequence[Segment], width: int) -> Line:
    """Left and right part of one line; the right one goes away when both do not fit."""
    gap = width - line_width(left) - line_width(right)
    if not right or gap < 2:
        return list(left)
    return [*left, (" " * gap, ""), *right]


def pad(line: Sequence[Segment], width: int, *, right: bool = False) -> Line:
    gap = " " * max(width - line_width(line), 0)
    return [(gap, ""), *line] if right else [*line, (gap, "")]


def joined(parts: Iterable[Sequence[Segment]], separator: str) -> Line:
    result: Line = []
    for part in parts:
        result += [(separator, ""), *part] if result else part
    return result


def labelled(rows: Iterable[tuple[str, Sequence[Segment] | str]], *, indent: str = "", gap: int = 2) -> list[Line]:
    """Rows of `label  value`, the values below each other."""
    entries = [(label, [(value, "")] if isinstance(value, str) else list(value)) for label, value in rows]
    column = max((width_of(label) for label, _ in entries), default=0) + gap
    return [[(f"{indent}{label}{' ' * (column - width_of(label))}", ""), *value] for label, value in entries]


def wrapped(text: str, width: int | None, *, indent: int = 0) -> list[str]:
    """A sentence in lines that fit; continued lines are indented. A word longer than a line stays whole."""
    if width is None:
        return [text]
    lines: list[str] = []
    current = ""
    for word in text.split(" "):
        room = width - (indent if lines else 0)
        candidate = f"{current} {word}" if current else word
        if current and width_of(candidate) > room:
            lines.append(current)
            current = word
        else:
            current = candidate
    lines.append(current)
    return [lines[0], *(" " * indent + line for line in lines[1:])]


def wrapped_line(line: Sequence[Segment], width: int | None, *, indent: int = 0) -> list[Line]:
    """A styled sentence in lines that fit, broken at blanks; continued lines are indented."""
    if width is None or line_width(line) <= width:
        return [list(line)]
    lines: list[Line] = [[]]
    for text, style in line:
        for word in re.findall(r"\S+\s*|\s+", text):
            full = line_width(lines[-1]) + width_of(word.rstrip()) > width
            if full and line_width(lines[-1]) > indent and word.strip():
                lines.append([(" " * indent, "")])
            lines[-1].append((word, style))
    return lines
