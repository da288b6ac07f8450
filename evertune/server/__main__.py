"""`python -m evertune.server [--only PART] [--host HOST] [--port PORT]`: serve until SIGTERM or SIGINT.

Then it accepts nothing new, answers what it has, and ends within five seconds. Started by the stack's parent and by
`evertune server`; whoever needs the address gives the port.
"""

from __future__ import annotations

import argparse
import asyncio

import structlog

import evertune.log as logs
from evertune.app import activate
from evertune.ending import leave, told
from evertune.errors import EvertuneError
from evertune.server.app import PARTS, Gateway, create_app
from evertune.server.serving import Server, bound, configured
from evertune.settings import Settings
from evertune.tokens import TokenKeys

log = structlog.get_logger()

DEFAULT_PORT = 8090  # stand-alone; the stack of a home has a port of its own


async def serve(settings: Settings, only: list[str]) -> None:
    keys = await asyncio.to_thread(TokenKeys.load, settings)
    gateway = Gateway.of(settings, keys, temporal_address=settings.temporal_address or "127.0.0.1:7233")
    listener = bound(settings.server_host, settings.server_port or DEFAULT_PORT)
    host, port = listener.getsockname()[:2]
    log.info("server listens", address=f"http://{host}:{port}", serves=",".join(only))
    await Server(configured(create_app(gateway, only=only))).serve(sockets=[listener])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evertune.server", description="The HTTP side of evertune.")
    parser.add_argument("--only", action="append", choices=PARTS, help="serve this part only")
    parser.add_argument("--host", help="address to listen on; default EVERTUNE_SERVER_HOST")
    parser.add_argument("--port", help="port to listen on; default EVERTUNE_SERVER_PORT")
    given = parser.parse_args(arguments)
    try:
        settings = Settings.load(server_host=given.host, server_port=given.port)
        logs.configure(settings)
        activate()
        asyncio.run(serve(settings, given.only or list(PARTS)))
    except EvertuneError as error:
        return told(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    leave(main())
