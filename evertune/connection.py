"""The way to Temporal: a connection, and its errors in our words.

Called by everybody who speaks to Temporal: `client`, the worker, the server, the stack. It refuses to retry: how long
something may be away is for its callers to say.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Mapping

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfigProfile, ClientConnectConfig
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode

import evertune.errors as errors

CONNECT_TIMEOUT_S = 5.0


@functools.cache
def _runtime() -> Runtime:
    """Temporal's core warns of what is harmless here: trials are detached at each continue-as-new and shutdown."""
    logging = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    return Runtime(telemetry=TelemetryConfig(logging=logging))


async def connect_temporal(
    address: str, namespace: str, *, lazy: bool = False, tls: bool | None = False
) -> TemporalClient:
    """Raises UnavailableError in one sentence when nobody answers within five seconds.

    `lazy`: connect at the first call, which raises RuntimeError while Temporal is away.
    `tls`: `Settings.temporal_tls`; see `security`, which may raise UsageError.
    """
    secured = security(tls)
    try:
        return await asyncio.wait_for(
            TemporalClient.connect(
                address,
                namespace=namespace,
                data_converter=pydantic_data_converter,
                runtime=_runtime(),
                lazy=lazy,
                api_key=secured.get("api_key"),
                tls=secured.get("tls", False),
            ),
            CONNECT_TIMEOUT_S,
        )
    except (TimeoutError, RuntimeError, RPCError, ValueError) as error:
        raise unavailable(address, error) from error


async def require_namespace(client: TemporalClient) -> None:
    """Raises UnavailableError when Temporal has no such namespace; silent where it may not be asked."""
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise errors.UnavailableError(
                f"Temporal has no namespace {client.namespace}",
                hint=f"temporal operator namespace create --namespace {client.namespace}, or set TEMPORAL_NAMESPACE",
            ) from error
        if error.status is not RPCStatusCode.PERMISSION_DENIED:
            raise unavailable(client.service_client.config.target_host, error) from error


def security(tls: bool | None, environ: Mapping[str, str] = os.environ) -> ClientConnectConfig:
    """What TEMPORAL_API_KEY and TEMPORAL_TLS_* say, as arguments of Temporal's client: `api_key` and `tls`.

    `tls`: True also without any of them, False in spite of them. An API key is never sent in plain text.
    Raises UsageError for a file that cannot be read, and for variables that do not go together.
    """
    if tls is False:
        return {"tls": False}
    prefixes = ("TEMPORAL_TLS_", "TEMPORAL_API_KEY")
    given = {name: value for name, value in environ.items() if name.startswith(prefixes) and value.strip()}
    try:
        profile = ClientConfigProfile.load(disable_file=True, override_env_vars=given)
        found = profile.to_client_connect_config()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        name = next((name for name, value in given.items() if value == error.filename), "TEMPORAL_TLS_*")
        raise errors.UsageError(f'{name} is "{error.filename}": the file cannot be read: {reason}') from error
    except (RuntimeError, ValueError) as error:
        raise errors.UsageError(f"{', '.join(sorted(given))}: {error}") from error
    secured: ClientConnectConfig = {"tls": found.get("tls", bool(tls)) or bool(tls)}
    if "api_key" in found:
        secured["api_key"] = found["api_key"]
    return secured


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
