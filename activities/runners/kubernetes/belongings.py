"""The pods of one attempt: which they are, and what they printed.

Made and asked by `attempt`, which decides when. Tells nothing of how an attempt ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import structlog

from activities.runners.kubernetes.api import ApiError
from activities.runners.kubernetes.classify import primary_pods
from activities.runners.kubernetes.cluster import Cluster
from activities.runners.kubernetes.discovery import POD
from activities.runners.kubernetes.labels import owned
from activities.runners.kubernetes.logs import PodLog
from activities.runners.kubernetes.place import Place
from activities.runners.kubernetes.reflector import Reflector, Topic, named, topic, version_of
from activities.runners.kubernetes.riding import away
from activities.runners.local.outcome import MESSAGE_LINES, last_lines, telling
from evertune import archive
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import UnavailableError
from evertune.protocols import JsonDict

log = structlog.get_logger()

TAIL_BYTES = 16_384


class Belongings:
    def __init__(self, ref: AttemptRef, place: Place, cluster: Cluster, database_id: str, directory: Path) -> None:
        self.log = PodLog(cluster.api, place.namespace, place.rules.container, directory)
        self.succeeded: JsonDict | None = None  # the pod by which the attempt's object did, once it is known
        self._ref = ref
        self._place = place
        self._cluster = cluster
        self._database_id = database_id

    @property
    def pods(self) -> Reflector:
        return self._cluster.pods(self._place.namespace, named_by=self._place.named_by)

    @property
    def topic(self) -> Topic:
        """Which pods are the attempt's own."""
        by = self._place.named_by
        return topic(self._ref) if by is None else named(by, self._place.namespace, self._place.name)

    @property
    def logged(self) -> bool:
        """Whether this worker has the log."""
        return archive.exists(self.log.path)

    def seen(self) -> list[JsonDict]:
        """The pods, as far as the watch has brought them."""
        return self.pods.of(self.topic)

    async def listed(self, *, patience_s: float) -> list[JsonDict]:
        """The pods as the API server has them, whatever the watch has brought so far."""
        by = self._place.named_by
        told = owned(self._ref, self._database_id) if by is None else {by: self._place.name}
        wanted = ",".join(f"{name}={value}" for name, value in told.items())
        path = POD.path(self._place.namespace)
        try:
            page = await self._cluster.api.call("GET", path, query={"labelSelector": wanted}, patience_s=patience_s)
        except ApiError as error:
            if away(error):
                raise UnavailableError(str(error)) from error
            log.warning("pods cannot be listed", trial=self._ref.trial_name, reason=str(error))
            return self.seen()
        return list(page.get("items") or ())

    def trained(self, pods: Sequence[JsonDict]) -> JsonDict | None:
        """The newest of the pods that train."""
        chosen = primary_pods(pods, self._place.rules.labels)
        return max(chosen, key=_newness, default=None)

    async def fetch(self, *, patience_s: float) -> None:
        """What the pod printed, into the attempt's log."""
        if not self._place.reads_log and self.logged:
            return
        pod = self.succeeded or self.trained(await self.listed(patience_s=patience_s))
        try:
            if self._place.reads_log:
                await self.log.complete(pod, patience_s=patience_s)
            elif pod is not None:
                await self.log.fetch(pod, patience_s=patience_s)
        except ApiError as error:
            if away(error):
                raise UnavailableError(str(error)) from error
            log.warning("a log cannot be read", trial=self._ref.trial_name, reason=str(error))

    async def with_lines(self, end: AttemptEnd, pod: str, *, own: bool) -> AttemptEnd:
        """What it printed last says more than its exit code; `own`: its log is the attempt's."""
        if self._place.reads_log and (own or not pod):
            tail = await asyncio.to_thread(archive.last_bytes, self.log.path, TAIL_BYTES)
        else:
            tail = await self.log.tail(pod)
        lines = last_lines(tail)
        if not lines:
            return end
        reason = end.reason if end.signal is not None else f"{end.reason}: {telling(lines)}"
        message = "\n".join(filter(None, ["\n".join(lines[-MESSAGE_LINES:]), end.message]))
        return dataclasses.replace(end, reason=reason, message=message)


def _newness(pod: JsonDict) -> tuple[str, bool, int]:
    """Times have whole seconds; of two pods of one second the one that was replaced has failed."""
    failed = (pod.get("status") or {}).get("phase") == "Failed"
    return str(pod["metadata"].get("creationTimestamp")), not failed, version_of(pod)
