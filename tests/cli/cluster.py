"""A fake cluster that other processes reach: its event loop has a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evertune.testing.kubernetes import FakeCluster
from evertune.testing.kubernetes.kubelet import ScriptOf


@contextmanager
def serving(kubeconfig: Path, script_of: ScriptOf | None = None) -> Iterator[FakeCluster]:
    """Writes the kubeconfig. Without a script there is no node."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake cluster")
    thread.start()
    kube = FakeCluster(script_of)
    try:
        asyncio.run_coroutine_threadsafe(kube.start(), loop).result(30)
        kube.kubeconfig(kubeconfig)
        yield kube
    finally:
        asyncio.run_coroutine_threadsafe(kube.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
