"""How good the found values are: `python -m bench.quality`, ours beside the libraries' own live objects.

Each run asks an algorithm 100 times (models of hours of CPU: 50) with 1 or 8 trials at once; with 8, trials take random
times and end in any order, the same for all. A value is the best after the whole budget, of two objectives the
hypervolume of the front. Mean and 95 % interval (Student's t) over the seeds. Written to docs/quality.json, which
docs/algorithms.md shows; takes an hour on two cores, or less with --seeds and --only.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bench.natives import NATIVES
from bench.problems import PROBLEMS, BenchProblem
from evertune.domain.pareto import hypervolume
from evertune.domain.space import SearchProblem, Value
from evertune.domain.states import TrialState
from evertune.domain.trial import HistoryTrial

RESULTS = Path(__file__).parent.parent / "docs" / "quality.json"
BUDGET, SHORT = 100, 50
SEEDS, FEW_SEEDS = 10, 5
PARALLEL = (1, 8)


@dataclass(frozen=True)
class Subject:
    """An algorithm with settings, under the name that the table shows."""

    name: str
    algorithm: str
    settings: tuple[tuple[str, str], ...] = ()
    slow: bool = False  # fewer evaluations and seeds
    fronts: bool = False  # for several objectives only


_TREES = (("base_estimator", "ET"),)
SUBJECTS = (
    Subject("random", "random"),
    Subject("sobol", "sobol"),
    Subject("tpe", "tpe"),
    Subject("anneal", "anneal"),
    Subject("multivariate-tpe", "multivariate-tpe"),
    Subject("cmaes", "cmaes"),
    Subject("bayesianoptimization (GP)", "bayesianoptimization", (("acq_func", "EI"),), slow=True),
    Subject(
        "bayesianoptimization (ET)", "bayesianoptimization", (("base_estimator", "ET"), ("acq_func", "EI")), slow=True
    ),
    Subject("gp", "gp", slow=True),
    Subject("motpe", "motpe", fronts=True),
    Subject("nsgaii", "nsgaii", (("population_size", "20"),), fronts=True),
)


class Driver(Protocol):
    """What is asked for points and told their values. Asks and tells may come in any order."""

    def ask(self) -> tuple[object, Mapping[str, Value]]: ...

    def tell(self, key: object, values: tuple[float, ...]) -> None: ...


class Ours:
    """A session, fed as the ask process feeds it."""

    def __init__(self, algorithm: str, problem: SearchProblem) -> None:
        from algorithms.base import SessionAlgorithm
        from algorithms.registry import create

        made = create(algorithm, problem)
        assert isinstance(made, SessionAlgorithm)
        self._session = made.session()
        self._trials: dict[int, HistoryTrial] = {}
        self._changed: dict[int, HistoryTrial] = {}
        self._state = None
        self._several = bool(problem.directions)
        self._told = 0

    def ask(self) -> tuple[int, Mapping[str, Value]]:
        number = len(self._trials)
        self._session.update([self._changed[changed] for changed in sorted(self._changed)])
        self._changed.clear()
        answer = self._session.ask(1, number, self._state)
        self._state = json.loads(json.dumps(answer.state))
        (assignment,) = answer.assignments
        trial = HistoryTrial(number, assignment.parameters, TrialState.RUNNING, meta=assignment.meta)
        self._trials[number] = self._changed[number] = trial
        return number, assignment.parameters

    def tell(self, key: object, values: tuple[float, ...]) -> None:
        assert isinstance(key, int)
        before = self._trials[key]
        self._told += 1
        self._trials[key] = self._changed[key] = HistoryTrial(
            key,
            before.parameters,
            TrialState.SUCCEEDED,
            values[0],
            self._told,
            meta=before.meta,
            values=values if self._several else (),
        )


def run(bench: BenchProblem, driver: Driver, budget: int, parallel: int, seed: int) -> list[float]:
    """The best so far after each evaluation, in the order in which they end."""
    clock = np.random.default_rng([seed, 77])
    running: list[tuple[float, int, object, tuple[float, ...]]] = []
    asked, now = 0, 0.0
    seen: list[tuple[float, ...]] = []
    curve: list[float] = []
    while len(seen) < budget:
        while asked < budget and len(running) < parallel:
            key, parameters = driver.ask()
            heapq.heappush(running, (now + 0.5 + clock.random(), asked, key, bench.values(parameters)))
            asked += 1
        now, _, key, values = heapq.heappop(running)
        driver.tell(key, values)
        seen.append(values)
        curve.append(hypervolume(seen, bench.reference) if bench.reference else min(value for (value,) in seen))
    return curve


# --------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Job:
    problem: str
    subject: str
    driver: str  # ours | native
    parallel: int
    seed: int
    budget: int


def play(job: Job) -> tuple[Job, list[float], float]:
    """One run, in a process of its own. CPU seconds too."""
    warnings.simplefilter("ignore")
    bench = next(each for each in PROBLEMS if each.name == job.problem)
    subject = next(each for each in SUBJECTS if each.name == job.subject)
    # Without a seed in its settings sobol is Katib's, the same points for everybody.
    settings = {"random_state": str(job.seed), **dict(subject.settings)}
    problem = bench.problem(job.seed, job.budget, job.parallel, settings)
    begun = time.process_time()
    driver: Driver = Ours(subject.algorithm, problem) if job.driver == "ours" else NATIVES[subject.algorithm](problem)
    curve = run(bench, driver, job.budget, job.parallel, job.seed)
    return job, curve, time.process_time() - begun


def jobs(subjects: Sequence[Subject], seeds: int) -> Iterator[Job]:
    for bench in PROBLEMS:
        for subject in subjects:
            fronts = bool(bench.reference)
            if fronts != subject.fronts and subject.name not in ("random", "sobol"):
                continue
            for driver in ("ours", "native"):
                if driver == "native" and subject.algorithm not in NATIVES:
                    continue
                for parallel in PARALLEL:
                    for seed in range(min(seeds, FEW_SEEDS) if subject.slow else seeds):
                        yield Job(bench.name, subject.name, driver, parallel, seed, SHORT if subject.slow else BUDGET)


@dataclass(frozen=True)
class Row:
    """`mean` and `half` (of the 95 % interval) of the best after `budget` evaluations; `curve` is the mean of all."""

    problem: str
    subject: str
    driver: str
    parallel: int
    seeds: int
    budget: int
    mean: float
    half: float
    cpu_s: float
    curve: list[float]


def rows(results: Sequence[tuple[Job, list[float], float]]) -> list[Row]:
    from scipy import stats

    groups: dict[tuple[str, str, str, int, int], list[tuple[list[float], float]]] = {}
    for job, curve, cpu in results:
        groups.setdefault((job.problem, job.subject, job.driver, job.parallel, job.budget), []).append((curve, cpu))
    found = []
    for (problem, subject, driver, parallel, budget), runs in groups.items():
        last = np.array([curve[-1] for curve, _ in runs])
        half = math.nan
        if len(last) > 1:
            half = float(stats.t.ppf(0.975, len(last) - 1) * last.std(ddof=1) / math.sqrt(len(last)))
        mean_curve = np.mean([curve for curve, _ in runs], 0)
        cpu_s = float(np.mean([cpu for _, cpu in runs]))
        curve = [float(f"{value:.4g}") for value in mean_curve]
        found.append(Row(problem, subject, driver, parallel, len(runs), budget, float(last.mean()), half, cpu_s, curve))
    return found


def line(row: Row) -> str:
    return (
        f"{row.problem:<11} {row.subject:<25} {row.driver:<7} {row.parallel} at once, {row.budget:>3} evaluations,"
        f" {row.seeds:>2} seeds: {row.mean:9.4f} +- {row.half:.4f}   {row.cpu_s:6.2f} s CPU a run"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="rows of the table; default: all")
    parser.add_argument("--problems", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=None, help="merge the rows into this file (docs/quality.json)")
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # inherited by the processes
    wanted = [
        job
        for job in jobs(SUBJECTS, arguments.seeds)
        if (not arguments.only or job.subject in arguments.only)
        and (not arguments.problems or job.problem in arguments.problems)
    ]
    results = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        for done in as_completed(pool.submit(play, job) for job in wanted):
            results.append(done.result())
            print(f"\r{len(results)} of {len(wanted)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found = sorted(rows(results), key=lambda row: (row.problem, row.parallel, row.subject, row.driver))
    for row in found:
        print(line(row))
    if arguments.out:
        before = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
        key = ("problem", "subject", "driver", "parallel")
        kept = {tuple(entry[name] for name in key): entry for entry in before}
        kept |= {tuple(asdict(row)[name] for name in key): asdict(row) for row in found}
        arguments.out.write_text("[\n" + ",\n".join(json.dumps(kept[each]) for each in sorted(kept)) + "\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
