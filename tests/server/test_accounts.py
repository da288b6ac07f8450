"""The real gateway beside a fake API server: whose pod a token is of, and what becomes of those that are nobody's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes import labels
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict
from evertune.server.app import Gateway
from evertune.settings import Settings
from evertune.testing.gateway import Attempt
from evertune.testing.kubernetes import FakeKube
from evertune.testing.kubernetes.calling import a_pod
from tests.ports import free_port
from tests.server.conftest import World, health, in_thread, points, post, settings_in

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
Answer = tuple[int, dict[str, Any], dict[str, str]]


@dataclass
class Scene:
    world: World
    kube: FakeKube
    offset_s: float = 0.0  # of the gateway's clock for what it remembers, which stands still

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @property
    def namespace(self) -> str:
        return self.world.store.experiment_by_uid(self.world.uid).namespace

    def pod(self, attempt: Attempt, *, namespace: str | None = None, number: int = 0, **changed: str) -> JsonDict:
        """A pod of an attempt, as the runner labels it."""
        ref = AttemptRef(self.world.uid, self.world.number(attempt), number, attempt.trial)
        told = {**labels.owned(ref, self.world.store.database_id), **changed}
        where = namespace or self.namespace
        return self.kube.store.create("pods", a_pod(f"{attempt.trial}-{len(self.pods)}", labels=told), where)

    @property
    def pods(self) -> list[JsonDict]:
        return self.kube.store.all("pods")

    def of(self, pod: JsonDict, attempt: Attempt) -> Attempt:
        """What the pod's collector has."""
        return replace(attempt, token=self.kube.tokens.bound(pod, audience=labels.AUDIENCE))

    async def report(self, attempt: Attempt, first: int = 0) -> Answer:
        return await asyncio.to_thread(post, self.settings, attempt, {"points": points(first=first)})

    @contextmanager
    def gateway(self) -> Iterator[Gateway]:
        def prepare(gateway: Gateway) -> None:
            if (accounts := gateway.ingest.accounts) is not None:
                began = accounts.clock()
                accounts.clock = lambda: began + self.offset_s

        with in_thread(self.settings, prepare) as gateway:
            yield gateway


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with FakeKube() as kube:
        config = kube.kubeconfig(tmp_path / "kubeconfig")
        settings = settings_in(
            tmp_path, server_port=free_port(), temporal_address="127.0.0.1:9", pod_identity="account",
            kubeconfig=str(config),
        )  # fmt: skip
        world = World(settings)
        scene = Scene(world, kube)
        for name in (scene.namespace, "elsewhere"):
            kube.store.create("namespaces", {"metadata": {"name": name}}, "")
        yield scene
        world.close()


async def test_a_pod_reports_for_its_attempt_and_for_no_other(scene: Scene) -> None:
    one, two = scene.world.open_attempts(2)
    first, second = scene.of(scene.pod(one), one), scene.of(scene.pod(two), two)
    with scene.gateway():
        assert (await scene.report(first))[0] == 200
        assert (await scene.report(second))[0] == 200
        status, answer, _ = await scene.report(replace(first, trial=two.trial), first=1)
        assert (status, answer) == (403, {"error": f"this pod is for trial {one.trial}"})
    for attempt in (one, two):
        told = scene.world.store.points(scene.world.uid, scene.world.number(attempt))
        assert [(number, point.value) for number, point in told] == [(0, "0.0000")]


async def test_keys_of_ours_and_tokens_of_pods_are_taken_by_one_gateway(scene: Scene) -> None:
    one, two = scene.world.open_attempts(2)
    with scene.gateway():
        assert (await scene.report(one))[0] == 200
        assert (await scene.report(scene.of(scene.pod(two), two)))[0] == 200
    assert scene.kube.count("POST", REVIEWS) == 1


async def test_a_gateway_that_was_not_told_to_asks_no_cluster(scene: Scene) -> None:
    (one,) = scene.world.open_attempts(1)
    mine = scene.of(scene.pod(one), one)
    scene.world.settings = replace(scene.settings, pod_identity="token")
    with scene.gateway():
        status, answer, headers = await scene.report(mine)
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert "EVERTUNE_POD_IDENTITY is not account" in answer["error"]
    assert scene.kube.requests == []


async def test_a_pod_is_asked_about_once_a_minute_and_read_once(scene: Scene) -> None:
    (one,) = scene.world.open_attempts(1)
    pod = scene.pod(one)
    mine = scene.of(pod, one)
    with scene.gateway():
        for first in range(3):
            assert (await scene.report(mine, first))[0] == 200
        assert scene.kube.count("POST", REVIEWS) == 1
        scene.offset_s += 61
        assert (await scene.report(mine, 3))[0] == 200
        assert (await scene.report(scene.of(pod, one), 4))[0] == 200  # the kubelet has renewed it
    assert scene.kube.count("POST", REVIEWS) == 3
    assert scene.kube.count("GET", "/pods/") == 1


async def test_the_token_of_a_pod_that_is_gone_is_refused_within_a_minute(scene: Scene) -> None:
    (one,) = scene.world.open_attempts(1)
    pod = scene.pod(one)
    mine = scene.of(pod, one)
    with scene.gateway():
        assert (await scene.report(mine))[0] == 200
        scene.kube.store.delete("pods", scene.namespace, pod["metadata"]["name"], grace_s=0)
        scene.offset_s += 61
        status, answer, _ = await scene.report(mine, 1)
        assert (status, answer["error"]) == (
            401, "the token of this pod is not accepted: the cluster does not accept it",
        )  # fmt: skip


async def test_one_that_was_refused_is_asked_about_again_after_a_moment(scene: Scene) -> None:
    (one,) = scene.world.open_attempts(1)
    mine = scene.of(scene.pod(one), one)
    review, accepted = scene.kube.tokens.clock, False
    scene.kube.tokens.clock = lambda: review() + (0 if accepted else 7200)
    with scene.gateway():
        for _ in range(3):
            assert (await scene.report(mine))[0] == 401
        assert scene.kube.count("POST", REVIEWS) == 1
        accepted = True
        scene.offset_s += 6
        assert (await scene.report(mine))[0] == 200


Made = Callable[[Scene, Attempt], str]


def _for_others(scene: Scene, one: Attempt) -> str:
    return scene.kube.tokens.bound(scene.pod(one), audience="https://kubernetes.default.svc")


def _of_no_pod(scene: Scene, one: Attempt) -> str:
    asked = {"spec": {"audiences": [labels.AUDIENCE]}}
    token: str = scene.kube.tokens.request(scene.namespace, "default", asked)["status"]["token"]
    return token


def _forged(scene: Scene, one: Attempt) -> str:
    return scene.kube.tokens.bound(scene.pod(one), audience=labels.AUDIENCE)[:-6] + "AAAAAA"


def _of_a_pod(**changed: Any) -> Made:
    return lambda scene, one: scene.kube.tokens.bound(scene.pod(one, **changed), audience=labels.AUDIENCE)


@pytest.mark.parametrize(
    ("made", "status", "sentence"),
    [
        (_for_others, 401, "the token of this pod is not accepted: the cluster does not accept it"),
        (_forged, 401, "the token of this pod is not accepted: the cluster does not accept it"),
        (_of_no_pod, 401, "the token of this pod is not accepted: it is not bound to a pod"),
        (_of_a_pod(**{labels.MANAGED_BY: "me"}), 403, "is of no trial"),
        (_of_a_pod(**{labels.TRIAL: "first"}), 403, "is of no trial"),
        (_of_a_pod(**{labels.ATTEMPT: "99999999999"}), 403, "is of no trial"),
        (_of_a_pod(**{labels.DATABASE: "0" * 32}), 403, "is of another evertune, with another database"),
        (_of_a_pod(namespace="elsewhere"), 403, "is in elsewhere, and trial"),
        (_of_a_pod(**{labels.EXPERIMENT: "f" * 32}), 404, "its experiment may have been deleted"),
        (_of_a_pod(number=3), 404, "there is no attempt 3"),
    ],
    ids=lambda value: None if isinstance(value, (int, str)) else "",
)
async def test_what_is_no_pod_of_a_trial_has_no_right_and_is_told_why(
    scene: Scene, made: Made, status: int, sentence: str
) -> None:
    (one,) = scene.world.open_attempts(1)
    wrong = replace(one, token=made(scene, one))
    with scene.gateway():
        found, answer, _ = await scene.report(wrong)
        refused = (await asyncio.to_thread(health, scene.settings))[1]["refused"]
    assert found == status
    assert sentence in answer["error"]
    assert wrong.token not in str(answer)
    assert sum(refused.values()) == 1
    assert scene.world.store.points(scene.world.uid, scene.world.number(one)) == []


@pytest.mark.parametrize("trouble", ["reset", "500", "429", "forbidden", "expired"])
async def test_while_the_cluster_cannot_be_asked_a_report_waits(scene: Scene, trouble: str) -> None:
    (one,) = scene.world.open_attempts(1)
    mine = scene.of(scene.pod(one), one)
    if trouble == "reset":
        await scene.kube.stop()
    elif trouble == "forbidden":
        scene.kube.forbidden.add(("create", "tokenreviews"))
    elif trouble == "expired":
        scene.kube.token = "ours-is-old"
    else:
        scene.kube.fault(path="tokenreviews", status=int(trouble), times=1)
    with scene.gateway():
        status, answer, headers = await scene.report(mine)
        assert status == 503
        assert int(headers["retry-after"]) > 0
        assert "keep the report" in answer["error"]
        await scene.kube.start()
        scene.kube.forbidden.clear()
        scene.kube.token = None
        assert (await scene.report(mine))[0] == 200


async def test_a_gateway_without_a_kubeconfig_serves_keys_and_lets_pods_wait(scene: Scene, tmp_path: Path) -> None:
    one, two = scene.world.open_attempts(2)
    mine = scene.of(scene.pod(two), two)
    (tmp_path / "kubeconfig").rename(tmp_path / "kept")
    with scene.gateway():
        assert (await scene.report(one))[0] == 200
        assert (await scene.report(mine))[0] == 503
        (tmp_path / "kept").rename(tmp_path / "kubeconfig")
        assert (await scene.report(mine))[0] == 200


async def test_who_makes_tokens_up_cannot_flood_the_api_server(scene: Scene) -> None:
    (one,) = scene.world.open_attempts(1)
    scene.kube.fault(path="tokenreviews", hang_s=2, times=-1)
    with scene.gateway() as gateway:
        assert gateway.ingest.accounts is not None
        gateway.ingest.accounts.limit = 1
        made_up = [replace(one, token=f"eyJ{number}.b.c") for number in range(8)]
        answers = await asyncio.gather(*(scene.report(each) for each in made_up))
        assert (await scene.report(one))[0] == 200, "keys of ours are not held up"
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {401, 429}
    assert scene.kube.count("POST", REVIEWS) == statuses.count(401)


async def test_a_token_that_comes_on_many_connections_is_asked_about_once(scene: Scene) -> None:
    (one,) = scene.world.open_attempts(1)
    mine = scene.of(scene.pod(one), one)
    scene.kube.fault(path="tokenreviews", hang_s=0.5, times=1)
    with scene.gateway():
        answers = await asyncio.gather(*(scene.report(mine, first) for first in range(8)))
    assert {status for status, _, _ in answers} == {200}
    assert scene.kube.count("POST", REVIEWS) == 1
