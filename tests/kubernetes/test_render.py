"""From a launch to the object that is created in a cluster."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.runners.kubernetes.choice import away
from activities.runners.kubernetes.render import Features, Injection
from activities.runners.local.variables import expand
from evertune.domain.metrics import CollectorSpec, Scrape
from evertune.errors import LaunchError
from evertune.protocols import JsonDict, Launch, Replicate
from evertune.spec.rules.job import job_misfits
from tests.kubernetes.objects import collector, environment, job, launched, named, pod, training
from tests.kubernetes.rendering import (
    CONFIG,
    EXAMPLES,
    MODERN,
    OLD,
    TOKEN,
    as_text,
    everything,
    golden_file,
    launch_of,
    render,
)

# ------------------------------------------------------------------------------------------- Katib's own examples


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_katibs_examples_become_these_objects(file: Path) -> None:
    """After a change that is meant: python -m tests.kubernetes.rendering"""
    assert as_text(render(launch_of(file))) == golden_file(file).read_text()


@pytest.mark.parametrize("features", [MODERN, OLD], ids=["native", "classic"])
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_rendered_jobs_have_no_field_that_an_api_server_would_refuse(file: Path, features: Features) -> None:
    made = render(launch_of(file), features)

    if made.manifest["kind"] == "Job":
        assert list(job_misfits(made.manifest, "")) == []
    assert made.mode == ("native" if features is MODERN else "classic")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_launch_is_not_changed_and_gives_the_same_object_again(file: Path) -> None:
    launch = launch_of(file)
    before = copy.deepcopy(launch.manifest)

    assert render(launch) == render(launch)
    assert launch.manifest == before


# ------------------------------------------------------------------------------------------------------------ argv


def as_executed(container: JsonDict) -> list[str]:
    """argv as the kubelet makes it, behind what we put first."""
    values: dict[str, str] = {}
    for each in container["env"]:
        values[each["name"]] = expand(each.get("value", ""), values)
    words = [*container.get("command", ()), *container.get("args", ())]
    assert words[:4] == ["/evertune/busybox", "sh", "/evertune/wrapper.sh", "trial"]
    assert all(word.isdecimal() for word in words[4:6])
    return [expand(word, values) for word in words[6:]]


words = st.lists(
    st.text(st.sampled_from("ab $()'\"\\{}=-\n*é") | st.characters(codec="utf-8"), max_size=12), max_size=5
)


@given(command=words.filter(bool), args=words)
def test_a_command_keeps_its_words_and_what_kubernetes_reads_in_them(command: list[str], args: list[str]) -> None:
    given: JsonDict = {"command": ["$(A)", *command], "args": args, "env": [{"name": "A", "value": "$$x$(B)"}]}
    plain = [expand(word, {"A": "$x$(B)"}) for word in [*given["command"], *args]]
    quoted = any(word.startswith("-") and '="' in word for word in [*command, *args])

    executed = as_executed(named(pod(render(launched(job(container=given))))["containers"], "main"))

    assert quoted or executed == plain


def test_literal_quotes_around_an_options_value_are_dropped_as_locally() -> None:
    """Katib's NAS examples: there a shell reads the words again."""
    given = {"command": ["python", '--settings="{\'a\': \\"b\\"}"'], "args": ['--x="$(A) $$"']}

    main = named(pod(render(launched(job(container=given))))["containers"], "main")

    assert main["command"][-1] == "--settings={'a': \"b\"}"
    assert main["args"] == ["--x=$(A) $$"]


def test_nothing_is_changed_behind_a_shell() -> None:
    given = {"command": ["sh", "-c"], "args": ['train --x="$LR" && echo "done"']}

    main = named(pod(render(launched(job(container=given))))["containers"], "main")

    assert main["args"] == given["args"]


# ------------------------------------------------------------------------------------------------------- variables


def test_a_parameter_with_dollars_reaches_the_program_as_it_is() -> None:
    value = "$(HOME) $$ $x $"
    main = named(pod(render(launched(job(), parameters={"a": value})))["containers"], "main")

    told = json.loads(expand(environment(main)["EVERTUNE_PARAMETERS"], {"HOME": "/wrong"}))

    assert told == {"a": value}


def test_a_replicate_is_told_which_run_it_is_and_its_seed() -> None:
    main = named(pod(render(launched(job(), replicate=Replicate(2, 12345))))["containers"], "main")

    assert (environment(main)["EVERTUNE_REPLICATE"], environment(main)["EVERTUNE_SEED"]) == ("2", "12345")
    assert "EVERTUNE_SEED" not in environment(named(pod(render(launched(job())))["containers"], "main"))


def test_the_users_variables_win_and_may_refer_to_ours_but_not_to_who_the_trial_is() -> None:
    given = [
        {"name": "EVERTUNE_PARAMETERS", "value": "mine"},
        {"name": "KATIB_TRIAL_NAME", "value": "wrong"},
        {"name": "OUT", "value": "/data/$(EVERTUNE_TRIAL)"},
        {"name": "EVERTUNE_CHECKPOINT_DIR", "value": "/data"},
    ]
    spec = pod(render(launched(job(container={"env": given}))))
    main = named(spec["containers"], "main")
    names = [each["name"] for each in main["env"]]

    assert len(names) == len(set(names))
    assert environment(main)["EVERTUNE_PARAMETERS"] == "mine"
    assert environment(main)["KATIB_TRIAL_NAME"] == "exp-1"
    assert names.index("EVERTUNE_TRIAL") < names.index("OUT")
    assert "evertune-checkpoint" not in [each["name"] for each in spec["volumes"]]


def test_every_pod_that_has_the_training_container_knows_its_trial() -> None:
    manifest = training("PyTorchJob", "pytorchReplicaSpecs", "pytorch", Master={}, Worker={"replicas": 2})
    made = render(launched(manifest, primary_container="pytorch"))

    for role in ("Master", "Worker"):
        assert environment(named(pod(made, role)["containers"], "pytorch"))["KATIB_TRIAL_NAME"] == "exp-1"


# ----------------------------------------------------------------------------------------------------------- token


@pytest.mark.parametrize("kind", ["StdOut", "File", "TensorFlowEvent", "Custom", "Push", "PrometheusMetric"])
@pytest.mark.parametrize("features", [MODERN, OLD], ids=["native", "classic"])
def test_the_key_to_the_gateway_is_in_the_collectors_variables_and_nowhere_else(kind: str, features: Features) -> None:
    wanted = CollectorSpec(
        kind=kind, metrics=("loss",), path="/out/metrics.log", path_kind="File", scrape=Scrape(port=8080)
    )
    custom = {"name": "own", "image": "own:1", "command": ["collect"]} if kind == "Custom" else None
    made = render(launched(job(), collector=wanted, custom_collector=custom), features)

    found = [path for path, value in everything(made.manifest) if TOKEN in str(value)]

    assert environment(collector(made))["EVERTUNE_TOKEN"] == TOKEN
    assert len(found) == 1
    assert "/env/" in found[0]


def test_a_collector_of_kind_none_gives_the_program_what_it_needs_to_report_itself() -> None:
    made = render(launched(job(), collector=CollectorSpec(kind="None", metrics=("loss",))))
    spec = pod(made)

    assert made.mode == "none"
    assert "initContainers" not in spec
    assert spec["containers"][0]["command"] == ["python", "train.py"]
    assert environment(spec["containers"][0])["EVERTUNE_TOKEN"] == TOKEN


def test_a_projected_token_is_for_the_collector_alone() -> None:
    made = render(launched(job()), config=dataclasses.replace(CONFIG, identity="account"))
    spec = pod(made)
    mounted = [
        each["name"]
        for each in [*spec["initContainers"], *spec["containers"]]
        if any(mount["name"] == "evertune-account" for mount in each["volumeMounts"])
    ]

    assert mounted == ["evertune-collector"]
    assert list(job_misfits(made.manifest, "")) == []
    (volume,) = [each for each in spec["volumes"] if each["name"] == "evertune-account"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"] == {"audience": "evertune.io", "expirationSeconds": 3600, "path": "token"}
    told = environment(collector(made))
    (mount,) = [each for each in collector(made)["volumeMounts"] if each["name"] == "evertune-account"]
    assert told["EVERTUNE_TOKEN_FILE"] == f"{mount['mountPath']}/token"


@pytest.mark.parametrize("features", [MODERN, OLD], ids=["native", "classic"])
def test_where_pods_are_known_by_their_accounts_no_key_of_ours_is_in_the_object(features: Features) -> None:
    made = render(launched(job()), features, config=dataclasses.replace(CONFIG, identity="account"))

    assert not [path for path, value in everything(made.manifest) if TOKEN in str(value)]
    assert "EVERTUNE_TOKEN" not in environment(collector(made))
    assert made.warnings == ()


def test_in_another_cluster_than_the_gateways_own_a_key_is_used_and_that_is_said() -> None:
    made = render(launched(job(), cluster="far"), config=dataclasses.replace(CONFIG, identity="account"))

    assert environment(collector(made))["EVERTUNE_TOKEN"] == TOKEN
    assert "evertune-account" not in [each["name"] for each in pod(made)["volumes"]]
    assert made.warnings == ("the gateway asks its own cluster about pods, not far: these get a key instead",)


def test_a_program_that_reports_by_itself_keeps_its_key() -> None:
    launch = launched(job(), collector=CollectorSpec(kind="None", metrics=("loss",)))
    made = render(launch, config=dataclasses.replace(CONFIG, identity="account"))

    assert environment(pod(made)["containers"][0])["EVERTUNE_TOKEN"] == TOKEN


# ------------------------------------------------------------------------------------------------------------ modes


def test_a_modern_cluster_gets_a_native_sidecar() -> None:
    made = render(launched(job(pod={"initContainers": [{"name": "own", "image": "x:1"}]})))
    spec = pod(made)

    assert [each["name"] for each in spec["initContainers"]] == ["evertune-init", "evertune-collector", "own"]
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    assert (
        environment(collector(made))["EVERTUNE_EXIT_FILE"] == "/evertune/terminated"
    )  # the kubelet's SIGTERM tells it
    assert made.mode == "native"


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (Features(server_version=(1, 29)), "native sidecars need Kubernetes 1.30, this is 1.29"),
        (Features(server_version=(1, 34), strict_init_restart=False), "has no initContainers[].restartPolicy"),
    ],
)
def test_an_older_cluster_gets_an_ordinary_container_that_ends_with_the_training(features: Features, why: str) -> None:
    made = render(launched(job()), features)
    spec = pod(made)

    assert made.mode == "classic"
    assert why in made.reason
    assert [each["name"] for each in spec["containers"]] == ["main", "evertune-collector"]
    assert "restartPolicy" not in spec["containers"][1]
    assert environment(collector(made))["EVERTUNE_EXIT_FILE"] == "/evertune/exit"
    assert environment(collector(made))["EVERTUNE_LIFE_PIPE"] == "/evertune/life"
    assert "terminationGracePeriodSeconds" not in spec


@pytest.mark.parametrize(("policy", "restarts"), [("Never", False), ("OnFailure", True)])
def test_an_ordinary_container_outlives_failures_that_are_followed_by_a_restart(policy: str, restarts: bool) -> None:
    made = render(launched(job(pod={"restartPolicy": policy})), OLD)

    assert ("EVERTUNE_RESTARTS" in environment(collector(made))) is restarts


def test_the_restart_policy_of_a_training_job_is_its_replicas_or_its_kinds() -> None:
    for replica, restarts in (({}, True), ({"restartPolicy": "Never"}, False), ({"restartPolicy": "ExitCode"}, False)):
        manifest = training("PyTorchJob", "pytorchReplicaSpecs", "pytorch", Master=replica)
        made = render(launched(manifest, primary_container="pytorch"), OLD)
        assert ("EVERTUNE_RESTARTS" in environment(collector(made, "Master"))) is restarts


@pytest.mark.parametrize("mode", ["native", "classic", "logs"])
def test_a_mode_that_is_asked_for_is_taken(mode: str) -> None:
    config = Injection(image="i:1", mode=mode)  # type: ignore[arg-type]

    assert render(launched(job()), Features(server_version=(1, 29)), config).mode == mode


def test_native_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(LaunchError, match=r"EVERTUNE_COLLECTOR_MODE is native, but .* need Kubernetes 1\.29"):
        render(launched(job()), Features(server_version=(1, 27)), Injection(image="i:1", mode="native"))


NO_WAY = [
    (launched(job(), ingest_url=None), "there is no gateway"),
    (launched(job(), ingest_url="http://127.0.0.1:8090"), "pods cannot reach the gateway at http://127.0.0.1:8090"),
    (launched(job(container={"command": None, "args": ["--x"]})), "container main has no command"),
]


@pytest.mark.parametrize(("launch", "why"), NO_WAY)
def test_output_is_read_from_the_log_where_nothing_can_be_injected(launch: Launch, why: str) -> None:
    made = render(launch)

    assert made.mode == "logs"
    assert why in made.reason
    assert "initContainers" not in pod(made)
    assert "volumes" not in pod(made)


@pytest.mark.parametrize(("launch", "why"), NO_WAY[:2])
def test_other_metrics_without_a_gateway_are_refused_with_the_mend(launch: Launch, why: str) -> None:
    wanted = CollectorSpec(kind="File", metrics=("loss",), path="/out/log", path_kind="File")

    with pytest.raises(LaunchError, match=why) as caught:
        render(dataclasses.replace(launch, collector=wanted))
    assert caught.value.hint is not None
    assert "EVERTUNE_INGEST_URL" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "reached"),
    [("http://localhost:1", False), ("http://[::1]:1", False), ("http://0.0.0.0:1", False), ("https://a.b", True),
     ("http://10.244.0.1:8090", True), ("http://x.localhost", False)],
)  # fmt: skip
def test_addresses_that_no_pod_reaches_are_known(url: str, reached: bool) -> None:
    assert (away(url) is None) is reached


def test_a_file_is_collected_natively_from_an_image_without_command() -> None:
    wanted = CollectorSpec(kind="File", metrics=("loss",), path="/out/log", path_kind="File")
    launch = launched(job(container={"command": None, "args": ["--x"]}), collector=wanted)
    spec = pod(render(launch))

    assert spec["containers"][0]["args"] == ["--x"]
    assert not spec["containers"][0].get("command")
    assert "terminationGracePeriodSeconds" not in spec  # nobody would kill the program in time
    with pytest.raises(LaunchError, match="has no command"):
        render(launch, OLD)


@pytest.mark.parametrize(
    ("manifest", "allowed"),
    [
        ({"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": {"trainer": {}}}, "TrainJob"),
        ({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}}, "Workflow"),
        ({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "spec": {}}, "PipelineRun"),
        ({"apiVersion": "example.io/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": []}}}}, "Job"),
    ],
)
def test_kinds_without_a_known_pod_template_are_read_from_their_logs(manifest: JsonDict, allowed: str) -> None:
    made = render(launched({**manifest, "metadata": {"namespace": "team"}}))

    assert made.mode == "logs"
    assert allowed in made.reason
    assert made.manifest["metadata"]["labels"]["evertune.io/managed-by"] == "evertune"
    with pytest.raises(LaunchError, match="has no pod template"):
        render(launched(manifest, collector=CollectorSpec(kind="File", metrics=("loss",), path="/out/log")))


def test_pods_of_a_workflow_are_labelled_and_those_of_an_unknown_kind_only_where_they_are_already() -> None:
    workflow = render(launched({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {}, "spec": {}}))
    assert workflow.manifest["spec"]["podMetadata"]["labels"]["evertune.io/trial"] == "1"
    assert workflow.manifest["spec"]["podMetadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}

    templates = [{"spec": {"containers": []}, **more} for more in ({}, {"metadata": {"labels": {"a": "b"}}})]
    ray = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {}, "spec": {"groups": templates}}
    first, second = render(launched(ray)).manifest["spec"]["groups"]
    assert "metadata" not in first
    assert second["metadata"]["labels"]["evertune.io/trial"] == "1"


def test_a_trainjobs_trainer_knows_its_trial_and_reports_itself_when_it_pushes() -> None:
    manifest = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {},
        "spec": {"runtimeRef": {"name": "torch"}, "trainer": {"image": "i:1"}},
    }  # fmt: skip
    read = render(launched(manifest)).manifest["spec"]["trainer"]
    pushed = render(launched(manifest, collector=CollectorSpec(kind="Push", metrics=("loss",))))

    assert environment(read)["KATIB_TRIAL_NAME"] == "exp-1"
    assert "EVERTUNE_TOKEN" not in environment(read)
    assert environment(pushed.manifest["spec"]["trainer"])["EVERTUNE_TOKEN"] == TOKEN
    assert pushed.mode == "none"


# ------------------------------------------------------------------------------------------------- roles and pods


def role_of(container: JsonDict) -> dict[str, Any]:
    return {each["name"]: each for each in container["env"] if "ROLE" in each["name"]}


def test_only_the_primary_roles_pods_get_a_collector() -> None:
    manifest = training("TFJob", "tfReplicaSpecs", "tensorflow", Chief={}, Worker={"replicas": 2}, PS={})
    made = render(launched(manifest, primary_container="tensorflow"))

    assert role_of(collector(made, "Chief")) == {}
    for role in ("Worker", "PS"):
        assert "initContainers" not in pod(made, role)
        assert named(pod(made, role)["containers"], "tensorflow")["command"] == ["train"]


def test_of_several_replicas_the_master_reports() -> None:
    manifest = training("TFJob", "tfReplicaSpecs", "tensorflow", Worker={"replicas": 3})

    asked = role_of(collector(render(launched(manifest, primary_container="tensorflow")), "Worker"))

    field = "metadata.labels['training.kubeflow.org/job-role']"
    assert asked["EVERTUNE_ROLE"]["valueFrom"] == {"fieldRef": {"fieldPath": field}}
    assert asked["EVERTUNE_PRIMARY_ROLE"]["value"] == "master"


def test_labels_of_the_users_narrow_which_replica_reports() -> None:
    manifest = training("PyTorchJob", "pytorchReplicaSpecs", "pytorch", Master={}, Worker={"replicas": 3})
    wanted = {"training.kubeflow.org/replica-type": "worker"}
    made = render(launched(manifest, primary_container="pytorch", primary_pod_labels=wanted))

    asked = role_of(collector(made, "Worker"))

    assert "initContainers" not in pod(made, "Master")
    assert asked["EVERTUNE_ROLE"]["value"] == "$(EVERTUNE_ROLE_0)/$(EVERTUNE_ROLE_1)"
    assert asked["EVERTUNE_PRIMARY_ROLE"]["value"] == "0/worker"


def test_the_first_pod_of_an_indexed_job_reports_and_a_mixture_is_warned_of() -> None:
    indexed = render(launched(job(parallelism=2, completions=2, completionMode="Indexed")))
    mixed = render(launched(job(parallelism=2)))

    assert role_of(collector(indexed))["EVERTUNE_PRIMARY_ROLE"]["value"] == "0"
    assert role_of(collector(mixed)) == {}
    assert "all pods of this Job report" in mixed.warnings[0]


def test_a_wrong_container_is_named_with_those_that_are_there() -> None:
    with pytest.raises(LaunchError, match=r"no container trainer .* theirs: main"):
        render(launched(job(), primary_container="trainer"))


@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_what_the_user_says_about_istio_stays(field: str) -> None:
    manifest = job()
    manifest["spec"]["template"]["metadata"] = {field: {"sidecar.istio.io/inject": "true"}}
    metadata = render(launched(manifest)).manifest["spec"]["template"]["metadata"]

    assert metadata[field]["sidecar.istio.io/inject"] == "true"
    assert sum("sidecar.istio.io/inject" in metadata.get(each, {}) for each in ("annotations", "labels")) == 1


def test_queues_and_suspension_stay_the_users() -> None:
    manifest = job(suspend=True)
    manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu"}
    made = render(launched(manifest)).manifest

    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
