"""Line by line, what a collector would find and why it finds nothing: the engine of `evertune metrics test`.

Pure and streaming: a line in, an explanation out, by the same rules that read a trial's log or file. Spans count
characters of `Explained.text`, which is the line without colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from collectors.json_lines import MetricLines, json_object
from collectors.suggest import suggested_filter
from collectors.text import DEFAULT_FILTER, TextRules, plain

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A name with a value. `wanted`: it becomes a point; else nobody wants the name, or another filter was first.

    `filter` is the regular expression, empty for JSON. `timestamp` is UTC seconds since the epoch.
    """

    metric: str
    value: str
    wanted: bool
    timestamp: float | None = None
    name_span: Span | None = None
    value_span: Span | None = None
    filter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """`number` counts from 1. `why` says in half a sentence why no point came of the line; empty when one did."""

    number: int
    text: str
    found: tuple[Found, ...] = ()
    why: str = ""


def explain(
    lines: Iterable[bytes], *, metrics: Sequence[str], filters: Sequence[str] = (), format: str = "TEXT"
) -> Iterator[Explained]:
    """An explanation for each line, as it comes. Lines may have their ends.

    ValueError, before the first line, for a filter that is not RE2 with two groups.
    """
    if format == "JSON":
        return _json(lines, metrics)
    return _text(lines, metrics, TextRules(metrics, filters), tuple(filters) or (DEFAULT_FILTER,))


def nearest_filter(metric: str, lines: Iterable[bytes]) -> str:
    """A filter that finds `metric` with a number in one of the lines, empty when there is none."""
    return suggested_filter(metric, map(plain, lines))


def _text(
    lines: Iterable[bytes], metrics: Sequence[str], rules: TextRules, filters: Sequence[str]
) -> Iterator[Explained]:
    wanted = {metric.encode() for metric in metrics}
    for number, raw in enumerate(lines, 1):
        line = plain(raw.rstrip(b"\r\n"))
        candidate = any(metric in line for metric in wanted)
        found: list[Found] = []
        taken: set[tuple[bytes, int]] = set()
        for match in rules.matches(line, number):
            at = (match.name, match.value_span[0])
            counts = candidate and match.name in wanted and at not in taken
            taken.add(at)
            found.append(
                Found(
                    metric=match.name.decode("utf-8", "replace"),
                    value=match.value.decode("utf-8", "replace"),
                    wanted=counts,
                    timestamp=rules.time(line, number),
                    name_span=_characters(line, match.name_span),
                    value_span=_characters(line, match.value_span),
                    filter=filters[match.filter],
                )
            )
        yield Explained(number=number, text=line.decode(), found=tuple(found), why=_why_text(found, candidate, metrics))


def _why_text(found: Sequence[Found], candidate: bool, metrics: Sequence[str]) -> str:
    if any(one.wanted for one in found):
        return ""
    if not candidate:
        return f"mentions none of {', '.join(metrics)}" if metrics else "no metric is wanted"
    if not found:
        return "no filter matches"
    names = ", ".join(dict.fromkeys(one.metric for one in found))
    return f"the filters find {names}, which is not wanted"


def _json(lines: Iterable[bytes], metrics: Sequence[str]) -> Iterator[Explained]:
    rules = MetricLines(metrics)
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip(b"\r\n")
        text = line.decode("utf-8", "replace")
        if not line.strip():
            yield Explained(number=number, text=text, why="blank")
            continue
        entry = json_object(line)
        if entry is None:
            yield Explained(number=number, text=text, why="not a JSON object on one line")
            continue
        time = rules.time(entry, number)
        found = tuple(
            Found(metric=key, value=value, wanted=key in metrics, timestamp=time)
            for key, value in entry.items()
            if isinstance(value, str) and key != "timestamp"
        )
        why = ""
        if not any(one.wanted for one in found):
            odd = [metric for metric in metrics if metric in entry]
            why = (
                f"{odd[0]} is neither a number nor text"
                if odd
                else f"has none of the keys {', '.join(metrics)}; it has {', '.join(list(entry)[:10]) or 'no key'}"
            )
        yield Explained(number=number, text=text, found=found, why=why)


def _characters(line: bytes, span: Span) -> Span:
    if span[0] < 0:
        return (0, 0)
    start = len(line[: span[0]].decode())
    return start, start + len(line[span[0] : span[1]].decode())
