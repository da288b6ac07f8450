"""The way to the cluster: credentials for kopf, and the looks that are taken before anything is watched.

It refuses to start where the cluster does not know our kind, and to take over Katib's where Katib itself works: two
controllers of one object would fight for its status.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import yaml

from evertune.errors import EnvironmentProblem, UnavailableError, UsageError
from evertune.operator.objects import GROUP, KATIB_GROUP, KATIB_VERSION, PLURAL, VERSION
from evertune.settings import Settings

REQUEST_S = 10.0
PATIENCE_S = 60.0
KATIB = "katib-controller"
KATIB_HOOKS = "katib.kubeflow.org"  # Katib's own name for both of its webhook configurations
KATIB_NAMESPACE = "kubeflow"
HOOKS = "/apis/admissionregistration.k8s.io/v1"
CRDS = "deploy/kubernetes/crds"


def credentials(settings: Settings) -> kopf.ConnectionInfo:
    """Of the kubeconfig when one is set or there is no pod around us, else of the pod's ServiceAccount.

    Raises UsageError in one sentence for a kubeconfig or a context that cannot be used.
    """
    ours = kopf.OperatorSettings()
    if settings.kubeconfig is None and (inside := kopf.login_with_service_account(settings=ours)):
        return inside
    files = settings.kubeconfig or str(Path("~/.kube/config").expanduser())
    hint = "set EVERTUNE_KUBECONFIG and EVERTUNE_KUBE_CONTEXT"
    try:
        found = _of_kubeconfig(files, settings.kube_context, ours)
    except FileNotFoundError as error:
        raise UsageError(f"there is no kubeconfig {error.filename}", hint=hint) from error
    except KeyError as error:
        raise UsageError(f"{files} has no context, cluster or user {error}", hint=hint) from error
    except (kopf.LoginError, yaml.YAMLError, OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"the kubeconfig {files} cannot be used: {error}", hint=hint) from error
    if not (found.token or found.username or found.certificate_path or found.certificate_data):
        raise UsageError(
            f"the user of the context in {files} has no token, certificate or password",
            hint="the operator takes no credential plugins: run it in a pod, or give it a ServiceAccount's token",
        )
    return found


def _of_kubeconfig(files: str, context: str | None, ours: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    before = os.environ.get("KUBECONFIG")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as choice:
        if context is not None:  # the first of several files that names a current context wins
            choice.write(yaml.safe_dump({"current-context": context}))
            choice.flush()
            files = os.pathsep.join([choice.name, files])
        os.environ["KUBECONFIG"] = files
        try:
            found = kopf.login_with_kubeconfig(settings=ours)
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before
    assert found is not None
    if not found.server:
        raise ValueError("its cluster has no server")
    return found


@dataclass
class Cluster:
    """Asks the API server a few questions, with the operator's own rights."""

    info: kopf.ConnectionInfo
    patience_s: float = PATIENCE_S
    _ssl: Any = field(init=False)
    _saw: bool = field(init=False, default=False)  # whether there was any place to look for Katib

    def __post_init__(self) -> None:
        self._ssl = self.info.as_ssl_context()

    async def look(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and answer of a GET. Raises UnavailableError when nobody answers for `patience_s` seconds."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.patience_s
        while True:
            try:
                async with (
                    aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as http,
                    http.get(f"{self.info.server}{path}", headers=self.info.as_http_headers(), ssl=self._ssl) as answer,
                ):
                    if answer.status == 401:
                        raise UsageError(f"the cluster at {self.info.server} does not accept our credentials")
                    if answer.status < 500 and answer.status != 429:
                        return answer.status, await answer.json(content_type=None) or {}
                    why = f"it answers {answer.status}"
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                why = str(error) or type(error).__name__
            if loop.time() >= give_up:
                raise UnavailableError(f"cannot reach the cluster at {self.info.server}: {why}", hint="evertune doctor")
            await asyncio.sleep(1)

    async def check(self, namespaces: Sequence[str], *, adopt_katib: bool) -> None:
        """Raises EnvironmentProblem or UsageError that says why the operator cannot work here."""
        await self._served(GROUP, VERSION, "experiments.evertune.io.yaml")
        if adopt_katib:
            await self._served(KATIB_GROUP, KATIB_VERSION, "experiments.kubeflow.org.yaml")
            await self._no_katib(namespaces)

    async def _served(self, group: str, version: str, file: str) -> None:
        status, answer = await self.look(f"/apis/{group}/{version}")
        if status != 200 or PLURAL not in {one.get("name") for one in answer.get("resources", ())}:
            raise EnvironmentProblem(
                f"the cluster serves no {PLURAL} of {group}/{version}", hint=f"kubectl apply -f {CRDS}/{file}"
            )

    async def _no_katib(self, namespaces: Sequence[str]) -> None:
        where = [
            *(await self._controllers(namespaces)),
            *[
                f"{kind}webhookconfiguration {KATIB_HOOKS}"
                for kind in ("validating", "mutating")
                if await self._allowed(f"{HOOKS}/{kind}webhookconfigurations/{KATIB_HOOKS}") is not None
            ],
        ]
        if where:
            raise UsageError(
                f"Katib works in this cluster already ({', '.join(where)}), and both would write to its Experiments",
                hint="remove Katib first, or leave --adopt-katib out and use evertune.io/v1alpha1",
            )
        if not self._saw:
            raise UsageError(
                "--adopt-katib wants to know that no Katib works in this cluster, and may not look",
                hint="allow it to list deployments and to get webhook configurations: "
                "deploy/kubernetes/components/operator/adopt-katib",
            )

    async def _controllers(self, namespaces: Sequence[str]) -> list[str]:
        """Deployments of Katib's controller, in every namespace that may be looked into."""
        query = f"deployments?fieldSelector=metadata.name%3D{KATIB}"
        answer = await self._allowed(f"/apis/apps/v1/{query}")
        if answer is not None:
            found = answer.get("items", [])
        else:
            found = []
            for namespace in dict.fromkeys([KATIB_NAMESPACE, *namespaces]):
                answer = await self._allowed(f"/apis/apps/v1/namespaces/{namespace}/{query}")
                found += (answer or {}).get("items", [])
        return [f"deployment {one['metadata']['namespace']}/{one['metadata']['name']}" for one in found]

    async def _allowed(self, path: str) -> dict[str, Any] | None:
        """The answer, None when there is none or it may not be seen; remembers whether anything could be seen."""
        status, answer = await self.look(path)
        if status in (200, 404):
            self._saw = True
        return answer if status == 200 else None
