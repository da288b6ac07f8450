"""Answers ask jobs from the store: reads the history at the job's cut and asks the algorithm, keeping sessions warm.

Used by the ask process for every algorithm, and by the worker itself for the cheap ones. It writes nothing: an answer
counts once `suggest` has committed it, and the same job gets the same answer here, in a new process, or after a kill.
An algorithm that breaks its contract is named in an AlgorithmError; it never hangs an experiment.
"""

from __future__ import annotations

import json
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from algorithms import registry
from evertune.domain.records import ExperimentRecord
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.errors import AlgorithmError, EvertuneError
from evertune.protocols import Answer, AskSession, JsonDict, SearchProblem
from evertune.store import Store

log = structlog.get_logger()

# About 3 kB per trial in a library's own objects: 90 MB at most, besides the experiment that is asked about.
MAX_SESSIONS = 8
MAX_TRIALS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AskJob:
    """One ask of one experiment: everything that decides the answer, besides what the store holds at `cut`."""

    uid: str
    request_no: int
    k: int
    first_number: int
    cut: int
    revision: int


@dataclass(slots=True)
class _Open:
    """A session and the point of history that it knows."""

    name: str
    session: AskSession
    reads_history: bool
    cut: int
    first_number: int


class Desk:
    """One at a time: not for several threads at once. `store` is called for each job, so it may open late."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._open: OrderedDict[tuple[str, int], _Open] = OrderedDict()  # the one used last is at the end

    def answer(self, job: AskJob) -> Answer:
        store = self._store()
        key = (job.uid, job.revision)
        known = self._open.pop(key, None)  # comes back when all went well
        if known is not None and (job.cut < known.cut or job.first_number < known.first_number):
            known = None  # asked about the past: only the store knows it
        if known is None:
            known = _opened(store.experiment_by_uid(job.uid), job)
            changes = store.history(job.uid, cut=job.cut, first_number=job.first_number) if known.reads_history else []
        elif known.reads_history:
            changes = store.history_since(
                job.uid, after=known.cut, from_number=known.first_number, cut=job.cut, first_number=job.first_number
            )
        else:
            changes = []
        state = store.algorithm_state(job.uid, job.request_no)
        answer = _asked(known, changes, job, state)
        known.cut, known.first_number = job.cut, job.first_number
        self._open[key] = known
        self._forget_oldest()
        return answer

    def _forget_oldest(self) -> None:
        while len(self._open) > MAX_SESSIONS or (
            len(self._open) > 1 and sum(known.first_number for known in self._open.values()) > MAX_TRIALS
        ):
            self._open.popitem(last=False)


def _opened(record: ExperimentRecord, job: AskJob) -> _Open:
    problem = SearchProblem(
        space=record.space,
        direction=record.objective.type,
        seed=record.seed,
        settings=record.settings,
        max_trials=record.budget.max_trials,
        parallel=record.budget.parallel,
    )
    reads_history = registry.get(record.algorithm).reads_history
    with _Blame(record.algorithm, job):
        session = registry.session(record.algorithm, problem)
    return _Open(record.algorithm, session, reads_history, job.cut, job.first_number)


def _asked(known: _Open, changes: Sequence[HistoryTrial], job: AskJob, state: JsonDict | None) -> Answer:
    with _Blame(known.name, job):
        answer = known.session.ask(changes, job.k, job.first_number, state)
        # As it will be stored: whatever JSON cannot hold is refused here, not by the database.
        answer = unpacked(json.loads(json.dumps(packed(answer), allow_nan=False)))
    given = len(answer.assignments)
    if given > job.k:
        raise AlgorithmError(f"the algorithm {known.name} gave {given} assignments where {job.k} were asked")
    if not given and not answer.wait and not answer.exhausted:
        raise AlgorithmError(f"the algorithm {known.name} gave nothing for trial {job.first_number}, and no reason")
    return answer


class _Blame:
    """Turns what an algorithm raises into an AlgorithmError that names it."""

    def __init__(self, name: str, job: AskJob) -> None:
        self._name = name
        self._job = job

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, EvertuneError):
            return
        log.error("an algorithm failed", algorithm=self._name, traceback="".join(traceback.format_exception(error)))
        raise AlgorithmError(
            f"the algorithm {self._name} failed at trial {self._job.first_number}: {type(error).__name__}: {error}"
        ) from error


def packed(answer: Answer) -> JsonDict:
    return {
        "assignments": [
            {"parameters": dict(given.parameters), "labels": dict(given.labels), "meta": dict(given.meta)}
            for given in answer.assignments
        ],
        "state": answer.state,
        "wait": answer.wait,
        "exhausted": answer.exhausted,
        "reason": answer.reason,
    }


def unpacked(data: dict[str, Any]) -> Answer:
    return Answer(**{**data, "assignments": tuple(Assignment(**given) for given in data["assignments"])})
