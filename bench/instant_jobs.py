"""`python -m bench.instant_jobs NAMESPACE [--lasts S S]`: ends the Jobs of a cluster without nodes, as pods would.

For `bench.kubernetes`: plays the controller and the collectors of Jobs whose `managedBy` says so. It reports the
objective of each to the gateway with the token that its collector was given, sets SuccessCriteriaMet and Complete, and
at its own end prints, as JSON, when each Job was first seen and when its end was accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp

from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import Resource, resource
from evertune.app import activate
from evertune.domain.metrics import SOURCE, place

MANAGED_BY = "evertune.io/bench"
LINE = b"\n"


class Player:
    def __init__(
        self, api: Api, jobs: Resource, namespace: str, lasts_s: tuple[float, float], session: aiohttp.ClientSession
    ) -> None:
        self._api, self._jobs, self._namespace, self._lasts_s = api, jobs, namespace, lasts_s
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    async def watch(self) -> None:
        path = self._jobs.path(self._namespace)
        listed = await self._api.call("GET", path)
        query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"], "timeoutSeconds": "3600"}
        print("watching", flush=True)
        rest = b""
        async for chunk in self._api.stream(path, query=query, read_timeout_s=3600):
            *lines, rest = (rest + chunk).split(LINE)
            for line in filter(None, lines):
                event = json.loads(line)
                job = event["object"]
                if event["type"] == "ADDED" and job["spec"].get("managedBy") == MANAGED_BY:
                    self.seen[job["metadata"]["name"]] = time.monotonic()
                    task = asyncio.create_task(self._end(job))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _end(self, job: dict[str, Any]) -> None:
        await asyncio.sleep(random.uniform(*self._lasts_s))
        name = job["metadata"]["name"]
        environment = _collector(job)
        value = next(
            entry["value"] for entry in job["spec"]["template"]["spec"]["containers"][0]["env"] if entry["name"] == "X"
        )
        report = {
            "points": [{"metric": "objective", "value": value, "seq": place(SOURCE, 0), "timestamp": time.time()}],
            "final": True,
        }
        url = f"{environment['EVERTUNE_INGEST_URL']}/ingest/v1/trials/{environment['EVERTUNE_TRIAL']}/reports"
        headers = {"Authorization": f"Bearer {environment['EVERTUNE_TOKEN']}"}
        async with self._session.post(url, json=report, headers=headers) as answer:
            if answer.status != 200:
                print(name, answer.status, await answer.text(), file=sys.stderr, flush=True)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"status": "True", "reason": "CompletionsReached", "lastProbeTime": now, "lastTransitionTime": now}
        status = {
            "startTime": job["metadata"]["creationTimestamp"],
            "completionTime": now,
            "succeeded": 1,
            "conditions": [{"type": "SuccessCriteriaMet", **condition}, {"type": "Complete", **condition}],
        }
        try:
            await self._api.call(
                "PATCH",
                self._jobs.path(self._namespace, name, "status"),
                body={"status": status},
                content_type="application/merge-patch+json",
            )
        except ApiError as error:
            if error.status != 404:
                print(name, error, file=sys.stderr, flush=True)
        self.ended[name] = time.monotonic()


def _collector(job: dict[str, Any]) -> dict[str, str]:
    pod = job["spec"]["template"]["spec"]
    beside = [*pod.get("initContainers", ()), *pod["containers"]]
    collector = next(container for container in beside if container["name"] == "evertune-collector")
    return {entry["name"]: entry.get("value", "") for entry in collector["env"]}


async def play(namespace: str, lasts_s: tuple[float, float]) -> None:
    api = await Api.connect(kubeconfig=os.environ["KUBECONFIG"])
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    async with aiohttp.ClientSession() as session:
        player = Player(api, await resource(api, "batch/v1", "Job"), namespace, lasts_s, session)
        watching = asyncio.create_task(player.watch())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait([watching, stopped], return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        watching.cancel()
        print(json.dumps({"seen": player.seen, "ended": player.ended}), flush=True)
    await api.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.instant_jobs")
    parser.add_argument("namespace")
    parser.add_argument("--lasts", type=float, nargs=2, default=(0.0, 0.0), metavar="S", help="each Job: from, to")
    arguments = parser.parse_args()
    activate()
    asyncio.run(play(arguments.namespace, tuple(arguments.lasts)))


if __name__ == "__main__":
    main()
