"""Ends a worker that was told to end and can finish nothing, because neither Temporal nor the database answers.

Called by `__main__`. An ordinary end waits for what is under way: transactions and answers to Temporal are tried for a
minute. Nobody is helped by that when both are gone: trials outlive this process, the next worker finds them, and what
was not recorded is done again. While one of the two answers, nothing here cuts anything short.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from evertune.connection import connect_temporal
from evertune.ending import leave
from evertune.errors import EvertuneError
from evertune.settings import Settings

log = structlog.get_logger()

FIRST_AFTER_S = 5.0  # an ordinary end takes one
ANSWERS_WITHIN_S = 5.0


def watch_the_end(settings: Settings, address: str, ping: Callable[[], object]) -> None:
    """Call it when the worker is told to end. `ping` asks the database: it returns, raises EvertuneError, or hangs.

    A thread that nobody waits for: the event loop itself may be among those that wait.
    """
    threading.Thread(target=_watch, args=(settings, address, ping), name="giving up", daemon=True).start()


def _watch(settings: Settings, address: str, ping: Callable[[], object]) -> None:
    def temporal() -> None:
        asyncio.run(connect_temporal(address, settings.temporal_namespace, tls=settings.temporal_tls))

    time.sleep(FIRST_AFTER_S)
    # `down` wants trials stopped first, which takes neither of them.
    while settings.down_file.exists() or _answers(ping) or _answers(temporal):
        time.sleep(1.0)
    log.warning("ending with work under way: neither Temporal nor the database answers", temporal=address)
    leave(0)


def _answers(ask: Callable[[], object]) -> bool:
    answered = threading.Event()

    def asking() -> None:
        with suppress(EvertuneError):
            ask()
            answered.set()

    asked = threading.Thread(target=asking, daemon=True)
    asked.start()
    asked.join(ANSWERS_WITHIN_S)
    return answered.is_set()
