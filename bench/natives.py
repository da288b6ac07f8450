"""The libraries' own live objects, asked and told as their users would, over the same encoded space as ours.

For `bench.quality`, what a library finds when nothing of ours stands between, and `bench.ask`, what it costs then. With
several trials at once each is driven by what it has itself for that: hyperopt and Optuna know what is running, cmaes
draws from its generation, and scikit-optimize is asked for as many points as run. `add` tells trials of one objective
that have ended and that it was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from algorithms.bayesian import one_hot, optimizer_of
from algorithms.cma import cube
from algorithms.hyperopt_search import anneal_options, hyperopt_space, tpe_options
from algorithms.native import quiet
from algorithms.optuna_gp import gp_sampler
from algorithms.optuna_search import nsgaii_sampler, tpe_sampler
from algorithms.optuna_session import optuna_space
from algorithms.space import Codec, Kind, Raw, from_quantile
from evertune.domain.space import SearchProblem, Value

Asked = tuple[Any, Mapping[str, Value]]
Ended = Sequence[tuple[Mapping[str, Value], float]]


class Hyperopt:
    """A `Trials`, with a document for each trial that runs."""

    def __init__(self, problem: SearchProblem, suggest: Callable[..., Any], options: Mapping[str, Any]) -> None:
        import hyperopt
        import numpy as np

        self._hyperopt, self._suggest, self._options = hyperopt, suggest, options
        self._codec = Codec.of(problem.space)
        self._domain = hyperopt.Domain(lambda _: 0.0, hyperopt_space(self._codec))
        self._trials = hyperopt.Trials()
        self._luck = np.random.default_rng(problem.seed)

    def add(self, ended: Ended) -> None:
        documents = []
        for number, (parameters, value) in enumerate(ended, start=len(self._trials)):
            raw = self._codec.encode(parameters)
            misc = {
                "tid": number,
                "cmd": self._domain.cmd,
                "workdir": self._domain.workdir,
                "idxs": {name: [number] for name in raw},
                "vals": {name: [each] for name, each in raw.items()},
            }
            result = {"status": self._hyperopt.STATUS_OK, "loss": value}
            (document,) = self._trials.new_trial_docs([number], [None], [result], [misc])
            document["state"] = self._hyperopt.JOB_STATE_DONE
            documents.append(document)
        self._trials.insert_trial_docs(documents)
        self._trials.refresh()

    def ask(self) -> Asked:
        seed, number = int(self._luck.integers(2**31 - 1)), len(self._trials)
        with quiet():
            (document,) = self._suggest([number], self._domain, self._trials, seed, **self._options)
        document["state"] = self._hyperopt.JOB_STATE_RUNNING
        self._trials._insert_trial_docs([document])
        self._trials.refresh()
        raw: dict[str, Raw] = {name: values[0] for name, values in document["misc"]["vals"].items()}
        return number, self._codec.decode(raw)

    def tell(self, key: Any, values: tuple[float, ...]) -> None:
        document = self._trials._dynamic_trials[key]
        document["state"] = self._hyperopt.JOB_STATE_DONE
        document["result"] = {"status": self._hyperopt.STATUS_OK, "loss": values[0]}
        self._trials.refresh()


def hyperopt_tpe(problem: SearchProblem) -> Hyperopt:
    from hyperopt import tpe

    return Hyperopt(problem, tpe.suggest, tpe_options(problem))


def hyperopt_anneal(problem: SearchProblem) -> Hyperopt:
    from hyperopt import anneal

    return Hyperopt(problem, anneal.suggest, anneal_options(problem))


def hyperopt_random(problem: SearchProblem) -> Hyperopt:
    from hyperopt import rand

    return Hyperopt(problem, rand.suggest, {})


class Optuna:
    """A study in memory."""

    def __init__(self, problem: SearchProblem, sampler: Callable[[SearchProblem], Any]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._codec = Codec.of(problem.space)
        self._distributions = optuna_space(self._codec)
        directions: list[Any] = [str(direction) for direction in problem.all_directions]
        self._study = optuna.create_study(directions=directions, sampler=sampler(problem))
        self._create_trial = optuna.trial.create_trial

    def add(self, ended: Ended) -> None:
        for parameters, value in ended:
            raw = self._codec.encode(parameters)
            params = {
                dimension.name: parameters[dimension.name] if dimension.kind is Kind.CHOICE else raw[dimension.name]
                for dimension in self._codec.free
            }
            self._study.add_trial(self._create_trial(params=params, distributions=self._distributions, value=value))

    def ask(self) -> Asked:
        with quiet():
            trial = self._study.ask(self._distributions)
        raw = {}
        for name, value in trial.params.items():
            choices = getattr(self._distributions[name], "choices", None)
            raw[name] = value if choices is None else choices.index(value)
        return trial.number, self._codec.decode(raw)

    def tell(self, key: Any, values: tuple[float, ...]) -> None:
        self._study.tell(key, values)


class Skopt:
    """An Optimizer, asked for as many points as run at once whenever none is left."""

    def __init__(self, problem: SearchProblem) -> None:
        self._codec, self._optimizer = Codec.of(problem.space), optimizer_of(problem)
        self._parallel = problem.parallel
        self._points: list[list[Any]] = []

    def add(self, ended: Ended) -> None:
        points = []
        for parameters, _ in ended:
            raw = self._codec.encode(parameters)
            points.append([parameters[each.name] if one_hot(each) else raw[each.name] for each in self._codec.free])
        self._optimizer._tell(points, [value for _, value in ended])  # which fits, so that the next ask need not

    def ask(self) -> Asked:
        from threadpoolctl import threadpool_limits

        if not self._points:
            with quiet(), threadpool_limits(1):
                single = self._parallel == 1
                self._points = [self._optimizer.ask()] if single else self._optimizer.ask(n_points=self._parallel)
        point = self._points.pop(0)
        raw = {
            dimension.name: dimension.parameter.values.index(value) if isinstance(value, str) else value
            for dimension, value in zip(self._codec.free, point, strict=True)
        }
        return point, self._codec.decode(raw)

    def tell(self, key: Any, values: tuple[float, ...]) -> None:
        from threadpoolctl import threadpool_limits

        with quiet(), threadpool_limits(1):
            self._optimizer.tell(key, values[0])


class Cmaes:
    """A CMA, told whenever as many of its points have ended as its population has."""

    def __init__(self, problem: SearchProblem) -> None:
        import cmaes
        import numpy as np

        self._codec = Codec.of(problem.space)
        self._numbers, self._lists = cube(self._codec)
        size = len(self._numbers)
        bounds = np.array([[0.0, 1.0]] * size)
        self._cma = cmaes.CMA(mean=np.full(size, 0.5), sigma=1 / 6, bounds=bounds, seed=problem.seed)
        self._luck = np.random.default_rng(problem.seed)
        self._ended: list[tuple[Any, float]] = []

    def add(self, ended: Ended) -> None:
        """It can be told only of its own points: of as many."""
        for _, value in ended:
            point, _ = self.ask()
            self.tell(point, (value,))

    def ask(self) -> Asked:
        point = self._cma.ask()
        raw: dict[str, Raw] = {
            each.name: from_quantile(each, float(share)) for each, share in zip(self._numbers, point, strict=True)
        }
        raw |= {each.name: int(self._luck.integers(each.count)) for each in self._lists}
        return point, self._codec.decode(raw)

    def tell(self, key: Any, values: tuple[float, ...]) -> None:
        self._ended.append((key, values[0]))
        if len(self._ended) == self._cma.population_size:
            self._cma.tell(self._ended)
            self._ended = []


NATIVES: Mapping[str, Callable[[SearchProblem], Any]] = {
    "random": hyperopt_random,
    "tpe": hyperopt_tpe,
    "anneal": hyperopt_anneal,
    "multivariate-tpe": lambda problem: Optuna(problem, tpe_sampler),
    "motpe": lambda problem: Optuna(problem, tpe_sampler),
    "nsgaii": lambda problem: Optuna(problem, nsgaii_sampler),
    "gp": lambda problem: Optuna(problem, gp_sampler),
    "bayesianoptimization": Skopt,
    "cmaes": Cmaes,
}
