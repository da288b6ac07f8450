"""What a run was started with: our own state after continue-as-new, or anything at all from a stranger.

Nothing is decoded here but our own state: `admit` does that, where a mistake is an error and not a stuck workflow.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from evertune.contracts import MEMO_CONTEXT, AdmitRequest, RawInput
from workflows.state import RunState

MAX_INPUT_BYTES = 1_048_576  # the manifest's own limit; above it the admit command would break Temporal's 2 MiB


def carried_state(args: Sequence[RawValue]) -> RunState | None:
    """The state that the previous run passed on, None for a fresh start."""
    if workflow.info().continued_run_id is None or len(args) != 1:
        return None
    try:
        state: RunState = workflow.payload_converter().from_payload(args[0].payload, RunState)
    except Exception:  # a cron or retry chain carries the original input instead
        return None
    return state


def admit_request(args: Sequence[RawValue]) -> AdmitRequest:
    """Raises ApplicationError when the input is larger than a manifest may be."""
    size = sum(len(arg.payload.data) for arg in args)
    if size > MAX_INPUT_BYTES:
        raise ApplicationError(
            f"the input must be an Experiment of at most 1 MiB, but got {size / 1_048_576:.1f} MiB",
            type="SpecError",
            non_retryable=True,
        )
    info = workflow.info()
    return AdmitRequest(
        inputs=[
            RawInput(
                encoding=arg.payload.metadata.get("encoding", b"").decode("ascii", "replace"),
                data=base64.b64encode(arg.payload.data).decode("ascii"),
            )
            for arg in args
        ],
        context=_context(),
        workflow_id=info.workflow_id,
        run_id=info.run_id,
        first_run_id=info.first_execution_run_id,
    )


def _context() -> dict[str, Any] | None:
    try:
        context = workflow.memo_value(MEMO_CONTEXT, default=None)
    except Exception:  # a memo that is not ours
        return None
    return context if isinstance(context, dict) else None
