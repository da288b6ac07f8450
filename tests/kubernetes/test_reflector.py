"""The reflector rides out what an API server does to watches, and costs nobody more than his own objects."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes import labels, reflector
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import JOB, POD, Resource
from activities.runners.kubernetes.reflector import Reflector, named, topic
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict
from evertune.testing.kubernetes import FOR_EVER, FakeKube
from evertune.testing.kubernetes.calling import a_job, a_pod, until

DONE = {"conditions": [{"type": "Complete", "status": "True"}]}
NS = "default"


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube(bookmark_every_s=0.05) as kube:
        yield kube


@pytest.fixture
async def api(kube: FakeKube, tmp_path: Path) -> AsyncIterator[Api]:
    api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
    yield api
    await api.close()


@pytest.fixture
async def jobs(api: Api) -> AsyncIterator[Reflector]:
    jobs = Reflector(api, JOB, NS)
    jobs.start()
    await jobs.ready(60)
    yield jobs
    await jobs.stop()


def ref(number: int = 0, attempt: int = 0) -> AttemptRef:
    return AttemptRef("e" * 32, number, attempt, f"t-{number}")


def owned_job(name: str, number: int = 0) -> JsonDict:
    body = a_job(name)
    body["metadata"]["labels"] = labels.owned(ref(number), "db")
    return body


def ended(obj: JsonDict | None) -> str | None:
    if obj is None:
        return "Deleted"
    return next((one["type"] for one in obj["status"].get("conditions", ()) if one["status"] == "True"), None)


async def seen(jobs: Reflector, *names: str) -> None:
    await until(lambda: all(jobs.get((NS, name)) for name in names))


def started(waits: list[Awaitable[Any]]) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(one) for one in waits]


# ---------------------------------------------------------------------------------------------- faults


async def test_a_change_during_a_disconnect_is_seen_afterwards_without_a_list(kube: FakeKube, jobs: Reflector) -> None:
    kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")
    waiting = asyncio.ensure_future(jobs.wait((NS, "one"), ended))
    kube.fault(watch=True, status=503, retry_after=0.2)
    kube.drop_streams()
    kube.store.set_status("jobs", NS, "one", DONE)
    assert await asyncio.wait_for(waiting, 60) == "Complete"
    assert jobs.stats.lists == 1


async def test_after_a_compaction_one_list_tells_what_ended_and_what_is_gone(kube: FakeKube, jobs: Reflector) -> None:
    for name in ("ends", "goes", "stays"):
        kube.store.create("jobs", owned_job(name), NS)
    await seen(jobs, "ends", "goes", "stays")
    ends, goes, stays = started([jobs.wait((NS, name), ended) for name in ("ends", "goes", "stays")])
    await asyncio.sleep(0.1)
    wakes = jobs.stats.wakes
    blocked = kube.fault(watch=True, status=500, times=FOR_EVER)
    kube.drop_streams()
    await until(lambda: kube.watches == 0)
    kube.store.set_status("jobs", NS, "ends", DONE)
    kube.store.delete("jobs", NS, "goes")
    kube.compact()
    blocked.times = 0
    assert await asyncio.wait_for(ends, 60) == "Complete"
    assert await asyncio.wait_for(goes, 60) == "Deleted"
    assert (jobs.stats.lists, jobs.stats.expired) == (2, 1)
    assert jobs.stats.wakes - wakes == 2  # nobody is woken for what is as it was
    assert not stays.done()
    stays.cancel()


@pytest.mark.parametrize("gone", [{"status": 410}, {"after_events": 1, "gone": True}], ids=["HTTP", "stream"])
async def test_410_lists_again(kube: FakeKube, jobs: Reflector, gone: dict[str, Any]) -> None:
    kube.fault(watch=True, **gone)
    kube.drop_streams()
    await until(lambda: jobs.stats.lists == 2)
    kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")


async def test_a_busy_and_then_a_failing_server_is_waited_for(kube: FakeKube, jobs: Reflector) -> None:
    kube.fault(watch=True, status=429, retry_after=0.5)
    kube.fault(watch=True, status=500)
    before = kube.count("GET", watch=True)
    kube.drop_streams()
    begin = time.monotonic()
    await until(lambda: kube.count("GET", watch=True) == before + 3)
    assert time.monotonic() - begin >= 0.5  # Retry-After was honoured
    kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")
    assert jobs.stats.lists == 1


async def test_bookmarks_carry_the_version_past_what_is_not_ours(kube: FakeKube, jobs: Reflector) -> None:
    for number in range(50):
        kube.store.create("jobs", a_job(f"other-{number}"), NS)
    bookmarks = jobs.stats.bookmarks
    await until(lambda: jobs.stats.bookmarks > bookmarks + 1)
    kube.compact()
    kube.drop_streams()
    kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")
    assert (jobs.stats.lists, jobs.stats.expired) == (1, 0)


async def test_a_server_that_was_away_is_found_again(kube: FakeKube, jobs: Reflector) -> None:
    await kube.stop()
    kube.store.create("jobs", owned_job("one"), NS)
    await until(lambda: isinstance(jobs.trouble, ApiError))
    assert "does not answer" in str(jobs.trouble)
    await kube.start()
    await seen(jobs, "one")
    assert (jobs.stats.lists, jobs.trouble) == (1, None)


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_pause(
    kube: FakeKube, jobs: Reflector
) -> None:
    kube.fault(watch=True, after_events=0, times=FOR_EVER)
    before = kube.count("GET", watch=True)
    kube.drop_streams()
    await until(lambda: kube.count("GET", watch=True) - before >= 2)
    await asyncio.sleep(1.0)
    assert kube.count("GET", watch=True) - before <= 10


async def test_a_clean_end_of_a_watch_costs_another_watch(
    kube: FakeKube, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "WATCH_S", (1, 1))
    jobs = Reflector(api, JOB, NS)
    jobs.start()
    await until(lambda: jobs.stats.watches == 3)
    kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")
    assert (jobs.stats.lists, jobs.stats.errors) == (1, 0)
    await jobs.stop()


async def test_an_expired_page_begins_the_list_again(kube: FakeKube, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "PAGE", 2)
    for number in range(5):
        kube.store.create("jobs", owned_job(f"j{number}", number), NS)
    kube.fault(method="GET", path="jobs", watch=False, hang_s=0.3)  # the first page is slow to come
    jobs = Reflector(api, JOB, NS)
    jobs.start()
    await until(lambda: kube.count("GET", "jobs", watch=False) == 1)
    kube.fault(method="GET", path="jobs", watch=False, hang_s=0.3)
    await until(lambda: kube.count("GET", "jobs", watch=False) == 2)
    kube.store.create("jobs", a_job("other"), NS)
    kube.compact()
    await jobs.ready(60)
    assert sorted(obj["metadata"]["name"] for obj in jobs.all()) == [f"j{number}" for number in range(5)]
    lists = [request.query for request in kube.requests if request.method == "GET" and not request.watch]
    assert ["continue" in query for query in lists] == [False, True, False, True, True]
    await jobs.stop()


async def test_an_expired_token_is_reloaded_by_a_watch(kube: FakeKube, jobs: Reflector, tmp_path: Path) -> None:
    kube.token = "second"
    kube.kubeconfig(tmp_path / "kubeconfig")
    kube.drop_streams()
    kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")
    assert jobs.stats.lists == 1


async def test_a_right_that_is_missing_is_said_at_once_and_healed_when_it_is_granted(kube: FakeKube, api: Api) -> None:
    kube.forbidden.add(("list", "jobs"))
    jobs = Reflector(api, JOB, NS)
    jobs.start()
    with pytest.raises(ApiError, match='cannot list resource "jobs"'):
        await jobs.ready(60)
    kube.forbidden.clear()
    await until(jobs.synced.is_set)
    await jobs.stop()


async def test_a_kind_that_is_not_served_is_said_at_once(api: Api) -> None:
    things = Reflector(api, Resource("nobody.example/v1", "Thing", "things", True), NS)
    things.start()
    with pytest.raises(ApiError) as caught:
        await things.ready(60)
    assert caught.value.status == 404
    await things.stop()


# ---------------------------------------------------------------------------------------------- the copy


async def test_what_a_create_answered_is_there_before_the_watch_brings_it(kube: FakeKube, jobs: Reflector) -> None:
    blocked = kube.fault(watch=True, status=500, times=FOR_EVER)
    kube.drop_streams()
    await until(lambda: kube.watches == 0)
    made = kube.store.create("jobs", owned_job("one"), NS)
    jobs.seed(made)
    held = jobs.get((NS, "one"))
    assert held is not None
    assert "managedFields" not in held["metadata"]
    newer = kube.store.set_status("jobs", NS, "one", DONE)
    jobs.seed(newer)
    jobs.seed(made)  # an older answer that comes late
    held = jobs.get((NS, "one"))
    assert ended(held) == "Complete"
    blocked.times = 0


async def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back(
    kube: FakeKube, jobs: Reflector
) -> None:
    made = kube.store.create("jobs", owned_job("one"), NS)
    await seen(jobs, "one")
    kube.store.delete("jobs", NS, "one")
    await until(lambda: jobs.get((NS, "one")) is None)
    jobs.seed(made)
    assert jobs.get((NS, "one")) is None


async def test_an_object_made_during_a_list_survives_it(kube: FakeKube, jobs: Reflector) -> None:
    kube.fault(watch=True, status=410)
    listing = kube.fault(method="GET", path="jobs", watch=False, hang_s=0.0, status=429, retry_after=0.3)
    kube.drop_streams()
    await until(lambda: listing.times == 0)
    made = kube.store.create("jobs", owned_job("one"), NS)
    newest = {**made, "metadata": {**made["metadata"], "resourceVersion": str(kube.store.version + 100)}}
    jobs.seed(newest)
    await until(lambda: jobs.stats.lists == 2)
    assert jobs.get((NS, "one")) is not None


async def test_a_deletion_is_confirmed_by_asking_once(kube: FakeKube, jobs: Reflector) -> None:
    assert await jobs.confirm((NS, "never")) is None
    blocked = kube.fault(watch=True, status=500, times=FOR_EVER)
    kube.drop_streams()
    await until(lambda: kube.watches == 0)
    made = kube.store.create("jobs", owned_job("one"), NS)
    found = await jobs.confirm((NS, "one"))
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert jobs.get((NS, "one")) == found
    kube.store.delete("jobs", NS, "one")
    assert await jobs.confirm((NS, "one")) is None
    assert jobs.get((NS, "one")) is None
    blocked.times = 0


async def test_a_name_that_was_given_again_is_another_object(kube: FakeKube, jobs: Reflector) -> None:
    first = kube.store.create("jobs", owned_job("one"), NS)["metadata"]["uid"]
    await seen(jobs, "one")
    kube.store.delete("jobs", NS, "one")
    second = kube.store.create("jobs", owned_job("one"), NS)["metadata"]["uid"]
    await until(lambda: (jobs.get((NS, "one")) or {"metadata": {"uid": ""}})["metadata"]["uid"] == second)
    assert first != second


async def test_pods_are_found_by_their_attempt_and_keep_what_tells_why_they_ended(kube: FakeKube, api: Api) -> None:
    pods = Reflector(api, POD, NS)
    pods.start()
    limits = {"limits": {"memory": "1Gi"}}
    for name, number in (("b", 1), ("a", 1), ("c", 2)):
        body = a_pod(name, labels=labels.owned(ref(number), "db"), nodeName="node-1")
        body["spec"]["containers"][0] |= {"resources": limits, "command": ["x" * 1000]}
        kube.store.create("pods", body, NS)
    await until(lambda: len(pods.all()) == 3)
    assert [pod["metadata"]["name"] for pod in pods.of(ref(1))] == ["a", "b"]
    assert pods.of(ref(1))[0]["spec"] == {"nodeName": "node-1", "containers": [{"name": "main", "resources": limits}]}
    event = asyncio.Event()
    with pods.waking(event, topic(ref(1))):
        kube.store.set_status("pods", NS, "c", {"phase": "Running"})
        kube.store.set_status("pods", NS, "a", {"phase": "Failed"})
        await asyncio.wait_for(event.wait(), 60)
        assert pods.stats.wakes == 1
    assert pods.users == 0
    kube.store.delete("pods", NS, "a", grace_s=0)
    await until(lambda: [pod["metadata"]["name"] for pod in pods.of(ref(1))] == ["b"])
    await pods.stop()


async def test_pods_that_no_label_of_ours_came_to_are_found_by_the_one_that_names_their_object(
    kube: FakeKube, api: Api
) -> None:
    label = "jobset.sigs.k8s.io/jobset-name"
    pods = Reflector(api, POD, NS, selector=label, named_by=label)
    pods.start()
    for name, job in (("b", "exp-1"), ("a", "exp-1"), ("c", "exp-2")):
        kube.store.create("pods", a_pod(name, labels={label: job}), NS)
    kube.store.create("pods", a_pod("d"), NS)
    await until(lambda: len(pods.all()) == 3)
    assert [pod["metadata"]["name"] for pod in pods.of(named(label, NS, "exp-1"))] == ["a", "b"]
    event = asyncio.Event()
    with pods.waking(event, named(label, NS, "exp-2")):
        kube.store.set_status("pods", NS, "c", {"phase": "Running"})
        await asyncio.wait_for(event.wait(), 60)
    kube.store.delete("pods", NS, "c", grace_s=0)
    await until(lambda: not pods.of(named(label, NS, "exp-2")))
    await pods.stop()


# ---------------------------------------------------------------------------------------------- many


@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.slow)])
async def test_thousands_wait_and_are_woken_by_their_own_events_alone(
    kube: FakeKube, jobs: Reflector, count: int
) -> None:
    waits = started([jobs.wait((NS, f"j{number}"), _complete) for number in range(count)])
    await asyncio.sleep(0)
    for number in range(count):
        kube.store.create("jobs", owned_job(f"j{number}", number), NS)
        if number % 250 == 0:
            await asyncio.sleep(0)
    for number in range(count):
        kube.store.set_status("jobs", NS, f"j{number}", DONE)
        if number % 250 == 0:
            await asyncio.sleep(0)
    assert set(await asyncio.wait_for(asyncio.gather(*waits), 100)) == {"Complete"}
    assert (jobs.stats.lists, jobs.stats.events, jobs.stats.errors) == (1, 2 * count, 0)
    assert jobs.stats.wakes == 2 * count
    assert jobs.users == 0
    assert kube.count("GET") == 2


async def test_the_cost_of_an_event_does_not_grow_with_the_number_of_objects(kube: FakeKube, jobs: Reflector) -> None:
    def cost(events: int = 2000) -> float:
        obj = owned_job("one")
        obj["metadata"] |= {"namespace": NS, "uid": "u"}
        begin = time.process_time()
        for _ in range(events):
            obj["metadata"]["resourceVersion"] = str(next(versions))
            jobs._event({"type": "MODIFIED", "object": obj})
        return time.process_time() - begin

    versions = itertools.count(10_000_000)
    few = min(cost() for _ in range(3))
    for number in range(20_000):
        obj = owned_job(f"j{number}", number)
        obj["metadata"] |= {"namespace": NS, "uid": f"u{number}", "resourceVersion": str(next(versions))}
        jobs.seed(obj)
    many = min(cost() for _ in range(3))
    assert many < 5 * few + 0.05


def _complete(obj: JsonDict | None) -> str | None:
    return None if obj is None else ended(obj)
