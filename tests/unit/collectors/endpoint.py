"""HTTP servers for tests: a trial that shows its metrics, and a gateway that speaks the ingest protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(handler: type[Handler], port: int = 0) -> Iterator[int]:
    """The port of a server that runs meanwhile."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def showing(page: Callable[[Handler], None]) -> Iterator[int]:
    """A trial's endpoint; `page` answers each request."""

    class Page(Handler):
        def do_GET(self) -> None:
            page(self)

    with serving(Page) as port:
        yield port


@dataclass
class Gateway:
    """Keeps what it took, as the database would: by (metric, seq)."""

    points: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # given before anything is taken
    answer: dict[str, Any] = field(default_factory=lambda: {"next_after_s": 0.0, "stop": False})
    paths: set[tuple[str, str]] = field(default_factory=set)
    connections: set[tuple[str, int]] = field(default_factory=set)
    again: int = 0  # points that came more than once

    @property
    def final(self) -> bool:
        return bool(self.reports) and self.reports[-1]["final"]

    def values(self, metric: str = "loss") -> list[str]:
        found = sorted((seq, point["value"]) for (name, seq), point in self.points.items() if name == metric)
        return [value for _, value in found]

    @contextmanager
    def open(self, port: int = 0) -> Iterator[int]:
        gateway = self

        class Ingest(Handler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                gateway.connections.add(self.client_address)
                if gateway.refusals:
                    status, headers = gateway.refusals.pop(0)
                    self.answer(json.dumps({"error": f"status {status}"}).encode(), status, **headers)
                    return
                gateway.paths.add((self.path, self.headers["Authorization"]))
                gateway.take(json.loads(body))
                self.answer(json.dumps(gateway.answer).encode())

        with serving(Ingest, port) as bound:
            yield bound

    def take(self, report: dict[str, Any]) -> None:
        self.reports.append(report)
        for point in report["points"]:
            key = (point["metric"], point["seq"])
            self.again += key in self.points
            self.points.setdefault(key, point)
