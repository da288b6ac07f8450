"""Coalesces observations of running trials into at most one `observe` signal per experiment and second.

The signal is light (last value and step of the trials that changed); the points are in the database already, so a
signal that gets lost with its process loses nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

import evertune.contracts as c
from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.store import Store

log = structlog.get_logger()

SIGNAL_EVERY_S = 1.0
SHOWN = 40  # characters of a value that travel through Temporal


@dataclass
class Observer:
    client: Client
    store: Store
    _pending: dict[str, dict[int, c.Observation]] = field(default_factory=dict)
    _senders: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _workflow_ids: dict[str, str] = field(default_factory=dict)

    async def take(self, report: Report, taken: Taken) -> None:
        """Tell the workflow what a stored report changed for its decisions, if anything."""
        if taken.objective is not None and (taken.new or taken.late):
            count, seq, text = taken.objective
            await self.observe(
                report.experiment_uid,
                c.Observation(
                    number=report.number,
                    attempt=report.attempt,
                    seq=seq,
                    step=count,
                    value=text[:SHOWN],
                    final=report.final,
                    late=taken.late,
                ),
            )

    async def observe(self, uid: str, observation: c.Observation) -> None:
        """Queue an observation; a later one of the same trial replaces it. Returns at once."""
        self._pending.setdefault(uid, {})[observation.number] = observation
        if uid not in self._senders:
            self._senders[uid] = asyncio.create_task(self._send(uid))

    async def _send(self, uid: str) -> None:
        try:
            while self._pending.get(uid):
                batch = list(self._pending.pop(uid).values())
                await self._signal(uid, c.ObserveSignal(observations=batch))
                await asyncio.sleep(SIGNAL_EVERY_S)
        finally:
            del self._senders[uid]
            self._pending.pop(uid, None)

    async def _signal(self, uid: str, signal: c.ObserveSignal) -> None:
        if uid not in self._workflow_ids:
            record = await asyncio.to_thread(self.store.experiment_by_uid, uid)
            self._workflow_ids[uid] = record.workflow_id
        handle = self.client.get_workflow_handle(self._workflow_ids[uid])
        try:
            await handle.signal(c.SIGNAL_OBSERVE, signal)
        except RPCError as error:  # the workflow has ended, or Temporal is away: the next one brings newer values
            log.debug("observe signal not delivered", experiment_uid=uid, error=str(error))
