"""How a sidecar notices that its trial has ended. Asked by `sidecar`.

Any of: a file that the wrapper writes last; a FIFO that the wrapper holds open, which gives end-of-file also when the
trial was killed; a process that is gone. Without any of them only SIGTERM ends the sidecar.

Where the trial's container is started again after a failure (`restarts`), its end is a status of 0 alone: any other,
and a closed pipe, are followed by the next run. A collector of the user's own that runs beside it (`beside` is its exit
file) has some time more.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

BESIDE_S = 30.0  # for the user's own collector after the trial has ended


class Life:
    def __init__(
        self,
        *,
        exit_file: Path | None = None,
        pipe: Path | None = None,
        pid: int | None = None,
        restarts: bool = False,
        beside: Path | None = None,
    ) -> None:
        self._exit_file = exit_file
        self._restarts = restarts
        self._beside = beside
        self._ended: float | None = None  # monotonic; when the trial was first seen to have ended
        self._pipe_path = pipe
        self._pipe: int | None = None
        self._held = False  # somebody has opened the pipe
        self._pid = pid

    def over(self) -> bool:
        """Whether the trial has ended, and what ran beside it. Never waits."""
        if self._ended is None:
            if not self._trial_over():
                return False
            self._ended = time.monotonic()
        late = time.monotonic() - self._ended >= BESIDE_S
        return self._beside is None or late or self._beside.exists()

    def _trial_over(self) -> bool:
        if self._restarts:
            with suppress(OSError):
                return self._exit_file is not None and self._exit_file.read_text().strip() == "0"
            return False
        if self._exit_file is not None and self._exit_file.exists():
            return True
        if self._pid is not None and not _alive(self._pid):
            return True
        return self._pipe_path is not None and self._pipe_closed(self._pipe_path)

    def _pipe_closed(self, path: Path) -> bool:
        """EAGAIN: somebody holds it open. End of file: nobody does, any more or yet."""
        if self._pipe is None:
            try:
                self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        try:
            while os.read(self._pipe, 4096):
                self._held = True
        except BlockingIOError:
            self._held = True
            return False
        return self._held


def _alive(pid: int) -> bool:
    """A zombie has ended: its parent is only late."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return True
