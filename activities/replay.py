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
    """The first difference. `trial` is None when the numbers of trials differ, `parameter` when their names do."""

    request_no: int
    trial: int | None
    parameter: str | None
    stored: object
    recomputed: object

    def __str__(self) -> str:
        if self.trial is None:
            return f"request {self.request_no}: {self.stored} trials are stored, {self.recomputed} were recomputed"
        what = f"the parameter {self.parameter}" if self.parameter is not None else "the names of the parameters"
        return (
            f"trial {self.trial} (request {self.request_no}): {what}:"
            f" stored {self.stored!r}, recomputed {self.recomputed!r}"
        )


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
    for trial, assignment in zip(stored, answer.assignments, strict=False):
        for parameter, ours, theirs in _differences(trial.parameters, assignment.parameters):
            return Divergence(
                request_no=request.request_no,
                trial=trial.number,
                parameter=parameter,
                stored=ours,
                recomputed=theirs,
            )
    if len(stored) != len(answer.assignments):
        return Divergence(
            request_no=request.request_no,
            trial=None,
            parameter=None,
            stored=len(stored),
            recomputed=len(answer.assignments),
        )
    return None


def _differences(
    stored: Mapping[str, Value], recomputed: Mapping[str, Value]
) -> Iterator[tuple[str | None, object, object]]:
    if set(stored) != set(recomputed):
        yield None, sorted(stored), sorted(recomputed)
        return
    for name, value in stored.items():
        # repr tells 1 from 1.0 and -0.0 from 0.0; identical means bit for bit.
        if repr(value) != repr(recomputed[name]):
            yield name, value, recomputed[name]


def _as_stored(state: JsonDict | None) -> JsonDict | None:
    found: JsonDict | None = json.loads(json.dumps(state))
    return found
