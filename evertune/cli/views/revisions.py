"""`evertune metrics reparse`: what reading logs again makes of finished trials, as a table and as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals, number_or_text, objective_text
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line, clean, cut_end
from evertune.domain.metrics import finite
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import TrialState

VALUE_SHOWN = 40  # characters of a value that is no number


@dataclass(frozen=True)
class Row:
    """One trial: its verdict before and after, or why it was left alone."""

    number: int
    before: TrialState
    was: str | None  # the objective as reported
    after: TrialState | None = None
    value: str | None = None
    changes: bool = False
    skipped: str = ""

    def document(self, *, applied: bool) -> dict[str, Any]:
        return {
            "trial": self.number,
            "before": str(self.before),
            "after": None if self.after is None else str(self.after),
            "was": number_or_text(self.was),
            "value": number_or_text(self.value),
            "changes": self.changes,
            "skipped": self.skipped or None,
            "applied": applied and self.changes,
        }


def revisions_table(rows: Sequence[Row], metric: str, marks: Marks) -> list[Line]:
    """Those that change, and those that were left alone with the reason."""
    number, before, after = Column("TRIAL", right=True), Column("BEFORE"), Column("AFTER")
    value, was, why = Column(metric, right=True), Column("WAS", right=True), Column("LEFT ALONE BECAUSE")
    decimals = Decimals(finite(text) for row in rows for text in (row.value, row.was))
    for row in rows:
        number.add(str(row.number))
        before.add(marks.state(row.before))
        after.add(marks.dash if row.after is None else marks.state(row.after))
        value.add(_value(row.value, decimals, marks))
        was.add(_value(row.was, decimals, marks))
        why.add(clean(row.skipped))
    columns = [number, before, after, value]
    if any(row.was is not None for row in rows):
        columns.append(was)
    if any(row.skipped for row in rows):
        columns.append(why)
    return table(columns, ellipsis=marks.ellipsis).lines


def _value(text: str | None, decimals: Decimals, marks: Marks) -> str:
    shown = None if text is None else cut_end(clean(text), VALUE_SHOWN, marks.ellipsis)
    return objective_text(finite(text), shown, decimals, marks.dash)


def going_on(record: ExperimentRecord, name: str) -> tuple[str, str]:
    """The command that continues a finished experiment whose verdicts have changed, and what it does."""
    budget, counts = record.budget, record.counts
    force = " --force" if record.context.get("resume_never") else ""
    words = f"evertune extend {name}"
    if budget.max_failed and counts.charged >= budget.max_failed:
        words += f" --max-failed {counts.charged + max(3, budget.parallel)}"
        if budget.max_trials is None or budget.max_trials > counts.finished:
            return words + force, "go on; more trials may fail"
    if budget.max_trials is not None and budget.max_trials <= counts.finished:
        return f"{words} +{budget.max_trials}{force}", "go on with more trials"
    left = "" if budget.max_trials is None else f": {budget.max_trials - counts.finished} of {budget.max_trials} trials"
    return f"evertune resume {name}{force}", f"go on with what is left of its budget{left}"
