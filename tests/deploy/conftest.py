"""A namespace of a real cluster for tests marked `cluster`: EVERTUNE_TEST_KUBECONFIG says which."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Namespace:
    kubeconfig: str
    name: str

    def kubectl(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--kubeconfig", self.kubeconfig, "--namespace", self.name, *words]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)

    def must(self, *words: str, given: str | None = None) -> str:
        done = self.kubectl(*words, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def soon(self, condition: Callable[[], object], what: str) -> None:
        """Controllers, and what the API server knows of roles and labels, come a moment after what was written."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"not within 60 s: {what}"
            time.sleep(0.2)


@pytest.fixture
def restricted() -> Iterator[Namespace]:
    """A new namespace that enforces the restricted profile, and warns of it for what makes pods later."""
    kubeconfig = os.environ.get("EVERTUNE_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("EVERTUNE_TEST_KUBECONFIG names no cluster")
    namespace = Namespace(kubeconfig, f"evertune-test-{os.urandom(4).hex()}")
    # Labelled from the start: of what is written later the API server hears a moment later.
    profile = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": profile}}
    namespace.must("create", "-f", "-", given=json.dumps(made))
    try:
        namespace.soon(lambda: "default" in namespace.must("get", "serviceaccounts", "-o", "name"), "its account")
        yield namespace
    finally:
        namespace.kubectl("delete", "namespace", namespace.name, "--wait=false")
