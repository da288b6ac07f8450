"""Recomputes an experiment's suggestions from its record. Reads the database and asks the algorithm in this process.

Every committed request is asked again with the history at its cut. A suggestion is a pure function of that history, so
any difference means that the algorithm's library, or the record, has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activities.asks import problem_of
from algorithms.registry import create
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import parameter_text
from evertune.cli.output.text import Line, clean
from evertune.domain.records import ExperimentRecord, RequestRecord, TrialRecord
from evertune.domain.space import Value
from evertune.domain.trial import Assignment
from evertune.protocols import JsonDict
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

    def as_dict(self, name: str) -> dict[str, Any]:
        found = self.divergence
        return {
            "name": name,
            "identical": found is None,
            "requests": self.requests,
            "trials": self.trials,
            "divergence": None if found is None else found.as_dict(),
        }


def replay(store: Store, record: ExperimentRecord) -> Replay:
    """Stops at the first divergence. Raises AlgorithmError when the algorithm cannot answer at all."""
    algorithm = create(record.algorithm, problem_of(record))
    state: JsonDict | None = None
    checked = trials = 0
    revision = None
    for request in store.requests(record.uid):
        if not request.committed:
            continue
        if request.revision != revision:
            revision, state = request.revision, None
        history = store.history(record.uid, cut=request.cut, first_number=request.first_number)
        answer = algorithm.ask(history, request.k, request.first_number, state)
        state = answer.state
        stored = store.trials_of_request(record.uid, request.request_no)
        if divergence := compare(request, stored, answer.assignments):
            return Replay(checked, trials, divergence)
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
