"""kopf's side of the operator: which objects are watched, and who is asked what to do about them.

kopf lists and watches, keeps the finalizer, retries and patches; all that is decided is decided in `controller`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kopf
import structlog

from evertune.errors import EvertuneError
from evertune.kubectl import cluster
from evertune.kubectl import objects as o
from evertune.kubectl.controller import Controller, Event, Memory, Outcome, sentence
from evertune.settings import Settings

log = structlog.get_logger()

TICK_S = 2.0
GUARD_EVERY_S, GUARD_TRIES = 0.05, 20  # kopf sets the finalizer of a new object while its first look begins
AGAIN_S = 10.0  # after a defect of ours
UNDELIVERED_S = 3600.0  # how long a deletion waits for a Temporal that is away
EVENT_CHARACTERS = 1000  # the API server takes 1024


@dataclass(frozen=True)
class Options:
    namespaces: Sequence[str] = ()  # none: all
    adopt_katib: bool = False
    delete_deadline_s: float = 300.0
    health_port: int | None = None


class _Backoffs:
    """A server that is away costs time and nothing else: kopf may ask it again for ever."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 3, 5)
        while True:
            yield random.uniform(5, 10)  # noqa: S311 - not for secrets


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf keeps a copy of each spec in an annotation to tell what changed. We compare with what was admitted."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return {}

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        pass


async def operate(settings: Settings, options: Options) -> None:
    """Watch and work until SIGTERM or SIGINT. Raises EvertuneError when the cluster cannot be worked with."""
    server = await cluster.check(settings, options.namespaces, adopt_katib=options.adopt_katib)
    controller = Controller(settings)
    watches = " and ".join(group for group, _ in groups(options))
    log.info(
        "operator watches", cluster=server, kinds=watches, namespaces=",".join(options.namespaces) or "all of them"
    )
    try:
        await kopf.operator(
            registry=registry(settings, controller, options),
            settings=kopf_settings(options),
            standalone=True,
            liveness_endpoint=f"http://0.0.0.0:{options.health_port}/healthz" if options.health_port else None,
            **({"namespaces": list(options.namespaces)} if options.namespaces else {"clusterwide": True}),
        )
    finally:
        await controller.close()


def groups(options: Options) -> list[tuple[str, str]]:
    return [(o.GROUP, o.VERSION), *([(o.KATIB_GROUP, o.KATIB_VERSION)] if options.adopt_katib else [])]


def kopf_settings(options: Options) -> kopf.OperatorSettings:
    ours = kopf.OperatorSettings()
    ours.persistence.finalizer = o.FINALIZER
    ours.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=o.NOTES)
    ours.persistence.diffbase_storage = _NoDiffs()
    ours.posting.reporting_component = "evertune-operator"
    ours.posting.event_name_prefix = "evertune-"
    ours.posting.default_backoffs = (1, 5)  # an Event is a courtesy
    ours.networking.error_backoffs = _Backoffs()
    ours.networking.request_timeout = 30
    ours.watching.server_timeout = 300
    ours.watching.connect_timeout = 10
    ours.process.ultimate_exiting_timeout = 30
    # Namespaces that are named are taken as they are: to list them is a right over the whole cluster.
    ours.scanning.disabled = bool(options.namespaces)
    return ours


def registry(settings: Settings, controller: Controller, options: Options) -> kopf.OperatorRegistry:
    handlers = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await cluster.login(settings)  # again after each 401: a pod's token is renewed every hour

    async def observe(body: kopf.Body, memo: kopf.Memo, patch: kopf.Patch, **_: Any) -> None:
        if (body.get("metadata") or {}).get("deletionTimestamp"):
            return
        for _tries in range(GUARD_TRIES):
            if snapshot(body).guarded:
                break
            await asyncio.sleep(GUARD_EVERY_S)
        tell(body, patch, await controller.observe(snapshot(body), memory_of(memo)))

    async def release(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
        waited_s = deleted_since_s(body)
        try:
            rest, patience_s = await controller.release(snapshot(body), memory_of(memo)), options.delete_deadline_s
        except EvertuneError as error:
            if not error.retryable:
                raise
            rest, patience_s = sentence(error), max(UNDELIVERED_S, options.delete_deadline_s)
        if rest is None:
            return
        if waited_s >= patience_s:
            message = f"{rest}; the object goes all the same, after {waited_s:.0f} s"
            log.warning("deletion waits no longer", object=body.metadata.name, why=message)
            post(body, [Event("Warning", "DeletionNotAwaited", message)])
            return
        raise kopf.TemporaryError(rest, delay=1 if waited_s < 30 else 5)

    kopf.on.login(registry=handlers)(login)
    for group, version in groups(options):
        kopf.timer(group, version, o.PLURAL, registry=handlers, interval=TICK_S, backoff=AGAIN_S)(observe)
        kopf.on.delete(group, version, o.PLURAL, registry=handlers, backoff=AGAIN_S)(release)
    return handlers


def tell(body: kopf.Body, patch: kopf.Patch, outcome: Outcome) -> None:
    if outcome.status:
        patch.status.update(outcome.status)
    post(body, outcome.events)


def post(body: kopf.Body, events: Sequence[Event]) -> None:
    for event in events:
        log.info("event", object=f"{body.metadata.namespace}/{body.metadata.name}", reason=event.reason)
        kopf.event(body, type=event.type, reason=event.reason, message=event.message[:EVENT_CHARACTERS])


def snapshot(body: Mapping[str, Any]) -> o.Object:
    """kopf changes the view under our hands while we wait."""
    return o.Object(dict(body))


def memory_of(memo: kopf.Memo) -> Memory:
    """kopf's memo of an object goes with the object."""
    memory: Memory = memo.setdefault("evertune", Memory())
    return memory


def deleted_since_s(body: Mapping[str, Any]) -> float:
    at = (body.get("metadata") or {}).get("deletionTimestamp")
    return 0.0 if not at else (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def run(settings: Settings, options: Options) -> None:
    asyncio.run(operate(settings, options))
