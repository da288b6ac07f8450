"""Shows what recomputing an experiment's suggestions found. Reads the database and asks the algorithm in this process.

A suggestion is a pure function of the history at its request's cut (`activities.replay`), so any difference means that
the algorithm's library, or the record, has changed. Where the versions of libraries are others, that is what is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activities.problems import changed_libraries
from activities.replay import replayed
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import parameter_text
from evertune.cli.output.text import Line, clean
from evertune.domain.records import ExperimentRecord, RequestRecord, TrialRecord
from evertune.domain.space import Value
from evertune.domain.trial import Assignment
from evertune.store import Store


@dataclass(frozen=True)
class Divergence:
    """The first difference: of one trial, or of how many there are."""

    request: int
    trial: int
    stored: Mapping[str, Value] | None  # None: there is no such trial
    recomputed: Mapping[str, Value] | None

    def lines(self, marks: Marks) -> list[Line]:
        lines: list[Line] = [
            [
                marks.shape("Failed"),
                (f" trial {self.trial} (request {self.request}) differs; all before are the same", ""),
            ]
        ]
        if self.stored is None or self.recomputed is None:
            what = "was not recorded" if self.stored is None else "is not suggested any more"
            return [*lines, [(f"  it {what}", "")]]
        for name in dict.fromkeys((*self.stored, *self.recomputed)):
            was, now = self.stored.get(name), self.recomputed.get(name)
            if was != now:
                lines.append([(f"  {clean(name)}: recorded {_exact(was)}, recomputed {_exact(now)}", "")])
        return lines

    def as_dict(self) -> dict[str, Any]:
        return {
            "request": self.request,
            "trial": self.trial,
            "recorded": None if self.stored is None else dict(self.stored),
            "recomputed": None if self.recomputed is None else dict(self.recomputed),
        }


@dataclass(frozen=True)
class Replay:
    requests: int
    trials: int
    divergence: Divergence | None
    versions: str = ""  # as "hyperopt 0.3.0 -> 0.3.1": what they would say of the record is no evidence

    def lines(self, marks: Marks) -> list[Line]:
        """What differs, and why."""
        if self.divergence is None:
            return []
        if not self.versions:
            return self.divergence.lines(marks)
        rest = " was made with other versions of its libraries, and cannot be verified with these:"
        head: Line = [marks.shape("Failed"), (f" trial {self.divergence.trial}{rest}", "")]
        return [head, [(f"  {clean(self.versions)}", "")]]

    def as_dict(self, name: str) -> dict[str, Any]:
        found = self.divergence
        return {
            "name": name,
            "identical": found is None,
            "requests": self.requests,
            "trials": self.trials,
            "divergence": None if found is None else found.as_dict(),
            **({"libraries": self.versions} if self.versions else {}),
        }


def replay(store: Store, record: ExperimentRecord) -> Replay:
    """Stops at the first divergence. Raises AlgorithmError when the algorithm cannot answer at all."""
    checked = trials = 0
    for request, stored, answer in replayed(store, record.uid):
        if divergence := compare(request, stored, answer.assignments):
            return Replay(checked, trials, divergence, changed_libraries(record))
        checked += 1
        trials += len(stored)
    return Replay(checked, trials, None)


def compare(
    request: RequestRecord, stored: Sequence[TrialRecord], recomputed: Sequence[Assignment]
) -> Divergence | None:
    for index in range(max(len(stored), len(recomputed))):
        was = stored[index].parameters if index < len(stored) else None
        now = recomputed[index].parameters if index < len(recomputed) else None
        if was is None or now is None or dict(was) != dict(now):
            return Divergence(request.request_no, request.first_number + index, was, now)
    return None


def _exact(value: Value | None) -> str:
    if value is None:
        return "nothing"
    return repr(value) if isinstance(value, float) else clean(parameter_text(value))
