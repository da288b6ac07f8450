"""What an update may ask for, as pure functions of the state: validators refuse without a history event."""

from __future__ import annotations

from temporalio.exceptions import ApplicationError

import evertune.contracts as c
from workflows.state import RunState

MAX_FILTERS = 20


def edit(state: RunState, request: c.EditRequest, *, asked: int) -> None:
    """`asked`: how many trials the ask under way may bring."""
    if (request.parallel, request.max_trials, request.max_failed, request.goal) == (None, None, None, None):
        raise _usage("nothing to change: give parallel, max_trials, max_failed or goal")
    created = state.created + asked
    if request.max_trials is not None and request.max_trials < created:
        raise _usage(f"maxTrialCount must be at least {created}, the trials created so far; got {request.max_trials}")
    max_trials = request.max_trials if request.max_trials is not None else state.limits.max_trials
    for value, name in ((request.parallel, "parallelTrialCount"), (request.max_failed, "maxFailedTrialCount")):
        if value is not None and max_trials is not None and value > max_trials:
            raise _usage(f"{name} must be at most maxTrialCount {max_trials}; got {value}")


def pause(state: RunState, request: c.PauseRequest) -> None:
    if state.stop_reason:
        raise _conflict(f"experiment {state.name} is stopping: resume it first, or cancel it")
    if state.paused and not request.now:
        raise _conflict(f"experiment {state.name} is paused already")


def resume(state: RunState) -> None:
    if not state.paused and not state.stop_reason:
        raise _conflict(f"experiment {state.name} is not paused")


def stop_trial(state: RunState, request: c.StopTrialUpdate) -> None:
    if request.number not in state.in_flight:
        raise _conflict(f"trial {request.number} is not running")


def reparse(request: c.ReparseUpdate) -> None:
    """The filters themselves are checked by whoever reads: only an activity may know their language."""
    if len(request.rereading.filters or ()) > MAX_FILTERS:
        raise _usage(f"at most {MAX_FILTERS} filters, not {len(request.rereading.filters or ())}")


def _usage(message: str) -> ApplicationError:
    return ApplicationError(message, type="UsageError")


def _conflict(message: str) -> ApplicationError:
    return ApplicationError(message, type="ConflictError")
