"""deploy/kubernetes before a real API server: it takes everything, in a namespace with the restricted profile, and the
worker's account may do what its Role says and nothing else."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import pytest
import yaml

from activities.runners.kubernetes import labels
from activities.runners.kubernetes.api import Api
from activities.runners.kubernetes.identity import PodIdentities
from evertune.domain.trial import AttemptRef
from evertune.spec import rights
from tests.deploy.conftest import Namespace
from tests.deploy.rendered import KUBERNETES, OVERLAYS, Object, needs_kubectl, overlay, with_components

pytestmark = [pytest.mark.cluster, needs_kubectl]


def moved(things: list[Object], namespace: str) -> str:
    """The same in another namespace, but for namespaces themselves."""
    found = []
    for thing in copy.deepcopy(things):
        if thing["kind"] != "Namespace":
            thing["metadata"]["namespace"] = namespace
            for subject in thing.get("subjects", []):
                subject["namespace"] = namespace
        found.append(thing)
    return yaml.safe_dump_all(found)


def may(namespace: Namespace, account: str, verb: str, resource: str, *more: str) -> bool:
    """Whether that ServiceAccount of the namespace has the right; `pods/log` is a sub-resource, as in a Role.

    kubectl itself takes what stands behind a slash for the name of an object.
    """
    resource, _, part = resource.partition("/")
    words = ("auth", "can-i", verb, resource, *([f"--subresource={part}"] if part else []), *more)
    said = namespace.kubectl(*words, f"--as=system:serviceaccount:{namespace.name}:{account}")
    answer = said.stdout.strip().partition(" ")[0]
    assert answer in ("yes", "no"), said.stderr
    assert "doesn't have a resource type" not in said.stderr, said.stderr
    return answer == "yes"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_server_takes_everything_without_a_warning(restricted: Namespace, name: str) -> None:
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = restricted.kubectl(*words, given=moved(overlay(name), restricted.name))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("serverside-applied") == len(overlay(name))


@pytest.mark.parametrize(("name", "pods"), [("dev", 4), ("external", 3)])
def test_the_restricted_profile_admits_every_pod(restricted: Namespace, name: str, pods: int) -> None:
    things = [thing for thing in overlay(name) if thing["kind"] != "Namespace"]
    restricted.must("apply", "--server-side", "-f", "-", given=moved(things, restricted.name))
    restricted.soon(lambda: len(restricted.must("get", "pods", "-o", "name").split()) == pods, f"{pods} pods")
    refused = restricted.kubectl("run", "careless", "--image=busybox:1.37")
    assert "violates PodSecurity" in refused.stderr, "the profile is not enforced here"


def test_the_secret_that_the_script_makes_is_one(restricted: Namespace) -> None:
    secret = subprocess.run([KUBERNETES / "new-secret.sh", restricted.name], capture_output=True, text=True, check=True)
    words = ("create", "--validate=strict", "-f", "-")
    assert "secret/evertune created" in restricted.must(*words, given=secret.stdout)
    again = restricted.kubectl(*words, given=secret.stdout)
    assert "already exists" in again.stderr, "a second one must not take the place of keys in use"


JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: trial}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: trial, image: none}]
"""


def test_the_worker_may_do_what_its_role_says_and_nothing_else(restricted: Namespace) -> None:
    things = [thing for thing in overlay("dev") if thing["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    restricted.must("apply", "-f", "-", given=moved(things, restricted.name))
    worker = rights.ACCOUNT
    restricted.soon(lambda: may(restricted, worker, "create", "jobs.batch"), "its rights")

    for rule in rights.ALWAYS:
        for verb in rule.verbs:
            assert may(restricted, worker, verb, rule.resource), f"{verb} {rule.resource}"
    for verb in rights.WHOLE:
        assert may(restricted, worker, verb, "jobs.batch"), verb
    refused = [
        *(("create", "pods"), ("delete", "pods"), ("create", "pods/exec"), ("get", "secrets"), ("list", "configmaps")),
        *(("deletecollection", "jobs.batch"), ("update", "jobs.batch"), ("update", "jobs.batch/status")),
        *(("get", "serviceaccounts"), ("create", "serviceaccounts/token"), ("create", "pods/eviction")),
        *(("create", "roles.rbac.authorization.k8s.io"), ("get", "namespaces"), ("list", "nodes")),
    ]
    assert [what for what in refused if may(restricted, worker, *what)] == []
    assert not may(restricted, worker, "list", "jobs.batch", "-n", "default")
    assert not may(restricted, worker, "list", "pods", "-A")
    assert not may(restricted, "evertune-server", "get", "pods")

    account = f"--as=system:serviceaccount:{restricted.name}:{worker}"
    restricted.must("create", account, "-f", "-", given=JOB)
    restricted.must("patch", "job", "trial", account, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    assert restricted.must("get", "job", "trial", account, "-o", "jsonpath={.spec.suspend}") == "true"
    restricted.must("delete", "job", "trial", account, "--wait=false")


async def test_the_server_with_its_component_finds_whose_pod_a_token_is_and_may_nothing_else(
    restricted: Namespace, tmp_path: Path
) -> None:
    things = with_components(tmp_path, "dev", "pod-identity/trials", "pod-identity")
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    rights_of_it = [thing for thing in things if thing["kind"] in kinds]
    for thing in rights_of_it:  # over the whole cluster: not in the way of another run
        if thing["kind"].startswith("Cluster"):
            thing["metadata"]["name"] = f"{restricted.name}-server"
            if "roleRef" in thing:
                thing["roleRef"]["name"] = thing["metadata"]["name"]
    server = "evertune-server"
    try:
        restricted.must("apply", "--validate=strict", "-f", "-", given=moved(rights_of_it, restricted.name))
        refused = [
            *(("list", "pods"), ("watch", "pods"), ("get", "pods/log"), ("get", "secrets"), ("create", "pods")),
            *(("create", "serviceaccounts/token"), ("get", "jobs.batch")),
        ]
        restricted.soon(lambda: may(restricted, server, "get", "pods"), "its rights")
        restricted.soon(lambda: may(restricted, server, "create", "tokenreviews.authentication.k8s.io"), "its rights")
        assert [what for what in refused if may(restricted, server, *what)] == []
        assert not may(restricted, server, "get", "pods", "-n", "default")

        ref = AttemptRef("0123456789abcdef0123456789abcdef", 7, 2, "exp-7")
        pod = yaml.safe_load(POD)
        pod["metadata"]["labels"] = labels.owned(ref, "db")
        restricted.must("create", "-f", "-", given=yaml.safe_dump(pod))
        uid = restricted.must("get", "pod", "trial", "-o", "jsonpath={.metadata.uid}")
        bound = ("--bound-object-kind=Pod", "--bound-object-name=trial", f"--bound-object-uid={uid}")
        pods_own = restricted.must("create", "token", "default", f"--audience={labels.AUDIENCE}", *bound).strip()
        as_server = tmp_path / "kubeconfig"
        as_server.write_text(restricted.must("config", "view", "--raw", "--flatten", "--minify"))
        given = yaml.safe_load(as_server.read_text())
        given["users"][0]["user"] = {"token": restricted.must("create", "token", "evertune-server").strip()}
        as_server.write_text(yaml.safe_dump(given))
        api = await Api.connect(kubeconfig=str(as_server))
        try:
            found = await PodIdentities(api).of(pods_own)
            assert (found.namespace, found.name, found.uid) == (restricted.name, "trial", uid)
            assert (found.number, found.attempt, found.database_id) == (7, 2, "db")
        finally:
            await api.close()
    finally:
        restricted.kubectl("delete", "clusterrole,clusterrolebinding", f"{restricted.name}-server")


POD = """
apiVersion: v1
kind: Pod
metadata: {name: trial}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: trial
      image: none
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def test_what_the_command_prints_is_taken_and_suffices(restricted: Namespace) -> None:
    documents = [
        rights.role(rights.rules([("batch", "jobs")]), restricted.name),
        rights.binding(restricted.name, account_namespace=restricted.name),
    ]
    restricted.must("apply", "--validate=strict", "-f", "-", given=yaml.safe_dump_all(documents))
    restricted.soon(lambda: may(restricted, rights.ACCOUNT, "create", "jobs.batch"), "its rights")
    assert not may(restricted, rights.ACCOUNT, "create", "cronjobs.batch")
