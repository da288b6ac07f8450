"""What training code imports to report metrics, and to ask whether to stop, where to keep checkpoints, what to try.

    from evertune.report import report, should_stop

For users' programs: one file, standard library only, Python 3.8 or newer, so it can be copied alone into any training
image (hence its length, and os.path). `report` appends a line to a file: no lock, no network. The file is the spool, so
killing the process loses nothing. Where somebody reads it (EVERTUNE_REPORT_FILE) that is all. With a gateway only
(EVERTUNE_INGEST_URL, EVERTUNE_TOKEN) a background thread sends what the file holds. A point's `seq` is its place in the
file: sending again is harmless, and the trial's next process goes on where this one ended.

It refuses to disturb its host: no exception unless `report.strict` (then ReportError), one warning per kind of problem
through the logger "evertune.report", bounded memory, no signal handlers. Outside a trial it does nothing but say so.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPConnection
    from pathlib import Path
    from socket import socket
    from typing import Any

__all__ = ["ReportError", "checkpoint_dir", "flush", "params", "parent_checkpoint_dir", "report", "report_metrics"]
__all__ += ["resume_from", "should_stop"]

MAX_NAME = 512  # characters; this and the next are the gateway's limits
MAX_VALUE = 64 << 10  # bytes of UTF-8
MAX_POINTS = 500  # a request, and a line
MAX_BODY = 256 << 10  # bytes a request, and a line
BLOCK = 512 << 10  # bytes read at once: more than the longest line, a longest value whose every byte is escaped
QUEUE_POINTS = 10_000  # kept in memory while the file cannot be written ...
QUEUE_BYTES = 16 << 20  # ... and at most this much
REOPEN_S = 5.0  # between attempts to open a file that could not be opened
HTTP_TIMEOUT_S = 10.0
PAUSE_S = 0.5  # before the first request; afterwards the gateway says `next_after_s`
POLL_S = 10.0  # without anything to send, how often to ask whether to stop, once the program has asked
AWAY_S = (0.5, 30.0)  # first and longest pause after a failure
AWAY_WARNING_S = 30.0  # a gateway that is away for less is not worth a warning
EXIT_SHARED_S = 2.0  # how long a process waits at its end for another one that sends from the same spool
LEAVE_S = 10.0  # how long it waits then for its own thread to come out of OpenSSL: milliseconds, in truth
PUSHED = 1 << 42  # `seq` of what this module wrote: source 1, then 42 bits of offset

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_warned: set[str] = set()


class ReportError(RuntimeError):
    """What was reported cannot be kept as it is. Raised only when `report.strict` is set."""


def _warn(kind: str, sentence: str, strict: bool = True) -> None:
    if strict and report.strict:
        raise ReportError(sentence)
    if kind not in _warned:
        _warned.add(kind)
        import logging

        logging.getLogger("evertune.report").warning("evertune: %s", sentence)


def _value(value: Any, unwrap: bool = True) -> Any:
    """A number or a text for JSON. Raises TypeError or ValueError for what is neither."""
    if value is None:
        raise TypeError("it is None")
    if isinstance(value, float):  # numpy's float64 is one
        return float(value) if value - value == 0 else _text(repr(float(value)))
    if isinstance(value, int):  # a bool as 0 or 1
        number = int(value)
        return number if -(1 << 63) <= number < 1 << 63 else str(number)
    if isinstance(value, str):
        return _text(str(value))
    if unwrap and callable(getattr(value, "item", None)):  # scalars of numpy, torch, jax; tensors of one element
        return _value(value.item(), unwrap=False)
    if hasattr(type(value), "__float__"):
        return _value(float(value))
    raise TypeError(f"a {type(value).__name__} is neither a number nor a text")


def _text(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_VALUE:
        raise ValueError(f"its text of {len(data):,} bytes is longer than the {MAX_VALUE:,} that are kept")
    return data.decode()


def _step(step: Any) -> int | None:
    with suppress(Exception):
        number = step.item() if callable(getattr(step, "item", None)) else step
        if int(number) == number and -(1 << 63) <= number < 1 << 63:
            return int(number)
    _warn("step", f"step {step!r:.100} is left out: a step is a whole number of at most 64 bits")
    return None


def _lines(metrics: dict[str, Any], step: int | None, now: float) -> list[tuple[int, bytes]]:
    """The report as (points, line), more than one line where one would be longer than a request may be."""
    line = _encode({"metrics": metrics, "step": step, "time": now}).encode() + b"\n"
    if len(metrics) == 1 or (len(metrics) <= MAX_POINTS and len(line) <= MAX_BODY):
        return [(len(metrics), line)]
    items = list(metrics.items())
    half = len(items) // 2
    return _lines(dict(items[:half]), step, now) + _lines(dict(items[half:]), step, now)


class _Spool:
    """The file that reports are appended to, and a bounded queue in memory while it cannot be written.

    `append` takes no lock while the file is well, so it may be called from any thread, forked process or signal
    handler: O_APPEND makes one write one line. `cap` bytes may wait for the gateway; 0 when somebody reads the file.
    """

    def __init__(self, path: str, cap: int, private: bool = False) -> None:
        self.path, self.cap = path, cap
        self.private = private  # in a temporary directory that must be ours alone
        self.base = 0  # offset of the file's first byte
        self.queue: deque[tuple[int, int, bytes]] = deque()  # (offset, points, line)
        self.dropped = 0
        self._fd, self._is = -1, (0, 0, False)
        self.after_fork()

    def after_fork(self) -> None:
        """The parent sends what its queue holds; locks of its threads would never be released here."""
        self.lock = threading.RLock()
        self._closed_until = 0.0
        self.queue.clear()
        self.queued = [0, 0]  # points, bytes
        # Above any offset of the file, and in a place of its own for each process.
        self._next = 1 << 41 | int.from_bytes(os.urandom(5), "big")
        self.sent_here = -1  # how much of the file is delivered, known to the process that sends

    def append(self, points: int, line: bytes) -> None:
        if self.queue and not self.cap:
            self.write_queued()
        problem = self._write(points, line)
        if not problem:
            return
        with self.lock:
            if self.queued[0] + points > QUEUE_POINTS or self.queued[1] + len(line) > QUEUE_BYTES:
                self._drop(points, f"{self.path} cannot be written ({problem}) and the queue in memory is full")
                return
            self.queue.append((self._next, points, line))
            self._next += len(line)
            self.queued = [self.queued[0] + points, self.queued[1] + len(line)]

    def write_queued(self) -> None:
        """Move the queue into the file as far as possible: where nobody sends, that is its only way out."""
        with self.lock:
            while self.queue and not self._write(*self.queue[0][1:]):
                self.take(1)

    def take(self, lines: int) -> None:
        with self.lock:
            for _ in range(lines):
                _, points, line = self.queue.popleft()
                self.queued = [self.queued[0] - points, self.queued[1] - len(line)]

    def _write(self, points: int, line: bytes) -> str:
        """Append to the file. The reason why not, empty when it is written or dropped for good."""
        try:
            size = self.size()
            if self.cap and size > self.cap and size - self.sent() > self.cap:
                self._drop(points, f"the gateway has not taken the {self.cap >> 20} MiB that wait in {self.path}")
                return ""
            # A process killed in the middle of its write, or a full disk, left a piece of a line.
            torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
            written = os.write(self._fd, b"\n" + line if torn else line) - torn
        except OSError as problem:
            return problem.strerror or str(problem)
        # With all but its newline the line counts: whoever appends next brings it.
        return "" if written >= len(line) - 1 else "no space left"

    def _drop(self, points: int, reason: str) -> None:
        self.dropped += points
        _warn("dropped", f"points are dropped from now on: {reason}")

    def size(self) -> int:
        """Bytes in the file. Opens it, also when somebody closed or replaced it. Raises OSError."""
        if self._fd >= 0:
            with suppress(OSError):
                stat = os.fstat(self._fd)
                if (stat.st_dev, stat.st_ino, stat.st_nlink > 0) == self._is:
                    return stat.st_size
        with self.lock:
            if time.monotonic() < self._closed_until:
                raise OSError(f"{self.path} could not be opened")
            self._closed_until = time.monotonic() + REOPEN_S
            self._fd = self._open()  # what it was may by now be another file of the program: it is not closed
            self._closed_until = 0.0
            stat = os.fstat(self._fd)
            self._is = (stat.st_dev, stat.st_ino, stat.st_nlink > 0)
            self.sent_here = -1
            return stat.st_size

    def _open(self) -> int:
        folder = os.path.dirname(self.path)
        os.makedirs(folder, mode=0o700 if self.private else 0o777, exist_ok=True)
        if self.private and (os.lstat(folder).st_uid, os.lstat(folder).st_mode & 0o022) != (os.getuid(), 0):
            raise PermissionError(0, f"{folder} can be written by others")
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600 if self.private else 0o644)
        if self.cap:
            # Where an earlier process's file went with its container, the same offsets would be taken for known points.
            # So each file begins at a random one, which its first line says, whichever process wrote that.
            if os.fstat(fd).st_size == 0:
                os.write(fd, b'{"base": %d}\n' % int.from_bytes(os.urandom(5), "big"))
            with suppress(ValueError):
                self.base = int(json.loads(os.pread(fd, 64, 0).split(b"\n")[0]).get("base", 0))
        return fd

    def own(self) -> bool:
        """Whether this process is the one that sends: a lock that the kernel frees when the process is gone."""
        if self.sent_here < 0:
            try:
                self.size()
                import fcntl

                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                if self._fd < 0 or isinstance(problem, (BlockingIOError, PermissionError)):
                    return False  # else: a file system without locks, where two may send the same, which is harmless
            self.sent_here = self.sent()
        return True

    def sent(self) -> int:
        """How many bytes of the file the gateway has. The note beside it counts only for this very file."""
        if self.sent_here >= 0:
            return self.sent_here
        with suppress(OSError, ValueError), open(self.path + ".sent") as file:
            base, sent = (int(word) for word in file.read().split())
            if base == self.base and 0 <= sent <= self.size():
                return sent
        return 0

    def note_sent(self, sent: int) -> None:
        self.sent_here = sent
        with suppress(OSError):  # a full disk: sending twice is harmless
            with open(self.path + ".sent~", "w") as file:
                file.write(f"{self.base} {sent}\n")
            os.replace(self.path + ".sent~", self.path + ".sent")

    def read(self) -> tuple[list[bytes], int]:
        """Points from the first whole lines that are not sent, for one request, and where in the file they end."""
        start = self.sent_here
        data = os.pread(self._fd, BLOCK, start)
        lines = data.split(b"\n")[:-1]
        if not lines:  # nothing, or half a line - or no line of ours at all, when it is as long as that
            return [], start + (BLOCK if len(data) == BLOCK else 0)
        points, taken = _pack(lines, self.base + start)
        return points, start + sum(len(line) + 1 for line in lines[:taken])


def _pack(lines: list[bytes], offset: int) -> tuple[list[bytes], int]:
    """The points of as many lines as one request takes, and how many lines that is."""
    points: list[bytes] = []
    size = 0
    for taken, line in enumerate(lines):
        found = _points(line, offset)
        size += sum(map(len, found))
        if points and (len(points) + len(found) > MAX_POINTS or size > MAX_BODY):
            return points, taken
        points += found
        offset += len(line) + 1
    return points, len(lines)


def _points(line: bytes, offset: int) -> list[bytes]:
    """What a line says, as points of the gateway's protocol. Nothing for what is not a line of ours."""
    try:
        told = json.loads(line)
        place = {"seq": PUSHED | offset, "timestamp": told["time"], "step": told["step"]}
        return [_encode({"metric": name, "value": value, **place}).encode() for name, value in told["metrics"].items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


class _Sender:
    """Sends what the spool holds, from a daemon thread and from `flush`: one request at a time, oldest points first."""

    def __init__(self, spool: _Spool, url: str, token: str, trial: str) -> None:
        self.spool, self.url, self.token, self.trial = spool, url, token, trial
        pod = os.environ.get("EVERTUNE_ORIGIN")  # each pod of an attempt counts its places from 0
        self.origin = b', "origin": ' + _encode(pod).encode() if pod else b""
        self.asked = self.stop = False  # whether to stop: whether the program asks, and the answer
        self.over = False  # refused for ever
        self.pause = PAUSE_S
        self.away = self.retry_after = 0.0  # seconds: the pause after a failure; what the gateway asked for ...
        self.due = 0.0  # ... and when that is over
        self.answered = time.monotonic()
        self.ending = False  # the interpreter is on its way out
        self.thread = 0  # which sends behind the program's back
        self.after_fork()

    def after_fork(self) -> None:
        self.busy = threading.Lock()
        self.pid = 0  # of the process whose thread runs
        self.connection: HTTPConnection | None = None  # the parent's stays open: this only closes our copy
        self.sock: socket | None = None  # of the request under way, over https

    def start(self) -> None:
        """Have a thread in this process. Cheap when there is one; a second one, from a race, does no harm."""
        if self.pid != os.getpid() and not self.over:
            self.pid = os.getpid()
            with suppress(RuntimeError):  # the interpreter is on its way out: the flush at exit sends
                threading.Thread(target=self._run, name="evertune.report", daemon=True).start()
            util = sys.modules.get("multiprocessing.util")
            if util is not None:  # its processes leave without atexit; they run these instead
                util.Finalize(None, _at_exit, exitpriority=0)

    def _run(self) -> None:
        self.thread = threading.get_ident()
        while not self.over:
            with self.busy:
                if self.ending:
                    return
                wait = self._send(HTTP_TIMEOUT_S)
            time.sleep(wait or min(self.pause / 20, 1.0))  # a backlog goes at the pace of the gateway's rate limit

    def flush(self, timeout_s: float, at_exit: bool = False) -> bool:
        """Send what was reported before this call, from the calling thread. False when the time is up before."""
        deadline = time.monotonic() + timeout_s
        goal = 0
        with suppress(OSError):
            goal = self.spool.size()
        while not self.over and self.busy.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                if not self.spool.queue and (not goal or self.spool.sent() >= goal):
                    return True
                wait = self._send(max(0.2, min(HTTP_TIMEOUT_S, deadline - time.monotonic())))
            finally:
                self.busy.release()
            left = deadline - time.monotonic()
            if at_exit and self.spool.sent_here < 0 and not self.away:
                deadline, at_exit = min(deadline, time.monotonic() + EXIT_SHARED_S), False
            if left <= (wait if self.away else 0.0):
                break  # the gateway will not be asked again in time
            time.sleep(wait if self.away else min(wait, 0.05))
        return False

    def leave(self) -> None:
        """Have our thread out of OpenSSL, and keep it out: an interpreter that ends around it there crashes."""
        self.ending = True
        if self.pid != os.getpid() or not self.url.lower().startswith("https:"):
            return
        if self.sock is not None:
            from socket import SHUT_RDWR, socket

            with suppress(OSError):  # what it waits for is over at once
                socket.shutdown(self.sock, SHUT_RDWR)
        if self.busy.acquire(timeout=LEAVE_S):
            self.busy.release()

    def _send(self, timeout: float) -> float:
        """Send one batch if there is one. Seconds until the next is due, 0 while more waits. Never raises."""
        patience = self.due - time.monotonic()
        if self.over or patience > 0:  # found out by the other thread, while this one waited for its turn
            return max(patience, 0.01)
        try:
            return self._batch(timeout)
        except Exception as problem:  # also what a file system thinks of: the thread must outlive it
            longest = min(AWAY_S[1], max(AWAY_S[0], self.away * 2))
            self.away = self.retry_after or longest * (0.5 + os.urandom(1)[0] / 510)
            self.due, self.retry_after = time.monotonic() + self.retry_after, 0.0
            if time.monotonic() - self.answered > AWAY_WARNING_S and not self.over:
                where = f"{self.url} ({problem}); points wait in {self.spool.path}"
                _warn("away", f"trial {self.trial} cannot reach the gateway {where}", strict=False)
            return self.away

    def _batch(self, timeout: float) -> float:
        spool = self.spool
        if spool.queue:
            waiting = list(spool.queue)[:MAX_POINTS]
            points, taken = _pack([line[:-1] for _, _, line in waiting], waiting[0][0])
            self._deliver(points, timeout)
            spool.take(taken)
            return 0.0
        if not spool.own():
            return self.pause
        start = spool.sent_here
        points, end = spool.read()
        if end > start:
            if points:
                self._deliver(points, timeout)
            if spool.sent_here == start:  # else it is another file by now
                spool.note_sent(end)
            return 0.0
        if self.asked and not self.stop and time.monotonic() - self.answered >= POLL_S:
            self._post([], timeout)
        return self.pause

    def _deliver(self, points: list[bytes], timeout: float) -> None:
        """Raises OSError when the gateway is away: all is sent again then. What it refuses is dropped, alone."""
        refused = self._post(points, timeout)
        if refused and len(points) > 1:
            half = len(points) // 2
            self._deliver(points[:half], timeout)
            self._deliver(points[half:], timeout)
        elif refused:
            self.spool.dropped += 1
            _warn("refused", f"the gateway refuses a point of trial {self.trial}: {refused}", strict=False)

    def _post(self, points: list[bytes], timeout: float) -> str:
        """One request. Why these points are refused, however often they are sent; empty when they are taken."""
        body = b'{"points": [' + b", ".join(points) + b'], "final": false' + self.origin + b"}"
        status, answer = self._exchange(body, timeout)
        reason = f"{status} {str(answer.get('error', ''))[:300]}".strip()
        if answer.get("stop") is True and not self.stop:
            self.stop = True
            with suppress(OSError), open(self.spool.path + ".stop", "a"):  # for the trial's other processes
                pass
        if status in (401, 403, 410):
            self.over = True
            _warn("over", f"the gateway takes no more reports of trial {self.trial}: {reason}", strict=False)
            raise ConnectionError(reason)
        if status in (400, 413, 422) and points:
            return reason
        # Some proxies answer 200 to everything: only an answer in the protocol's words is one.
        if status != 200 or not isinstance(answer.get("accepted"), int):
            raise ConnectionError(reason)
        self.answered, self.away = time.monotonic(), 0.0
        pause = answer.get("next_after_s")
        self.pause = min(max(float(pause), 0.05), 60.0) if isinstance(pause, (int, float)) else PAUSE_S
        return ""

    def _exchange(self, body: bytes, timeout: float) -> tuple[int, dict[str, Any]]:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection
        from ssl import create_default_context
        from urllib.parse import quote, urlsplit

        url = urlsplit(self.url)
        path = f"{url.path.rstrip('/')}/ingest/v1/trials/{quote(self.trial, safe='')}/reports"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        while True:
            kept = connection = self.connection if self.connection and self.connection.sock else None
            self.connection = trusted = None
            if connection is None and url.scheme == "https":
                trusted = create_default_context(cafile=os.environ.get("EVERTUNE_CA_FILE") or None)
                connection = HTTPSConnection(url.netloc, timeout=timeout, context=trusted)
            elif connection is None:
                connection = HTTPConnection(url.netloc, timeout=timeout)
            else:
                connection.sock.settimeout(timeout)
            try:
                shaking = None
                if trusted:  # in steps, so that `leave` can end the handshake too
                    HTTPConnection.connect(connection)
                    connection.sock = shaking = trusted.wrap_socket(
                        connection.sock, server_hostname=connection.host, do_handshake_on_connect=False
                    )
                if url.scheme == "https":
                    self.sock = connection.sock
                    if self.ending and threading.get_ident() == self.thread:
                        raise ConnectionError("the program ends")
                if shaking:
                    shaking.do_handshake()
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                data = response.read()
                break
            except (OSError, HTTPException):
                connection.close()
                if kept is None:
                    raise  # else the gateway has closed it meanwhile, which says nothing
            finally:
                self.sock = None
        self.connection = connection
        asked = response.getheader("Retry-After") or ""  # seconds; a date is as good as nothing
        self.retry_after = min(float(asked), 600.0) if asked.isdecimal() else 0.0
        answer = None
        with suppress(ValueError):
            answer = json.loads(data)
        return response.status, answer if isinstance(answer, dict) else {}


class _Trial:
    """What the environment says, read once, at the first call of anything here."""

    def __init__(self) -> None:
        get = os.environ.get
        self.name = get("EVERTUNE_TRIAL") or get("KATIB_TRIAL_NAME") or ""
        self.stop_file = get("EVERTUNE_STOP_FILE")
        self.checkpoints = get("EVERTUNE_CHECKPOINT_DIR") or ""
        self.resume = get("EVERTUNE_RESUME_FROM") or ""
        if not self.resume and self.name and self.checkpoints:  # looked at before this process writes its own
            with suppress(OSError):
                left = set(os.listdir(self.checkpoints)) - {"lost+found"}  # which is a fresh volume's
                self.resume = self.checkpoints if left else ""
        self.parent = get("EVERTUNE_PARENT_CHECKPOINT_DIR") or ""
        if not self.resume and self.parent and os.path.isdir(self.parent) and os.listdir(self.parent):
            self.resume = self.parent
        self.spool: _Spool | None = None
        self.sender: _Sender | None = None
        self.reported_by = 0  # the process that has something to flush
        file, url, token = get("EVERTUNE_REPORT_FILE"), get("EVERTUNE_INGEST_URL"), get("EVERTUNE_TOKEN")
        if file:
            self.spool = _Spool(os.path.abspath(file), 0)
        elif url and token and self.name:
            self.spool = _gateway_spool(self.name, token)
            self.sender = _Sender(self.spool, url, token, self.name)
        if self.spool:
            atexit.register(_at_exit)


def _gateway_spool(trial: str, token: str) -> _Spool:
    """Named by trial and attempt, so that a restarted process finds it, and by what the token is for."""
    from zlib import crc32

    get = os.environ.get
    claims = crc32((token.split(".") + [token] * 3)[2].encode())  # the same when the signing key is another
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in trial)[:150]
    given = get("EVERTUNE_SPOOL_DIR")
    folder = given or f"{get('TMPDIR') or '/tmp'}/evertune-{os.getuid()}"  # noqa: S108 - ours alone, see `_open`
    path = f"{folder}/{safe}.{get('EVERTUNE_ATTEMPT', '1')[:10]}.{claims:08x}.jsonl"
    return _Spool(os.path.abspath(path), max(1, int(_setting("EVERTUNE_SPOOL_MIB", 64))) << 20, private=not given)


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    return float(text) if text.replace(".", "", 1).isdecimal() else default


_lock = threading.RLock()
_here: _Trial | None = None


def _trial() -> _Trial:
    global _here
    if _here is None:
        with _lock:
            _here = _here or _Trial()
    return _here


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for part in (_here and _here.spool, _here and _here.sender):
        if part:
            part.after_fork()


def _at_exit() -> None:
    """Only a process that reported waits here, at most EVERTUNE_FLUSH_S seconds (10); its last words are a warning."""
    here = _here
    if here and here.spool and here.reported_by == os.getpid():
        here.reported_by = 0
        told = flush(_setting("EVERTUNE_FLUSH_S", 10.0), _at_exit=True)
        over = here.sender is not None and here.sender.over
        lost = here.spool.dropped + here.spool.queued[0]
        if lost and not over:
            _warn("lost", f"{lost} points of trial {here.name} are lost", strict=False)
        elif not told and not over:
            sentence = f"not all reports of trial {here.name} are delivered; they wait in {here.spool.path}"
            _warn("left", sentence, strict=False)
    if here and here.sender:
        here.sender.leave()


class _Report:
    """The function `report`, with its switch `strict`."""

    strict: bool = os.environ.get("EVERTUNE_REPORT_STRICT", "0").lower() in ("1", "true", "yes", "on")

    def __call__(self, *args: Mapping[str, Any], step: Any = None, **metrics: Any) -> None:
        """Report metrics of this trial: `report(loss=0.3, step=5)` or `report({"val/loss": 0.3}, step=5)`.

        Values are numbers, scalars of numpy, torch and the like, or text; a bool counts as 0 or 1, None is left out.
        `step` is a whole number. Returns in microseconds. Raises ReportError only if `report.strict`.
        """
        try:
            _report(args, step, metrics)
        except ReportError:
            raise
        except Exception as problem:
            _warn("broken", f"a report is lost ({type(problem).__name__}: {problem})")


report = _Report()


def _report(args: tuple[Mapping[str, Any], ...], step: Any, metrics: dict[str, Any]) -> None:
    now = time.time()
    for arg in args[::-1]:
        metrics = {**arg, **metrics}
    values = {}
    for name, value in metrics.items():
        try:
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
                raise ValueError(f"a name is a text of 1 to {MAX_NAME} characters")
            values[name if name.isascii() else _text(name)] = _value(value)
        except Exception as problem:
            _warn("none" if value is None else "value", f"metric {name!r:.100} is left out: {problem}")
    whole = None if step is None else _step(step)
    here = _trial()
    if here.spool is None:
        why = f"nobody collects what trial {here.name} reports" if here.name else "this is not a trial of evertune"
        _warn("outside", f"{why}, so `report` does nothing", strict=False)
    elif values:
        here.reported_by = os.getpid()
        for points, line in _lines(values, whole, now):
            here.spool.append(points, line)
        if here.sender:
            here.sender.start()
            if here.sender.over and report.strict:
                raise ReportError(f"the gateway takes no more reports of trial {here.name}")


def report_metrics(
    metrics: dict[str, Any],
    db_manager_address: str = "katib-db-manager.kubeflow:6789",
    timeout: int = 120,
) -> None:
    """Katib's own function, for code that only changes its import. Raises ValueError outside a trial, and for a value
    that `float` refuses. There is no database manager: its address and the time limit are not used.
    """
    if os.environ.get("KATIB_TRIAL_NAME") is None:
        raise ValueError("KATIB_TRIAL_NAME is not set, so this program is not a trial: there is nobody to report to")
    numbers = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except Exception as problem:
            raise ValueError(f"metric {name!r} is {value!r:.200}, which is not a number: {problem}") from problem
        numbers[name] = value if isinstance(value, str) else number  # text stays as it was written
    report(numbers)


def should_stop() -> bool:
    """Whether this trial should end itself now: it was stopped, pruned, or its experiment is over."""
    here = _trial()
    if here.stop_file and os.path.exists(here.stop_file):
        return True
    if here.sender is None:
        return False
    here.sender.asked = True
    here.sender.start()
    return here.sender.stop or os.path.exists(here.sender.spool.path + ".stop")


def params() -> dict[str, Any]:
    """The parameters of this trial with their types, a new dict each time; empty outside a trial."""
    try:
        found = json.loads(os.environ.get("EVERTUNE_PARAMETERS") or "{}")
        return dict(found)
    except (ValueError, TypeError):
        _warn("params", "EVERTUNE_PARAMETERS is not a JSON object, so `params()` is empty")
        return {}


def checkpoint_dir() -> Path:
    """The directory for this trial's checkpoints, made when it is missing; all attempts of the trial have the same one.

    Where no such place is given (outside a trial), a temporary directory of this process and those it starts: it is
    not deleted, and a second run by hand never resumes from the first by accident. Raises OSError if it cannot be made.
    """
    from pathlib import Path

    here = _trial()
    with _lock:
        if not here.checkpoints:
            import tempfile

            here.checkpoints = tempfile.mkdtemp(prefix="evertune-checkpoints-")
            os.environ["EVERTUNE_CHECKPOINT_DIR"] = here.checkpoints  # for the processes that this one starts
            where = f"EVERTUNE_CHECKPOINT_DIR is not set, so checkpoints go to {here.checkpoints}"
            _warn("checkpoints", where, strict=False)
    os.makedirs(here.checkpoints, exist_ok=True)
    return Path(here.checkpoints)


def parent_checkpoint_dir() -> Path | None:
    """Of the trial that this one goes on from, for reading only; None where there is none: most trials begin anew."""
    from pathlib import Path

    parent = _trial().parent
    return Path(parent) if parent else None


def resume_from() -> Path | None:
    """The directory to resume from: the one given, what an earlier attempt left, or the parent's. None: begin anew."""
    from pathlib import Path

    found = _trial().resume
    if found and not os.path.isdir(found):
        _warn("resume", f"there is no directory {found} to resume from, so the trial begins anew")
        return None
    return Path(found) if found else None


def flush(timeout_s: float = 10.0, *, _at_exit: bool = False) -> bool:
    """Wait until all that was reported has reached the file's reader or the gateway. False when `timeout_s` is up.

    A program that ends does so by itself, unless it is killed: then what the gateway has not got waits in the spool.
    """
    here = _trial()
    if here.sender:
        return here.sender.flush(timeout_s, _at_exit)
    if here.spool:
        here.spool.write_queued()
    return not (here.spool and here.spool.queue)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
