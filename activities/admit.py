"""`admit`: decode whatever a workflow was started with, check it, and claim the experiment's name.

The only way in. All problems are reported at once and nothing is stored of a bad manifest. Idempotent by the run
chain that asks, so a retry, a reset or a worker's death after the commit gets the same answer, rebuilt from the rows.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import ValidationError
from pydantic_core import from_json
from temporalio import activity

import evertune.contracts as c
import evertune.spec as spec
from activities.database import check_database
from activities.errors import translated
from algorithms.registry import Registry
from evertune.domain.metrics import ObjectiveType
from evertune.domain.records import Budget, ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import ConflictError, Problem, SpecError, UsageError
from evertune.store import NewExperiment, Store

LOCAL_HEARTBEAT_S = 5.0  # a dead worker is noticed within ten seconds
HEARTBEAT_PER_TRIAL_S = 0.25  # beyond 20 parallel trials: at most 5 heartbeats a second reach the server


@dataclass
class AdmitActivities:
    store: Store
    home_id: str
    default_backend: Literal["local", "kubernetes"]
    search_attributes: bool
    temporal_id: str  # which Temporal runs the workflow; the reconciler asks no other

    @activity.defn(name=c.ACTIVITY_ADMIT)
    @translated
    async def admit(self, request: c.AdmitRequest) -> c.Admitted:
        return await asyncio.to_thread(self._admit, request)

    def _admit(self, request: c.AdmitRequest) -> c.Admitted:
        document = _decode(request.inputs)
        if set(document) == {"reopen"}:
            return self._reopen(document["reopen"], request)
        context = _context(request.context)
        if context.database_id is not None:
            check_database(self.store, context.database_id)
        catalog = Registry()
        experiment = spec.load_experiment(document, catalog=catalog)
        backend = spec.backend_of(experiment) or context.backend or self.default_backend
        if problems := spec.unsupported_here(experiment, backend, catalog):
            raise SpecError.of(problems)
        explicit_never = (document.get("spec") or {}).get("resumePolicy") == "Never"
        record = self.store.claim_experiment(self._new(experiment, backend, context, request, explicit_never))
        return self._answer(record, experiment)

    def _new(
        self,
        experiment: spec.Experiment,
        backend: str,
        context: c.StartContext,
        request: c.AdmitRequest,
        explicit_never: bool,
    ) -> NewExperiment:
        seed = spec.seed_of(experiment)
        return NewExperiment(
            uid=uuid.uuid4().hex,
            namespace=experiment.namespace,
            name=experiment.name,
            workflow_id=request.workflow_id,
            first_run_id=request.first_run_id,
            manifest=experiment.model_dump(mode="json", by_alias=True, exclude_none=True),
            # Katib's default is Never as well, but only a Never that somebody wrote down means it.
            context={**context.model_dump(mode="json"), "resume_never": explicit_never, "temporal": self.temporal_id},
            algorithm=spec.algorithm_of(experiment),
            settings=spec.settings_of(experiment),
            seed=secrets.randbelow(2**31) if seed is None else seed,
            objective=spec.to_objective(experiment),
            space=spec.to_space(experiment),
            budget=spec.to_budget(experiment),
            backend=backend,
            home_id=(context.home_id or self.home_id) if backend == "local" else None,
            created=datetime.now(UTC),
        )

    def _reopen(self, command_data: Any, request: c.AdmitRequest) -> c.Admitted:
        try:
            command = c.ReopenCommand.model_validate(command_data)
        except ValidationError as error:
            raise UsageError(f"the reopen command must be {{uid, command}}: {error.errors()[0]['msg']}") from error
        if command.database_id is not None:
            check_database(self.store, command.database_id)
        record = self.store.experiment_by_uid(command.uid)
        if record.workflow_id != request.workflow_id:
            raise ConflictError(
                f"experiment {record.name} belongs to workflow {record.workflow_id}; reopen it under that id"
            )
        if record.first_run_id != request.first_run_id:  # else it was reopened by an earlier try, or by what was reset
            if not record.state.terminal:
                raise ConflictError(
                    f"experiment {record.name} is {record.state}; only a finished one can be reopened",
                    hint=f"evertune get {record.name}",
                )
            self.store.reopen(
                record.uid,
                key=f"reopen-{request.first_run_id}",
                first_run_id=request.first_run_id,
                budget=_reopened_budget(record, command),
                goal=command.goal,
                actor=command.actor,
                action=command.command,
                at=datetime.now(UTC),
            )
            record = self.store.experiment_by_uid(record.uid)
        answer = self._answer(record, spec.load_experiment(dict(record.manifest)))
        return answer.model_copy(update={"limits": _reopened_limits(answer, record, command)})

    def _answer(self, record: ExperimentRecord, experiment: spec.Experiment) -> c.Admitted:
        """Rebuilt from the rows, so that a reset or reopened run goes on where the database is."""
        open_trials = self.store.trials(record.uid, states={TrialState.CREATED, TrialState.RUNNING})
        best = record.best
        deadline_s = spec.deadline_of(experiment)
        requests = self.store.requests(record.uid)
        return c.Admitted(
            uid=record.uid,
            database_id=self.store.database_id,
            namespace=record.namespace,
            name=record.name,
            algorithm=record.algorithm,
            backend=record.backend,
            queue=c.run_queue(record.home_id or self.home_id) if record.backend == "local" else c.QUEUE,
            search_attributes=self.search_attributes,
            heartbeat_s=max(LOCAL_HEARTBEAT_S, HEARTBEAT_PER_TRIAL_S * record.budget.parallel),
            limits=c.Limits(
                parallel=record.budget.parallel,
                max_trials=record.budget.max_trials,
                max_failed=record.budget.max_failed,
                goal=record.objective.goal,
                maximize=record.objective.type is ObjectiveType.MAXIMIZE,
                metric=record.objective.metric,
                on_completion=cast(Literal["cancel", "drain"], spec.on_completion_of(experiment)),
                deadline=None if deadline_s is None else record.created.timestamp() + deadline_s,
                revision=record.revision,
            ),
            state=ExperimentState.CREATED,
            # An uncommitted request is asked again under the same number; it keeps its cut.
            request_no=max((request.request_no for request in requests if request.committed), default=0),
            created=record.counts.created,
            counts=_counts(record),
            best=None
            if best is None
            else c.Best(
                number=best.number, value=best.objective_value, text=best.objective or "", told_seq=best.told_seq or 0
            ),
            in_flight=[c.InFlight(number=trial.number, attempt=max(trial.attempts - 1, 0)) for trial in open_trials],
        )


def _decode(inputs: list[c.RawInput]) -> dict[str, Any]:
    """The one argument as a JSON object. Raises SpecError that says what was given instead."""
    wanted = (
        "start the workflow with one argument, the Experiment: temporal workflow start --input-file experiment.json"
    )
    if not inputs:
        raise _unreadable("no input was given", wanted)
    if len(inputs) > 1:
        raise _unreadable(f"one input is wanted, but got {len(inputs)}", wanted)
    if not inputs[0].encoding.startswith("json/"):
        raise _unreadable(f"JSON is wanted, but the input is {inputs[0].encoding or 'unlabelled bytes'}", wanted)
    try:
        # Not json.loads: that takes half of a surrogate pair, which nothing can store, nor even complain about.
        document = from_json(base64.b64decode(inputs[0].data))
    except ValueError as error:
        raise _unreadable(f"the input cannot be read as JSON: {error}", wanted) from error
    if not isinstance(document, dict):
        kind = _KINDS.get(type(document), "a number")
        raise _unreadable(f"an Experiment is wanted, but the input is {kind}", wanted)
    return document


_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _unreadable(message: str, hint: str) -> SpecError:
    return SpecError.of([Problem(path="input", type="Parse", message=message, hint=hint)])


def _context(data: dict[str, Any] | None) -> c.StartContext:
    try:
        return c.StartContext.model_validate(data or {})
    except ValidationError as error:
        raise UsageError(f"the memo's context cannot be read: {error.errors()[0]['msg']}") from error


def _counts(record: ExperimentRecord) -> dict[str, int]:
    counts = record.counts
    by_state = {
        TrialState.SUCCEEDED: counts.succeeded,
        TrialState.FAILED: counts.failed,
        TrialState.KILLED: counts.killed,
        TrialState.EARLY_STOPPED: counts.early_stopped,
        TrialState.METRICS_UNAVAILABLE: counts.metrics_unavailable,
    }
    return {state.value: count for state, count in by_state.items() if count}


def _reopened_limits(answer: c.Admitted, record: ExperimentRecord, command: c.ReopenCommand) -> c.Limits:
    """Without the limits that would end the new run at once: who goes on after the goal wants better than the goal."""
    limits, best = answer.limits, answer.best
    over: dict[str, None] = {}
    if command.goal is None and best and best.value is not None and record.objective.reached(best.value):
        over["goal"] = None
    if limits.deadline is not None and datetime.now(UTC).timestamp() >= limits.deadline:
        over["deadline"] = None
    return limits.model_copy(update=over)


def _reopened_budget(record: ExperimentRecord, command: c.ReopenCommand) -> Budget:
    budget = Budget(
        parallel=command.parallel or record.budget.parallel,
        max_trials=command.max_trials if command.max_trials is not None else record.budget.max_trials,
        max_failed=command.max_failed if command.max_failed is not None else record.budget.max_failed,
    )
    if record.context.get("resume_never") and not command.force:
        raise ConflictError(
            f"experiment {record.name} says resumePolicy: Never", hint="--force reopens it all the same"
        )
    finished = record.counts.finished
    if budget.max_trials is not None and budget.max_trials <= finished:
        raise UsageError(
            f"maxTrialCount must be above {finished}, the trials that finished; got {budget.max_trials}",
            hint=f"evertune extend {record.name} +{record.budget.max_trials or 12}",
        )
    if budget.max_failed is not None and record.counts.charged >= budget.max_failed > 0:
        raise UsageError(
            f"maxFailedTrialCount must be above {record.counts.charged}, the trials that failed;"
            f" got {budget.max_failed}"
        )
    return budget
