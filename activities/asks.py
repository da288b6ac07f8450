"""Answers asks from the store: history in, assignments out. Runs in the ask process, or in a worker's thread.

Keeps one session per experiment, so that a warm ask reads only what changed since the last one. A kept session is used
only if the database went on exactly from its last answer; anything else (a retry, another worker's answer, an edit)
rebuilds it, which gives the same sequence.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from activities import problems
from activities.problems import problem_of
from algorithms.base import Session, SessionAlgorithm
from algorithms.registry import create
from evertune.domain.trial import HistoryTrial
from evertune.errors import AlgorithmError, EvertuneError
from evertune.protocols import Algorithm, Answer, JsonDict
from evertune.store import Store

KEPT_SESSIONS = 8  # experiments; 5,000 trials of five parameters are about 30 MB of library objects
KEPT_ALGORITHMS = 64


@dataclass(frozen=True)
class AskJob:
    """One ask: which request, how many, and the history cut it must see."""

    uid: str
    request_no: int
    k: int
    first_number: int
    cut: int
    revision: int = 1


@dataclass
class _Kept:
    session: Session
    algorithm: object  # that of another revision, or of other libraries, is another one
    cut: int = 0  # the last one it has seen
    known: int = 0  # it has been told of all trials below this number
    next_number: int = 0  # the one after its last answer
    request_no: int = -1  # of its last answer


class Asks:
    """One ask at a time, whichever thread it comes from. `verifying`: nothing is written."""

    def __init__(self, store: Store, *, verifying: bool = False) -> None:
        self._store = store
        self._verifying = verifying
        self._sessions: OrderedDict[str, _Kept] = OrderedDict()
        self._algorithms: OrderedDict[tuple[str, int, bool], Algorithm] = OrderedDict()
        self._independent: OrderedDict[str, int | None] = OrderedDict()  # by uid, from which request on
        self._lock = threading.Lock()

    def answer(self, job: AskJob) -> Answer:
        """Raises AlgorithmError when the algorithm cannot go on, UnavailableError when the database is away."""
        with self._lock:
            needs_state = self._algorithm(job).reads_history
            state = self._store.algorithm_state(job.uid, job.request_no) if needs_state else None
            return self.answer_from(job, state)

    def warm(self, uid: str) -> None:
        """Load the libraries of this experiment's algorithm. Raises as `answer`, and answers nothing."""
        with self._lock:
            record = self._store.experiment_by_uid(uid)
            algorithm = create(record.algorithm, problem_of(record))
            if isinstance(algorithm, SessionAlgorithm):
                algorithm.session()

    def answer_from(self, job: AskJob, state: JsonDict | None) -> Answer:
        """The answer, given the algorithm's state instead of reading it. Not for two threads at once."""
        algorithm = self._algorithm(job)
        answer = self._asked(job, algorithm, state)
        given = len(answer.assignments)
        if given > job.k:
            raise AlgorithmError(f"{algorithm.name} gave {given} assignments where {job.k} were asked")
        if not given and not answer.wait and not answer.exhausted:  # it would be asked again at once, and for ever
            raise AlgorithmError(f"{algorithm.name} gave nothing for trial {job.first_number} and does not say why")
        return answer

    def _asked(self, job: AskJob, algorithm: Algorithm, state: JsonDict | None) -> Answer:
        try:
            if isinstance(algorithm, SessionAlgorithm):
                return self._from_session(job, algorithm, state)
            history = self._history(job) if algorithm.reads_history else []
            return algorithm.ask(history, job.k, job.first_number, state)
        except EvertuneError:
            raise
        except Exception as error:  # a library's own failure: the experiment ends with its words
            raise AlgorithmError(f"{algorithm.name} failed: {type(error).__name__}: {error}") from error

    def _from_session(self, job: AskJob, algorithm: SessionAlgorithm, state: JsonDict | None) -> Answer:
        kept = self._sessions.pop(job.uid, None)  # put back only after success: a failed session is not to be trusted
        revised = self._store.last_revision(job.uid) if algorithm.reads_history else 0
        goes_on = (
            kept is not None
            and not kept.cut < revised <= job.cut  # a verdict that the session knows was revised
            and kept.request_no < job.request_no
            and kept.next_number == job.first_number
            and kept.cut <= job.cut
            and kept.algorithm is algorithm
        )
        if kept is None or not goes_on:
            kept = _Kept(algorithm.session(), algorithm)
        if algorithm.reads_history:
            kept.session.update(
                self._store.history_since(
                    job.uid, after=kept.cut, from_number=kept.known, cut=job.cut, first_number=job.first_number
                )
                if kept.request_no >= 0
                else self._history(job)
            )
        answer = kept.session.ask(job.k, job.first_number, state)
        kept.request_no, kept.cut, kept.known = job.request_no, job.cut, job.first_number
        kept.next_number = job.first_number + len(answer.assignments)
        self._sessions[job.uid] = kept
        if len(self._sessions) > KEPT_SESSIONS:
            self._sessions.popitem(last=False)
        return answer

    def _history(self, job: AskJob) -> list[HistoryTrial]:
        """The whole history, with the trials of others that the experiment began with."""
        own = self._store.history(job.uid, cut=job.cut, first_number=job.first_number)
        record = self._store.experiment_by_uid(job.uid)
        if problems.WARM_START not in record.context:
            return own
        return [*problems.known_before(self._store, record, problems.problem_of(record)), *own]

    def _algorithm(self, job: AskJob) -> Algorithm:
        independent = self._is_independent(job)
        key = (job.uid, job.revision, independent)
        if key not in self._algorithms:
            record = self._store.experiment_by_uid(job.uid)
            try:
                self._algorithms[key] = create(
                    record.algorithm, problems.asked_problem(self._store, record, independent=independent)
                )
            except EvertuneError:
                raise
            except Exception as error:
                message = f"{record.algorithm} cannot be set up: {type(error).__name__}: {error}"
                raise AlgorithmError(message) from error
            if len(self._algorithms) > KEPT_ALGORITHMS:
                self._algorithms.popitem(last=False)
        return self._algorithms[key]

    def _is_independent(self, job: AskJob) -> bool:
        if job.uid not in self._independent:
            self._independent[job.uid] = (
                problems.independent_from(self._store, job.uid)
                if self._verifying
                else problems.note_changes(self._store, job.uid, job.request_no)
            )
            if len(self._independent) > KEPT_ALGORITHMS:
                self._independent.popitem(last=False)
        since = self._independent[job.uid]
        return since is not None and job.request_no >= since
