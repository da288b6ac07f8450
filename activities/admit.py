"""`admit`: decode whatever a workflow was started with, check it, and claim the experiment's name.

The only way in. All problems are reported at once and nothing is stored of a bad manifest. Idempotent by the run
chain that asks, so a retry, a reset or a worker's death after the commit gets the same answer, rebuilt from the rows.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import ValidationError
from pydantic_core import from_json
from temporalio import activity

import evertune.contracts as c
import evertune.spec as spec
from activities.asking import AskHost
from activities.database import check_database
from activities.errors import translated
from activities.exhausted import refuse_exhausted
from activities.problems import LIBRARIES, WARM_START, libraries, sources
from activities.revising import best_of
from activities.warm_start import warm_start_problems
from algorithms.registry import Registry, resolved
from evertune.domain.metrics import ObjectiveType
from evertune.domain.records import CHOSEN, WARNINGS, Budget, ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import ConflictError, NotFoundError, Problem, SpecError, UsageError
from evertune.protocols import TemplateSource
from evertune.store import NewExperiment, Store

HEARTBEAT_S = 5.0  # a dead worker is noticed within ten seconds, and what a trial waits for is seen in five
HEARTBEAT_PER_TRIAL_S = 0.25  # beyond 20 parallel trials: at most 5 heartbeats a second reach the server


@dataclass
class AdmitActivities:
    store: Store
    home_id: str
    default_backend: Literal["local", "kubernetes"]
    search_attributes: bool
    temporal_id: str  # which Temporal runs the workflow; the reconciler asks no other
    templates: TemplateSource | None = None  # of ConfigMaps that do not stand beside the experiment
    host: AskHost | None = None  # asked whether an ended experiment has anything left to try
    # By the context that the experiment names: why nobody would run its trials in a cluster, None when somebody does.
    no_cluster: Callable[[str | None], Awaitable[Problem | None]] | None = None

    @activity.defn(name=c.ACTIVITY_ADMIT)
    @translated
    async def admit(self, request: c.AdmitRequest) -> c.Admitted:
        document = await asyncio.to_thread(_decode, request.inputs)
        if set(document) == {"reopen"}:
            command = _command(document["reopen"])
            if (ended := await asyncio.to_thread(self._reopenable, command, request)) is not None:
                await refuse_exhausted(self.store, self.host, ended)
            return await asyncio.to_thread(self._reopen, command, request)
        context = _context(request.context)
        if context.database_id is not None:
            check_database(self.store, context.database_id)
        templates = await self._templates(document, context, request)
        backend = _annotation(document, "evertune.io/backend") or context.backend or self.default_backend
        no_cluster = None
        if self.no_cluster is not None and backend == "kubernetes":
            no_cluster = await self.no_cluster(_annotation(document, "evertune.io/cluster"))
        return await asyncio.to_thread(self._admit, document, context, request, templates, backend, no_cluster)

    async def _templates(
        self, document: dict[str, Any], context: c.StartContext, request: c.AdmitRequest
    ) -> dict[spec.TemplateKey, str | spec.Unreadable]:
        """The template that the experiment keeps in a ConfigMap, read once: what is stored with it is what counts."""
        wanted = template_source(document)
        if wanted is None:
            return {}
        stored = await asyncio.to_thread(self._stored_templates, document, request)
        texts = stored or {(entry.namespace, entry.name, entry.key): entry.text for entry in context.templates}
        found: dict[spec.TemplateKey, str | spec.Unreadable] = {**texts}
        if wanted.key in found or (wanted.backend or context.backend or self.default_backend) == "local":
            return found
        if self.templates is None:
            hint = "put the ConfigMap as another document into the same file; or write the template under trialSpec"
            return {**found, wanted.key: spec.Unreadable("this worker has no cluster to read the ConfigMap from", hint)}
        try:
            found[wanted.key] = await self.templates.fetch(wanted.cluster, *wanted.key)
        except SpecError as error:  # told together with all else that is wrong
            told = error.problems[0] if error.problems else None
            found[wanted.key] = spec.Unreadable(told.message, told.hint) if told else spec.Unreadable(error.message)
        return found

    def _stored_templates(
        self, document: dict[str, Any], request: c.AdmitRequest
    ) -> Mapping[spec.TemplateKey, str | spec.Unreadable]:
        """Those of an earlier try of this very admission, which had been committed before its worker died."""
        metadata = _mapping(document.get("metadata"))
        try:
            record = self.store.experiment(str(metadata.get("namespace") or "default"), str(metadata.get("name")))
        except NotFoundError:
            return {}
        return spec.stored_templates(record.context) if record.first_run_id == request.first_run_id else {}

    def _admit(
        self,
        document: dict[str, Any],
        context: c.StartContext,
        request: c.AdmitRequest,
        templates: spec.Templates,
        backend: str,
        no_cluster: Problem | None,
    ) -> c.Admitted:
        experiment, warnings = spec.load_judged(document, Registry(), templates=templates, backend=backend)
        problems = list(spec.unsupported_here(experiment, backend, templates=templates))
        if no_cluster is not None:
            problems.append(no_cluster)
        if not self._admitted_before(experiment, request):
            problems += warm_start_problems(self.store, experiment)
        if problems:
            raise SpecError.of(problems)
        explicit_never = (document.get("spec") or {}).get("resumePolicy") == "Never"
        used = template_source(document)
        kept = [
            c.TemplateText(namespace=key[0], name=key[1], key=key[2], text=text)
            for key, text in templates.items()
            if used is not None and key == used.key and isinstance(text, str)
        ]
        context = context.model_copy(update={"templates": kept})
        name, problem = spec.algorithm_of(experiment), spec.search_problem(experiment, 0)
        choice = resolved(name, problem)
        known: dict[str, Any] = {LIBRARIES: libraries(choice.algorithm)}
        if choice.algorithm != name:  # for good: another version might choose otherwise
            known[CHOSEN] = {"algorithm": choice.algorithm, "why": choice.why}
        if warnings:
            known[WARNINGS] = [warning.as_dict() for warning in warnings]
        if begun_with := sources(self.store, experiment):
            known[WARM_START] = begun_with
        new = self._new(experiment, choice.algorithm, backend, context, request, explicit_never, known)
        record = self.store.claim_experiment(new)
        return self._answer(record)

    def _admitted_before(self, experiment: spec.Experiment, request: c.AdmitRequest) -> bool:
        """By an earlier try of this very admission, whose worker died before it could answer."""
        try:
            record = self.store.experiment(experiment.namespace, experiment.name)
        except NotFoundError:
            return False
        return record.first_run_id == request.first_run_id

    def _new(
        self,
        experiment: spec.Experiment,
        algorithm: str,
        backend: str,
        context: c.StartContext,
        request: c.AdmitRequest,
        explicit_never: bool,
        known: Mapping[str, Any],
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
            context={
                **context.model_dump(mode="json"),
                "resume_never": explicit_never,
                "temporal": self.temporal_id,
                **known,
            },
            algorithm=algorithm,
            settings=spec.settings_of(experiment),
            seed=secrets.randbelow(2**31) if seed is None else seed,
            objective=spec.to_objective(experiment),
            space=spec.to_space(experiment),
            budget=spec.to_budget(experiment),
            backend=backend,
            home_id=(context.home_id or self.home_id) if backend == "local" else None,
            created=datetime.now(UTC),
        )

    def _reopenable(self, command: c.ReopenCommand, request: c.AdmitRequest) -> ExperimentRecord | None:
        """The experiment that is to go on; None when this very run has reopened it already."""
        if command.database_id is not None:
            check_database(self.store, command.database_id)
        record = self.store.experiment_by_uid(command.uid)
        if record.workflow_id != request.workflow_id:
            raise ConflictError(
                f"experiment {record.name} belongs to workflow {record.workflow_id}; reopen it under that id"
            )
        if record.first_run_id == request.first_run_id:  # by an earlier try, or by what was reset
            return None
        if not record.state.terminal:
            raise ConflictError(
                f"experiment {record.name} is {record.state}; only a finished one can be reopened",
                hint=f"evertune get {record.name}",
            )
        _reopened_budget(record, command)
        return record

    def _reopen(self, command: c.ReopenCommand, request: c.AdmitRequest) -> c.Admitted:
        if (record := self._reopenable(command, request)) is not None:
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
        record = self.store.experiment_by_uid(command.uid)
        answer = self._answer(record)
        return answer.model_copy(update={"limits": _reopened_limits(answer, record, command)})

    def _answer(self, record: ExperimentRecord) -> c.Admitted:
        """Rebuilt from the rows, so that a reset or reopened run goes on where the database is."""
        experiment = spec.load_stored(record.manifest)
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
            queue=c.run_queue(record.home_id or self.home_id) if record.backend == "local" else c.CLUSTER_QUEUE,
            search_attributes=self.search_attributes,
            heartbeat_s=max(HEARTBEAT_S, HEARTBEAT_PER_TRIAL_S * record.budget.parallel),
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
            best=None if best is None else best_of(best),
            in_flight=[c.InFlight(number=trial.number, attempt=max(trial.attempts - 1, 0)) for trial in open_trials],
        )


def _annotation(document: dict[str, Any], name: str) -> str | None:
    """What an experiment that nobody has checked yet says of itself."""
    return _text(_mapping(_mapping(document.get("metadata")).get("annotations")).get(name))


@dataclass(frozen=True)
class _Source:
    """Where an experiment that nobody has checked yet says that its template is."""

    key: spec.TemplateKey
    backend: str | None
    cluster: str | None


def template_source(document: dict[str, Any]) -> _Source | None:
    """None when there is no ConfigMap to be read, or what names it is incomplete: then the check will say so."""
    source = _mapping(_mapping(_mapping(document.get("spec")).get("trialTemplate")).get("configMap"))
    namespace, name, key = (_text(source.get(at)) for at in ("configMapNamespace", "configMapName", "templatePath"))
    if not (namespace and name and key):
        return None
    backend, cluster = _annotation(document, "evertune.io/backend"), _annotation(document, "evertune.io/cluster")
    return _Source((namespace, name, key), backend, cluster)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


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


def _command(data: Any) -> c.ReopenCommand:
    try:
        return c.ReopenCommand.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"the reopen command must be {{uid, command}}: {error.errors()[0]['msg']}") from error


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
    reached = best is not None and best.value is not None and record.objective.reached(best.value)
    if command.goal is None and reached and best and not best.shortfall and not best.violation:
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
