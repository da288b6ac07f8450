"""One cluster's API server: requests and streams of raw JSON, with its errors as one exception.

Called by everything here that speaks to Kubernetes. It knows no kinds and keeps no objects. Requests and streams have
connections of their own, so that a thousand open watches never make a request wait.
"""

from __future__ import annotations

import asyncio
import errno
import json
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import aiohttp

from activities.runners.kubernetes import credentials
from evertune.protocols import JsonDict

RETRIED = frozenset({429, 500, 502, 503, 504})
CONNECT_S = 10.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 10.0
CONNECTIONS = 100
_NETWORK = (aiohttp.ClientError, TimeoutError, OSError)


class ApiError(Exception):
    """What the API server refused, in its own sentence. `details` is that of its Status object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        retry_after: float | None = None,
        details: JsonDict | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after  # s
        self.details = details or {}

    @classmethod
    def of(cls, body: Any, status: int, retry_after: str | None = None) -> ApiError:
        """From a Status object, or whatever else came with that HTTP status."""
        body = body if isinstance(body, dict) else {}
        message = body.get("message") or f"the API server answered with HTTP status {status}"
        seconds: float | None = None
        if retry_after is not None and retry_after.replace(".", "", 1).isdigit():
            seconds = float(retry_after)
        details = body.get("details") or {}
        if seconds is None and details.get("retryAfterSeconds"):
            seconds = float(details["retryAfterSeconds"])
        return cls(
            int(body.get("code") or status),
            message,
            reason=body.get("reason", ""),
            retry_after=seconds,
            details=details,
        )


class Unreachable(ApiError):
    """No answer came. Whether the request was carried out is not known."""

    def __init__(self, server: str, cause: BaseException) -> None:
        super().__init__(0, f"the API server at {server} does not answer: {_why(cause)}", reason="Unreachable")


class Api:
    """A connection to one cluster. Make it with `connect`, inside the event loop that uses it, and `close` it."""

    def __init__(self, access: credentials.Access, *, wanted: str | None = None, kubeconfig: str | None = None) -> None:
        self._access = access
        self._wanted = wanted
        self._kubeconfig = kubeconfig
        self._generation = 0
        self._loading = asyncio.Lock()
        self._requests = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS))
        self._streams = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, socket_factory=_watchful))

    @classmethod
    async def connect(cls, context: str | None = None, *, kubeconfig: str | None = None) -> Self:
        """Read the configuration; nothing is sent. Raises UsageError and EnvironmentProblem, as `credentials.load`."""
        access = await credentials.load(context, kubeconfig)
        return cls(access, wanted=context, kubeconfig=kubeconfig)

    @property
    def context(self) -> str:
        """The name of the kubeconfig's context, `in-cluster` in a pod."""
        return self._access.context

    @property
    def server(self) -> str:
        """The API server's address, for messages."""
        return self._access.server

    async def close(self) -> None:
        await self._requests.close()
        await self._streams.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        patience_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> JsonDict:
        """One request; its JSON answer. Raises ApiError, Unreachable.

        With patience, a server that is busy, failing or away is asked again for so long, whatever the method: the
        callers' writes are made to be repeated.
        """
        answer = await self._patiently(method, path, query or {}, body, content_type, patience_s, timeout_s, None)
        try:
            return json.loads(answer) if answer.strip() else {}
        except ValueError:
            raise ApiError(502, f"{method} {path}: what answered at {self.server} does not speak JSON") from None

    async def text(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        limit_bytes: int,
        patience_s: float = 0.0,
        timeout_s: float = 60.0,
    ) -> bytes:
        """The first `limit_bytes` of an answer that is no JSON. Raises ApiError, Unreachable."""
        return await self._patiently("GET", path, query or {}, None, "", patience_s, timeout_s, limit_bytes)

    async def clock(self, *, timeout_s: float = 10.0) -> datetime | None:
        """What time it is there, in whole seconds; None when it does not say. Raises ApiError, Unreachable."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        async with self._open(self._requests, "GET", "/version", {}, None, "", timeout) as response:
            try:
                return parsedate_to_datetime(response.headers.get("Date", ""))
            except ValueError:
                return None

    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None, read_timeout_s: float
    ) -> AsyncIterator[bytes]:
        """The chunks of an answer as they come; Unreachable when none comes for `read_timeout_s`, or it breaks off."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=read_timeout_s)
        async with self._open(self._streams, "GET", path, query or {}, None, "", timeout) as response:
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            except _NETWORK as error:
                raise Unreachable(self.server, error) from None

    # ------------------------------------------------------------------------------------------ inside

    async def _patiently(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        content_type: str,
        patience_s: float,
        timeout_s: float,
        limit_bytes: int | None,
    ) -> bytes:
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        delay = FIRST_DELAY_S
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        while True:
            try:
                return await self._once(method, path, query, data, content_type, timeout, limit_bytes)
            except ApiError as error:
                if error.status not in RETRIED and not isinstance(error, Unreachable):
                    raise
                pause = delay * random.uniform(0.5, 1.5) if error.retry_after is None else error.retry_after  # noqa: S311
                if loop.time() + pause >= end:
                    raise
            await asyncio.sleep(pause)
            delay = min(LONGEST_DELAY_S, delay * 2)

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        data: bytes | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
        limit_bytes: int | None,
    ) -> bytes:
        async with self._open(self._requests, method, path, query, data, content_type, timeout) as response:
            try:
                if limit_bytes is None:
                    return await response.read()
                held = bytearray()
                async for chunk in response.content.iter_any():
                    held += chunk
                    if len(held) >= limit_bytes:
                        response.close()  # the rest is not wanted
                        break
                return bytes(held[:limit_bytes])
            except _NETWORK as error:
                raise Unreachable(self.server, error) from None

    @asynccontextmanager
    async def _open(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        query: Mapping[str, str],
        data: bytes | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 400. A 401 costs one reload of the credentials and one more try."""
        for last in (False, True):
            generation, access = self._generation, self._access
            try:
                response = await session.request(
                    method,
                    access.server + path,
                    params=query,
                    data=data,
                    headers={
                        "Accept": "application/json, */*",
                        **({"Content-Type": content_type} if data is not None else {}),
                        **await access.headers(),
                    },
                    timeout=timeout,
                    ssl=access.tls or True,
                    server_hostname=access.server_name,
                    proxy=access.proxy,
                    allow_redirects=False,
                )
            except _NETWORK as error:
                raise Unreachable(self.server, error) from None
            async with response:
                if response.status < 300:
                    yield response
                    return
                if response.status == 401 and not last:
                    await self._reload(generation)
                    continue
                raise await _refusal(response, self.server)

    async def _reload(self, generation: int) -> None:
        """Read the credentials anew, once for all requests that were refused with the same ones."""
        async with self._loading:
            if self._generation == generation:
                self._access = await credentials.load(self._wanted, self._kubeconfig)
                self._generation += 1


def _why(cause: BaseException) -> str:
    """A network error without what only programmers read in it."""
    match cause:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not accepted: {cause.certificate_error}"
        case aiohttp.ClientConnectorError():
            return cause.os_error.strerror or str(cause.os_error)
        case aiohttp.ClientPayloadError():
            return "its answer broke off"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "it closed the connection"
        case OSError(errno=errno.ECONNRESET | errno.EPIPE):
            return "it closed the connection"
    return str(cause) or type(cause).__name__


async def _refusal(response: aiohttp.ClientResponse, server: str) -> ApiError:
    try:
        text = await response.read()
    except _NETWORK as error:
        return Unreachable(server, error)
    try:
        body = json.loads(text)
    except ValueError:
        # Proxies and kubelets answer in plain text.
        body = {"message": text[:1000].decode(errors="replace").strip()}
    return ApiError.of(body, response.status, response.headers.get("Retry-After"))


def _watchful(address: Any) -> socket.socket:
    """A socket whose peer is probed when it is silent: a watch says nothing for minutes, also when the peer is gone."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
