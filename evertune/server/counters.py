"""What the gateway counts, and a log that a flood cannot fill: one line per reason and peer in a minute.

Read by `/healthz`. It lives in this process only: totals that must not be lost are in the database.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any

import structlog

log = structlog.get_logger()

LOG_EVERY_S = 60.0
MAX_PEERS = 1000


@dataclass
class Counters:
    reports: int = 0  # answered with 200
    points: int = 0  # in those
    names_dropped: int = 0  # points left out because their attempt has too many metric names
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    _logged: OrderedDict[tuple[str, str], tuple[float, int]] = field(default_factory=OrderedDict)

    def refuse(self, reason: str) -> None:
        self.refused[reason] += 1

    def warn(self, reason: str, peer: str, **about: Any) -> None:
        """Log this reason once a minute for each peer, with how often it was left unsaid before."""
        now = time.monotonic()
        said, unsaid = self._logged.get((reason, peer), (-LOG_EVERY_S, 0))
        if now - said < LOG_EVERY_S:
            self._logged[reason, peer] = (said, unsaid + 1)
            return
        self._logged[reason, peer] = (now, 0)
        self._logged.move_to_end((reason, peer))
        while len(self._logged) > MAX_PEERS:
            self._logged.popitem(last=False)
        log.warning("report refused", reason=reason, peer=peer, unsaid_before=unsaid, **about)

    def as_dict(self) -> dict[str, Any]:
        return {
            "reports": self.reports,
            "points": self.points,
            "names_dropped": self.names_dropped,
            "refused": dict(sorted(self.refused.items())),
        }
