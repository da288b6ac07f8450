"""deploy/kubernetes at work in a cluster that runs pods: worker, server, operator and Temporal under the restricted
profile, with exactly the rights that are written there, run experiments of real Jobs to their ends.

Only the database is not the overlay's: a PostgreSQL of this machine. `deploy/cluster/worker-image.sh` makes the image.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from tests import servers
from tests.deploy.conftest import Namespace
from tests.deploy.rendered import KUBERNETES, Object, kustomized, objects_of
from tests.kubernetes.real import experiment, gateway_host

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(servers.postgres_binaries() is None, reason="PostgreSQL is wanted"),
]

DEFINITION = "CustomResourceDefinition"
TRIALS = 6
# Restricted, and each run leaves a line of its own in its log.
POD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
    "container": {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    },
}


@pytest.fixture
def cluster(restricted: Namespace) -> Namespace:
    if os.environ.get("EVERTUNE_TEST_KUBE_LEVEL", "api") != "full":
        pytest.skip("set EVERTUNE_TEST_KUBE_LEVEL=full for a cluster that runs pods")
    return restricted


class Door(socketserver.BaseRequestHandler):
    """Hands a connection on to a port of this machine."""

    port = 0

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as far, suppress(OSError):
            other = {self.request: far, far: self.request}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    if not (data := source.recv(1 << 16)):
                        return
                    other[source].sendall(data)


@contextmanager
def a_database(host: str) -> Iterator[str]:
    """PostgreSQL where pods reach it: it listens for this machine only, so a door of ours hands connections on."""
    with servers.postgres() as text:
        url = make_url(text)
        handler = type("DoorToDatabase", (Door,), {"port": url.port})
        with socketserver.ThreadingTCPServer((host, 0), handler) as door:
            door.daemon_threads = True
            threading.Thread(target=door.serve_forever, daemon=True).start()
            shown = url.set(drivername="postgresql+psycopg", host=host, port=door.server_address[1])
            try:
                yield shown.render_as_string(hide_password=False)
            finally:
                door.shutdown()


def installation(namespace: str, folder: Path) -> list[Object]:
    """`overlays/dev` with the operator, in that namespace, without its database.

    The operator is told this namespace only, and has a Role of its first three rules instead of the ClusterRole, as
    components/operator/rights.yaml says: it leaves the objects of others alone.
    """
    folder.mkdir()
    here = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / "dev", folder.resolve())],
        "components": [os.path.relpath(KUBERNETES / "components" / "operator", folder.resolve())],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(here))
    things = objects_of(kustomized(folder).replace("evertune-dev", namespace))
    (settings,) = (thing["metadata"]["name"] for thing in things if thing["kind"] == "ConfigMap")
    found = []
    for thing in things:
        name = thing["metadata"]["name"]
        if thing["kind"] == "Namespace" or name == "postgres" or name.startswith("evertune-experiments-"):
            continue
        if thing["kind"] == "ClusterRole":
            thing |= {"kind": "Role", "rules": thing["rules"][:3]}
        elif thing["kind"] == "ClusterRoleBinding":
            thing |= {"kind": "RoleBinding", "roleRef": {**thing["roleRef"], "kind": "Role"}}
        if thing["kind"] != DEFINITION:
            thing["metadata"]["namespace"] = namespace
        for subject in thing.get("subjects", []):
            subject["namespace"] = namespace
        if thing["kind"] == "Deployment" and name == "evertune-operator":
            (container,) = thing["spec"]["template"]["spec"]["containers"]
            container["envFrom"][0]["configMapRef"]["name"] = settings
            container["args"].append(f"--namespace={namespace}")
        found.append(thing)
    return found


@contextmanager
def installed(cluster: Namespace, things: list[Object]) -> Iterator[None]:
    listed = cluster.must("get", "crd", "-o", "name").split()
    before = {f"crd/{name.partition('/')[2]}" for name in listed}
    try:
        cluster.must("apply", "--server-side", "--validate=strict", "-f", "-", given=yaml.safe_dump_all(things))
        for name in ("temporal", "evertune-server", "evertune-worker", "evertune-operator"):
            patient(cluster, "rollout", "status", f"deployment/{name}", "--timeout=150s")
        yield
    finally:
        cluster.kubectl("delete", "experiments.evertune.io", "--all", "--timeout=40s")
        made = (f"crd/{thing['metadata']['name']}" for thing in things if thing["kind"] == DEFINITION)
        cluster.kubectl("delete", "--wait=false", *(name for name in made if name not in before))


def patient(cluster: Namespace, *words: str) -> None:
    command = ["kubectl", "--kubeconfig", cluster.kubeconfig, "--namespace", cluster.name, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        state = cluster.kubectl("get", "pods,events").stdout + cluster.kubectl("logs", words[2], "--tail=30").stdout
        pytest.fail(f"{done.stderr}\n{state}")


def evertune(cluster: Namespace, *words: str, given: str | None = None) -> str:
    return cluster.must(
        "exec", "-i", "deployment/evertune-worker", "-c", "worker", "--", "evertune", *words, given=given
    )


def until(found: Callable[[], Any], what: str, timeout_s: float = 150) -> Any:
    end = time.monotonic() + timeout_s
    while not (answer := found()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(1)
    return answer


def finished(cluster: Namespace, name: str) -> Callable[[], Any]:
    def look() -> Any:
        with suppress(AssertionError):  # the worker's pod may just be another one
            told = json.loads(evertune(cluster, "get", name, "-o", "json"))
            return told if told["state"] in ("Succeeded", "Failed") else None
        return None

    return look


def left(cluster: Namespace) -> str:
    return cluster.must("get", "jobs,pods", "-l", "evertune.io/managed-by=evertune", "-o", "name")


def test_pods_under_the_written_rights_run_experiments_to_their_ends(cluster: Namespace, tmp_path: Path) -> None:
    program = "echo ran $EVERTUNE_TRIAL; sleep 1; echo objective=$X"
    document = experiment("by-hand", cluster.name, program, pod=POD, maxTrialCount=TRIALS)
    with a_database(gateway_host(Path(cluster.kubeconfig))) as url:
        secret = subprocess.run(
            [KUBERNETES / "new-secret.sh", cluster.name],
            env={**os.environ, "EVERTUNE_DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=True,
        )
        cluster.must("create", "-f", "-", given=secret.stdout)
        with installed(cluster, installation(cluster.name, tmp_path / "overlay")):
            evertune(cluster, "submit", "-", given=yaml.safe_dump(document))
            until(lambda: left(cluster), "a first Job")
            cluster.must("delete", "pod", "-l", "app.kubernetes.io/name=evertune-worker", "--force", "--grace-period=0")
            told = until(finished(cluster, "by-hand"), "the end of the experiment")
            assert (told["state"], told["trials"]["succeeded"]) == ("Succeeded", TRIALS), told
            listed = json.loads(evertune(cluster, "trials", "by-hand", "-o", "json"))
            assert [trial["state"] for trial in listed] == ["Succeeded"] * TRIALS
            assert all(float(trial["objective"]) == float(trial["parameters"]["x"]) for trial in listed)
            assert all(trial["attempts"] == 1 for trial in listed), "a worker that died costs no attempt"

            other = {**document, "apiVersion": "evertune.io/v1alpha1"}
            other["metadata"] = {"name": "by-kubectl", "namespace": cluster.name}
            cluster.must("apply", "-f", "-", given=yaml.safe_dump(other))
            path = "jsonpath={.status.state}"
            until(
                lambda: cluster.must("get", "experiments.evertune.io", "by-kubectl", "-o", path) == "Succeeded",
                "the operator's word",
            )
            until(lambda: not left(cluster), "no Job and no pod of a trial is left", 60)
            logs = cluster.must("logs", "deployment/evertune-worker")
            assert not re.findall(r".*(?:is forbidden|Read-only file system).*", logs)
