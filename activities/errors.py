"""The one mapping from our errors to Temporal's: what is retried, and under which name the workflow sees it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from evertune.errors import EvertuneError, SpecError, WrongDatabaseError

P = ParamSpec("P")
R = TypeVar("R")

MAX_PROBLEMS = 100  # in a failure's details: a manifest of 10,000 mistakes must not break Temporal's 2 MiB


# Not mended by waiting, but by the right worker taking the next try: no back-off.
ELSEWHERE = timedelta(seconds=0.5)


def application_error(error: EvertuneError) -> ApplicationError:
    details = []
    if isinstance(error, SpecError):
        details = [[problem.as_dict() for problem in error.problems[:MAX_PROBLEMS]]]
    message = str(error) + (f" ({error.hint})" if error.hint else "")
    # A user's mistake is an answer, not an incident: BENIGN keeps its traceback out of the worker's log.
    category = ApplicationErrorCategory.UNSPECIFIED if error.retryable else ApplicationErrorCategory.BENIGN
    return ApplicationError(
        message[:8000],
        *details,
        type=type(error).__name__,
        non_retryable=not error.retryable,
        next_retry_delay=ELSEWHERE if isinstance(error, WrongDatabaseError) else None,
        category=category,
    )


def translated(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Decorator of activities: an EvertuneError leaves as an ApplicationError; a defect of ours stays what it is."""

    @functools.wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await function(*args, **kwargs)
        except EvertuneError as error:
            raise application_error(error) from error

    return wrapper
