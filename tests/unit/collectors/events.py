"""Event files for tests: tensorboardX's own writer, and records framed by hand from its messages."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

WHEN = 1_714_557_600.5


def masked(data: bytes) -> bytes:
    value: int = crc32c(data)
    return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def event(*values: Any, step: int = 0, when: float = WHEN) -> bytes:
    return record(Event(wall_time=when, step=step, summary=Summary(value=values)).SerializeToString())


def scalar(tag: str, value: float) -> Any:
    return Summary.Value(tag=tag, simple_value=value)


def scalar_event(tag: str, value: float, step: int = 0) -> bytes:
    return event(scalar(tag, value), step=step)


def version() -> bytes:
    return record(Event(wall_time=WHEN, file_version="brain.Event:2").SerializeToString())


def event_file(folder: Path, name: str = "events.out.tfevents.1.host") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
