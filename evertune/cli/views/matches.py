"""`evertune metrics test`: a line with what was found in it, and what came out in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import Line, Segment, clean, cut_end
from evertune.domain.metrics import MetricSummary, finite
from evertune.domain.states import TrialState

SHOWN = 160  # characters of a line where no terminal limits it
BEFORE = 24  # characters that are kept before the first name
FOUND_SHOWN = 8  # of one line
VALUE_SHOWN = 60

Span = tuple[int, int]


class Match(Protocol):
    """A name and a value in a line, as `collectors.explain` finds them."""

    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def wanted(self) -> bool: ...
    @property
    def name_span(self) -> Span | None: ...
    @property
    def value_span(self) -> Span | None: ...
    @property
    def filter(self) -> str: ...


@dataclass(frozen=True)
class Total:
    """What was found of one metric."""

    metric: str
    wanted: bool
    count: int
    summary: MetricSummary


def line_lines(
    number: int,
    text: str,
    found: Sequence[tuple[Match, str]],
    why: str,
    *,
    marks: Marks,
    width: int | None,
    filters: Sequence[str] = (),
) -> list[Line]:
    """The line with names and values highlighted; below it each match, with "" or why it does not count.

    `why` is said of a line without any. `filters` names the one that matched, if there are several.
    """
    gutter = f"{number:>6}  "
    spans = [
        (span, style)
        for match, reason in found
        for span, style in (
            (match.name_span, "bold" if not reason else "dim"),
            (match.value_span, "succeeded" if not reason else "dim"),
        )
        if span is not None
    ]
    lines: list[Line] = [
        [(gutter, "dim"), *highlighted(text, spans, (width or SHOWN + len(gutter)) - len(gutter), marks)]
    ]
    blank = " " * len(gutter)
    for match, reason in found[:FOUND_SHOWN]:
        value = cut_end(clean(match.value), VALUE_SHOWN, marks.ellipsis) or "(no value)"
        shape = marks.shape(TrialState.SUCCEEDED if not reason else TrialState.CREATED)
        name = cut_end(clean(match.metric), VALUE_SHOWN, marks.ellipsis)
        said: Line = [(blank, ""), shape, (f" {name} = {value}", "" if not reason else "dim")]
        if reason:
            said.append((f"  {reason}", "dim"))
        if len(filters) > 1 and match.filter in filters:
            said.append((f"  filter {filters.index(match.filter) + 1}", "dim"))
        lines.append(said)
    if len(found) > FOUND_SHOWN:
        lines.append([(f"{blank}{marks.ellipsis} and {len(found) - FOUND_SHOWN:,} more in this line", "dim")])
    if not found and why:
        lines.append([(blank, ""), marks.shape(TrialState.FAILED), (f" {clean(why)}", "")])
    return lines


def highlighted(text: str, spans: Iterable[tuple[Span, str]], room: int, marks: Marks) -> list[Segment]:
    """As much of the line as fits, from a little before its first name; nothing in it can move the cursor."""
    ordered = sorted(span for span in spans if span[0][1] > span[0][0])
    start, rest = 0, ""
    if len(text) > room:
        rest = f"{marks.ellipsis} ({len(text):,} characters)"
        room = max(room - len(rest), BEFORE)
        if ordered and ordered[0][0][1] > room:
            start = max(ordered[0][0][0] - BEFORE, 0)
            room -= len(marks.ellipsis)
    end = min(len(text), start + room)
    segments: list[Segment] = [(marks.ellipsis, "dim")] if start else []
    at = start
    for (low, high), style in ordered:
        low, high = max(low, at), min(high, end)
        if low >= high:
            continue
        segments += [(harmless(text[at:low]), ""), (harmless(text[low:high]), style)]
        at = high
    segments.append((harmless(text[at:end]), ""))
    if end < len(text):
        segments.append((rest, "dim"))
    return [segment for segment in segments if segment[0]]


def harmless(text: str) -> str:
    """One character for one, so that spans stay true."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def totals_table(totals: Sequence[Total], marks: Marks) -> list[Line]:
    metric, wanted, count = Column("METRIC"), Column("WANTED"), Column("COUNT", right=True)
    low, high, last = Column("MIN", right=True), Column("MAX", right=True), Column("LATEST", right=True)
    for total in totals:
        numbers = [finite(total.summary.min), finite(total.summary.max)]
        decimals = Decimals(numbers)
        metric.add(cut_end(clean(total.metric), VALUE_SHOWN, marks.ellipsis))
        wanted.add([("yes", "succeeded")] if total.wanted else [("no", "dim")])
        count.add(f"{total.count:,}")
        for column, number in zip((low, high), numbers, strict=True):
            column.add(marks.dash if number is None else decimals.text(number))
        latest, text = finite(total.summary.latest), clean(total.summary.latest or "")
        short = cut_end(text, VALUE_SHOWN, marks.ellipsis) or "(no value)"
        last.add(short if latest is None else decimals.text(latest))
    return table([metric, wanted, count, low, high, last], ellipsis=marks.ellipsis).lines
