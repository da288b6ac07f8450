"""A verdict as a person reads it, with the lines and a caret, and as JSON.

Lines are lists of (text, style) segments, so that the CLI can colour them: style is one of `error`, `warning`, `bold`,
`place`, `gutter`, `caret`, `mend`, `good`, or empty. Without styles the text is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evertune.errors import Problem
from evertune.spec.check import Verdict
from evertune.spec.convert import algorithm_of
from evertune.spec.document import Document
from evertune.spec.findings import one_line

Segment = tuple[str, str]
Line = list[Segment]


def as_dict(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": verdict.document.source,
        "valid": verdict.valid,
        "errors": [problem.as_dict() for problem in verdict.problems],
        "warnings": [problem.as_dict() for problem in verdict.warnings],
    }


def plain(lines: Sequence[Line]) -> str:
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def report_lines(verdict: Verdict, *, width: int = 80) -> list[Line]:
    """Every problem with its excerpt, in file order, and the closing line."""
    lines: list[Line] = []
    for style, problems in (("error", verdict.problems), ("warning", verdict.warnings)):
        for problem in problems:
            lines += [*problem_lines(problem, verdict.document, style=style, width=width), []]
    return [*lines, summary_line(verdict)]


def summary_line(verdict: Verdict) -> Line:
    source = verdict.document.source + (f", document {verdict.document.index + 1}" if verdict.document.index else "")
    errors, warnings = len(verdict.problems), len(verdict.warnings)
    if not verdict.valid:
        counts = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        return [(f"{source}: ", ""), (counts, "error")]
    if verdict.experiment is None or verdict.experiment.spec is None:
        return [(f"{source}: ", ""), ("valid", "good"), (" (a ConfigMap)", "")]
    spec = verdict.experiment.spec
    count = len(spec.parameters or ())
    searched = "architectures" if spec.nas_config is not None else f"{count} parameter{'s' * (count != 1)}"
    about = [algorithm_of(verdict.experiment), searched]
    if spec.max_trial_count is not None:
        about.append(f"{spec.max_trial_count} trial{'s' * (spec.max_trial_count != 1)}")
    if warnings:
        about.append(f"{warnings} warning{'s' * (warnings != 1)}")
    return [(f"{source}: ", ""), ("valid", "good"), (f" ({', '.join(about)})", "")]


def problem_lines(problem: Problem, document: Document, *, style: str = "error", width: int = 80) -> list[Line]:
    path = f"{one_line(problem.path)}: " if problem.path else ""
    lines: list[Line] = [[(style, style), (f": {path}{problem.message}", "bold")]]
    hints = [part for part in (problem.hint or "").split("; ") if part]
    if problem.line is None:
        return [*lines, *([(f"   = {hint}", "mend")] for hint in hints)]
    column = problem.column or 1
    lines.append([("  --> ", "place"), (f"{document.source}:{problem.line}:{column}", "")])
    if 0 < problem.line <= len(document.lines):
        first = _first_line(document.lines, problem.line)
        digits = max(2, len(str(problem.line)))
        empty: Line = [(" " * digits + " |", "gutter")]
        lines.append(list(empty))
        room = max(width - digits - 3, 30)
        start = max(0, column - room // 2) if column > room - 10 else 0
        for number in range(first, problem.line + 1):
            text = _printable(_window(document.lines[number - 1], start, room))
            lines.append([(f"{number:>{digits}} |", "gutter"), (f" {text}", "")])
        caret = "^" * max(1, min(document.width(problem.line, column), room - (column - 1 - start)))
        marked: Line = [*empty, (" " * (column - start) + caret, "caret")]
        if hints and column - start + len(caret) + len(hints[0]) <= room:
            marked.append((f" {hints.pop(0)}", "caret"))
        lines.append(marked)
        return [*lines, *([(f"{' ' * digits} = {hint}", "mend")] for hint in hints)]
    return [*lines, *([(f"   = {hint}", "mend")] for hint in hints)]


def _first_line(lines: Sequence[str], line: int) -> int:
    """One line of context, two where that shows the start of the list entry."""
    if line < 2:
        return line
    above, further = lines[line - 2].lstrip(), lines[line - 3].lstrip() if line > 2 else ""
    return line - 2 if further.startswith("- ") and not above.startswith("- ") else line - 1


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _window(text: str, start: int, room: int) -> str:
    cut = text[start : start + room]
    return cut if start + room >= len(text) else cut[:-1] + "…"
