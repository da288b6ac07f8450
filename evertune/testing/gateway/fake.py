"""A gateway in memory that speaks the ingest protocol over real HTTP, and fails when it is told to.

For tests of whoever sends reports. It passes `GatewayContract`; beyond that it can go away and come back on the same
port (`down`, `up`), answer 503 or 429 to the next requests, and take its time. Nothing survives the process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from evertune.domain.metrics import Point, placed

MAX_BODY = 1 << 20
MAX_POINTS = 1000
MAX_ORIGIN_CHARS = 64
MAX_NAME = 512
MAX_VALUE = 64 << 10
MAX_NAMES = 256
REPORTS_A_SECOND = 20.0
BURST = 60.0
GRACE_S = 600.0
PREFIX, SUFFIX = "/ingest/v1/trials/", "/reports"


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, sentence: str, retry_after_s: int | None = None, stop: bool | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after_s = retry_after_s
        self.stop = stop


@dataclass
class _Attempt:
    points: dict[tuple[str, int], Point] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    origins: list[str] = field(default_factory=list)
    ended: float | None = None
    stop: bool = False
    allowance: float = BURST
    counted: float = 0.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gateway: FakeGateway

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or that we left in the middle of an answer, is nothing to print about."""


class FakeGateway:
    """`with FakeGateway() as gateway:` serves at `gateway.url`. All methods may be called from any thread."""

    def __init__(
        self, *, next_after_s: float = 0.1, limited: bool = True, tls: SSLContext | None = None, port: int = 0
    ) -> None:
        self.next_after_s = next_after_s
        self.limited = limited  # False: no 429 but those asked for
        self.latency_s = 0.0
        self._tls = tls  # serve https with it
        self.requests = 0  # all that arrived, refused ones as well
        self._keys = {"k1": secrets.token_bytes(32)}
        self._kid = "k1"
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._failures: list[Refusal] = []
        self._offset_s = 0.0
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._port = port  # 0: any; while it is down another program may get that one
        self._connections: set[Any] = set()

    # ---------------------------------------------------------------------------- coming and going

    def up(self) -> None:
        """Listen; always at the same port."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.gateway = self
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and cut those that there are."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            with self._lock:
                connections = list(self._connections)
            for connection in connections:
                connection.cut()

    def __enter__(self) -> FakeGateway:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def fail(self, status: int, times: int = 1, retry_after_s: int | None = None) -> None:
        """Answer the next `times` requests with `status`."""
        with self._lock:
            self._failures += [Refusal(status, "the test asks for it", retry_after_s)] * times

    def pass_time(self, seconds: float) -> None:
        """Move the gateway's clock."""
        with self._lock:
            self._offset_s += seconds

    # ------------------------------------------------------------------------------------ attempts

    def open_attempt(self, trial: str, attempt: int = 1) -> str:
        """Begin an attempt, or find it. Its token."""
        with self._lock:
            self._attempts.setdefault((trial, attempt), _Attempt(counted=self._now()))
        return self.token(trial, attempt)

    def end_attempt(self, trial: str, attempt: int = 1) -> None:
        with self._lock:
            self._attempts[trial, attempt].ended = self._now()

    def ask_to_stop(self, trial: str, attempt: int = 1) -> None:
        with self._lock:
            self._attempts[trial, attempt].stop = True

    def points(self, trial: str, attempt: int = 1) -> list[Point]:
        """All that is stored, by `seq`."""
        with self._lock:
            return sorted(self._attempts[trial, attempt].points.values(), key=lambda point: (point.seq, point.metric))

    # -------------------------------------------------------------------------------------- tokens

    def token(self, trial: str, attempt: int = 1) -> str:
        """A valid one, whether or not there is such an attempt."""
        claims = json.dumps({"u": "uid", "n": 1, "a": attempt, "t": trial}).encode()
        signed = f"et1.{self._kid}.{_b64(claims)}"
        return f"{signed}.{_b64(hmac.digest(self._keys[self._kid], signed.encode(), hashlib.sha256))}"

    def rotate(self, retire: bool = False) -> None:
        """Sign with a new key from now on; `retire`: forget the older ones."""
        with self._lock:
            if retire:
                self._keys.clear()
            self._kid = f"k{secrets.token_hex(4)}"
            self._keys[self._kid] = secrets.token_bytes(32)

    # ------------------------------------------------------------------------------------- requests

    def _now(self) -> float:
        return time.monotonic() + self._offset_s

    def take(self, trial: str, authorization: str, body: bytes) -> dict[str, Any]:
        """What the gateway answers to one report. Raises Refusal."""
        time.sleep(self.latency_s)
        with self._lock:
            self.requests += 1
            if self._failures:
                raise self._failures.pop(0)
            claims = self._claims(authorization)
            if claims["t"] != trial:
                raise Refusal(403, f"the token is for another trial than {trial}")
            attempt = self._attempts.get((trial, claims["a"]))
            if attempt is None:
                raise Refusal(404, f"trial {trial} has no attempt {claims['a']}")
            if attempt.ended is not None and self._now() - attempt.ended > GRACE_S:
                raise Refusal(410, f"attempt {claims['a']} of trial {trial} ended more than 10 minutes ago", stop=True)
            self._limit(attempt)
            points, origin = read_report(body)
            if origin:
                if origin not in attempt.origins:
                    attempt.origins.append(origin)
                points = list(placed(points, attempt.origins.index(origin)))
            for point in points:
                if point.metric in attempt.names or len(attempt.names) < MAX_NAMES:
                    attempt.names.add(point.metric)
                    attempt.points.setdefault((point.metric, point.seq), point)
            accepted = sum((point.metric, point.seq) in attempt.points for point in points)
            stop = attempt.stop or attempt.ended is not None
            return {"accepted": accepted, "next_after_s": self.next_after_s, "stop": stop}

    def _claims(self, authorization: str) -> dict[str, Any]:
        scheme, _, token = authorization.partition(" ")
        parts = token.split(".")
        if scheme.lower() != "bearer" or len(parts) != 4 or parts[0] != "et1":
            raise Refusal(401, "the header Authorization must carry a bearer token of evertune")
        key = self._keys.get(parts[1])
        signed = ".".join(parts[:3])
        mac = _b64(hmac.digest(key, signed.encode(), hashlib.sha256)) if key else ""
        if not key or not hmac.compare_digest(mac.encode(), parts[3].encode()):
            raise Refusal(401, "the token is not one that this gateway has signed with a key in use")
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4)))
        return claims

    def _limit(self, attempt: _Attempt) -> None:
        if not self.limited:
            return
        now = self._now()
        attempt.allowance = min(BURST, attempt.allowance + (now - attempt.counted) * REPORTS_A_SECOND)
        attempt.counted = now
        if attempt.allowance < 1:
            raise Refusal(429, f"more than {REPORTS_A_SECOND:.0f} reports a second", retry_after_s=1)
        attempt.allowance -= 1


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# ------------------------------------------------------------------------------------------------- the body


def read_report(body: bytes) -> tuple[list[Point], str]:
    """The points of a report and its origin. Raises Refusal, 422, for what the protocol does not allow."""
    try:
        report = json.loads(body)
    except ValueError as problem:
        raise Refusal(422, f"the body is not JSON: {problem}") from problem
    points = report.get("points") if isinstance(report, dict) else None
    if not isinstance(points, list):
        raise Refusal(422, "points: must be a list")
    if len(points) > MAX_POINTS:
        raise Refusal(422, f"points: {len(points)} are more than the {MAX_POINTS} that a report may hold")
    origin = report.get("origin") or ""
    if not isinstance(origin, str) or len(origin) > MAX_ORIGIN_CHARS:
        raise Refusal(422, f"origin: must be text of at most {MAX_ORIGIN_CHARS} characters")
    return [_point(point, index, report.get("seq")) for index, point in enumerate(points)], origin


def _point(point: Any, index: int, report_seq: Any) -> Point:
    where = f"points[{index}]"
    if not isinstance(point, dict):
        raise Refusal(422, f"{where}: must be an object")
    metric, value, step, timestamp = (point.get(name) for name in ("metric", "value", "step", "timestamp"))
    seq = point.get("seq")
    if seq is None and _whole(report_seq):
        seq = report_seq * 1000 + index
    text = value if isinstance(value, str) else json.dumps(value)
    if not isinstance(metric, str) or not 1 <= len(metric) <= MAX_NAME:
        raise Refusal(422, f"{where}.metric: must be a text of 1 to {MAX_NAME} characters")
    if not isinstance(value, str | int | float) or isinstance(value, bool) or len(text.encode()) > MAX_VALUE:
        raise Refusal(422, f"{where}.value: must be a number or a text of at most {MAX_VALUE} bytes")
    if seq is None or not _whole(seq):
        raise Refusal(422, f"{where}.seq: must be a whole number, unless the report has a `seq` of its own")
    if step is not None and (type(step) is not int or not -(2**63) <= step < 2**63):
        raise Refusal(422, f"{where}.step: must be a whole number of 64 bits")
    if timestamp is not None and (not isinstance(timestamp, int | float) or isinstance(timestamp, bool)):
        raise Refusal(422, f"{where}.timestamp: must be a number of seconds since the epoch")
    return Point(metric=metric, value=text, seq=seq, timestamp=timestamp, step=step)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        with self.server.gateway._lock:
            self.server.gateway._connections.add(self)

    def finish(self) -> None:
        with self.server.gateway._lock:
            self.server.gateway._connections.discard(self)
        super().finish()

    def cut(self) -> None:
        """End the connection under whoever uses it."""
        try:
            self.connection.shutdown(2)
        except OSError:
            return

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MAX_BODY:
                self.close_connection = True
                raise Refusal(413, f"the body of {length} bytes is longer than {MAX_BODY}")
            body = self.rfile.read(length)
            if not (self.path.startswith(PREFIX) and self.path.endswith(SUFFIX)):
                raise Refusal(404, f"there is nothing at {self.path}")
            trial = unquote(self.path[len(PREFIX) : -len(SUFFIX)])
            answer = self.server.gateway.take(trial, self.headers.get("Authorization") or "", body)
            self._answer(200, answer)
        except Refusal as refusal:
            stop = {} if refusal.stop is None else {"stop": refusal.stop}
            self._answer(refusal.status, {"error": str(refusal), **stop}, refusal.retry_after_s)

    def _answer(self, status: int, answer: dict[str, Any], retry_after_s: int | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after_s is not None:
            self.send_header("Retry-After", str(retry_after_s))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read answers, not a server's log."""
