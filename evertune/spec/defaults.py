"""Katib's defaults, as its mutating webhook sets them, on a decoded Experiment. Idempotent."""

from __future__ import annotations

import re

from evertune.spec.kinds import KINDS, primary_pod_labels
from evertune.spec.model import (
    CollectorKind,
    Experiment,
    ExperimentSpec,
    FileSystemPath,
    HttpGet,
    JsonDict,
    MetricsCollectorSpec,
    MetricsSource,
    MetricStrategy,
    ObjectMeta,
    TrialTemplate,
)
from evertune.spec.values import spelled

PARALLEL_TRIALS = 3
RESUME_POLICY = "Never"
WARM_START = "identical"
AGGREGATE = "mean"
_STRATEGY = {"minimize": "min", "maximize": "max"}
_FURTHER = re.compile(r"spec\.objectives\[(\d+)\]")


def set_defaults(experiment: Experiment) -> None:
    experiment.metadata = experiment.metadata or ObjectMeta()
    experiment.metadata.namespace = experiment.metadata.namespace or "default"
    spec = experiment.spec
    if spec is None:
        return
    if spec.parallel_trial_count is None:
        spec.parallel_trial_count = PARALLEL_TRIALS
    spec.resume_policy = spec.resume_policy or RESUME_POLICY
    _default_objectives(spec)
    _default_strategies(spec)
    _default_choices(spec)
    _spell_conditions(spec)
    _default_distributions(spec)
    if spec.trial_template is not None:
        _default_template(spec.trial_template)
    _default_collector(spec)


def promote_objective(data: JsonDict) -> tuple[JsonDict, bool]:
    """With the first of `objectives` as the objective, where there is no other; and whether that was done.

    Before anything is decoded: all that follows knows one objective, and those beside it.
    """
    spec = data.get("spec")
    if not isinstance(spec, dict) or spec.get("objective") is not None:
        return data, False
    listed = spec.get("objectives")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
        return data, False
    first = {("objectiveMetricName" if key == "metric" else key): value for key, value in listed[0].items()}
    return {**data, "spec": {**spec, "objective": first, "objectives": listed[1:] or None}}, True


def promoted_path(path: str) -> str:
    """Where the user wrote what stands at `path` after `promote_objective`."""
    first = "spec.objective"
    if path == first or path.startswith(f"{first}."):
        return f"spec.objectives[0]{path[len(first) :]}".replace(".objectiveMetricName", ".metric")
    found = _FURTHER.match(path)
    return f"spec.objectives[{int(found[1]) + 1}]{path[found.end() :]}" if found else path


def _default_objectives(spec: ExperimentSpec) -> None:
    """One word for a metric's name; an empty list says as much as none."""
    for objective in spec.objectives or ():
        if objective.metric is None or objective.metric == objective.objective_metric_name:
            objective.metric, objective.objective_metric_name = objective.name or None, None
    spec.objectives = spec.objectives or None
    spec.constraints = spec.constraints or None


def _default_strategies(spec: ExperimentSpec) -> None:
    objective = spec.objective
    if objective is None or not objective.objective_metric_name:
        return
    strategies = list(objective.metric_strategies or ())
    named = {strategy.name for strategy in strategies}
    value = _STRATEGY.get(objective.type or "", "latest")
    constrained = [constraint.metric for constraint in spec.constraints or () if constraint.metric]
    wanted = {objective.objective_metric_name: value}
    for name in objective.additional_metric_names or ():
        wanted.setdefault(name, "latest" if name in constrained else value)
    for further in spec.objectives or ():
        wanted.setdefault(further.name, _STRATEGY.get(further.type or "", "latest"))
    for name in constrained:
        wanted.setdefault(name, "latest")
    for metric, strategy in wanted.items():
        if metric and metric not in named:
            strategies.append(MetricStrategy(name=metric, value=strategy))
    objective.metric_strategies = strategies


def _default_choices(spec: ExperimentSpec) -> None:
    """The half that is not said of what has two."""
    if spec.warm_start is not None:
        spec.warm_start.mode = spec.warm_start.mode or WARM_START
    if spec.replicates is not None:
        spec.replicates.aggregate = spec.replicates.aggregate or AGGREGATE


def _spell_conditions(spec: ExperimentSpec) -> None:
    """The values of `when` as lists, each as the list of the parameter that it names spells it: 0.1 may be "0.10"."""
    lists = {
        parameter.name: parameter.feasible_space.items or []
        for parameter in spec.parameters or ()
        if parameter.feasible_space is not None
    }
    for parameter in spec.parameters or ():
        for name, values in (parameter.when or {}).items():
            listed = values if isinstance(values, list) else [values]
            parameter.when[name] = [spelled(value, lists.get(name, [])) for value in listed]  # type: ignore[index]


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
