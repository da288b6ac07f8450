"""The way to Temporal: a connection, and its errors in our words.

Called by everybody who speaks to Temporal: `client`, the worker, the server, the stack. It refuses to retry: how long
something may be away is for its callers to say.
"""

from __future__ import annotations

import asyncio
import functools
import re

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError

import evertune.errors as errors

CONNECT_TIMEOUT_S = 5.0


@functools.cache
def _runtime() -> Runtime:
    """Temporal's core warns of what is harmless here: trials are detached at each continue-as-new and shutdown."""
    logging = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    return Runtime(telemetry=TelemetryConfig(logging=logging))


async def connect_temporal(address: str, namespace: str, *, lazy: bool = False) -> TemporalClient:
    """Raises UnavailableError in one sentence when nobody answers within five seconds.

    `lazy`: connect at the first call, which raises RuntimeError while Temporal is away.
    """
    try:
        return await asyncio.wait_for(
            TemporalClient.connect(
                address, namespace=namespace, data_converter=pydantic_data_converter, runtime=_runtime(), lazy=lazy
            ),
            CONNECT_TIMEOUT_S,
        )
    except (TimeoutError, RuntimeError, RPCError, ValueError) as error:
        raise unavailable(address, error) from error


_NOT_TEMPORAL = re.compile(r'call error after connection: Status \{.*?message: "([^"]*)"')


def unavailable(address: str, error: BaseException) -> errors.UnavailableError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    for known in ("Connection refused", "connection refused", "dns error", "timed out"):
        if known in text:
            text = known.lower()
    if answer := _NOT_TEMPORAL.search(text):
        text = f"what listens there does not answer as Temporal does ({answer[1]})"
    if isinstance(error, asyncio.TimeoutError):
        text = f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    return errors.UnavailableError(f"cannot reach Temporal at {address}: {text}", hint="evertune doctor")


def error_of(error: WorkflowFailureError | WorkflowUpdateFailedError) -> errors.EvertuneError:
    """The EvertuneError that the workflow or an activity raised, rebuilt from its type and details."""
    cause: BaseException = error.cause
    while isinstance(cause, FailureError) and cause.cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.cause
    if not isinstance(cause, ApplicationError):
        return errors.ConflictError(str(cause) or "the workflow was closed before it was admitted")
    if cause.type == "SpecError" and cause.details:
        problems = [errors.Problem(**problem) for problem in cause.details[0]]
        return errors.SpecError.of(problems)
    kind = getattr(errors, cause.type or "", errors.EvertuneError)
    if not (isinstance(kind, type) and issubclass(kind, errors.EvertuneError)):
        kind = errors.EvertuneError
    return kind(cause.message)
