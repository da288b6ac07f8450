"""The checks and the probe on a real control plane: with the rights of a worker and no more."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from activities.runners.kubernetes.api import Api, ApiError
from activities.runners.kubernetes.checks import examine
from activities.runners.kubernetes.discovery import NAMESPACE, POD
from activities.runners.kubernetes.probe import probe
from activities.runners.kubernetes.render import Injection
from evertune import __version__
from evertune.protocols import JsonDict
from evertune.spec import rights
from evertune.testing.kubernetes.calling import a_pod, until, with_account
from tests.kubernetes.test_checks import INJECTION, bad, of, subject

pytestmark = pytest.mark.cluster
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass
class Space:
    """A namespace of its own, and the way to it as its administrator."""

    api: Api
    name: str
    kubeconfig: Path

    async def enforce_restricted(self) -> None:
        """The API server has heard of it a moment after it has written it."""
        body = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        merge = "application/merge-patch+json"
        await self.api.call("PATCH", NAMESPACE.path(None, self.name), body=body, content_type=merge)

        async def enforced() -> bool:
            try:
                await self.api.call("POST", POD.path(self.name), query={"dryRun": "All"}, body=a_pod("careless"))
            except ApiError as error:
                return "violates PodSecurity" in str(error)
            return False

        await until(enforced)

    async def worker(self, rules: list[rights.Rule], path: Path) -> Api:
        """Somebody who has these rights here, and no others."""
        core = f"/api/v1/namespaces/{self.name}/serviceaccounts"
        account = {"metadata": {"name": rights.ACCOUNT}}
        await self.api.call("POST", core, body=account)
        role, binding = rights.role(rules, self.name), rights.binding(self.name, account_namespace=self.name)
        await self.api.call("POST", f"{RBAC}/namespaces/{self.name}/roles", body=role)
        await self.api.call("POST", f"{RBAC}/namespaces/{self.name}/rolebindings", body=binding)
        told = await self.api.call("POST", f"{core}/{rights.ACCOUNT}/token", body={"spec": {"expirationSeconds": 3600}})
        path.write_text(json.dumps(self._as(told["status"]["token"])))
        worker = await Api.connect(kubeconfig=str(path))
        await until(lambda: self._may(worker, rules[0]))
        return worker

    async def _may(self, worker: Api, rule: rights.Rule) -> bool:
        """Whether the API server has heard of the role and its binding, which it wrote a moment ago."""
        resource, _, part = rule.resource.partition("/")
        asked = {"namespace": self.name, "verb": rule.verbs[0], "group": rule.group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**asked, "subresource": part}},
        }
        told = await worker.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        return bool(told["status"]["allowed"])

    def _as(self, token: str) -> JsonDict:
        import yaml

        config: JsonDict = yaml.safe_load(self.kubeconfig.read_text())
        config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
        return config


@pytest.fixture
async def space(api_cluster: Path) -> AsyncIterator[Space]:
    api = await Api.connect(kubeconfig=str(api_cluster))
    name = f"evertune-test-{os.urandom(4).hex()}"
    await api.call("POST", NAMESPACE.path(None), body={"metadata": {"name": name}})
    await with_account(api, name)
    yield Space(api, name, api_cluster)
    await api.call("DELETE", NAMESPACE.path(None, name))
    await api.close()


async def test_an_administrator_finds_everything_in_order_and_leaves_nothing(space: Space) -> None:
    found = await examine(space.api, subject(namespace=space.name))

    assert bad(found) == {}
    assert of(found, "Pods").found == "its pods would be admitted (dry run)"
    for path in (f"/apis/batch/v1/namespaces/{space.name}/jobs", f"/api/v1/namespaces/{space.name}/pods"):
        assert (await space.api.call("GET", path))["items"] == []


async def test_the_role_that_evertune_prints_is_enough(space: Space, tmp_path: Path) -> None:
    worker = await space.worker(rights.rules([("batch", "jobs")]), tmp_path / "worker")
    found = await examine(worker, subject(namespace=space.name))
    await worker.close()

    assert bad(found) == {}


async def test_what_a_role_lacks_is_named_rule_by_rule(space: Space, tmp_path: Path) -> None:
    some = [replace(rule, verbs=("get", "list")) for rule in rights.rules([("batch", "jobs")])]
    worker = await space.worker([rule for rule in some if rule.resource != "pods/log"], tmp_path / "worker")
    found = await examine(worker, subject(namespace=space.name))
    await worker.close()

    assert of(found, "Rights").level == "fail"
    lines = of(found, "Rights").mend.splitlines()
    assert '- {apiGroups: ["batch"], resources: [jobs], verbs: [create, watch, patch, delete]}' in lines
    assert '- {apiGroups: [""], resources: [pods/log], verbs: [get]}' in lines


async def test_pods_that_a_namespace_would_refuse_are_found_before_they_are_made(space: Space) -> None:
    await space.enforce_restricted()
    found = await examine(space.api, subject(namespace=space.name))

    assert of(found, "Namespace").found == f"{space.name}, pod security restricted"
    assert bad(found) == {"Pods": "fail"}
    assert 'violates PodSecurity "restricted:latest"' in of(found, "Pods").found


async def test_a_field_that_no_job_has_is_refused_in_the_servers_words(space: Space) -> None:
    wanted = subject(namespace=space.name)
    assert wanted.launch is not None
    wanted.launch.manifest["spec"]["backOffLimit"] = 1
    found = await examine(space.api, wanted)

    assert 'unknown field "spec.backOffLimit"' in of(found, "Trial").found


# --------------------------------------------------------------------------------------------------- with pods


@pytest.fixture
async def node(full_cluster: Path) -> str:
    """The address of this machine, if it is the node."""
    api = await Api.connect(kubeconfig=str(full_cluster))
    nodes = (await api.call("GET", "/api/v1/nodes"))["items"]
    await api.close()
    for address in (each["address"] for one in nodes for each in one["status"]["addresses"]):
        try:
            socket.create_server((address, 0)).close()
        except OSError:
            continue
        return str(address)
    pytest.skip("no node of the cluster is this machine, whose server its pods would have to reach")


@pytest.fixture
def gateway(node: str) -> Iterator[str]:
    """A server that is in good health, at the node's address."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((node, 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{node}:{server.server_port}"
        server.shutdown()


COLLECTOR = Injection(image=f"evertune/collector:{__version__}", image_pull_policy="IfNotPresent")


@pytest.mark.timeout(240)
async def test_a_pod_of_the_restricted_profile_says_whether_it_reaches_the_gateway(space: Space, gateway: str) -> None:
    await space.enforce_restricted()
    there = await probe(space.api, space.name, url=gateway, injection=COLLECTOR)
    host = gateway.rpartition(":")[0]
    nobody = await probe(space.api, space.name, url=f"{host}:1", injection=COLLECTOR)

    assert (there.level, there.found) == ("ok", f"{gateway}, reached from a pod in {space.name}")
    assert nobody.level == "fail"
    assert "Connection refused" in nobody.found


@pytest.mark.timeout(240)
async def test_a_collector_image_that_is_not_there_is_found(space: Space, gateway: str) -> None:
    missing = replace(INJECTION, image="localhost/nobody/has-this:1")
    found = await probe(space.api, space.name, url=gateway, injection=missing)

    assert (found.what, found.level) == ("Collector", "fail")
