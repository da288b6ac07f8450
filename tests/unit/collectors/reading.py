"""Collectors over a file with the given content, for tests."""

from __future__ import annotations

from pathlib import Path

import collectors
from evertune.domain.metrics import CollectorSpec, Point
from evertune.protocols import Collector, Findings, Sources


def collector(folder: Path, spec: CollectorSpec, *, path: Path | None = None, reports: Path | None = None) -> Collector:
    notes = folder / "notes"
    notes.mkdir(parents=True, exist_ok=True)
    return collectors.create(spec, Sources(log=folder / "log", notes=notes, path=path, reports=reports))


def read(
    folder: Path, content: str | bytes, *metrics: str, format: str = "TEXT", filters: tuple[str, ...] = ()
) -> tuple[list[Point], Findings]:
    """Everything that a File collector finds."""
    file = folder / "metrics"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    spec = CollectorSpec(kind="File", metrics=metrics, filters=filters, format=format)
    reader = collector(folder, spec, path=file)
    return [*reader.read(), *reader.finish()], reader.findings()
