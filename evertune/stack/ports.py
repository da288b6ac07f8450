"""Ports on 127.0.0.1 that belong to a home: chosen once, remembered, and changed only when somebody else took one.

Called by the stack's parent before it starts Temporal or the server. A port that the user asked for is never replaced.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterable
from pathlib import Path

from evertune.errors import EnvironmentProblem
from evertune.stack.files import read_json, write_json

LOOPBACK = "127.0.0.1"
# Below the range from which Linux (32768+) and macOS (49152+) take the ports of outgoing connections.
FIRST, LAST = 20_000, 32_000

PORT_NAMES = {
    "temporal": "EVERTUNE_TEMPORAL_PORT",
    "ui": "EVERTUNE_UI_PORT",
    "server": "EVERTUNE_SERVER_PORT",
}


def is_free(port: int) -> bool:
    """True when a server could listen there now (as Go servers do, with SO_REUSEADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def is_open(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """True when something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def choose(file: Path, wanted: dict[str, int | None]) -> tuple[dict[str, int], list[str]]:
    """A free port for each name, and a sentence for each remembered one that another program took.

    Ports that are remembered for other names stay theirs.

    Raises EnvironmentProblem when a port that the user asked for is busy.
    """
    remembered = read_json(file) or {}
    others = {port for name, port in remembered.items() if name not in wanted}
    chosen: dict[str, int] = {}
    notes: list[str] = []
    for name, port in wanted.items():
        if port is not None:
            if not is_free(port) or port in chosen.values():
                raise EnvironmentProblem(
                    f"port {port} on {LOOPBACK} is busy: another program listens there",
                    hint=f"stop that program, choose another {PORT_NAMES[name]}, or leave it unset for a free one",
                )
            chosen[name] = port
            continue
        before = remembered.get(name)
        if isinstance(before, int) and is_free(before) and before not in chosen.values():
            chosen[name] = before
            continue
        chosen[name] = next(
            port
            for port in _candidates(file, name)
            if port not in others and port not in chosen.values() and is_free(port)
        )
        if isinstance(before, int):
            notes.append(f"port {before} is used by another program now; {name} moves to port {chosen[name]}")
    if remembered | chosen != remembered:
        write_json(file, remembered | chosen)
    return chosen, notes


def _candidates(file: Path, name: str) -> Iterable[int]:
    """Every port of the range once, from a place that differs between homes so that they rarely meet."""
    size = LAST - FIRST
    start = zlib.crc32(f"{file} {name}".encode()) % size
    for step in range(size):
        yield FIRST + (start + step) % size
    raise EnvironmentProblem(f"no port from {FIRST} to {LAST} on {LOOPBACK} is free")
