"""Work beside the screen: verbs that keys asked for, and a look at the stack every few seconds. Threads of their own.

The screen never waits for Temporal: it reads a sentence from here.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evertune.cli.output.numbers import age
from evertune.errors import EvertuneError

if TYPE_CHECKING:
    from evertune.cli.session import Session

LOOK_EVERY_S = 3.0
SHOWN_S = 6.0


@dataclass
class Control:
    """Sends pause, resume and stop; one at a time. `message` is what came of the last one."""

    session: Session
    namespace: str
    name: str
    _thread: threading.Thread | None = None
    _message: tuple[float, str] = (0.0, "")

    def send(self, verb: str) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self.tell(f"{verb} …")
        self._thread = threading.Thread(target=self._run, args=(verb,), daemon=True)
        self._thread.start()

    def tell(self, message: str) -> None:
        self._message = (time.monotonic(), message)

    @property
    def message(self) -> str:
        at, text = self._message
        return text if time.monotonic() - at < SHOWN_S else ""

    def _run(self, verb: str) -> None:
        from evertune.cli.commands.change import send

        try:
            send(self.session, self.namespace, self.name, verb)
            self.tell("")
        except EvertuneError as error:
            self.tell(error.message)


@dataclass
class Health:
    """Whether Temporal and the worker are there, as one sentence when they are not."""

    session: Session
    _since: float | None = None
    _sentence: str = ""
    _closed: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    @property
    def trouble(self) -> str:
        if not self._sentence or self._since is None:
            return ""
        since = age(time.monotonic() - self._since)
        return self._sentence.format(ago=f" {since} ago", lasting=f" for {since}")

    @property
    def kind(self) -> str:
        """`trouble` without its age: it changes only when the trouble does."""
        return self._sentence.format(ago="", lasting="")

    def _watch(self) -> None:
        from evertune import stack

        while not self._closed.wait(LOOK_EVERY_S if self._sentence == "" else 1.0):
            try:
                status = stack.status(self.session.settings)
            except (EvertuneError, OSError):
                continue
            sentence = ""
            if not status.reachable:
                sentence = "connection to Temporal lost{ago}, trials go on"
            elif not any(service.name == "worker" and service.ready for service in status.services):
                sentence = "no worker of this home{lasting}, trials go on"
            if sentence and not self._sentence:
                self._since = time.monotonic()
            self._sentence = sentence
