"""What is said when the objective is missing, and what was left out: the nearest filter, names, warnings."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
import re2

import collectors
from collectors.suggest import suggested_filter
from collectors.text import TextRules
from evertune.domain.metrics import CollectorSpec
from evertune.protocols import Sources
from tests.unit.collectors.reading import collector, read


@pytest.mark.parametrize(
    ("line", "metric", "value"),
    [
        ("loss: 0.25", "loss", "0.25"),
        ("epoch 3 loss 0.25 in 3 s", "loss", "0.25"),
        ('{"epoch": 3, "loss": 0.25}', "loss", "0.25"),
        ('{"epoch": 3, "loss": "0.25"}', "loss", "0.25"),
        ("{'eval_loss': 1.5, 'eval_acc': 0.25}", "eval_acc", "0.25"),
        ("train/loss = 0.25", "train/loss", "0.25"),
        ("train/loss: -1e-3", "train/loss", "-1e-3"),
        ("[10]\tvalid_1's auc: 0.25", "valid_1's auc", "0.25"),
        ("samples/s=1,234.5 loss=2", "samples/s", "1,234.5"),
        ("the loss is 0.25", "loss", "0.25"),
        ("| loss | 0.25 |", "loss", "0.25"),
        ("loss -> 0.25", "loss", "0.25"),
        ("loss (mean): 4\nloss: .5", "loss", ".5"),
        ("größe: 3", "größe", "3"),
    ],
)
def test_a_filter_is_suggested_that_finds_the_objective(line: str, metric: str, value: str) -> None:
    text = suggested_filter(metric, line.encode().splitlines())
    match = re2.compile(text).search(line)
    assert match is not None
    assert match.group(1, 2) == (metric, value)
    found = [
        (point.metric, point.value)
        for piece in line.splitlines()
        for point in TextRules((metric,), (text,)).points(piece.encode(), 0)
    ]
    assert (metric, value) in found, "it works where it is pasted"


@pytest.mark.parametrize("line", ["nothing here", "loss", "loss: high", "my_loss: 3", ""])
def test_nothing_is_suggested_where_no_number_follows_the_name(line: str) -> None:
    assert suggested_filter("loss", [line.encode()]) == ""


def test_findings_carry_the_filter_that_was_needed(tmp_path: Path) -> None:
    points, findings = read(tmp_path, "epoch 1\nval acc=0.5, loss: 0.25\n", "loss")
    assert points == []
    assert findings.names_seen == ("acc",)
    assert findings.last_lines == ("epoch 1", "val acc=0.5, loss: 0.25")
    (tmp_path / "again").mkdir()
    found, _ = read(tmp_path / "again", "val acc=0.5, loss: 0.25\n", "loss", filters=(findings.suggested_filter,))
    assert [point.value for point in found] == ["0.25"]


def test_json_names_are_seen_and_bad_lines_counted_with_the_first(tmp_path: Path) -> None:
    content = '{"acc": 1}\n\nTraceback (most recent call last):\n{"acc": 2}\n  oops\n'
    points, findings = read(tmp_path, content, "loss", "acc", format="JSON")
    assert [point.value for point in points] == ["1", "2"]
    assert findings.names_seen == ("acc",)
    assert findings.warnings == (
        "2 lines are not JSON objects and were left out (first in line 3: Traceback (most recent call last):)",
    )


@pytest.mark.parametrize("format", ["TEXT", "JSON"])
def test_a_time_that_lies_is_missing_and_said_once(format: str, tmp_path: Path) -> None:
    def line(stamp: str) -> str:
        return f'{{"loss": 1, "timestamp": "{stamp}"}}' if format == "JSON" else f"{stamp} loss=1"

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600 * 20))
    far = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600 * 24 * 365 * 50))
    stamps = [now, soon, far, "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
    points, findings = read(tmp_path, "\n".join(map(line, stamps)), "loss", format=format)
    assert [point.timestamp is not None for point in points] == [True, True, False, False, False, False]
    (warning,) = findings.warnings
    assert re.match(r"3 times are more than a day in the future or before 2000 .* \(first in line 3: ", warning)


def test_values_are_kept_as_text_up_to_64_kib(tmp_path: Path) -> None:
    points, findings = read(tmp_path, "loss=" + "é" * 50_000 + "\n", "loss", filters=(r"(loss)=(.*)",))
    assert len(points[0].value.encode()) == 64 << 10
    assert findings.warnings == ("1 value is longer than 64 KiB and was cut (line 1)",)


def test_what_a_database_refuses_is_replaced(tmp_path: Path) -> None:
    points, _ = read(tmp_path, b"loss=a\0b\n", "loss", filters=(r"(loss)=(.*)",))
    assert points[0].value == "a\ufffdb"
    points, _ = read(tmp_path, r'{"loss": "a\u0000\ud800"}' + "\n", "loss", format="JSON")
    assert points[0].value == "a\ufffd?"


def test_of_pushed_names_that_nobody_asked_for_the_first_256_are_kept(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    names = [f"name{number}" for number in range(1000)]
    reports.write_text("".join(f'{{"metrics": {{"{name}": 1, "loss": 2}}}}\n' for name in names))
    reader = collector(tmp_path, CollectorSpec(kind="None", metrics=("loss",)), reports=reports)
    points = [*reader.read(), *reader.finish()]
    assert len({point.metric for point in points}) == 256
    assert sum(point.metric == "loss" for point in points) == 1000
    (warning,) = reader.findings().warnings
    assert warning.startswith(
        "745 values of metrics beyond the first 256 names were left out (first in line 256: name255"
    )


def test_steps_come_from_the_keys_that_programs_use(tmp_path: Path) -> None:
    content = (
        '{"loss": 1, "step": 3}\n{"loss": 1, "global_step": "4"}\n{"loss": 1, "epoch": 5.0}\n{"loss": 1, "step": -7}\n'
        '{"loss": 1, "step": 2.5, "epoch": 6}\n{"loss": 1, "step": 1e300}\n{"loss": 1, "step": true}\n{"loss": 1}\n'
    )
    points, _ = read(tmp_path, content, "loss", format="JSON")
    assert [point.step for point in points] == [3, 4, 5, -7, 6, None, None, None]


def test_without_a_line_of_its_own_a_source_shows_the_logs_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a traceback\nof the program\n")
    reader = collector(tmp_path, CollectorSpec(kind="Push", metrics=("loss",)), reports=tmp_path / "reports")
    assert reader.finish() == []
    assert reader.findings().last_lines == ("a traceback", "of the program")


def test_where_everything_is_pushed_and_nothing_was_it_is_said_that_nothing_is_read(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    (tmp_path / "log").write_text("loss=0.5\n")
    reader = collector(tmp_path, CollectorSpec(kind="Push", metrics=("loss",)), reports=reports)
    assert reader.finish() == []
    (warning,) = reader.findings().warnings
    assert warning.startswith("the collector Push reads no output")
    reports.write_text('{"metrics": {"lost": 1}}\n')
    assert [point.metric for point in reader.finish()] == ["lost"]
    assert reader.findings().warnings == ()


@pytest.mark.parametrize(
    ("kind", "format", "wrong"),
    [("File", "TEXT", "file"), ("File", "JSON", "file"), ("TensorFlowEvent", None, "directory")],
)
def test_a_path_that_is_missing_or_something_else_is_said(
    kind: str, format: str | None, wrong: str, tmp_path: Path
) -> None:
    spec = CollectorSpec(kind=kind, metrics=("loss",), format=format)
    path = tmp_path / "metrics"
    assert collector(tmp_path, spec, path=path).findings().warnings == (f"{path} was never written",)
    path.mkdir() if wrong == "file" else path.write_text("loss=1\n")
    made = collector(tmp_path, spec, path=path)
    assert [*made.read(), *made.finish()] == []
    assert made.findings().warnings == (f"{path} is not a {wrong}",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    path.write_text("loss=1\n")
    path.chmod(0)
    made = collector(tmp_path, CollectorSpec(kind="File", metrics=("loss",)), path=path)
    assert [*made.read(), *made.finish()] == []
    assert made.findings().warnings == (f"{path} cannot be read: Permission denied",)


def test_a_file_beside_a_custom_collector_counts_only_where_nobody_reported_the_objective(tmp_path: Path) -> None:
    file, printed = tmp_path / "metrics.log", tmp_path / "printed"
    file.write_text("loss=1\nloss=2\n")
    spec = CollectorSpec(kind="Custom", metrics=("loss", "acc"), path="/m/metrics.log", path_kind="File")

    def values(said: str) -> list[tuple[str, str]]:
        printed.write_text(said)
        sources = Sources(log=tmp_path / "log", notes=tmp_path, path=file, printed=printed)
        made = collectors.create(spec, sources)
        assert [point.metric for point in made.read() if point.metric == "loss"] == (["loss"] if "loss" in said else [])
        found = made.finish()
        again = collectors.create(spec, sources)  # a worker that died at the end: the same points at the same places
        assert [(p.metric, p.seq) for p in again.finish() if p.metric == "loss"][-len(found) :] == [
            (p.metric, p.seq) for p in found
        ] or "loss" in said
        return [(point.metric, point.value) for point in found]

    assert values('{"metrics": {"loss": 7}}\n') == []
    assert values('{"metrics": {"acc": 7}}\nI broke\n') == [("loss", "1"), ("loss", "2")]


def test_a_name_that_cannot_be_one_is_not_told_as_one_too_many(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    reports.write_text(json.dumps({"metrics": {"": 1, "a" * 600: 2, "loss": 3}}) + "\n")
    made = collector(tmp_path, CollectorSpec(kind="Push", metrics=("loss",)), reports=reports)
    assert [point.value for point in made.finish()] == ["3"]
    (warning,) = made.warnings()
    assert warning == (
        "2 values were left out: their metrics' names are empty or longer than 512 characters (first in line 1)"
    )
