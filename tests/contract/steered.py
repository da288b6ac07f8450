"""Steered algorithms by names of their own, so that another process can find them; and spaces to steer through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from algorithms.grid import Grid
from algorithms.hyperopt_search import Random, Tpe
from algorithms.steering.steered import Steered
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, When
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import Problem
from evertune.protocols import Answer, JsonDict


class SteeredRandom(Steered):
    kind = Random


class SteeredTpe(Steered):
    kind = Tpe


class SteeredGrid(Steered):
    kind = Grid


class Halves:
    """What a third party may write: no session, no `supports`, one point after the other whatever anybody says."""

    name: ClassVar[str] = "halves"
    on_edit: ClassVar[Literal["continue", "restart", "refuse"]] = "continue"
    reads_history: ClassVar[bool] = True

    def __init__(self, problem: SearchProblem) -> None:
        self._inner = Random(problem)

    @classmethod
    def check(cls, problem: SearchProblem) -> Sequence[Problem]:
        return Random.check(problem)

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        """Its first half as random does, the others where a trial was good already."""
        answer = self._inner.ask(history, k, first_number, state)
        values = [(trial.value, trial.number) for trial in history if trial.value is not None]
        best = dict(history[min(values)[1]].parameters) if values else {}
        given = [
            Assignment(best if best and (first_number + index) % 2 else each.parameters)
            for index, each in enumerate(answer.assignments)
        ]
        return Answer(assignments=tuple(given), state={"asked": first_number + k})


class SteeredHalves(Steered):
    kind = Halves  # type: ignore[assignment]


def number(name: str, low: float, high: float, step: float | None = None, *when: When, log: bool = False) -> Parameter:
    return Parameter(
        name=name,
        type=ParameterType.DOUBLE,
        low=low,
        high=high,
        step=step,
        when=when,
        distribution=Distribution.LOG_UNIFORM if log else Distribution.UNIFORM,
    )


def whole(name: str, low: int, high: int, *when: When) -> Parameter:
    return Parameter(name=name, type=ParameterType.INT, low=low, high=high, when=when)


def choice(name: str, *values: str, when: tuple[When, ...] = ()) -> Parameter:
    return Parameter(name=name, type=ParameterType.CATEGORICAL, values=values, when=when)


STEPS = SearchSpace((whole("layers", 1, 6), number("width", 0.1, 0.6, 0.1), choice("kind", "wide", "deep", "flat")))
MIXED = SearchSpace((number("lr", 1e-5, 0.1, log=True), *STEPS.parameters, number("decay", 0.0, 1.0)))
TREE = SearchSpace(
    (
        choice("optimizer", "sgd", "adam", "none"),
        whole("momentum", 1, 4, When("optimizer", ("sgd",))),
        choice("schedule", "step", "cosine", when=(When("optimizer", ("sgd", "adam")),)),
        number("gamma", 0.1, 0.4, 0.1, When("schedule", ("step",))),
        whole("layers", 1, 3),
    )
)
