"""`delete`: an experiment, its trials, metrics and logs. Asks first."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli import options
from evertune.cli.output.numbers import plural
from evertune.cli.session import Session, session
from evertune.cli.views.sentences import addressed
from evertune.domain.records import ExperimentRecord
from evertune.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from evertune.client import Client


def delete_(
    name: options.Name,
    namespace: options.Namespace = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Cancel it first when it is running.")] = False,
) -> int:
    """Remove an experiment with its trials, metrics and logs, for ever."""
    now = session()
    record = now.find(namespace, name)
    if not record.state.terminal and not force:
        raise ConflictError(
            f"{record.name} is {record.state}", hint=f"evertune cancel {addressed(record)} first, or delete --force"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("delete asks first, and there is no terminal to ask on", hint="add --yes")
        count = plural(record.counts.created, "trial")
        if not typer.confirm(f"Delete {record.name} ({record.namespace}) and its {count}?", err=True):
            now.say("Nothing was deleted.")
            return 1
    if not record.state.terminal:
        _cancel(now, record)
    with now.store() as store:
        store.delete_experiment(record.uid)
    # After the row: whoever is killed in between leaves files that no experiment names, never the reverse.
    shutil.rmtree(now.settings.trials_dir / record.uid, ignore_errors=True)
    now.say(f"Deleted {record.name}.", "Next: evertune list")
    return 0


def _cancel(now: Session, record: ExperimentRecord) -> None:
    async def act(client: Client) -> None:
        handle = await client.handle(record.namespace, record.name)
        await handle.cancel(reason="deleted by a person", actor=now.actor())
        await handle.result()

    now.with_client(act)
