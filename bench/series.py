"""Metric points in the database and in a workflow's history.

Ten million points of fifty trials are written as the gateway writes them, then read as a page reads them: the newest
hundred of a trial, the outline of its curve. And an experiment whose trials report ten thousand points each: how much
of that its Temporal history holds.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.home import NO_OP, Home, experiment, home
from evertune.connection import connect_temporal
from evertune.domain.metrics import Point, Report
from evertune.store import Store, open_store
from evertune.testing.store.making import NOW, with_trials

TRIALS, STEPS, AT_ONCE = 50, 100_000, 10_000
METRICS = ("loss", "accuracy")
REPORTING = 20  # trials of the experiment whose history is weighed
POINTS_EACH = 10_000
# Ten thousand lines over some seconds, as a training loop prints them.
PRINTS = (
    'i=0; while [ $i -lt 100 ]; do j=0; while [ $j -lt 100 ]; do echo "objective=0.$i$j"; j=$((j+1)); done;'
    " i=$((i+1)); sleep 0.05; done;"
)


def fill(store: Store) -> str:
    uid = with_trials(store, TRIALS)
    for number in range(TRIALS):
        store.open_attempt(uid, number, 0, home_id="bench", at=NOW)
        for first in range(0, STEPS, AT_ONCE):
            points = [
                Point(metric, f"{step * 0.37 % 7:.4f}", step * 31, 1.7e9 + step, step)
                for step in range(first, first + AT_ONCE)
                for metric in METRICS
            ]
            store.add_reports([Report(uid, number, 0, points)])
    return uid


def median_ms(read: Callable[[int], object]) -> float:
    def once(number: int) -> float:
        start = time.perf_counter()
        read(number)
        return (time.perf_counter() - start) * 1000

    return median(once(number) for number in range(TRIALS))


async def history_bytes(here: Home, workflow_id: str) -> int:
    """Of the experiment's whole chain of runs: this one is far too short to be continued as new."""
    client = await connect_temporal(here.status().temporal_address or "", here.settings.temporal_namespace)
    description = await client.get_workflow_handle(workflow_id).describe()
    return int(description.raw_description.workflow_execution_info.history_size_bytes)


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="evertune-bench-") as folder:
        path = Path(folder) / "evertune.db"
        with open_store(f"sqlite:///{path}") as store:
            start = time.perf_counter()
            uid = fill(store)
            count = TRIALS * STEPS * len(METRICS)
            rate = count / (time.perf_counter() - start)
            note = f"{count:,} of them, {path.stat().st_size / 1e6:.0f} MB"
            yield Figure(name="points into SQLite", value=rate, unit="points/s", note=note)
            for name, bound_ms, read in (
                ("newest 100 points of a trial", 50, lambda n: store.points(uid, n, newest=100)),
                ("curve of a trial in 200 points", 200, lambda n: store.curve(uid, n, "loss", 0, at_most=200)),
            ):
                yield Figure(
                    name=name,
                    value=median_ms(read),
                    unit="ms",
                    at_most=bound_ms,
                    note=f"among {count:,} points; median of {TRIALS}",
                )
    with home() as here:
        quiet = here.finish(experiment("quiet", NO_OP, trials=REPORTING, parallel=4))
        loud = here.finish(experiment("loud", f"{PRINTS} {NO_OP}", trials=REPORTING, parallel=4))
        reported = sum(series.points for number in range(REPORTING) for series in here.store.series(loud.uid, number))
        assert reported == REPORTING * (POINTS_EACH + 1), reported
        sizes = [asyncio.run(history_bytes(here, record.workflow_id)) for record in (quiet, loud)]
        yield Figure(
            name=f"history that {POINTS_EACH:,} points of a trial add",
            value=(sizes[1] - sizes[0]) / REPORTING,
            unit="bytes",
            at_most=2048,
            note=f"{REPORTING} trials; a silent trial has {sizes[0] / REPORTING:.0f}",
        )
