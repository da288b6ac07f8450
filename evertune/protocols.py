"""The seams: what evertune asks of an algorithm, a runner and a collector. Implementations live in the five
application packages; third parties implement `Algorithm` (entry point `evertune.algorithms`) or `EarlyStopper`
(`evertune.stoppers`).

Each protocol has a contract suite in `evertune.testing` that every implementation passes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from evertune.domain.metrics import CollectorSpec as CollectorSpec
from evertune.domain.metrics import Objective, Point
from evertune.domain.space import SearchProblem as SearchProblem
from evertune.domain.space import Value
from evertune.domain.stopping import Peers, Prefix, Ruling
from evertune.domain.trial import Assignment, AttemptEnd, AttemptRef, HistoryTrial
from evertune.errors import Problem

JsonDict = dict[str, Any]


# --------------------------------------------------------------------------------------------- algorithms


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The reply to an ask. Fewer than k assignments, none with `wait`, and `exhausted` are all legal.

    `wait`: nothing more until another trial ends. `exhausted`: nothing ever again. `state`: JSON for the next ask.
    """

    assignments: tuple[Assignment, ...] = ()
    state: JsonDict | None = None
    wait: bool = False
    exhausted: bool = False
    reason: str = ""


class Feature(StrEnum):
    """What a spec may ask of an algorithm beyond parameters and one objective, by the name of its field."""

    OBJECTIVES = "objectives"  # several: `HistoryTrial.values`
    CONSTRAINTS = "constraints"  # on metrics: `HistoryTrial.violations`
    PARAMETER_CONSTRAINTS = "parameterConstraints"  # its assignments satisfy them, or may be refused one by one
    WHEN = "when"  # conditional parameters, searched as such and not as a flat space
    INITIAL_TRIALS = "initialTrials"
    WARM_START = "warmStart"  # learns from trials below number 0
    ON_DUPLICATE = "onDuplicate"
    ON_FAILURE = "onFailure"
    EARLY_STOPPING = "earlyStopping"  # learns from what stopped trials had reached
    NAS_CONFIG = "nasConfig"


# What evertune does around any algorithm, and what needs nothing of it; the second of those that read the history.
STEERED = frozenset(
    {
        Feature.PARAMETER_CONSTRAINTS,
        Feature.WHEN,
        Feature.INITIAL_TRIALS,
        Feature.ON_DUPLICATE,
        Feature.ON_FAILURE,
        Feature.EARLY_STOPPING,
    }
)
LEARNED = STEERED | {Feature.WARM_START}
# Of those that never hear how trials ended: whatever these are judged by.
BLIND = STEERED | {Feature.OBJECTIVES, Feature.CONSTRAINTS}


class Algorithm(Protocol):
    """A search algorithm as a pure function of (problem, history, state): no global state, rebuildable anywhere.

    It may have, besides, what a user should know of an experiment that nothing is wrong with, as that its model will
    never be used. Asked only when `check` found nothing; given with the same paths, and shown, but nothing is refused:

        @classmethod
        def warnings(cls, problem: SearchProblem) -> Sequence[Problem]: ...
    """

    name: ClassVar[str]
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]]
    reads_history: ClassVar[bool]  # False: the answer depends on trial numbers and seed alone (random, grid)
    # What works with it, by itself or because evertune does it around it; the rest is refused by name. Without such an
    # attribute that is `BLIND`, or `LEARNED`. What it wants to do itself it names in `handles`, if anything.
    supports: ClassVar[frozenset[Feature]]

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        """All problems of settings and space, with paths below `spec.algorithm` or `spec.parameters[i]`."""
        ...

    def __init__(self, problem: SearchProblem) -> None: ...

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        """At most k assignments for trials `first_number…first_number + k - 1`.

        `history` holds every trial with number < first_number, ordered by number; those not told are RUNNING.
        `state` is the one returned by the previous committed ask, None for the first.
        Raises AlgorithmError when it cannot continue; the experiment then fails with that message.
        """
        ...


class AlgorithmCatalog(Protocol):
    """What spec validation asks of the registry; `evertune.spec` must not import `algorithms`."""

    def names(self) -> Sequence[str]:
        """All names that a spec may use."""
        ...

    def check(self, name: str, problem: SearchProblem) -> Sequence[Problem]: ...

    def settings(self, name: str) -> Collection[str]: ...

    def handed_out(self, name: str, problem: SearchProblem) -> Sequence[str] | None: ...

    def warnings(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        """What to mind of an experiment that `check` has found nothing wrong with."""
        ...

    def stoppers(self) -> Sequence[str]:
        """The names of all rules that stop trials early."""
        ...

    def check_stopper(self, name: str, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]: ...

    def stopper_warnings(
        self, name: str, settings: Mapping[str, str], objective: Objective, problem: SearchProblem
    ) -> Sequence[Problem]: ...


class EarlyStopper(Protocol):
    """A rule that stops trials early. Pure: what it may remember of an attempt is handed to it and back.

    Registered under the entry point `evertune.stoppers`; made once per experiment and asked from several threads.

    It may have, besides, what a user should know of settings that nothing is wrong with, as `Algorithm` may; `problem`
    is what the algorithm of the experiment is told:

        @classmethod
        def warnings(
            cls, settings: Mapping[str, str], objective: Objective, problem: SearchProblem
        ) -> Sequence[Problem]: ...
    """

    name: ClassVar[str]
    about: ClassVar[str]  # what it is and when to take it, one sentence
    peers: ClassVar[
        Literal["none", "succeeded", "all"]
    ]  # whose marks it compares with; "all": those of running ones too

    @classmethod
    def check(cls, settings: Mapping[str, str], objective: Objective) -> Sequence[Problem]:
        """All problems of the settings, with paths below `spec.earlyStopping`."""
        ...

    def __init__(self, settings: Mapping[str, str], objective: Objective) -> None: ...

    @property
    def metrics(self) -> Sequence[str]:
        """Whose values it is asked about. Marks are made of the objective alone."""
        ...

    @property
    def silent_s(self) -> float | None:
        """Seconds without any report after which a trial is stopped; None for rules that time is nothing to."""
        ...

    def mark(self, prefix: Prefix, *, last: bool) -> tuple[int, float] | None:
        """What others compare with: (step, value); None where there is nothing to keep.

        Asked for every value of the objective, the very last one of a trial that has ended with `last`. A step is
        marked once.
        """
        ...

    def judge(self, prefix: Prefix, peers: Peers, memory: JsonDict) -> Ruling:
        """Whether an attempt that has just reported the last value of `prefix` goes on.

        `peers`: what others have marked at that step; to ask it costs a query. `memory`: of the last ruling about this
        attempt, empty at first.
        """
        ...


# ------------------------------------------------------------------------------------------------- runners


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where a trial keeps its checkpoint and where it goes on from, as its program sees both.

    A trial writes into its own directory only, and all its attempts have the same one. `parent` is for reading: it is
    another trial's own. With `inherit` the own one begins as a copy of it, and is also found at `path`.
    """

    own: str | None = None  # None: a place of the runner's own choice
    parent: str | None = None
    inherit: bool = False
    path: str | None = None  # in the container
    claim: str | None = None  # cluster only: the PersistentVolumeClaim that holds all of them ...
    below: tuple[str, str | None] = ("", None)  # ... and the directories in it that become `own` and `parent`


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An attempt ready to start: the rendered trial manifest and the context it runs in."""

    ref: AttemptRef
    manifest: JsonDict  # trialSpec after substitution, with metadata.name and namespace
    primary_container: str
    working_dir: str  # absolute; the submitter's directory unless the experiment says otherwise
    environment: Mapping[str, str] = field(default_factory=dict)  # recorded at admission: PATH, VIRTUAL_ENV, …
    image_roots: Mapping[str, str] = field(default_factory=dict)  # image name (with or without tag) -> directory
    deadline_s: float | None = None  # trialDeadline; the Job's activeDeadlineSeconds applies as well
    shared_paths: tuple[str, ...] = ()  # absolute paths private to an attempt (collector path, emptyDir mounts)
    parameters: Mapping[str, Value] = field(default_factory=dict)  # of the trial, for EVERTUNE_PARAMETERS
    ingest_url: str | None = None  # the gateway's base URL, as seen from the trial
    custom_collector: JsonDict | None = None  # the user's own collector, a container, for kind Custom
    token: str | None = None  # this attempt's key to the gateway; goes into the environment and nowhere else
    checkpoints: Checkpoints = Checkpoints()

    # What only a cluster asks for.
    collector: CollectorSpec | None = None  # what the collector beside the trial looks for; None injects nothing
    cluster: str | None = None  # the context of the cluster; None is the worker's own
    labels: Mapping[str, str] = field(default_factory=dict)  # Katib's, for every pod
    primary_pod_labels: Mapping[str, str] = field(default_factory=dict)
    success_condition: str = ""
    failure_condition: str = ""
    retain: bool = False  # the object stays when the attempt has ended
    memory: MemoryGrowth | None = None  # earlier attempts ended for want of memory

    replicate: Replicate | None = None  # which run of its trial this is, where it runs more than once


@dataclass(frozen=True, slots=True)
class Replicate:
    """A run of a trial with `replicates`: from 0, with a seed of its own, non-negative and below 2**31."""

    index: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGrowth:
    """By how much an attempt's memory requests and limits are multiplied, and what none of them may exceed."""

    factor: float
    maximum: str | None = None  # a Kubernetes quantity


class TrialRunner(Protocol):
    """Starts, watches and stops attempts. Every method is idempotent by `ref`; an attempt is executed at most once."""

    def sidecar(self, launch: Launch) -> bool:
        """Whether a collector beside the trial reports to the gateway; else the worker reads the sources.

        False as well once the attempt has ended without having run.
        """
        ...

    async def create(self, launch: Launch) -> None:
        """Start the attempt, or attach to it. Raises LaunchError when it cannot start as written."""
        ...

    async def wait(self, ref: AttemptRef) -> AttemptEnd:
        """Return when the attempt has ended, and with it a collector of the user's own that ran beside it.

        Cancelling this coroutine never touches the attempt.
        """
        ...

    def phase(self, ref: AttemptRef) -> str:
        """What an attempt that was created waits for, as `Pending: 0/5 nodes are available`; "" once it runs.

        As cheap as a look-up: it is asked twice a second.
        """
        ...

    async def stop(self, ref: AttemptRef, *, reason: str, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. The reason is durable before the first signal. No-op after the end."""
        ...

    async def remove(self, ref: AttemptRef) -> None:
        """Delete what the attempt left behind (not its archived log). A no-op when there is nothing."""
        ...

    async def release(self, ref: AttemptRef) -> None:
        """The end is recorded and all that was reported is here: give back what the attempt holds beyond its log."""
        ...

    async def fetch(self, ref: AttemptRef) -> None:
        """Bring what an ended attempt left behind to where `sources` says. A no-op when it is there."""
        ...

    def log_path(self, ref: AttemptRef) -> Path: ...

    def sources(self, launch: Launch, path: str | None) -> Sources:
        """Where the worker reads what the attempt reports. `path` is the spec's `fileSystemPath`, None without one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """What is known of an attempt for good, whatever becomes of the object that runs it."""

    place: JsonDict | None = None  # where its object was to be made: cluster, namespace, apiVersion, kind, name
    claimed_now: bool = False  # by this very call: nobody has tried to make the object before
    stop: str | None = None  # the first reason for which it was to end
    end: AttemptEnd | None = None


class TemplateSource(Protocol):
    """Reads the trial templates that experiments keep in ConfigMaps of a cluster."""

    async def fetch(self, cluster: str | None, namespace: str, name: str, key: str) -> str:
        """The text behind `key` of a ConfigMap. `cluster`: a context's name; None is the worker's own cluster.

        Raises SpecError when there is no such ConfigMap, key or context, or it may not be read; UnavailableError when
        the cluster does not answer.
        """
        ...


class Ledger(Protocol):
    """Remembers attempts longer than their objects live, for every worker alike. Each method is one transaction.

    The first word stays: a second claim, stop or end changes nothing, and gets what is there.
    """

    def claim(self, ref: AttemptRef, place: JsonDict) -> LedgerEntry:
        """Before the object is made. `claimed_now` only for the first; not claimed after a stop or an end."""
        ...

    def look(self, ref: AttemptRef) -> LedgerEntry: ...

    def stop(self, ref: AttemptRef, reason: str) -> LedgerEntry:
        """Before the object is deleted, and also when there is none: it will then never be made."""
        ...

    def end(self, ref: AttemptRef, end: AttemptEnd) -> LedgerEntry: ...


# ---------------------------------------------------------------------------------------------- collectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """An attempt's places that a collector reads. Files may not be there yet, or never come."""

    log: Path  # standard output and error
    notes: Path  # a directory for the collector's own notes: what was truncated, what was scraped
    path: Path | None = None  # the spec's `fileSystemPath`, where this attempt has it
    reports: Path | None = None  # what `evertune.report` appends to
    printed: Path | None = None  # standard output of a collector of the user's own: JSON report lines in it count
    host: str = "127.0.0.1"  # where the running trial can be scraped
    origin: str = ""  # which of the attempt's pods all this is from, see `domain.metrics.Report`; "" when there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a finished collector knows when the objective is missing."""

    last_lines: tuple[str, ...] = ()  # at most 20
    names_seen: tuple[str, ...] = ()  # metric names that the filters matched, wanted or not; at most 50
    suggested_filter: str = ""  # a filter that would have found the objective in what was read
    warnings: tuple[str, ...] = ()  # what was left out and why, a sentence each


class Collector(Protocol):
    """Turns a growing source into points. `seq` derives from the source, so reading it again gives the same points."""

    def has_more(self) -> bool:
        """Whether `read` may find something: as cheap as a stat, so that it can be asked in an event loop."""
        ...

    def read(self) -> Sequence[Point]:
        """Points that arrived since the last call, or some of them: then `has_more` stays true.

        Calling it again says that the points of the last call are stored; they may not be found again afterwards (a
        file that was rotated away). Never raises for content; I/O errors propagate as OSError. May wait for a few
        seconds (a scrape): call it in a thread.
        """
        ...

    def finish(self) -> Sequence[Point]:
        """What is left, a last line without newline included. Call once, after the source has ended."""
        ...

    def warnings(self) -> Sequence[str]:
        """What was left out so far and why, a sentence each. Cheap: it is asked for every attempt that ends."""
        ...

    def findings(self) -> Findings:
        """What was there instead of the objective. Reads the end of the source again."""
        ...
