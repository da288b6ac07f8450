"""Several collectors as one: the experiment's own, and the one of what was pushed. Made by `collectors.create`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collectors.lines import last_lines
from evertune.domain.metrics import Point
from evertune.protocols import Collector, Findings


class Both:
    def __init__(self, collectors: Sequence[Collector], log: Path) -> None:
        self._collectors = collectors
        self._log = log

    def has_more(self) -> bool:
        return any(collector.has_more() for collector in self._collectors)

    def read(self) -> list[Point]:
        return [point for collector in self._collectors for point in collector.read()]

    def finish(self) -> list[Point]:
        return [point for collector in self._collectors for point in collector.finish()]

    def findings(self) -> Findings:
        """The lines of the experiment's own source, else of the log; everybody's names and warnings."""
        found = [collector.findings() for collector in self._collectors]
        names = dict.fromkeys(name for findings in found for name in findings.names_seen)
        return Findings(
            last_lines=next((findings.last_lines for findings in found if findings.last_lines), ())
            or last_lines(self._log),
            names_seen=tuple(names)[:50],
            suggested_filter=next((findings.suggested_filter for findings in found if findings.suggested_filter), ""),
            warnings=tuple(dict.fromkeys(warning for findings in found for warning in findings.warnings)),
        )
