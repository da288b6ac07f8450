"""Metric collectors: each turns what a trial leaves behind into points. `create` picks those that a spec asks for.

Runs in three places: in the worker beside a local trial, as the sidecar process of a pod (`python -m collectors`), and
offline over an archived log. Imports only the standard library, the RE2 binding and evertune's plain values; readers
that need more (event files, Prometheus' format) are imported when a spec asks for them.
"""

from __future__ import annotations

from pathlib import Path

from collectors.both import Both
from collectors.json_lines import MetricLines, ReportLines
from collectors.lines import FileCollector
from collectors.tail import Tail, first_place
from collectors.text import TextRules
from evertune.domain.metrics import PUSHED, event_source
from evertune.errors import LaunchError
from evertune.protocols import Collector, CollectorSpec, Sources

__all__ = [
    "PRINTED",
    "SCRAPED",
    "SEEN",
    "SEEN_PRINTED",
    "SEEN_REPORTS",
    "SEEN_SCRAPED",
    "create",
    "first_place_left",
]

PRINTED = event_source("collector/log")  # no event files are read where the user's own collector runs
# In an attempt's notes: what each reader has seen of its file, and what was scraped.
SEEN = "seen"
SEEN_REPORTS = "seen-reports"
SEEN_PRINTED = "seen-printed"
SEEN_SCRAPED = "seen-scraped"
SCRAPED = "scraped"
_FILTERS = "spec.metricsCollectorSpec.source.filter.metricsFormat"

_PUSHED = "the collector {} reads no output: the program reports by evertune.report, or give another kind"


def create(spec: CollectorSpec, sources: Sources) -> Collector:
    """The collector for `spec`, reading `sources` and, whatever the kind, what `evertune.report` wrote.

    LaunchError for a kind or a filter that cannot be collected.
    """
    try:
        main = _main(spec, sources)
    except ValueError as error:
        raise LaunchError(f"{_FILTERS}: {error}") from None
    beside = main is not None and sources.printed is not None  # the user's own collector runs, and reads the file
    parts = [] if main is None or beside else [main]
    if sources.reports is not None:
        tail = Tail(sources.reports, sources.notes / SEEN_REPORTS)
        parts.append(FileCollector(tail, ReportLines(spec.metrics), source=PUSHED))
    if sources.printed is not None:
        tail = Tail(sources.printed, sources.notes / SEEN_PRINTED)
        parts.append(FileCollector(tail, ReportLines(spec.metrics, among_text=True), source=PRINTED))
    return Both(
        parts,
        sources.log,
        last_resort=main if beside else None,
        objective=spec.metrics[0] if spec.metrics else "",
        without=_PUSHED.format(spec.kind) if spec.kind in ("Push", "None") else "",
    )


def first_place_left(sources: Sources) -> int:
    """From which place (`domain.metrics.place`) a new collector finds all points of the experiment's own source again.

    Whoever reads a finished attempt anew must keep the points before it: what they came from was rotated away or cut.
    """
    return first_place(sources.notes / SEEN)


def _main(spec: CollectorSpec, sources: Sources) -> Collector | None:
    """What reads the experiment's own source; None when everything comes by push."""
    if spec.kind == "StdOut":
        return _text(spec, sources, sources.log)
    if spec.kind == "File":
        return _file(spec, sources)
    if spec.kind == "Custom":
        return _file(spec, sources) if sources.path is not None and spec.path_kind == "File" else None
    if spec.kind == "TensorFlowEvent":
        from collectors.tfevents import EventCollector

        return EventCollector(spec.metrics, _path(spec, sources))
    if spec.kind == "PrometheusMetric":
        from collectors.prometheus import PrometheusCollector

        return PrometheusCollector(
            spec, sources.host, spool=sources.notes / SCRAPED, notes=sources.notes / SEEN_SCRAPED
        )
    if spec.kind in ("Push", "None"):
        return None
    raise LaunchError(
        f"metrics of collector kind {spec.kind} cannot be collected",
        "use StdOut, File, TensorFlowEvent, PrometheusMetric, Custom or Push",
    )


def _file(spec: CollectorSpec, sources: Sources) -> Collector:
    path = _path(spec, sources)
    if spec.format == "JSON":
        return FileCollector(Tail(path, sources.notes / SEEN), MetricLines(spec.metrics), expected=True)
    if spec.format not in (None, "", "TEXT"):
        raise LaunchError(f"a metrics file of format {spec.format} cannot be read", "use TEXT or JSON")
    return _text(spec, sources, path)


def _text(spec: CollectorSpec, sources: Sources, path: Path) -> Collector:
    rules = TextRules(spec.metrics, spec.filters)
    objective = spec.metrics[0] if spec.metrics else ""
    return FileCollector(Tail(path, sources.notes / SEEN), rules, objective=objective, expected=path != sources.log)


def _path(spec: CollectorSpec, sources: Sources) -> Path:
    if sources.path is None:
        raise LaunchError(f"the collector {spec.kind} needs a path", "set source.fileSystemPath.path")
    return sources.path
