"""What the store returns and every face shows: experiments, trials and attempts as they are in the database.

Times are timezone-aware UTC datetimes. Nothing here is lazy: a record is a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from evertune.domain.metrics import Objective
from evertune.domain.space import SearchSpace, Value
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from evertune.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Trials by state. `created` is all of them; `pending` those that no attempt runs yet."""

    created: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    early_stopped: int = 0
    metrics_unavailable: int = 0
    killed: int = 0

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed + self.early_stopped + self.metrics_unavailable + self.killed

    @property
    def charged(self) -> int:
        return self.failed + self.metrics_unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The counts that an edit may change. None: no limit (`parallel` always has a value)."""

    parallel: int = 3
    max_trials: int | None = None
    max_failed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicates:
    """How often one trial runs, and how its values become one. They count to `parallel`, not to `max_trials`."""

    count: int = 1
    aggregate: Literal["mean", "median"] = "mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """Whose finished trials an algorithm knows from the start.

    `experiments` are (namespace, name). `identical`: their problem is this very one; `transfer`: one that is like it.
    """

    experiments: tuple[tuple[str, str], ...]
    mode: Literal["identical", "transfer"] = "identical"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    number: int  # from 0, dense
    name: str  # <experiment>-<8 characters>
    state: TrialState
    reason: str = ""
    message: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)  # per metric by its strategy, as reported text
    objective: str | None = None  # as reported text
    objective_value: float | None = None
    violation: float = 0.0  # by how much outcome constraints are missed together; 0 for a feasible trial
    spread: Mapping[str, float] = field(default_factory=dict)  # per metric, the standard deviation of replicates
    labels: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    told_seq: int | None = None
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def feasible(self) -> bool:
        return self.violation <= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    number: int
    attempt: int  # from 0
    state: AttemptState
    reason: str = ""
    message: str = ""
    failure: FailureClass | None = None
    charged: bool = False
    again: bool = False  # the trial got, or gets, another attempt
    home_id: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    collected: bool = False  # all that it reports is here: its collector said so, or its sources were read to the end
    stop: str = ""  # why it was asked to end
    phase: str = ""  # what it waits for while it runs, as `Pending: 0/5 nodes are available`


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRecord:
    """One metric of one attempt, without its points."""

    attempt: int
    metric: str
    points: int
    min: float | None
    max: float | None
    latest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a `Report`. `state` None: there is no such attempt."""

    state: AttemptState | None = None
    ended: datetime | None = None
    new: int = 0  # points that were not there before
    stop: str = ""  # why the attempt was asked to end, "" while it was not
    late: bool = False  # the trial was judged without what is there now: its verdict is to be revised
    objective: tuple[int, int, str] | None = None  # how many values it has; the last one's seq and text


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    uid: str  # 32 hexadecimal digits
    namespace: str
    name: str
    workflow_id: str
    first_run_id: str = ""  # of the Temporal run chain that claimed the name
    state: ExperimentState
    reason: str = ""
    message: str = ""
    algorithm: str
    settings: Mapping[str, str] = field(default_factory=dict)
    seed: int
    objective: Objective
    space: SearchSpace
    budget: Budget
    backend: str  # local | kubernetes
    home_id: str | None = None
    revision: int = 1
    manifest: Mapping[str, Any]  # the full, defaulted Experiment
    context: Mapping[str, Any] = field(default_factory=dict)  # submitter's working directory, environment, image roots
    counts: Counts = Counts()
    best: TrialRecord | None = None
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is allowed and was to be minded when the manifest was admitted; without lines."""
        return tuple(Problem.of(warning) for warning in self.context.get(WARNINGS, ()))


OTHER_LIBRARIES = "other libraries"  # the action of an audit row: from then on, the search goes on with others
WARNINGS = "warnings"  # in an experiment's context: what was to be minded when it was admitted
CHOSEN = "chosen"  # in an experiment's context: the algorithm that `auto` took, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    at: datetime
    actor: str
    action: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One suggest request: what was asked, the history cut it saw, and whether its answer is committed."""

    request_no: int
    k: int
    revision: int
    cut: int
    first_number: int
    committed: bool = False
    answered: int = 0
    wait: bool = False
    exhausted: bool = False
    reason: str = ""
