"""`replay --verify`: ask every recorded question again, and compare the answers with what the database holds."""

from __future__ import annotations

from typing import Annotated

import typer

from evertune.cli import options
from evertune.cli.output.forms import Form, text_of
from evertune.cli.output.numbers import plural
from evertune.cli.session import session
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
    from evertune.cli.replaying import replay

    now = session()
    now.start_logging()
    record = now.find(namespace, name)
    with now.store() as store:
        result = replay(store, record)
    if not output.for_people:
        now.out.write(text_of(output, result.as_dict(record.name)))
    elif result.divergence is None:
        now.out.line(
            [
                now.out.marks.shape("Succeeded"),
                (f" identical: {plural(result.requests, 'request')}, {plural(result.trials, 'trial')} of ", ""),
                (record.algorithm, ""),
                (f" with seed {record.seed}", ""),
            ]
        )
    else:
        now.out.lines(result.lines(now.out.marks))
    now.say("", f"Next: evertune trials {addressed(record)}")
    return 0 if result.divergence is None else 1
