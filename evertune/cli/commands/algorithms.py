"""`algorithms`: which there are, what each can do, and its settings. Asks nobody; needs no experiment."""

from __future__ import annotations

from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.output.forms import Form, text_of
from evertune.cli.session import session
from evertune.errors import NotFoundError


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
    from evertune.cli.views import algorithms as views

    now = session()
    if name is not None and name not in registry.names():
        close = registry.closest(name)
        raise NotFoundError(
            f'"{name}" is not an algorithm', hint=f"did you mean {close}?" if close else "evertune algorithms"
        )
    found = [catalogue.entry(name)] if name is not None else catalogue.entries()
    if not output.for_people:
        documents = [entry.document() for entry in found]
        now.out.write(text_of(output, documents[0] if name is not None and output is not Form.CSV else documents))
    elif name is not None:
        now.out.lines(views.one(found[0], width=now.out.width))
        now.say("", f"Next: evertune init --algorithm {name}" if found[0].types else "Next: evertune run FILE")
    else:
        now.out.lines(views.every(found, width=now.out.width, wide=output is Form.WIDE, marks=now.out.marks))
        now.say("", "Next: evertune algorithms tpe")
