"""The real gateway keeps the contract that whoever sends reports relies on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from evertune.domain.metrics import Point
from evertune.domain.states import AttemptState, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, Ending
from evertune.server.app import Gateway
from evertune.testing.gateway import Attempt, GatewayContract
from evertune.testing.store.making import create, suggest
from evertune.tokens import Claims, TokenKeys
from tests.ports import free_port
from tests.server.conftest import World, in_thread, settings_in


class TestTheGateway(GatewayContract):
    @contextmanager
    def start_gateway(self, folder: Path) -> Iterator[str]:
        settings = settings_in(folder, server_port=free_port(), temporal_address="127.0.0.1:9")
        self.world = World(settings)
        self.claims: dict[Attempt, Claims] = {}
        self.now = time.time()  # its clock stands still but for `pass_time`, however long requests take
        with in_thread(settings, self.prepare) as self.gateway:
            yield f"http://127.0.0.1:{settings.server_port}"
        self.world.close()

    def prepare(self, gateway: Gateway) -> None:
        gateway.ingest.clock = lambda: self.now

    def open_attempt(self, trial: str) -> Attempt:
        # A trial of the name that is wanted: trials are called after their experiment, so each gets one.
        uid = create(self.world.store).uid
        (made,) = suggest(self.world.store, uid, 0, [Assignment({"layers": 1})])
        self.world.store.open_attempt(uid, made.number, 0, home_id="home-1", at=datetime.now(UTC))
        return self.attempt(Claims(uid, made.number, 0, trial))

    def attempt(self, claims: Claims) -> Attempt:
        attempt = Attempt(claims.trial, self.world.keys.mint(claims))
        self.claims[attempt] = claims
        return attempt

    def unknown_attempt(self, trial: str) -> Attempt:
        return self.attempt(Claims(self.world.uid, 7, 3, trial))

    def end_attempt(self, attempt: Attempt) -> None:
        claims = self.claims[attempt]
        end = AttemptEnd(AttemptState.SUCCEEDED, "Succeeded", ended=datetime.now(UTC))
        ending = Ending(end=end, trial_state=TrialState.SUCCEEDED, objective="0.5", objective_value=0.5)
        self.world.store.end_attempt(claims.experiment_uid, claims.number, claims.attempt, lambda _: ending)

    def ask_to_stop(self, attempt: Attempt) -> None:
        claims = self.claims[attempt]
        self.world.store.request_stop(claims.experiment_uid, {claims.number: claims.attempt}, "somebody wants it")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def rotate_keys(self, *, retire: bool) -> None:
        old, new = self.world.keys, TokenKeys({f"k{time.monotonic_ns()}": b"n" * 32})
        if not retire:
            new = TokenKeys(new._keys | old._keys)
        self.world.keys = self.gateway.ingest.keys = new

    def points(self, attempt: Attempt) -> list[Point]:
        claims = self.claims[attempt]
        return [
            point for _, point in self.world.store.points(claims.experiment_uid, claims.number, attempt=claims.attempt)
        ]
