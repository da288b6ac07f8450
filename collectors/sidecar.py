"""What the sidecar process does: read, send, remember how far the gateway is, notice the end. See `__main__`.

Memory: one batch. The source is the buffer: while the gateway is away nothing is read. Whatever was read and could not
be delivered is read again: the collector is made anew, and a note of what was acknowledged spares the gateway the most
of what it has.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from collectors.ending import Life
from collectors.sending import Ended, Refused, Sender
from evertune.domain.metrics import OFFSET_BITS, Point
from evertune.protocols import Collector

READ_EVERY_S = 0.5
LOOK_EVERY_S = 0.5  # whether the trial has ended; a short trial must not wait for its collector
RETRY_S = 1.0
REFUSED_S = 60.0  # until a gateway that does not know the token is asked again


class Acknowledged:
    """How far each source was taken by the gateway. A hint: without it, points are only sent again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._furthest: dict[int, int] = {}
        with suppress(OSError, ValueError, AttributeError):
            self._furthest = {int(source): int(seq) for source, seq in json.loads(file.read_text()).items()}

    def unsent(self, points: Iterable[Point]) -> list[Point]:
        return [point for point in points if point.seq > self._furthest.get(point.seq >> OFFSET_BITS, -1)]

    def add(self, points: Sequence[Point]) -> None:
        """All of what a `read` gave was accepted. A read ends with a whole line, so the furthest place says it all."""
        for point in points:
            source = point.seq >> OFFSET_BITS
            self._furthest[source] = max(point.seq, self._furthest.get(source, -1))
        if points:
            new = self._file.with_name(self._file.name + ".new")
            new.write_text(json.dumps(self._furthest))
            new.replace(self._file)


class Sidecar:
    def __init__(
        self,
        make: Callable[[], Collector],
        *,
        life: Life,
        acknowledged: Acknowledged,
        terminated: threading.Event,
        say: Callable[[str], None],
        stop_file: Path | None = None,
        grace_s: float,
        linger_s: float,
    ) -> None:
        """`make` gives a collector that begins anew; `terminated` is set by SIGTERM.

        What is left is sent for at most `grace_s` after SIGTERM, and `linger_s` after the trial's own end.
        """
        self._make = make
        self._collector = make()
        self._life = life
        self._acknowledged = acknowledged
        self._terminated = terminated
        self._say = say
        self._stop_file = stop_file
        self._grace_s = grace_s
        self._linger_s = linger_s
        self._give_up = float("inf")  # monotonic

    def run(self, sender: Sender) -> None:
        due = 0.0
        while not self._over():
            now = time.monotonic()
            if now >= due:
                due = now + self._round(sender)
            self._terminated.wait(min(LOOK_EVERY_S, max(0.0, due - time.monotonic())))
        self._finish(sender)

    def _over(self) -> bool:
        """Whether the trial has ended; from then on there is a time at which everything is given up."""
        if self._terminated.is_set():
            self._give_up = min(self._give_up, time.monotonic() + self._grace_s)
        elif self._give_up == float("inf") and self._life.over():
            self._give_up = time.monotonic() + self._linger_s
        return self._give_up != float("inf")

    def _round(self, sender: Sender) -> float:
        """Read and send until there is nothing more; seconds until the next time."""
        after = READ_EVERY_S
        try:
            while self._collector.has_more() and (points := self._collector.read()):
                after = max(READ_EVERY_S, self._deliver(sender, points))
                if self._over():
                    break
        except Ended:
            self._collector = self._make()
        except Refused as error:
            self._say(f"the gateway refuses this trial's reports, they wait: {error}")
            self._collector = self._make()
            return REFUSED_S
        except OSError as error:
            self._say(f"reading failed and is tried again: {error}")
            self._collector = self._make()
            return RETRY_S
        return after

    def _finish(self, sender: Sender) -> None:
        """What is left, then `final`. Given up only when the time is over: the worker reads the rest from the log."""
        while True:
            try:
                while self._collector.has_more() and (points := self._collector.read()):
                    self._deliver(sender, points)
                self._deliver(sender, self._collector.finish(), final=True)
                break
            except Ended:
                self._say("the gateway was away until the end; what was not sent is left to the log")
                break
            except Refused as error:
                self._say(f"the gateway refuses this trial's reports: {error}")
                break
            except OSError as error:
                self._say(f"reading failed and is tried again: {error}")
                self._collector = self._make()
                if self.wait(RETRY_S):
                    break
        for sentence in self._collector.findings().warnings:
            self._say(sentence)
        sender.close()

    def _deliver(self, sender: Sender, points: Sequence[Point], *, final: bool = False) -> float:
        answer = sender.send(self._acknowledged.unsent(points), final=final)
        with suppress(OSError):
            self._acknowledged.add(points)
        if answer.stop and self._stop_file is not None and not self._stop_file.exists():
            with suppress(OSError):
                self._stop_file.write_text("the experiment asked for it\n")
        return answer.next_after_s

    def wait(self, seconds: float) -> bool:
        """For the sender: sleep, unless the time is over; whether it is."""
        until = time.monotonic() + seconds
        while True:
            self._over()
            now = time.monotonic()
            left = min(until, self._give_up) - now
            if left <= 0:
                return now >= self._give_up
            time.sleep(min(left, LOOK_EVERY_S))
