"""One experiment without a database: asks, tells trials in any order and any way, and keeps what JSON keeps.

For tests of algorithms, beside or instead of their contract. It asks through a function, so that the same play drives
a new object for each ask, a kept session or a library itself.
"""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evertune.domain.space import Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Answer, JsonDict

Ending = tuple[TrialState, float | None]
Ask = Callable[[Sequence[HistoryTrial], int, int, JsonDict | None], Answer]
ENDINGS: tuple[Ending, ...] = (
    (TrialState.FAILED, None),
    (TrialState.METRICS_UNAVAILABLE, None),
    (TrialState.EARLY_STOPPED, 0.5),
    (TrialState.EARLY_STOPPED, None),
    (TrialState.KILLED, 0.25),
    (TrialState.KILLED, None),
    (TrialState.SUCCEEDED, None),
    (TrialState.SUCCEEDED, math.nan),
    (TrialState.SUCCEEDED, math.inf),
    (TrialState.SUCCEEDED, -math.inf),
    (TrialState.SUCCEEDED, 1.7e308),
    (TrialState.SUCCEEDED, -5e-324),
)


def score(parameters: Mapping[str, Value]) -> float:
    """An objective without any shape, the same in every process."""
    return zlib.crc32(repr(sorted(parameters.items())).encode()) / 2**32


@dataclass
class Play:
    """One experiment as the store would remember it: asks through `ask`, keeps what JSON keeps."""

    ask: Ask
    trials: list[HistoryTrial] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    told: int = 0
    more: Callable[[random.Random], dict[str, Any]] | None = None  # what each trial tells beyond its value

    @property
    def parameters(self) -> list[Mapping[str, Value]]:
        return [trial.parameters for trial in self.trials]

    @property
    def state(self) -> JsonDict | None:
        return through_json(self.answers[-1].state) if self.answers else None

    def suggest(self, k: int) -> Answer:
        warm = self.warm
        answer = self.ask(tuple(self.trials), k, len(self.trials) - warm, self.state)
        for assignment in answer.assignments:
            self.trials.append(
                HistoryTrial(
                    number=len(self.trials) - warm,
                    parameters=through_json(dict(assignment.parameters)),
                    state=TrialState.RUNNING,
                    labels=through_json(dict(assignment.labels)),
                    meta=through_json(dict(assignment.meta)),
                )
            )
        self.answers.append(answer)
        return answer

    def tell(self, number: int, state: TrialState, value: float | None, **more: Any) -> None:
        """`more`: the fields of `HistoryTrial` that only some experiments have."""
        self.told += 1
        index = self.warm + number
        self.trials[index] = replace(self.trials[index], state=state, value=value, told_seq=self.told, **more)

    @property
    def warm(self) -> int:
        """How many trials of a warm start stand before the first one."""
        return sum(trial.number < 0 for trial in self.trials)

    def running(self) -> list[int]:
        return [trial.number for trial in self.trials if not trial.state.terminal]

    def run(self, trials: int, parallel: int, luck: random.Random, failing: float = 0.2) -> Play:
        """Keep `parallel` trials running, end a random one at a time, a share of them in some bad way."""
        while len(self.trials) < trials:
            free = min(parallel - len(self.running()), trials - len(self.trials))
            if free > 0 and not self.suggest(free).assignments and not self.running():
                return self
            number = luck.choice(self.running())
            more = self.more(luck) if self.more else {}
            if luck.random() < failing:
                self.tell(number, *luck.choice(ENDINGS), **more)
            else:
                value = score(self.trials[self.warm + number].parameters)
                self.tell(number, TrialState.SUCCEEDED, value, **{**more, **self._first(more, value)})
        return self

    @staticmethod
    def _first(more: Mapping[str, Any], value: float) -> dict[str, Any]:
        values = more.get("values", ())
        return {"values": (value, *values[1:])} if values else {}


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - which trial ends next is no secret


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
