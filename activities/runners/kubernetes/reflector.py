"""A copy of the objects of one kind in one namespace, kept current by one list and one watch, for all who wait.

Called by the runner through `cluster`, which shares them. It holds what waiting needs, metadata and status, and finds
the pods of an attempt by its labels. An event wakes those who wait for that object or attempt, and costs nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import Resource
from evertune.domain.trial import AttemptRef
from evertune.errors import EvertuneError
from evertune.protocols import JsonDict

T = TypeVar("T")
Key = tuple[str, str]  # namespace ("" where there are none), name
Topic = Key | tuple[str, str, str]  # or the labels of an attempt: experiment, trial, attempt

PAGE = 500
WATCH_S = (240, 360)  # random in it, so that the watches of many workers do not end together
SILENCE_S = 15.0  # beyond the watch's own time: then the connection is dead
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 30.0
SHORT_S = 1.0  # a watch that ends sooner, and brought nothing, counts as an error
HOPELESS = (401, 403, 404)  # waiting does not mend these

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Stats:
    """What it cost, for tests, `/metrics` and doctor."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    expired: int = 0
    errors: int = 0
    wakes: int = 0


class Reflector:
    """Objects by (namespace, name). `synced` is set from the first list on."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        namespace: str | None,
        *,
        selector: str = labels.SELECTOR,
        named_by: str | None = None,
    ) -> None:
        """`named_by`: a label that names whose an object is, where the labels of an attempt do not come to it."""
        self.resource = resource
        self.namespace = namespace
        self.synced = asyncio.Event()
        self.stats = Stats()
        self.trouble: Exception | None = None  # why it is not current at the moment
        self.last_used = 0.0  # of the event loop's clock
        self._api = api
        self._path = resource.path(namespace)
        self._selector = selector
        self._named_by = named_by
        self._objects: dict[Key, JsonDict] = {}
        self._attempts: dict[Topic, set[Key]] = {}
        self._waiting: dict[Topic, set[asyncio.Event]] = {}
        self._version = 0  # everything up to it has been seen
        self._resume: str | None = None  # where the watch goes on; None lists first
        self._failed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin, in the running event loop; a no-op when it runs."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"reflector {self._path}")

    async def stop(self) -> None:
        """End the watch. Those who wait are not woken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def ready(self, patience_s: float) -> None:
        """Return once the objects are known. Raises what is in the way: at once when it is lasting (the right to list
        is missing, or the kind is), else after `patience_s`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        while not self.synced.is_set():
            trouble = self.trouble
            if isinstance(trouble, EvertuneError) or (isinstance(trouble, ApiError) and trouble.status in HOPELESS):
                raise trouble
            tasks = [asyncio.ensure_future(event.wait()) for event in (self.synced, self._failed)]
            try:
                done, _ = await asyncio.wait(
                    tasks, timeout=max(0.0, end - loop.time()), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for task in tasks:
                    task.cancel()
            if not done:
                raise self.trouble or ApiError(504, f"the API server at {self._api.server} listed no {self._path} yet")
            self._failed.clear()

    @property
    def users(self) -> int:
        """How many topics somebody waits for."""
        return len(self._waiting)

    # ------------------------------------------------------------------------------------------ reading

    def get(self, key: Key) -> JsonDict | None:
        """What is known of the object. None may also mean not yet: `confirm` before believing that it is gone."""
        return self._objects.get(key)

    def of(self, owner: AttemptRef | Topic) -> list[JsonDict]:
        """The objects that carry the labels of this attempt, or what `named` made of another label; by name."""
        wanted = topic(owner) if isinstance(owner, AttemptRef) else owner
        return [self._objects[key] for key in sorted(self._attempts.get(wanted, ()))]

    def all(self) -> list[JsonDict]:
        return list(self._objects.values())

    def seed(self, obj: JsonDict) -> None:
        """Put in what a create or get has answered, unless the watch brought something newer, or its deletion."""
        key = key_of(obj)
        held = self._objects.get(key)
        version = version_of(obj)
        if version > (self._version if held is None else version_of(held)):
            self._put(key, obj)

    async def confirm(self, key: Key, *, patience_s: float = 0.0) -> JsonDict | None:
        """Ask the server itself for one object: what it has (and now the copy), or None when it is gone.

        Raises ApiError, Unreachable.
        """
        path = self.resource.path(key[0] or None, key[1])
        try:
            obj = await self._api.call("GET", path, patience_s=patience_s)
        except ApiError as error:
            if error.status != 404:
                raise
            self._drop(key)
            return None
        self.seed(obj)
        held = self._objects.get(key)
        return held if held is not None and held["metadata"]["uid"] == obj["metadata"]["uid"] else self._slim(obj)

    # ------------------------------------------------------------------------------------------ waiting

    @contextlib.contextmanager
    def waking(self, event: asyncio.Event, *topics: Topic) -> Iterator[None]:
        """Set `event` whenever one of the objects or attempts changes. One event may serve several reflectors."""
        for one in topics:
            self._waiting.setdefault(one, set()).add(event)
        try:
            yield
        finally:
            for one in topics:
                held = self._waiting[one]
                held.discard(event)
                if not held:
                    del self._waiting[one]
            self.last_used = asyncio.get_running_loop().time()

    async def wait(self, key: Key, found: Callable[[JsonDict | None], T | None]) -> T:
        """The first result of `found` that is true; it is asked now and after each change of the object.

        It is given None when the object is not in the copy, which is no proof that it is gone.
        """
        event = asyncio.Event()
        with self.waking(event, key):
            await self.synced.wait()
            while True:
                event.clear()
                if result := found(self.get(key)):
                    return result
                await event.wait()

    # ------------------------------------------------------------------------------------------ the copy

    def _slim(self, obj: JsonDict) -> JsonDict:
        meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
        slim: JsonDict = {
            "apiVersion": self.resource.api_version,  # items of a list have neither
            "kind": self.resource.kind,
            "metadata": meta,
            "status": obj.get("status") or {},
        }
        if self.resource.kind == "Pod":
            spec = obj["spec"]
            slim["spec"] = {
                "nodeName": spec.get("nodeName"),
                **{place: [_container(one) for one in spec[place]] for place in _PLACES if spec.get(place)},
            }
        return slim

    def _put(self, key: Key, obj: JsonDict) -> None:
        self._forget(key)
        self._objects[key] = self._slim(obj)
        if (owner := self._owner(obj)) is not None:
            self._attempts.setdefault(owner, set()).add(key)
        self._wake(key, owner)

    def _drop(self, key: Key) -> None:
        owner = self._forget(key)
        self._wake(key, owner)

    def _forget(self, key: Key) -> Topic | None:
        held = self._objects.pop(key, None)
        owner = None if held is None else self._owner(held)
        if owner is not None:
            members = self._attempts[owner]
            members.discard(key)
            if not members:
                del self._attempts[owner]
        return owner

    def _owner(self, obj: JsonDict) -> Topic | None:
        if self._named_by is None:
            return _attempt(obj)
        name = (obj["metadata"].get("labels") or {}).get(self._named_by)
        return None if name is None else named(self._named_by, key_of(obj)[0], name)

    def _wake(self, *topics: Topic | None) -> None:
        for one in topics:
            if one is not None:
                for event in self._waiting.get(one, ()):
                    self.stats.wakes += 1
                    event.set()

    # ------------------------------------------------------------------------------------------ list and watch

    async def _run(self) -> None:
        delay = 0.0
        loop = asyncio.get_running_loop()
        while True:
            began, seen = loop.time(), self.stats.events + self.stats.bookmarks
            try:
                if self._resume is None:
                    await self._list()
                await self._watch(self._resume or "")
                short = loop.time() - began < SHORT_S
                moved = self.stats.events + self.stats.bookmarks > seen
                delay = _longer(delay) if short and not moved else 0.0
                pause = delay * _jitter()
            except (ApiError, EvertuneError, ValueError, KeyError) as error:
                if self.stats.events + self.stats.bookmarks > seen:
                    delay = 0.0
                delay = _longer(delay)
                pause = self._after(error, delay * _jitter())
            await asyncio.sleep(pause)

    def _after(self, error: Exception, pause: float) -> float:
        """Note an error; how long to wait before the next try, in seconds."""
        self.stats.errors += 1
        if isinstance(error, ApiError) and error.status == 410:
            self.stats.expired += 1
            self._resume = None
            return pause
        self.trouble = error
        self._failed.set()
        log.info("watch interrupted", path=self._path, reason=str(error))
        retry_after = error.retry_after if isinstance(error, ApiError) else None
        return pause if retry_after is None else retry_after * random.uniform(1.0, 1.25)  # noqa: S311

    async def _list(self) -> None:
        fresh: dict[Key, JsonDict] = {}
        query = {"labelSelector": self._selector, "limit": str(PAGE)}
        token: str | None = None
        while True:
            going_on = {"continue": token} if token else {}
            try:
                page = await self._api.call("GET", self._path, query={**query, **going_on})
            except ApiError as error:
                if error.status != 410 or token is None:
                    raise
                fresh, token = {}, None  # the list took longer than the server remembers: begin again
                continue
            for obj in page.get("items") or ():
                fresh[key_of(obj)] = self._slim(obj)
            token = page["metadata"].get("continue")
            if not token:
                break
        self.stats.lists += 1
        self._resume = page["metadata"]["resourceVersion"]
        self._replace(fresh, _number(self._resume))
        self._healthy()

    def _replace(self, fresh: dict[Key, JsonDict], version: int) -> None:
        """Take over a list, and wake whoever waits for what has changed or vanished."""
        for key, obj in fresh.items():
            held = self._objects.get(key)
            if held is None or version_of(held) < version_of(obj):
                self._put(key, obj)
        for key in [key for key in self._objects if key not in fresh]:
            if version_of(self._objects[key]) <= version:  # else it was made after this list
                self._drop(key)
        self._version = version

    async def _watch(self, version: str) -> None:
        seconds = random.randint(*WATCH_S)  # noqa: S311
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": self._selector,
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        self.stats.watches += 1
        rest = b""
        chunks = self._api.stream(self._path, query=query, read_timeout_s=seconds + SILENCE_S)
        async with contextlib.aclosing(chunks) as stream:  # type: ignore[type-var]
            async for chunk in stream:
                # Lines are as long as objects are: no reader with a limit can be used.
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._event(json.loads(line))

    def _event(self, event: JsonDict) -> None:
        obj = event["object"]
        if event["type"] == "ERROR":
            raise ApiError.of(obj, 500)
        version = obj["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            self.stats.bookmarks += 1
        else:
            self.stats.events += 1
            key = key_of(obj)
            held = self._objects.get(key)
            if held is None or version_of(held) <= _number(version):  # a seed may be ahead of the watch
                if event["type"] == "DELETED":
                    self._drop(key)
                elif held is None or version_of(held) < _number(version):
                    self._put(key, obj)
        self._resume, self._version = version, _number(version)
        self._healthy()

    def _healthy(self) -> None:
        self.trouble = None
        self.synced.set()


_PLACES = ("containers", "initContainers")


def topic(ref: AttemptRef) -> Topic:
    """What `waking` calls an attempt."""
    return ref.experiment_uid, str(ref.number), str(ref.attempt)


def named(label: str, namespace: str, name: str) -> Topic:
    """What `waking` calls those whose label names an object."""
    return label, namespace, name


def key_of(obj: JsonDict) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def version_of(obj: JsonDict) -> int:
    return _number(obj["metadata"]["resourceVersion"])


def _number(version: str) -> int:
    """Versions of one resource can be compared as numbers; one that is none is older than all."""
    return int(version) if version.isdigit() else 0


def _attempt(obj: JsonDict) -> Topic | None:
    held: dict[str, str] = obj["metadata"].get("labels") or {}
    if labels.EXPERIMENT not in held:
        return None
    return held[labels.EXPERIMENT], held.get(labels.TRIAL, ""), held.get(labels.ATTEMPT, "")


def _container(container: JsonDict) -> dict[str, Any]:
    """Its name, whether it is a native sidecar, and its limits, which an end for want of memory is explained by."""
    return {key: container[key] for key in ("name", "restartPolicy", "resources") if container.get(key)}


def _longer(delay: float) -> float:
    return min(LONGEST_DELAY_S, max(FIRST_DELAY_S, delay * 2))


def _jitter() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311
