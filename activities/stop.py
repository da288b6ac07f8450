"""Early stopping in the path of reports: once points are stored the experiment's rule is asked, aside from the answer.

`activities.observing` calls `take` for every stored report, in the gateway and in the worker that reads local trials
alike; the worker also runs `watch`, for rules of time and for decisions whose process died before it could tell. Only
positive decisions leave: the workflow arbitrates, and issues `stop_trial`. Nothing here stops anything itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

import evertune.spec as spec
from algorithms.stoppers import registry
from evertune.domain.stopping import Decision
from evertune.errors import EvertuneError, NotFoundError
from evertune.protocols import EarlyStopper
from evertune.store import Store

log = structlog.get_logger()

WATCH_EVERY_S = 2.0
AGAIN_S = 1.0  # after a database that was away
TOLD_AGAIN_S = 3.0  # a decision that is on its way is not sent with every report that comes meanwhile
CACHED_RULES = 1024  # experiments
AT_ONCE = 200  # attempts of one transaction: others must get to write, too

Key = tuple[int, int]  # trial number, attempt


@dataclass(frozen=True, slots=True)
class _Rule:
    stopper: EarlyStopper
    metric: str  # the objective's


@dataclass
class Stopping:
    """`send` tells an experiment's workflow of decisions, at once."""

    store: Store
    send: Callable[[str, Sequence[Decision]], Awaitable[None]]
    _rules: dict[str, _Rule | None] = field(default_factory=dict)  # by uid; None: every trial runs to its end
    _waiting: dict[str, dict[Key, None]] = field(default_factory=dict)
    _weighing: asyncio.Task[None] | None = None
    _told: dict[tuple[str, int, int], float] = field(default_factory=dict)

    def take(self, uid: str, number: int, attempt: int) -> None:
        """An attempt has reported, and that is stored. Returns at once."""
        if self._rules.get(uid, ...) is None:
            return
        self._waiting.setdefault(uid, {})[number, attempt] = None
        if self._weighing is None or self._weighing.done():
            self._weighing = asyncio.create_task(self._weigh())

    async def close(self) -> None:
        if self._weighing is not None:
            self._weighing.cancel()
            await asyncio.gather(self._weighing, return_exceptions=True)

    async def _weigh(self) -> None:
        """Until nobody waits: all that reported meanwhile are one transaction of their experiment."""
        while self._waiting:
            uid = next(iter(self._waiting))
            attempts = self._waiting[uid]
            batch = list(attempts)[:AT_ONCE]
            for key in batch:
                del attempts[key]
            try:
                decisions, again = await asyncio.to_thread(self._weighed, uid, batch)
            except EvertuneError as error:
                log.debug("reports wait to be weighed", experiment_uid=uid, error=str(error))
                decisions, again = [], batch if error.retryable else []
                await asyncio.sleep(AGAIN_S if again else 0)
            except Exception:  # a plugin's rule, or a defect of ours: one traceback, not one with every report
                log.exception("an early stopping rule failed: its trials run to their end", experiment_uid=uid)
                self._rules[uid] = None
                decisions, again = [], []
                attempts.clear()
            attempts.update(dict.fromkeys(again))
            del self._waiting[uid]
            if attempts:
                self._waiting[uid] = attempts  # behind the other experiments
            await self._tell(uid, decisions)

    def _weighed(self, uid: str, attempts: list[Key]) -> tuple[list[Decision], list[Key]]:
        rule = self._rule(uid)
        if rule is None:
            return [], []
        return self.store.weigh(uid, rule.stopper, rule.metric, attempts, _now())

    def _rule(self, uid: str) -> _Rule | None:
        """The experiment's rule. An edit changes budgets, never this."""
        if uid not in self._rules:
            while len(self._rules) >= CACHED_RULES:
                self._rules.pop(next(iter(self._rules)), None)
            self._rules[uid] = self._made(uid)
        return self._rules[uid]

    def _made(self, uid: str) -> _Rule | None:
        try:
            record = self.store.experiment_by_uid(uid)
        except NotFoundError:
            return None
        name = ""
        try:
            experiment = spec.load_stored(record.manifest)
            name = spec.stopper_of(experiment)
            if not name:
                return None
            made = registry.create(name, spec.stopper_settings_of(experiment), record.objective)
        except Exception as error:  # a plugin that is missing here, or a manifest of another version
            log.warning(
                "trials are not stopped early: the rule cannot be made here", experiment_uid=uid, rule=name,
                error=str(error),
            )  # fmt: skip
            return None
        return _Rule(made, record.objective.metric)

    async def _tell(self, uid: str, decisions: Sequence[Decision]) -> None:
        now = time.monotonic()
        self._told = {key: until for key, until in self._told.items() if until > now}
        new = [each for each in decisions if (uid, each.number, each.attempt) not in self._told]
        if new:
            self._told.update({(uid, each.number, each.attempt): now + TOLD_AGAIN_S for each in new})
            await self.send(uid, new)

    # ------------------------------------------------------------------------------------------------ by time

    async def watch(self) -> None:
        """For ever: decisions that nobody heard of, and trials that have gone silent."""
        since = _now()  # what we did not see cannot be held against a trial
        while True:
            try:
                for uid, decisions in (await asyncio.to_thread(self._overdue, since)).items():
                    await self._tell(uid, decisions)
            except EvertuneError as error:
                log.debug("early stopping waits for the database", error=str(error))
            except Exception:  # the next round tries again; a worker must not die of it
                log.exception("early stopping could not look after its decisions")
            await asyncio.sleep(WATCH_EVERY_S)

    def _overdue(self, since: datetime) -> dict[str, list[Decision]]:
        found: dict[str, list[Decision]] = {}
        for uid, decision in self.store.undelivered_stops():
            found.setdefault(uid, []).append(decision)
        for uid in self.store.running_experiments():
            rule = self._rule(uid)
            if rule is None or (seconds := rule.stopper.silent_s) is None:
                continue
            found.setdefault(uid, []).extend(self.store.silent(uid, rule.stopper, seconds, since=since, at=_now()))
        return found


def _now() -> datetime:
    return datetime.now(UTC)
