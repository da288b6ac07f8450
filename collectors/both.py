"""Several collectors as one: the experiment's own, and the one of what was pushed. Made by `collectors.create`.

Where the user's own collector runs, the file that it reads is a last resort: our rules read it at the end, and only
when nobody has reported the objective. Read beside that collector it would give every value a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collectors.lines import last_lines
from evertune.domain.metrics import Point
from evertune.protocols import Collector, Findings


class Both:
    def __init__(
        self,
        collectors: Sequence[Collector],
        log: Path,
        *,
        last_resort: Collector | None = None,
        objective: str = "",
        without: str = "",
    ) -> None:
        """`last_resort`: what `finish` reads as well, unless a point of `objective` has come by then.

        `without`: what to say when nothing came at all.
        """
        self._without = without
        self._collectors = collectors
        self._log = log
        self._last_resort = last_resort
        self._objective = objective
        self._reported = False

    def has_more(self) -> bool:
        return any(collector.has_more() for collector in self._collectors)

    def read(self) -> list[Point]:
        return self._noted([point for collector in self._collectors for point in collector.read()])

    def finish(self) -> list[Point]:
        points = self._noted([point for collector in self._collectors for point in collector.finish()])
        if self._last_resort is not None and not self._reported:
            points += self._last_resort.finish()
        return points

    def _noted(self, points: list[Point]) -> list[Point]:
        if self._last_resort is not None and not self._reported:
            self._reported = any(point.metric == self._objective for point in points)
        return points

    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(said for collector in self._everybody() for said in collector.warnings()))

    def _everybody(self) -> list[Collector]:
        aside = [] if self._last_resort is None or self._reported else [self._last_resort]
        return [*aside, *self._collectors]

    def findings(self) -> Findings:
        """The lines of the experiment's own source, else of the log; everybody's names and warnings."""
        found = [collector.findings() for collector in self._everybody()]
        names = dict.fromkeys(name for findings in found for name in findings.names_seen)
        warnings = dict.fromkeys(warning for findings in found for warning in findings.warnings)
        if self._without and not names:
            warnings.setdefault(self._without)
        return Findings(
            last_lines=next((findings.last_lines for findings in found if findings.last_lines), ())
            or last_lines(self._log),
            names_seen=tuple(names)[:50],
            suggested_filter=next((findings.suggested_filter for findings in found if findings.suggested_filter), ""),
            warnings=tuple(warnings),
        )
