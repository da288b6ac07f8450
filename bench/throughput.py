"""How fast trials go: durable process trials beside Optuna's in-process ones, gaps between trials, and growth.

Optuna runs the same number of trials of an objective that does nothing, with SQLite storage and as many jobs; ours
start a process each, survive any kill and are in a database and a workflow history afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.home import NO_OP, Home, experiment, home
from evertune.domain.records import AttemptRecord, ExperimentRecord

TRIALS = 400
PARALLEL = 16
LONG = 5000


def optuna_trials_per_s(folder: Path) -> float:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}", sampler=optuna.samplers.RandomSampler(seed=1), direction="maximize"
    )
    start = time.perf_counter()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=TRIALS, n_jobs=PARALLEL)
    return TRIALS / (time.perf_counter() - start)


def seconds(record: ExperimentRecord) -> float:
    """From submission to the end."""
    assert record.ended is not None
    assert record.counts.succeeded == record.budget.max_trials, record.counts
    return (record.ended - record.created).total_seconds()


def attempts(here: Home, record: ExperimentRecord) -> list[tuple[datetime, datetime]]:
    """Start and end of every attempt, by start."""
    each: list[AttemptRecord] = [
        attempt for trial in here.store.trials(record.uid) for attempt in here.store.attempts(record.uid, trial.number)
    ]
    return sorted((attempt.started, attempt.ended) for attempt in each if attempt.started and attempt.ended)


def gaps_ms(spans: list[tuple[datetime, datetime]], parallel: int) -> list[float]:
    """From the i-th end to the start that it made room for."""
    starts = [start for start, _ in spans][parallel:]
    ends = sorted(end for _, end in spans)
    return [(start - end).total_seconds() * 1000 for start, end in zip(starts, ends, strict=False)]


def measure() -> Iterator[Figure]:
    with home() as here:
        here.finish(experiment("warm-up", NO_OP, trials=2 * PARALLEL, parallel=PARALLEL))
        ours = TRIALS / seconds(here.finish(experiment("speed", NO_OP, trials=TRIALS, parallel=PARALLEL)))
        theirs = optuna_trials_per_s(here.folder)
        yield Figure(name="durable process trials", value=ours, unit="trials/s", at_least=40)
        yield Figure(
            name="beside Optuna's in-process no-op trials on SQLite",
            value=ours / theirs,
            unit="x",
            at_least=1.0,
            note=f"Optuna {theirs:.1f}/s, {PARALLEL} jobs",
        )

        for parallel in (1, 4):
            record = here.finish(
                experiment(
                    f"gap-{parallel}", f"sleep ${{trialParameters.x}}; {NO_OP}", trials=30 * parallel, parallel=parallel
                )
            )
            gaps = gaps_ms(attempts(here, record), parallel)
            yield Figure(
                name=f"end of a trial to the next start, {parallel} parallel",
                value=median(gaps),
                unit="ms",
                at_most=50,
                note=f"median of {len(gaps)}; slowest {max(gaps):.0f}",
            )

        record = here.finish(experiment("long", NO_OP, trials=LONG, parallel=PARALLEL))
        ends = sorted(end for _, end in attempts(here, record))
        early, late = ((ends[at] - ends[at - 400]).total_seconds() / 400 for at in (500, LONG - 1))
        yield Figure(
            name="cost of a trial at 5,000 to one at 500",
            value=late / early,
            unit="x",
            at_most=1.2,
            note=f"{early * 1000:.1f} ms and {late * 1000:.1f} ms",
        )
