"""The engine of `evertune metrics test`: each line with what was found in it, or why nothing was."""

from __future__ import annotations

import pytest

from collectors.explain import Explained, explain, nearest_filter
from collectors.text import DEFAULT_FILTER, TextRules


def one(line: str | bytes, *metrics: str, filters: tuple[str, ...] = (), format: str = "TEXT") -> Explained:
    raw = line if isinstance(line, bytes) else line.encode()
    (explained,) = explain([raw], metrics=metrics, filters=filters, format=format)
    return explained


def test_spans_are_characters_of_the_line_without_colours() -> None:
    explained = one("é \x1b[1mloss\x1b[0m = 0.5 acc=1\n", "loss")
    loss, acc = explained.found
    assert explained.text == "é loss = 0.5 acc=1"
    assert [explained.text[slice(*span)] for span in (loss.name_span, loss.value_span) if span] == ["loss", "0.5"]
    assert (loss.wanted, acc.wanted, explained.why) == (True, False, "")
    assert loss.filter == DEFAULT_FILTER


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("no such thing", "mentions none of loss, acc"),
        ("loss: 4", "no filter matches"),
        ("my_loss=4", "the filters find my_loss, which is not wanted"),
        ("a loss, train=3 test=4", "the filters find train, test, which is not wanted"),
    ],
)
def test_a_line_without_points_says_why(line: str, why: str) -> None:
    assert one(line, "loss", "acc").why == why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "blank"),
        ("loss=4", "not a JSON object on one line"),
        ('{"acc": 1}', "has none of the keys loss; it has acc"),
        ('{"loss": null}', "loss is neither a number nor text"),
        ("{}", "has none of the keys loss; it has no key"),
        ('{"loss": 1}', ""),
    ],
)
def test_a_json_line_without_points_says_why(line: str, why: str) -> None:
    assert one(line, "loss", format="JSON").why == why


def test_the_time_of_a_line_is_shown() -> None:
    assert one("2024-05-01T10:00:00Z loss=1", "loss").found[0].timestamp == 1714557600.0
    assert one('{"loss": 1, "timestamp": 1714557600.5}', "loss", format="JSON").found[0].timestamp == 1714557600.5


def test_what_is_wanted_is_what_a_collector_would_find() -> None:
    lines = [b"loss=1 loss=2 acc=3\n", b"2024-05-01T10:00:00Z a loss=4\n", b"\xffacc = nan\n", b"x=1\n", b"loss=1.5\n"]
    filters = (r"(\w+)=(\d)", r"([\w|-]+)\s*=\s*([\d.]*)")
    explained = list(explain(lines, metrics=("loss", "acc"), filters=filters))
    found = [(hit.metric, hit.value) for line in explained for hit in line.found if hit.wanted]
    points = TextRules(("loss", "acc"), filters).points(b"".join(lines), 0)
    assert found == [(point.metric, point.value) for point in points]
    assert [line.number for line in explained] == [1, 2, 3, 4, 5]


def test_it_explains_a_stream_line_by_line() -> None:
    def endless() -> object:
        while True:
            yield b"loss=1\n"

    stream = explain(endless(), metrics=("loss",))  # type: ignore[arg-type]
    assert next(stream).number == 1
    assert next(stream).number == 2


def test_a_bad_filter_is_a_sentence_before_the_first_line() -> None:
    with pytest.raises(ValueError, match="needs two groups"):
        explain([], metrics=("loss",), filters=("loss",))


def test_the_nearest_filter_is_found() -> None:
    assert nearest_filter("loss", [b"\x1b[1mloss\x1b[0m: 3\n"]).startswith(r"(loss)\s*:\s*(")
