"""Finds objects that outlived their attempts: of experiments that were deleted, or whose worker died before it tidied.

Called by the worker's reconciler, at start and then again and again. An object is ours by its labels, this database's
id among them; what is another database's is left alone. Whether an attempt is over only its caller can say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import ApiError, Unreachable
from activities.runners.kubernetes.attempt import delete
from activities.runners.kubernetes.causes import time_of
from activities.runners.kubernetes.cluster import Clusters
from activities.runners.kubernetes.discovery import resource
from evertune.domain.trial import AttemptRef
from evertune.errors import EvertuneError
from evertune.protocols import JsonDict

log = structlog.get_logger()

YOUNG_S = 30.0  # its row may be a moment behind
PAGE = 500


@dataclass(frozen=True, slots=True)
class Spot:
    """Where objects may be."""

    cluster: str | None
    namespace: str
    api_version: str
    kind: str

    @classmethod
    def of(cls, place: JsonDict) -> Spot:
        return cls(place["cluster"], place["namespace"], place["apiVersion"], place["kind"])


class Sweeper:
    def __init__(self, clusters: Clusters, database_id: str) -> None:
        self._clusters = clusters
        self._database_id = database_id
        self._spots: set[Spot] = set()  # also those whose experiments are gone since
        self.found: dict[Spot, set[str]] = {}  # by the last sweep: whose objects, where it could look

    async def sweep(self, spots: Iterable[Spot], wanted: Callable[[AttemptRef], Awaitable[bool]]) -> int:
        """Delete what is not `wanted`, in these places and in all earlier ones; how many objects that were."""
        self._spots |= set(spots)
        self.found = {}
        deleted, away = 0, set[str | None]()
        for spot in sorted(self._spots, key=repr):
            if spot.cluster in away:
                continue
            try:
                whose: set[str] = set()
                deleted += await self._sweep(spot, wanted, whose)
                self.found[spot] = whose
            except (ApiError, EvertuneError) as error:  # away, forbidden, or its kind is gone: the next time
                log.info("a namespace could not be swept", namespace=spot.namespace, kind=spot.kind, reason=str(error))
                if isinstance(error, Unreachable):
                    away.add(spot.cluster)
        return deleted

    async def _sweep(self, spot: Spot, wanted: Callable[[AttemptRef], Awaitable[bool]], whose: set[str]) -> int:
        cluster = await self._clusters.get(spot.cluster)
        kind = await resource(cluster.api, spot.api_version, spot.kind)
        selector = f"{labels.SELECTOR},{labels.DATABASE}={self._database_id}"
        query = {"labelSelector": selector, "limit": str(PAGE)}
        deleted, token = 0, ""
        while True:
            path = kind.path(spot.namespace)
            page = await cluster.api.call("GET", path, query={**query, **({"continue": token} if token else {})})
            for obj in page.get("items") or ():
                ref = ref_of(obj)
                whose.add(str(obj["metadata"]["labels"].get(labels.EXPERIMENT)))
                if ref is None or _young(obj) or "deletionTimestamp" in obj["metadata"] or await wanted(ref):
                    continue
                await delete(cluster, kind, obj)
                log.info("deleted what an attempt left behind", name=obj["metadata"]["name"], kind=spot.kind)
                deleted += 1
            token = page["metadata"].get("continue") or ""
            if not token:
                return deleted


def _young(obj: JsonDict) -> bool:
    made = time_of(obj["metadata"].get("creationTimestamp"))
    return made is not None and (datetime.now(UTC) - made).total_seconds() < YOUNG_S


def ref_of(obj: JsonDict) -> AttemptRef | None:
    """The attempt by the object's labels; its trial's name is that of the object, as far as anybody needs it."""
    told = obj["metadata"].get("labels") or {}
    try:
        number, attempt = int(told[labels.TRIAL]), int(told[labels.ATTEMPT])
        name = str(obj["metadata"]["name"]).removesuffix(f"-r{attempt}" if attempt else "")
        return AttemptRef(str(told[labels.EXPERIMENT]), number, attempt, name)
    except (KeyError, ValueError):
        return None
