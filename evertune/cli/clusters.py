"""The cluster's part of `doctor`, and of `run` for a cluster: what is to be checked there, for which experiment.

What is checked is `activities.runners.kubernetes.checks`; this gathers what it needs to know, and looks at the stack.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evertune.cli.loading import Loaded, the_one
from evertune.cli.session import Session
from evertune.errors import EvertuneError, SpecError, UnavailableError, UsageError

if TYPE_CHECKING:
    from activities.runners.kubernetes.findings import Finding, Subject
    from evertune.protocols import Launch
    from evertune.spec import Experiment, TemplateKey, Templates

CLUSTER = "evertune.io/cluster"
# What a worker that is told otherwise cannot run this experiment with; the rest changes only how metrics come.
DECISIVE = ("EVERTUNE_KUBECONFIG", "EVERTUNE_KUBE_CONTEXT")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody wants to run, and where; `experiment` is None when nobody named one."""

    namespace: str
    backend: str
    context: str | None
    experiment: Experiment | None = None
    templates: Templates = field(default_factory=dict)


def known(now: Session) -> bool:
    """Whether anything says how to reach a cluster."""
    from evertune.app import activate

    activate()
    from activities.runners.kubernetes import credentials

    return credentials.said(now.settings.kubeconfig, now.environ)


def wish_of(
    now: Session, file: Path | None, *, namespace: str | None, backend: str | None, context: str | None
) -> Wish:
    """From the command line; prints the problems of the file and ends with 2 when there are any."""
    from evertune import spec

    if file is None:
        where = backend or now.settings.backend
        return Wish(namespace=now.namespace(namespace), backend=where, context=context)
    experiment, templates = the_one(now, file, "doctor")
    return Wish(
        namespace=namespace or _said_namespace(experiment) or now.namespace(None),
        backend=spec.backend_of(experiment) or backend or now.settings.backend,
        context=context or spec.cluster_of(experiment),
        experiment=experiment,
        templates=templates,
    )


def wish_to_start(now: Session, loaded: Loaded, backend: str | None) -> Wish:
    """Of an experiment that is about to be submitted."""
    from evertune import spec

    experiment = spec.load_stored(loaded.manifest)
    return Wish(
        namespace=experiment.namespace,
        backend=spec.backend_of(experiment) or backend or now.settings.backend,
        context=spec.cluster_of(experiment),
        experiment=experiment,
        templates=spec.stored_templates({"templates": list(loaded.templates)}),
    )


def place(loaded: Loaded, context: str, *, backend: str) -> None:
    """Write --context into an experiment. UsageError when that says otherwise, or its trials run locally."""
    if backend != "kubernetes":
        raise UsageError("--context names a cluster, but the trials run locally", hint="add --backend kubernetes")
    metadata = loaded.manifest["metadata"]
    annotations = metadata["annotations"] = dict(metadata.get("annotations") or {})
    if annotations.setdefault(CLUSTER, context) != context:
        raise UsageError(
            f'the experiment says {CLUSTER}: "{annotations[CLUSTER]}", but --context says "{context}"',
            hint="leave out one of the two",
        )


def findings(now: Session, wish: Wish, *, probe: bool = False) -> list[Finding]:
    """All of it, with connections of their own. Raises nothing that a cluster or a kubeconfig can cause."""
    import asyncio

    from evertune.app import activate

    activate()
    now.start_logging()
    return asyncio.run(_findings(now, wish, probe))


async def _findings(now: Session, wish: Wish, probe: bool) -> list[Finding]:
    from activities.runners.kubernetes.api import Api
    from activities.runners.kubernetes.checks import examine
    from activities.runners.kubernetes.choice import away
    from activities.runners.kubernetes.findings import Finding
    from activities.runners.kubernetes.probe import probe as tried
    from activities.runners.kubernetes.trial_checks import pull_secrets

    settings = now.settings
    try:
        api = await Api.connect(wish.context or settings.kube_context, kubeconfig=settings.kubeconfig)
    except EvertuneError as error:
        return [Finding(what="Cluster", found=error.message, level="fail", mend=error.hint or "")]
    try:
        key = _missing_template(wish)
        told: list[Finding] = []
        try:
            if key is not None:
                wish = replace(wish, templates={**wish.templates, key: await _template(now, wish, key)})
            subject = replace(_subject(now, wish), reads_config_map=key is not None)
        except (SpecError, UnavailableError) as error:
            problem = error.problems[0] if isinstance(error, SpecError) and error.problems else error
            told = [Finding(what="Trial", found=problem.message, level="fail", mend=problem.hint or "")]
            subject = _subject(now, replace(wish, experiment=None))
        found = await examine(api, subject)
        reaches = not any(each.what == "API server" and each.level == "fail" for each in found)
        if probe and reaches and subject.gateway is not None and away(subject.gateway) is None:
            secrets = pull_secrets(subject.launch.manifest) if subject.launch is not None else []
            answer = await tried(
                api, wish.namespace, url=subject.gateway, injection=subject.injection, pull_secrets=secrets
            )
            found = [*(each for each in found if each.what != "Gateway"), answer]
        return [*found, *told, *_worker(now)]
    finally:
        await api.close()


def _subject(now: Session, wish: Wish) -> Subject:
    """Raises SpecError when the trial's object cannot be told."""
    from activities.runners.kubernetes.findings import Subject
    from activities.runners.kubernetes.render import Injection

    settings = now.settings
    gateway = _gateway(now)
    return Subject(
        namespace=wish.namespace,
        injection=Injection(
            image=settings.collector_image, mode=settings.collector_mode, identity=settings.pod_identity
        ),
        gateway=gateway,
        launch=None if wish.experiment is None else _launch(wish, gateway),
    )


def _missing_template(wish: Wish) -> TemplateKey | None:
    """Of the ConfigMap that the trials' template is in, where that does not stand beside the experiment."""
    from evertune import spec

    template = wish.experiment.spec.trial_template if wish.experiment and wish.experiment.spec else None
    if template is None or template.config_map is None:
        return None
    key = spec.template_key(template.config_map)
    return None if key in wish.templates else key


async def _template(now: Session, wish: Wish, key: TemplateKey) -> str:
    """As admission will read it. Raises SpecError, UnavailableError."""
    from activities.runners.kubernetes.cluster import Clusters
    from activities.runners.kubernetes.templates import ClusterTemplates

    clusters = Clusters(kubeconfig=now.settings.kubeconfig, default_context=now.settings.kube_context)
    try:
        return await ClusterTemplates(clusters).fetch(wish.context, *key)
    finally:
        await clusters.close()


def _launch(wish: Wish, gateway: str | None) -> Launch:
    from evertune.cli.rendering import any_parameters, cluster_launch, trial_manifest

    assert wish.experiment is not None
    parameters = any_parameters(wish.experiment)
    manifest = trial_manifest(wish.experiment, 0, parameters, wish.namespace, wish.templates)
    return cluster_launch(wish.experiment, manifest, 0, parameters, gateway)


def _gateway(now: Session) -> str | None:
    """Where the worker of this home would tell trials to report: as set, or where its server listens."""
    from evertune import stack

    settings = now.settings
    if settings.ingest_url is not None:
        return settings.ingest_url
    if (url := stack.status(settings).server_url) is not None:
        return url
    if settings.server_host in ("0.0.0.0", "::"):  # noqa: S104 - says where to listen, not how to get there
        return None
    port = f":{settings.server_port}" if settings.server_port else ""
    return f"http://{settings.server_host}{port}"


def _worker(now: Session) -> list[Finding]:
    """Whether the worker that runs already goes by the same settings. A new one will."""
    from activities.runners.kubernetes.findings import Finding
    from evertune import stack

    told, wanted = stack.status(now.settings).told, now.settings.told_of_clusters()
    if told is None or told == wanted:
        return []
    names = [name for name in (*wanted, *told) if told.get(name) != wanted.get(name)]
    differences = [
        f"{name} {told.get(name, 'unset')}, not {wanted.get(name, 'unset')}" for name in dict.fromkeys(names)
    ]
    return [
        Finding(
            what="Worker",
            found=f"it was started with {'; '.join(differences)}",
            level="fail" if any(name in DECISIVE for name in names) else "warn",
            mend="evertune down, then once more: experiments and trials in clusters go on",
        )
    ]


def elsewhere(now: Session) -> bool:
    """Whether trials in clusters are for other workers: a Temporal of others, and no way to a cluster from here."""
    return now.settings.temporal_address is not None and not known(now)


def _said_namespace(experiment: Experiment) -> str | None:
    return experiment.metadata.namespace if experiment.metadata is not None else None
