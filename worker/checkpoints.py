"""Deletes checkpoints of local trials that nothing will go on from, so that a long search does not fill the disk.

Called by the reconciler, at most hourly, in a thread. What stays: the last two rungs of each bracket (for asha: of each
configuration), the last two generations, and the best trial; all of it goes with the experiment (`evertune delete`).
Touches only what is below this home, and only experiments whose trials go on from one another.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from activities.checkpoints import DIRECTORY
from evertune.domain import labels
from evertune.domain.records import TrialRecord
from evertune.spec.checkpoints import RESUMING
from evertune.store import Store
from worker import homes

KEPT_LEVELS = 2


def unneeded(trials: Sequence[TrialRecord], best: int | None) -> list[int]:
    """Numbers of trials that have ended, and whose checkpoint no trial of the plan can go on from any more."""
    places = {trial.number: place for trial in trials if (place := _place(trial)) is not None}
    highest: dict[str, int] = {}
    for group, level in places.values():
        highest[group] = max(level, highest.get(group, 0))
    return [
        trial.number
        for trial in trials
        if trial.state.terminal
        and trial.number != best
        and trial.number in places
        and places[trial.number][1] <= highest[places[trial.number][0]] - KEPT_LEVELS
    ]


def _place(trial: TrialRecord) -> tuple[str, int] | None:
    """What the trial is promoted within, and how far it has come there. None for one that nobody has planned."""
    given = trial.labels
    try:
        if labels.GENERATION in given:
            return "population", int(given[labels.GENERATION])
        if labels.BRACKET in given:
            return f"bracket {given[labels.BRACKET]}", int(given[labels.RUNG])
        return f"configuration {given[labels.CONFIG]}", int(given[labels.RUNG])
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True)
class CheckpointKeeper:
    store: Store
    trials_dir: Path

    def tend(self) -> int:
        """Every experiment of this home; how many checkpoints were deleted. Called twice it does no harm."""
        deleted = 0
        for record, directory in homes.experiments(self.store, self.trials_dir):
            if record.backend == "local" and record.algorithm in RESUMING:
                best = None if record.best is None else record.best.number
                for number in unneeded(self.store.trials(record.uid), best):
                    for checkpoint in (directory / str(number)).glob(f"{DIRECTORY}*"):  # of each replicate
                        shutil.rmtree(checkpoint, ignore_errors=True)
                        deleted += 1
        return deleted
