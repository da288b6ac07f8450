"""What the gateway remembers of each attempt that reports: how often it may, which metrics it has, whether it ended.

A bounded table: the attempts that were silent longest are forgotten, and read from the database when they come back.
Nothing here is needed after a restart. Only holders of a valid token get an entry.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from evertune.domain.metrics import Point

REPORTS_PER_S = 20.0
BURST = 60.0
MAX_NAMES = 256  # distinct metrics of one attempt; a program that makes names up must not fill the database
MAX_ATTEMPTS = 5000  # several experiments at their widest; an entry with all its names takes 25 KB

AttemptKey = tuple[str, int, int]  # experiment uid, trial number, attempt


@dataclass(slots=True)
class Attempt:
    """One reporting attempt. Times are seconds of one clock."""

    names: set[int] = field(default_factory=set)  # hashes: long names must not cost memory
    ended: float | None = None
    tokens: float = BURST
    refilled: float = 0.0
    warned: bool = False  # of names that were dropped

    def wait_s(self, now: float) -> float:
        """0 when a report may come now, and it is counted; else how long to wait."""
        self.tokens = min(BURST, self.tokens + max(0.0, now - self.refilled) * REPORTS_PER_S)
        self.refilled = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / REPORTS_PER_S

    def known(self, points: list[Point]) -> list[Point]:
        """The points whose metric is among the first MAX_NAMES of this attempt."""
        new = {name for name in {point.metric for point in points} if hash(name) not in self.names}
        if len(self.names) + len(new) <= MAX_NAMES:
            self.names.update(map(hash, new))
            return points
        return [point for point in points if self._has(point.metric)]

    def _has(self, name: str) -> bool:
        if hash(name) not in self.names and len(self.names) < MAX_NAMES:
            self.names.add(hash(name))
        return hash(name) in self.names


class Attempts:
    """The table, least recently seen first."""

    def __init__(self, limit: int = MAX_ATTEMPTS) -> None:
        self._limit = limit
        self._attempts: OrderedDict[AttemptKey, Attempt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._attempts)

    def get(self, key: AttemptKey) -> Attempt | None:
        attempt = self._attempts.get(key)
        if attempt is not None:
            self._attempts.move_to_end(key)
        return attempt

    def add(self, key: AttemptKey, *, names: Iterable[str], ended: float | None, now: float) -> Attempt:
        """The entry of an attempt; one that is there already stays."""
        attempt = self._attempts.setdefault(key, Attempt(refilled=now))
        attempt.names.update(hash(name) for name in list(names)[:MAX_NAMES])
        attempt.ended = ended
        while len(self._attempts) > self._limit:
            self._attempts.popitem(last=False)
        return attempt
