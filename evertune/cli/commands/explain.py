"""`explain`: why an experiment or a trial is in its state, the evidence, and the command that moves it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from evertune import archive
from evertune.cli import options
from evertune.cli.session import Session, session
from evertune.cli.views.explain import explain_experiment, explain_trial
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import TrialState

LOG_LINES = 5
TAIL_BYTES = 8192
TRIALS_READ = 500


def explain_(
    name: options.Name,
    trial: Annotated[
        int | None, typer.Argument(metavar="[TRIAL]", min=0, help="A trial's number.", show_default=False)
    ] = None,
    namespace: options.Namespace = None,
) -> None:
    """Why it is in its state: one sentence, the evidence with where it was read, the command that moves it."""
    now = session()
    record = now.find(namespace, name)
    if trial is not None:
        _trial(now, record, trial)
        return
    with now.store() as store:
        states = [state for state in TrialState if state.counts_as_failed]
        failed = store.trials(record.uid, states=states, limit=TRIALS_READ) if record.counts.charged else []
        succeeded = store.trials(record.uid, states=[TrialState.SUCCEEDED], limit=TRIALS_READ) if failed else []
        audit = store.audit(record.uid)
        created = (
            [] if record.state.terminal else store.trials(record.uid, states=[TrialState.CREATED], limit=TRIALS_READ)
        )
    polling, stack = now.standing(record)
    now.out.lines(
        explain_experiment(
            record,
            now=datetime.now(UTC),
            marks=now.out.marks,
            audit=audit,
            failed=failed,
            succeeded=succeeded,
            polling=polling,
            stack=stack,
            waiting=[entry for entry in created if entry.attempts],
            width=now.out.width,
        )
    )


def _trial(now: Session, record: ExperimentRecord, number: int) -> None:
    with now.store() as store:
        trial = store.trial(record.uid, number)
        attempts = store.attempts(record.uid, number)
    log = []
    if attempts:
        path = now.settings.trials_dir / record.uid / str(number) / str(attempts[-1].attempt) / "log"
        log = last_lines(path, LOG_LINES)
    now.out.lines(
        explain_trial(record, trial, attempts, now=datetime.now(UTC), marks=now.out.marks, log=log, width=now.out.width)
    )


def last_lines(path: Path, count: int) -> list[str]:
    try:
        text = archive.last_bytes(path, TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
