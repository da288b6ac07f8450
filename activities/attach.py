"""What a cancelled `run_trial` does with its trial: stop it, or leave it to a later attempt that attaches.

Temporal says `not_found` for a continue-as-new, a reset, a termination and a completion alike, so the question is put
to the workflow: is it still running? Core issues one cancel per attempt; whatever the answer, the activity leaves.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

DESCRIBE_TIMEOUT_S = 5.0


async def stop_or_detach() -> Literal["stop", "detach"]:
    """Call in `except asyncio.CancelledError`, shielded."""
    details = activity.cancellation_details()
    if details is None:
        return "detach"
    if details.cancel_requested:
        return "stop"
    if not details.not_found or details.worker_shutdown or details.paused or details.reset or details.timed_out:
        return "detach"
    info = activity.info()
    if info.workflow_id is None:
        return "detach"
    handle = activity.client().get_workflow_handle(info.workflow_id)  # no run id: the latest run
    try:
        description = await asyncio.wait_for(handle.describe(), DESCRIBE_TIMEOUT_S)
    except RPCError as error:
        return "stop" if error.status is RPCStatusCode.NOT_FOUND else "detach"
    except TimeoutError:
        return "detach"
    return "detach" if description.status is WorkflowExecutionStatus.RUNNING else "stop"
