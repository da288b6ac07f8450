"""The log of an attempt's pod as a file of the worker: followed while it runs, or fetched when it has ended.

Called by `attempt`. Lines are asked for with their times, which are not written: the time of the last line says where
to go on after a disconnect, a rotation by the kubelet, or another worker's death. What the file holds only grows, so
that a collector's places in it stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import POD
from evertune import archive
from evertune.protocols import JsonDict

log = structlog.get_logger()

NOTE = "log.followed"  # beside the log
FETCHED_BYTES = 256 << 20  # of a log that is fetched whole; the archive keeps less
READ_TIMEOUT_S = 600.0  # of a stream: a program may be silent for long, and asking anew costs little
PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
NOTE_EVERY_S = 1.0
_STAMP_END = b" "


ORIGIN = "origin"  # beside a log that was fetched: the uid of the pod that printed it


def origin_of(directory: Path) -> str:
    """Which pod's log was fetched into this directory; "" when none was."""
    try:
        return (directory / ORIGIN).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@dataclass
class _At:
    """How far the log of one container's life was read."""

    pod: str = ""  # its uid
    size: int = 0  # of our file then
    stamp: str = ""  # of the last line, RFC 3339 with nanoseconds
    equal: int = 0  # lines that had this very time


class PodLog:
    """The log of one attempt. `directory` is the attempt's own."""

    def __init__(self, api: Api, namespace: str, container: str, directory: Path) -> None:
        self._api = api
        self._namespace = namespace
        self._container = container
        self._directory = directory
        self._at: _At | None = None
        self._noted = 0.0
        self._ended: set[str] = set()  # uids of pods that were read to the end
        self._task: asyncio.Task[None] | None = None
        self._following = ""

    @property
    def path(self) -> Path:
        return self._directory / "log"

    # ----------------------------------------------------------------------------------------- following it

    def follow(self, pod: JsonDict) -> None:
        """Read on in the background until the container ends; a no-op while this pod is followed, or was read."""
        uid = str(pod["metadata"]["uid"])
        if self._following == uid or uid in self._ended or archive.archived(self.path).exists():
            return
        if self._task is not None:
            self._task.cancel()
        self._following = uid
        self._task = asyncio.create_task(self._follow(pod), name=f"log of {pod['metadata']['name']}")

    async def complete(self, pod: JsonDict | None, *, patience_s: float) -> None:
        """Read what is left of an ended pod's log. What the API server has no more is not an error."""
        await self.close()
        if archive.archived(self.path).exists():
            return
        if pod is not None and str(pod["metadata"]["uid"]) not in self._ended:
            await self._read(pod, follow=False, patience_s=patience_s)
        await asyncio.to_thread(self._touch)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task, self._following = None, ""

    async def _follow(self, pod: JsonDict) -> None:
        pause = PAUSE_S
        while True:
            try:
                if await self._read(pod, follow=True):
                    pause = PAUSE_S
            except ApiError as error:
                log.debug("log interrupted", pod=pod["metadata"]["name"], reason=str(error))
                if error.status == 404:
                    return
            # Ended, restarted in place, rotated or disconnected: only the pod's status can say, asked by our owner.
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    async def _read(self, pod: JsonDict, *, follow: bool, patience_s: float = 0.0) -> bool:
        """Append what is new; whether there was anything. Raises ApiError."""
        meta = pod["metadata"]
        path = POD.path(self._namespace, meta["name"], "log")
        if self._at is None:
            self._at = self._known()
        if self._at.pod != meta["uid"] or self._size() < self._at.size:  # another pod, or our file is gone
            self._at = _At(pod=str(meta["uid"]), size=self._size())
            self._write(b"", note=True)  # before any line of it: what is beyond this is known to be its own
        at = self._at
        query = {"container": self._container, "timestamps": "true"}
        if at.stamp:
            query["sinceTime"] = at.stamp[:19] + "Z"  # the server takes whole seconds
        scribe = _Scribe(at, skip=self._size() - at.size)
        if follow:
            stream = self._api.stream(path, query={**query, "follow": "true"}, read_timeout_s=READ_TIMEOUT_S)
            async with contextlib.aclosing(stream) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    self._append(scribe.take(chunk))
            self._write(b"", note=True)
        else:
            try:
                data = await self._api.text(path, query=query, limit_bytes=FETCHED_BYTES, patience_s=patience_s)
            except ApiError as error:
                if error.status not in (400, 404):  # it never started, or is gone
                    raise
                data = b""
            self._write(scribe.take(data) + scribe.rest(), note=True)
            self._ended.add(at.pod)
        return scribe.lines > 0

    def _append(self, data: bytes) -> None:
        if data:
            now = time.monotonic()
            due = now - self._noted > NOTE_EVERY_S
            self._noted = now if due else self._noted
            self._write(data, note=due)

    def _write(self, data: bytes, *, note: bool) -> None:
        """In the event loop, so that no cancellation comes between what was read and what is written: a few KiB."""
        assert self._at is not None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(data)
        self._at.size += len(data)
        if note:
            draft = self._directory / f"{NOTE}.new"
            draft.write_text(json.dumps(vars(self._at)), encoding="ascii")
            draft.replace(self._directory / NOTE)

    def _known(self) -> _At:
        try:
            return _At(**json.loads((self._directory / NOTE).read_text(encoding="ascii")))
        except (FileNotFoundError, ValueError, TypeError):
            return _At()

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _touch(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.touch(mode=0o600)

    # ------------------------------------------------------------------------------------------ fetching it

    async def fetch(self, pod: JsonDict, *, patience_s: float = 0.0) -> None:
        """The whole log of a pod at once; a no-op when there is a log. What the server has no more is no error."""
        if await asyncio.to_thread(archive.exists, self.path):
            return
        path = POD.path(self._namespace, pod["metadata"]["name"], "log")
        query = {"container": self._container}
        try:
            data = await self._api.text(path, query=query, limit_bytes=FETCHED_BYTES, patience_s=patience_s)
        except ApiError as error:
            if error.status not in (400, 404):
                raise
            return
        await asyncio.to_thread(self._put, data, str(pod["metadata"].get("uid") or ""))

    def _put(self, data: bytes, uid: str) -> None:
        """First whose log it is, then the log: nobody takes it for that of another pod."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / ORIGIN).write_text(uid)
        draft = self._directory / "log.new"
        draft.write_bytes(data)
        draft.replace(self.path)

    async def tail(self, pod: str, lines: int = 40, limit_bytes: int = 16_384) -> bytes:
        """The end of what the container printed; empty when it cannot be had."""
        query = {"container": self._container, "tailLines": str(lines)}
        try:
            path = POD.path(self._namespace, pod, "log")
            return (await self._api.text(path, query=query, limit_bytes=1 << 20, timeout_s=5.0))[-limit_bytes:]
        except ApiError:
            return b""


class _Scribe:
    """Takes the times off the lines of a stream, and leaves out those that are in the file."""

    def __init__(self, at: _At, *, skip: int) -> None:
        self._at = at
        self._skip = max(0, skip)  # bytes that were written but not noted
        self._seen = 0  # lines with the very time of the last noted one
        self._since, self._equal = at.stamp, at.equal
        self._held = b""
        self.lines = 0

    def take(self, chunk: bytes) -> bytes:
        *whole, self._held = (self._held + chunk).split(b"\n")
        return b"".join(self._line(line, b"\n") for line in whole)

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return self._line(held, b"") if held else b""

    def _line(self, line: bytes, newline: bytes) -> bytes:
        stamp, _, text = line.partition(_STAMP_END)
        time_ = _comparable(stamp.decode("ascii", "replace"))
        if self._since and time_ <= self._since:
            if time_ < self._since:
                return b""
            self._seen += 1
            if self._seen <= self._equal:
                return b""
        if time_ == self._at.stamp:
            self._at.equal += 1
        else:
            self._at.stamp, self._at.equal = time_, 1
        self.lines += 1
        data = text + newline
        if self._skip:
            left = data[self._skip :]
            self._skip -= len(data) - len(left)
            self._at.size += len(data) - len(left)
            return left
        return data


def _comparable(stamp: str) -> str:
    """RFC 3339 drops the zeros at the end of a fraction; with all nine digits, times sort as texts."""
    head, dot, fraction = stamp.rstrip("Z").partition(".")
    return f"{head}.{fraction:0<9}Z" if dot else f"{head}.{'':0<9}Z"
