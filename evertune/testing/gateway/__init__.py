"""The ingest gateway for tests: the contract that every gateway passes, and one in memory that can be made to fail."""

from __future__ import annotations

from evertune.testing.gateway.contract import Attempt, GatewayContract
from evertune.testing.gateway.fake import FakeGateway

__all__ = ["Attempt", "FakeGateway", "GatewayContract"]
