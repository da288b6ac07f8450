"""`metrics test`: what filters find in a log, line by line, before any trial is run.

The rules are the collectors' own (`collectors.explain`). Input is read as it comes and never kept: a file of any size,
or a pipe that does not end; Ctrl-C gives the summary of what came until then.
"""

from __future__ import annotations

import difflib
import shlex
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli.edge import INTERRUPTED
from evertune.cli.filters import check_filters
from evertune.cli.lines import Lines
from evertune.cli.output.numbers import plural
from evertune.cli.output.rows import Rows
from evertune.cli.output.text import Line, clean, cut_end
from evertune.cli.session import Session, Stop, session
from evertune.cli.views.matches import Total, line_lines, totals_table
from evertune.domain.metrics import Point, Running
from evertune.errors import UsageError

if TYPE_CHECKING:
    from collectors.explain import Explained, Found
    from evertune.domain.metrics import CollectorSpec

COLUMNS = ("line", "metric", "value", "timestamp")
LINE_FORMATS = ("TEXT", "JSON")
NAMES_KEPT = 256  # of metrics that nobody asked for
MENTIONS_KEPT = 500  # lines, for the filter that would have found a metric
MENTION_BYTES = 4096
NAME_SHOWN = 60  # characters


class TestForm(StrEnum):
    __test__ = False  # a test runner that comes by shall not take it for one of its own

    TABLE = "table"
    JSON = "json"


def metrics_test_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log; - is standard input.", show_default=False)],
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--filter",
            metavar="REGEX",
            help="RE2, two groups, name and value; may be repeated. Else Katib's default, name=number.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="A metric that is wanted; may be repeated. Else all that is found counts.",
            show_default=False,
        ),
    ] = None,
    line_format: Annotated[
        str | None, typer.Option("--format", metavar="text|json", help="Of the lines.", show_default=False)
    ] = None,
    experiment: Annotated[
        Path | None,
        typer.Option(
            "--experiment",
            metavar="FILE",
            help="Take filters, metrics and format of this experiment; options overrule it.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[TestForm, typer.Option("-o", "--output", help="table or json.")] = TestForm.TABLE,
) -> None:
    """What filters find in a log, line by line, and what would come of it.

    Exit code 0 when every metric that is wanted has a value, 1 when one has none: then it says what would find it.
    """
    now = session()
    check_filters(now, filters or [])
    rules = _rules(now, tuple(filters or ()), tuple(metric or ()), line_format, experiment)
    from evertune.app import activate

    activate()
    from collectors.explain import explain

    trying = Trying(now, rules, output)
    lines = Lines(file, trying.flush)
    interrupted = False
    try:
        for explained in explain(lines, metrics=rules.metrics, filters=rules.filters, format=rules.format):
            trying.take(explained, lines)
    except KeyboardInterrupt:
        interrupted = True
    found = trying.end()
    if interrupted:
        raise Stop(INTERRUPTED)
    if not found:
        raise Stop(1)


@dataclass(frozen=True)
class Rules:
    metrics: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    format: str = "TEXT"


def _rules(
    now: Session,
    filters: tuple[str, ...],
    metrics: tuple[str, ...],
    line_format: str | None,
    experiment: Path | None,
) -> Rules:
    """From the options, and below them from an experiment's file."""
    if line_format is not None and line_format.upper() not in LINE_FORMATS:
        raise UsageError(f'--format is "{clean(line_format)}": it must be text or json')
    if any(not name.strip() for name in metrics):
        raise UsageError("--metric is empty")
    wanted = None if experiment is None else _collector_of(now, experiment)
    if wanted is None:
        rules = Rules(metrics, filters, (line_format or "text").upper())
    else:
        rules = Rules(
            metrics or wanted.metrics,
            filters or (() if (line_format or "").upper() == "JSON" else wanted.filters),
            (line_format or wanted.format or "text").upper(),
        )
    if rules.format == "JSON" and rules.filters:
        raise UsageError("a filter has no meaning for the format json", hint="leave out one of the two")
    return rules


def _collector_of(now: Session, path: Path) -> CollectorSpec:
    from evertune import spec
    from evertune.cli.loading import catalog, documents_of, say_verdicts

    verdicts = spec.check_all(documents_of(path), catalog())
    if any(verdict.problems for verdict in verdicts):
        say_verdicts(now, [verdict for verdict in verdicts if verdict.problems])
        raise Stop(2)
    found = [verdict.experiment for verdict in verdicts if verdict.experiment is not None]
    if len(found) != 1:
        raise UsageError(f"{path} holds {plural(len(found), 'experiment')}; it must hold one")
    wanted = spec.collector_spec(found[0])
    if wanted.kind not in ("StdOut", "File", "Custom"):
        raise UsageError(
            f"{path} collects with {wanted.kind}, which reads no lines", hint="give -f and --metric to test them"
        )
    return wanted


@dataclass
class Trying:
    """One run over the lines: shows them, counts what is found, remembers lines that mention what is not."""

    now: Session
    rules: Rules
    form: TestForm
    lines_read: int = 0
    others: int = 0  # lines of no interest that were not shown yet
    names_dropped: int = 0
    series: dict[str, Running] = field(default_factory=dict)
    valued: set[str] = field(default_factory=set)
    unwanted: dict[str, Running] = field(default_factory=dict)
    mentions: dict[str, deque[bytes]] = field(default_factory=dict)
    mentioned: dict[str, int] = field(default_factory=dict)
    shown: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = Rows(self.now.out, COLUMNS, as_json=True)

    def take(self, explained: Explained, lines: Lines) -> None:
        if not lines.continued:
            self.lines_read += 1
        found = self._judged(explained)
        for one, reason in found:
            self._count(one, lines.number, counts=not reason)
        counting = {one.metric for one, reason in found if not reason}
        missed = [name for name in self.rules.metrics if name not in counting and name in explained.text]
        for name in missed:
            self.mentioned[name] = self.mentioned.get(name, 0) + 1
            kept = self.mentions.setdefault(name, deque(maxlen=MENTIONS_KEPT))
            kept.append(explained.text[:MENTION_BYTES].encode())
        if self.form is TestForm.JSON:
            return
        if not found and not missed:
            self.others += not lines.continued
            return
        self._show_others()
        why = explained.why if missed else ""
        self.shown += line_lines(
            lines.number,
            explained.text,
            found,
            why,
            marks=self.now.out.marks,
            width=self.now.out.width,
            filters=self.rules.filters,
        )

    def flush(self) -> None:
        """Before the next read, which may wait: show what is known."""
        if self.form is TestForm.JSON:
            self.rows.flush()
        elif self.shown:
            self.now.out.lines(self.shown)
            self.shown.clear()

    def end(self) -> bool:
        """Say what came of it; whether every metric that is wanted has a value."""
        missing = [name for name in self.rules.metrics if name not in self.valued]
        if self.form is TestForm.JSON:
            self.rows.end()
        else:
            self._show_others()
            self.flush()
            self._summary()
        for name in self.rules.metrics:
            if name in missing:
                self._explain_missing(name)
            elif count := self.mentioned.get(name, 0):
                self.now.say(
                    f"{plural(count, 'line')} mention{'s' * (count == 1)} {clean(name)} without giving it a value."
                )
                self._suggest(name)
        return not missing

    def _judged(self, explained: Explained) -> list[tuple[Found, str]]:
        """Each match, with "" or why it does not count. Without wanted metrics, every place counts once."""
        wanted = self.rules.metrics
        places: set[object] = set()
        judged = []
        for one in explained.found:
            place = (one.metric, one.value_span)
            if wanted:
                reason = "" if one.wanted else "an earlier filter has it" if one.metric in wanted else "not wanted"
            else:
                reason = "an earlier filter has it" if place in places else "" if one.metric else "it has no name"
            places.add(place)
            judged.append((one, reason))
        return judged

    def _count(self, one: Found, number: int, *, counts: bool) -> None:
        if counts and self.form is TestForm.JSON:
            self.rows.add((number, one.metric, one.value, one.timestamp))
        kept = self.series if counts else self.unwanted
        if one.metric in self.rules.metrics and not counts:
            return
        if one.metric not in kept and len(kept) >= NAMES_KEPT:
            self.names_dropped += 1
            return
        running = kept.setdefault(one.metric, Running())
        running.add(Point(one.metric, one.value, running.points, one.timestamp))
        if counts and one.value:
            self.valued.add(one.metric)

    def _show_others(self) -> None:
        if self.others:
            ellipsis = self.now.out.marks.ellipsis
            words = f"{plural(self.others, 'line')} without a match"
            self.shown.append([(f"{'':>6}  {ellipsis} {words}", "dim")])
            self.others = 0

    def _summary(self) -> None:
        out = self.now.out
        totals = [
            Total(name, counts, running.points, running.summary(name))
            for kept, counts in ((self.series, True), (self.unwanted, False))
            for name, running in kept.items()
        ]
        if totals:
            out.lines([*([[]] if self.lines_read else []), *totals_table(totals, out.marks)])
        if self.names_dropped:
            self.now.say(f"{self.names_dropped:,} matches of more than {NAMES_KEPT} names are not in the table.")
        if not totals:
            self.now.say(f"No filter finds anything in {plural(self.lines_read, 'line')}.")

    def _explain_missing(self, name: str) -> None:
        """One sentence, and the filter or the metric that would have been right."""
        name_shown, count = clean(name), self.mentioned.get(name, 0)
        if name in self.series:
            said = f"{name_shown} was found without a value"
        elif count:
            said = f"{name_shown} was not found; {plural(count, 'line')} mention{'s' * (count == 1)} it"
        else:
            said = f"{name_shown} was not found, and no line mentions it"
        self.now.err.line([("error", "error"), (": ", ""), (said, "bold")])
        if self._suggest(name):
            return
        names = [other for other in (*self.unwanted, *self.series) if other and other != name]
        if near := difflib.get_close_matches(name, names, n=1):
            self.now.err.line(f"  did you mean   --metric {clean(near[0])}")
        elif names and not count:
            self.now.err.line(f"  found instead  {', '.join(cut_end(clean(seen), NAME_SHOWN) for seen in names[:10])}")

    def _suggest(self, name: str) -> bool:
        """A filter for the lines that mention the metric in vain."""
        from collectors.explain import nearest_filter

        if self.rules.format != "TEXT" or not (filter_ := nearest_filter(name, self.mentions.get(name, ()))):
            return False
        self.now.err.line(f"  this filter would find it   -f {shlex.quote(filter_)}")
        return True
