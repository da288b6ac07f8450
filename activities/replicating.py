"""Replicates: a trial that runs several times, one attempt after the other, and is judged by all that ended well.

Called for every attempt of an experiment that wants them: at its launch, which tells the program which run it is; when
its end is recorded, which then asks for the next one; and when a verdict is revised. Which run an attempt is follows
from the attempts before it, so whoever dies at any point neither loses a run nor has one twice. Refuses nothing: a run
that fails is an ordinary attempt that failed.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evertune.domain.metrics import Objective, chosen, finite
from evertune.domain.records import Replicates
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptRef
from evertune.protocols import Replicate
from evertune.store import Store

Metrics = Mapping[str, str]


@dataclass(frozen=True)
class Runs:
    """What a trial wants, and what its earlier runs that ended well have measured, in their order."""

    wanted: Replicates
    earlier: tuple[Metrics, ...] = ()

    def then(self) -> str:
        """What comes after one more run that ended well; "" for nothing."""
        done = len(self.earlier) + 1
        return f"Replicate: {done} of {self.wanted.count} runs have ended" if done < self.wanted.count else ""

    def together(self, measured: Metrics, *, well: bool) -> tuple[Metrics, Mapping[str, float]]:
        """(metrics, standard deviations) of all runs, the last of which measured that: it counts if it ended `well`."""
        runs = (*self.earlier, measured) if well or not self.earlier else self.earlier
        return aggregated(runs, self.wanted)


def runs_of(store: Store, ref: AttemptRef, objective: Objective, wanted: Replicates) -> Runs | None:
    """None where a trial runs once."""
    if wanted.count == 1:
        return None
    uid, number = ref.experiment_uid, ref.number
    return Runs(
        wanted,
        tuple(chosen(objective, store.summaries(uid, number, attempt)) for attempt in _well(store, ref)),
    )


def replicate_of(store: Store, ref: AttemptRef, wanted: Replicates, seed: int) -> Replicate | None:
    """Which run of its trial this attempt is; None where it runs once."""
    if wanted.count == 1:
        return None
    index = len(_well(store, ref))
    digest = hashlib.sha256(f"{seed}/{ref.number}/{index}".encode()).digest()
    return Replicate(index, int.from_bytes(digest[:4], "big") >> 1)


def _well(store: Store, ref: AttemptRef) -> list[int]:
    if not ref.attempt:
        return []
    return [
        attempt.attempt
        for attempt in store.attempts(ref.experiment_uid, ref.number)
        if attempt.attempt < ref.attempt and attempt.state is AttemptState.SUCCEEDED
    ]


def aggregated(runs: Sequence[Metrics], wanted: Replicates) -> tuple[dict[str, str], dict[str, float]]:
    """Mean or median of each metric over the runs that have it as a number, and their sample standard deviation.

    What is no number in any of them, or stands in one only, is the last one's text.
    """
    metrics: dict[str, str] = {}
    spread: dict[str, float] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        texts = [run[name] for run in runs if name in run]
        numbers = [number for text in texts if (number := finite(text)) is not None]
        metrics[name] = texts[-1]
        if len(numbers) > 1:
            middle = statistics.fmean(numbers) if wanted.aggregate == "mean" else statistics.median(numbers)
            metrics[name] = repr(middle)
            spread[name] = statistics.stdev(numbers)
        elif numbers:
            metrics[name] = next(text for text in reversed(texts) if finite(text) is not None)
    return metrics, spread
