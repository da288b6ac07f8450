"""Filters that somebody typed: checked before anything is read, with the place that RE2 complains of."""

from __future__ import annotations

from collections.abc import Sequence

from evertune.cli.output.text import Line, clean
from evertune.cli.session import Session, Stop

MOST = 20  # as the workflow takes at once
MEND = r"two groups, name and value: ([\w-]+)=([\d.eE+-]+)"


def check_filters(now: Session, filters: Sequence[str]) -> None:
    """Ends with exit code 2 when one cannot be used, all of them named."""
    from evertune.errors import UsageError
    from evertune.spec.rules.collector import unusable

    if len(filters) > MOST:
        raise UsageError(f"at most {MOST} filters, not {len(filters)}")
    bad = [(text, reason) for text in filters if (reason := unusable(text)) is not None]
    if bad:
        now.err.lines([line for text, reason in bad for line in filter_lines(text, reason)])
        raise Stop(2)


def filter_lines(text: str, reason: str) -> list[Line]:
    """The filter with a caret where RE2 stopped: the message ends with the piece that it could not read."""
    shown = "".join(char if char.isprintable() else "?" for char in text)[:200]
    complaint, _, piece = reason.partition("(RE2): ")[2].partition(": ")
    at = text.find(piece) if piece else -1
    if complaint.startswith("missing"):  # RE2 gives all of it: what is missing, is missing at the end
        at, piece = len(shown), ""
    lines: list[Line] = [
        [("error", "error"), (": ", ""), (f"--filter cannot be used: {clean(reason)}", "bold")],
        [("   | ", "gutter"), (shown, "")],
    ]
    if 0 <= at <= len(shown):
        lines.append([("   | ", "gutter"), (" " * at + "^" * max(min(len(piece), len(shown) - at), 1), "caret")])
    return [*lines, [("   = ", "mend"), (MEND, "mend")]]
