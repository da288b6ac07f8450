"""What people read of an attempt in a cluster: one line, the same for every trial, in the cluster's own words.

Called by `classify`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from evertune.protocols import JsonDict

SHOWN = 300  # characters of a phase


def shown(text: str) -> str:
    """A phase: one line, and not a long one."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def without_name(text: str, name: str) -> str:
    """The same sentence for every trial: the object's name, and its pods', stand as an ellipsis."""
    head, found, rest = text.partition(name)
    while found:
        tail = rest.lstrip("-abcdefghijklmnopqrstuvwxyz0123456789")
        head, found, rest = _joined(head + "…", tail, name)
    return head


def _joined(head: str, tail: str, name: str) -> tuple[str, str, str]:
    before, found, rest = tail.partition(name)
    return head + before, found, rest


def newest(events: Iterable[JsonDict], pods: Iterable[JsonDict], reasons: Collection[str]) -> str:
    """The newest of these warnings; about one of the pods when there are some."""
    names = {pod["metadata"].get("name") for pod in pods}
    told = [
        event
        for event in events
        if event.get("reason") in reasons and (not names or (event.get("involvedObject") or {}).get("name") in names)
    ]
    newest = max(told, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default=None)
    return "" if newest is None else str(newest.get("message") or newest.get("reason"))
