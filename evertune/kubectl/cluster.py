"""The way to the cluster: credentials for kopf, and the looks that are taken before anything is watched.

It refuses to start where the cluster does not know our kind, and to take over Katib's where Katib itself works: two
controllers of one object would fight for its status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import kopf

from activities.runners.kubernetes import credentials
from activities.runners.kubernetes.api import Api, ApiError, Unreachable
from evertune.errors import EnvironmentProblem, UnavailableError, UsageError
from evertune.kubectl.objects import GROUP, KATIB_GROUP, KATIB_VERSION, PLURAL, VERSION, JsonDict
from evertune.settings import Settings

PATIENCE_S = 60.0
KATIB = "katib-controller"
KATIB_HOOKS = "katib.kubeflow.org"  # Katib's own name for both of its webhook configurations
KATIB_NAMESPACE = "kubeflow"
HOOKS = "/apis/admissionregistration.k8s.io/v1"
CRDS = "deploy/kubernetes/crds"


async def login(settings: Settings) -> kopf.ConnectionInfo:
    """What `credentials` found, as kopf takes it. Raises UsageError and EnvironmentProblem, as that does."""
    access = await credentials.load(settings.kube_context, settings.kubeconfig)
    found = access.configuration
    scheme, _, token = (await access.headers()).get("Authorization", "").partition(" ")
    return kopf.ConnectionInfo(
        server=access.server,
        ca_path=found.ssl_ca_cert or None,
        insecure=not found.verify_ssl,
        certificate_path=found.cert_file or None,
        private_key_path=found.key_file or None,
        scheme=scheme or None,
        token=token or None,
        proxy_url=access.proxy,
    )


async def check(
    settings: Settings, namespaces: Sequence[str], *, adopt_katib: bool, patience_s: float = PATIENCE_S
) -> str:
    """The cluster's address. Raises EvertuneError that says why the operator cannot work here.

    A server that does not answer is asked again for `patience_s` seconds.
    """
    api = await Api.connect(settings.kube_context, kubeconfig=settings.kubeconfig)
    try:
        look = Look(api, patience_s)
        await look.served(GROUP, VERSION)
        if adopt_katib:
            await look.served(KATIB_GROUP, KATIB_VERSION)
            await look.no_katib(namespaces)
        return api.server
    finally:
        await api.close()


@dataclass
class Look:
    """Asks the API server a few questions, with the operator's own rights."""

    api: Api
    patience_s: float
    saw: bool = field(init=False, default=False)  # whether there was any place to look for Katib

    async def at(self, path: str, **query: str) -> tuple[int, JsonDict]:
        """HTTP status and answer. Raises UnavailableError."""
        try:
            return 200, await self.api.call("GET", path, query=query, patience_s=self.patience_s)
        except Unreachable as error:
            raise UnavailableError(str(error), hint="evertune doctor") from error
        except ApiError as error:
            if error.status == 401:
                raise UsageError(f"the cluster at {self.api.server} does not accept our credentials") from error
            if error.status == 429 or error.status >= 500:
                raise UnavailableError(f"the cluster at {self.api.server} is not well: {error}") from error
            return error.status, {}

    async def served(self, group: str, version: str) -> None:
        _, answer = await self.at(f"/apis/{group}/{version}")
        if PLURAL not in {one.get("name") for one in answer.get("resources", ())}:
            raise EnvironmentProblem(
                f"the cluster serves no {PLURAL} of {group}/{version}",
                hint=f"kubectl apply -f {CRDS}/{PLURAL}.{group}.yaml",
            )

    async def no_katib(self, namespaces: Sequence[str]) -> None:
        where = await self._controllers(namespaces)
        for kind in ("validating", "mutating"):
            if await self._allowed(f"{HOOKS}/{kind}webhookconfigurations/{KATIB_HOOKS}") is not None:
                where.append(f"{kind}webhookconfiguration {KATIB_HOOKS}")
        if where:
            raise UsageError(
                f"Katib works in this cluster already ({', '.join(where)}), and both would write to its Experiments",
                hint="remove Katib first, or leave --adopt-katib out and use evertune.io/v1alpha1",
            )
        if not self.saw:
            raise UsageError(
                "--adopt-katib wants to know that no Katib works in this cluster, and may not look",
                hint="allow it to list deployments and to get webhook configurations: "
                "deploy/kubernetes/components/operator/adopt-katib",
            )

    async def _controllers(self, namespaces: Sequence[str]) -> list[str]:
        """Deployments of Katib's controller, in every namespace that may be looked into."""
        named = {"fieldSelector": f"metadata.name={KATIB}"}
        answer = await self._allowed("/apis/apps/v1/deployments", **named)
        if answer is not None:
            found = answer.get("items", [])
        else:
            found = []
            for namespace in dict.fromkeys([KATIB_NAMESPACE, *namespaces]):
                answer = await self._allowed(f"/apis/apps/v1/namespaces/{namespace}/deployments", **named)
                found += (answer or {}).get("items", [])
        return [f"deployment {one['metadata']['namespace']}/{one['metadata']['name']}" for one in found]

    async def _allowed(self, path: str, **query: str) -> JsonDict | None:
        """The answer, None when there is none or it may not be seen; remembers whether anything could be seen."""
        status, answer = await self.at(path, **query)
        if status in (200, 404):
            self.saw = True
        return answer if status == 200 else None
