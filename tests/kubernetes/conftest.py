"""Clusters for tests: a real one, when EVERTUNE_TEST_KUBECONFIG names its kubeconfig."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workflow.conftest import binary, temporal_address

__all__ = ["binary", "temporal_address"]

KUBECONFIG = "EVERTUNE_TEST_KUBECONFIG"
LEVEL = "EVERTUNE_TEST_KUBE_LEVEL"


@pytest.fixture(scope="session")
def api_cluster() -> Path:
    """The kubeconfig of a cluster with an API server and the controllers of Kubernetes; perhaps there is no node."""
    named = os.environ.get(KUBECONFIG)
    if not named:
        pytest.skip(f"set {KUBECONFIG} to the kubeconfig of a cluster that tests may fill and empty")
    path = Path(named).expanduser()
    if not path.exists():
        pytest.fail(f"{KUBECONFIG} names {path}, which is not there")
    return path


@pytest.fixture(scope="session")
def full_cluster(api_cluster: Path) -> Path:
    """The kubeconfig of a cluster that runs pods."""
    if os.environ.get(LEVEL, "api") != "full":
        pytest.skip(f"set {LEVEL}=full for a cluster that runs pods")
    return api_cluster


@pytest.fixture(scope="session")
def nodeless_cluster(api_cluster: Path) -> Path:
    """The kubeconfig of a cluster whose pods nobody runs, for tests that play the kubelet."""
    if os.environ.get(LEVEL, "api") == "full":
        pytest.skip(f"this test plays the kubelet, and a real one would play against it: {LEVEL}=api")
    return api_cluster
