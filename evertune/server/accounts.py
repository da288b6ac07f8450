"""Whose report is it, where a pod shows its own account's token: asked of the cluster, and remembered for a minute.

Called by `ingest` for such tokens when EVERTUNE_POD_IDENTITY is account; keys of ours are taken beside them. A pod
reports for the attempt that its labels name, if that is one of our database, in the namespace of its experiment. A
cluster that is away is never a reason to refuse: the report waits. No token is kept or logged, only its hash.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from evertune.errors import EvertuneError
from evertune.server.counters import Counters
from evertune.server.database import KnownTrial, LateStore
from evertune.settings import Settings
from evertune.tokens import Claims

if TYPE_CHECKING:
    from activities.runners.kubernetes.api import Api
    from activities.runners.kubernetes.identity import AttemptPod, PodIdentities

REMEMBER_S = 60.0  # so long may a token outlive its pod or its time
REFUSED_S = 5.0
MAX_REMEMBERED = 5000  # of those that are good, and of the others
MAX_ASKING = 50  # who sends made-up tokens must not flood the API server
ASK_S = 10.0
RETRY_AFTER_S = 2
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


def of_account(token: str) -> bool:
    """Whether it looks like a token of a ServiceAccount; keys of ours never do."""
    return _JWT.fullmatch(token) is not None


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a token gives no right now. `reason` is what it is counted by."""

    status: int  # 401, 403, 404; 429 and 503 for a while only
    reason: str
    sentence: str
    retry_after_s: float | None = None


Answer = TypeVar("Answer", Claims, Denied)


@dataclass
class Accounts:
    """For one event loop. `trial` and `database_id` block, and raise EvertuneErrors when the database is away."""

    connect: Callable[[], Awaitable[Api]]
    trial: Callable[[str, int], KnownTrial | None]
    database_id: Callable[[], str]
    counters: Counters
    clock: Callable[[], float] = time.monotonic
    limit: int = MAX_ASKING  # of questions at once
    _api: Api | None = None
    _pods: PodIdentities | None = None
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _good: OrderedDict[bytes, tuple[float, Claims]] = field(default_factory=OrderedDict, repr=False)
    _bad: OrderedDict[bytes, tuple[float, Denied]] = field(default_factory=OrderedDict, repr=False)
    _asking: dict[bytes, asyncio.Task[Claims | Denied]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: Settings, database: LateStore, counters: Counters) -> Accounts | None:
        """None where tokens of accounts are not taken. Nothing is asked before the first of them comes."""
        if settings.pod_identity != "account":
            return None

        async def connect() -> Api:
            from activities.runners.kubernetes.api import Api

            return await Api.connect(settings.kube_context, kubeconfig=settings.kubeconfig)

        return cls(connect, database.trial, database.database_id, counters)

    async def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._api is not None:
            await self._api.close()

    async def claims(self, token: str) -> Claims | Denied:
        """The attempt whose pod has this token, or why it has no right."""
        key, now = sha256(token.encode()).digest(), self.clock()
        for remembered in (self._good, self._bad):
            until, answer = remembered.get(key, (now, None))
            if answer is not None and now < until:
                return answer
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= self.limit:
                return Denied(429, "busy", "the gateway is busy; repeat this report", RETRY_AFTER_S)
            task = self._asking[key] = asyncio.create_task(self._ask(key, token, now), name="token review")
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)  # a sender that goes takes nothing from the others

    async def _ask(self, key: bytes, token: str, now: float) -> Claims | Denied:
        from activities.runners.kubernetes.api import ApiError

        try:
            async with asyncio.timeout(ASK_S):
                answer = await self._found(token)
        except TimeoutError:
            return self._away("cluster unavailable", f"no answer within {ASK_S:.0f} s")
        except ApiError as error:  # also when our own account has not the right to ask: somebody must give it
            return self._away("cluster unavailable", str(error))
        except EvertuneError as error:
            return self._away("unavailable", str(error))
        if isinstance(answer, Claims):
            _remember(self._good, key, (now + REMEMBER_S, answer))
        else:
            _remember(self._bad, key, (now + REFUSED_S, answer))
        return answer

    async def _found(self, token: str) -> Claims | Denied:
        from activities.runners.kubernetes.identity import NoAttemptError, NotAcceptedError

        try:
            pod = await (await self._identities()).of(token)
        except NotAcceptedError as error:
            return Denied(401, "account not accepted", f"the token of this pod is not accepted: {error}")
        except NoAttemptError as error:
            return Denied(403, "no pod of a trial", str(error))
        return await asyncio.to_thread(self._entitled, pod)

    def _entitled(self, pod: AttemptPod) -> Claims | Denied:
        if pod.database_id != self.database_id():
            sentence = f"pod {pod.name} in {pod.namespace} is of another evertune, with another database"
            return Denied(403, "another database", sentence)
        trial = self.trial(pod.experiment_uid, pod.number)
        if trial is None:
            sentence = f"the trial of pod {pod.name} is not known; its experiment may have been deleted"
            return Denied(404, "unknown attempt", sentence)
        if trial.namespace != pod.namespace:
            sentence = f"pod {pod.name} is in {pod.namespace}, and trial {trial.name} runs in {trial.namespace}"
            return Denied(403, "another namespace", sentence)
        return Claims(pod.experiment_uid, pod.number, pod.attempt, trial.name)

    async def _identities(self) -> PodIdentities:
        from activities.runners.kubernetes.identity import PodIdentities

        async with self._connecting:
            if self._pods is None:
                self._api = await self.connect()
                self._pods = PodIdentities(self._api)
            return self._pods

    def _away(self, reason: str, why: str) -> Denied:
        """What was said is for the log, not for whoever reports."""
        self.counters.warn(reason, "token reviews", error=why)
        sentence = "whose pod this is cannot be looked up now; keep the report and repeat it"
        return Denied(503, reason, sentence, RETRY_AFTER_S)


def _remember(table: OrderedDict[bytes, tuple[float, Answer]], key: bytes, entry: tuple[float, Answer]) -> None:
    table[key] = entry
    table.move_to_end(key)
    if len(table) > MAX_REMEMBERED:
        table.popitem(last=False)
