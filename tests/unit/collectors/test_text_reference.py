"""The fast search of whole blocks finds what a slow, straightforward reading of Katib's rules finds."""

from __future__ import annotations

import re
import tempfile
from datetime import datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.text import TextRules
from tests.unit.collectors.reading import read

# The same languages in Python's own engine, ASCII mode.
BLANK = r"[\t\n\f\r ]*"
FILTERS = {
    r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)": (
        rf"([\w|-]+){BLANK}={BLANK}([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
    ),
    r"(\w+):(\d*)": r"(\w+):(\d*)",
    r"(a+)(b*)": r"(a+)(b*)",
    r"(loss|acc)? *(x*)": r"(loss|acc)? *(x*)",
}
METRICS = ("loss", "acc", "a", "s|s")


def slow(text: str, metrics: tuple[str, ...], filters: tuple[str, ...]) -> list[tuple[str, str, int, float | None]]:
    """Katib's loop, line by line; ours adds that a value at one place counts once."""
    found: list[tuple[str, str, int, float | None]] = []
    offset = 0
    for line in re.split(r"[\n\r]", text):
        if any(metric in line for metric in metrics):
            token, blank, _ = line.partition(" ")
            time = None
            if blank and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", token, re.ASCII):
                time = datetime.fromisoformat(token).timestamp()
            places = set()
            for pattern in filters:
                for match in re.finditer(FILTERS[pattern], line, re.ASCII):
                    name, value = (match.group(1) or "").strip(), (match.group(2) or "").strip()
                    at = match.start(2) if match.group(2) is not None else match.end()
                    if name in metrics and (name, at) not in places:
                        places.add((name, at))
                        found.append((name, value, offset + at, time))
        offset += len(line) + 1
    return found


LINES = st.lists(
    st.sampled_from(
        ["loss", "acc", "a", "ab", "b", "s|s", "=", " = ", "1", "2.5", "-", "e5", ":", ".", " ", "\n", "\n", "\r", "x",
         "loss=0.5", "acc=1e-3", "loss:4", "2024-05-01T10:00:00Z ", "\n2024-05-01T10:00:00Z ", "\t"]
    ),
    max_size=60,
).map("".join)  # fmt: skip
WANTED = st.lists(st.sampled_from(METRICS), min_size=1, max_size=4, unique=True).map(tuple)
USED = st.lists(st.sampled_from(sorted(FILTERS)), min_size=1, max_size=3, unique=True).map(tuple)


@settings(max_examples=400, deadline=None)
@given(text=LINES, metrics=WANTED, filters=USED)
def test_blocks_are_searched_as_lines_would_be(text: str, metrics: tuple[str, ...], filters: tuple[str, ...]) -> None:
    fast = TextRules(metrics, filters).points(text.encode(), 0)
    expected = slow(text, metrics, filters)
    assert [(point.metric, point.value, point.seq, point.timestamp) for point in fast] == expected


@settings(max_examples=100, deadline=None)
@given(text=LINES, metrics=WANTED)
def test_the_same_comes_out_of_a_file(text: str, metrics: tuple[str, ...]) -> None:
    default = next(iter(FILTERS))
    with tempfile.TemporaryDirectory() as folder:
        points, _ = read(Path(folder), text, *metrics)
    assert [(point.metric, point.value, point.seq, point.timestamp) for point in points] == slow(
        text, metrics, (default,)
    )
