"""`--trial`: one trial by number or name, or `best`, `failed`, `running`. For the verbs that show what trials left.

Refuses nothing but what is not there: NotFoundError says what would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli.output.numbers import plural
from evertune.cli.output.text import clean
from evertune.cli.views.sentences import addressed
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import TrialState
from evertune.errors import NotFoundError

if TYPE_CHECKING:
    from evertune.store import Store

Trial = Annotated[
    str | None,
    typer.Option(
        "-t",
        "--trial",
        metavar="TRIAL",
        help="Number or name of a trial, or best, failed (the last one), running (all).",
        show_default=False,
    ),
]
Attempt = Annotated[int | None, typer.Option("--attempt", min=0, help="From 0; else the last.", show_default=False)]


def chosen_trials(store: Store, record: ExperimentRecord, wanted: str) -> list[TrialRecord]:
    """At least one trial; NotFoundError when there is none."""
    found = _found(store, record, wanted)
    if not found:
        what = {"best": "no best trial yet", "failed": "no trial that failed", "running": "no trial that runs now"}
        words = what.get(wanted, f'no trial "{clean(wanted)}"')
        raise NotFoundError(f"{record.name} has {words}", hint=f"evertune trials {addressed(record)}")
    return found


def _found(store: Store, record: ExperimentRecord, wanted: str) -> list[TrialRecord]:
    if wanted == "running":
        return store.trials(record.uid, states=[TrialState.RUNNING])
    if wanted == "best":
        return [record.best] if record.best else []
    if wanted == "failed":
        failed = store.trials(record.uid, states=[state for state in TrialState if state.counts_as_failed])
        return sorted(failed, key=lambda entry: entry.told_seq or 0)[-1:]
    if wanted.isascii() and wanted.isdigit():
        number = int(wanted[:19])
        return [store.trial(record.uid, number)] if number < record.counts.created else []
    return [entry for entry in store.trials(record.uid) if entry.name == wanted]


def chosen_attempt(record: ExperimentRecord, trial: TrialRecord, attempt: int | None) -> int:
    """Which attempt of a trial, else its last one."""
    if not trial.attempts:
        raise NotFoundError(f"trial {trial.number} of {record.name} was not started yet")
    if attempt is not None and attempt >= trial.attempts:
        raise NotFoundError(
            f"trial {trial.number} has {plural(trial.attempts, 'attempt')}, counted from 0: there is no {attempt}"
        )
    return trial.attempts - 1 if attempt is None else attempt
