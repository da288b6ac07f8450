"""`evertune metrics test`: what filters find in a log, before anything is run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_process import EVERTUNE, environment

LOG = """\
loading
2024-03-04T17:55:08Z loss=0.43 accuracy=0.61
2024-03-04T17:55:18Z loss=0.33 accuracy=0.71
Validation val_accuracy: 0.75, done
"""


@pytest.fixture
def log(tmp_path: Path) -> str:
    (tmp_path / "trial.log").write_text(LOG)
    return str(tmp_path / "trial.log")


def test_each_line_is_shown_with_what_was_found_and_whether_it_counts(shell: Shell, log: str) -> None:
    code, out, err = shell("metrics", "test", log, "--metric", "accuracy")
    assert code == 0
    assert out.splitlines()[:4] == [
        "        … 1 line without a match",
        "     2  2024-03-04T17:55:08Z loss=0.43 accuracy=0.61",
        "        ○ loss = 0.43  not wanted",
        "        ✔ accuracy = 0.61",
    ]
    assert ["accuracy", "yes", "2", "0.6100", "0.7100", "0.7100"] in [line.split() for line in out.splitlines()]
    assert "1 line mentions accuracy without giving it a value" in err


def test_json_is_a_row_for_each_value_that_counts(shell: Shell, log: str) -> None:
    code, out, err = shell("metrics", "test", log, "--metric", "loss", "-o", "json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [
        {"line": 2, "metric": "loss", "value": 0.43, "timestamp": 1709574908.0},
        {"line": 3, "metric": "loss", "value": 0.33, "timestamp": 1709574918.0},
    ]


def test_without_a_wanted_metric_every_name_counts_once_a_place(shell: Shell, log: str) -> None:
    filters = ("-f", r"(loss)=(\S+)", "-f", r"(\w+)=([\d.]+)")
    rows = json.loads(shell("metrics", "test", log, *filters, "-o", "json")[1])
    assert [(row["line"], row["metric"]) for row in rows] == [
        (2, "loss"),
        (2, "accuracy"),
        (3, "loss"),
        (3, "accuracy"),
    ]
    assert "an earlier filter has it  filter 2" in shell("metrics", "test", log, *filters)[1]


def test_a_metric_that_is_not_found_is_exit_code_1_and_the_suggested_filter_finds_it(shell: Shell, log: str) -> None:
    code, out, err = shell("metrics", "test", log, "--metric", "val_accuracy", "-o", "json")
    assert (code, json.loads(out)) == (1, [])
    assert "val_accuracy was not found; 1 line mentions it" in err
    suggested = err.partition("-f '")[2].partition("'")[0]
    code, out, _ = shell("metrics", "test", log, "--metric", "val_accuracy", "-f", suggested, "-o", "json")
    assert (code, [row["value"] for row in json.loads(out)]) == (0, [0.75])


def test_a_name_with_a_typing_error_gets_the_one_that_was_meant(shell: Shell, log: str) -> None:
    code, _, err = shell("metrics", "test", log, "--metric", "acurracy")
    assert code == 1
    assert "no line mentions it" in err
    assert "did you mean   --metric accuracy" in err


def test_a_metric_that_never_has_a_value_counts_as_missing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("loss=nan\n")
    code, out, err = shell("metrics", "test", "x", "--metric", "loss")
    assert code == 1
    assert "(no value)" in out
    assert "loss was found without a value" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-f", "(a)(?=b)"), "invalid perl operator: (?=\n   | (a)(?=b)\n   |    ^^^\n"),
        (("-f", "(a)=(b"), "missing ): (a)=(b\n   | (a)=(b\n   |       ^\n"),
        (("-f", "loss"), "it needs two groups in parentheses, for name and value"),
        (("-f", "x" * 1001), "longer than 1,000 characters"),
        (("--format", "xml"), '--format is "xml": it must be text or json'),
        (("--format", "json", "-f", "(a)(b)"), "a filter has no meaning for the format json"),
        (("--metric", " "), "--metric is empty"),
        (("--experiment", "nothing.yaml"), "nothing.yaml"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_read(
    words: tuple[str, ...], sentence: str, shell: Shell, log: str
) -> None:
    code, out, err = shell("metrics", "test", log, *words)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_file_that_is_not_there_is_a_sentence(shell: Shell, tmp_path: Path) -> None:
    assert shell("metrics", "test", "nothing.log")[0] == 2
    assert "there is no file nothing.log" in shell("metrics", "test", "nothing.log")[2]
    assert "is a directory" in shell("metrics", "test", str(tmp_path))[2]
    code, out, _ = shell("metrics", "test", "nothing.log", "-o", "json")
    assert (code, out) == (2, "")


def test_rules_come_from_an_experiment_and_options_overrule_them(
    shell: Shell, log: str, experiment_file: Callable[..., Path]
) -> None:
    path = str(experiment_file(objective="maximize accuracy", metrics="[loss]"))
    rows = json.loads(shell("metrics", "test", log, "--experiment", path, "-o", "json")[1])
    assert {row["metric"] for row in rows} == {"loss", "accuracy"}
    rows = json.loads(shell("metrics", "test", log, "--experiment", path, "--metric", "loss", "-o", "json")[1])
    assert {row["metric"] for row in rows} == {"loss"}


def test_json_lines_are_explained_as_their_collector_reads_them(shell: Shell, tmp_path: Path) -> None:
    lines = ['{"loss": "0.3", "timestamp": "2024-03-04T17:55:08Z"}', "junk with loss", '{"loss": 0.2, "epoch": 3}']
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    words = ("metrics", "test", "metrics.json", "--format", "json", "--metric", "loss")
    rows = json.loads(shell(*words, "-o", "json")[1])
    assert [(row["line"], row["value"]) for row in rows] == [(1, 0.3), (3, 0.2)]
    assert "✘ not a JSON object on one line" in shell(*words)[1]


def test_progress_bars_colours_and_junk_are_read_as_the_collector_reads_them(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\r\nloss=1\rloss=2\r\n\x1b[31mloss=0.5\x1b[0m \xff\x00\x07 \x1b[2J\nloss=3")
    code, out, _ = shell("metrics", "test", "x", "-o", "json")
    assert [(row["line"], row["value"]) for row in json.loads(out)] == [(2, 1), (2, 2), (3, 0.5), (4, 3)]
    shown = shell("metrics", "test", "x")[1]
    assert shown.replace("\n", "").isprintable()
    assert code == 0


@pytest.mark.slow
def test_a_line_that_does_not_end_costs_neither_memory_nor_an_answer(home: Path) -> None:
    script = (
        f"(head -c 300000000 /dev/zero | tr '\\0' 'a'; echo; echo loss=1) | {' '.join(EVERTUNE)} metrics test - -o json"
    )
    limited = f"ulimit -v 900000; {script}"
    done = subprocess.run(["bash", "-c", limited], env=environment(home), capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"line": 2, "metric": "loss", "value": 1, "timestamp": None}]


def test_an_endless_pipe_is_shown_as_it_comes_and_ctrl_c_ends_it_with_the_summary(home: Path) -> None:
    process = subprocess.Popen(
        [*EVERTUNE, "metrics", "test", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"loss=1\nloss=2\n")
    seen = b""
    give_up = time.monotonic() + 60
    while b"loss = 2" not in seen and time.monotonic() < give_up:
        seen += os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert [b"loss", b"yes", b"2"] in [line.split()[:3] for line in out.splitlines()]
    assert b"Traceback" not in err


def test_a_name_of_any_length_fits_the_screen(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "long.log"
    file.write_text("loss " + "a" * 100_000 + "=1\n")
    code, out, err = shell("metrics", "test", str(file), "--metric", "loss", "-f", "(a+)=(1)")
    assert code == 1
    assert max(len(line) for line in (out + err).splitlines()) < 300
    assert "found instead" not in err or "…" in err
