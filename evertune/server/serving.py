"""uvicorn as this server runs it: bounded connections, nothing of it when idle, an end within five seconds.

Used by `__main__` and by tests, which run it in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from evertune.errors import EnvironmentProblem
from evertune.server.protocol import BoundedProtocol

KEEP_ALIVE_S = 75  # senders come back every second, or every few when it is full here
GRACE_S = 4  # at the end, for requests that are being answered


def configured(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


class Server(uvicorn.Server):
    """uvicorn's, without its tick, ten times a second, to see whether it was told to stop; and it ends with code 0."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        """Accept nothing new, answer what is there, end. In the loop's thread."""
        self.force_exit = self.should_exit  # told twice: now
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        await self._told.wait()


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises EnvironmentProblem in one sentence."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EnvironmentProblem(
            f"the server cannot listen on {host}:{port}: {reason}",
            hint="choose another EVERTUNE_SERVER_HOST or EVERTUNE_SERVER_PORT",
        ) from error
    listener.setblocking(False)
    return listener
