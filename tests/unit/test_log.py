"""Log lines: for people, for machines, and never in the way of the work."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

import evertune.log as logs
from evertune.settings import Settings


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.basicConfig(level=level, handlers=handlers, force=True)


def settings(log: str) -> Settings:
    return Settings.load({"HOME": "/home/ada", "EVERTUNE_LOG": log})


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == "", "standard output is for data"
    return [json.loads(line) for line in captured.err.splitlines()]


def test_without_a_terminal_each_line_is_json_with_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    with logs.about(experiment="digits", trial=7, attempt=0):
        structlog.get_logger().info("attempt ended", state="Succeeded")
    structlog.get_logger().info("later")
    first, second = lines(capsys)
    assert first | {"time": ""} == {
        "event": "attempt ended", "state": "Succeeded", "level": "info", "time": "",
        "experiment": "digits", "trial": 7, "attempt": 0,
    }  # fmt: skip
    assert "trial" not in second


def test_for_people_a_line_is_one_line_and_not_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings("human"))
    structlog.get_logger().info("attempt ended", trial=7)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "attempt ended" in text
    assert "trial=7" in text
    assert "\x1b" not in text, "no colours where there is no terminal"


def test_other_libraries_are_heard_from_warning_on_and_know_the_trial_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings("debug"))
    with logs.about(trial=7):
        logging.getLogger("temporalio.worker").info("hidden")
        logging.getLogger("temporalio.worker").warning("poll failed: %s", "refused")
    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["trial"]) == ("poll failed: refused", "temporalio.worker", 7)


@pytest.mark.parametrize(
    ("name", "verbosity", "shown"),
    [
        ("info", 0, ["info", "warning", "error"]),
        ("info", 1, ["debug", "info", "warning", "error"]),
        ("info", -1, ["warning", "error"]),
        ("warning", 5, ["debug", "info", "warning", "error"]),
        ("debug", -9, ["error"]),
    ],
)
def test_the_level_moves_with_v_and_q(
    capsys: pytest.CaptureFixture[str], name: str, verbosity: int, shown: list[str]
) -> None:
    logs.configure(settings(name), verbosity=verbosity)
    log = structlog.get_logger()
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("x")
    assert [line["level"] for line in lines(capsys)] == shown


def test_an_exception_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    for log in (structlog.get_logger(), logging.getLogger("other")):
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            log.exception("failed")
    for line in lines(capsys):
        assert line["event"] == "failed"
        assert "ZeroDivisionError" in line["exception"]


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    logging.getLogger("other").warning("once")
    assert len(lines(capsys)) == 1


def test_a_full_disk_under_the_log_does_not_fail_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class FullDisk(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise OSError(28, "No space left on device")

    logs.configure()
    monkeypatch.setattr(sys, "stderr", FullDisk())
    structlog.get_logger().error("lost")
    logging.getLogger("other").error("lost as well")
    assert [json.loads(text)["event"] for text in tried] == ["lost", "lost as well"]
