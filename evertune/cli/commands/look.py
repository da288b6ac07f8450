"""`list`, `get` and `trials`: what the database says. No Temporal is needed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, cast

import typer

from evertune.cli import options
from evertune.cli.output.documents import experiment_document, trial_document
from evertune.cli.output.forms import Form, text_of
from evertune.cli.session import Session, session
from evertune.cli.views.details import details
from evertune.cli.views.listing import attention, listing
from evertune.cli.views.sentences import addressed, next_commands
from evertune.cli.views.summary import next_lines
from evertune.cli.views.trials import (
    STATE_WORDS,
    WITH_REASONS,
    hidden_line,
    phases_of,
    reasons_table,
    trials_table,
    waiting_lines,
)
from evertune.domain.states import TrialState
from evertune.errors import UsageError

FAILED_READ = 200  # failed trials that `get` groups; more say nothing new

NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Leave out the first line.")]


def list_(
    namespace: options.Namespace = None,
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="Experiments of all namespaces.")
    ] = False,
    output: options.Output = Form.TABLE,
    no_headers: NoHeaders = False,
) -> None:
    """All experiments of a namespace, the oldest first."""
    now = session()
    space = None if all_namespaces else now.namespace(namespace)
    records = []
    if now.has_database:
        with now.store() as store:
            records = store.list_experiments(space)
    if not output.for_people:
        now.out.write(text_of(output, [experiment_document(record) for record in records]))
        return
    if not records:
        _nothing(now, space)
        return
    now.out.lines(
        listing(
            records,
            now=datetime.now(UTC),
            marks=now.out.marks,
            width=now.out.width,
            wide=output is Form.WIDE,
            namespaces=all_namespaces,
            headers=not no_headers,
        )
    )
    now.say("", attention(records))


def _nothing(now: Session, space: str | None) -> None:
    where = f"in namespace {space}" if space else "in any namespace"
    look = [("evertune list --all-namespaces", "look elsewhere")] if space else []
    now.say(f"No experiments {where}.", *next_lines([("evertune run examples/digits.yaml", "try the example"), *look]))


def get_(name: options.Name, namespace: options.Namespace = None, output: options.Output = Form.TABLE) -> None:
    """One experiment: state and why, best trial, budget, where it runs."""
    now = session()
    record = now.find(namespace, name)
    if not output.for_people:
        now.out.write(text_of(output, experiment_document(record)))
        return
    with now.store() as store:
        audit = store.audit(record.uid)
        states = [state for state in TrialState if state.counts_as_failed]
        failed = store.trials(record.uid, states=states, limit=FAILED_READ) if record.counts.charged else []
        waiting = store.phases(record.uid) if record.counts.running else {}
    polling, stack = now.standing(record)
    now.out.lines(
        details(
            record,
            now=datetime.now(UTC),
            marks=now.out.marks,
            audit=audit,
            you=now.actor(),
            failed=failed,
            waiting=waiting,
            trouble=stack if polling is False else "",
            width=now.out.width,
            wide=output is Form.WIDE,
        )
    )
    now.say("", *next_lines(next_commands(record)))


def trials_(
    name: options.Name,
    namespace: options.Namespace = None,
    output: options.Output = Form.TABLE,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE,...", help=f"Only these: {', '.join(STATE_WORDS)}.", show_default=False),
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", metavar="number|best", help="By number, or the best first.")
    ] = "number",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.", show_default=False)] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="NAME,...", help="Only these parameters or metrics.", show_default=False),
    ] = None,
    no_headers: NoHeaders = False,
) -> None:
    """The trials of an experiment."""
    now = session()
    if sort not in ("number", "best"):
        raise UsageError(f'--sort is "{sort}": it must be number or best')
    states = _states(state)
    record = now.find(namespace, name)
    with now.store() as store:
        trials = store.trials(record.uid, states=states, sort=cast(Literal["number", "best"], sort), limit=limit)
    if not output.for_people:
        now.out.write(text_of(output, [trial_document(trial, record.space, record.objective) for trial in trials]))
        return
    if not trials:
        now.say(f"No trials{' in that state' if states else ' yet'}.", *next_lines(next_commands(record)))
        return
    at = datetime.now(UTC)
    if states and all(entry in WITH_REASONS for entry in states) and not columns:
        rendered = reasons_table(trials, now=at, marks=now.out.marks, headers=not no_headers)
    else:
        rendered = trials_table(
            record,
            trials,
            now=at,
            marks=now.out.marks,
            width=now.out.width,
            wide=output is Form.WIDE,
            columns=_columns(columns, (*record.space.names(), *record.objective.metrics[1:])),
            headers=not no_headers,
        )
    now.out.lines(rendered.lines)
    if waiting := waiting_lines(phases_of(trials)):
        now.say("", *waiting)
    now.say("", hidden_line(len(trials), record.counts.created, rendered.hidden, addressed(record)))


def _states(text: str | None) -> list[TrialState] | None:
    if text is None:
        return None
    found = []
    for word in filter(None, (part.strip().lower().replace("-", "") for part in text.split(","))):
        if word not in STATE_WORDS:
            raise UsageError(f'--state knows no "{word}"', hint=f"it takes {', '.join(STATE_WORDS)}")
        found.append(STATE_WORDS[word])
    return found


def _columns(text: str | None, known: tuple[str, ...]) -> list[str]:
    names = [part.strip() for part in (text or "").split(",") if part.strip()]
    for name in names:
        if name not in known:
            raise UsageError(f'there is no parameter or metric "{name}"', hint=f"there are {', '.join(known)}")
    return names
