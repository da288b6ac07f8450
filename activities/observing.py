"""Coalesces observations of running trials into at most one `observe` signal per experiment and second.

Both paths of reports meet here, the gateway's and that of the worker which reads local trials: so this is also where
early stopping looks at what was stored. What it decides is not coalesced.

The signal is light (last value and step of the trials that changed); the points are in the database already, so a
signal that gets lost with its process loses nothing. While Temporal is away the last news of each trial wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

import evertune.contracts as c
from activities.stop import Stopping
from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.domain.states import AttemptState
from evertune.domain.stopping import Decision
from evertune.errors import EvertuneError, NotFoundError
from evertune.store import Store

log = structlog.get_logger()

SIGNAL_EVERY_S = 1.0
SHOWN = 40  # characters of a value that travel through Temporal
AWAY_AGAIN_S, AWAY_MAX_S = 1.0, 15.0  # between attempts to reach a Temporal that is away
SIGNAL_TIMEOUT = timedelta(seconds=5)
MAX_PENDING = 10_000  # trials whose news wait, of all experiments
# Whatever else Temporal answers, another attempt gets the same answer.
_AWAY = frozenset(
    (
        RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED, RPCStatusCode.ABORTED, RPCStatusCode.INTERNAL, RPCStatusCode.UNKNOWN,
    )
)  # fmt: skip


@dataclass
class Observer:
    client: Client
    store: Store
    _pending: dict[str, dict[int, c.Observation]] = field(default_factory=dict)
    _senders: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _workflow_ids: dict[str, str] = field(default_factory=dict)
    _waiters: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)
    stopping: Stopping = field(init=False)

    def __post_init__(self) -> None:
        self.stopping = Stopping(self.store, self.stop)

    async def take(self, report: Report, taken: Taken) -> None:
        """Tell the workflow what a stored report changed for its decisions, if anything."""
        if report.points and taken.state is AttemptState.RUNNING:  # also when it came before, to one who died of it
            self.stopping.take(report.experiment_uid, report.number, report.attempt)
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
        pending = self._pending.setdefault(uid, {})
        before = pending.get(observation.number)
        if before is None and sum(map(len, self._pending.values())) >= MAX_PENDING:
            return
        pending[observation.number] = observation if before is None else _latest(before, observation)
        if uid not in self._senders:
            self._senders[uid] = asyncio.create_task(self._send(uid))

    async def stop(self, uid: str, decisions: Sequence[Decision]) -> None:
        """Send decisions of early stopping at once; while Temporal is away they wait with the other news."""
        told = [
            c.Observation(number=each.number, attempt=each.attempt, seq=-1, step=each.step, stop=each.reason)
            for each in decisions
        ]
        if not await self._signal(uid, c.ObserveSignal(observations=told)):
            for observation in told:
                await self.observe(uid, observation)

    async def delivered(self, uid: str) -> None:
        """Returns once what was observed of the experiment until now has been sent (or can never be)."""
        if uid in self._senders:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(uid, []).append(waiter)
            await waiter

    async def close(self) -> None:
        """Send nothing more."""
        await self.stopping.close()
        senders = list(self._senders.values())
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    async def _send(self, uid: str) -> None:
        away_s = AWAY_AGAIN_S
        try:
            while self._pending.get(uid):
                batch = self._pending.pop(uid)
                waiters = self._waiters.pop(uid, [])
                if await self._signal(uid, c.ObserveSignal(observations=list(batch.values()))):
                    _release(waiters)
                    away_s = AWAY_AGAIN_S
                    await asyncio.sleep(SIGNAL_EVERY_S)
                    continue
                for number, newer in self._pending.get(uid, {}).items():
                    batch[number] = _latest(batch[number], newer) if number in batch else newer
                self._pending[uid] = batch
                self._waiters[uid] = [waiter for waiter in (*waiters, *self._waiters.get(uid, ())) if not waiter.done()]
                await asyncio.sleep(away_s)
                away_s = min(AWAY_MAX_S, 2 * away_s)
            _release(self._waiters.pop(uid, ()))  # they came while the last batch was on its way
        finally:
            del self._senders[uid]
            self._pending.pop(uid, None)
            for waiter in self._waiters.pop(uid, ()):
                waiter.cancel()

    async def _signal(self, uid: str, signal: c.ObserveSignal) -> bool:
        """False when it is worth another attempt: Temporal or the database is away."""
        try:
            if uid not in self._workflow_ids:
                record = await asyncio.to_thread(self.store.experiment_by_uid, uid)
                self._workflow_ids[uid] = record.workflow_id
            handle = self.client.get_workflow_handle(self._workflow_ids[uid])
            await handle.signal(c.SIGNAL_OBSERVE, signal, rpc_timeout=SIGNAL_TIMEOUT)
        except NotFoundError:
            return True
        except RPCError as error:  # if it is not away, the workflow has ended
            log.debug("observe signal not delivered", experiment_uid=uid, error=str(error))
            return error.status not in _AWAY
        except (EvertuneError, RuntimeError, OSError) as error:  # RuntimeError: a lazy client that cannot connect
            log.debug("observe signal not delivered", experiment_uid=uid, error=str(error))
            return isinstance(error, EvertuneError) and not error.retryable
        return True


def _release(waiters: Iterable[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _latest(before: c.Observation, after: c.Observation) -> c.Observation:
    """News of one trial, put together: what was not told yet must not be forgotten for a newer value."""
    if before.attempt != after.attempt:
        return after
    told = {"final": before.final or after.final, "late": before.late or after.late, "stop": after.stop or before.stop}
    newer = after if after.seq >= before.seq else before  # a decision alone has no value
    return newer.model_copy(update=told)
