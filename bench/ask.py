"""What an ask costs beside the library's own: a new trial at n = 1,000 and n = 5,000, all of our way included.

Ours is `AskHost.ask` with a warm child: a line to the process, what changed since the last ask read from SQLite, the
library's model, a line back. Native is the library's live object in this process, told the same trials: one suggestion
of hyperopt with its `Trials` kept, one `study.ask` and `study.tell` of Optuna, one `ask` and `tell` of scikit-optimize
(extra trees; its Gaussian process takes a minute at n = 1,000) or `cmaes`. They take turns, trial by trial.
`python -m bench.ask NAME...` measures these alone.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from activities.asking import AskHost, AskJob
from activities.asks import problem_of
from algorithms.bayesian import one_hot, optimizer_of
from algorithms.cma import cube
from algorithms.hyperopt_search import Random, anneal_options, hyperopt_space, tpe_options
from algorithms.native import quiet
from algorithms.optuna_search import nsgaii_sampler, tpe_sampler
from algorithms.optuna_session import optuna_space
from algorithms.sobol import sobol_engine
from algorithms.space import Codec, Kind
from bench.figures import Figure
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


class LiveHyperopt:
    """A `Trials` that fmin would keep, asked and told as fmin does."""

    def _method(self, problem: SearchProblem) -> tuple[Any, Mapping[str, Any]]:
        return self._hyperopt.tpe.suggest, tpe_options(problem)

    def __init__(self, problem: SearchProblem) -> None:
        import hyperopt
        import numpy as np

        self._hyperopt = hyperopt
        self._codec = Codec.of(problem.space)
        self._domain = hyperopt.Domain(lambda _: 0.0, hyperopt_space(self._codec))
        self._trials = hyperopt.Trials()
        self._suggest, self._options = self._method(problem)
        self._rng = np.random.default_rng(problem.seed)

    def add(self, told: Sequence[Parameters]) -> None:
        documents = []
        for number, parameters in enumerate(told, start=len(self._trials)):
            raw = self._codec.encode(parameters)
            misc = {
                "tid": number,
                "cmd": self._domain.cmd,
                "workdir": self._domain.workdir,
                "idxs": {name: [number] for name in raw},
                "vals": {name: [value] for name, value in raw.items()},
            }
            result = {"status": "ok", "loss": score(parameters)}
            (document,) = self._trials.new_trial_docs([number], [None], [result], [misc])
            document["state"] = self._hyperopt.JOB_STATE_DONE
            documents.append(document)
        self._trials.insert_trial_docs(documents)
        self._trials.refresh()

    def ask(self) -> None:
        number = len(self._trials)
        seed = int(self._rng.integers(2**31 - 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            new = self._suggest([number], self._domain, self._trials, seed, **self._options)
        self._trials.insert_trial_docs(new)
        self._trials.refresh()
        last = self._trials.trials[-1]
        last["state"], last["result"] = self._hyperopt.JOB_STATE_DONE, {"status": "ok", "loss": number % 7 / 7}
        self._trials.refresh()


class LiveAnneal(LiveHyperopt):
    def _method(self, problem: SearchProblem) -> tuple[Any, Mapping[str, Any]]:
        return self._hyperopt.anneal.suggest, anneal_options(problem)


class LiveOptuna:
    """A study in memory, asked and told."""

    sampler: Callable[[SearchProblem], Any] = staticmethod(tpe_sampler)

    def __init__(self, problem: SearchProblem) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._create_trial = optuna.trial.create_trial
        self._codec = Codec.of(problem.space)
        self._distributions = optuna_space(self._codec)
        self._study = optuna.create_study(sampler=self.sampler(problem))

    def add(self, told: Sequence[Parameters]) -> None:
        for parameters in told:
            raw = self._codec.encode(parameters)
            params = {
                dimension.name: parameters[dimension.name] if dimension.kind is Kind.CHOICE else raw[dimension.name]
                for dimension in self._codec.free
            }
            self._study.add_trial(
                self._create_trial(params=params, distributions=self._distributions, value=score(parameters))
            )

    def ask(self) -> None:
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, trial.number % 7 / 7)


class LiveNsgaII(LiveOptuna):
    sampler = staticmethod(nsgaii_sampler)


class LiveSkopt:
    """An Optimizer, which fits when it is told."""

    def __init__(self, problem: SearchProblem) -> None:
        self._codec = Codec.of(problem.space)
        self._optimizer = optimizer_of(problem)

    def add(self, told: Sequence[Parameters]) -> None:
        points = []
        for parameters in told:
            raw = self._codec.encode(parameters)
            points.append([parameters[each.name] if one_hot(each) else raw[each.name] for each in self._codec.free])
        self._optimizer._tell(points, [score(parameters) for parameters in told], fit=False)

    def ask(self) -> None:
        if not self._optimizer.models:
            self._optimizer._tell([], [])  # the first fit
        point = self._optimizer.ask()
        self._optimizer.tell(point, len(self._optimizer.yi) % 7 / 7)


class LiveCma:
    """A CMA that has been told as many trials as there are, generation by generation."""

    def __init__(self, problem: SearchProblem) -> None:
        import cmaes
        import numpy as np

        numbers, _ = cube(Codec.of(problem.space))
        bounds = np.array([[0.0, 1.0]] * len(numbers))
        self._cma = cmaes.CMA(mean=np.full(len(numbers), 0.5), sigma=1 / 6, bounds=bounds, seed=problem.seed)
        self._solutions: list[tuple[Any, float]] = []
        self._number = 0

    def add(self, told: Sequence[Parameters]) -> None:
        for _ in told:
            self.ask()

    def ask(self) -> None:
        self._number += 1
        self._solutions.append((self._cma.ask(), self._number % 7 / 7))
        if len(self._solutions) == self._cma.population_size:
            self._cma.tell(self._solutions)
            self._solutions = []


class LiveSobol:
    def __init__(self, problem: SearchProblem) -> None:
        self._engine = sobol_engine(len(Codec.of(problem.space).free), None)

    def add(self, told: Sequence[Parameters]) -> None:
        self._engine.fast_forward(len(told))

    def ask(self) -> None:
        with quiet():
            self._engine.random(1)


LIBRARIES: Mapping[str, Callable[[SearchProblem], Any]] = {
    "tpe": LiveHyperopt,
    "anneal": LiveAnneal,
    "multivariate-tpe": LiveOptuna,
    "motpe": LiveOptuna,
    "nsgaii": LiveNsgaII,
    "cmaes": LiveCma,
    "sobol": LiveSobol,
    "bayesianoptimization": LiveSkopt,
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


async def compare(host: AskHost, experiment: Experiment, live: Any) -> tuple[float, float]:
    """Medians in ms of ours and the library's."""
    ours, native = [], []
    experiment.commit(await host.ask(experiment.open(1)))  # the child reads the whole history: not a warm ask
    live.ask()
    for _ in range(ASKS):
        job = experiment.open(1)
        start = time.perf_counter()
        answer = await host.ask(job)
        ours.append(time.perf_counter() - start)
        experiment.commit(answer)
        start = time.perf_counter()
        live.ask()
        native.append(time.perf_counter() - start)
    return median(ours) * 1000, median(native) * 1000


async def figures(store: Store, database_url: str, names: Sequence[str]) -> list[Figure]:
    found = []
    host = AskHost(store, database_url)
    for algorithm, library in ((name, LIBRARIES[name]) for name in names):
        experiment = Experiment(store, algorithm)
        live = library(problem_of(experiment.record))
        for size in SLOW.get(algorithm, SIZES):
            live.add(experiment.grow(size))
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
