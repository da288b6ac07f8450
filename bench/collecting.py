"""Reading metrics: lines a second of TEXT and JSON, what the sidecar costs to start, and events a second.

One process, no database: what a worker or a sidecar spends on a core before it stores or sends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import collectors
from bench.figures import Figure
from evertune.domain.metrics import CollectorSpec
from evertune.protocols import Sources

ROOT = Path(__file__).parents[1]
LINES = 200_000
EVENTS = 50_000
RUNS = 3

TEXT = b"2024-05-01T10:00:00Z INFO Train Epoch: 1 [640/60000 (1%%)]\tloss=%f accuracy=0.5 in 0.31 s\n"
OTHER = b"2024-05-01T10:00:00Z INFO Train Epoch: 1 [640/60000 (1%)]\tand some words that say nothing\n"
JSON = (
    b'{"checkpoint_path": "", "global_step": "%d", "loss": "0.22082142", "timestamp": 1638422847.28721, "trial": "0"}\n'
)

EMPTY = "import sys"
FIRST_READ = """
import json, sys
from pathlib import Path
import collectors.__main__
from collectors import create
from evertune.protocols import Sources
spec = json.loads(sys.argv[1])
folder = Path(sys.argv[2])
(folder / "log").write_bytes(b'loss=1\\n{"loss": 2}\\n')
sources = Sources(log=folder / "log", notes=folder, path=folder / "log", reports=folder / "reports")
create(collectors.__main__.spec_of(json.dumps({"metrics": ["loss"], **spec})), sources).read()
"""
_PRINT_SIZE = r"""
import re, time
with open("/proc/self/status") as status:
    print(time.process_time(), re.search(r"VmRSS:\s+(\d+)", status.read())[1])
"""


class Start(NamedTuple):
    """Processor seconds from the start of Python, wall seconds, resident memory then."""

    cpu_s: float
    wall_s: float
    rss_mb: float

    def __str__(self) -> str:
        return f"{self.cpu_s * 1000:.0f} ms of processor, {self.rss_mb:.1f} MB"


def started(code: str, folder: Path) -> Start:
    """A fresh Python that runs `code`, for the kind StdOut."""
    begun = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code + _PRINT_SIZE, json.dumps({"kind": "StdOut"}), str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - begun
    cpu, rss = run.stdout.split()
    return Start(float(cpu), wall, int(rss) / 1024)


def per_s(folder: Path, name: str, content: bytes, spec: CollectorSpec, count: int) -> float:
    """Lines or events a second of processor time, the best of RUNS."""
    return max(count / _once(folder / f"{name}-{run}", content, spec) for run in range(RUNS))


def _once(folder: Path, content: bytes, spec: CollectorSpec) -> float:
    (folder / "source").mkdir(parents=True)
    source = folder / "source" / "events.out.tfevents.1"
    source.write_bytes(content)
    path = source.parent if spec.kind == "TensorFlowEvent" else source
    collector = collectors.create(spec, Sources(log=source, notes=folder, path=path))
    begun = time.process_time()
    while collector.has_more() and collector.read():
        pass
    collector.finish()
    return time.process_time() - begun


def events(count: int) -> bytes:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    from collectors.tfevents import framed

    summary = Summary(value=[Summary.Value(tag="loss", simple_value=0.1)])
    return framed(Event(wall_time=1_714_557_600.5, step=5, summary=summary).SerializeToString()) * count


def measure() -> Iterator[Figure]:
    loss = ("loss",)
    cases = (
        ("TEXT, every line has the metric", TEXT, TEXT, CollectorSpec(kind="StdOut", metrics=loss), 25_000),
        ("TEXT, one line in ten has it", TEXT, OTHER, CollectorSpec(kind="StdOut", metrics=loss), 100_000),
        (
            "TEXT, two metrics in every line",
            TEXT,
            TEXT,
            CollectorSpec(kind="StdOut", metrics=(*loss, "accuracy")),
            None,
        ),
        ("TEXT, no line has it", OTHER, OTHER, CollectorSpec(kind="StdOut", metrics=loss), None),
        ("JSON, every line", JSON, JSON, CollectorSpec(kind="File", metrics=loss, format="JSON"), None),
    )
    with tempfile.TemporaryDirectory(prefix="evertune-bench-") as home:
        folder = Path(home)
        for name, first, others, spec, at_least in cases:
            content = b"".join(_line(first if number % 10 == 0 else others, number) for number in range(LINES))
            yield Figure(
                name=name,
                value=per_s(folder, name, content, spec, LINES),
                unit="lines/s",
                at_least=at_least,
                note=f"{len(content) / LINES:.0f} bytes a line",
            )
        spec = CollectorSpec(kind="TensorFlowEvent", metrics=loss)
        yield Figure(name="event file", value=per_s(folder, "events", events(EVENTS), spec, EVENTS), unit="events/s")
        empty = min(started(EMPTY, folder) for _ in range(7))
        ready = min(started(FIRST_READ, folder) for _ in range(7))
        wall = min(started(FIRST_READ, folder).wall_s for _ in range(7))
        yield Figure(
            name="sidecar, from its start to the first read",
            value=wall * 1000,
            unit="ms",
            at_most=150,
            note=f"Python included, which needs {min(started(EMPTY, folder).wall_s for _ in range(7)) * 1000:.0f} ms",
        )
        yield Figure(
            name="sidecar, memory beyond Python itself",
            value=ready.rss_mb - empty.rss_mb,
            unit="MB RSS",
            at_most=30,
            note=f"{ready.rss_mb:.0f} MB in all",
        )


def _line(template: bytes, number: int) -> bytes:
    return template if template is OTHER else template % number
