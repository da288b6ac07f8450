"""The fake API server and a real one pass one contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes.api import Api
from evertune.testing.kubernetes import FakeCluster
from evertune.testing.kubernetes.contract import ApiServerContract


@pytest.fixture
async def fake_api(tmp_path: Path) -> AsyncIterator[Api]:
    async with FakeCluster(None) as kube:
        api = await Api.connect(kubeconfig=str(kube.kubeconfig(tmp_path / "kubeconfig")))
        yield api
        await api.close()


@pytest.fixture
async def real_api(api_cluster: Path) -> AsyncIterator[Api]:
    api = await Api.connect(kubeconfig=str(api_cluster))
    yield api
    await api.close()


class TestTheFake(ApiServerContract):
    @pytest.fixture
    def api(self, fake_api: Api) -> Api:
        return fake_api


@pytest.mark.cluster
class TestARealServer(ApiServerContract):
    @pytest.fixture
    def api(self, real_api: Api) -> Api:
        return real_api
