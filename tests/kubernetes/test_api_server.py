"""The fake API server and its controllers pass the contract that a real control plane passes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes.api import Api
from evertune.testing.kubernetes import FakeCluster, misfortunes
from evertune.testing.kubernetes.calling import PODS, Caller, a_pod, with_account
from evertune.testing.kubernetes.contract import ApiServerContract
from evertune.testing.kubernetes.contract_jobs import JobControllerContract
from evertune.testing.kubernetes.contract_tokens import TokenContract
from evertune.testing.kubernetes.contract_training import TrainingOperatorContract


class OnTheFake:
    """Level `api`: a server and controllers, no node."""

    @pytest.fixture
    async def api(self, tmp_path: Path) -> AsyncIterator[Api]:
        async with FakeCluster(None, bookmark_every_s=0.2) as self.kube:
            api = await Api.connect(kubeconfig=str(self.kube.kubeconfig(tmp_path / "kubeconfig")))
            yield api
            await api.close()


class OnARealCluster:
    @pytest.fixture
    async def api(self, api_cluster: Path) -> AsyncIterator[Api]:
        api = await Api.connect(kubeconfig=str(api_cluster))
        yield api
        await api.close()

    async def furnished(self, api: Caller, namespace: str) -> None:
        await with_account(api, namespace)


class TestTheFakeServer(OnTheFake, ApiServerContract):
    def forget(self) -> None:
        self.kube.compact()


class TestTheFakeJobController(OnTheFake, JobControllerContract):
    async def refuse_pods(self, api: Caller, namespace: str) -> None:
        self.kube.store.admission.append(misfortunes.quota_exceeded(quota="none"))


class TestTheTokensOfTheFakeServer(OnTheFake, TokenContract):
    async def test_a_token_expires(self, api: Caller, namespace: str) -> None:
        pod = await api.call("POST", PODS.format(namespace), body=a_pod("one"))
        token = self.kube.tokens.bound(pod, audience="here", seconds=600)
        asked = {"spec": {"token": token, "audiences": ["here"]}}
        assert self.kube.tokens.review(asked)["status"]["authenticated"] is True
        later = time.time() + 600
        self.kube.tokens.clock = lambda: later
        status = self.kube.tokens.review(asked)["status"]
        assert "authenticated" not in status
        assert "service account token has expired" in status["error"]


class TestTheFakeTrainingOperator(OnTheFake, TrainingOperatorContract):
    pass


@pytest.mark.cluster
class TestARealServer(OnARealCluster, ApiServerContract):
    pass


@pytest.mark.cluster
class TestARealJobController(OnARealCluster, JobControllerContract):
    pass


@pytest.mark.cluster
class TestTheTokensOfARealServer(OnARealCluster, TokenContract):
    pass


@pytest.mark.cluster
class TestARealTrainingOperator(OnARealCluster, TrainingOperatorContract):
    @pytest.fixture(autouse=True)
    def no_nodes(self, nodeless_cluster: Path) -> None:
        pass
