"""From a trial's row to something a runner can start: manifest rendered, context and collector at hand.

Experiments are cached by (uid, revision): a manifest is parsed once per worker, not once per trial.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import collectors
import evertune.spec as spec
from activities.checkpoints import checkpoints_of
from activities.replicating import Runs, replicate_of, runs_of
from activities.reusing import source_of
from activities.runners.local import paths
from activities.runners.local.paths import is_named_alone, rewrite_text
from collectors.text import DEFAULT_FILTER
from evertune.domain.metrics import CollectorSpec, Objective
from evertune.domain.records import ExperimentRecord, Replicates, TrialRecord
from evertune.domain.retry import MemoryPolicy
from evertune.domain.states import FailureClass
from evertune.domain.trial import AttemptRef
from evertune.protocols import Collector, JsonDict, Launch, MemoryGrowth, Sources
from evertune.spec.kinds import containers_of, pod_templates
from evertune.spec.model import TrialTemplate
from evertune.spec.template import unfilled
from evertune.store import Store
from evertune.tokens import Claims, TokenKeys

CACHED_EXPERIMENTS = 64
# How Katib's example trainers write a metric; its file example has a filter for it, its Custom example has none.
KATIB_PAIR = r"\{metricName: ([\w|-]+), metricValue: ([+-]?\d*(?:\.\d+)?(?:[Ee][+-]?\d+)?)\}"


@dataclass(frozen=True)
class Plan:
    experiment: str  # namespace/name, for logs
    launch: Launch
    objective: Objective
    wanted: CollectorSpec
    on_oom: MemoryPolicy | None = None
    memory_retries: int = 0  # earlier attempts of the trial that ended for want of memory
    runs: Runs | None = None  # of a trial with replicates
    reuse: int | None = None  # the trial whose outcome is this one's

    def collector(self, sources: Sources) -> Collector:
        return collectors.create(self.wanted, sources)


@dataclass(frozen=True)
class _Prepared:
    """What all trials of an experiment share."""

    record: ExperimentRecord
    experiment: spec.Experiment
    replicates: Replicates
    templates: spec.Templates
    collector: CollectorSpec
    primary_container: str
    primary_pod_labels: Mapping[str, str]
    working_dir: str  # absolute, or below the submitter's
    shared_paths: tuple[str, ...]
    custom_collector: JsonDict | None


@dataclass(frozen=True)
class Reporting:
    """Where attempts may report over the network, and what signs their right to."""

    url: str
    keys: TokenKeys


class LaunchPlans:
    """`reporting`: None when there is no gateway, or when nothing is started from these plans."""

    def __init__(self, store: Store, reporting: Reporting | None = None, *, trials_dir: Path | None = None) -> None:
        """`trials_dir`: where local trials keep checkpoints; None when nothing is started from these plans."""
        self._store = store
        self._trials_dir = trials_dir
        self._reporting = reporting
        self._prepared = functools.lru_cache(maxsize=CACHED_EXPERIMENTS)(self._prepare)
        # Asked for every verdict that is revised, also where nothing is ever launched.
        self._replicates = functools.lru_cache(maxsize=CACHED_EXPERIMENTS)(self._read_replicates)

    def of(self, uid: str, number: int, attempt: int, *, trial: TrialRecord | None = None) -> Plan:
        """Everything needed to start attempt `attempt` of trial `number`. Raises NotFoundError, SpecError.

        `trial`: its row, where the caller has just read it.
        """
        prepared = self._prepared(uid)
        record = prepared.record
        trial = trial or self._store.trial(uid, number)
        context: Mapping[str, Any] = record.context
        ref = AttemptRef(experiment_uid=uid, number=number, attempt=attempt, trial_name=trial.name)
        run = replicate_of(self._store, ref, prepared.replicates, record.seed)
        begun = run.index if run else 0
        kept = checkpoints_of(record, prepared.experiment, number, trial.labels, self._trials_dir, replicate=begun)
        manifest = spec.render_trial(
            prepared.experiment,
            trial_name=trial.name,
            namespace=record.namespace,
            parameters=trial.parameters,
            templates=prepared.templates,
            checkpoint_dir=kept.own or "",
            parent_checkpoint_dir=kept.parent or "",
        )
        if record.backend == "local" and kept.path is not None and kept.own is not None:
            manifest = paths.moved(manifest, {kept.path: kept.own})
        on_oom = memory_policy(prepared.experiment, manifest)
        memory_retries = self._memory_retries(uid, number, attempt) if on_oom is not None else 0
        gateway = self._reporting
        launch = Launch(
            ref=ref,
            manifest=manifest,
            primary_container=prepared.primary_container,
            primary_pod_labels=prepared.primary_pod_labels,
            working_dir=str(Path(context.get("working_dir") or Path.home()) / prepared.working_dir),
            environment=context.get("environment") or {},
            image_roots=context.get("image_roots") or {},
            deadline_s=spec.trial_deadline_of(prepared.experiment),
            shared_paths=prepared.shared_paths,
            custom_collector=prepared.custom_collector,
            parameters=record.space.typed(trial.parameters),
            ingest_url=gateway.url if gateway else None,
            checkpoints=kept,
            token=gateway.keys.mint(Claims(uid, number, attempt, trial.name)) if gateway else None,
            memory=memory_growth(prepared.experiment, memory_retries),
            replicate=run,
            **_in_a_cluster(prepared, trial),
        )
        return Plan(
            experiment=f"{record.namespace}/{record.name}",
            launch=launch,
            objective=record.objective,
            wanted=prepared.collector,
            on_oom=on_oom,
            memory_retries=memory_retries,
            runs=runs_of(self._store, ref, record.objective, prepared.replicates),
            reuse=source_of(trial),
        )

    def replicates(self, uid: str) -> Replicates:
        """How often each trial of this experiment runs. Raises NotFoundError, SpecError."""
        return self._replicates(uid)

    def _read_replicates(self, uid: str) -> Replicates:
        return spec.replicates_of(spec.load_stored(self._store.experiment_by_uid(uid).manifest))

    def _memory_retries(self, uid: str, number: int, attempt: int) -> int:
        """How many attempts before this one ran out of memory: each of them had its successor given more."""
        if not attempt:
            return 0
        attempts = self._store.attempts(uid, number)
        return sum(earlier.attempt < attempt and earlier.failure is FailureClass.OUT_OF_MEMORY for earlier in attempts)

    def ref(self, uid: str, number: int, attempt: int) -> AttemptRef:
        return AttemptRef(uid, number, attempt, self._store.trial(uid, number).name)

    def reported_file(self, uid: str, attempt: Path) -> Path | None:
        """The file that the collector of this experiment reads, where the attempt in that directory has it."""
        prepared = self._prepared(uid)
        path = prepared.collector.path
        return None if path is None else Path(rewrite_text(path, prepared.shared_paths, attempt / "files"))

    def _prepare(self, uid: str) -> _Prepared:
        record = self._store.experiment_by_uid(uid)
        experiment = spec.load_stored(record.manifest)
        templates = spec.stored_templates(record.context)
        return _Prepared(
            record=record,
            experiment=experiment,
            replicates=spec.replicates_of(experiment),
            templates=templates,
            collector=collected(experiment),
            primary_container=primary_container(experiment),
            primary_pod_labels=primary_pod_labels(experiment),
            working_dir=spec.working_dir_of(experiment) or "",
            shared_paths=shared_paths(experiment, templates),
            custom_collector=spec.custom_collector(experiment),
        )


def _in_a_cluster(prepared: _Prepared, trial: TrialRecord) -> dict[str, Any]:
    """What only a cluster asks for, as fields of `Launch`; local launches do without."""
    if prepared.record.backend == "local":
        return {}
    experiment = prepared.experiment
    template = (experiment.spec and experiment.spec.trial_template) or TrialTemplate()
    return {
        "collector": prepared.collector if prepared.collector.kind != "None" else None,
        "cluster": spec.cluster_of(experiment),
        "labels": spec.pod_labels(experiment, trial.name, trial.labels),
        "success_condition": template.success_condition or "",
        "failure_condition": template.failure_condition or "",
        "retain": bool(template.retain),
    }


def memory_policy(experiment: spec.Experiment, manifest: JsonDict) -> MemoryPolicy | None:
    """What follows when an attempt of this trial runs out of memory; None when the experiment says nothing."""
    growth = spec.memory_growth_of(experiment)
    if growth is None:
        return None
    factor, maximum = growth
    memory = spec.memory_of(manifest, primary_container(experiment))
    return MemoryPolicy(factor, memory, None if maximum is None else spec.parse_quantity(maximum))


def memory_growth(experiment: spec.Experiment, retries: int) -> MemoryGrowth | None:
    """By how much an attempt after so many that ran out of memory has more; None for the first."""
    growth = spec.memory_growth_of(experiment)
    return None if growth is None or not retries else MemoryGrowth(factor=growth[0] ** retries, maximum=growth[1])


def primary_container(experiment: spec.Experiment) -> str:
    template = experiment.spec.trial_template if experiment.spec else None
    return (template and template.primary_container_name) or ""


def primary_pod_labels(experiment: spec.Experiment) -> Mapping[str, str]:
    template = experiment.spec.trial_template if experiment.spec else None
    return (template and template.primary_pod_labels) or {}


def collected(experiment: spec.Experiment) -> CollectorSpec:
    """What to look for. For kind Custom it counts where the user's own collector cannot run on this machine."""
    wanted = spec.collector_spec(experiment)
    if wanted.kind != "Custom" or wanted.filters:
        return wanted
    return dataclasses.replace(wanted, filters=(DEFAULT_FILTER, KATIB_PAIR))


def shared_paths(experiment: spec.Experiment, templates: spec.Templates | None = None) -> tuple[str, ...]:
    """Absolute paths that Katib gives each pod for itself: the collector's, and emptyDir mounts."""
    wanted = spec.collector_spec(experiment)
    found = []
    if wanted.path and wanted.path.startswith("/"):
        is_directory = wanted.kind == "TensorFlowEvent" or wanted.path_kind == "Directory"
        found.append(wanted.path if is_directory else str(PurePosixPath(wanted.path).parent))
    template = (experiment.spec and experiment.spec.trial_template) or TrialTemplate()
    pods = [pod for _, _, pod in pod_templates(unfilled(template, templates) or {})]
    containers = [container for pod in pods for _, container in containers_of(pod)]
    found += [above for path in found for above in _named_above(path, containers)]
    for pod in pods:
        volumes = [volume.get("name") for volume in _tables(pod.get("spec"), "volumes") if "emptyDir" in volume]
        for _, container in containers_of(pod):
            mounts = [mount for mount in _tables(container, "volumeMounts") if mount.get("name") in volumes]
            found += [mount["mountPath"] for mount in mounts if isinstance(mount.get("mountPath"), str)]
    return tuple(dict.fromkeys(path for path in found if path not in ("", "/")))


def _tables(value: Any, key: str) -> list[JsonDict]:
    """The mappings in a list; kinds other than Job may have anything there."""
    items = value.get(key) if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _named_above(path: str, containers: Sequence[JsonDict]) -> list[str]:
    """Directories above the collector's that the program itself is given: `--log-path=/logs` for a path of /logs/test.

    Not those below which the program is given something else: `/opt` holds `/opt/train.py` as well.
    """
    texts = [
        text
        for container in containers
        for text in (
            *_items(container, "command"),
            *_items(container, "args"),
            *(variable.get("value") for variable in _tables(container, "env")),
        )
        if isinstance(text, str)
    ]
    return [str(above) for above in PurePosixPath(path).parents[:-1] if is_named_alone(str(above), path, texts)]


def _items(container: JsonDict, key: str) -> list[Any]:
    items = container.get(key)
    return items if isinstance(items, list) else []
