"""A namespace of a real cluster for tests marked `cluster`: EVERTUNE_TEST_KUBECONFIG says which."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
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


@pytest.fixture
def restricted() -> Iterator[Namespace]:
    """A new namespace that enforces the restricted profile, and warns of it for what makes pods later."""
    kubeconfig = os.environ.get("EVERTUNE_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("EVERTUNE_TEST_KUBECONFIG names no cluster")
    namespace = Namespace(kubeconfig, f"evertune-test-{os.urandom(4).hex()}")
    namespace.must("create", "namespace", namespace.name)
    try:
        profile = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        namespace.must("label", "namespace", namespace.name, *profile)
        yield namespace
    finally:
        namespace.kubectl("delete", "namespace", namespace.name, "--wait=false")
