"""Can this version run a valid Experiment on a backend? Asked by `admit`, after `check` has given Katib's verdict."""

from __future__ import annotations

from typing import Any

from evertune.errors import Problem
from evertune.spec.catalog import Catalog, not_run
from evertune.spec.convert import algorithm_of
from evertune.spec.findings import quote
from evertune.spec.model import Experiment, ExperimentSpec, TrialTemplate

_TEMPLATE = "spec.trialTemplate"
DEFAULT_PARALLEL = 3  # Katib's, for a spec that was not defaulted


def unsupported_here(experiment: Experiment, backend: str, catalog: Catalog | None = None) -> list[Problem]:
    """What keeps a valid Experiment from running on `backend` with this version; empty when nothing does.

    Without `catalog` the algorithm is taken to run.
    """
    if backend != "local":
        message = f"this version runs trials as local processes only, not on {quote(backend)}"
        return [_problem("metadata.annotations[evertune.io/backend]", message, "write local, or leave it out")]
    spec = experiment.spec or ExperimentSpec()
    problems: list[Problem] = []
    problems += _collector_problems(spec)
    idle = not_run(algorithm_of(experiment), catalog) if catalog else None
    if idle is not None:
        problems.append(_problem("spec.algorithm.algorithmName", idle))
    elif spec.nas_config is not None:
        problems.append(_problem("spec.nasConfig", "architecture search does not run in this version"))
    problems += _template_problems(spec.trial_template or TrialTemplate())
    return problems


def _collector_problems(spec: ExperimentSpec) -> list[Problem]:
    collector = spec.metrics_collector_spec and spec.metrics_collector_spec.collector
    kind = collector.kind if collector else None
    parallel = spec.parallel_trial_count or DEFAULT_PARALLEL
    if kind == "PrometheusMetric" and parallel > 1:
        source = spec.metrics_collector_spec and spec.metrics_collector_spec.source
        port = source.http_get.port if source and source.http_get else None
        message = f"{parallel} trials at once on one machine cannot all show their metrics on port {port}"
        hint = "set spec.parallelTrialCount to 1, or let trials push: evertune.report and the collector Push"
        return [_problem("spec.metricsCollectorSpec.source.httpGet.port", message, hint)]
    return []


def _template_problems(template: TrialTemplate) -> list[Problem]:
    if template.config_map is not None:
        message = "a ConfigMap lives in a cluster; local trials need the template in the file"
        return [_problem(f"{_TEMPLATE}.configMap", message, "put it under trialSpec")]
    job: dict[str, Any] = template.trial_spec or {}
    kind, version = job.get("kind"), job.get("apiVersion")
    if (kind, version) != ("Job", "batch/v1"):
        message = f"{kind} ({version}) does not run as local processes in this version"
        return [_problem(f"{_TEMPLATE}.trialSpec.kind", message, "use a batch/v1 Job")]
    containers = job["spec"]["template"]["spec"]["containers"]  # the rules have found the primary container in it
    for index, container in enumerate(containers):
        if container.get("name") == template.primary_container_name and not container.get("command"):
            path = f"{_TEMPLATE}.trialSpec.spec.template.spec.containers[{index}].command"
            message = "the container has no command, and the image's own entry point cannot be read here"
            return [_problem(path, message, "write the command that the image would run")]
    return []


def _problem(path: str, message: str, hint: str | None = None) -> Problem:
    return Problem(path=path, type="Forbidden", message=message, hint=hint)
