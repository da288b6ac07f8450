"""The activities as the workflow calls them: name, queue, timeouts, and the line shown in Temporal's timeline."""

from __future__ import annotations

from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

import evertune.contracts as c
from evertune.domain.states import TrialState
from workflows import policies
from workflows.policies import Policy
from workflows.state import RunState

T = TypeVar("T")

SUMMARY_BYTES = 200  # one line of the timeline; Temporal's own limit is 400


async def _execute(
    name: str, request: Any, result: type[T] | None, policy: Policy, *, queue: str, summary: str, **options: Any
) -> T:
    answer: T = await workflow.execute_activity(
        name,
        request,
        result_type=result,
        task_queue=queue,
        start_to_close_timeout=policy.start_to_close,
        heartbeat_timeout=policy.heartbeat,
        retry_policy=policy.retry,
        summary=summary.encode()[:SUMMARY_BYTES].decode(errors="ignore"),
        **options,
    )
    return answer


async def admit(request: c.AdmitRequest) -> c.Admitted:
    """Raises ApplicationError with every problem when the input is not an Experiment that can run."""
    try:
        return await _execute(
            c.ACTIVITY_ADMIT, request, c.Admitted, policies.SHORT, queue=c.QUEUE, summary="read, check and claim"
        )
    except ActivityError as error:
        if is_cancelled_exception(error):  # nothing was begun; the reconciler closes a row that was claimed
            raise
        raise _plainly(error, "SpecError") from error


def _plainly(error: ActivityError, kind: str) -> ApplicationError:
    """What an activity refused, as its own words: whoever waits for the workflow reads no chain of causes."""
    cause = error.cause
    own = cause if isinstance(cause, ApplicationError) else None
    details = own.details if own else ()
    message = own.message if own else sentence(error)  # with the mend, which the cause of it does not have
    return ApplicationError(message, *details, type=(own and own.type) or kind, non_retryable=True)


async def suggest(state: RunState, request_no: int, k: int) -> c.Suggested:
    request = c.SuggestRequest(
        uid=state.uid, database_id=state.database_id, request_no=request_no, k=k, revision=state.limits.revision
    )
    return await _execute(
        c.ACTIVITY_SUGGEST,
        request,
        c.Suggested,
        policies.SUGGEST,
        queue=c.SUGGEST_QUEUE,
        summary=f"{k} from {state.algorithm}",
    )


async def run_trial(state: RunState, entry: c.InFlight) -> c.TrialOutcome:
    request = c.RunTrialRequest(
        uid=state.uid,
        database_id=state.database_id,
        number=entry.number,
        attempt=entry.attempt,
        signal_retries=entry.signal_retries,
        infrastructure_retries=entry.infrastructure_retries,
    )
    again = f", attempt {entry.attempt + 1}" if entry.attempt else ""
    return await _execute(
        c.ACTIVITY_RUN_TRIAL,
        request,
        c.TrialOutcome,
        policies.trial(state.heartbeat_s),
        queue=state.queue,
        summary=f"trial {entry.number}{again} {entry.label}".strip(),
        # Stopping is `stop_trial`: an activity's own cancellation may arrive late, or look like something else.
        cancellation_type=ActivityCancellationType.ABANDON,
    )


async def stop_trials(state: RunState, attempts: dict[int, int], reason: str) -> None:
    """`attempts`: the current one of each trial, by its number."""
    request = c.StopTrialRequest(uid=state.uid, database_id=state.database_id, attempts=attempts, reason=reason)
    shown = f"trial {next(iter(attempts))}" if len(attempts) == 1 else f"{len(attempts)} trials"
    await _execute(
        c.ACTIVITY_STOP_TRIAL, request, None, policies.STOP, queue=state.queue, summary=f"stop {shown}: {reason}"
    )


async def close_trial(
    state: RunState, entry: c.InFlight, *, reason: str, message: str = "", failed: bool = False
) -> c.TrialOutcome:
    """End a trial that gets no further attempt. The record answers with what the trial had reached."""
    request = c.CloseTrialRequest(
        uid=state.uid,
        database_id=state.database_id,
        number=entry.number,
        state=TrialState.FAILED if failed else TrialState.KILLED,
        reason=reason,
        message=message,
    )
    return await _execute(
        c.ACTIVITY_CLOSE_TRIAL,
        request,
        c.TrialOutcome,
        policies.SHORT,
        queue=c.QUEUE,
        summary=f"close trial {entry.number}: {reason}",
    )


async def revise(state: RunState, trials: list[int] | None, rereading: c.Rereading | None) -> c.Revised:
    """Judge finished trials anew: those whose end this workflow knows. Raises ApplicationError with the reason."""
    request = c.ReviseRequest(
        uid=state.uid,
        database_id=state.database_id,
        trials=trials,
        rereading=rereading,
        below=state.created,
        without=sorted(state.in_flight),
    )
    which = f"trial {trials[0]}" if trials and len(trials) == 1 else "finished trials"
    try:
        return await _execute(
            c.ACTIVITY_REVISE, request, c.Revised, policies.STOP, queue=state.queue, summary=f"judge {which} anew"
        )
    except ActivityError as error:
        raise _plainly(error, "UsageError") from error


async def record(
    state: RunState,
    *,
    reason: str = "",
    message: str = "",
    limits: c.Limits | None = None,
    actor: str = "",
    action: str = "",
    detail: dict[str, Any] | None = None,
) -> None:
    request = c.RecordRequest(
        uid=state.uid,
        database_id=state.database_id,
        key=str(workflow.uuid4()),  # the same on replay and on an activity's retry
        state=state.state,
        reason=reason,
        message=message,
        limits=limits,
        actor=actor,
        action=action,
        detail=detail or {},
    )
    await _execute(
        c.ACTIVITY_RECORD, request, None, policies.SHORT, queue=c.QUEUE, summary=action or f"state {state.state}"
    )


def sentence(error: ActivityError) -> str:
    """The innermost message: what a person should read."""
    cause: BaseException = error
    while isinstance(cause, FailureError) and cause.cause is not None:
        cause = cause.cause
    return cause.message if isinstance(cause, FailureError) else str(cause)
