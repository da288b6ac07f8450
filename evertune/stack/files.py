"""The stack's files: atomic JSON, locks, logs that stay small, and their last lines.

Used within `evertune.stack` only. Nothing here interprets content.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG_CAP_BYTES = 10 * 1024 * 1024


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replace `path` atomically: a reader, or a crash at any moment, sees the old file or the new one, never half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(data, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when it is absent or not ours to understand (a stale file must never stop `up`)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return data if isinstance(data, dict) else None


@contextlib.contextmanager
def lock(path: Path, *, wait_s: float) -> Iterator[bool]:
    """Hold an exclusive lock that the system frees when this process dies. Yields False when others keep it."""
    descriptor = open_lock(path)
    try:
        deadline = time.monotonic() + wait_s
        while not (held := try_lock(descriptor)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield held
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """A descriptor to lock; read-only where the file is there but cannot be written any more."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return os.open(path, os.O_RDONLY)


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def cap_log(path: Path, *, cap_bytes: int = LOG_CAP_BYTES) -> None:
    """Cut a log that outgrew its cap, keeping its last tenth.

    Its writers append (O_APPEND) and outlive us, so the file is cut in place: neither a pipe nor a rename would do.
    A line written during the cut may be lost.
    """
    try:
        if path.stat().st_size <= cap_bytes:
            return
        with path.open("r+b") as file:
            file.seek(-(cap_bytes // 10), os.SEEK_END)
            file.readline()
            rest = file.read()
            file.truncate(0)
        with path.open("ab") as file:
            file.write(rest)
    except FileNotFoundError:
        return


def last_lines(path: Path, count: int) -> list[str]:
    """The last non-empty lines of a log, [] when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
