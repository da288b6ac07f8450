"""Forty asks over a mixed space, each by an operating system process of its own, are the library's own loop.

Processes are forked from a server that has loaded the libraries and has never asked anything: what one of them leaves
in memory is gone with it, and an import is not paid forty times.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from typing import Any

import hyperopt
import pytest

from algorithms.bayesian import BayesianOptimization
from algorithms.cma import CmaEs
from algorithms.hyperopt_search import Anneal, Random, Tpe, anneal_options, tpe_options
from algorithms.optuna_gp import gp_sampler
from algorithms.optuna_search import Gp, Motpe, MultivariateTpe, NsgaII, nsgaii_sampler, tpe_sampler
from evertune.domain.space import SearchProblem, Value
from evertune.domain.trial import HistoryTrial
from evertune.protocols import Algorithm, Answer, JsonDict
from evertune.testing.play import Play
from tests.unit.algorithms import test_library_sequences as libraries
from tests.unit.algorithms import test_native_sequence as sequences
from tests.unit.algorithms import test_optuna_native as studies

ASKS = 42
LOADED = ["hyperopt", "optuna", "skopt", "cmaes", "sklearn.ensemble", "scipy.stats", "algorithms.registry"]
if studies.has_torch:
    LOADED.append("torch")

Parameters = Mapping[str, Value]


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def answer(kind: type[Algorithm], problem: SearchProblem, question: tuple[Any, ...], reply: Any) -> None:
    """What the process does, and all that it does."""
    reply.send(kind(problem).ask(*question))
    reply.close()


def play(context: ForkServerContext, kind: type[Algorithm], problem: SearchProblem) -> Play:
    used = set()

    def ask(history: Sequence[HistoryTrial], k: int, first: int, state: JsonDict | None) -> Answer:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=answer, args=(kind, problem, (history, k, first, state), sending))
        process.start()
        sending.close()
        found: Answer = receiving.recv()
        process.join(30)
        assert process.exitcode == 0
        used.add(process.pid)
        assert len(used) == first + 1, "a process answered twice"
        return found

    return Play(ask)


def hyperopts(suggest: Any, options: Callable[[SearchProblem], Mapping[str, Any]]) -> Any:
    return lambda problem: sequences.fmin(problem, lambda *given: suggest(*given, **options(problem)), ASKS)


def of_a_study(sampler: Any) -> Any:
    return lambda problem: studies.native(problem, sampler, ASKS)


MIXED = libraries.problem()
TREES = {"base_estimator": "ET", "n_initial_points": "30"}
CASES = [
    pytest.param(Random, MIXED, hyperopts(hyperopt.rand.suggest, lambda _: {}), id="random"),
    pytest.param(Tpe, MIXED, hyperopts(hyperopt.tpe.suggest, tpe_options), id="tpe"),
    pytest.param(Anneal, MIXED, hyperopts(hyperopt.anneal.suggest, anneal_options), id="anneal"),
    pytest.param(MultivariateTpe, MIXED, of_a_study(tpe_sampler), id="multivariate-tpe"),
    pytest.param(Motpe, replace(MIXED, directions=studies.TWO), of_a_study(tpe_sampler), id="motpe"),
    pytest.param(
        NsgaII,
        replace(MIXED, directions=studies.TWO, settings=studies.NSGAII),
        of_a_study(nsgaii_sampler),
        id="nsgaii",
    ),
    pytest.param(
        CmaEs,
        libraries.problem(libraries.NUMBERS),
        lambda problem: libraries.cmaes_loop(problem, ASKS),
        id="cmaes",
    ),
    pytest.param(
        BayesianOptimization,
        replace(MIXED, settings=TREES),
        lambda problem: libraries.skopt_loop(problem, ASKS),
        id="bayesianoptimization",
    ),
    pytest.param(
        Gp,
        replace(MIXED, settings=studies.GP),
        of_a_study(gp_sampler),
        id="gp",
        marks=pytest.mark.skipif(not studies.has_torch, reason="gp needs torch"),
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "problem", "native"), CASES)
def test_a_process_per_ask_gives_the_librarys_own_sequence(
    processes: ForkServerContext, kind: type[Algorithm], problem: SearchProblem, native: Any
) -> None:
    ours = play(processes, kind, problem)
    for number in range(ASKS):
        ours.suggest(1)
        studies.tell(ours, number, problem)
    assert ours.parameters == native(problem)
