"""`onDuplicate: reuse`: the outcome of a trial with the same parameters, recorded as this one's. Nothing is started.

Called by `run_trial` for a trial that is labelled so. Which one it is was decided with the suggestion, so a retry finds
the same. A trial whose source has no value to give runs like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import evertune.contracts as c
from activities.ending import stored_outcome
from evertune.domain import labels
from evertune.domain.metrics import Objective
from evertune.domain.records import TrialRecord
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import REUSED, AttemptEnd, AttemptRef, Ending
from evertune.errors import NotFoundError
from evertune.store import Store

LOOK_EVERY_S = 1.0


def source_of(trial: TrialRecord) -> int | None:
    """The number of the trial whose outcome is to be this one's."""
    text = trial.labels.get(labels.REUSED_FROM, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) != trial.number else None


async def reuse(
    store: Store, ref: AttemptRef, source: int, objective: Objective, beat: Callable[[str], Awaitable[None]]
) -> c.TrialOutcome | None:
    """Record the outcome of trial `source` as that of this open attempt; None: it has none, so the attempt has to run.

    Waits for its end, and tells `beat` so; no longer once the attempt is to stop, which then is the runner's to record.
    """
    while True:
        found = await asyncio.to_thread(_look, store, ref, source)
        if found is None:
            return None
        if found.state.terminal:
            return await asyncio.to_thread(_copy, store, ref, found, objective)
        await beat(f"Reuse: waits for trial {source}, which has the same parameters")
        await asyncio.sleep(LOOK_EVERY_S)


def _look(store: Store, ref: AttemptRef, source: int) -> TrialRecord | None:
    try:
        found = store.trial(ref.experiment_uid, source)
    except NotFoundError:  # a third party's label
        return None
    if found.state.terminal:
        return found if found.state is TrialState.SUCCEEDED and found.objective is not None else None
    attempts = store.attempts(ref.experiment_uid, ref.number)
    return None if any(attempt.attempt == ref.attempt and attempt.stop for attempt in attempts) else found


def _copy(store: Store, ref: AttemptRef, found: TrialRecord, objective: Objective) -> c.TrialOutcome:
    message = "\n".join(
        [f"the outcome of trial {found.number}, which has the same parameters", *objective.missed(found.metrics)]
    )
    ending = Ending(
        end=AttemptEnd(AttemptState.SUCCEEDED, REUSED, message, ended=datetime.now(UTC)),
        trial_state=TrialState.SUCCEEDED,
        objective=found.objective,
        objective_value=found.objective_value,
        metrics=found.metrics,
        violation=found.violation,
        spread=found.spread,
    )
    trial, _ = store.end_attempt(ref.experiment_uid, ref.number, ref.attempt, lambda _: ending)
    return stored_outcome(store, ref, trial)
