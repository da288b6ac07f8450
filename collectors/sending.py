"""Points to the ingest gateway over HTTP, on one connection that is kept. Called by the sidecar (`sidecar`).

A batch is sent until it is accepted: nothing is dropped while the gateway is away (503, refused, reset) or asks for
patience (429 and 503 with Retry-After). What the gateway will never take (`Refused`) is said once. Standard library
only, and `http.client` is imported with the first batch: the sidecar reads before it sends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from evertune.domain.metrics import Point

if TYPE_CHECKING:
    from http.client import HTTPConnection

POINTS = 1000  # a report, as the gateway allows
BODY = 1 << 20  # bytes of a report, as the gateway allows
TIMEOUT_S = 10.0
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0
LONGEST_RETRY_AFTER_S = 60.0  # whatever the gateway says
UNKNOWN_FOR_S = 30.0  # an attempt may report before its row, or a new key, is at the gateway
STALE_FOR_S = 150.0  # a kubelet that could not renew a token tries again within a minute or two


class Refused(Exception):
    """The gateway will not take this report, however often it is sent. The message is one sentence.

    `lasting`: nor any other one; the token or the trial is unknown to it.
    """

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


class Ended(Exception):
    """`stop` was set while a report waited for the gateway."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`next_after_s`: when the next report is welcome. `stop`: the trial should end itself."""

    accepted: int = 0
    next_after_s: float = 1.0
    stop: bool = False


class Sender:
    """Not for several threads at once."""

    def __init__(
        self,
        url: str,
        token: str | Path,
        trial: str,
        *,
        origin: str = "",
        wait: Callable[[float], bool],
        say: Callable[[str], None],
    ) -> None:
        """`token`: or the file that holds it, which is read again for each report, since it is replaced in time.

        `wait(seconds)` sleeps and returns True when sending should be given up; `say` writes a line for people.

        `origin`: which of the attempt's pods this is, see `domain.metrics.Report`.
        """
        self._origin = origin
        self._target = urlsplit(url if "//" in url else f"http://{url}")
        if self._target.scheme not in ("http", "https") or not self._target.hostname:
            raise ValueError(f"EVERTUNE_INGEST_URL is {url!r}, which is not the address of a gateway: http://host:port")
        self._path = f"{self._target.path.rstrip('/')}/ingest/v1/trials/{quote(trial, safe='')}/reports"
        self._token = token
        self._wait = wait
        self._say = say
        self._connection: HTTPConnection | None = None
        self._away = False

    def send(self, points: Sequence[Point], *, final: bool = False) -> Answer:
        """All of `points`, in as many reports as the limits need; the last one carries `final`.

        A report that the gateway finds wrong is left out and said. Raises Ended when `wait` says so, and Refused when
        the gateway takes nothing from this trial.
        """
        answer = Answer()
        bodies = _bodies(points, final, self._origin)
        for index, body in enumerate(bodies):
            try:
                answer = self._deliver(body)
            except Refused as error:
                if error.lasting:
                    raise
                self._say(f"the gateway refuses a report, it is left out: {error}")
                if final and index + 1 == len(bodies) and points:
                    return self.send((), final=True)
            if index + 1 < len(bodies) and self._wait(0.0):
                raise Ended
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _deliver(self, body: bytes) -> Answer:
        pause, begun = FIRST_WAIT_S, time.monotonic()
        while True:
            status, after, said = self._post(body)
            if status == 200:
                if self._away:
                    self._say("the gateway takes reports again")
                    self._away = False
                return Answer(
                    int(said.get("accepted", 0)), float(said.get("next_after_s", 1.0)), bool(said.get("stop"))
                )
            why = str(said.get("error") or f"it answers with status {status}")
            if status == 410:
                return Answer(stop=True)
            lasting = status in (401, 403, 404)
            patience_s = STALE_FOR_S if status == 401 and isinstance(self._token, Path) else UNKNOWN_FOR_S
            if lasting and time.monotonic() - begun >= patience_s:
                raise Refused(why, lasting=True)
            if 400 <= status < 500 and not lasting and status not in (408, 425, 429):
                raise Refused(why, lasting=False)
            if not self._away and status != 429:
                self._say(f"the gateway does not take reports now, they wait: {why}")
                self._away = True
            if self._wait(min(after, LONGEST_RETRY_AFTER_S) if after is not None else pause):
                raise Ended
            pause = min(pause * 2, LONGEST_WAIT_S)

    def _post(self, body: bytes) -> tuple[int, float | None, dict[str, Any]]:
        """Status, Retry-After in seconds, and the answer's object. Status 0: nobody answered."""
        from http.client import HTTPException

        try:
            token = self._token.read_text(encoding="ascii").strip() if isinstance(self._token, Path) else self._token
        except (OSError, ValueError) as error:
            return 0, None, {"error": f"the token cannot be read: {error}"}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("POST", self._path, body=body, headers=headers)
            answer = self._connection.getresponse()
            text = answer.read(1 << 16)
            if not answer.isclosed():
                self.close()  # longer than any answer of a gateway
            return answer.status, _seconds(answer.getheader("Retry-After")), _object(text)
        except (OSError, HTTPException) as error:
            self.close()
            return 0, None, {"error": f"{self._target.netloc} is away: {error or type(error).__name__}"}

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if self._target.scheme == "https" else HTTPConnection
        return kind(self._target.hostname or "", self._target.port, timeout=TIMEOUT_S)


def _bodies(points: Sequence[Point], final: bool, origin: str) -> list[bytes]:
    """Reports within the gateway's limits; one without points when there are none."""
    bodies: list[bytes] = []
    batch: list[str] = []
    size = 0
    for point in points:
        text = json.dumps(
            {
                "metric": point.metric,
                "value": point.value,
                "seq": point.seq,
                "timestamp": point.timestamp,
                "step": point.step,
            }
        )
        if batch and (len(batch) == POINTS or size + len(text) > BODY - 1024):
            bodies.append(_body(batch, False, origin))
            batch, size = [], 0
        batch.append(text)
        size += len(text) + 2
    bodies.append(_body(batch, final, origin))
    return bodies


def _body(batch: Sequence[str], final: bool, origin: str) -> bytes:
    whose = f', "origin": {json.dumps(origin)}' if origin else ""
    return f'{{"points": [{", ".join(batch)}], "final": {"true" if final else "false"}{whose}}}'.encode()


def _answer(said: dict[str, Any]) -> Answer:
    try:
        after = float(said.get("next_after_s", 1.0))
        return Answer(int(said.get("accepted", 0)), min(max(after, 0.0), LONGEST_RETRY_AFTER_S), bool(said.get("stop")))
    except (TypeError, ValueError):
        return Answer(stop=bool(said.get("stop")))


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:  # a date: our own pauses will do
        return None


def _object(text: bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
