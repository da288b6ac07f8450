"""What a suggestion costs late in an experiment: ours, from the warm ask process over SQLite, beside the library's own.

"Own" is one turn of the library's live loop in its process: suggest a point, record it. Ours adds the trip to the ask
process and reading what is new from the database. The promise at 5,000 trials is 1.2 times theirs and 15 ms.
Both are the fastest of several, so that a busy machine does not decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from activities.asking import AskHost, AskJob
from algorithms import registry
from bench.figures import Figure
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment
from evertune.protocols import Answer
from evertune.store import Store, open_store
from evertune.testing.store.making import create, finish

SIZES = (500, 5000)
ASKS = 15
MOST = 1.2
EXTRA_MS = 15.0
SEED = 5

SPACE = SearchSpace(
    (
        Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="momentum", type=ParameterType.DOUBLE, low=0.0, high=1.0),
        Parameter(name="units", type=ParameterType.INT, low=1, high=64),
        Parameter(name="depth", type=ParameterType.DISCRETE, values=("1", "2", "4", "8")),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("adam", "sgd", "rmsprop")),
    )
)


def objective(parameters: Mapping[str, Value]) -> float:
    return abs(float(parameters["momentum"]) - 0.3) + abs(int(parameters["units"]) - 20) / 64


def random_points(how_many: int) -> list[dict[str, Value]]:
    problem = SearchProblem(space=SPACE, direction=ObjectiveType.MINIMIZE, seed=SEED)
    answer = registry.create("random", problem).ask([], how_many, 0, None)
    return [dict(given.parameters) for given in answer.assignments]


def hyperopt_ms(algorithm: str, points: list[dict[str, Value]]) -> float:
    """One turn of `fmin` with these points in its trials."""
    import hyperopt
    import numpy as np
    from hyperopt import hp

    space = {
        "lr": hp.loguniform("lr", np.log(1e-5), np.log(0.1)),
        "momentum": hp.uniform("momentum", 0, 1),
        "units": hp.quniform("units", -0.5, 63.5, 1),
        "depth": hp.choice("depth", ["1", "2", "4", "8"]),
        "optimizer": hp.choice("optimizer", ["adam", "sgd", "rmsprop"]),
    }
    suggest = {"random": hyperopt.rand.suggest, "tpe": hyperopt.tpe.suggest}[algorithm]
    domain = hyperopt.Domain(lambda _: 0.0, space)
    trials = hyperopt.Trials()
    rng = np.random.default_rng(SEED)

    def finished(document: dict[str, Any], loss: float) -> dict[str, Any]:
        return {**document, "state": hyperopt.JOB_STATE_DONE, "result": {"status": "ok", "loss": loss}}

    for number, point in enumerate(points):
        document = hyperopt.rand.suggest([number], domain, trials, number)[0]
        trials.insert_trial_docs([finished(document, objective(point))])
    trials.refresh()

    def turn(number: int) -> None:
        trials.insert_trial_docs(suggest([number], domain, trials, rng.integers(2**31 - 1)))
        trials.refresh()
        trials.trials[-1].update(finished(trials.trials[-1], 0.5))

    return fastest_ms(turn, len(points))


def optuna_ms(_: str, points: list[dict[str, Value]]) -> float:
    """`study.ask` with these points in its memory."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-5, 0.1, log=True),
        "momentum": FloatDistribution(0, 1),
        "units": IntDistribution(1, 64),
        "depth": CategoricalDistribution(["1", "2", "4", "8"]),
        "optimizer": CategoricalDistribution(["adam", "sgd", "rmsprop"]),
    }
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=SEED, multivariate=True, constant_liar=True))
    study.add_trials(
        [optuna.create_trial(params=point, distributions=space, value=objective(point)) for point in points]
    )
    return fastest_ms(lambda _: study.tell(study.ask(space), 0.5), len(points))


def fastest_ms(turn: Callable[[int], object], first: int) -> float:
    times = []
    for number in range(first, first + ASKS):
        start = time.perf_counter()
        turn(number)
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


@dataclass
class Experiment:
    """One in a store, with a history that no algorithm made; asked again and again for one trial more."""

    store: Store
    host: AskHost
    uid: str
    request_no: int = 0

    def suggest(self, points: list[dict[str, Value]]) -> None:
        """Hand out and finish these."""
        self.request_no += 1
        self.store.open_request(self.uid, self.request_no, len(points))
        answer = Answer(assignments=tuple(Assignment(point) for point in points))
        for trial in self.store.commit_answer(self.uid, self.request_no, answer, datetime.now(UTC)):
            finish(self.store, self.uid, trial.number, objective(trial.parameters), TrialState.SUCCEEDED)

    async def ask_ms(self) -> float:
        self.request_no += 1
        request = self.store.open_request(self.uid, self.request_no, 1)
        job = AskJob(
            uid=self.uid,
            request_no=request.request_no,
            k=1,
            first_number=request.first_number,
            cut=request.cut,
            revision=request.revision,
        )
        start = time.perf_counter()
        answer = await self.host.ask(job)
        spent = (time.perf_counter() - start) * 1000
        (trial,) = self.store.commit_answer(self.uid, self.request_no, answer, datetime.now(UTC))
        finish(self.store, self.uid, trial.number, 0.5, TrialState.SUCCEEDED)
        return spent


async def ours_ms(folder: Path, algorithm: str, points: list[dict[str, Value]]) -> tuple[float, float]:
    """The fastest of warm asks, and the first ask in a process that knows nothing of the experiment."""
    url = f"sqlite:///{folder / f'{algorithm}-{len(points)}.db'}"
    with open_store(url) as store:
        host = AskHost(store, url)
        record = create(store, algorithm=algorithm, settings={}, space=SPACE, seed=SEED)
        experiment = Experiment(store, host, record.uid)
        try:
            experiment.suggest(points)
            first = await experiment.ask_ms()
            return min([await experiment.ask_ms() for _ in range(ASKS)]), first
        finally:
            await host.close()


def measure() -> Iterator[Figure]:
    native = {"random": hyperopt_ms, "tpe": hyperopt_ms, "multivariate-tpe": optuna_ms}
    for size in SIZES:
        points = random_points(size)
        for algorithm, live in native.items():
            theirs = live(algorithm, points)
            with TemporaryDirectory() as folder:
                ours, first = asyncio.run(ours_ms(Path(folder), algorithm, points))
            yield Figure(
                name=f"ask of {algorithm} at {size:,} trials to the library's",
                value=ours / theirs,
                unit="x",
                at_most=MOST + EXTRA_MS / theirs,
                note=f"{ours:.1f} ms to {theirs:.1f} ms; {first:.0f} ms in a new process",
            )
