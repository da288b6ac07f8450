"""Can this version run a valid Experiment on a backend? Asked by `admit`, after `check` has given Katib's verdict.

For a cluster it says what the API server or an operator would refuse at each trial. Whether the cluster at hand knows
the kind is a question for it, and the runner's to ask.
"""

from __future__ import annotations

from collections.abc import Iterator

from evertune.errors import Problem, ProblemType
from evertune.spec.convert import memory_growth_of
from evertune.spec.findings import did_you_mean, quote
from evertune.spec.kinds import (
    KINDS,
    WHOLE_NAME,
    Kind,
    containers_of,
    kind_of,
    pod_templates,
    primary_role,
    replicas_of,
    shown,
)
from evertune.spec.memory import memory_of
from evertune.spec.model import Experiment, ExperimentSpec, JsonDict, TrialTemplate
from evertune.spec.quantity import parse_quantity
from evertune.spec.template import STAND_IN, Templates, unfilled

_TEMPLATE = "spec.trialTemplate"
_ON_OOM = "spec.failurePolicy.onOOM"
DEFAULT_PARALLEL = 3  # Katib's, for a spec that was not defaulted
TRIAL_SUFFIX = 9  # characters that a trial's name has beyond its experiment's: a dash and eight more
LOCAL_KINDS = ("Job", "TFJob", "PyTorchJob", "XGBoostJob", "JAXJob", "PaddleJob")


def local_kinds() -> tuple[str, ...]:
    """The kinds that run as local processes."""
    return LOCAL_KINDS


def unsupported_here(experiment: Experiment, backend: str, *, templates: Templates | None = None) -> list[Problem]:
    """What keeps a valid Experiment from running on `backend` with this version; empty when nothing does.

    `templates`: those in ConfigMaps; a cluster may have the others.
    """
    if backend not in ("local", "kubernetes"):
        message = f"trials run as local processes or in a Kubernetes cluster, not on {quote(backend)}"
        return [_problem("metadata.annotations[evertune.io/backend]", message, "write local or kubernetes")]
    spec = experiment.spec or ExperimentSpec()
    template = spec.trial_template or TrialTemplate()
    manifest = unfilled(template, templates)
    problems: list[Problem] = []
    if backend == "local":
        problems += _collector_problems(spec)
    if backend == "local":
        problems += _local_problems(spec, template, manifest)
    elif manifest is not None:
        problems += _cluster_problems(experiment, template, manifest)
    return problems


def _problem(path: str, message: str, hint: str | None = None, type_: ProblemType = "Forbidden") -> Problem:
    return Problem(path=path, type=type_, message=message, hint=hint)


def _below(template: TrialTemplate, path: str) -> str:
    """Where something of the trial's object stands. A ConfigMap's text has no places of its own."""
    return f"{_TEMPLATE}.trialSpec.{path}" if template.config_map is None else f"{_TEMPLATE}.configMap"


# ------------------------------------------------------------------------------------------------------- local


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


def _local_problems(spec: ExperimentSpec, template: TrialTemplate, manifest: JsonDict | None) -> Iterator[Problem]:
    if spec.failure_policy is not None and spec.failure_policy.on_oom is not None:
        message = "local processes have no memory limit that could be raised"
        yield _problem(_ON_OOM, message, "remove it, or run the trials in a cluster: --backend kubernetes")
    if manifest is None:
        message = "the ConfigMap is not beside the experiment; local trials need the template at hand"
        hint = "put the ConfigMap into the file, or give its own: --configmap FILE; or write trialSpec"
        yield _problem(f"{_TEMPLATE}.configMap", message, hint)
        return
    known = kind_of(manifest)
    if known is None or known.kind not in local_kinds():
        message = f"a {shown(manifest)} does not run as local processes"
        hint = f"run it in a cluster: --backend kubernetes; locally run {', '.join(local_kinds())}"
        yield _problem(_below(template, "kind"), message, hint)
        return
    for where, _, pod in pod_templates(manifest):  # the rules have found the primary container in one of them
        containers = dict(containers_of(pod))
        wanted = [template.primary_container_name]
        if known.trains and not any(container.get("name") in wanted for container in containers.values()):
            wanted = [known.container]
        for index, container in containers.items():
            if container.get("name") in wanted and not container.get("command"):
                path = _below(template, f"{where}.spec.containers[{index}].command")
                message = "the container has no command, and the image's own entry point cannot be read here"
                yield _problem(path, message, "write the command that the image would run")


# ----------------------------------------------------------------------------------------------------- cluster


def _cluster_problems(experiment: Experiment, template: TrialTemplate, manifest: JsonDict) -> Iterator[Problem]:
    known = kind_of(manifest)
    length = len(experiment.name) + TRIAL_SUFFIX
    longest = known.longest_name if known is not None else WHOLE_NAME
    if length > longest:
        message = f"a trial's name would have {length} characters, and that of a {manifest['kind']} at most {longest}:"
        message += " what it runs is named after it"
        yield _problem("metadata.name", message, f"at most {longest - TRIAL_SUFFIX} characters")
    if known is not None and known.trains:
        yield from _replica_problems(known, template, manifest)
    for where, _, pod in pod_templates(manifest):
        for index, container in containers_of(pod):
            if not container.get("image"):
                path = _below(template, f"{where}.spec.containers[{index}].image")
                name = quote(container.get("name"))
                yield _problem(path, f"the container {name} has no image", "image: NAME:TAG", "Required")
        pod_spec = pod.get("spec")
        policy = pod_spec.get("restartPolicy") if isinstance(pod_spec, dict) else None
        if known is KINDS["Job"] and policy not in ("Never", "OnFailure") and STAND_IN not in str(policy):
            message = "a Job needs restartPolicy Never or OnFailure: Kubernetes refuses it otherwise"
            yield _problem(_below(template, f"{where}.spec.restartPolicy"), message, "write restartPolicy: Never")
    yield from _memory_problems(experiment, template, manifest)


def _replica_problems(known: Kind, template: TrialTemplate, manifest: JsonDict) -> Iterator[Problem]:
    field = known.replicas_field or ""
    spec = manifest.get("spec")
    given = spec if isinstance(spec, dict) else {}
    if not isinstance(given.get(field), dict):
        close = did_you_mean(field, [key for key in given if isinstance(key, str)])
        hint = f"it has {close}" if close else f"write {field}: {{{known.primary_roles[0]}: …}}"
        yield _problem(_below(template, f"spec.{field}"), f"a {known.kind} needs spec.{field}", hint, "Required")
    elif primary_role(manifest) is None:
        roles = " or ".join(known.primary_roles)
        there = ", ".join(replicas_of(manifest)) or "none at all"
        message = f"a {known.kind} needs the role {roles}; it has {there}"
        yield _problem(_below(template, f"spec.{field}"), message, None, "Required")


def _memory_problems(experiment: Experiment, template: TrialTemplate, manifest: JsonDict) -> Iterator[Problem]:
    growth = memory_growth_of(experiment)
    if growth is None:
        return
    _, most = growth
    if not any(pod_templates(manifest)):
        message = f"where a {shown(manifest)} says its memory is not known: it cannot be given more"
        yield _problem(_ON_OOM, message, "remove it")
        return
    memory = memory_of(manifest, template.primary_container_name or "")
    if memory is None:
        containers = [container for _, _, pod in pod_templates(manifest) for _, container in containers_of(pod)]
        if STAND_IN not in str([container.get("resources") for container in containers]):  # it may be a parameter
            message = "the container that trains has neither limit nor request of memory: more of nothing is nothing"
            yield _problem(_ON_OOM, message, "write resources: {limits: {memory: 2Gi}}")
    elif most is not None and parse_quantity(most) <= memory:
        message = f"{quote(most)} is not above the memory that trials have at first: none would get more"
        yield _problem(f"{_ON_OOM}.max", message, "a larger max")
