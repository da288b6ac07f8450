"""`replay --verify`: ask every recorded question again, and compare the answers with what the database holds."""

from __future__ import annotations

from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.output.forms import Form, text_of
from evertune.cli.session import session
from evertune.cli.views.replay import document, lines
from evertune.cli.views.sentences import addressed
from evertune.errors import UsageError


def replay_(
    name: options.Name,
    namespace: options.Namespace = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with what was suggested then.")] = False,
    output: options.Output = Form.TABLE,
) -> int:
    """Recompute every suggestion from the recorded history: identical, or the first divergence (exit 1)."""
    if not verify:
        raise UsageError("replay changes nothing and only verifies", hint=f"evertune replay {name} --verify")
    from evertune.app import activate

    activate()
    from activities.replay import verify_replay

    now = session()
    now.start_logging()
    record = now.find(namespace, name)
    with now.store() as store:
        result = verify_replay(store, record.uid)
    if output.for_people:
        now.out.lines(lines(result, record, now.out.marks))
    else:
        now.out.write(text_of(output, document(result, record.name)))
    now.say("", f"Next: evertune trials {addressed(record)}")
    return 0 if result.identical else 1
