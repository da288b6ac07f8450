"""What was checked, as lines with a mark: for `doctor`, and for `run` when something is in its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evertune.cli.output.text import Line, width_of, wrapped
from evertune.cli.session import Session

if TYPE_CHECKING:
    from activities.runners.kubernetes.findings import Finding

GOOD, WARNING, BROKEN = "Succeeded", "MetricsUnavailable", "Failed"  # the states whose marks they have
_STATES = {"ok": GOOD, "warn": WARNING, "fail": BROKEN}


@dataclass(frozen=True)
class Check:
    """`mend` may have several lines."""

    what: str
    found: str
    state: str = GOOD
    mend: str | None = None


def shown(finding: Finding, *, wanted: bool = True) -> Check:
    """`wanted`: whether anybody asked for a cluster; what is wrong with it is a warning else."""
    state = _STATES[finding.level]
    if state == BROKEN and not wanted:
        state = WARNING
    return Check(finding.what, finding.found, state, finding.mend or None)


def lines(now: Session, checks: list[Check]) -> list[Line]:
    column = max(width_of(check.what) for check in checks) + 3
    indent = column + 2
    width = now.out.width
    room = None if width is None else max(width - indent, 30)
    result: list[Line] = []
    for check in checks:
        first, *more = wrapped(check.found, room)
        result.append([now.out.marks.shape(check.state), (f" {check.what:<{column}}{first}", "")])
        result += [[(" " * indent + line, "")] for line in more]
        for mend in (check.mend or "").splitlines():
            # A line of YAML is to be copied: it is not broken.
            parts = [mend] if mend.startswith("- ") else wrapped(mend, room)
            style = "mend" if check.state == BROKEN else "dim"
            result += [[(" " * indent, ""), (part, style)] for part in parts]
    return result
