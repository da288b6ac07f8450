"""deploy/kubernetes as kustomize renders it: pods that the restricted profile takes, exactly the rights that are
needed, no secret, and settings that evertune takes."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import evertune
from activities.runners.kubernetes import labels
from evertune.connection import security
from evertune.errors import UsageError
from evertune.settings import Settings
from evertune.spec import rights
from evertune.stack import temporal
from tests.deploy.rendered import (
    KUBERNETES,
    OVERLAYS,
    Object,
    environment_of,
    everything,
    find,
    kustomized,
    needs_kubectl,
    objects_of,
    overlay,
    templates,
    with_components,
)

pytestmark = needs_kubectl

each_overlay = pytest.mark.parametrize("name", OVERLAYS)
SECRETS = {
    "<database-url>": "postgresql+psycopg://evertune:word@postgres/evertune",
    "<ingest-keys>": "k1:" + "0a" * 32,
    "<temporal-api-key>": "key",
}


# ------------------------------------------------------------------------------------------------------- pods


def test_every_pod_is_one_that_the_restricted_profile_takes() -> None:
    seen = 0
    for name, template in templates(everything()):
        seen += 1
        pod = template["spec"]
        shared = pod["securityContext"]
        assert shared["runAsNonRoot"] is True, name
        assert shared["runAsUser"] >= 1, name
        assert shared["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert {kind for volume in pod["volumes"] for kind in set(volume) - {"name"}} <= {
            "emptyDir",
            "secret",
            "persistentVolumeClaim",
        }, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert not {"privileged", "runAsUser", "runAsNonRoot", "procMount", "seccompProfile"} & set(own), name
            assert all("hostPort" not in port for port in container.get("ports", [])), name
    assert seen == 6, "dev has four Deployments, external two"


def test_no_service_of_the_namespace_sets_variables_that_are_settings() -> None:
    """Kubernetes would set EVERTUNE_SERVER_PORT=tcp://… for the Service evertune-server."""
    ours = [(name, template) for name, template in templates(everything()) if name.startswith("evertune-")]
    assert {name for name, template in ours if template["spec"].get("enableServiceLinks") is not False} == set()
    assert ours


def test_only_the_worker_gets_a_token_of_the_api_server() -> None:
    things = everything()
    assert all(not thing["automountServiceAccountToken"] for thing in things if thing["kind"] == "ServiceAccount")
    assert {name for name, template in templates(things) if template["spec"]["automountServiceAccountToken"]} == {
        "evertune-worker"
    }


def test_every_container_says_what_it_needs_and_whether_it_is_ready_and_alive() -> None:
    for name, template in templates(everything()):
        for container in template["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            assert {"readinessProbe", "livenessProbe"} <= set(container), name


def test_every_image_is_pinned_and_ours_has_the_version_of_the_package() -> None:
    for name, template in templates(everything()):
        for container in template["spec"]["containers"]:
            assert re.search(r":\d+(\.\d+)+$", container["image"]), name
            if container["image"].startswith("evertune/"):
                assert container["image"] == f"evertune/worker:{evertune.__version__}"


def test_the_identity_of_the_pods_is_that_of_the_image() -> None:
    recipe = (KUBERNETES.parent / "images" / "worker.Containerfile").read_text()
    user, group = re.findall(r"--[ug]id (\d+)", recipe)
    for name, template in templates(overlay("external")):
        context = template["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group)), name


def test_a_home_on_a_volume_belongs_to_one_worker_at_a_time() -> None:
    worker = find(overlay("external"), "Deployment", "evertune-worker")["spec"]
    volumes = {volume["name"]: volume for volume in worker["template"]["spec"]["volumes"]}
    assert volumes["home"]["persistentVolumeClaim"] == {"claimName": "evertune-home"}
    assert (worker["replicas"], worker["strategy"]) == (1, {"type": "Recreate"})
    assert find(overlay("external"), "PersistentVolumeClaim", "evertune-home")
    assert not [thing for thing in overlay("dev") if thing["kind"] == "PersistentVolumeClaim"]


# ------------------------------------------------------------------------------------------------------ probes


def probe(kind: str, home: Path) -> int:
    container = find(overlay("external"), "Deployment", "evertune-worker")["spec"]["template"]["spec"]["containers"][0]
    environment = {"PATH": os.environ["PATH"], "EVERTUNE_HOME": str(home)}
    command = container[kind]["exec"]["command"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_the_worker_is_ready_while_the_process_that_its_file_names_runs(tmp_path: Path) -> None:
    assert probe("readinessProbe", tmp_path) != 0
    (tmp_path / "worker.ready").write_text(str(os.getpid()))
    assert probe("readinessProbe", tmp_path) == 0
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "worker.ready").write_text(str(ended.pid))
    assert probe("readinessProbe", tmp_path) != 0


def test_the_worker_is_alive_until_it_polls_and_while_its_file_stays_young(tmp_path: Path) -> None:
    assert probe("livenessProbe", tmp_path) == 0
    ready = tmp_path / "worker.ready"
    ready.write_text(str(os.getpid()))
    assert probe("livenessProbe", tmp_path) == 0
    os.utime(ready, (1, 1))
    assert probe("livenessProbe", tmp_path) != 0


# ------------------------------------------------------------------------------------------------------ rights


def test_the_role_has_exactly_the_rights_that_running_trials_needs() -> None:
    whole = ["create", "get", "list", "watch", "patch", "delete"]
    training = ["jaxjobs", "mpijobs", "paddlejobs", "pytorchjobs", "tfjobs", "xgboostjobs"]
    assert find(overlay("team-namespace"), "Role", "evertune-trials")["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": whole},
        {"apiGroups": ["kubeflow.org"], "resources": training, "verbs": whole},
        {"apiGroups": ["trainer.kubeflow.org"], "resources": ["trainjobs"], "verbs": whole},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]


def test_nothing_is_allowed_over_the_whole_cluster() -> None:
    assert {thing["kind"] for thing in everything()} == {
        *("ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget"),
        *("Role", "RoleBinding", "Service", "ServiceAccount"),
    }


def test_the_command_prints_the_same_role_and_binding() -> None:
    things = overlay("team-namespace")
    assert rights.role(rights.rules(), "team-vision") == find(things, "Role", "evertune-trials")
    binding = rights.binding("team-vision", account_namespace="evertune")
    assert binding == find(things, "RoleBinding", "evertune-trials")


@pytest.mark.parametrize(("name", "home"), [("dev", "evertune-dev"), ("team-namespace", "evertune")])
def test_the_rights_go_to_the_account_of_the_worker(name: str, home: str) -> None:
    (subject,) = find(overlay(name), "RoleBinding", "evertune-trials")["subjects"]
    worker = find(overlay("dev" if name == "dev" else "external"), "Deployment", "evertune-worker")
    assert subject == {
        "kind": "ServiceAccount",
        "name": worker["spec"]["template"]["spec"]["serviceAccountName"],
        "namespace": worker["metadata"]["namespace"],
    }
    assert subject["namespace"] == home


@pytest.mark.parametrize(
    ("name", "components", "home"),
    [
        ("dev", ("pod-identity/trials", "pod-identity"), "evertune-dev"),
        ("external", ("pod-identity",), "evertune"),
        ("team-namespace", ("pod-identity/trials",), "evertune"),
    ],
)
def test_where_pods_show_their_own_tokens_the_server_may_ask_whose_they_are_and_nothing_else(
    tmp_path: Path, name: str, components: tuple[str, ...], home: str
) -> None:
    things = with_components(tmp_path, name, *components)
    before = {(thing["kind"], thing["metadata"]["name"]) for thing in overlay(name) if thing["kind"] != "ConfigMap"}
    added = [
        thing
        for thing in things
        if thing["kind"] != "ConfigMap" and (thing["kind"], thing["metadata"]["name"]) not in before
    ]
    rules = {thing["kind"]: thing["rules"] for thing in added if "rules" in thing}
    reviews = [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]
    pods = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    wanted = {"pod-identity": ("ClusterRole", reviews), "pod-identity/trials": ("Role", pods)}
    assert rules == dict(wanted[component] for component in components)
    bindings = [thing for thing in added if "rules" not in thing]
    assert len(bindings) == len(rules)
    for binding in bindings:
        assert binding["kind"] == f"{binding['roleRef']['kind']}Binding"
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "evertune-server", "namespace": home}]


def test_where_pods_show_their_own_tokens_server_and_worker_know_it(tmp_path: Path) -> None:
    things = with_components(tmp_path, "external", "pod-identity")
    assert {settings_of(things, name)[0].pod_identity for name in ("evertune-server", "evertune-worker")} == {"account"}
    tokens = {name: template["spec"]["automountServiceAccountToken"] for name, template in templates(things)}
    assert tokens == {"evertune-server": True, "evertune-worker": True}


# ----------------------------------------------------------------------------------------------------- network


def test_trials_reach_the_port_of_the_gateway_and_nothing_else_of_evertune() -> None:
    things = overlay("external")
    closed = find(things, "NetworkPolicy", "evertune")["spec"]
    assert "ingress" not in closed
    for name, template in templates(things):
        assert closed["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), name
    (way,) = find(things, "NetworkPolicy", "evertune-server")["spec"]["ingress"]
    assert way["from"] == [{"namespaceSelector": {"matchLabels": {"evertune.io/trials": "true"}}}]
    assert way["ports"] == [{"protocol": "TCP", "port": 8090}]


@pytest.mark.parametrize("port", [1, 53, 443, 7232, 7233, 7234, 7242, 7243, 7244, 8090, 65535])
def test_trials_reach_every_port_but_those_of_temporals_frontend(port: int) -> None:
    spec = find(overlay("team-namespace"), "NetworkPolicy", "evertune-trials")["spec"]
    assert spec["podSelector"]["matchLabels"] == {labels.MANAGED_BY: labels.MANAGER}
    assert spec["policyTypes"] == ["Egress"]
    (rule,) = spec["egress"]
    ranges = [entry for entry in rule["ports"] if entry["protocol"] == "TCP"]
    reached = any(entry["port"] <= port <= entry["endPort"] for entry in ranges)
    assert reached is (port not in (7233, 7243))
    assert {"protocol": "UDP"} in rule["ports"], "names are looked up by UDP"


# ------------------------------------------------------------------------------------------- settings, secrets


@each_overlay
def test_no_credential_is_in_what_is_rendered(name: str) -> None:
    for thing in overlay(name):
        assert thing["kind"] != "Secret"
        for value in thing.get("data", {}).values():
            assert not re.search(r"://[^/]*:[^/]*@|[0-9a-f]{32}", value)
    for _, template in templates(overlay(name)):
        for container in template["spec"]["containers"]:
            for entry in container.get("env", []):
                secret = re.search(r"PASSWORD|KEY|URL|TOKEN", entry["name"])
                assert bool(secret) == ("valueFrom" in entry), entry["name"]


def settings_of(things: list[Object], name: str) -> tuple[Settings, dict[str, str]]:
    container = find(things, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
    given = {key: SECRETS.get(value, value) for key, value in environment_of(things, container).items()}
    return Settings.load({"HOME": "/home/evertune", **given}), given


@pytest.mark.parametrize("name", ["dev", "external"])
@pytest.mark.parametrize("which", ["evertune-worker", "evertune-server"])
def test_settings_are_ones_that_evertune_takes(name: str, which: str) -> None:
    settings, given = settings_of(overlay(name), which)
    understood = settings.environment()
    ours = {key: value for key, value in given.items() if key.startswith("EVERTUNE_")}
    assert {key: understood[key] for key in ours} == ours
    assert settings.backend == "kubernetes"


@pytest.mark.parametrize("name", ["dev", "external"])
def test_what_the_settings_name_is_there(name: str) -> None:
    things = overlay(name)
    settings, _ = settings_of(things, "evertune-worker")
    namespace = find(things, "Deployment", "evertune-worker")["metadata"]["namespace"]
    service = find(things, "Service", "evertune-server")
    port = service["spec"]["ports"][0]["port"]
    assert settings.ingest_url == f"http://evertune-server.{namespace}.svc:{port}"
    server = find(things, "Deployment", "evertune-server")["spec"]["template"]
    assert service["spec"]["selector"].items() <= server["metadata"]["labels"].items()
    container = server["spec"]["containers"][0]
    assert container["command"][-2:] == ["--port", str(port)]
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    if name == "dev":
        assert settings.namespace == namespace
        assert settings.temporal_address is not None
        host, _, port = settings.temporal_address.partition(":")
        assert int(port) in [entry["port"] for entry in find(things, "Service", host)["spec"]["ports"]]


def test_temporal_of_dev_is_tuned_as_the_embedded_one() -> None:
    (container,) = find(overlay("dev"), "Deployment", "temporal")["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    wanted = [f"--dynamic-config-value={name}={value}" for name, value in temporal.DYNAMIC_CONFIG.items()]
    wanted += [f"--sqlite-pragma={name}={value}" for name, value in temporal.PRAGMAS.items()]
    assert sorted(word for word in command if word.startswith(("--dynamic", "--sqlite"))) == sorted(wanted)


def test_external_finds_the_certificates_where_the_secret_is_mounted() -> None:
    things = overlay("external")
    for name in ("evertune-worker", "evertune-server"):
        _, given = settings_of(things, name)
        pod = find(things, "Deployment", name)["spec"]["template"]["spec"]
        (mount,) = (one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "temporal-tls")
        paths = [value for key, value in given.items() if key.startswith("TEMPORAL_TLS_")]
        assert len(paths) == 3
        assert all(path.startswith(f"{mount['mountPath']}/") for path in paths)
        with pytest.raises(UsageError, match=r"TEMPORAL_TLS_.*the file cannot be read"):
            security(None, given)


def test_an_api_key_can_stand_in_for_certificates(tmp_path: Path) -> None:
    folder = KUBERNETES / "overlays" / "external"
    text = (folder / "kustomization.yaml").read_text().replace("temporal-mtls\nconfig", "temporal-api-key\nconfig")
    relative = os.path.relpath(KUBERNETES, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(text.replace("../..", relative))
    things = objects_of(kustomized(tmp_path))
    for name in ("evertune-worker", "evertune-server"):
        settings, given = settings_of(things, name)
        assert security(settings.temporal_tls, given) == {"tls": True, "api_key": "key"}


@pytest.mark.parametrize("own_database", [True, False])
def test_the_script_makes_every_secret_that_pods_ask_for_and_a_new_one_each_time(own_database: bool) -> None:
    script = KUBERNETES / "new-secret.sh"
    database = {"EVERTUNE_DATABASE_URL": "mysql+pymysql://u:p%25'\"@db/e"} if own_database else {}
    environment = {"PATH": os.environ["PATH"], "TEMPORAL_API_KEY": "key", **database}

    def made() -> dict[str, str]:
        done = subprocess.run([script, "here"], env=environment, capture_output=True, text=True, check=True)
        secret = yaml.safe_load(done.stdout)
        assert (secret["kind"], secret["metadata"]) == ("Secret", {"name": "evertune", "namespace": "here"})
        return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}

    first, second = made(), made()
    assert first["ingest-keys"] != second["ingest-keys"]
    given = {"EVERTUNE_DATABASE_URL": first["database-url"], "EVERTUNE_INGEST_KEYS": first["ingest-keys"]}
    settings = Settings.load({"HOME": "/h", **given})
    assert first["temporal-api-key"] == "key"
    if own_database:
        assert settings.database_url == database["EVERTUNE_DATABASE_URL"]
    else:
        assert f":{first['postgres-password']}@postgres/" in settings.database_url
        wanted = {
            entry["valueFrom"]["secretKeyRef"]["key"]
            for _, template in templates(overlay("dev"))
            for container in template["spec"]["containers"]
            for entry in container.get("env", [])
            if "valueFrom" in entry
        }
        assert wanted <= set(first)


def test_without_a_namespace_the_script_says_how_it_is_called() -> None:
    done = subprocess.run([KUBERNETES / "new-secret.sh"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "NAMESPACE" in done.stderr
    assert done.stdout == ""
