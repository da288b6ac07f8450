"""Katib's defaults, as its mutating webhook sets them, on a decoded Experiment. Idempotent."""

from __future__ import annotations

from evertune.spec.kinds import KINDS, primary_pod_labels
from evertune.spec.model import (
    CollectorKind,
    Experiment,
    ExperimentSpec,
    FileSystemPath,
    HttpGet,
    MetricsCollectorSpec,
    MetricsSource,
    MetricStrategy,
    ObjectMeta,
    TrialTemplate,
)

PARALLEL_TRIALS = 3
RESUME_POLICY = "Never"
_STRATEGY = {"minimize": "min", "maximize": "max"}


def set_defaults(experiment: Experiment) -> None:
    experiment.metadata = experiment.metadata or ObjectMeta()
    experiment.metadata.namespace = experiment.metadata.namespace or "default"
    spec = experiment.spec
    if spec is None:
        return
    if spec.parallel_trial_count is None:
        spec.parallel_trial_count = PARALLEL_TRIALS
    spec.resume_policy = spec.resume_policy or RESUME_POLICY
    _default_strategies(spec)
    _default_distributions(spec)
    if spec.trial_template is not None:
        _default_template(spec.trial_template)
    _default_collector(spec)


def _default_strategies(spec: ExperimentSpec) -> None:
    objective = spec.objective
    if objective is None or not objective.objective_metric_name:
        return
    strategies = list(objective.metric_strategies or ())
    named = {strategy.name for strategy in strategies}
    value = _STRATEGY.get(objective.type or "", "latest")
    for metric in (objective.objective_metric_name, *(objective.additional_metric_names or ())):
        if metric not in named:
            named.add(metric)
            strategies.append(MetricStrategy(name=metric, value=value))
    objective.metric_strategies = strategies


def _default_distributions(spec: ExperimentSpec) -> None:
    operations = (spec.nas_config and spec.nas_config.operations) or []
    inner = [parameter for operation in operations for parameter in operation.parameters or ()]
    for parameter in [*(spec.parameters or ()), *inner]:
        if parameter.feasible_space is not None:
            parameter.feasible_space.distribution = parameter.feasible_space.distribution or "uniform"


def _default_template(template: TrialTemplate) -> None:
    """By the kind's name alone, and only inline, as in Katib."""
    manifest = template.trial_spec or {}
    kind = manifest.get("kind")
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if template.config_map is not None or known is None or not known.silent:
        return
    template.success_condition = template.success_condition or known.success_condition
    template.failure_condition = template.failure_condition or known.failure_condition
    if not template.primary_pod_labels:
        template.primary_pod_labels = primary_pod_labels(manifest) or template.primary_pod_labels


def _default_collector(spec: ExperimentSpec) -> None:
    collecting = spec.metrics_collector_spec = spec.metrics_collector_spec or MetricsCollectorSpec()
    if collecting.collector is None:
        collecting.collector = CollectorKind(kind="StdOut")
    kind = collecting.collector.kind
    if kind not in ("File", "TensorFlowEvent", "PrometheusMetric"):
        return
    source = collecting.source = collecting.source or MetricsSource()
    if kind == "PrometheusMetric":
        source.http_get = source.http_get or HttpGet()
        source.http_get.path = source.http_get.path or "/metrics"
        if source.http_get.port in (None, 0, "", "0"):
            source.http_get.port = 8080
        return
    place = source.file_system_path = source.file_system_path or FileSystemPath()
    if kind == "File":
        place.kind = place.kind or "File"
        place.path = place.path or "/var/log/katib/metrics.log"
        place.format = place.format or "TEXT"
    else:
        place.kind = place.kind or "Directory"
        place.path = place.path or "/var/log/katib/tfevent/"
