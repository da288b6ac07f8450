"""What an ask costs beside the library's own: a new trial at n = 1,000 and n = 5,000, all of our way included.

Ours is `AskHost.ask` with a warm child: a line to the process, what changed since the last ask read from SQLite, the
library's model, a line back. Native is the library's live object in this process (`bench.natives`), told the same
trials: asked for a point and told of it. They take turns, trial by trial. Of scikit-optimize that is with extra trees;
its Gaussian process takes a minute at n = 1,000.
`python -m bench.ask NAME...` measures these alone.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from activities.asking import AskHost, AskJob
from activities.asks import problem_of
from algorithms.hyperopt_search import Random
from algorithms.native import quiet
from algorithms.sobol import sobol_engine
from algorithms.space import Codec
from bench.figures import Figure
from bench.natives import NATIVES, Ended
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.records import Budget
from evertune.domain.space import Distribution, Parameter, ParameterType, SearchProblem, SearchSpace, Value
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import AttemptEnd, Ending
from evertune.protocols import Answer
from evertune.store import NewExperiment, Store, open_store
from evertune.testing.play import score

SIZES = (1000, 5000)
ASKS = 9
SLOW = {"bayesianoptimization": (1000,)}  # other sizes, where telling is a fit
SETTINGS: Mapping[str, Mapping[str, str]] = {"bayesianoptimization": {"base_estimator": "ET", "acq_func": "EI"}}
FACTOR, EXTRA_MS = 1.2, 15.0

SPACE = SearchSpace(
    (
        Parameter(name="lr", type=ParameterType.DOUBLE, low=1e-5, high=0.1, distribution=Distribution.LOG_UNIFORM),
        Parameter(name="momentum", type=ParameterType.DOUBLE, low=0.0, high=1.0),
        Parameter(name="dropout", type=ParameterType.DOUBLE, low=0.0, high=0.5, step=0.05),
        Parameter(name="layers", type=ParameterType.INT, low=1, high=8),
        Parameter(name="optimizer", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
    )
)

Parameters = Mapping[str, Value]


class Sobol:
    """The engine, which learns nothing from what it is told."""

    def __init__(self, problem: SearchProblem) -> None:
        self._engine = sobol_engine(len(Codec.of(problem.space).free), None)

    def add(self, ended: Ended) -> None:
        self._engine.fast_forward(len(ended))

    def ask(self) -> tuple[None, None]:
        with quiet():
            self._engine.random(1)
        return None, None

    def tell(self, key: None, values: tuple[float, ...]) -> None:
        pass


LIBRARIES: Mapping[str, Callable[[SearchProblem], Any]] = {
    **{
        name: NATIVES[name]
        for name in ("tpe", "anneal", "multivariate-tpe", "motpe", "nsgaii", "cmaes", "bayesianoptimization")
    },
    "sobol": Sobol,
}


class Experiment:
    """An experiment in the store, grown to a size by points at random and then asked one by one."""

    def __init__(self, store: Store, algorithm: str) -> None:
        now = datetime.now(UTC)
        self.store, self.uid, self.trials, self.requests = store, uuid4().hex, 0, 0
        self.record = store.claim_experiment(
            NewExperiment(
                uid=self.uid,
                namespace="bench",
                name=algorithm,
                workflow_id=f"experiment/bench/{algorithm}",
                first_run_id="bench",
                manifest={"spec": {}},
                context={},
                algorithm=algorithm,
                settings=SETTINGS.get(algorithm, {}),
                seed=1,
                objective=Objective(ObjectiveType.MINIMIZE, "loss"),
                space=SPACE,
                budget=Budget(),
                backend="local",
                home_id="bench",
                created=now,
            )
        )

    def open(self, k: int) -> AskJob:
        opened = self.store.open_request(self.uid, self.requests, k)
        return AskJob(self.uid, opened.request_no, opened.k, opened.first_number, opened.cut)

    def commit(self, answer: Answer) -> list[Parameters]:
        """Commit, and let every trial of the answer succeed at once."""
        now = datetime.now(UTC)
        trials = self.store.commit_answer(self.uid, self.requests, answer, now)
        self.requests += 1
        self.trials += len(trials)
        for trial in trials:
            value = score(trial.parameters)
            self.store.open_attempt(self.uid, trial.number, 0, home_id="bench", at=now)
            ending = Ending(
                end=AttemptEnd(AttemptState.SUCCEEDED, "Completed", ended=now),
                trial_state=TrialState.SUCCEEDED,
                objective=repr(value),
                objective_value=value,
            )

            def told(_: object, ending: Ending = ending) -> Ending:
                return ending

            self.store.end_attempt(self.uid, trial.number, 0, told)
        return [trial.parameters for trial in trials]

    def grow(self, size: int) -> list[Parameters]:
        points = Random(problem_of(self.record))
        added: list[Parameters] = []
        while self.trials < size:
            k = min(500, size - self.trials)
            self.open(k)
            answer = points.ask((), k, self.trials, None)
            added += self.commit(Answer(assignments=answer.assignments))
        return added


def asked_and_told(live: Any, number: int) -> None:
    key, _ = live.ask()
    live.tell(key, (number % 7 / 7,))


async def compare(host: AskHost, experiment: Experiment, live: Any) -> tuple[float, float]:
    """Medians in ms of ours and the library's."""
    ours, native = [], []
    experiment.commit(await host.ask(experiment.open(1)))  # the child reads the whole history: not a warm ask
    asked_and_told(live, 0)
    for number in range(1, ASKS + 1):
        job = experiment.open(1)
        start = time.perf_counter()
        answer = await host.ask(job)
        ours.append(time.perf_counter() - start)
        experiment.commit(answer)
        start = time.perf_counter()
        asked_and_told(live, number)
        native.append(time.perf_counter() - start)
    return median(ours) * 1000, median(native) * 1000


async def figures(store: Store, database_url: str, names: Sequence[str]) -> list[Figure]:
    found = []
    host = AskHost(store, database_url)
    for algorithm, library in ((name, LIBRARIES[name]) for name in names):
        experiment = Experiment(store, algorithm)
        live = library(problem_of(experiment.record))
        for size in SLOW.get(algorithm, SIZES):
            live.add([(parameters, score(parameters)) for parameters in experiment.grow(size)])
            ours, native = await compare(host, experiment, live)
            found.append(
                Figure(
                    name=f"an ask of {algorithm} at n = {size:,}",
                    value=ours,
                    unit="ms",
                    at_most=round(FACTOR * native + EXTRA_MS, 1),
                    note=f"native {native:.1f} ms, ratio {ours / native:.2f}; {FACTOR}x native + {EXTRA_MS:g} ms",
                )
            )
    await host.close()
    return found


def measure(names: Sequence[str] = tuple(LIBRARIES)) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="evertune-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'evertune.db'}"
        with open_store(url) as store:
            yield from asyncio.run(figures(store, url, names))


if __name__ == "__main__":
    for figure in measure(sys.argv[1:] or tuple(LIBRARIES)):
        print(figure.line())
