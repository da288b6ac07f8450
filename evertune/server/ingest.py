"""`POST /ingest/v1/trials/{trial}/reports`: points of one attempt into the database, and what its sender is to do next.

A plain ASGI application, called by `app` before any framework: at thousands of reports a second its conveniences would
cost as much as the work. It answers after the commit. It refuses, with one sentence and a status, whatever has no right
to be stored, and it never waits without a deadline.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from evertune.domain.metrics import Report
from evertune.domain.records import Taken
from evertune.errors import EvertuneError, UnavailableError
from evertune.server.accounts import Accounts, Denied, of_account
from evertune.server.body import MAX_BODY_BYTES, UnreadableError, read
from evertune.server.counters import Counters
from evertune.server.database import KnownAttempt
from evertune.server.limits import MAX_NAMES, Attempt, Attempts
from evertune.server.queue import CommitQueue, QueueFullError
from evertune.tokens import MAX_TOKEN_CHARS, Claims, Refusal, TokenKeys

log = structlog.get_logger()

BEFORE, AFTER = "/ingest/v1/trials/", "/reports"  # the address of a trial's reports, around its name
NEXT_AFTER_S, SLOW_AFTER_S = 1.0, 5.0  # what senders are told: at ease, and when the queue is full
GRACE_S = 600.0  # for what is still on its way when an attempt has ended
LOOK_UP_S = 10.0  # to find an attempt in the database
RETRY_AFTER_S = 2
MAX_LOOKING_UP = 200  # attempts that are looked up at once; more of them only queue for the same threads
NO_ACCOUNTS = Denied(
    401, "account not accepted", "this gateway takes no tokens of accounts: its EVERTUNE_POD_IDENTITY is not account"
)


class Tells(Protocol):
    async def take(self, report: Report, taken: Taken) -> None: ...


class Refused(Exception):
    """An answer other than 200. `reason` is what it is counted by."""

    def __init__(
        self, status: int, reason: str, sentence: str, *, retry_after_s: float | None = None, stop: bool = False
    ) -> None:
        super().__init__(sentence)
        self.status, self.reason, self.sentence = status, reason, sentence
        self.retry_after_s, self.stop = retry_after_s, stop


@dataclass
class Ingest:
    """The route. `look_up` blocks, and answers None for an attempt that is not there."""

    keys: TokenKeys
    queue: CommitQueue
    look_up: Callable[[str, int, int], KnownAttempt | None]
    tell: Tells
    counters: Counters
    accounts: Accounts | None = None  # who knows tokens of pods; None takes keys of ours only
    attempts: Attempts = field(default_factory=Attempts)
    clock: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)
    _looking_up: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body, points = await self._report(scope, receive)
        except Refused as refused:
            self.counters.refuse(refused.reason)
            await _refuse(scope, send, refused)
            return
        except Exception:
            # A defect of ours. The sender keeps its points and comes again; the log has the traceback.
            log.exception("a report failed")
            self.counters.refuse("internal error")
            await _refuse(scope, send, Refused(500, "internal error", "the gateway failed; its log says why"))
            return
        self.counters.reports += 1
        self.counters.points += points
        await _answer(send, 200, body)

    async def _report(self, scope: Scope, receive: Receive) -> tuple[bytes, int]:
        headers = dict(scope["headers"])
        claims = await self._claims(scope, headers)
        _check_headers(headers)
        attempt = await self._attempt(claims)
        if (wait_s := attempt.wait_s(self.clock())) > 0:
            raise Refused(429, "too often", "this attempt reports too often", retry_after_s=wait_s)
        try:
            points, final, origin = read(await _body(receive))
        except UnreadableError as error:
            raise Refused(422, "unreadable", str(error)) from None
        kept = attempt.known(points)
        if len(kept) < len(points):
            self._names_dropped(attempt, claims, len(points) - len(kept))
        report = Report(claims.experiment_uid, claims.number, claims.attempt, kept, final, origin)
        taken = await self._stored(report)
        if taken.state is None:
            raise Refused(404, "unknown attempt", _unknown(claims))
        attempt.ended = taken.ended.timestamp() if taken.ended and taken.state.terminal else None
        try:
            await self.tell.take(report, taken)
        except EvertuneError as error:
            raise _away(error) from None
        next_after_s = NEXT_AFTER_S + (SLOW_AFTER_S - NEXT_AFTER_S) * self.queue.fullness
        stop = b"true" if taken.stop or taken.state.terminal else b"false"
        return b'{"accepted":%d,"next_after_s":%.1f,"stop":%s}' % (len(kept), next_after_s, stop), len(kept)

    async def _claims(self, scope: Scope, headers: dict[bytes, bytes]) -> Claims:
        scheme, _, token = headers.get(b"authorization", b"").strip().partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Refused(401, "no token", "a report needs the header Authorization: Bearer with its attempt's token")
        text = token.strip().decode("latin-1") if len(token) <= MAX_TOKEN_CHARS else ""
        peer = str((scope.get("client") or ("unknown",))[0])
        claims: Claims | Refusal | Denied
        if not of_account(text):
            claims = self.keys.verify(text)
        elif self.accounts is not None:
            claims = await self.accounts.claims(text)
        else:
            claims = NO_ACCOUNTS
        if isinstance(claims, Denied):
            if claims.retry_after_s is None:
                self.counters.warn(claims.reason, peer, why=claims.sentence)
            raise Refused(claims.status, claims.reason, claims.sentence, retry_after_s=claims.retry_after_s)
        if not isinstance(claims, Claims):
            self.counters.warn(claims.value, peer)
            raise Refused(401, claims.value, f"the token is not accepted: {claims.value}")
        if claims.trial != scope["path"][len(BEFORE) : -len(AFTER)]:
            self.counters.warn("wrong trial", peer, trial=claims.trial)
            raise Refused(
                403, "wrong trial", f"this {'pod' if of_account(text) else 'token'} is for trial {claims.trial}"
            )
        return claims

    async def _attempt(self, claims: Claims) -> Attempt:
        """What is remembered of the attempt, or read from the database when it is new here."""
        key = (claims.experiment_uid, claims.number, claims.attempt)
        attempt = self.attempts.get(key)
        if attempt is None:
            if self._looking_up >= MAX_LOOKING_UP:
                raise Refused(429, "busy", "the gateway is busy; repeat this report", retry_after_s=RETRY_AFTER_S)
            self._looking_up += 1
            try:
                async with asyncio.timeout(LOOK_UP_S):
                    known = await asyncio.to_thread(self.look_up, *key)
            except TimeoutError:
                raise _away(UnavailableError(f"the database has not answered for {LOOK_UP_S:.0f} s")) from None
            except EvertuneError as error:
                raise _away(error) from None
            finally:
                self._looking_up -= 1
            if known is None:
                raise Refused(404, "unknown attempt", _unknown(claims))
            attempt = self.attempts.add(key, names=known.names, ended=known.ended, now=self.clock())
        if attempt.ended is not None and self.clock() - max(attempt.ended, self.started) > GRACE_S:
            sentence = f"attempt {claims.attempt} of {claims.trial} ended more than {GRACE_S / 60:g} minutes ago"
            raise Refused(410, "ended", sentence, stop=True)
        return attempt

    async def _stored(self, report: Report) -> Taken:
        try:
            return await self.queue.put(report)
        except QueueFullError:
            raise Refused(
                429, "queue full", "the gateway has more reports than it can store", retry_after_s=RETRY_AFTER_S
            ) from None
        except EvertuneError as error:
            raise _away(error) from None

    def _names_dropped(self, attempt: Attempt, claims: Claims, count: int) -> None:
        self.counters.names_dropped += count
        if not attempt.warned:
            attempt.warned = True
            log.warning(
                f"a trial reports more than {MAX_NAMES} metrics; further names are left out",
                trial=claims.trial,
                attempt=claims.attempt,
            )


def _unknown(claims: Claims) -> str:
    return f"there is no attempt {claims.attempt} of {claims.trial}; its experiment may have been deleted"


def _away(error: EvertuneError) -> Refused:
    """503: nothing is wrong with the report. What the database said is for the log, not for whoever reports."""
    log.warning("a report cannot be stored now", error=str(error))
    return Refused(
        503, "unavailable", "the report cannot be stored now; keep it and repeat it", retry_after_s=RETRY_AFTER_S
    )


def _check_headers(headers: dict[bytes, bytes]) -> None:
    """Refuse by what the sender announces, before any of the body is read."""
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding not in (b"", b"identity"):
        raise Refused(415, "encoded", "a report is plain JSON, without a Content-Encoding")
    length = headers.get(b"content-length", b"0").strip()
    if not length.isdigit() or len(length) > 20 or int(length) > MAX_BODY_BYTES:
        raise _too_large()


def _too_large() -> Refused:
    return Refused(413, "too large", f"a report has at most {MAX_BODY_BYTES >> 20} MiB: send several")


async def _body(receive: Receive) -> bytes:
    """The whole body, read no further than its limit."""
    parts: list[bytes] = []
    size = 0
    while True:  # the connection has a clock: see `protocol`
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "disconnected", "the sender has gone")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


_JSON = (b"content-type", b"application/json")
# The body may not have been read, and a sender may still be writing it: close, or it would be read to no end.
_UNREAD = frozenset((413, 415))


def _refuse(scope: Scope, send: Send, refused: Refused) -> Awaitable[None]:
    body: dict[str, object] = {"error": refused.sentence}
    extra: list[tuple[bytes, bytes]] = []
    if refused.stop:
        body["stop"] = True
    if refused.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if refused.retry_after_s is not None:
        extra.append((b"retry-after", b"%d" % max(1, round(refused.retry_after_s))))
    announced = dict(scope["headers"])
    if refused.status in _UNREAD or b"content-length" not in announced or _large(announced[b"content-length"]):
        extra.append((b"connection", b"close"))
    return _answer(send, refused.status, json.dumps(body).encode(), extra)


def _large(length: bytes) -> bool:
    return not length.isdigit() or len(length) > 5


async def _answer(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *(extra or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
