"""`verify_replay`: asks every committed request again and compares with the stored trials.

For `evertune replay NAME --verify`. The history is read at each request's own cut; sessions and the algorithm's state
are carried from answer to answer, never read: what is compared is the recomputed sequence against the recorded one.
Reads only. Refuses nothing: a difference is a finding, not an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from activities.asks import AskJob, Asks
from activities.problems import changed_libraries
from evertune.domain.records import RequestRecord, TrialRecord
from evertune.domain.space import Value
from evertune.protocols import Answer, JsonDict
from evertune.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first trial that differs. `stored` is None where there is none, `recomputed` where none is suggested now."""

    request_no: int
    trial: int
    stored: Mapping[str, Value] | None
    recomputed: Mapping[str, Value] | None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of those that differ, of a trial that there is and was."""
        stored, recomputed = self.stored or {}, self.recomputed or {}
        return tuple(name for name in {**stored, **recomputed} if _exact(stored, name) != _exact(recomputed, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was compared, up to the first divergence."""

    requests: int
    trials: int
    divergence: Divergence | None = None
    versions: str = ""  # libraries that are others than those that gave the answers: then a difference proves nothing

    @property
    def identical(self) -> bool:
        return self.divergence is None


def replayed(store: Store, uid: str) -> Iterator[tuple[RequestRecord, Sequence[TrialRecord], Answer]]:
    """Each committed request, its stored trials, and its answer asked again.

    Raises AlgorithmError when the algorithm cannot be asked again, NotFoundError for an unknown uid.
    """
    asks = Asks(store, verifying=True)
    states: dict[int, JsonDict | None] = {}  # by revision: an edit starts a new stream
    for request in store.requests(uid):
        if not request.committed:
            continue
        job = AskJob(
            uid=uid,
            request_no=request.request_no,
            k=request.k,
            first_number=request.first_number,
            cut=request.cut,
            revision=request.revision,
        )
        with threadpool_limits(limits=1):  # as in the ask process; libraries are loaded by the first, empty history
            answer = asks.answer_from(job, states.get(request.revision))
        states[request.revision] = _as_stored(answer.state)
        yield request, store.trials_of_request(uid, request.request_no), answer


def verify_replay(store: Store, uid: str) -> Replay:
    """Raises as `replayed`."""
    requests = trials = 0
    for request, stored, answer in replayed(store, uid):
        divergence = _compare(request, stored, answer)
        if divergence is not None:
            versions = changed_libraries(store.experiment_by_uid(uid))
            return Replay(requests=requests, trials=trials, divergence=divergence, versions=versions)
        requests += 1
        trials += len(stored)
    return Replay(requests=requests, trials=trials)


def _compare(request: RequestRecord, stored: Sequence[TrialRecord], answer: Answer) -> Divergence | None:
    was = {trial.number: trial.parameters for trial in stored}
    now = {request.first_number + index: given.parameters for index, given in enumerate(answer.assignments)}
    for number in sorted({*was, *now}):
        found = Divergence(
            request_no=request.request_no, trial=number, stored=was.get(number), recomputed=now.get(number)
        )
        if found.stored is None or found.recomputed is None or found.parameters:
            return found
    return None


def _exact(values: Mapping[str, Value], name: str) -> str:
    """Tells 1 from 1.0 and -0.0 from 0.0: identical means bit for bit."""
    return repr(values[name]) if name in values else ""


def _as_stored(state: JsonDict | None) -> JsonDict | None:
    found: JsonDict | None = json.loads(json.dumps(state))
    return found
