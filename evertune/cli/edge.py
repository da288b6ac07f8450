"""The error edge: whatever a command raises becomes one sentence, the next command, and an exit code.

0 success · 1 the experiment failed, or what it needs is unusable · 2 usage or bad spec · 3 not found ·
4 timeout or server unreachable · 130 interrupted. A traceback is shown with -v only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from evertune.cli.output.text import Line, clean, wrapped
from evertune.cli.session import Session
from evertune.errors import EvertuneError, SpecError

INTERRUPTED = 130
PIPE_CLOSED = 141
LABEL_WIDTH = 15


def report(error: BaseException, session: Session) -> int:
    """Say it on standard error and return the exit code."""
    if session.verbosity > 0 and not isinstance(error, KeyboardInterrupt):
        import traceback

        session.err.write("".join(traceback.format_exception(error)))
    if isinstance(error, EvertuneError):
        session.err.lines(error_lines(error, session.err.width))
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        session.err.lines(_sentence(f"{where}{error.strerror.lower()}", session.err.width))
        return 1
    text = clean(str(error)) or "no message"
    session.err.lines(_sentence(f"evertune itself failed: {type(error).__name__}: {text}", session.err.width))
    session.err.lines([_row("next", "the same command with -v shows where; please report it")])
    return 1


def error_lines(error: EvertuneError, width: int | None = None) -> list[Line]:
    if isinstance(error, SpecError) and error.problems:
        count = len(error.problems)
        lines = _sentence(f"the experiment has {count} problem{'s' * (count != 1)}", width)
        for problem in error.problems:
            place = f"{problem.path}: " if problem.path else ""
            lines.append([("  ", ""), (clean(f"{place}{problem.message}"), "")])
            if problem.hint:
                lines.append([("    = ", "mend"), (clean(problem.hint), "mend")])
        return lines
    lines = _sentence(clean(error.message), width)
    for note in getattr(error, "__notes__", ()):
        label, _, text = str(note).partition(": ")
        lines.append(_row(label, text))
    if error.hint:
        lines.append(_hint(clean(error.hint)))
    return lines


def usage_lines(verb: str, message: str, suggestions: Sequence[str], usage: str) -> list[Line]:
    lines = _sentence(f"evertune {verb}: {message}" if verb else message, None)
    if suggestions:
        lines.append(_row("did you mean", ", ".join(suggestions)))
    return [*lines, _row("usage", usage)]


def close_to(word: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(word, known, n=3, cutoff=0.6)


def _sentence(text: str, width: int | None) -> list[Line]:
    first, *more = wrapped(text, None if width is None else max(width - 7, 20))
    return [[("error", "error"), (": ", ""), (first, "bold")], *([(f"       {line}", "bold")] for line in more)]


def _row(label: str, text: str) -> Line:
    return [(f"  {label:<{LABEL_WIDTH}}", ""), (text, "")]


def _hint(hint: str) -> Line:
    if meant := re.match(r"did you mean (.+?)\??\Z", hint):
        return _row("did you mean", meant[1].replace("'", "").replace('"', ""))
    return _row("next" if hint.startswith(("evertune ", "`evertune ")) else "mend", hint)
