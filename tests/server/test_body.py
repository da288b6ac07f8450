"""Bodies of reports: what becomes of values, and what strangers and liars are told."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evertune.domain.metrics import Point
from evertune.server.body import UnreadableError, read


def body(value: Any = 0.5, **more: Any) -> bytes:
    return json.dumps({"points": [{"metric": "loss", "value": value, "seq": 1, **more}]}).encode()


def refusal(text: bytes) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


def test_a_report_becomes_points_as_they_were_written() -> None:
    text = b'{"points": [{"metric": "loss", "value": "0.30", "seq": 7, "timestamp": 17.5, "step": 3}], "final": true}'
    assert read(text) == ([Point("loss", "0.30", 7, 17.5, 3)], True, "")


@pytest.mark.parametrize(
    ("written", "kept"),
    [("1", "1"), ("0.1", "0.1"), ("-3e-300", "-3e-300"), ("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"),
     ("1e999", "inf"), ("9" * 400, "9" * 400), ("9" * 4300, "9" * 4300), ('""', ""), ('"\\u0000"', "\0")],
)  # fmt: skip
def test_numbers_keep_their_digits_and_what_is_no_number_is_a_word(written: str, kept: str) -> None:
    text = b'{"points": [{"metric": "loss", "value": %s, "seq": 1}]}' % written.encode()
    assert read(text)[0][0].value == kept


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_comes_back_bit_for_bit(value: float) -> None:
    text = read(body(value))[0][0].value
    assert math.copysign(1, float(text)) == math.copysign(1, value)
    assert float(text) == value


def test_whole_numbers_are_good_for_timestamps() -> None:
    assert read(body(timestamp=1_770_000_000))[0][0].timestamp == 1_770_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b'{"points": [', "the body is not JSON"),
        (b"[" * 1_000_000, "the body is not JSON"),
        (b'{"points": ' + b'{"a":' * 170_000, "the body is not JSON"),
        (b'{"points": [{"metric": "loss", "seq": 1, "value": ' + b"9" * 4301 + b"}]}", "the body is not JSON"),
        (b'{"points": [{"metric": "loss", "seq": 1, "value": ' + b"9" * 1_000_000 + b"}]}", "the body is not JSON"),
        (b"{}", "points is missing"),
        (b"[]", "the body"),
        (body(timestamp=-1), "points[0].timestamp must be seconds since 1970"),
        (body(timestamp=1e300), "points[0].timestamp must be seconds since 1970"),
        (body(timestamp=float("nan")), "points[0].timestamp must be seconds since 1970"),
        (body(step=1.5), "points[0].step must be a whole number"),
        (body(step=2**63), "points[0].step must be a whole number from -2^63 to 2^63 - 1"),
        (body(seq=10**400), "points[0].seq must be a whole number from 0 to 2^63 - 1"),
        (body(seq=True), "points[0].seq must be a whole number"),
        (body(True), "points[0].value must be text of at most 64 KiB, or a number"),
        (body(None), "points[0].value must be text of at most 64 KiB, or a number"),
        (body("é" * 40_000), "points[0].value is longer than 64 KiB"),
        (body(metric="n" * 600), "points[0].metric is longer than 512 characters"),
        (json.dumps({"points": [1] * 1001}).encode(), "points"),
        (json.dumps({"points": [], "final": "yes"}).encode(), "final must be true or false"),
        (json.dumps({"points": [], "seq": 2**60}).encode(), "seq must be a whole number"),
    ],
)
def test_what_cannot_be_taken_is_answered_with_one_sentence(text: bytes, said: str) -> None:
    assert said in refusal(text)


def test_a_report_full_of_mistakes_is_refused_at_its_first() -> None:
    text = json.dumps({"points": [{"metric": 1}] * 150_000}).encode()
    assert len(text) > 1 << 20
    assert "points" in refusal(text)


def test_unknown_fields_are_for_other_versions() -> None:
    assert read(json.dumps({"points": [], "host": "a", "seq": None}).encode()) == ([], False, "")


LEAVES = st.none() | st.booleans() | st.floats() | st.text() | st.integers()
FIELDS = st.sampled_from(["points", "metric", "value", "seq", "step", "final", "origin"])


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner)))
def test_whatever_comes_is_taken_or_answered(anything: Any) -> None:
    text = json.dumps(anything).encode()
    try:
        points, _, _ = read(text)
    except UnreadableError:
        assert refusal(text)
    else:
        assert len(points) == len(anything["points"])
