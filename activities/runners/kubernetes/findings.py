"""What checks of a cluster are about, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from activities.runners.kubernetes.render import Injection
from evertune.protocols import Launch

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`mend` may have several lines."""

    what: str
    found: str
    level: Level = "ok"
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to run. `launch`: a trial of it; None when only Jobs are known to be wanted."""

    namespace: str
    injection: Injection
    gateway: str | None  # where trials would report
    launch: Launch | None = None
    reads_config_map: bool = False  # its template is in a ConfigMap that does not stand beside it
