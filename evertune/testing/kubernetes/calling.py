"""What the contracts of this package share: the client they ask for, objects to create, refusals, watches."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Protocol

import pytest

from evertune.testing.kubernetes.objects import JsonDict

SOON_S = 60.0
PODS = "/api/v1/namespaces/{}/pods"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
SETTINGS = "/api/v1/namespaces/{}/configmaps"
MERGE = "application/merge-patch+json"


class Caller(Protocol):
    """What the suite asks of a client; its exceptions have `status`, `reason`, `message` and `details`."""

    async def call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
        content_type: str = "application/json",
    ) -> JsonDict: ...  # fmt: skip

    async def text(self, path: str, *, query: Mapping[str, str] | None = None, limit_bytes: int) -> bytes: ...

    def stream(
        self, path: str, *, query: Mapping[str, str] | None = None, read_timeout_s: float
    ) -> AsyncIterator[bytes]: ...


def a_pod(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> JsonDict:
    containers = [{"name": "main", "image": "localhost/none:1"}]
    meta: JsonDict = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers, **spec}}


def a_job(name: str, **spec: Any) -> JsonDict:
    template = {"spec": {"restartPolicy": "Never", "containers": a_pod("")["spec"]["containers"]}}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec},
    }  # fmt: skip


def a_setting(name: str, **labels: str) -> JsonDict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


async def refused(answer: Awaitable[Any], status: int, reason: str, *parts: str) -> Any:
    """The exception, after its status, its reason and parts of its sentence are as they should be."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the client's own class
        await answer
    error: Any = caught.value
    assert (error.status, error.reason) == (status, reason), str(error)
    for part in parts:
        assert part in str(error)
    return error


async def until(look: Any, seconds: float = SOON_S) -> Any:
    """The first true answer of the function `look`, which may be a coroutine function."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < end, "it did not happen in time"
        await asyncio.sleep(0.02)


async def with_account(api: Caller, namespace: str) -> None:
    """Until the controllers have given it the ServiceAccount without which it takes no pod."""

    async def there() -> bool:
        accounts = await api.call("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts")
        return any(account["metadata"]["name"] == "default" for account in accounts["items"])

    await until(there)


class Watching:
    """The events of a watch, in order."""

    def __init__(self, api: Caller, path: str, patience_s: float, query: dict[str, str]) -> None:
        self._chunks = api.stream(path, query={"watch": "true", **query}, read_timeout_s=patience_s)
        self._patience_s = patience_s
        self._rest = b""
        self._lines: list[bytes] = []

    async def next(self) -> tuple[str, JsonDict] | None:
        """The next event; None when the server has ended the watch."""
        while not self._lines:
            try:
                chunk = await asyncio.wait_for(anext(self._chunks), self._patience_s)
            except StopAsyncIteration:
                return None
            *self._lines, self._rest = (self._rest + chunk).split(b"\n")
        event = json.loads(self._lines.pop(0))
        return event["type"], event["object"]

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def watching(api: Caller, path: str, *, patience_s: float = SOON_S, **query: str) -> AsyncIterator[Watching]:
    watch = Watching(api, path, patience_s, query)
    try:
        yield watch
    finally:
        await watch.close()


class WithNamespace:
    """For suites on a cluster: each test has a namespace of its own."""

    async def furnished(self, api: Caller, namespace: str) -> None:
        """Wait until it takes pods, where controllers have to do something for that."""

    @pytest.fixture
    async def namespace(self, api: Caller) -> AsyncIterator[str]:
        name = f"contract-{uuid.uuid4().hex[:10]}"
        await api.call("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
        await self.furnished(api, name)
        yield name
        with contextlib.suppress(Exception):  # a test may have deleted it
            await api.call("DELETE", f"/api/v1/namespaces/{name}")
