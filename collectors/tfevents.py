"""Event files of TensorFlow 1 and 2, PyTorch and tensorboardX, read while they grow. Made by `collectors.create`.

A directory is walked with all its sub-directories; whatever is not an event file is left alone. Which tags count, as in
Katib: the last part of a metric's name is a prefix of the tag (`accuracy` finds `accuracy_1`), and with a directory in
its name (`train/accuracy`) the file's directory must end with that. Beyond Katib, a tag that equals the whole name
counts as well: `add_scalar("train/accuracy", …)` is what PyTorch users write.

Values are the shortest text of their own type, as in Katib (a float32 of 0.1 is `0.1`); text summaries are text. Places
are record offsets (`domain.metrics.event_source`), so nothing is noted: after a restart all files are read again.

The frame of a record (length, its checksum, data, its checksum) is read here, because no maintained reader streams: the
one in tensorboard wants 70 MB of packages. The messages are tensorboardX's, imported with the first record. A record
longer than RECORD_LIMIT is skipped; a damaged one ends its file. Nothing is ever decompressed.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from collectors.tensors import text_of
from collectors.text import value_text
from collectors.times import Clock
from collectors.warnings import Warnings
from evertune.domain.metrics import Point, event_source, place
from evertune.protocols import Findings

RECORD_LIMIT = 16 << 20
CHECKED = 1 << 16  # bytes of a record whose checksum is computed: in Python it costs a millisecond for 10 KB
READ_POINTS = 20_000
READ_BYTES = 64 << 20
FILES = 10_000
NAMES_SHOWN = 50
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


@dataclass(slots=True)
class _EventFile:
    path: Path
    source: int
    offset: int = 0
    ended: bool = False  # not an event file, or damaged


class EventCollector:
    def __init__(self, metrics: Sequence[str], folder: Path) -> None:
        self._metrics = [(metric, PurePosixPath(metric).name, _directory(metric)) for metric in metrics]
        self._folder = folder
        self._files: dict[str, _EventFile] = {}
        self._folders: dict[str, int] = {}  # directory -> when it changed last
        self._tags: dict[str, None] = {}
        self._warnings = Warnings("byte")
        self._clock = Clock(self._warnings)
        self._events: Any = None
        self._cut_short = False

    def has_more(self) -> bool:
        if self._cut_short or not self._folders:
            return self._folder.is_dir()
        try:
            return any(Path(folder).stat().st_mtime_ns != seen for folder, seen in self._folders.items()) or any(
                not file.ended and file.path.stat().st_size > file.offset for file in self._files.values()
            )
        except OSError:
            return True

    def read(self) -> list[Point]:
        points: list[Point] = []
        size = 0
        self._cut_short = False
        for file in self._found():
            if file.ended:
                continue
            try:
                with file.path.open("rb") as content:
                    for offset, data in self._records(file, content):
                        size += len(data)
                        self._add(file, offset, data, points)
                        if len(points) >= READ_POINTS or size >= READ_BYTES:
                            self._cut_short = True
                            return points
            except FileNotFoundError:
                file.ended = True
            except PermissionError as error:
                self._end(file, f"cannot be read: {error.strerror}")
        return points

    def finish(self) -> list[Point]:
        points = self.read()
        while self._cut_short:
            points += self.read()
        return points

    def warnings(self) -> tuple[str, ...]:
        return self._warnings.sentences()

    def findings(self) -> Findings:
        if not self._folder.is_dir():
            is_there = self._folder.exists()
            self._warnings.say(f"{self._folder} {'is not a directory' if is_there else 'was never written'}")
        elif not self._files:
            self._warnings.say(f"no file was written below {self._folder}")
        elif not self._tags:
            which = f"none of the {len(self._files):,} files" if len(self._files) > 1 else "the one file"
            holds = "holds" if len(self._files) > 1 else "does not hold"
            self._warnings.say(f"{which} below {self._folder} {holds} values of events")
        return Findings(names_seen=tuple(self._tags), warnings=self._warnings.sentences())

    # ---------------------------------------------------------------------------------------------------- files

    def _found(self) -> list[_EventFile]:
        """All plain files below the folder, those that are new included, by their path."""
        self._folders = {}
        for root, folders, names in os.walk(self._folder):
            folders.sort()
            self._folders[root] = _changed(root)
            for name in sorted(names):
                path = Path(root, name)
                relative = str(path.relative_to(self._folder))
                if relative in self._files or path.is_symlink() or not path.is_file():
                    continue
                if len(self._files) >= FILES:
                    self._warnings.say(f"more than {FILES:,} files: the others were not read")
                    break
                self._files[relative] = _EventFile(path, event_source(relative))
        return list(self._files.values())

    def _records(self, file: _EventFile, content: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """Whole records behind `file.offset`, each with its place. What is half written waits."""
        size = os.fstat(content.fileno()).st_size
        if size < file.offset:
            return self._end(file, "was cut after it had been read")
        while size - file.offset >= _HEADER.size:
            content.seek(file.offset)
            header = content.read(_HEADER.size)
            length, check = _HEADER.unpack(header)
            if _checksum(header[:8]) != check:
                return self._end(file, f"is damaged at byte {file.offset:,}" if file.offset else "")
            after = file.offset + _HEADER.size + length + _FOOTER.size
            if after > size:
                return None
            offset, file.offset = file.offset, after
            if length > RECORD_LIMIT:
                self._warnings.say(f"a record of {length:,} bytes in {file.path.name} was skipped")
                continue
            data = content.read(length)
            (check,) = _FOOTER.unpack(content.read(_FOOTER.size))
            if length <= CHECKED and _checksum(data) != check:
                return self._end(file, f"is damaged at byte {offset:,}")
            yield offset, data
        return None

    def _end(self, file: _EventFile, why: str) -> None:
        file.ended = True
        if why:
            self._warnings.say(f"{file.path.relative_to(self._folder)} {why}; it is not read any further")

    # --------------------------------------------------------------------------------------------------- events

    def _add(self, file: _EventFile, offset: int, data: bytes, points: list[Point]) -> None:
        if self._events is None:
            from google.protobuf.message import DecodeError
            from tensorboardX.proto import event_pb2

            self._events, self._undecodable = event_pb2, DecodeError
        try:
            event = self._events.Event.FromString(data)
        except self._undecodable:
            self._warnings.say(f"a record of {file.path.name} at byte {offset:,} is no event and was skipped")
            return
        parent = str(file.path.parent)
        for index, value in enumerate(event.summary.value):
            if len(self._tags) < NAMES_SHOWN:
                self._tags.setdefault(value.tag)
            for metric, name, directory in self._metrics:
                if value.tag != metric and not (value.tag.startswith(name) and parent.endswith(directory)):
                    continue
                if (text := text_of(value)) is None:
                    continue
                text = value_text(text, self._warnings, offset)
                at = self._clock.believed(event.wall_time, offset)
                # A value takes two bytes at least, so places within a record are all its own.
                points.append(Point(metric, text, place(file.source, offset + index), at, event.step))


def _changed(folder: str) -> int:
    """When a directory changed last; -1 (look again) if that was just now, since its clock is a coarse one."""
    try:
        changed = Path(folder).stat().st_mtime_ns
    except OSError:
        return -1
    return changed if time.time_ns() - changed > 100_000_000 else -1


def _directory(metric: str) -> str:
    """As `os.path.dirname`: what stands before the last slash."""
    return os.path.dirname(metric)  # noqa: PTH120 - of a name, not of a path


def framed(data: bytes) -> bytes:
    """A record as event files hold it, for those who make some: tests and benchmarks."""
    length = struct.pack("<Q", len(data))
    return length + _FOOTER.pack(_checksum(length)) + data + _FOOTER.pack(_checksum(data))


def _checksum(data: bytes) -> int:
    """Masked CRC-32C."""
    from tensorboardX.crc32c import crc32c

    value: int = crc32c(data)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF
