"""Whose pod shows a token: the cluster says it of the token (TokenReview), and the pod's labels name the attempt.

Called by the server, where EVERTUNE_POD_IDENTITY is account. Two requests for a token that nobody has asked about, the
second one only for a pod that is new here. It keeps no answer about a token, and decides nothing about reports: what a
pod may report is the gateway's business.

Trust ends at the namespace: who may create pods in one, or label them, can have a pod that names any attempt there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.discovery import POD, TOKEN_REVIEW

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
ACCOUNT = "system:serviceaccount:"
MAX_PODS = 5000  # remembered; what a pod runs does not change in its life
_MAX_NUMBER = 2**31 - 1  # every database's integer


class NotAcceptedError(Exception):
    """The cluster does not accept the token, or it is no pod's. The message is a clause, without the token."""


class NoAttemptError(Exception):
    """It is a pod's, and that pod runs no attempt of ours. The message is a sentence."""


@dataclass(frozen=True, slots=True)
class AttemptPod:
    """A pod and the attempt that its labels name."""

    namespace: str
    name: str
    uid: str
    experiment_uid: str
    number: int
    attempt: int
    database_id: str


class PodIdentities:
    """Of one cluster. Remembers pods, never tokens."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pods: OrderedDict[str, AttemptPod] = OrderedDict()

    async def of(self, token: str) -> AttemptPod:
        """The pod that `token` is bound to. Raises NotAcceptedError, NoAttemptError, ApiError, Unreachable."""
        namespace, name, uid = await self._bound_to(token)
        pod = self._pods.get(uid)
        if pod is None:
            pod = self._pods[uid] = await self._read(namespace, name, uid)
            if len(self._pods) > MAX_PODS:
                self._pods.popitem(last=False)
        return pod

    async def _bound_to(self, token: str) -> tuple[str, str, str]:
        """Namespace, name and uid of a pod that is there, or was until a moment ago."""
        body = {
            "apiVersion": TOKEN_REVIEW.api_version,
            "kind": TOKEN_REVIEW.kind,
            "spec": {"token": token, "audiences": [labels.AUDIENCE]},
        }
        status = (await self._api.call("POST", TOKEN_REVIEW.path(None), body=body)).get("status") or {}
        # Who knows nothing of audiences leaves them out: then the token may have been made for anybody.
        if not status.get("authenticated") or labels.AUDIENCE not in (status.get("audiences") or ()):
            raise NotAcceptedError("the cluster does not accept it")
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        who = str(user.get("username") or "")
        namespace, _, _ = who.removeprefix(ACCOUNT).partition(":")
        name, uid = ((extra.get(key) or [""])[0] for key in (POD_NAME, POD_UID))
        if not who.startswith(ACCOUNT) or not (namespace and name and uid):
            raise NotAcceptedError("it is not bound to a pod")
        return namespace, name, uid

    async def _read(self, namespace: str, name: str, uid: str) -> AttemptPod:
        try:
            metadata = (await self._api.call("GET", POD.path(namespace, name)))["metadata"]
        except ApiError as error:
            if error.status != 404:
                raise
            metadata = {}
        if metadata.get("uid") != uid:
            raise NotAcceptedError("its pod is gone")
        told = metadata.get("labels") or {}
        numbers = [str(told.get(label, "")) for label in (labels.TRIAL, labels.ATTEMPT)]
        ours = told.get(labels.MANAGED_BY) == labels.MANAGER and told.get(labels.EXPERIMENT)
        if not ours or not all(text.isdecimal() and int(text) <= _MAX_NUMBER for text in numbers):
            raise NoAttemptError(f"pod {name} in {namespace} is of no trial")
        number, attempt = map(int, numbers)
        return AttemptPod(
            namespace, name, uid, str(told[labels.EXPERIMENT]), number, attempt, str(told.get(labels.DATABASE, ""))
        )
