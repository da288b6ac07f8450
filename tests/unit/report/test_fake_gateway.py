"""The fake gateway keeps the contract of the real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evertune.domain.metrics import Point
from evertune.testing.gateway import Attempt, FakeGateway, GatewayContract


class TestFakeGateway(GatewayContract):
    @contextmanager
    def start_gateway(self, folder: Path) -> Iterator[str]:
        with FakeGateway() as self.gateway:
            yield self.gateway.url

    def open_attempt(self, trial: str) -> Attempt:
        return Attempt(trial, self.gateway.open_attempt(trial))

    def unknown_attempt(self, trial: str) -> Attempt:
        return Attempt(trial, self.gateway.token(trial))

    def end_attempt(self, attempt: Attempt) -> None:
        self.gateway.end_attempt(attempt.trial)

    def ask_to_stop(self, attempt: Attempt) -> None:
        self.gateway.ask_to_stop(attempt.trial)

    def pass_time(self, seconds: float) -> None:
        self.gateway.pass_time(seconds)

    def rotate_keys(self, *, retire: bool) -> None:
        self.gateway.rotate(retire=retire)

    def points(self, attempt: Attempt) -> list[Point]:
        return self.gateway.points(attempt.trial)
