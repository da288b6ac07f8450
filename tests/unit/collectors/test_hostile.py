"""ReDoS, bombs and lies: memory and processor time stay bounded, and there is a sentence.

Memory is measured in a process of its own, as its peak beyond what it needs for a small file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collectors import text
from tests.repository.checkout import ROOT
from tests.unit.collectors.reading import read

MEASURE = """
import json, re, sys, time
from pathlib import Path
import collectors
from evertune.domain.metrics import CollectorSpec
from evertune.protocols import Sources
folder, file, kind, format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
made = collectors.create(
    CollectorSpec(kind=kind, metrics=("loss",), format=format or None),
    Sources(log=folder / "log", notes=folder, path=file, reports=folder / "reports"),
)
points = 0
begun = time.process_time()
while made.has_more() and (found := made.read()):
    points += len(found)
    del found
points += len(made.finish())
findings = made.findings()
print(json.dumps({
    "points": points,
    "cpu_s": time.process_time() - begun,
    "peak_mb": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024,
    "names": len(findings.names_seen),
    "warnings": findings.warnings,
}))
"""


def measured(folder: Path, file: Path, kind: str = "File", format: str = "TEXT") -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(file), kind, format],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, float] = json.loads(run.stdout)
    print(file.name, result)
    return result


def test_a_million_names_in_a_log_are_as_light_as_one(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_text("loss=1\n" * 1000)
    large.write_text("".join(f"name{number}={number} loss=1\n" for number in range(60_000)))
    (tmp_path / "a").mkdir()
    few, many = measured(tmp_path / "a", small), measured(tmp_path, large)
    assert many["points"] == 60_000
    assert many["names"] == 50
    assert many["peak_mb"] < few["peak_mb"] + 40


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "format"), [("File", "TEXT"), ("File", "JSON")])
def test_a_line_of_a_gigabyte_costs_a_few_megabytes_and_linear_time(kind: str, format: str, tmp_path: Path) -> None:
    results = []
    for size in (1 << 26, 1 << 30):
        file = tmp_path / f"line-{size}"
        with file.open("wb") as line:  # sparse: nothing but NULs, and no newline
            line.write(b"loss=1 ")
            line.truncate(size)
        notes = tmp_path / f"notes-{size}"
        notes.mkdir()
        results.append(measured(notes, file, kind, format))
        file.unlink()
    small, large = results
    assert large["peak_mb"] < small["peak_mb"] + 10
    assert large["cpu_s"] < 16 * 3 * max(small["cpu_s"], 0.05)


@pytest.mark.slow
def test_a_gigabyte_that_mentions_the_metric_everywhere_is_linear_too(tmp_path: Path) -> None:
    results = []
    for size in (4, 32):
        file = tmp_path / f"line-{size}"
        with file.open("wb") as line:
            for _ in range(size):
                line.write((b"loss is high, " * 75_000)[: 1 << 20])
        notes = tmp_path / f"notes-{size}"
        notes.mkdir()
        results.append(measured(notes, file))
    assert results[1]["cpu_s"] < 8 * 3 * max(results[0]["cpu_s"], 0.05)
    assert results[1]["peak_mb"] < results[0]["peak_mb"] + 10


HOSTILE = [
    r"(loss)=((a|aa|a*)*)b",
    r"((a*)*)*(b)",
    r"(loss)((?:x+x+)+y)",
    r"(l)(o)(.*z)?",
    r"(\w*)(.*end)?",
    r"()()",
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_filter_is_given_up_in_bounded_time(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "PATIENCE_S", 0.1)
    line = b"loss=" + b"lo aaaaaaaa xxxx " * 20_000 + b"\n"
    begun = time.process_time()
    _, findings = read(tmp_path, line * 20 + b"loss=1\n", "loss", filters=(pattern,))
    took = time.process_time() - begun
    print(f"{pattern}: {took:.1f} s for 20 lines of {len(line) >> 10} KiB")
    assert took < 60
    assert all("more than a second" in warning for warning in findings.warnings)


@pytest.mark.parametrize(
    "line",
    [b"loss=" + b"9" * 500_000, b"loss" * 200_000, b"=" * 900_000 + b"loss", b"loss=1 " * 100_000, b"\x1b[" * 400_000],
    ids=["digits", "names", "equals", "values", "escapes"],
)
def test_a_hostile_line_is_read_in_bounded_time(line: bytes, tmp_path: Path) -> None:
    begun = time.process_time()
    read(tmp_path, line + b" loss=2\n", "loss")
    print(f"{time.process_time() - begun:.2f} s")
    assert time.process_time() - begun < 30


@pytest.mark.parametrize(
    "line",
    ['{"a":' * 100_000, "[" * 500_000, '{"loss": ' + "9" * 400_000 + "}", '{"loss": 1e999999999}', '{"step": 1e400}'],
    ids=["objects", "lists", "digits", "huge", "step"],
)
def test_hostile_json_costs_its_line(line: str, tmp_path: Path) -> None:
    points, _ = read(tmp_path, f'{line}\n{{"loss": 1}}\n', "loss", format="JSON")
    assert points[-1].value == "1"
