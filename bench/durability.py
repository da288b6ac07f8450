"""How soon an experiment goes on after kill -9 of a part of its stack: time to the first result that is new.

`evertune up` restores what is missing, as a person would call it. That nothing is lost is for tests/chaos to prove.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from statistics import median

from bench.figures import Figure
from bench.home import NO_OP, Home, experiment, home

VICTIMS = (("worker",), ("temporal",), ("parent",), ("parent", "temporal", "worker"))
ROUNDS = 6
PARALLEL = 4


def first_result_after_killing(here: Home, uid: str, victims: tuple[str, ...]) -> float:
    running = here.pids()
    start = time.monotonic()
    for name in victims:
        os.kill(running[name], signal.SIGKILL)
    while running.items() & here.pids().items() & {(name, running[name]) for name in victims}:
        time.sleep(0.005)  # the kernel takes its time, and nobody types `up` within a millisecond
    before = here.finished(uid)  # what the worker had told the database by then is not new
    here.up()
    while here.finished(uid) <= before:
        time.sleep(0.02)
    return time.monotonic() - start


def measure() -> Iterator[Figure]:
    dice = random.Random(1)
    with home() as here:
        uid = here.submit(
            experiment("killed", f"sleep ${{trialParameters.x}}; {NO_OP}", trials=100_000, parallel=PARALLEL)
        )
        while here.finished(uid) < 2 * PARALLEL:
            time.sleep(0.05)
        for victims in VICTIMS:
            times = []
            for _ in range(ROUNDS):
                times.append(first_result_after_killing(here, uid, victims))
                time.sleep(dice.uniform(1.0, 4.0))  # no fixed step: it could always hit the same timer of Temporal
            yield Figure(
                name=f"first result after kill -9: {', '.join(victims)}",
                value=max(times),
                unit="s",
                at_most=10,
                note=f"slowest of {ROUNDS}; median {median(times):.1f}",
            )
