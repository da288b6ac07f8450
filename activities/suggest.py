"""`suggest`: the three steps that make an answer durable before anybody acts on it.

1. a short transaction inserts the request with its history cut, or reads the one that is there;
2. the algorithm is asked outside any transaction, for the history at that cut;
3. a short transaction inserts the trials and the algorithm's new state.
A retry after (1) sees the same cut and gives the same answer; a retry after (3) reads the stored trials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from temporalio import activity

import evertune.contracts as c
from activities.asking import AskHost
from activities.asks import AskJob
from activities.database import check_database
from activities.errors import translated
from evertune.domain.records import TrialRecord
from evertune.domain.space import Value
from evertune.store import Store

LABEL_LENGTH = 60  # characters: Temporal's timeline shows about as many, and it travels in the workflow state
HEARTBEAT_EVERY_S = 1.5  # of the 5 s after which the worker counts as dead


@dataclass
class SuggestActivities:
    store: Store
    host: AskHost

    @activity.defn(name=c.ACTIVITY_SUGGEST)
    @translated
    async def suggest(self, request: c.SuggestRequest) -> c.Suggested:
        check_database(self.store, request.database_id)
        opened = await asyncio.to_thread(
            self.store.open_request, request.uid, request.request_no, request.k, request.revision
        )
        if opened.committed:
            trials = await asyncio.to_thread(self.store.trials_of_request, request.uid, request.request_no)
            return _suggested(trials, wait=opened.wait, exhausted=opened.exhausted, reason=opened.reason)
        job = AskJob(
            uid=request.uid,
            request_no=request.request_no,
            k=opened.k,
            first_number=opened.first_number,
            cut=opened.cut,
            revision=opened.revision,
        )
        answer = await _heartbeating(asyncio.ensure_future(self.host.ask(job)))
        trials = await asyncio.to_thread(
            self.store.commit_answer, request.uid, request.request_no, answer, datetime.now(UTC)
        )
        return _suggested(trials, wait=answer.wait, exhausted=answer.exhausted, reason=answer.reason)


T = TypeVar("T")


async def _heartbeating(task: asyncio.Future[T]) -> T:
    try:
        while True:
            done, _ = await asyncio.wait([task], timeout=HEARTBEAT_EVERY_S)
            if done:
                return task.result()
            activity.heartbeat()
    finally:
        task.cancel()


def _suggested(trials: Iterable[TrialRecord], *, wait: bool, exhausted: bool, reason: str) -> c.Suggested:
    return c.Suggested(
        trials=[c.SuggestedTrial(number=trial.number, label=label(trial.parameters)) for trial in trials],
        wait=wait,
        exhausted=exhausted,
        reason=reason,
    )


def label(parameters: Mapping[str, Value]) -> str:
    """`lr=0.0123 layers=3`, cut at a word: what a person recognises a trial by."""
    words = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in parameters.items()
    ]
    text = " ".join(words)
    return text if len(text) <= LABEL_LENGTH else text[:LABEL_LENGTH].rsplit(" ", 1)[0] + " …"
