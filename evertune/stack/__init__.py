"""The stack of a home: an embedded Temporal server, one worker and one HTTP server, kept alive by a small parent.

`ensure_up` starts what is missing, `down` stops it, `status` looks. Several homes on one machine never meet: each has
its own files, ports and processes. Nothing here knows experiments or trials.
"""

from evertune.stack.down import DownReport, down
from evertune.stack.status import ServiceStatus, StackStatus, status
from evertune.stack.up import StackInfo, ensure_up

__all__ = ["DownReport", "ServiceStatus", "StackInfo", "StackStatus", "down", "ensure_up", "status"]
