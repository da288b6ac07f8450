"""Runs attempts as objects of a Kubernetes cluster: Jobs, training jobs, or anything else with conditions.

Implements `protocols.TrialRunner`. An attempt is claimed in the ledger before its object is made, so whoever finds the
claim without an object knows that nobody can say what became of it: it is lost, uncharged, and never made again. Any
worker goes on where another one died. Decides nothing about retries, budgets or metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from activities.runners.kubernetes import creating
from activities.runners.kubernetes.api import ApiError
from activities.runners.kubernetes.attempt import Attempt, World
from activities.runners.kubernetes.classify import Limits
from activities.runners.kubernetes.cluster import Cluster, Clusters
from activities.runners.kubernetes.creating import NoRestartPolicyError
from activities.runners.kubernetes.discovery import Resource, resource, server_version
from activities.runners.kubernetes.logs import origin_of
from activities.runners.kubernetes.place import Place
from activities.runners.kubernetes.render import Features, Injection, rendered
from activities.runners.kubernetes.riding import TRY_S, ride
from activities.runners.kubernetes.sweeping import Sweeper
from evertune.domain.states import AttemptState, FailureClass
from evertune.domain.trial import AttemptEnd, AttemptRef
from evertune.errors import ConflictError, EnvironmentProblem, LaunchError, NotFoundError, UsageError
from evertune.protocols import JsonDict, Launch, Ledger, LedgerEntry, Sources

log = structlog.get_logger()

SETTLE_S = 3.0  # for a worker that claimed an attempt, and may be posting its object this very moment


class KubernetesRunner:
    """`root`: where logs go, as those of local attempts. `clusters` stays the caller's to close."""

    def __init__(
        self,
        root: Path,
        clusters: Clusters,
        ledger: Ledger,
        *,
        database_id: str,
        injection: Injection,
        limits: Limits | None = None,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._root = root.absolute()
        self._clusters = clusters
        self._ledger = ledger
        self._injection = injection
        self._settle_s = settle_s
        self._world = World(ledger, database_id, limits=limits or Limits())
        self._attempts: dict[str, Attempt] = {}
        self._phases: dict[str, str] = {}  # of those that are not there yet
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._pruning: set[tuple[str, Resource]] = set()  # kinds whose schema knows no native sidecars
        self._met: set[Cluster] = set()  # those that have answered once
        self.sweeper = Sweeper(clusters, database_id)

    # --------------------------------------------------------------------------------------- TrialRunner

    def sidecar(self, launch: Launch) -> bool:
        attempt = self._attempts.get(launch.ref.key)
        return attempt is not None and not attempt.place.reads_log and not attempt.silent

    async def create(self, launch: Launch) -> None:
        ref = launch.ref
        async with self._alone(ref):
            if ref.key in self._attempts:
                return
            entry = await self._look(ref)
            try:
                if entry.end is not None or entry.stop is not None:
                    if entry.place is not None:
                        await self._come_late(ref, Place.read(entry.place), over=entry.end is not None)
                elif entry.place is None:
                    await self._make(launch)
                else:
                    await self._attach(ref, Place.read(entry.place))
            except LaunchError as error:
                await self._end(ref, _cannot_start(error))
                raise
            finally:
                self._phases.pop(ref.key, None)

    async def wait(self, ref: AttemptRef) -> AttemptEnd:
        async with self._alone(ref):
            attempt = self._attempts.get(ref.key)
            if attempt is None:
                entry = await self._look(ref)
                if entry.end is not None:
                    return entry.end
                if entry.place is None:
                    return await self._end(ref, _never_made(entry.stop))
                attempt = await self._known(ref, Place.read(entry.place))
        return await attempt.ended()

    def phase(self, ref: AttemptRef) -> str:
        attempt = self._attempts.get(ref.key)
        return self._phases.get(ref.key, "") if attempt is None else attempt.phase

    async def stop(self, ref: AttemptRef, *, reason: str, grace_s: float = 10.0) -> None:
        """Also for an attempt that was never created: it then never will be. Returns when it has ended."""
        try:
            entry = await asyncio.to_thread(self._ledger.stop, ref, reason)
        except NotFoundError:  # its experiment was deleted: what is left of it has no end to be recorded
            entry = LedgerEntry()
        if entry.end is not None:
            return
        async with self._alone(ref):
            attempt = self._attempts.get(ref.key)
            passing = attempt is None  # only to be stopped: another worker runs it, or nobody does
            if attempt is None:
                entry = await self._look(ref)
                if entry.place is None:
                    with suppress(NotFoundError):
                        await self._end(ref, _never_made(entry.stop or reason))
                    return
                attempt = await self._known(ref, Place.read(entry.place))
        await attempt.stop(grace_s)
        if passing:
            self._attempts.pop(ref.key, None)
            await attempt.close()

    async def remove(self, ref: AttemptRef) -> None:
        await self._give_back(ref, even_retained=True)

    async def release(self, ref: AttemptRef) -> None:
        await self._give_back(ref, even_retained=False)

    async def fetch(self, ref: AttemptRef) -> None:
        attempt = await self._there(ref)
        if attempt is not None:
            await attempt.fetch()

    def log_path(self, ref: AttemptRef) -> Path:
        return self._directory(ref) / "log"

    def sources(self, launch: Launch, path: str | None) -> Sources:
        directory = self._directory(launch.ref)
        return Sources(
            origin=origin_of(directory),
            log=directory / "log",
            notes=directory,
            path=None if path is None else directory / "files" / path.lstrip("/"),
            reports=directory / "reports",
        )

    # ----------------------------------------------------------------------------- what only a cluster has

    async def retained(self, ref: AttemptRef) -> bool:
        """Whether the object of an attempt that has ended is to stay."""
        entry = await self._look(ref)
        return entry.place is not None and Place.read(entry.place).retain

    async def save_log(self, ref: AttemptRef) -> None:
        """Bring the log of an attempt that has ended here, before a sweep deletes its object.

        UnavailableError when the cluster does not give it at this moment.
        """
        attempt = self._attempts.get(ref.key)
        if attempt is None:
            entry = await self._look(ref)
            if entry.place is None:
                return
            place = Place.read(entry.place)
            cluster, kind = await self._where(ref, place.cluster, place.api_version, place.kind)
            attempt = Attempt(ref, place, cluster, kind, self._world, self._directory(ref))
        await attempt.fetch(patience_s=TRY_S)

    async def close(self) -> None:
        """Stop following. Attempts go on."""
        await asyncio.gather(*(attempt.close() for attempt in self._attempts.values()))
        self._attempts.clear()

    # ------------------------------------------------------------------------------------------- starting

    async def _make(self, launch: Launch) -> None:
        """Claim the attempt and post its object; what was claimed before is only looked for."""
        ref = launch.ref
        try:
            await self._clusters.get(launch.cluster)
        except UsageError as error:
            raise LaunchError(error.message, error.hint) from error
        cluster, kind = await self._where(ref, launch.cluster, launch.manifest["apiVersion"], launch.manifest["kind"])
        say = self._sayer(ref)
        version = await ride(cluster.api, say, lambda: server_version(cluster.api))
        place, manifest = self._render(launch, cluster, kind, version)
        entry = await asyncio.to_thread(self._ledger.claim, ref, place.as_json())
        if entry.end is not None or entry.stop is not None:
            return
        if not entry.claimed_now:
            await self._attach(ref, Place.read(entry.place or place.as_json()))
            return
        obj = await self._post(launch, cluster, kind, manifest, version)
        if obj is None:
            return
        attempt = self._attempt(ref, place, cluster, kind)
        attempt.seed(obj)
        attempt.begin()
        if await self._unwanted(ref):  # stopped, or taken for lost, while the object was being made
            await attempt.release(even_retained=True)

    async def _post(
        self, launch: Launch, cluster: Cluster, kind: Resource, manifest: JsonDict, version: tuple[int, int]
    ) -> JsonDict | None:
        ref = launch.ref
        for _ in range(2):
            try:
                return await creating.make(
                    cluster.api,
                    kind,
                    manifest,
                    ref,
                    self._world.database_id,
                    say=self._sayer(ref),
                    unwanted=lambda: self._unwanted(ref),
                )
            except NoRestartPolicyError:
                log.info("no native sidecars in this kind", kind=kind.kind, cluster=cluster.api.context)
                self._pruning.add((cluster.api.context, kind))
                _, manifest = self._render(launch, cluster, kind, version)
        raise LaunchError(f"the cluster's {kind.kind} knows no restartPolicy in initContainers")

    def _render(
        self, launch: Launch, cluster: Cluster, kind: Resource, version: tuple[int, int]
    ) -> tuple[Place, JsonDict]:
        strict = (cluster.api.context, kind) not in self._pruning
        features = Features(server_version=version, strict_init_restart=strict)
        result = rendered(launch, database_id=self._world.database_id, config=self._injection, features=features)
        place = Place.of(launch, result.manifest, result.mode)
        manifest = {**result.manifest, "metadata": {**result.manifest["metadata"], "name": place.name}}
        return place, manifest

    async def _attach(self, ref: AttemptRef, place: Place) -> None:
        """Somebody has claimed it before: its object is there, or nobody can say whether it ever was."""
        cluster, kind = await self._where(ref, place.cluster, place.api_version, place.kind)
        api, say, loop = cluster.api, self._sayer(ref), asyncio.get_running_loop()
        give_up = loop.time() + self._settle_s
        while True:
            found = await creating.find(api, kind, place.namespace, place.name, say=say)
            if found is not None and creating.mine(found, ref, self._world.database_id):
                attempt = self._attempt(ref, place, cluster, kind)
                attempt.seed(found)
                attempt.begin()
                return
            if loop.time() >= give_up:
                await self._end(ref, _lost("its object was claimed by a worker that is gone, and is not there"))
                return
            await asyncio.sleep(min(0.2, self._settle_s))

    async def _come_late(self, ref: AttemptRef, place: Place, *, over: bool) -> None:
        """It has ended, or is being ended, under another worker: its log may have to be read here all the same."""
        attempt = await self._known(ref, place)
        if over and place.reads_log and not attempt.logged:
            await attempt.fetch()

    async def _known(self, ref: AttemptRef, place: Place) -> Attempt:
        """Of an attempt that another worker, or this one before it died, has made."""
        cluster, kind = await self._where(ref, place.cluster, place.api_version, place.kind)
        return self._attempt(ref, place, cluster, kind)

    async def _there(self, ref: AttemptRef) -> Attempt | None:
        async with self._alone(ref):
            if (attempt := self._attempts.get(ref.key)) is not None:
                return attempt
            entry = await self._look(ref)
            return None if entry.place is None else await self._known(ref, Place.read(entry.place))

    async def _where(self, ref: AttemptRef, context: str | None, version: str, kind: str) -> tuple[Cluster, Resource]:
        """Raises EnvironmentProblem when this worker cannot reach that cluster: another one may."""
        try:
            cluster = await self._clusters.get(context)
        except UsageError as error:
            raise EnvironmentProblem(error.message, error.hint) from error
        if cluster not in self._met:  # what is asked of it below has more patience than a sentence may take
            await ride(cluster.api, self._sayer(ref), lambda: cluster.api.call("GET", "/version", patience_s=TRY_S))
            self._met.add(cluster)
        return cluster, await ride(cluster.api, self._sayer(ref), lambda: resource(cluster.api, version, kind))

    def _attempt(self, ref: AttemptRef, place: Place, cluster: Cluster, kind: Resource) -> Attempt:
        attempt = self._attempts.get(ref.key)
        if attempt is None:
            attempt = Attempt(ref, place, cluster, kind, self._world, self._directory(ref))
            self._attempts[ref.key] = attempt
        return attempt

    async def _give_back(self, ref: AttemptRef, *, even_retained: bool) -> None:
        attempt = await self._there(ref)
        if attempt is None:
            return
        if not attempt.over and (await self._look(ref)).end is None:
            raise ConflictError(f"attempt {ref.attempt} of trial {ref.trial_name} still runs", "stop it first")
        with suppress(ApiError):  # away, or not allowed: the sweep finds it later
            await attempt.release(even_retained=even_retained)
        self._attempts.pop(ref.key, None)
        await attempt.close()

    # ------------------------------------------------------------------------------------------- the rest

    async def _look(self, ref: AttemptRef) -> LedgerEntry:
        return await asyncio.to_thread(self._ledger.look, ref)

    async def _end(self, ref: AttemptRef, end: AttemptEnd) -> AttemptEnd:
        return (await asyncio.to_thread(self._ledger.end, ref, end)).end or end

    async def _unwanted(self, ref: AttemptRef) -> bool:
        entry = await self._look(ref)
        return entry.end is not None or entry.stop is not None

    def _directory(self, ref: AttemptRef) -> Path:
        return self._root / ref.experiment_uid / str(ref.number) / str(ref.attempt)

    def _sayer(self, ref: AttemptRef) -> Callable[[str], None]:
        def say(text: str) -> None:
            self._phases[ref.key] = text

        return say

    @asynccontextmanager
    async def _alone(self, ref: AttemptRef) -> AsyncIterator[None]:
        """One at a time for each attempt; the lock goes with its last user."""
        lock, users = self._locks.get(ref.key, (asyncio.Lock(), 0))
        self._locks[ref.key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(ref.key)
            if users > 1:
                self._locks[ref.key] = lock, users - 1


def _cannot_start(error: LaunchError) -> AttemptEnd:
    return AttemptEnd(
        state=AttemptState.FAILED,
        reason="CannotStart",
        message=str(error) + (f" ({error.hint})" if error.hint else ""),
        failure=FailureClass.CONFIGURATION,
        ended=datetime.now(UTC),
    )


def _never_made(stop: str | None) -> AttemptEnd:
    if stop is None:
        return _lost("it was lost before its object was made")
    return AttemptEnd(AttemptState.KILLED, stop, failure=FailureClass.STOPPED, ended=datetime.now(UTC))


def _lost(message: str) -> AttemptEnd:
    return AttemptEnd(AttemptState.LOST, "Lost", message, FailureClass.INFRASTRUCTURE, ended=datetime.now(UTC))
