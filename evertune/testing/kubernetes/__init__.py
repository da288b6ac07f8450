"""A Kubernetes cluster for tests, in this process: an API server on HTTP, a Job controller, a kubelet of scripts.

For tests of what talks to Kubernetes. What it answers is compared with a real API server by `contract`.
"""

from __future__ import annotations

from evertune.testing.kubernetes import misfortunes
from evertune.testing.kubernetes.cluster import FakeCluster
from evertune.testing.kubernetes.faults import FOR_EVER, Fault
from evertune.testing.kubernetes.misfortunes import Misfortune
from evertune.testing.kubernetes.objects import Kind, Refused
from evertune.testing.kubernetes.server import FakeKube
from evertune.testing.kubernetes.store import Store

__all__ = ["FOR_EVER", "FakeCluster", "FakeKube", "Fault", "Kind", "Misfortune", "Refused", "Store", "misfortunes"]
