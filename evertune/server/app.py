"""Puts the server together: which parts of the HTTP side are served, `/healthz` and `/livez`.

Called by `__main__`, and by tests with a store of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from evertune import __version__
from evertune.errors import EvertuneError
from evertune.server.accounts import Accounts
from evertune.server.counters import Counters
from evertune.server.database import LateStore
from evertune.server.ingest import AFTER, BEFORE, Ingest
from evertune.server.queue import STUCK_S, CommitQueue
from evertune.server.telling import Teller
from evertune.settings import Settings
from evertune.tokens import TokenKeys

PARTS = ("ingest",)  # what `--only` may name
HEALTH_S = 3.0  # for the database to answer
CLOSE_S = 3.0  # for what waits at the end


@dataclass
class Gateway:
    """The parts behind the routes, made for one event loop."""

    settings: Settings
    database: LateStore
    ingest: Ingest
    teller: Teller
    counters: Counters
    _pinging: asyncio.Task[None] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings, keys: TokenKeys, *, temporal_address: str) -> Gateway:
        database = LateStore(settings)
        teller = Teller(settings, database, temporal_address)
        counters = Counters()
        accounts = Accounts.of(settings, database, counters)
        queue = CommitQueue(database.add_reports)
        ingest = Ingest(keys, queue, database.attempt, teller, counters, accounts)
        return cls(settings, database, ingest, teller, counters)

    async def close(self) -> None:
        await self.ingest.queue.close(CLOSE_S)
        await self.teller.close()
        if self.ingest.accounts is not None:
            await self.ingest.accounts.close()
        await asyncio.to_thread(self.database.close)

    async def problem(self) -> str:
        """Why reports cannot be stored now, "" when they can."""
        if (busy_s := self.ingest.queue.busy_s) > STUCK_S:
            return f"the database has been at one batch for {busy_s:.0f} s"
        if self._pinging is None or self._pinging.done():  # one at a time, however many ask
            self._pinging = asyncio.create_task(asyncio.to_thread(self.database.ping))
        try:
            async with asyncio.timeout(HEALTH_S):
                await asyncio.shield(self._pinging)
        except TimeoutError:
            return f"the database has not answered for {HEALTH_S:.0f} s"
        except EvertuneError as error:
            return error.message
        return ""


def create_app(gateway: Gateway, *, only: Collection[str] = PARTS) -> ASGIApp:
    """The application with the parts that are named."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()

    app = FastAPI(
        title="evertune", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.add_exception_handler(HTTPException, _sentence)
    app.router.routes.append(Route("/healthz", _health_of(gateway), methods=["GET"]))
    app.router.routes.append(Route("/livez", _alive, methods=["GET"]))
    if "ingest" in only:
        # For its 405 and its place in the list of routes; reports themselves never get here.
        app.router.routes.append(Route(f"{BEFORE}{{trial}}{AFTER}", gateway.ingest, methods=["POST"]))
        return _reports_first(gateway.ingest, app)
    return app


def _reports_first(ingest: Ingest, app: FastAPI) -> ASGIApp:
    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            trial = path[len(BEFORE) : -len(AFTER)]
            if trial and "/" not in trial and path == f"{BEFORE}{trial}{AFTER}":
                await ingest(scope, receive, send)
                return
        await app(scope, receive, send)

    return dispatch


def _health_of(gateway: Gateway) -> Callable[[Request], object]:
    async def health(_: Request) -> JSONResponse:
        problem = await gateway.problem()
        queue = gateway.ingest.queue
        content = {
            "status": "unavailable" if problem else "ok",
            "problem": problem,
            "version": __version__,
            "waiting_reports": queue.reports,
            "attempts": len(gateway.ingest.attempts),
            **gateway.counters.as_dict(),
        }
        return JSONResponse(content, status_code=503 if problem else 200)

    return health


async def _alive(_: Request) -> JSONResponse:
    """This process answers. Nothing about the database, which a restart would not bring back."""
    return JSONResponse({"status": "ok"})


async def _sentence(request: Request, error: Exception) -> JSONResponse:
    """Every error of this server looks alike."""
    assert isinstance(error, HTTPException)
    known = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not for this address"}
    sentence = known.get(error.status_code, str(error.detail))
    return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)
