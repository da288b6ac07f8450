"""Builds the worker from its parts: store, runner, ask host, activities, and one Temporal worker per task queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import GetClusterInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

import evertune.contracts as c
from activities.admit import AdmitActivities
from activities.asking import AskHost
from activities.launch import LaunchPlans, Reporting
from activities.observing import Observer
from activities.record import RecordActivities
from activities.revising import ReviseActivities, Reviser
from activities.runners.local import LocalRunner
from activities.suggest import SuggestActivities
from activities.trial import TrialActivities
from evertune.protocols import TrialRunner
from evertune.settings import Settings
from evertune.store import Store
from evertune.tokens import TokenKeys
from worker.clusters import ClusterParts, cluster_parts, no_cluster
from worker.neighbours import identity, warn_of_other_databases
from workflows.experiment import ExperimentWorkflow

log = structlog.get_logger()

# Leases limit parallelism, never slots: at each continue-as-new the old and the new activity of a trial overlap,
# and attach and stop must never wait behind running trials.
TRIAL_SLOTS = 2 * 1000 + 200
# Rate of exchange between a warm cache (no replay) and memory: ~100 KB per idle experiment.
CACHED_WORKFLOWS = 200
# Trials outlive the worker, so there is nothing to wait for: activities detach at once.
# What a trial waits for is to be seen within 5 s; how often an unchanged one says so is its activity's business.
HEARTBEATS_APART = timedelta(seconds=3)
GRACEFUL_SHUTDOWN = timedelta(seconds=0.5)


@dataclass
class Parts:
    settings: Settings
    client: Client
    store: Store
    runner: LocalRunner
    host: AskHost
    search_attributes: bool
    temporal_id: str  # `temporal_identity` of the client
    cluster: ClusterParts | None = None  # None: this worker runs no trials in clusters

    async def close(self) -> None:
        """What this worker holds; trials go on."""
        await self.host.close()
        if self.cluster is not None:
            await self.cluster.close()


async def compose(settings: Settings, client: Client, store: Store) -> Parts:
    """Everything a worker needs, around a connected client and an open store."""
    await warn_of_other_databases(client, store.database_id)
    return Parts(
        settings=settings,
        client=client,
        store=store,
        runner=LocalRunner(settings.trials_dir),
        host=AskHost(store, settings.database_url),
        search_attributes=await register_search_attributes(client),
        temporal_id=await temporal_identity(client),
        cluster=cluster_parts(settings, store),
    )


async def temporal_identity(client: Client) -> str:
    """Names one Temporal cluster and namespace, wherever it listens: a row knows which one runs its workflow."""
    info = await client.workflow_service.get_cluster_info(GetClusterInfoRequest())
    return f"{info.cluster_id}/{client.namespace}"


def workflow_runner() -> WorkflowRunner:
    """Sandboxed; `evertune` is passed through once, else its models are imported again for every workflow."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules("evertune"))


def workers(parts: Parts, trial: TrialActivities, inside: TrialActivities | None) -> list[Worker]:
    """`trial` runs trials as processes of this home, `inside` in clusters."""
    admit = AdmitActivities(
        parts.store,
        parts.settings.home_id,
        parts.settings.backend,
        parts.search_attributes,
        parts.temporal_id,
        templates=None if parts.cluster is None else parts.cluster.templates,
        host=parts.host,
        no_cluster=lambda context: no_cluster(parts.client, parts.cluster, context),
    )
    reviser = Reviser(parts.store, trial.plans, trial.runner, parts.settings.home_id)
    record = RecordActivities(parts.store, reviser)
    revise = ReviseActivities(reviser)
    suggest = SuggestActivities(parts.store, parts.host)
    made = [
        _worker(parts, c.QUEUE, [admit.admit, record.record, record.close_trial], workflows=True),
        _worker(parts, c.SUGGEST_QUEUE, [suggest.suggest]),
        _worker(parts, c.run_queue(parts.settings.home_id), [trial.run_trial, trial.stop_trial, revise.revise]),
    ]
    if inside is None:
        log.info("no kubeconfig: this worker runs no trials in clusters")
    else:
        made.append(_worker(parts, c.CLUSTER_QUEUE, [inside.run_trial, inside.stop_trial, revise.revise]))
    return made


def trial_activities(parts: Parts, runner: TrialRunner | None = None) -> TrialActivities:
    """`runner`: None for local processes of this home."""
    return TrialActivities(
        parts.store,
        runner or parts.runner,
        LaunchPlans(parts.store, reporting_of(parts.settings), trials_dir=parts.settings.trials_dir),
        Observer(parts.client, parts.store),
        parts.settings.home_id,
        log_cap=parts.settings.log_cap,
    )


def reporting_of(settings: Settings) -> Reporting | None:
    """Trials may report to the gateway that this worker was told of: by the stack's parent, or by who deployed it."""
    return None if settings.ingest_url is None else Reporting(settings.ingest_url, TokenKeys.load(settings))


def _worker(parts: Parts, queue: str, activities: list[Callable[..., Any]], *, workflows: bool = False) -> Worker:
    return Worker(
        parts.client,
        task_queue=queue,
        identity=identity(parts.store.database_id),
        workflows=[ExperimentWorkflow] if workflows else [],
        activities=activities,
        workflow_runner=workflow_runner(),
        max_concurrent_activities=TRIAL_SLOTS,
        max_cached_workflows=CACHED_WORKFLOWS,
        activity_task_poller_behavior=PollerBehaviorAutoscaling(minimum=1, initial=2, maximum=20),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(minimum=2, initial=2, maximum=10),
        # A worker that died leaves its sticky queue behind; half of the default halves the first answer after a kill.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=GRACEFUL_SHUTDOWN,
        max_heartbeat_throttle_interval=HEARTBEATS_APART,
        default_heartbeat_throttle_interval=timedelta(seconds=2),
    )


async def register_search_attributes(client: Client) -> bool:
    """Make sure that Temporal knows ours. False where that is not allowed: the worker then runs without them."""
    types = {
        "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
        "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
        "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    }
    try:
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = {
            name: types[kind] for name, kind in c.SEARCH_ATTRIBUTES.items() if name not in listed.custom_attributes
        }
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            )
    except RPCError as error:
        log.warning(
            "running without search attributes: Temporal does not let this worker register them", error=str(error)
        )
        return False
    return True


async def stop_local_trials(runner: LocalRunner, *, reason: str) -> int:
    """Stop everything that runs under this home, side by side; returns how many attempts there were."""
    live = await asyncio.to_thread(runner.find_orphans, set())
    await asyncio.gather(*(runner.stop(ref, reason=reason) for ref in live))
    return len(live)


async def run_until(
    parts: Parts, stopping: asyncio.Event, ready: Callable[[], None], *, trial: TrialActivities | None = None
) -> None:
    """Poll until `stopping` is set. `ready` is called once every queue is polled.

    `trial`: where and how local trials run; None for processes of this home.
    """
    trial = trial or trial_activities(parts)
    inside = None if parts.cluster is None else trial_activities(parts, parts.cluster.runner)
    async with AsyncExitStack() as stack:
        for activities in filter(None, (trial, inside)):
            stack.push_async_callback(activities.tidier.close)
        for worker in workers(parts, trial, inside):
            await stack.enter_async_context(worker)
        watching = asyncio.create_task(trial.observer.stopping.watch())
        stack.push_async_callback(trial.observer.stopping.close)
        stack.callback(watching.cancel)
        ready()
        await stopping.wait()
