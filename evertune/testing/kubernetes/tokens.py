"""Tokens of ServiceAccounts, as the fake API server makes them (TokenRequest) and judges them (TokenReview).

Called by `server`, and by tests that play the kubelet of a projected volume. `Tokens.clock` may be moved, so that
tokens expire. Tokens are JWTs in form; nobody but the server that made one can tell whether it is good.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from evertune.testing.kubernetes.objects import JsonDict, Kind, Refused
from evertune.testing.kubernetes.store import Store

REVIEWS = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False, status=False)
OWN = "https://kubernetes.default.svc"  # the audience of a token that names none
SHORTEST_S = 600
_EXTRA = "authentication.kubernetes.io/"


class Tokens:
    def __init__(self, store: Store) -> None:
        self.clock = time.time
        self.remember_s = 0.0  # so long a token stays good when its pod is gone; a real server's is 10 s
        self.knows_audiences = True  # not so where a webhook authenticates that has never heard of them
        self._store = store
        self._key = secrets.token_bytes(32)
        self._accepted: dict[str, float] = {}

    def bound(self, pod: JsonDict, *, audience: str, seconds: int = 3600) -> str:
        """What the kubelet would write into the pod's projected volume."""
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        reference = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
        asked = {"audiences": [audience], "expirationSeconds": seconds, "boundObjectRef": reference}
        token: str = self.request(meta["namespace"], account, {"spec": asked})["status"]["token"]
        return token

    def request(self, namespace: str, account: str, body: JsonDict) -> JsonDict:
        """The answer to a TokenRequest. Raises Refused."""
        if account != "default":
            self._store.get("serviceaccounts", namespace, account)
        asked: JsonDict = body.get("spec") or {}
        seconds = int(asked.get("expirationSeconds") or 3600)
        if seconds < SHORTEST_S:
            raise Refused(
                422,
                f'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: {seconds}: '
                "may not specify a duration less than 10 minutes",
            )
        audiences = asked.get("audiences") or [OWN]
        claims: JsonDict = {"aud": audiences, "exp": self.clock() + seconds, "ns": namespace, "account": account}
        if (reference := asked.get("boundObjectRef")) is not None:
            pod = self._store.get("pods", namespace, reference["name"])["metadata"]
            if reference.get("uid", pod["uid"]) != pod["uid"]:
                raise Refused(
                    409,
                    f'Operation cannot be fulfilled on Pod "{pod["name"]}": the UID in the bound object reference '
                    f"({reference['uid']}) does not match the UID in record. The object might have been deleted and "
                    "then recreated",
                )
            claims["pod"] = {"name": pod["name"], "uid": pod["uid"]}
        until = datetime.fromtimestamp(claims["exp"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": account, "namespace": namespace},
            "spec": {**asked, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": self._signed(claims), "expirationTimestamp": until},
        }

    def review(self, body: JsonDict) -> JsonDict:
        """The answer to a TokenReview. Raises Refused."""
        asked = body.get("spec") or {}
        if not asked.get("token"):
            raise Refused(400, "token is required for TokenReview in authentication")
        found = self._verified(asked["token"], asked.get("audiences") or [OWN])
        if isinstance(found, str):
            status: JsonDict = {"user": {}, "error": found}
        else:
            name = f"system:serviceaccount:{found['ns']}:{found['account']}"
            extra = {f"{_EXTRA}pod-{part}": [value] for part, value in found.get("pod", {}).items()}
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{found['ns']}", "system:authenticated"]
            user = {"username": name, "groups": groups, **({"extra": extra} if extra else {})}
            status = {"authenticated": True, "user": user}
            if self.knows_audiences:
                status["audiences"] = found["aud"]
        return {**body, "kind": REVIEWS.kind, "apiVersion": REVIEWS.api_version, "status": status}

    def _verified(self, token: str, audiences: list[str]) -> JsonDict | str:
        """The token's claims, those of its audiences that were asked for; or why it is not good."""
        signed, _, mac = token.rpartition(".")
        if not hmac.compare_digest(self._mac(signed), mac):
            return "invalid bearer token"
        claims: JsonDict = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
        common = [audience for audience in claims["aud"] if audience in audiences]
        if not common and self.knows_audiences:
            said = [" ".join(f'"{each}"' for each in one) for one in (claims["aud"], audiences)]
            sentence = f"token audiences [{said[0]}] is invalid for the target audiences [{said[1]}]"
            return f"[invalid bearer token, {sentence}]"
        if self.clock() >= claims["exp"]:
            return "[invalid bearer token, service account token has expired]"
        remembered = self.clock() < self._accepted.get(token, 0.0) + self.remember_s
        if (pod := claims.get("pod")) is not None and not remembered:
            if not self._there(claims["ns"], pod):
                return "[invalid bearer token, service account token has been invalidated]"
            self._accepted[token] = self.clock()
        return {**claims, "aud": common}

    def _there(self, namespace: str, pod: JsonDict) -> bool:
        try:
            return bool(self._store.get("pods", namespace, pod["name"])["metadata"]["uid"] == pod["uid"])
        except Refused:
            return False

    def _signed(self, claims: JsonDict) -> str:
        signed = f"{_encoded({'alg': 'HS256', 'kid': 'fake'})}.{_encoded({**claims, 'jti': secrets.token_hex(8)})}"
        return f"{signed}.{self._mac(signed)}"

    def _mac(self, signed: str) -> str:
        return _text(hmac.digest(self._key, signed.encode(), "sha256"))


def _encoded(value: Any) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
