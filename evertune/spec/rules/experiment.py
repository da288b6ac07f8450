"""Rules about the experiment as a whole: identity, budget, objective."""

from __future__ import annotations

import re

from evertune.spec.findings import Findings, did_you_mean, quote, suggestion
from evertune.spec.model import Experiment, ExperimentSpec

API_VERSIONS = ("kubeflow.org/v1beta1", "evertune.io/v1alpha1", "evertune.io/v1")  # the second is the operator's
BACKEND_ANNOTATION = "evertune.io/backend"
CLUSTER_ANNOTATION = "evertune.io/cluster"
BACKENDS = ("local", "kubernetes")
MAX_NAME = 40
MAX_CLUSTER = 200
MAX_PARALLEL = 1000  # Temporal holds at most 2,000 pending activities for one workflow; stops need some of them

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def check_experiment(experiment: Experiment, findings: Findings) -> bool:
    """False when this is no Experiment at all, so that its content cannot be judged."""
    if not _is_experiment(experiment, findings):
        return False
    _check_metadata(experiment, findings)
    spec = experiment.spec
    if spec is None:
        findings.error("spec", "Required", "spec is missing", "an Experiment's settings stand under spec:")
        return False
    _check_counts(spec, findings)
    _check_objective(spec, findings)
    if spec.resume_policy not in ("Never", "LongRunning", "FromVolume"):
        known = ("Never", "LongRunning", "FromVolume")
        findings.error(
            "spec.resumePolicy", "Invalid", f"{quote(spec.resume_policy)} is not a resume policy",
            suggestion(spec.resume_policy or "", known, "known"),
        )  # fmt: skip
    return True


def _is_experiment(experiment: Experiment, findings: Findings) -> bool:
    if experiment.kind is None:
        findings.error("kind", "Required", "kind is missing", "write kind: Experiment")
    elif experiment.kind != "Experiment":
        findings.error("kind", "Invalid", f"{quote(experiment.kind)} is not an Experiment", "write kind: Experiment")
        return False
    if experiment.api_version is None:
        findings.error("apiVersion", "Required", "apiVersion is missing", f"write apiVersion: {API_VERSIONS[0]}")
    elif experiment.api_version not in API_VERSIONS:
        message = f"{quote(experiment.api_version)} is not a version of Experiment that evertune reads"
        findings.error("apiVersion", "Invalid", message, suggestion(experiment.api_version, API_VERSIONS, "known"))
    return not (experiment.kind is None and experiment.spec is None)


def _check_metadata(experiment: Experiment, findings: Findings) -> None:
    name = experiment.name
    if not name and experiment.metadata and experiment.metadata.generate_name:
        findings.error("metadata.name", "Invalid", "name is missing", "generateName is not used: give a fixed name")
    elif not name:
        findings.error("metadata.name", "Invalid", "name is missing", "give the experiment a name under metadata")
    elif len(name) > MAX_NAME:
        findings.error("metadata.name", "Invalid", f"the name has {len(name)} characters, at most {MAX_NAME} fit")
    elif not NAME.match(name):
        mended = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"for example {mended}" if NAME.match(mended) else None
        message = f"{quote(name)} must be lower-case letters, digits and dashes, starting with a letter"
        findings.error("metadata.name", "Invalid", message, hint)
    if not NAMESPACE.match(experiment.namespace):
        message = f"{quote(experiment.namespace)} must be lower-case letters, digits and dashes"
        findings.error("metadata.namespace", "Invalid", message)
    backend = experiment.annotations.get(BACKEND_ANNOTATION)
    cluster = experiment.annotations.get(CLUSTER_ANNOTATION)
    if backend is not None and backend not in BACKENDS:
        path = f"metadata.annotations[{BACKEND_ANNOTATION}]"
        findings.error(path, "Invalid", f"{quote(backend)} is not a backend", suggestion(backend, BACKENDS, "known"))
    if cluster is not None and (not cluster.strip() or len(cluster) > MAX_CLUSTER):
        path = f"metadata.annotations[{CLUSTER_ANNOTATION}]"
        message = f"{quote(cluster)} is not the name of a cluster's context"
        findings.error(path, "Invalid", message, "kubectl config get-contexts lists them; or leave it out")


def _check_counts(spec: ExperimentSpec, findings: Findings) -> None:
    most, parallel, failures = spec.max_trial_count, spec.parallel_trial_count, spec.max_failed_trial_count
    if failures is not None and failures < 0:
        findings.error("spec.maxFailedTrialCount", "Invalid", f"{failures} must be 0 or more")
    if most is not None and most <= 0:
        findings.error("spec.maxTrialCount", "Invalid", f"{most} must be above 0")
    if parallel is not None and parallel <= 0:
        findings.error("spec.parallelTrialCount", "Invalid", f"{parallel} must be above 0")
    elif parallel is not None and parallel > MAX_PARALLEL:
        message = f"{parallel} is above {MAX_PARALLEL}, the most that one experiment can run at a time"
        findings.error("spec.parallelTrialCount", "Invalid", message, "split the search into several experiments")
    if most is None or most <= 0:
        if most is None and (spec.objective is None or spec.objective.goal is None):
            message = "neither maxTrialCount nor a goal is set: the experiment runs until it is stopped"
            findings.warn("spec.maxTrialCount", message, type_="Required")
        return
    if failures is not None and failures > most:
        message = f"{failures} is more than maxTrialCount {most}"
        findings.error("spec.maxFailedTrialCount", "Invalid", message, f"at most {most}")
    if parallel is not None and parallel > most:
        message = f"{parallel} is more than maxTrialCount {most}"
        findings.error("spec.parallelTrialCount", "Invalid", message, f"write parallelTrialCount: {most} (3 if absent)")


def _check_objective(spec: ExperimentSpec, findings: Findings) -> None:
    objective = spec.objective
    if objective is None:
        hint = "write objective: {type: maximize, objectiveMetricName: accuracy}"
        findings.error("spec.objective", "Required", "objective is missing", hint)
        return
    if objective.type not in ("minimize", "maximize"):
        message = f"{quote(objective.type)} is not a direction" if objective.type else "the direction is missing"
        hint = suggestion(objective.type or "", ("minimize", "maximize"), "known")
        findings.error("spec.objective.type", "Invalid", message, hint)
    metric = objective.objective_metric_name
    if not metric:
        findings.error("spec.objective.objectiveMetricName", "Required", "the metric's name is missing")
    additional = dict.fromkeys(objective.additional_metric_names or ())
    additional |= dict.fromkeys(further.name for further in spec.objectives or ())
    additional |= dict.fromkeys(constraint.metric or "" for constraint in spec.constraints or ())
    seen: set[str] = set()
    for index, extra in enumerate(objective.additional_metric_names or ()):
        at = f"spec.objective.additionalMetricNames[{index}]"
        if metric and extra == metric:
            message = f"{quote(extra)} is the objective already"
            findings.error("spec.objective.additionalMetricNames", "Invalid", message, "remove it here", at=at)
        elif extra in seen:
            findings.warn(at, f"{quote(extra)} is named twice", type_="Duplicate")
        elif not extra:
            findings.warn(at, "a metric without a name is never found", "remove it", type_="Required")
        seen.add(extra)
    chosen: dict[str, str | None] = {}
    for index, strategy in enumerate(objective.metric_strategies or ()):
        if findings.full:
            return
        at = f"spec.objective.metricStrategies[{index}]"
        if strategy.value not in ("min", "max", "latest"):
            message = f"{quote(strategy.value)} is not a strategy: the metric would have no value"
            findings.error(f"{at}.value", "Invalid", message, suggestion(strategy.value or "", _STRATEGIES, "known"))
        if not strategy.name:
            findings.error(f"{at}.name", "Required", "the strategy's metric is missing", f"name: {metric}")
            continue
        if chosen.setdefault(strategy.name, strategy.value) != strategy.value:
            message = f"{quote(strategy.name)} has the strategy {chosen[strategy.name]} already"
            findings.error(f"{at}.name", "Duplicate", message, "keep one")
        if metric and strategy.name != metric and strategy.name not in additional:
            close = did_you_mean(strategy.name or "", (metric, *additional))
            meant = f"did you mean {quote(close)}?" if close else None
            findings.warn(f"{at}.name", f"no metric is called {quote(strategy.name)}", meant, type_="NotFound")


_STRATEGIES = ("min", "max", "latest")
