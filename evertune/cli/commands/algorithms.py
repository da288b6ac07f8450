"""`algorithms`: which there are, what each can do, and its settings. Asks nobody; needs no experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from evertune.cli import options
from evertune.cli.output.forms import Form, text_of
from evertune.cli.session import Session, session
from evertune.errors import NotFoundError

if TYPE_CHECKING:
    from algorithms.catalogue import Entry


def algorithms_(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One algorithm, with its settings.", show_default=False)
    ] = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List the algorithms, what each supports and when to take it; of one also its settings, defaults and ranges."""
    from evertune.app import activate

    activate()
    from algorithms import catalogue, registry
    from algorithms.stoppers import registry as stoppers
    from evertune.cli.views import algorithms as views

    now = session()
    if name is None:
        _every(now, output)
        return
    found = [catalogue.entry(name)] if name in registry.names() else []
    rules = [catalogue.stopper(name)] if name in stoppers.names() else []
    if not found and not rules:
        close = registry.closest(name)
        raise NotFoundError(
            f'"{name}" is not an algorithm', hint=f"did you mean {close}?" if close else "evertune algorithms"
        )
    if not output.for_people:
        now.out.write(text_of(output, (found or rules)[0].document()))
        return
    for entry in found:
        now.out.lines(views.one(entry, width=now.out.width))
    for rule in rules:
        now.out.lines([*([[]] if found else []), *views.rule(rule, width=now.out.width)])
    now.say("", f"Next: {_next(found[0])}" if found else "Next: evertune run FILE")


def _next(entry: Entry) -> str:
    """A command that works: what has no default has to be given, and a search of networks needs a file."""
    if not entry.types:
        return "evertune run FILE"
    needed = [f" --setting {name}=VALUE" for name, rule in entry.settings.items() if rule.default is None]
    return f"evertune init --algorithm {entry.name}{''.join(needed)}"


def _every(now: Session, output: Form) -> None:
    from algorithms import catalogue
    from algorithms.stoppers import registry as stoppers
    from evertune.cli.views import algorithms as views

    entries = catalogue.entries()
    if not output.for_people:
        now.out.write(text_of(output, [entry.document() for entry in entries]))
        return
    now.out.lines(views.every(entries, width=now.out.width, wide=output is Form.WIDE, marks=now.out.marks))
    now.out.lines([[], [(f"Early stopping: {', '.join(stoppers.names())}", "")]])
    now.say("", "Next: evertune algorithms tpe")
