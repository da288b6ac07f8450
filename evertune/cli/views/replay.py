"""What recomputing an experiment's suggestions found (`activities.replay`), for people and as a document.

A suggestion is a pure function of the history at its request's cut, so any difference means that the algorithm's
library, or the record, has changed. Where the versions of libraries are others, that is what is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import parameter_text, plural
from evertune.cli.output.text import Line, clean
from evertune.domain.space import Value

if TYPE_CHECKING:
    from activities.replay import Divergence, Replay
    from evertune.domain.records import ExperimentRecord


def lines(replay: Replay, record: ExperimentRecord, marks: Marks) -> list[Line]:
    """That all is the same, or what differs, and why."""
    if replay.divergence is None:
        counts = f"{plural(replay.requests, 'request')}, {plural(replay.trials, 'trial')}"
        text = f" identical: {counts} of {record.algorithm} with seed {record.seed}"
        return [[marks.shape("Succeeded"), (text, "")]]
    if not replay.versions:
        return _different(replay.divergence, marks)
    rest = " was made with other versions of its libraries, and cannot be verified with these:"
    head: Line = [marks.shape("Failed"), (f" trial {replay.divergence.trial}{rest}", "")]
    return [head, [(f"  {clean(replay.versions)}", "")]]


def _different(found: Divergence, marks: Marks) -> list[Line]:
    text = f" trial {found.trial} (request {found.request_no}) differs; all before are the same"
    head: Line = [marks.shape("Failed"), (text, "")]
    stored, recomputed = found.stored, found.recomputed
    if stored is None or recomputed is None:
        what = "was not recorded" if stored is None else "is not suggested any more"
        return [head, [(f"  it {what}", "")]]
    return [
        head,
        *(
            [(f"  {clean(name)}: recorded {_exact(stored.get(name))}, recomputed {_exact(recomputed.get(name))}", "")]
            for name in found.parameters
        ),
    ]


def document(replay: Replay, name: str) -> dict[str, Any]:
    found = replay.divergence
    differs = found and {
        "request": found.request_no,
        "trial": found.trial,
        "recorded": None if found.stored is None else dict(found.stored),
        "recomputed": None if found.recomputed is None else dict(found.recomputed),
    }
    return {
        "name": name,
        "identical": replay.identical,
        "requests": replay.requests,
        "trials": replay.trials,
        "divergence": differs,
        **({"libraries": replay.versions} if replay.versions else {}),
    }


def _exact(value: Value | None) -> str:
    if value is None:
        return "nothing"
    return repr(value) if isinstance(value, float) else clean(parameter_text(value))
