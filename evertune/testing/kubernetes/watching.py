"""How the fake API server streams: watches with history and bookmarks, and the logs of pods."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

from evertune.testing.kubernetes.faults import Fault
from evertune.testing.kubernetes.objects import FieldSelector, JsonDict, Kind, LabelSelector, Refused
from evertune.testing.kubernetes.store import Change, Store

DEFAULT_TIMEOUT_S = 1800.0


def line(type: str, obj: JsonDict) -> bytes:
    return json.dumps({"type": type, "object": obj}, separators=(",", ":")).encode() + b"\n"


class Watch:
    """One watch of a kind; `lines` ends when its time is over."""

    def __init__(
        self, store: Store, kind: Kind, namespace: str | None, name: str | None, query: Mapping[str, str]
    ) -> None:
        self._store = store
        self._kind = kind
        self._namespace = namespace
        self._name = name
        self._labels = LabelSelector(query.get("labelSelector"))
        self._fields = FieldSelector(query.get("fieldSelector"), kind)
        self._from = query.get("resourceVersion") or "0"
        self._bookmarks = query.get("allowWatchBookmarks") in ("true", "1", "True")
        self._timeout_s = float(query.get("timeoutSeconds") or DEFAULT_TIMEOUT_S)

    async def lines(self, bookmark_every_s: float) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout_s
        with self._store.watching(self._kind.plural) as queue:
            if self._from == "0":
                for obj in self._store.all(self._kind.plural, self._namespace):
                    if self._chosen(obj):
                        yield line("ADDED", obj)
            else:
                try:
                    missed = self._store.since(self._kind.plural, int(self._from))
                except Refused as refused:
                    yield line("ERROR", refused.body)
                    return
                for change in missed:
                    if (told := self._told(change)) is not None:
                        yield told
            while (left := end - loop.time()) > 0:
                try:
                    change = await asyncio.wait_for(queue.get(), min(left, bookmark_every_s))
                except TimeoutError:
                    if self._bookmarks and queue.empty():  # a bookmark says that all before it was told
                        yield self._bookmark()
                    continue
                if (told := self._told(change)) is not None:
                    yield told

    def _bookmark(self) -> bytes:
        meta = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        return line("BOOKMARK", {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": meta})

    def _chosen(self, obj: JsonDict) -> bool:
        meta = obj["metadata"]
        return (
            self._namespace in (None, meta.get("namespace", ""))
            and self._name in (None, meta["name"])
            and self._labels.matches(meta.get("labels"))
            and self._fields.matches(obj)
        )

    def _told(self, change: Change) -> bytes | None:
        """An object that begins or ends to match is new or deleted for this watch."""
        was = change.before is not None and self._chosen(change.before)
        if change.type == "DELETED":
            return line("DELETED", change.after) if was else None
        if self._chosen(change.after):
            return line("MODIFIED" if was else "ADDED", change.after)
        if not was:
            return None
        assert change.before is not None
        gone = {**change.before, "metadata": {**change.before["metadata"], "resourceVersion": str(change.version)}}
        return line("DELETED", gone)


async def broken_off(lines: AsyncIterator[bytes], fault: Fault | None) -> AsyncIterator[bytes]:
    """`lines` as a fault has them; raises ConnectionResetError where the connection is to break."""
    if fault is None or fault.after_events is None:
        async for text in lines:
            yield text
        return
    sent = 0
    async with contextlib.aclosing(lines) as source:  # type: ignore[type-var]
        if sent >= fault.after_events:
            raise ConnectionResetError
        async for text in source:
            yield text
            sent += 1
            if sent >= fault.after_events:
                break
    if fault.gone:
        yield line("ERROR", Refused(410, "too old resource version").body)
        return
    raise ConnectionResetError
