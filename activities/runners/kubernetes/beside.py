"""A collector of the user's own, where nothing of ours stands before its program: an ordinary container, as in Katib.

Read by `classify`. It may end by itself after the training, or never. Its end is not the trial's: how it ended is a
warning, and what it does is bounded. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evertune.protocols import JsonDict

STATUSES = ("initContainerStatuses", "containerStatuses")


def without(pod: JsonDict, collector: str) -> JsonDict:
    """The pod as if it were not there: it holds up no trial, and fails none."""
    status = pod.get("status") or {}
    others = {
        key: [entry for entry in status[key] if entry.get("name") != collector] for key in STATUSES if status.get(key)
    }
    return {**pod, "status": {**status, **others}}


def outlives(pods: Sequence[JsonDict], primary: str, collector: str) -> bool:
    """Whether the training of each of these pods has ended, and the collector of some has not."""
    ended = all("terminated" in _state(pod, primary) for pod in pods)
    return ended and any("terminated" not in _state(pod, collector) for pod in pods)


def failed(pods: Iterable[JsonDict], collector: str) -> int | None:
    """With which code it has, where it has ended; None where it has not failed."""
    codes = (int((_state(pod, collector).get("terminated") or {}).get("exitCode") or 0) for pod in pods)
    return next((code for code in codes if code), None)


def why(pods: Iterable[JsonDict], collector: str) -> str:
    """What holds it up, where it never started; "" where it runs."""
    waiting = (_state(pod, collector).get("waiting") or {} for pod in pods)
    return next((f"{told['reason']} {told.get('message') or ''}".strip() for told in waiting if told.get("reason")), "")


def _state(pod: JsonDict, container: str) -> Mapping[str, Any]:
    for entry in (pod.get("status") or {}).get("containerStatuses") or ():
        if entry.get("name") == container:
            return entry.get("state") or {}
    return {}
