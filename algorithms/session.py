"""A session for any algorithm: its own, or one that keeps the history and hands over all of it each time."""

from __future__ import annotations

from collections.abc import Sequence

from evertune.domain.trial import HistoryTrial
from evertune.protocols import Algorithm, Answer, AskSession, HasSessions, JsonDict


def open_session(algorithm: Algorithm) -> AskSession:
    return algorithm.session() if isinstance(algorithm, HasSessions) else _WholeHistory(algorithm)


class _WholeHistory:
    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._history: dict[int, HistoryTrial] = {}

    def ask(self, changes: Sequence[HistoryTrial], k: int, first_number: int, state: JsonDict | None) -> Answer:
        self._history.update((trial.number, trial) for trial in changes)  # a new number is above all others
        return self._algorithm.ask(list(self._history.values()), k, first_number, state)
