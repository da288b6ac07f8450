"""Katib's TEXT rules, case by case."""

from __future__ import annotations

import pytest

from collectors.text import TextRules
from evertune.domain.metrics import Point

FILE_EXAMPLE = r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}"


def found(line: str, *metrics: str, filters: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(point.metric, point.value) for point in TextRules(metrics, filters).points(line.encode(), 0)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("accuracy=.98", [("accuracy", ".98")]),
        ("Score=-7.53e-05", [("Score", "-7.53e-05")]),
        ("loss = 0.5, accuracy=0.9", [("loss", "0.5"), ("accuracy", "0.9")]),
        ("loss=5.", [("loss", "5")]),
        ("loss=1,000", [("loss", "1")]),
        ("loss=nan", [("loss", "")]),
        ("loss=inf", [("loss", "")]),
        ("loss==0.4", [("loss", "")]),
        ("loss=-", [("loss", "-")]),
        ("loss=+1E+3", [("loss", "+1E+3")]),
        ("train/loss=0.2", [("loss", "0.2")]),
        ("loss: 0.3", []),
        ("loss\t=\f0.3", [("loss", "0.3")]),
        ("val_loss=0.3", []),
        ("Validation-accuracy=0.3 loss=0.1", [("Validation-accuracy", "0.3"), ("loss", "0.1")]),
        ("a|b=1", [("a|b", "1")]),
        ("größe=1 loss=2", [("loss", "2")]),
        ("loss=0.5 loss=0.4", [("loss", "0.5"), ("loss", "0.4")]),
        ("no metric here", []),
        ("", []),
    ],
)
def test_the_default_filter_finds_what_katibs_finds(line: str, expected: list[tuple[str, str]]) -> None:
    assert found(line, "accuracy", "Score", "loss", "Validation-accuracy", "a|b") == expected


def test_a_name_with_a_slash_is_never_found_by_the_default_filter() -> None:
    assert found("train/loss=0.2", "train/loss") == []


@pytest.mark.parametrize(
    ("filters", "line", "expected"),
    [
        (
            (FILE_EXAMPLE,),
            "{metricName: accuracy, metricValue: 0.9};{metricName: loss, metricValue: -3}",
            [("accuracy", "0.9"), ("loss", "-3")],
        ),
        ((r"([\w-]+)=(Genotype.*)",), "loss=Genotype(a=1, b=2) ", [("loss", "Genotype(a=1, b=2)")]),
        ((r"(valid_1 auc): (\d\.\d+)",), "[10] valid_1 auc: 0.9", [("valid_1 auc", "0.9")]),
        ((r"(\w+) +is( \d+)?",), "loss  is nothing", [("loss", "")]),
        ((r"( loss ):\s(.*)",), "a loss : 1 ", [("loss", "1")]),
        ((r"(loss)=(\d+)/\d+", r"(loss)=\d+/(\d+)"), "loss=1/2", [("loss", "1"), ("loss", "2")]),
        ((r"(loss)=(\d+)", r"(\w+)=(\d+\.\d+)"), "loss=1.5", [("loss", "1")]),
        ((r"^(loss)=(\d)$",), "loss=1 ", []),
        ((r"(?i)(LOSS)=(\d)",), "loss=1 LOSS=2", [("loss", "1")]),
    ],
)
def test_filters_are_re2_with_name_and_value_in_their_first_two_groups(
    filters: tuple[str, ...], line: str, expected: list[tuple[str, str]]
) -> None:
    assert found(line, "accuracy", "loss", "valid_1 auc", filters=filters) == expected


def test_the_same_value_found_twice_is_one_point() -> None:
    points = TextRules(("loss",), (r"(loss)=([\d.]+)", r"([\w|-]+)\s*=\s*([\d.]+)")).points(b"loss=0.5", 100)
    assert points == [Point("loss", "0.5", 105)]


def test_two_metrics_may_share_a_value() -> None:
    assert found("loss and cost: 3", "loss", "cost", filters=(r"(loss).*: (\d)", r"(cost).*: (\d)")) == [
        ("loss", "3"),
        ("cost", "3"),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2001-09-09T01:46:40Z loss=1", 1e9),
        ("2001-09-09T01:46:40.5Z loss=1", 1e9 + 0.5),
        ("2001-09-09T01:46:40.123456789Z loss=1", 1e9 + 0.123456),
        ("2001-09-09T03:46:40+02:00 loss=1", 1e9),
        ("2001-01-01T00:01:00 loss=1", None),
        ("2001-01-01 00:01:00Z loss=1", None),
        ("2001-02-31T00:01:00Z loss=1", None),
        (" 2001-01-01T00:01:00Z loss=1", None),
        ("2001-01-01T00:01:00Z", None),
        ("2001-01-01T00:01:00Z\tloss=1", None),
        ("loss=1", None),
    ],
)
def test_the_time_is_what_stands_before_the_first_blank(line: str, expected: float | None) -> None:
    assert TextRules(("loss",)).time(line.encode()) == expected


def test_a_point_carries_its_lines_time_and_its_values_place() -> None:
    assert TextRules(("loss",)).points(b"2001-09-09T01:46:40Z loss=1 loss=2", 1000) == [
        Point("loss", "1", 1026, 1e9),
        Point("loss", "2", 1033, 1e9),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\x1b[1;32mloss\x1b[0m=\x1b[33m0.5\x1b[0m", "0.5"),
        (b"\x1b]0;title\x07loss=0.5", "0.5"),
        (b"\xff\xfeloss=0.5\xff", "0.5"),
        (b"\xe2\x82loss=0.5", "0.5"),
        (b"\x00\x01loss=0.5\x00", "0.5"),
    ],
)
def test_colours_and_broken_text_do_not_hide_a_value(line: bytes, expected: str) -> None:
    (point,) = TextRules(("loss",)).points(line, 0)
    assert point.value == expected
    assert 0 <= point.seq <= len(line)


def test_a_filter_with_non_ascii_text_matches_characters() -> None:
    assert found("précision → 0,9é", "précision", filters=(r"(pr.cision) → ([\d,]+é)",)) == [("précision", "0,9é")]


def test_a_filter_that_would_take_for_ever_elsewhere_does_not() -> None:
    assert found("loss=" + "a" * 50_000, "loss", filters=(r"(loss)=((a|aa|a*)*)b",)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(a", "missing )"),
        (r"(?<=a)(b)(c)", "invalid perl operator"),
        (r"(a)\1(b)", "invalid escape sequence"),
        ("loss=(.*)", "needs two groups, the metric's name and its value; it has 1"),
    ],
)
def test_an_unusable_filter_is_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        TextRules(("loss",), (text,))
