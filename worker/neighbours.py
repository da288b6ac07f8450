"""Says at a worker's start which other databases are at work on the same Temporal.

Two homes on one Temporal never mix: activities refuse an experiment of another database, and so does `admit` when our
client started it. But one that Temporal's own client starts lands in whichever database answers first, so a person is
told. It refuses nothing itself: a worker that was moved to a new database meets its own old name for a minute.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

import structlog
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

import evertune.contracts as c

log = structlog.get_logger()

POLLED_WITHIN_S = 70.0  # a poll lasts a minute, and is seen when it begins
_MARK = " database "


def identity(database_id: str) -> str:
    """How a worker names itself to Temporal: shown in its UI, read by `other_databases`."""
    return f"{os.getpid()}@{socket.gethostname()}{_MARK}{database_id}"


async def other_databases(client: Client, database_id: str) -> dict[str, str]:
    """Databases other than ours whose workers poll this Temporal, each with one worker that does."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=c.QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    answer = await client.workflow_service.describe_task_queue(request)
    now = datetime.now(UTC)
    others = {}
    for poller in answer.pollers:
        worker, mark, database = poller.identity.partition(_MARK)
        age = (now - poller.last_access_time.ToDatetime(tzinfo=UTC)).total_seconds()
        if mark and database != database_id and age < POLLED_WITHIN_S:
            others[database] = worker
    return others


async def warn_of_other_databases(client: Client, database_id: str) -> None:
    try:
        others = await other_databases(client, database_id)
    except RPCError as error:
        log.debug("cannot ask who else polls", error=str(error))
        return
    for database, worker in others.items():
        log.warning(
            "another database is at work on this Temporal: give one of the homes another Temporal namespace",
            temporal_namespace=client.namespace,
            ours=database_id[:8],
            theirs=database[:8],
            their_worker=worker,
        )
