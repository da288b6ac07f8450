"""Can this version run a valid Experiment on a backend? Asked by `admit`, after `check` has given Katib's verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evertune.errors import Problem
from evertune.spec.catalog import Catalog, not_run
from evertune.spec.convert import algorithm_of
from evertune.spec.findings import quote
from evertune.spec.model import Experiment, ExperimentSpec, TrialTemplate

_TEMPLATE = "spec.trialTemplate"
# (kind, apiVersion) to the field with its replicas; the local runner has the same list, with all that follows from it.
LOCAL_KINDS = {
    ("Job", "batch/v1"): None,
    ("TFJob", "kubeflow.org/v1"): "tfReplicaSpecs",
    ("PyTorchJob", "kubeflow.org/v1"): "pytorchReplicaSpecs",
    ("XGBoostJob", "kubeflow.org/v1"): "xgbReplicaSpecs",
    ("JAXJob", "kubeflow.org/v1"): "jaxReplicaSpecs",
    ("PaddleJob", "kubeflow.org/v1"): "paddleReplicaSpecs",
}
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
    if (kind, version) not in LOCAL_KINDS:
        message = f"{kind} ({version}) does not run as local processes"
        hint = f"those that do are {', '.join(name for name, _ in LOCAL_KINDS)}"
        return [_problem(f"{_TEMPLATE}.trialSpec.kind", message, hint)]
    primary = template.primary_container_name
    return [problem for path, pod in _pods(job) for problem in _without_command(path, pod, primary)]


def _pods(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, pod spec) of each template. The rules have found the primary container in one of them."""
    spec = job.get("spec") or {}
    field = LOCAL_KINDS[job["kind"], job["apiVersion"]]
    if field is None:
        yield "spec.template.spec", (spec.get("template") or {}).get("spec") or {}
        return
    for role, replica in (spec.get(field) or {}).items():
        template = (replica or {}).get("template") or {}
        yield f"spec.{field}.{role}.template.spec", template.get("spec") or {}


def _without_command(path: str, pod: dict[str, Any], primary: str | None) -> Iterator[Problem]:
    for index, container in enumerate(pod.get("containers") or ()):
        if container.get("name") == primary and not container.get("command"):
            message = "the container has no command, and the image's own entry point cannot be read here"
            where = f"{_TEMPLATE}.trialSpec.{path}.containers[{index}].command"
            yield _problem(where, message, "write the command that the image would run")


def _problem(path: str, message: str, hint: str | None = None) -> Problem:
    return Problem(path=path, type="Forbidden", message=message, hint=hint)
