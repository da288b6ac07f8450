"""Rules about the metrics collector: kind, paths, and regular expressions that must compile before a trial runs."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from evertune.spec.findings import Findings, quote, suggestion
from evertune.spec.model import Experiment, ExperimentSpec, FileSystemPath, MetricsSource

PATH = "spec.metricsCollectorSpec"
KINDS = ("StdOut", "File", "TensorFlowEvent", "PrometheusMetric", "Custom", "Push", "None")
_DEFAULT_NAME = re.compile(r"[A-Za-z0-9_|-]+\Z")  # what the default filter can find


def check_collector(experiment: Experiment, findings: Findings) -> None:
    spec = experiment.spec or ExperimentSpec()
    collecting = spec.metrics_collector_spec
    if collecting is None or collecting.collector is None:
        return
    kind = collecting.collector.kind
    source = collecting.source or MetricsSource()
    if kind not in KINDS:
        message = f"{quote(kind)} is not a collector" if kind else "the collector's kind is missing"
        findings.error(f"{PATH}.collector.kind", "Invalid", message, suggestion(kind or "", KINDS, "known"))
    elif kind == "None":
        message = "nothing is collected: the training code must push its metrics itself"
        findings.warn(f"{PATH}.collector.kind", message, "Katib calls this Push today")
    elif kind == "File":
        _check_file(source, findings)
    elif kind == "TensorFlowEvent":
        _check_events(source, findings)
    elif kind == "PrometheusMetric":
        _check_scrape(source, findings)
    elif kind == "Custom":
        _check_custom(collecting.collector.custom_collector, source.file_system_path, findings)
    _check_filters(spec, source, kind, findings)


def _absolute(path: str | None) -> bool:
    return bool(path) and str(path).startswith("/")


def _check_file(source: MetricsSource, findings: Findings) -> None:
    place = source.file_system_path or FileSystemPath()
    path = f"{PATH}.source.fileSystemPath"
    if place.kind != "File" or not _absolute(place.path):
        at = f"{path}.path" if place.kind == "File" else f"{path}.kind"
        message = "the collector File needs kind File and an absolute path"
        findings.error(f"{path}.path", "Required", message, "for example /var/log/katib/metrics.log", at=at)
    elif str(place.path).endswith("/"):
        findings.error(f"{path}.path", "Invalid", f"{quote(place.path)} is a directory", "name the file in it")
    else:
        _check_climbing(place, findings)
    if place.format not in ("TEXT", "JSON"):
        message = f"{quote(place.format)} is not a format"
        findings.error(f"{path}.format", "Required", message, suggestion(place.format or "", ("TEXT", "JSON"), "known"))
    elif place.format == "JSON" and source.filter is not None:
        findings.error(f"{PATH}.source.filter", "Invalid", "a filter has no meaning for the format JSON", "remove it")


def _check_events(source: MetricsSource, findings: Findings) -> None:
    place = source.file_system_path or FileSystemPath()
    path = f"{PATH}.source.fileSystemPath"
    if place.kind != "Directory" or not _absolute(place.path):
        at = f"{path}.path" if place.kind == "Directory" else f"{path}.kind"
        message = "the collector TensorFlowEvent needs kind Directory and an absolute path"
        findings.error(f"{PATH}.source", "Required", message, "for example /var/log/katib/tfevent/", at=at)
    else:
        _check_climbing(place, findings)
    if place.format:
        message = "event files have no format"
        findings.error(f"{PATH}.source.fileSystemPath.format", "Invalid", message, "remove format")


def _check_scrape(source: MetricsSource, findings: Findings) -> None:
    path = f"{PATH}.source.httpGet"
    port, where = (source.http_get.port, source.http_get.path) if source.http_get else (None, None)
    text = str(port)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) < 65536 and len(text) < 10):
        findings.error(f"{path}.port", "Invalid", f"{quote(port)} is not a port number")
    if not _absolute(where):
        findings.error(f"{path}.path", "Invalid", f"{quote(where)} must start with /")
    scheme = source.http_get.scheme if source.http_get else None
    if scheme and scheme.upper() not in ("HTTP", "HTTPS"):
        findings.error(f"{path}.scheme", "Invalid", f"{quote(scheme)} is not a scheme", "known: HTTP HTTPS")


def _check_custom(container: dict[str, Any] | None, place: FileSystemPath | None, findings: Findings) -> None:
    if not container:
        message = "the collector Custom needs customCollector, a container"
        findings.error(f"{PATH}.collector.customCollector", "Required", message)
    if place is not None and not (_absolute(place.path) and place.kind in ("File", "Directory")):
        path = f"{PATH}.source.fileSystemPath"
        at = f"{path}.kind" if _absolute(place.path) else f"{path}.path"
        findings.error(path, "Invalid", "needs an absolute path and kind File or Directory", at=at)
    elif place is not None:
        _check_climbing(place, findings)


def _check_climbing(place: FileSystemPath, findings: Findings) -> None:
    """The directory of what is collected becomes one of the attempt's own: that cannot be the root, or be anywhere."""
    parts = [part for part in str(place.path).split("/") if part not in ("", ".")]
    path = f"{PATH}.source.fileSystemPath.path"
    if ".." in parts:
        findings.error(path, "Invalid", f"{quote(place.path)} goes up by ..", "write the path that is meant")
    elif not parts:
        message = (
            f"{quote(place.path)}: the root directory cannot be that of the metrics, since others need what is in it"
        )
        findings.error(path, "Invalid", message, "for example /var/log/katib/metrics.log")


def _check_filters(spec: ExperimentSpec, source: MetricsSource, kind: str | None, findings: Findings) -> None:
    filters = (source.filter and source.filter.metrics_format) or []
    path = f"{PATH}.source.filter.metricsFormat"
    for index, pattern in enumerate(filters):
        reason = unusable(pattern)
        if reason is not None:
            hint = r"two groups, name and value: ([\w-]+)=([\d.eE+-]+)"
            findings.error(path, "Invalid", f"{quote(pattern)}: {reason}", hint, at=f"{path}[{index}]")
    text_kind = kind in ("StdOut", "File") and (source.file_system_path or FileSystemPath()).format != "JSON"
    objective = spec.objective
    if filters or not text_kind or objective is None:
        return
    metrics = [("objectiveMetricName", objective.objective_metric_name)]
    metrics += [(f"additionalMetricNames[{i}]", name) for i, name in enumerate(objective.additional_metric_names or ())]
    for field, name in metrics:
        if name and not _DEFAULT_NAME.match(name):
            message = f"the default filter never finds a metric called {quote(name)}"
            findings.warn(f"spec.objective.{field}", message, f"give a filter: {PATH}.source.filter.metricsFormat")


@cache
def _re2() -> tuple[Any, Any]:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    return re2, options


def unusable(pattern: str) -> str | None:
    """Why a metrics filter cannot work: not RE2, or fewer than two groups. None when it can."""
    if len(pattern) > 1000:
        return "longer than 1,000 characters"
    library, options = _re2()
    try:
        compiled = library.compile(pattern, options)
    except (library.error, UnicodeError) as error:
        reason = error.args[0] if error.args else "not a regular expression"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        return f"not a usable regular expression (RE2): {text}"
    return None if compiled.groups >= 2 else "it needs two groups in parentheses, for name and value"
