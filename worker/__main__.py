"""The worker process: polls Temporal until told to stop. Trials outlive it; see `activities.runners`.

SIGTERM and SIGINT end it within a second. While it polls its home has `worker.ready`, never older than a minute.
When `evertune down` wrote its request file first, local trials are stopped too, after polling has ended, so that nobody
starts their next attempt meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import structlog
from temporalio.client import Client

import evertune.log as logs
from evertune.connection import connect_temporal
from evertune.ending import leave, told
from evertune.errors import EvertuneError
from evertune.settings import Settings
from evertune.stack.files import open_lock, try_lock
from evertune.store import Store, store_of
from worker.compose import Parts, compose, run_until, stop_local_trials
from worker.giving_up import watch_the_end
from worker.reconcile import reconciler_of

log = structlog.get_logger()

CONNECT_EVERY_S = 1.0
BEAT_EVERY_S = 20.0
WARMED = 4  # experiments at most, the newest; they share their libraries


async def serve(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    settings.prepare_home()
    _hold(settings)
    settings.worker_ready_file.unlink(missing_ok=True)  # of a worker that was killed, and may have had this very pid
    store = await asyncio.to_thread(store_of, settings)
    ending = asyncio.create_task(_watch_the_end(settings, stopping, store))
    try:
        client = await _connect(settings, stopping)
        if client is None:
            return
        parts = await compose(settings, client, store)
        try:
            reconciler = asyncio.create_task(reconciler_of(parts).run(stopping))
            beating = asyncio.create_task(_beat(settings))
            warming = asyncio.create_task(_warm(parts))
            await run_until(parts, stopping, lambda: _ready(settings))
            await reconciler
            if settings.down_file.exists():
                await stop_local_trials(parts.runner, reason="StackDown")
                settings.down_file.unlink(missing_ok=True)
        finally:
            beating.cancel()
            warming.cancel()
            await parts.close()
    finally:
        ending.cancel()
        await asyncio.to_thread(store.close)


async def _watch_the_end(settings: Settings, stopping: asyncio.Event, store: Store) -> None:
    await stopping.wait()
    watch_the_end(settings, _address(settings), store.ping)


def _address(settings: Settings) -> str:
    return settings.temporal_address or "127.0.0.1:7233"


async def _warm(parts: Parts) -> None:
    """Whoever was killed in the middle of an ask has it asked again of us, by then without loading libraries first."""
    with contextlib.suppress(EvertuneError):  # the asks themselves will say it
        unfinished = await asyncio.to_thread(parts.store.unfinished)
        for record in unfinished[-WARMED:]:
            await parts.host.warm(record.uid)


async def _connect(settings: Settings, stopping: asyncio.Event) -> Client | None:
    address = _address(settings)
    while not stopping.is_set():
        try:
            return await connect_temporal(address, settings.temporal_namespace, tls=settings.temporal_tls)
        except EvertuneError as error:
            log.warning("waiting for Temporal", address=address, error=str(error))
            await asyncio.sleep(CONNECT_EVERY_S)
    return None


def _ready(settings: Settings) -> None:
    """Tell the stack and `doctor` that every queue is polled."""
    draft = settings.worker_ready_file.with_suffix(f".{os.getpid()}")
    draft.write_text(str(os.getpid()), encoding="ascii")
    draft.replace(settings.worker_ready_file)
    log.info("worker polls", home=str(settings.home))


def _hold(settings: Settings) -> None:
    """Lock this home's file until the process ends. Another worker that has it is the stack's affair, not ours."""
    descriptor = open_lock(settings.worker_lock_file)
    for _ in range(20):  # a command that looks holds it for a moment
        if try_lock(descriptor):
            return
        time.sleep(0.02)


async def _beat(settings: Settings) -> None:
    """Keep the ready file young: its age tells a probe whether this loop still turns, whatever Temporal does."""
    while True:
        with contextlib.suppress(OSError):  # not there yet
            os.utime(settings.worker_ready_file)
        await asyncio.sleep(BEAT_EVERY_S)


def main() -> int:
    settings = Settings.load()
    logs.configure(settings)
    try:
        asyncio.run(serve(settings))
    except EvertuneError as error:
        return told(error)
    return 0


if __name__ == "__main__":
    leave(main())
