"""Algorithms that behave badly, as third parties might; found through an entry point on PYTHONPATH."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import ClassVar, Literal

from evertune.domain.space import SearchProblem
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, Feature, JsonDict


class Plugin:
    name: ClassVar[str] = "plugin"
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = True
    supports: ClassVar[frozenset[Feature]] = frozenset()

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return []

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=tuple(Assignment({"n": first_number + index}) for index in range(k)))


class Loud(Plugin):
    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        print('{"error": "read as an answer"}', flush=True)
        os.write(1, b"from below\n")
        subprocess.run(["echo", "from a child"], check=True)
        return super().ask(history, k, first_number, state)


class Deadly(Plugin):
    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        sys.stderr.write("the library tore its process down\n")
        sys.stderr.flush()
        os._exit(int(self.problem.settings["code"]))


class Slow(Plugin):
    """Leaves a file when it starts, so that a test can act in the middle of an ask: the first one, if so it is set."""

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        with open(self.problem.settings["file"], "a") as started:  # noqa: PTH123
            first = started.tell() == 0
            started.write(f"{os.getpid()}\n")
        if first or "once" not in self.problem.settings:
            time.sleep(float(self.problem.settings["seconds"]))
        return super().ask(history, k, first_number, state)


class Burning(Plugin):
    """Needs so much CPU time for each ask."""

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        end = time.process_time() + float(self.problem.settings["cpu"])
        while time.process_time() < end:
            sum(range(1000))
        return super().ask(history, k, first_number, state)


class Greedy(Plugin):
    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return super().ask(history, k + 1, first_number, state)


class Silent(Plugin):
    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer()


class Undefined(Plugin):
    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=(Assignment({"n": float("nan")}),))


class Unwritable(Plugin):
    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=(Assignment({"n": 1}),), state={"a set": {1, 2}})
