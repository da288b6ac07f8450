"""What the built-in algorithms share: sessions that a warm process may keep, and the checks of settings.

A session is an algorithm's working memory for one experiment. `ask` of the protocol is a new session fed with the whole
history, so what a kept session answers is by construction what a rebuilt one would: both run the same code.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol, runtime_checkable

from algorithms.space import Codec
from evertune.domain.metrics import ObjectiveType
from evertune.domain.space import SearchProblem, SearchSpace
from evertune.domain.states import TrialState
from evertune.domain.trial import Assignment, HistoryTrial
from evertune.protocols import LEARNED, Answer, Feature, JsonDict


class Session(Protocol):
    def update(self, trials: Iterable[HistoryTrial]) -> None:
        """Take trials that are new or have changed, by ascending number, those of its own answers included."""
        ...

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        """As `Algorithm.ask`. From then on the session takes its answer as given: when that was not committed, the
        session must be thrown away."""
        ...


@runtime_checkable
class RefusingSession(Session, Protocol):
    """Of algorithms that need not be helped out by chance: what they give may be refused."""

    def refuse(self, number: int) -> None:
        """What was just given for trial `number`, the last of the answer, cannot be run.

        The next ask is for the same number, with the state of the refused answer, and is to give something else: the
        same one after the same refusals. Asks for later numbers do not depend on them, but through the state.
        """
        ...


class ConstantSession:
    """For a space where every parameter has one value: the libraries refuse a space without dimensions."""

    def __init__(self, space: SearchSpace) -> None:
        self._assignment = Assignment(Codec.of(space).decode({}))

    def update(self, trials: Iterable[HistoryTrial]) -> None:
        pass

    def ask(self, k: int, first_number: int, state: JsonDict | None) -> Answer:
        return Answer(assignments=(self._assignment,) * k)


class SessionAlgorithm:
    """Base of algorithms that work through sessions. Subclasses define `search`."""

    reads_history: ClassVar[bool]
    supports: ClassVar[frozenset[Feature]] = LEARNED
    handles: ClassVar[frozenset[Feature]] = frozenset()

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem

    def search(self) -> Session:
        """A new session of the library, for a space with at least one dimension."""
        raise TypeError(f"{type(self).__name__} must define search()")

    def session(self) -> Session:
        return self.search() if Codec.of(self.problem.space).free else ConstantSession(self.problem.space)

    def ask(self, history: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        session = self.session()
        session.update(sorted(history, key=lambda trial: trial.number))
        return session.ask(k, first_number, state)


def loss_of(trial: HistoryTrial, direction: ObjectiveType) -> float | None:
    """The value to be minimised, None when the trial has none to tell: running, failed, or not a finite number.

    As in Katib a trial that was stopped early tells its last value, and one that was killed does not: somebody
    stopped it for a reason that is not the search's.
    """
    if trial.state not in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED):
        return None
    if trial.value is None or not math.isfinite(trial.value):
        return None
    return -trial.value if direction is ObjectiveType.MAXIMIZE else trial.value


class Failures:
    """`onFailure: worst`: a trial that failed by itself is told as one that succeeded with the worst value so far.

    So far: of those told before it, and of a warm start. The order of the told trials decides, never that of the calls,
    so that one who is told everything at once comes to the same. Without any value yet a failure stays one.
    """

    def __init__(self, directions: Sequence[ObjectiveType]) -> None:
        self._signs = [-1.0 if direction is ObjectiveType.MAXIMIZE else 1.0 for direction in directions]
        self._seqs: list[int] = []
        self._worst: list[list[float | None]] = []  # after each of them, per objective, to be minimised

    def told(self, trials: Iterable[HistoryTrial]) -> list[HistoryTrial]:
        """The trials as they are to be told. Those told up to the same point of the order must come together."""
        batch = list(trials)
        ended = [trial for trial in batch if trial.state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED)]
        for trial in sorted(ended, key=lambda trial: trial.told_seq or 0):
            self._add(trial)
        return [self._as_worst(trial) if trial.state.counts_as_failed else trial for trial in batch]

    def _add(self, trial: HistoryTrial) -> None:
        nothing: list[float | None] = [None] * len(self._signs)
        worst = list(self._worst[-1]) if self._worst else nothing
        for index, (value, sign) in enumerate(zip(trial.values or (trial.value,), self._signs, strict=False)):
            if value is not None and math.isfinite(value):
                known = worst[index]
                worst[index] = sign * value if known is None else max(known, sign * value)
        self._seqs.append(trial.told_seq or 0)
        self._worst.append(worst)

    def _as_worst(self, trial: HistoryTrial) -> HistoryTrial:
        before = bisect_left(self._seqs, trial.told_seq or 0)
        losses = self._worst[before - 1] if before else []
        values = [sign * loss for sign, loss in zip(self._signs, losses, strict=False) if loss is not None]
        if not values or len(values) < len(self._signs):
            return trial
        several = tuple(values) if len(values) > 1 else ()
        return replace(trial, state=TrialState.SUCCEEDED, value=values[0], values=several)
