"""The workflow tests' Temporal server and home, and an Experiment object as an API server would keep it."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from evertune.kubectl.controller import Controller, Event, Memory
from evertune.kubectl.objects import FINALIZER, Object
from tests.workflow.conftest import binary, house, temporal_address
from tests.workflow.harness import manifest

__all__ = ["binary", "house", "temporal_address"]


@dataclass
class Thing:
    """What kubectl, the API server and kopf do to one object, as far as the controller can tell."""

    body: dict[str, Any]
    memory: Memory = field(default_factory=Memory)
    events: list[Event] = field(default_factory=list)

    @classmethod
    def of(cls, document: dict[str, Any]) -> Thing:
        metadata = {
            "namespace": "default",
            **document["metadata"],
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "finalizers": [FINALIZER],
        }
        return cls({**document, "apiVersion": "evertune.io/v1alpha1", "metadata": metadata})

    @property
    def seen(self) -> Object:
        return Object(dict(self.body))

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.body.setdefault("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = [one for one in self.status.get("conditions", []) if one["type"] == kind]
        return found[0] if found else {}

    def edit(self, **spec: Any) -> None:
        self.body["spec"] = {**self.body["spec"], **spec}
        self.body["metadata"]["generation"] += 1

    async def look(self, controller: Controller) -> None:
        self.memory.next_look = 0.0
        outcome = await controller.observe(self.seen, self.memory)
        self.status.update(outcome.status)
        self.events += outcome.events

    async def until(self, controller: Controller, state: str, timeout_s: float = 60) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self.status.get("state") != state:
            assert loop.time() < end, f"{self.status.get('state')} instead of {state}: {self.status}"
            await asyncio.sleep(0.1)
            await self.look(controller)

    def forget(self) -> None:
        """As when the operator was killed: only what is in the object is left."""
        self.memory = Memory()


@pytest.fixture
def experiment() -> dict[str, Any]:
    return manifest("from-kubectl")
