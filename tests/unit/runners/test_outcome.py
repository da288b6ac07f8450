"""From what a supervisor recorded to reason, message and class."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from activities.runners.local.outcome import ExitRecord, Why, conclude, last_lines
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRACEBACK = b"""epoch 1
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    fit()
ValueError: degree must be at least 1
"""


def end(status: int | None, why: Why = Why.END, tail: bytes = b"", hint: str = "") -> AttemptEnd:
    record = ExitRecord(status, why, 1)
    return conclude(record, stop_reason="paused", plan={"hint": hint}, tail=tail, started=NOW, ended=NOW)


@pytest.mark.parametrize(
    ("status", "tail", "failure", "reason"),
    [
        (0, b"x", None, "Succeeded"),
        (1, TRACEBACK, FailureClass.PROGRAM, "exit 1: ValueError: degree must be at least 1"),
        (1, TRACEBACK + b"sys:1: Warning\n", FailureClass.PROGRAM, "exit 1: ValueError: degree must be at least 1"),
        (2, b"usage: x.py\nx.py: error: bad --lr\n\n", FailureClass.PROGRAM, "exit 2: x.py: error: bad --lr"),
        (3, b"", FailureClass.PROGRAM, "exit 3"),
        (126, b"", FailureClass.CONFIGURATION, "exit 126 (the command cannot be executed)"),
        (127, b"sh: x: not found\n", FailureClass.CONFIGURATION, "exit 127 (command not found): sh: x: not found"),
        (137, b"", FailureClass.SIGNAL, "signal 9 (SIGKILL)"),
        (139, b"", FailureClass.SIGNAL, "signal 11 (SIGSEGV)"),
        (128, b"", FailureClass.PROGRAM, "exit 128"),
        (200, b"", FailureClass.PROGRAM, "exit 200"),
        (255, b"", FailureClass.PROGRAM, "exit 255"),
    ],
)  # fmt: skip
def test_each_status_has_its_class_and_reason(
    status: int, tail: bytes, failure: FailureClass | None, reason: str
) -> None:
    found = end(status, tail=tail)
    assert (found.failure, found.reason) == (failure, reason)


def test_a_recorded_stop_wins_over_the_status() -> None:
    for status in (0, 1, 143, None):
        found = end(status, Why.STOP)
        assert (found.state, found.failure, found.reason) == (
            AttemptState.KILLED,
            FailureClass.STOPPED,
            "paused",
        )


def test_the_hint_is_added_to_a_failure_only() -> None:
    assert end(2, hint="images are not pulled").message.endswith("images are not pulled")
    assert "images" not in end(0, hint="images are not pulled").message


def test_a_message_is_readable() -> None:
    tail = b"\x1b[31mred\x1b[0m\n 10%\r 50%\r100%\r\n\n\xff\xfe\n" + b"x" * 1000
    assert last_lines(tail) == ["red", "100%", "\ufffd\ufffd", "x" * 300]


@pytest.mark.parametrize("text", ["", "0 end", "0\n", "0 end\n"])
def test_an_incomplete_record_is_no_record(text: str) -> None:
    assert ExitRecord.parse(text) is None


def test_a_record_survives_being_written_and_read() -> None:
    for record in (ExitRecord(None, Why.LOST, 0, "the host was restarted"), ExitRecord(137, Why.OUT_OF_MEMORY, 2)):
        assert ExitRecord.parse(record.line()) == record
