"""Waits for an API server that is away, busy or refuses our credentials for now, and says so meanwhile.

Called by everything of the runner that must not fail for that: an outage costs an attempt nothing but time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from activities.runners.kubernetes.api import RETRIED, Api, ApiError, Unreachable
from evertune.errors import UnavailableError

T = TypeVar("T")

AWAY_S = 1800.0  # then Temporal is told; it asks again
TRY_S = 2.0  # of one call's own patience: a hiccup is not worth a sentence
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


def away(error: BaseException | None) -> bool:
    """Whether asking again can help. A 401 can: tokens are renewed."""
    return isinstance(error, ApiError) and (
        isinstance(error, Unreachable) or error.status in RETRIED or error.status == 401
    )


def sentence(api: Api, error: BaseException, since: datetime) -> str:
    """For a phase."""
    if isinstance(error, Unreachable):
        return f"the API server {api.server} does not answer since {since:%H:%M:%S} UTC"
    return f"the API server {api.server} answers since {since:%H:%M:%S} UTC: {error}"


async def ride(api: Api, say: Callable[[str], None], call: Callable[[], Awaitable[T]], *, limit_s: float = AWAY_S) -> T:
    """The answer of `call`, asked until the API server gives one. `say` is told why that takes so long, "" after.

    Raises ApiError for what the server refuses, UnavailableError after `limit_s`.
    """
    loop = asyncio.get_running_loop()
    end, pause, since = loop.time() + limit_s, FIRST_PAUSE_S, datetime.now(UTC)
    while True:
        try:
            answer = await call()
        except ApiError as error:
            if not away(error):
                raise
            if loop.time() >= end:
                raise UnavailableError(sentence(api, error, since)) from error
            say(sentence(api, error, since))
            await asyncio.sleep(error.retry_after or pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(LONGEST_PAUSE_S, 2 * pause)
        else:
            say("")
            return answer
