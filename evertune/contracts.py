"""What crosses Temporal: names of workflow, signals, updates, queries, activities and queues, and their payloads.

Clients, workflows and activities all speak these; nobody else builds a workflow id or a queue name. Payload models
grow by fields with defaults only: histories recorded by an older evertune must still decode.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState

WORKFLOW_TYPE = "Experiment"

QUEUE = "evertune"  # workflows and short activities
SUGGEST_QUEUE = "evertune-suggest"  # asks: CPU-bound, in a process of their own
CLUSTER_QUEUE = "evertune-run"  # trials in a cluster: any worker can attach to them


def run_queue(home_id: str) -> str:
    """Local trials: only the host that runs a trial can attach to it."""
    return f"evertune-run-{home_id}"


def workflow_id(namespace: str, name: str) -> str:
    """The id our client starts with. Find a running experiment through its database row, never by this."""
    return f"experiment/{namespace}/{name}"


SIGNAL_OBSERVE = "observe"
QUERY_STATUS = "status"
QUERY_TRIAL = "trial"
UPDATE_EDIT = "edit"
UPDATE_PAUSE = "pause"
UPDATE_RESUME = "resume"
UPDATE_STOP = "stop"
UPDATE_CANCEL = "cancel"
UPDATE_STOP_TRIAL = "stop_trial"
UPDATE_REPARSE = "reparse"

MEMO_CONTEXT = "evertune"  # StartContext of the submitter

ACTIVITY_ADMIT = "admit"
ACTIVITY_SUGGEST = "suggest"
ACTIVITY_RUN_TRIAL = "run_trial"
ACTIVITY_STOP_TRIAL = "stop_trial"
ACTIVITY_CLOSE_TRIAL = "close_trial"
ACTIVITY_RECORD = "record"
ACTIVITY_REVISE = "revise"

SEARCH_ATTRIBUTES = {  # name -> Temporal's type name
    "EvertuneState": "Keyword",
    "EvertuneAlgorithm": "Keyword",
    "EvertuneBest": "Double",
    "EvertuneFinished": "Int",
}


# What a person, or a stranger's client, may write; it travels through histories and states, where space is dear.
Words = Annotated[str, AfterValidator(lambda text: text[:500])]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]  # every database's integer


class Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TemplateText(Payload):
    """A trial template in a ConfigMap, as it was when the experiment started: later changes do not matter."""

    namespace: str
    name: str
    key: str
    text: str


class StartContext(Payload):
    """Where and as whom local trials run; recorded by the submitter, absent when Temporal's own CLI starts us."""

    working_dir: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    image_roots: dict[str, str] = Field(default_factory=dict)
    home_id: str | None = None  # whose host runs the trials; None: the home of the worker that admits
    backend: Literal["local", "kubernetes"] | None = None
    actor: str = ""
    database_id: str | None = None  # the submitter's: a worker with another database refuses
    templates: list[TemplateText] = Field(default_factory=list)  # those that stood in the file beside the experiment
    origin: dict[str, Any] = Field(default_factory=dict)  # what the operator knows its object's experiment by


class Limits(Payload):
    """The decision fields of the spec; the rest of it stays in the database."""

    parallel: int
    max_trials: int | None = None
    max_failed: int | None = None
    goal: float | None = None
    maximize: bool = False
    metric: str = ""
    on_completion: Literal["cancel", "drain"] = "cancel"
    deadline: float | None = None  # epoch seconds
    revision: int = 1


class Best(Payload):
    number: int
    value: float | None = None  # None: a text objective, the last one told wins
    text: str = ""
    told_seq: int = 0
    shortfall: float = 0.0  # `labels.shortfall`: only without one it can reach the goal
    violation: float = 0.0  # of outcome constraints; above 0 no trial is feasible yet


class InFlight(Payload):
    """A trial that runs or waits for its next attempt. Must stay below 300 bytes as JSON."""

    number: int
    attempt: int = 0
    signal_retries: int = 0
    infrastructure_retries: int = 0
    label: str = ""  # shown in Temporal's timeline: "lr=0.01 layers=3", at most 60 characters
    stop: str = ""  # reason, once a stop was decided
    parked: bool = False  # stopped by `pause --now`: the next attempt waits for resume
    seq: int = -1
    step: int | None = None
    value: str | None = None


class Admitted(Payload):
    """What `admit` tells the workflow."""

    uid: str
    database_id: str
    namespace: str
    name: str
    algorithm: str
    backend: str
    queue: str  # where run_trial goes
    search_attributes: bool = False  # registered on this Temporal namespace
    heartbeat_s: float = 60.0  # run_trial's heartbeat timeout
    limits: Limits
    state: ExperimentState = ExperimentState.CREATED
    request_no: int = 0
    created: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    best: Best | None = None
    in_flight: list[InFlight] = Field(default_factory=list)


class ReopenCommand(Payload):
    """`{"reopen": {"uid": …, "command": …}}` as workflow input: go on after the end."""

    uid: str
    command: Literal["extend", "resume"] = "extend"
    parallel: int | None = None
    max_trials: int | None = None
    max_failed: int | None = None
    goal: float | None = None
    actor: str = ""
    force: bool = False
    database_id: str | None = None  # the sender's: a worker with another database refuses


class RawInput(Payload):
    """One workflow argument as it came: its payload encoding and its bytes in base64."""

    encoding: str
    data: str


class AdmitRequest(Payload):
    """The raw workflow input, undecoded, and who asks. `context` is the memo's StartContext, undecoded too."""

    inputs: list[RawInput]
    context: dict[str, Any] | None = None
    workflow_id: str
    run_id: str
    first_run_id: str


class SuggestRequest(Payload):
    uid: str
    database_id: str
    request_no: int
    k: int
    revision: int = 1


class SuggestedTrial(Payload):
    number: int
    label: str = ""


class Suggested(Payload):
    trials: list[SuggestedTrial] = Field(default_factory=list)
    wait: bool = False
    exhausted: bool = False
    reason: str = ""


class RunTrialRequest(Payload):
    uid: str
    database_id: str
    number: int
    attempt: int
    signal_retries: int = 0
    infrastructure_retries: int = 0


class TrialOutcome(Payload):
    """The end of one attempt. `again`: the trial gets another attempt (decided by `domain.retry`, recorded already)."""

    number: int
    attempt: int
    state: AttemptState
    trial_state: TrialState | None = None  # None while `again`
    again: bool = False
    reason: str = ""
    message: str = ""
    failure: FailureClass | None = None
    objective: str | None = None
    value: float | None = None
    told_seq: int = 0
    shortfall: float = 0.0  # `labels.shortfall`
    violation: float = 0.0  # `Objective.violation`


class StopTrialRequest(Payload):
    """`attempts`: the attempt of each trial, by its number. One that has not begun yet then never will."""

    uid: str
    database_id: str
    attempts: dict[int, int]
    reason: str
    grace_s: float = 10.0


class CloseTrialRequest(Payload):
    """Record the end of a trial that gets no further attempt although its last one asked for it."""

    uid: str
    database_id: str
    number: int
    state: TrialState
    reason: str
    message: str = ""


class Rereading(Payload):
    """Read the kept logs of finished trials again, by other rules. What is None stays as the experiment has it."""

    filters: list[str] | None = None
    metric: Words | None = None  # take what is called this for the objective
    trials: list[int] | None = None  # None: every finished one


class ReviseRequest(Payload):
    """Judge finished trials anew. Idempotent: a verdict that stands is left alone, and the answer is how things are."""

    uid: str
    database_id: str
    trials: list[int] | None = None  # None: every finished one
    rereading: Rereading | None = None  # None: judge by the points that are there
    below: int  # only trials with a smaller number
    without: list[int] = Field(default_factory=list)  # trials whose end the workflow does not know yet


class Revised(Payload):
    """`counts` and `best` after it: the counts of finished trials with a number below `below`, less `without`."""

    changed: list[int] = Field(default_factory=list)  # at most 100 of them
    total: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    best: Best | None = None


class RecordRequest(Payload):
    """A change of the experiment's own state, with its audit row. Idempotent by `key`."""

    uid: str
    database_id: str
    key: str
    state: ExperimentState
    reason: str = ""
    message: str = ""
    limits: Limits | None = None
    actor: str = ""
    action: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)


class Observation(Payload):
    number: int
    attempt: int = 0
    seq: int
    step: int | None = None
    value: Words | None = None
    final: bool = False
    late: bool = False  # it gives an objective to a trial that ended without one: the verdict is to be revised
    stop: Words = ""


class ObserveSignal(Payload):
    """Coalesced: at most one per experiment and second, only the trials that changed."""

    observations: list[Observation]


class EditRequest(Payload):
    model_config = ConfigDict(extra="forbid", frozen=True)

    parallel: int | None = Field(default=None, ge=1, le=1000)
    max_trials: Count | None = Field(default=None, ge=1)
    max_failed: Count | None = None
    goal: float | None = Field(default=None, allow_inf_nan=False)
    actor: Words = ""


class PauseRequest(Payload):
    now: bool = False  # stop running trials too, uncharged; resume re-runs them as new attempts
    actor: Words = ""


class VerbRequest(Payload):
    """resume, stop (drain) and cancel (now)."""

    reason: Words = ""
    actor: Words = ""


class StopTrialUpdate(Payload):
    number: int
    reason: Words = "stopped by a person"
    actor: Words = ""


class ReparseUpdate(Payload):
    rereading: Rereading = Rereading()
    actor: Words = ""


class TrialStatus(Payload):
    number: int
    attempt: int
    label: str = ""
    step: int | None = None
    value: str | None = None
    stop: str = ""


class Status(Payload):
    """Answer of the `status` query and of every update; lists of finished trials come from the database."""

    uid: str
    namespace: str
    name: str
    state: ExperimentState
    reason: str = ""
    created: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    best: Best | None = None
    limits: Limits
    in_flight: list[TrialStatus] = Field(default_factory=list)
    bad_signals: int = 0
    runs: int = 1
