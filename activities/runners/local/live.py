"""The list of attempts that may be running: one small directory, so that nobody walks through all that ever ran.

An attempt enters before its supervisor starts and leaves when somebody has seen its end, so after any crash the list
holds every attempt that lives, and some that do not. Called by `runner` and `gpus`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from activities.runners.local.attempt import Attempt
from evertune.domain.trial import AttemptRef


def mark_live(root: Path, ref: AttemptRef) -> None:
    marker = _marker(root, ref)
    marker.parent.mkdir(mode=0o700, exist_ok=True)
    marker.touch(mode=0o600)


def unmark_live(root: Path, ref: AttemptRef) -> None:
    _marker(root, ref).unlink(missing_ok=True)


def live_attempts(root: Path) -> Iterator[AttemptRef]:
    """All of which a process may be left, in the order of their names; strikes off those that have ended."""
    directory = root / "live"
    for marker in sorted(directory.iterdir()) if directory.is_dir() else ():
        uid, number, again = marker.name.split(".")
        attempt = Attempt.of(root, AttemptRef(uid, int(number), int(again), ""))
        if attempt.settled():
            marker.unlink(missing_ok=True)
        else:
            yield AttemptRef(uid, int(number), int(again), attempt.plan().get("trial", ""))


def _marker(root: Path, ref: AttemptRef) -> Path:
    return root / "live" / f"{ref.experiment_uid}.{ref.number}.{ref.attempt}"
