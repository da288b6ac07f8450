"""Trials as Jobs of a real API server that ends them at once: speed, processor time, requests, latency, and idling.

Needs a cluster of its own without nodes (etcd, kube-apiserver, kube-controller-manager on this machine) and its
kubeconfig in KUBECONFIG; without one it says so and measures nothing. `instant_jobs` plays what nodes would do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.figures import Figure
from bench.gateway import free_port
from bench.home import Home, experiment, home
from bench.idle import cpu_s, pss_mb, stack_processes
from bench.instant_jobs import MANAGED_BY

NAMESPACE = "evertune-bench"
PARALLEL = 10
MANY = 1000
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller")  # as the kernel abbreviates them
LONG_S = 5.0
SETTLE_S, WATCH_S = 30.0, 30.0


@contextmanager
def player(lasts_s: tuple[float, float] = (0.0, 0.0)) -> Iterator[subprocess.Popen[str]]:
    """What ends Jobs; its last line is read with `times`."""
    command = [sys.executable, "-m", "bench.instant_jobs", NAMESPACE, "--lasts", *map(str, lasts_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "watching":
            raise RuntimeError("the cluster cannot be watched")
        yield process
    finally:
        process.kill()
        process.wait()


def times(process: subprocess.Popen[str]) -> tuple[dict[str, float], dict[str, float]]:
    """When each Job was seen, and when its end was accepted; ends the player."""
    process.send_signal(signal.SIGTERM)
    said = json.loads(process.communicate(timeout=60)[0].splitlines()[-1])
    return said["seen"], said["ended"]


def jobs(name: str, *, trials: int, parallel: int) -> dict[str, Any]:
    """The experiment of `bench.home`, as Jobs that only the player acts on."""
    made = experiment(name, "echo never runs", trials=trials, parallel=parallel)
    made["metadata"] |= {"namespace": NAMESPACE}
    job = made["spec"]["trialTemplate"]["trialSpec"]["spec"]
    job["managedBy"] = MANAGED_BY
    job["template"]["spec"]["containers"][0]["env"] = [{"name": "X", "value": "${trialParameters.x}"}]
    return made


def address() -> str:
    """Of this machine, as others see it: trials are not told to report to their own loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])
    return socket.gethostbyname(socket.gethostname())


def kubectl(*words: str) -> str:
    done = subprocess.run(["kubectl", *words], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout


def requests() -> int:
    """What the API server was asked about Jobs and pods, by anybody but the player (PATCH of a status)."""
    count = 0.0
    for line in kubectl("get", "--raw", "/metrics").splitlines():
        match = re.match(r"apiserver_request_total\{(.*)\} (\S+)$", line)
        if match and re.search(r'resource="(jobs|pods)"', match[1]) and 'subresource="status"' not in match[1]:
            count += float(match[2])
    return int(count)


def control_plane() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().strip().startswith(CONTROL_PLANE):
                    found.append(int(entry.name))
    return found


def gaps_ms(seen: dict[str, float], ended: dict[str, float], parallel: int) -> list[float]:
    """From the i-th end, as the API server took it, to the Job that it made room for."""
    starts, ends = sorted(seen.values())[parallel:], sorted(ended.values())
    return [(start - end) * 1000 for start, end in zip(starts, ends, strict=False)]


def speed(here: Home, trials: int) -> Iterator[Figure]:
    with player() as process:
        counted = [*stack_processes(here), *control_plane(), process.pid]
        before, asked = {pid: cpu_s(pid) for pid in counted}, requests()
        record = here.finish(jobs(f"speed-{trials}", trials=trials, parallel=PARALLEL))
        used = {pid: cpu_s(pid) - before[pid] for pid in counted}
        asked = requests() - asked
        assert record.ended is not None
        assert record.counts.succeeded == trials, record.counts
        own = used.pop(process.pid)
    took = (record.ended - record.created).total_seconds()
    yield Figure(
        name=f"{trials:,} trials as Jobs that end at once",
        value=trials / took,
        unit="trials/s",
        at_least=15,
        note=f"{PARALLEL} parallel; Katib 5.1-5.5 at 100, 3.8 at 1,000",
    )
    servers = sum(used[pid] for pid in used if pid not in set(stack_processes(here)))
    yield Figure(
        name="processor time of a trial, all processes",
        value=1000 * sum(used.values()) / trials,
        unit="ms",
        at_most=100,
        note=f"{1000 * servers / trials:.0f} of it the control plane; the player's {1000 * own / trials:.0f} not in it",
    )
    yield Figure(name="requests to the API server", value=asked / trials, unit="a trial", note="Katib 26")


def latency(
    here: Home,
    what: str,
    *,
    trials: int,
    parallel: int,
    lasts_s: tuple[float, float],
    at_most: float | None = None,
    note: str,
) -> Figure:
    with player(lasts_s) as process:
        here.finish(jobs(f"latency-{what}".replace(" ", "-"), trials=trials, parallel=parallel))
        gaps = gaps_ms(*times(process), parallel)
    ranks = quantiles(gaps, n=20)
    return Figure(
        name=f"end of a Job to the next one, {what}",
        value=median(gaps),
        unit="ms",
        at_most=at_most,
        note=f"95 %: {ranks[-1]:.0f}; of {len(gaps)}; {note}",
    )


def idling(here: Home) -> Iterator[Figure]:
    """So many trials at once that nothing happens to."""
    with player((36_000, 36_000)):
        uid = here.submit(jobs("many", trials=MANY, parallel=MANY))
        began = time.monotonic()
        while here.store.counts(uid).running < MANY:
            if time.monotonic() - began > 300:
                raise TimeoutError(f"{here.store.counts(uid)}")
            time.sleep(0.5)
        took = time.monotonic() - began
        time.sleep(SETTLE_S)
        worker = here.pids()["worker"]
        before, start = cpu_s(worker), time.monotonic()
        time.sleep(WATCH_S)
        used = (cpu_s(worker) - before) / (time.monotonic() - start)
        yield Figure(
            name=f"{MANY:,} waiting Jobs, the worker's memory",
            value=pss_mb(worker),
            unit="MB PSS",
            at_most=400,
            note=f"all running after {took:.0f} s",
        )
        yield Figure(name=f"{MANY:,} waiting Jobs, the worker", value=100 * used, unit="% a core", at_most=20)


def measure() -> Iterator[Figure]:
    if not os.environ.get("KUBECONFIG"):
        print("kubernetes: no cluster; it takes one without nodes, of its own, in KUBECONFIG", file=sys.stderr)
        return
    with contextlib.suppress(subprocess.CalledProcessError):
        kubectl("create", "namespace", NAMESPACE)
    port = free_port()
    try:
        with home(
            backend="kubernetes",
            kubeconfig=os.environ["KUBECONFIG"],
            collector_mode="native",
            server_host="0.0.0.0",
            server_port=port,
            ingest_url=f"http://{address()}:{port}",
        ) as here:
            with player():
                here.finish(jobs("warm-up", trials=3 * PARALLEL, parallel=PARALLEL))
            yield from speed(here, 100)
            yield from speed(here, 1000)
            katib = "Katib 500 ms, 95 % 1,100"
            yield latency(here, "1 parallel", trials=40, parallel=1, lasts_s=(0, 0), at_most=100, note="Katib 200 ms")
            yield latency(
                here,
                "10 parallel",
                trials=100,
                parallel=10,
                lasts_s=(0.8 * LONG_S, 1.2 * LONG_S),
                at_most=150,
                note=katib,
            )
            yield latency(here, "10 that end together", trials=60, parallel=10, lasts_s=(LONG_S, LONG_S), note=katib)
            yield from idling(here)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
