"""Tokens of ServiceAccounts, and what an API server says of them, as a test suite: the fake passes it, and so does a
real one. Subclass `TokenContract` as `Test…` with the fixture `api`, as for `contract`."""

from __future__ import annotations

from typing import Any

from evertune.testing.kubernetes.calling import PODS, Caller, WithNamespace, a_pod, refused, until
from evertune.testing.kubernetes.objects import JsonDict

AUDIENCE = "contract.evertune.io"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


class TokenContract(WithNamespace):
    async def test_a_token_that_is_bound_to_a_pod_names_it(self, api: Caller, namespace: str) -> None:
        pod = await api.call("POST", PODS.format(namespace), body=a_pod("one"))
        answer = await _requested(api, namespace, pod=pod)
        assert answer["spec"]["expirationSeconds"] == 600
        token = answer["status"]["token"]
        assert token.startswith("eyJ")
        assert len(token.split(".")) == 3
        status = await _review(api, token)
        assert status["authenticated"] is True
        assert status["audiences"] == [AUDIENCE]
        assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"
        extra = status["user"]["extra"]
        assert extra["authentication.kubernetes.io/pod-name"] == ["one"]
        assert extra["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]

    async def test_each_token_is_another_one_and_all_are_good(self, api: Caller, namespace: str) -> None:
        pod = await api.call("POST", PODS.format(namespace), body=a_pod("one"))
        tokens = {(await _requested(api, namespace, pod=pod))["status"]["token"] for _ in range(2)}
        assert len(tokens) == 2
        assert all([(await _review(api, token))["authenticated"] for token in tokens])

    async def test_a_token_is_good_for_its_audience_only(self, api: Caller, namespace: str) -> None:
        pod = await api.call("POST", PODS.format(namespace), body=a_pod("one"))
        mine = (await _requested(api, namespace, pod=pod))["status"]["token"]
        status = await _review(api, mine, "other.example")
        assert not status.get("authenticated")
        assert (
            f'token audiences ["{AUDIENCE}"] is invalid for the target audiences ["other.example"]' in status["error"]
        )
        usual = (await _requested(api, namespace, pod=pod, audiences=[]))["status"]["token"]
        assert not (await _review(api, usual)).get("authenticated")

    async def test_what_was_not_made_here_is_not_accepted(self, api: Caller, namespace: str) -> None:
        pod = await api.call("POST", PODS.format(namespace), body=a_pod("one"))
        token = (await _requested(api, namespace, pod=pod))["status"]["token"]
        for other in ("garbage", f"{token[:-6]}AAAAAA"):
            status = await _review(api, other)
            assert not status.get("authenticated")
            assert "invalid bearer token" in status["error"]
        await refused(_review(api, ""), 400, "BadRequest", "token is required")

    async def test_a_token_that_is_bound_to_nothing_names_no_pod(self, api: Caller, namespace: str) -> None:
        status = await _review(api, (await _requested(api, namespace))["status"]["token"])
        assert status["authenticated"] is True
        assert not [key for key in status["user"].get("extra", ()) if "pod" in key]

    async def test_the_token_of_a_pod_that_is_gone_is_soon_not_accepted(self, api: Caller, namespace: str) -> None:
        path = PODS.format(namespace)
        pod = await api.call("POST", path, body=a_pod("one"))
        token = (await _requested(api, namespace, pod=pod))["status"]["token"]
        assert (await _review(api, token))["authenticated"] is True
        await api.call("DELETE", f"{path}/one", query={"gracePeriodSeconds": "0"})
        await api.call("POST", path, body=a_pod("one"))  # of the same name, and another one

        async def gone() -> bool:
            return not (await _review(api, token)).get("authenticated")

        await until(gone)

    async def test_a_token_is_asked_for_a_pod_that_is_there(self, api: Caller, namespace: str) -> None:
        pod = await api.call("POST", PODS.format(namespace), body=a_pod("one"))
        await _requested(api, namespace, pod=pod)
        nobody: JsonDict = {"metadata": {**pod["metadata"], "name": "none"}}
        other: JsonDict = {"metadata": {**pod["metadata"], "uid": "none"}}
        await refused(_token(api, namespace, pod=nobody), 404, "NotFound", 'pods "none" not found')
        await refused(_token(api, namespace, pod=other), 409, "Conflict", "does not match the UID in record")
        await refused(_token(api, namespace, account="none"), 404, "NotFound", 'serviceaccounts "none" not found')
        await refused(_token(api, namespace, seconds=60), 422, "Invalid", "less than 10 minutes")


async def _requested(api: Caller, namespace: str, **asked: Any) -> JsonDict:
    """A TokenRequest that succeeds, as soon as the namespace has its account."""
    found: list[JsonDict] = []

    async def made() -> bool:
        try:
            found.append(await _token(api, namespace, **asked))
        except Exception as error:
            if 'serviceaccounts "default" not found' not in str(error):
                raise
        return bool(found)

    await until(made)
    return found[0]


async def _token(
    api: Caller, namespace: str, *, pod: JsonDict | None = None, account: str = "default", seconds: int = 600,
    audiences: list[str] | None = None,
) -> JsonDict:  # fmt: skip
    asked: JsonDict = {"audiences": [AUDIENCE] if audiences is None else audiences, "expirationSeconds": seconds}
    if pod is not None:
        meta = pod["metadata"]
        asked["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": asked}
    return await api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body=body)


async def _review(api: Caller, token: str, audience: str = AUDIENCE) -> JsonDict:
    spec = {"token": token, "audiences": [audience]}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    status: JsonDict = (await api.call("POST", REVIEWS, body=body))["status"]
    return status
