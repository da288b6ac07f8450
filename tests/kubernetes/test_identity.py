"""Which attempt's pod a token is of, as a fake and a real API server say it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api
from activities.runners.kubernetes.discovery import POD
from activities.runners.kubernetes.identity import NoAttemptError, NotAcceptedError, PodIdentities
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict
from evertune.testing.kubernetes import FakeKube
from evertune.testing.kubernetes.calling import Caller, WithNamespace, a_pod, until, with_account

REF = AttemptRef("0123456789abcdef0123456789abcdef", 7, 2, "exp-7")


async def pod_of(api: Api, namespace: str, name: str = "one", **told: str) -> JsonDict:
    body = a_pod(name, labels={**labels.owned(REF, "db"), **told})
    return await api.call("POST", POD.path(namespace), body=body)


async def token_of(api: Api, pod: JsonDict | None, namespace: str, audience: str = labels.AUDIENCE) -> str:
    """As the kubelet asks for it, as soon as the namespace has its account."""
    asked: JsonDict = {"audiences": [audience], "expirationSeconds": 600}
    if pod is not None:
        meta = pod["metadata"]
        asked["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    found: list[Any] = []

    async def made() -> bool:
        try:
            found.append(await api.call("POST", path, body={"spec": asked}))
        except Exception as error:
            if 'serviceaccounts "default" not found' not in str(error):
                raise
        return bool(found)

    await until(made)
    return str(found[0]["status"]["token"])


class Identities(WithNamespace):
    async def test_a_token_gives_the_attempt_that_its_pods_labels_name(self, api: Api, namespace: str) -> None:
        pod = await pod_of(api, namespace)
        found = await PodIdentities(api).of(await token_of(api, pod, namespace))
        assert (found.namespace, found.name, found.uid) == (namespace, "one", pod["metadata"]["uid"])
        assert (found.experiment_uid, found.number, found.attempt) == (REF.experiment_uid, REF.number, REF.attempt)
        assert found.database_id == "db"

    async def test_a_token_for_the_api_server_or_of_no_pod_is_not_accepted(self, api: Api, namespace: str) -> None:
        pod = await pod_of(api, namespace)
        identities = PodIdentities(api)
        with pytest.raises(NotAcceptedError, match="the cluster does not accept it"):
            await identities.of(await token_of(api, pod, namespace, "https://kubernetes.default.svc"))
        with pytest.raises(NotAcceptedError, match="it is not bound to a pod"):
            await identities.of(await token_of(api, None, namespace))
        with pytest.raises(NotAcceptedError, match="the cluster does not accept it"):
            await identities.of("eyJ.made.up")

    async def test_a_pod_that_is_not_ours_has_no_attempt(self, api: Api, namespace: str) -> None:
        pod = await pod_of(api, namespace, **{labels.MANAGED_BY: "me"})
        with pytest.raises(NoAttemptError, match=rf"pod one in {namespace} is of no trial"):
            await PodIdentities(api).of(await token_of(api, pod, namespace))

    async def test_a_pod_that_took_the_name_of_another_is_not_taken_for_it(self, api: Api, namespace: str) -> None:
        pod = await pod_of(api, namespace)
        token = await token_of(api, pod, namespace)
        await PodIdentities(api).of(token)  # the server will take the token for good some seconds longer
        await api.call("DELETE", POD.path(namespace, "one"), query={"gracePeriodSeconds": "0"})
        await pod_of(api, namespace, **{labels.TRIAL: "8"})
        with pytest.raises(NotAcceptedError, match="its pod is gone"):
            await PodIdentities(api).of(token)


class TestOnTheFake(Identities):
    @pytest.fixture
    async def api(self, tmp_path: Path) -> AsyncIterator[Api]:
        async with FakeKube() as self.kube:
            self.kube.tokens.remember_s = 10.0
            api = await Api.connect(kubeconfig=str(self.kube.kubeconfig(tmp_path / "kubeconfig")))
            yield api
            await api.close()

    async def test_an_authenticator_that_knows_no_audiences_vouches_for_nobody(self, api: Api, namespace: str) -> None:
        self.kube.tokens.knows_audiences = False
        pod = await pod_of(api, namespace)
        for audience in (labels.AUDIENCE, "https://kubernetes.default.svc"):
            with pytest.raises(NotAcceptedError, match="the cluster does not accept it"):
                await PodIdentities(api).of(await token_of(api, pod, namespace, audience))


@pytest.mark.cluster
class TestOnARealCluster(Identities):
    @pytest.fixture
    async def api(self, api_cluster: Path) -> AsyncIterator[Api]:
        api = await Api.connect(kubeconfig=str(api_cluster))
        yield api
        await api.close()

    async def furnished(self, api: Caller, namespace: str) -> None:
        await with_account(api, namespace)
