"""One trial of an experiment as it would be started, without an experiment: `render --trial`, --local, --kubernetes.

Parameters come from the algorithm itself, asked in this process with the experiment's seed and no history, as if all
trials up to the wanted one were asked at once. For an algorithm that is only checked `random` stands in, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evertune import spec
from evertune.cli.loading import roots_of_images
from evertune.cli.session import Session
from evertune.domain.space import Parameter, Value
from evertune.domain.trial import AttemptRef
from evertune.errors import LaunchError, UsageError
from evertune.protocols import Launch
from evertune.spec.values import ValueProblem, value_of

if TYPE_CHECKING:
    from activities.runners.local.attempt import Attempt

JsonDict = dict[str, Any]


def trial_parameters(
    session: Session, experiment: spec.Experiment, number: int, given: Sequence[str]
) -> dict[str, Value]:
    """What the algorithm suggests for trial `number`, with `--set` values in place of its own."""
    chosen, space = _given(experiment, given), spec.to_space(experiment)
    if not chosen or not set(space.names()) <= set(chosen):
        chosen = {**_suggested(session, experiment, number), **chosen}
    return space.active(chosen) if space.conditional else chosen


def _suggested(session: Session, experiment: spec.Experiment, number: int) -> dict[str, Value]:
    from algorithms import registry

    session.start_logging()
    name, seed = spec.algorithm_of(experiment), spec.seed_of(experiment)
    problem = spec.search_problem(experiment, seed or 0)
    if seed is None:
        session.say("The file has no seed: a run draws one, and gets other values.")
    answer = registry.create(name, problem).ask((), number + 1, 0, None)
    if number >= len(answer.assignments):
        # Fewer answers than trials: only a second question tells whether the space is used up.
        rest = registry.create(name, problem).ask((), 1, number, answer.state)
        why = rest.reason or "it waits for the results of earlier trials"
        raise UsageError(f"{name} gives no trial {number} at the start: {why}")
    return dict(answer.assignments[number].parameters)


def _given(experiment: spec.Experiment, given: Sequence[str]) -> dict[str, Value]:
    known = {parameter.name: parameter for parameter in spec.to_space(experiment)}
    values: dict[str, Value] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals or not name:
            raise UsageError(f'--set is "{entry}": write NAME=VALUE')
        if name not in known:
            raise UsageError(f'the experiment has no parameter "{name}"', hint=f"it has {', '.join(known)}")
        values[name] = _value(known[name], text)
    return values


def _value(parameter: Parameter, text: str) -> Value:
    try:
        return value_of(parameter, text)
    except ValueProblem as problem:
        raise UsageError(problem.message, hint=problem.hint) from None


def trial_name(experiment: spec.Experiment, number: int) -> str:
    """Stands for the real one, whose last eight characters follow from the experiment's uid."""
    return f"{experiment.name}-{number:08d}"


def trial_manifest(
    experiment: spec.Experiment,
    number: int,
    parameters: Mapping[str, Value],
    namespace: str | None,
    templates: spec.Templates,
) -> JsonDict:
    return spec.render_trial(
        experiment,
        trial_name=trial_name(experiment, number),
        namespace=namespace,
        parameters=parameters,
        templates=templates,
    )


def local_command(
    session: Session,
    experiment: spec.Experiment,
    manifest: JsonDict,
    number: int,
    parameters: Mapping[str, Value],
    images: Path | None,
    image_roots: Sequence[str],
    templates: spec.Templates,
) -> JsonDict:
    """What the local runner would execute: argv, directory, environment, with the attempt's own paths."""
    from activities.launch import primary_container, primary_pod_labels, shared_paths
    from activities.runners.local import beside, paths
    from activities.runners.local.attempt import Attempt
    from activities.runners.local.command import limitations, prepare
    from activities.runners.local.shape import is_distributed
    from evertune.cli.loading import RECORDED

    container = primary_container(experiment)
    launch = Launch(
        ref=AttemptRef("UID", number, 0, trial_name(experiment, number)),
        manifest=manifest,
        primary_container=container,
        primary_pod_labels=primary_pod_labels(experiment),
        working_dir=os.path.join(os.getcwd(), spec.working_dir_of(experiment) or ""),  # noqa: PTH109, PTH118
        environment={name: session.environ[name] for name in RECORDED if session.environ.get(name)},
        image_roots=roots_of_images(images, image_roots),
        deadline_s=spec.trial_deadline_of(experiment),
        shared_paths=shared_paths(experiment, templates),
        custom_collector=spec.custom_collector(experiment),
        parameters=spec.to_space(experiment).typed(parameters),
    )
    directory = session.settings.trials_dir / "UID" / str(number) / "0"
    if is_distributed(manifest):
        plan = _replicas(session, launch, Attempt(directory))
    else:
        command = prepare(launch, paths.rewrite(manifest, launch.shared_paths, directory / "files"), {}, directory)
        plan = _shown(command.plan(launch))
    for sentence in limitations(manifest, container):
        session.say(f"locally, {sentence}")
    collector = beside.command(launch, Attempt(directory), {})
    if isinstance(collector, LaunchError):
        session.say(f"locally, {beside.not_run(collector)}")
    elif collector is not None:
        plan["collector"] = _shown(collector.plan(launch))
    return plan


TOKEN = "<token>"  # noqa: S105 - stands for the key to the gateway, which each attempt gets
ASSUMED_SERVER = (1, 30)
ASSUMED_GATEWAY = "http://evertune.example:8090"


def cluster_launch(
    experiment: spec.Experiment,
    manifest: JsonDict,
    number: int,
    parameters: Mapping[str, Value],
    gateway: str | None,
) -> Launch:
    """What the Kubernetes runner would be asked to start, with a token that stands for the real one."""
    from activities.launch import collected, primary_container, primary_pod_labels

    name = trial_name(experiment, number)
    return Launch(
        ref=AttemptRef("0" * 32, number, 0, name),
        manifest=manifest,
        primary_container=primary_container(experiment),
        working_dir="/",
        deadline_s=spec.trial_deadline_of(experiment),
        custom_collector=spec.custom_collector(experiment),
        parameters=spec.to_space(experiment).typed(parameters),
        ingest_url=gateway,
        token=None if gateway is None else TOKEN,
        collector=collected(experiment),
        cluster=spec.cluster_of(experiment),
        labels=spec.pod_labels(experiment, name),
        primary_pod_labels=primary_pod_labels(experiment),
    )


def cluster_object(
    session: Session, experiment: spec.Experiment, manifest: JsonDict, number: int, parameters: Mapping[str, Value]
) -> JsonDict:
    """What the Kubernetes runner would create. No cluster is asked: what is assumed of it is said."""
    from activities.runners.kubernetes.render import Features, Injection, rendered

    settings = session.settings
    gateway = settings.ingest_url or ASSUMED_GATEWAY
    launch = cluster_launch(experiment, manifest, number, parameters, gateway)
    config = Injection(image=settings.collector_image, mode=settings.collector_mode, identity=settings.pod_identity)
    made = rendered(launch, database_id="DATABASE", config=config, features=Features(server_version=ASSUMED_SERVER))
    session.say(f"{made.mode}: {made.reason}")
    for sentence in made.warnings:
        session.say(f"warning: {sentence}")
    session.say(f"No cluster was asked: Kubernetes {'.'.join(map(str, ASSUMED_SERVER))} or newer is assumed.")
    if settings.ingest_url is None:
        session.say(f"EVERTUNE_INGEST_URL is not set: {ASSUMED_GATEWAY} stands for the address that pods report to.")
    return made.manifest


def any_parameters(experiment: spec.Experiment) -> dict[str, Value]:
    """Values that a trial may have, chosen without asking the algorithm: the lowest or the first of each."""
    template = experiment.spec.trial_template if experiment.spec else None
    values: dict[str, Value] = {
        parameter.name: parameter.values[0] if parameter.values else parameter.low
        for parameter in spec.to_space(experiment)
    }
    for item in (template and template.trial_parameters) or ():
        reference = item.reference or ""
        if not reference.startswith("${"):
            values.setdefault(reference, "")  # of what an algorithm draws by itself
    return values


def _replicas(session: Session, launch: Launch, attempt: Attempt) -> JsonDict:
    """Each replica of a distributed job, with ports that stand for those which a start would choose."""
    from activities.runners.local.group import commands
    from activities.runners.local.ports import RANGE
    from activities.runners.local.replicas import replicas_of

    job = replicas_of(launch.manifest, launch.primary_container, launch.primary_pod_labels)
    ports = {(replica.role, replica.index): RANGE[number] for number, replica in enumerate(job.members)}
    shown = {name: _shown(command.plan(launch)) for name, command in commands(launch, attempt, job, ports, {}).items()}
    primary = next(replica.name for replica in job.members if replica.primary)
    session.say(f"metrics are read from {primary}; every attempt has free ports of its own, these stand for them")
    return {"primary": primary, "replicas": shown}


def _shown(plan: JsonDict) -> JsonDict:
    """Without what says nothing, and as JSON and YAML know it."""
    said = {key: value for key, value in plan.items() if value not in ("", ())}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}
