"""Warnings of a namespace, for the sentences that only events hold: a quota that is used up, a volume that is missing.

Asked for by attempts that wait; however many, the API server is asked once in a few seconds. Without the right to list
events there are none, and the sentences are shorter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import EVENT
from evertune.protocols import JsonDict

FRESH_S = 3.0
REFUSED_S = 300.0
MOST = 500


class Warnings:
    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[float, Sequence[JsonDict]]] = {}
        self._asking: dict[tuple[str, str], asyncio.Lock] = {}

    async def of(self, api: Api, namespace: str) -> Sequence[JsonDict]:
        """The warnings that the API server still remembers; never raises for it."""
        key = api.server, namespace
        async with self._asking.setdefault(key, asyncio.Lock()):
            now = asyncio.get_running_loop().time()
            until, held = self._held.get(key, (0.0, ()))
            if now < until:
                return held
            fresh_s = FRESH_S
            try:
                query = {"fieldSelector": "type=Warning", "limit": str(MOST)}
                held = (await api.call("GET", EVENT.path(namespace), query=query)).get("items") or ()
            except ApiError as error:
                fresh_s = REFUSED_S if error.status in (401, 403) else FRESH_S
            self._held[key] = now + fresh_s, held
            return held
