"""Single keys from the terminal, without Enter, and a terminal that is as before on every way out.

cbreak mode is entered only when this process is in the terminal's foreground, and left at exit, at SIGTERM, and around
Ctrl-Z. Ctrl-C stays what it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class Terminated(BaseException):
    """SIGTERM or SIGHUP: leave by the usual way, so that the terminal is restored."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def in_foreground(descriptor: int) -> bool:
    """False for `evertune run x &`: drawing and reading there would disturb whoever has the terminal."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


class Keys:
    """`with Keys() as keys: keys.wait(0.25)` gives the keys that were pressed meanwhile."""

    def __init__(self, *, on_suspend: Callable[[], None] = lambda: None, on_resume: Callable[[], None] = lambda: None):
        self._on_suspend, self._on_resume = on_suspend, on_resume
        self._descriptor: int | None = None
        self._saved: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._suspend = False

    @property
    def usable(self) -> bool:
        return self._saved is not None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError, termios.error):
            descriptor = sys.stdin.fileno()
            if os.isatty(descriptor) and in_foreground(descriptor):
                self._descriptor = descriptor
                self._saved = termios.tcgetattr(descriptor)
                tty.setcbreak(descriptor, termios.TCSADRAIN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._terminated)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._suspended)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._restore()

    def wait(self, seconds: float) -> str:
        """Sleep, but not longer than until a key is pressed. Arrow keys and other sequences are no keys."""
        watched = [self._descriptor] if self._descriptor is not None and self._saved is not None else []
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._suspend:
            self._suspend = False
            self._stop_until_continued()
            return ""
        if not ready:
            return ""
        pressed = os.read(ready[0], 64)
        if not pressed:  # the terminal is gone, or Ctrl-D: no more keys, but go on
            self._restore()
            return ""
        return "" if pressed.startswith(b"\x1b") else pressed.decode("ascii", "ignore")

    def _restore(self) -> None:
        if self._descriptor is not None and self._saved is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
        self._saved = None

    def _terminated(self, number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    def _suspended(self, _number: int, _frame: FrameType | None) -> None:
        self._suspend = True  # not here: the screen may be in the middle of a write

    def _stop_until_continued(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and take it again when continued."""
        saved = self._saved
        self._on_suspend()
        if self._descriptor is not None and saved is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, saved)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspended)  # continued
        if self._descriptor is not None and saved is not None and in_foreground(self._descriptor):
            tty.setcbreak(self._descriptor, termios.TCSADRAIN)
        self._on_resume()
