"""Misbehaviour of the fake API server on request: refusals, lost answers, silence, streams that break off.

Tests add rules with `FakeKube.fault(…)`; the server asks here before and after it carries a request out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FOR_EVER = -1


@dataclass(kw_only=True)
class Fault:
    """One rule. The first that fits is used, `times` times.

    `status` answers so, with `retry_after` (s) and `message`. `drop` closes the connection without an answer:
    "before" the request is carried out, or "after". `hang_s` waits first. `after_events` lets a watch begin and breaks
    it off after so many lines; `gone` sends 410 in the stream instead of breaking it off.
    """

    method: str | None = None
    path: str = ".*"  # searched for in the path
    watch: bool | None = None
    times: int = 1
    status: int | None = None
    reason: str | None = None
    message: str = "the fake was told to answer so"
    retry_after: float | None = None
    drop: str | None = None
    hang_s: float = 0.0
    after_events: int | None = None
    gone: bool = False

    def fits(self, method: str, path: str, watch: bool) -> bool:
        return (
            self.times != 0
            and self.method in (None, method)
            and self.watch in (None, watch)
            and re.search(self.path, path) is not None
        )

    def use(self) -> Fault:
        if self.times > 0:
            self.times -= 1
        return self
