"""Drives experiments through a real store, as the `suggest` activity does, with trials that end in a random order."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from activities.asks import AskJob, Asks
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.protocols import Answer
from evertune.store import Store
from evertune.testing.play import score
from evertune.testing.store.making import create, finish

SPACE = SearchSpace(
    (
        Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="decay", type=ParameterType.DOUBLE, low=0.0, high=1.0, distribution=Distribution.NORMAL),
        Parameter(name="layers", type=ParameterType.INT, low=1, high=8),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
    )
)
GRID = SearchSpace(
    (
        Parameter(name="layers", type=ParameterType.INT, low=1, high=8),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
    )
)
FEW_AT_RANDOM: Mapping[str, Mapping[str, str]] = {
    "tpe": {"n_startup_jobs": "4"},
    "multivariate-tpe": {"n_startup_trials": "4"},
}

Ask = Callable[[AskJob], Awaitable[Answer]]


def new_experiment(
    store: Store, algorithm: str, seed: int = 7, direction: ObjectiveType = ObjectiveType.MINIMIZE
) -> str:
    record = create(
        store,
        algorithm=algorithm,
        seed=seed,
        settings=dict(FEW_AT_RANDOM.get(algorithm, {})),
        space=GRID if algorithm == "grid" else SPACE,
        objective=Objective(direction, "loss"),
    )
    return record.uid


@dataclass
class Drive:
    """One experiment on its way."""

    store: Store
    uid: str
    requests: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(5))

    def open(self, k: int) -> AskJob:
        opened = self.store.open_request(self.uid, self.requests, k, 1)
        return AskJob(self.uid, opened.request_no, opened.k, opened.first_number, opened.cut, opened.revision)

    def commit(self, answer: Answer) -> None:
        self.store.commit_answer(self.uid, self.requests, answer, datetime.now(UTC))
        self.requests += 1

    async def step(self, ask: Ask, k: int = 1) -> Answer:
        answer = await ask(self.open(k))
        self.commit(answer)
        return answer

    def running(self) -> list[int]:
        return [trial.number for trial in self.store.trials(self.uid) if not trial.state.terminal]

    def end_one(self) -> None:
        number = self.chance.choice(self.running())
        if self.chance.random() < 0.15:
            finish(self.store, self.uid, number, None, TrialState.FAILED)
        else:
            finish(self.store, self.uid, number, score(self.store.trial(self.uid, number).parameters))

    async def run(self, ask: Ask, trials: int, parallel: int) -> list[Mapping[str, Value]]:
        while (there := len(self.store.trials(self.uid))) < trials:
            free = min(parallel - len(self.running()), trials - there)
            if free > 0:
                await self.step(ask, free)
            self.end_one()
        return self.parameters()

    def parameters(self) -> list[Mapping[str, Value]]:
        return [trial.parameters for trial in self.store.trials(self.uid)]


def warm(store: Store) -> Ask:
    """Kept sessions, in this process."""
    asks = Asks(store)

    async def ask(job: AskJob) -> Answer:
        return asks.answer(job)

    return ask


def cold(store: Store) -> Ask:
    """Everything rebuilt for each ask."""

    async def ask(job: AskJob) -> Answer:
        return Asks(store).answer(job)

    return ask
