"""Trials in a cluster whose collectors show their pods' own tokens: real workflow, worker, collectors and gateway,
with a cluster in this process."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes import labels
from evertune.client import ExperimentHandle
from evertune.contracts import StartContext
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState
from evertune.protocols import JsonDict
from evertune.server.app import Gateway
from evertune.settings import Settings
from evertune.testing.gateway import Attempt
from evertune.testing.kubernetes import FakeCluster
from evertune.testing.kubernetes.sidecars import Sidecars
from evertune.testing.scripts import Script
from tests.ports import free_port
from tests.server.conftest import in_thread, points, post
from tests.workflow.harness import House, a_house, manifest, until

REVIEWS = "/tokenreviews"


@dataclass
class Scene:
    house: House
    kube: FakeCluster
    sidecars: Sidecars
    gateway: Gateway
    settings: Settings  # of the gateway

    async def submit(self, name: str, **spec: Any) -> ExperimentHandle:
        return await self.house.client.submit(manifest(name, **spec), context=StartContext(backend="kubernetes"))

    def pods(self) -> list[JsonDict]:
        found = self.kube.store.all("pods")
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"][labels.TRIAL]))

    def check_whole(self, record: ExperimentRecord, lines: int) -> None:
        """Each trial has succeeded, and every line of it was told once, by its collector."""
        assert record.state is ExperimentState.SUCCEEDED, record.message
        store = self.house.store
        for trial in store.trials(record.uid):
            told = [point.value for _, point in store.points(record.uid, trial.number)]
            assert told == [f"{line}" for line in range(lines)]
            (attempt,) = store.attempts(record.uid, trial.number)
            assert attempt.collected


@asynccontextmanager
async def a_scene(
    address: str, home: Path, script_of: Callable[[JsonDict], Script], *, renew_s: float = 60.0, **overrides: Any
) -> AsyncIterator[Scene]:
    given: dict[str, Any] = {"pod_identity": "account", "collector_mode": "native", **overrides}
    async with FakeCluster(script_of) as kube:
        given["kubeconfig"] = str(kube.kubeconfig(home / "kubeconfig"))
        port = free_port()
        async with a_house(address, home / "house", ingest_url="http://gateway.example:8090", **given) as house:
            environment = {**house.settings.environment(), "EVERTUNE_POD_IDENTITY": "account"}
            seen = Settings.load(environment, server_port=port, temporal_address=address)
            with in_thread(seen) as gateway:
                url = f"http://127.0.0.1:{port}"
                async with Sidecars(kube, home / "pods", gateway=url, renew_s=renew_s) as sidecars:
                    yield Scene(house, kube, sidecars, gateway, seen)


def says(
    lines: int, *, pause_s: float = 0.0, duration_s: float = 0.3, until: asyncio.Event | None = None
) -> Callable[[JsonDict], Script]:
    told = tuple(f"objective={line}" for line in range(lines))
    return lambda pod: Script(lines=told, pause_s=pause_s, duration_s=duration_s, until=until)


@pytest.mark.parametrize("mode", ["native", "classic"])
async def test_trials_report_with_the_tokens_of_their_pods_and_nothing_else(
    temporal_address: str, tmp_path: Path, mode: str
) -> None:
    seen: list[JsonDict] = []

    def script(pod: JsonDict) -> Script:
        seen.append(pod)
        return says(3)(pod)

    async with a_scene(temporal_address, tmp_path, script, collector_mode=mode) as scene:
        handle = await scene.submit(f"accounts-{mode}", maxTrialCount=2, parallelTrialCount=2)
        scene.check_whole(await scene.house.ended(handle), 3)
        assert scene.kube.count("POST", REVIEWS) == 2, "one question for each pod"
    assert len(seen) == 2
    assert "et1." not in json.dumps(seen)
    assert "EVERTUNE_TOKEN_FILE" in json.dumps(seen)


async def test_a_pod_that_speaks_for_another_trial_is_refused(temporal_address: str, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with a_scene(temporal_address, tmp_path, says(2, until=go_on)) as scene:
        handle = await scene.submit("accounts-others", maxTrialCount=2, parallelTrialCount=2)
        uid = handle.uid
        await until(lambda: len(scene.sidecars.tokens) == 2)
        await until(lambda: all(scene.house.store.points(uid, number) for number in (0, 1)))
        names = [trial.name for trial in scene.house.store.trials(uid)]
        tokens = [scene.sidecars.tokens[pod["metadata"]["name"]][-1] for pod in scene.pods()]
        report = {"points": points(metric="objective", first=10**6)}
        for mine, whose in ((0, 1), (1, 0)):
            attempt = Attempt(names[whose], tokens[mine])
            status, answer, _ = await asyncio.to_thread(post, scene.settings, attempt, report)
            assert (status, answer) == (403, {"error": f"this pod is for trial {names[mine]}"})
        go_on.set()
        scene.check_whole(await scene.house.ended(handle), 2)


@pytest.mark.slow
async def test_a_token_that_the_kubelet_renews_is_taken_up_before_the_old_one_has_expired(
    temporal_address: str, tmp_path: Path
) -> None:
    async with a_scene(temporal_address, tmp_path, says(12, pause_s=0.4), renew_s=1.0) as scene:
        accounts = scene.gateway.ingest.accounts
        assert accounts is not None
        # An hour passes with every renewal; the gateway remembers nothing for so long.
        now, remembered = scene.kube.tokens.clock, accounts.clock
        given = scene.sidecars.tokens
        scene.kube.tokens.clock = lambda: now() + 2400 * max((len(each) for each in given.values()), default=0)
        accounts.clock = lambda: remembered() + 2400 * max((len(each) for each in given.values()), default=0)
        handle = await scene.submit("accounts-renewed", maxTrialCount=1, parallelTrialCount=1)
        scene.check_whole(await scene.house.ended(handle), 12)
        (tokens,) = given.values()
        assert len(set(tokens)) >= 3
        asked = {"audiences": [labels.AUDIENCE]}
        first = scene.kube.tokens.review({"spec": {**asked, "token": tokens[0]}})["status"]
        assert "expired" in first["error"]


@pytest.mark.slow
async def test_an_api_server_that_is_away_loses_no_report(temporal_address: str, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with a_scene(temporal_address, tmp_path, says(10, pause_s=0.2, until=go_on)) as scene:
        handle = await scene.submit("accounts-away", maxTrialCount=2, parallelTrialCount=2)
        await until(lambda: len(scene.sidecars.tokens) == 2)
        await scene.kube.stop()
        go_on.set()
        assert scene.gateway.ingest.accounts is not None
        scene.gateway.ingest.accounts.clock = itertools.count(0.0, 1000.0).__next__  # it remembers nothing
        waits = "the gateway does not take reports now, they wait: whose pod this is"
        pods = list(scene.sidecars.tokens)
        await until(lambda: all(waits in scene.sidecars.said(pod) for pod in pods), what="reports that wait")
        await asyncio.sleep(1)
        await scene.kube.start()
        scene.check_whole(await scene.house.ended(handle, 90), 10)
        assert scene.gateway.counters.refused["cluster unavailable"] > 0


async def test_trials_that_a_worker_starts_with_keys_report_to_the_same_gateway(
    temporal_address: str, tmp_path: Path
) -> None:
    async with a_scene(temporal_address, tmp_path, says(2), pod_identity="token") as scene:
        handle = await scene.submit("accounts-keys", maxTrialCount=1, parallelTrialCount=1)
        scene.check_whole(await scene.house.ended(handle), 2)
        assert scene.gateway.ingest.accounts is not None
        assert scene.kube.count("POST", REVIEWS) == 0
        assert scene.sidecars.tokens == {}
