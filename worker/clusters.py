"""What a worker needs to run trials in clusters: made when a kubeconfig, or a pod's own account, is there.

Called by `compose` and `reconcile`. A worker without any cluster imports none of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

import evertune.contracts as c
from activities.runners.kubernetes import credentials
from evertune.domain.trial import AttemptRef
from evertune.errors import EnvironmentProblem, NotFoundError, Problem, UnavailableError, UsageError
from evertune.settings import Settings
from evertune.store import Store

if TYPE_CHECKING:
    from activities.runners.kubernetes.cluster import Clusters
    from activities.runners.kubernetes.runner import KubernetesRunner
    from activities.runners.kubernetes.templates import ClusterTemplates

log = structlog.get_logger()

FORGET_AFTER = timedelta(minutes=10)  # of a deleted experiment of which nothing is left; something may be on its way
LOG_PATIENCE_S = 600.0  # for a node that gives no log: its object does not stay for ever
NO_WORKER = "no worker that runs trials in a cluster polls this Temporal"
NO_WORKER_HINT = "start a worker with EVERTUNE_KUBECONFIG set, or inside the cluster; or use --backend local"
BACKEND_PATH = "metadata.annotations[evertune.io/backend]"
CLUSTER_PATH = "metadata.annotations[evertune.io/cluster]"


@dataclass
class ClusterParts:
    clusters: Clusters
    runner: KubernetesRunner
    templates: ClusterTemplates

    async def close(self) -> None:
        """Attempts go on."""
        await self.runner.close()
        await self.clusters.close()


def cluster_parts(settings: Settings, store: Store) -> ClusterParts | None:
    """None for a worker that has no cluster. Connections are made when they are first needed."""
    if not credentials.said(settings.kubeconfig):
        return None
    from activities.ledger import StoreLedger
    from activities.runners.kubernetes.cluster import Clusters
    from activities.runners.kubernetes.render import Injection
    from activities.runners.kubernetes.runner import KubernetesRunner
    from activities.runners.kubernetes.templates import ClusterTemplates

    clusters = Clusters(kubeconfig=settings.kubeconfig, default_context=settings.kube_context)
    runner = KubernetesRunner(
        settings.trials_dir,
        clusters,
        StoreLedger(store),
        database_id=store.database_id,
        injection=Injection(
            image=settings.collector_image, mode=settings.collector_mode, identity=settings.pod_identity
        ),
    )
    return ClusterParts(clusters, runner, ClusterTemplates(clusters))


async def no_cluster(client: Client, cluster: ClusterParts | None, context: str | None) -> Problem | None:
    """Why nobody would run trials in the cluster that an experiment names; None is a worker's own cluster.

    Whether that cluster answers is not asked: one that is away costs an experiment nothing but time.
    """
    if cluster is None:
        if await polled_by_another(client):
            return None
        return Problem(path=BACKEND_PATH, type="Forbidden", message=NO_WORKER, hint=NO_WORKER_HINT)
    try:
        await cluster.clusters.get(context)
    except UsageError as error:
        path = BACKEND_PATH if context is None else CLUSTER_PATH
        return Problem(path=path, type="NotFound", message=error.message, hint=error.hint)
    except EnvironmentProblem:  # a file or a plugin that may be mended while the trials wait
        return None
    return None


async def polled_by_another(client: Client) -> bool:
    """Whether some worker takes trials for clusters; True as well when Temporal does not say."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=c.CLUSTER_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    try:
        return bool((await client.workflow_service.describe_task_queue(request)).pollers)
    except RPCError:
        return True


@dataclass
class ClusterBroom:
    """Deletes objects in clusters whose attempts are over, and stops attempts whose experiments are."""

    store: Store
    runner: KubernetesRunner
    grace_s: float
    _running: dict[str, set[tuple[int, int]] | None] = field(default_factory=dict)  # by uid; None: there is none
    _unsaved: dict[str, float] = field(default_factory=dict)  # since when, by the attempt's key

    async def sweep(self) -> int:
        """How many objects were deleted."""
        from activities.runners.kubernetes.sweeping import Spot

        self._running.clear()
        places = await asyncio.to_thread(self.store.places)
        leftovers = await asyncio.to_thread(self.store.leftovers)
        spots = {Spot.of(place) for place in (*(place for _, place in places), *(place for _, place, _ in leftovers))}
        deleted = await self.runner.sweeper.sweep(spots, self._wanted)
        found, long_ago = self.runner.sweeper.found, datetime.now(UTC) - FORGET_AFTER
        over = [
            uid for uid, place, when in leftovers if when < long_ago and uid not in found.get(Spot.of(place), {uid})
        ]
        if over:
            await asyncio.to_thread(self.store.forget_leftovers, over)
        return deleted

    async def _wanted(self, ref: AttemptRef) -> bool:
        uid = ref.experiment_uid
        if uid not in self._running:
            self._running[uid] = await asyncio.to_thread(self._leases, uid)
        running = self._running[uid]
        if running is None:
            return False
        if (ref.number, ref.attempt) not in running:
            return await self.runner.retained(ref) or not await self._saved(ref)
        record = await asyncio.to_thread(self.store.experiment_by_uid, uid)
        if record.state.terminal:
            await self.runner.stop(ref, reason="ExperimentClosed", grace_s=self.grace_s)
        return True

    async def _saved(self, ref: AttemptRef) -> bool:
        """Whether its log is here, or can be waited for no longer: whoever recorded its end has not got to it."""
        try:
            await self.runner.save_log(ref)
        except UnavailableError as error:
            log.info("an object stays for its log", trial=ref.trial_name, reason=str(error))
            return time.monotonic() - self._unsaved.setdefault(ref.key, time.monotonic()) > LOG_PATIENCE_S
        self._unsaved.pop(ref.key, None)
        return True

    def _leases(self, uid: str) -> set[tuple[int, int]] | None:
        try:
            return {(attempt.number, attempt.attempt) for _, attempt in self.store.running_attempts(uid)}
        except NotFoundError:
            return None
