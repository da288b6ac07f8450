"""Whether an ended experiment's algorithm has anything left to try. Asked by `admit` before the experiment goes on.

An algorithm is told the budget that was admitted and never another one, so that more trials alone give it nothing more
to do. What it has said of that stays true (`protocols.Answer.exhausted`) until somebody revises a verdict. Where its
last answer happened to fill the budget exactly, it is asked what it would give next; nothing of that is kept.
"""

from __future__ import annotations

import asyncio

from activities.asking import AskHost
from activities.asks import AskJob
from activities.problems import problem_of
from algorithms import registry
from evertune.domain.records import ExperimentRecord
from evertune.errors import AlgorithmError, ConflictError
from evertune.store import Store

PATIENCE_S = 15.0  # of the 30 that an admission may take


async def refuse_exhausted(store: Store, host: AskHost | None, record: ExperimentRecord) -> None:
    """Raises ConflictError when going on would end the experiment again at once.

    Only when that is certain: where nobody can tell, or to ask would take long, the experiment goes on.
    """
    if record.counts.created > record.counts.finished:  # trials that its end left open are run first
        return
    said, job = await asyncio.to_thread(_look, store, record)
    if not said and job is not None and host is not None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await host.ask(job)
        except (AlgorithmError, TimeoutError):  # the experiment will say so
            return
        said = answer.reason if answer.exhausted and not answer.assignments else ""
    if said:
        message = f"experiment {record.name} has nothing more to try, whatever its budget: {said}"
        raise ConflictError(message, hint="start another one with a wider space, or other settings of its algorithm")


def _look(store: Store, record: ExperimentRecord) -> tuple[str, AskJob | None]:
    """Why there is nothing more, as far as it was said already; and how to ask, where that may be worth it."""
    requests = [request for request in store.requests(record.uid) if request.committed]
    last = max(requests, key=lambda request: request.request_no, default=None)
    if last is not None and last.exhausted and store.last_revision(record.uid) <= last.cut:
        return last.reason or "its algorithm has no more suggestions", None
    problem = problem_of(record)
    if not registry.ends(record.algorithm, problem) or registry.heavy(record.algorithm):
        return "", None
    ended = store.last_ended(record.uid)
    return "", AskJob(
        uid=record.uid,
        request_no=last.request_no + 1 if last is not None else 1,
        k=1,
        first_number=record.counts.created,
        cut=(ended and ended.told_seq) or 0,
        revision=record.revision,
    )
