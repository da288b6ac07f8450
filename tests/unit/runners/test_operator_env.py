"""Variable by variable what the training operator and the Job controller give to the pods of a distributed job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activities.runners.local.operator_env import InCluster, Local, labels, pod_variables
from activities.runners.local.shape import OPERATED, Shape, shape_of
from evertune.errors import LaunchError

Manifest = dict[str, Any]


def replica(kind: str, count: int | None = 1, **rest: Any) -> Manifest:
    name = OPERATED[kind].container
    body: Manifest = {"template": {"spec": {"containers": [{"name": name, "command": ["true"]}]}}, **rest}
    return body if count is None else {**body, "replicas": count}


def manifest(kind: str, roles: Manifest, **spec: Any) -> Manifest:
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": "j", "namespace": "ns"},
        "spec": {OPERATED[kind].field: roles, **spec},
    }


def job(kind: str, roles: dict[str, int], **spec: Any) -> Shape:
    return shape_of(manifest(kind, {role: replica(kind, count) for role, count in roles.items()}, **spec))


def plain(entries: list[Manifest]) -> list[tuple[str, str]]:
    return [(e["name"], e["value"] if "value" in e else e["valueFrom"]["fieldRef"]["fieldPath"]) for e in entries]


def in_cluster(shape: Shape, **options: Any) -> dict[str, list[tuple[str, str]]]:
    return {pod: plain(env) for pod, env in pod_variables(shape, InCluster(shape, **options)).items()}


def locally(shape: Shape) -> dict[str, list[tuple[str, str]]]:
    places = [(role.name, index) for role in shape.roles.values() for index in range(role.count)]
    ports = {place: 20_000 + number for number, place in enumerate(places)}
    return {pod: plain(env) for pod, env in pod_variables(shape, Local(shape, ports)).items()}


# -------------------------------------------------------------------------------------------------- TFJob


def test_tf_config_names_every_replica_of_every_role_in_the_order_of_their_names() -> None:
    found = in_cluster(job("TFJob", {"Worker": 2, "PS": 1, "Chief": 1, "Evaluator": 1}))
    assert list(found) == ["j-chief-0", "j-ps-0", "j-worker-0", "j-worker-1", "j-evaluator-0"]
    assert found["j-worker-1"] == [
        (
            "TF_CONFIG",
            '{"cluster":{"chief":["j-chief-0.ns.svc:2222"],"evaluator":["j-evaluator-0.ns.svc:2222"],'
            '"ps":["j-ps-0.ns.svc:2222"],"worker":["j-worker-0.ns.svc:2222","j-worker-1.ns.svc:2222"]},'
            '"task":{"type":"worker","index":1},"environment":"cloud"}',
        )
    ]


def test_locally_tf_config_has_a_port_for_each_replica() -> None:
    (variable,) = locally(job("TFJob", {"PS": 1, "Worker": 2}))["j-worker-0"]
    assert json.loads(variable[1]) == {
        "cluster": {"ps": ["127.0.0.1:20000"], "worker": ["127.0.0.1:20001", "127.0.0.1:20002"]},
        "task": {"type": "worker", "index": 0},
        "environment": "cloud",
    }


def test_a_tfjob_of_one_replica_gets_no_tf_config() -> None:
    assert in_cluster(job("TFJob", {"Worker": 1})) == {"j-worker-0": []}


def test_the_domain_of_the_cluster_is_appended_where_the_operator_knows_one() -> None:
    (variable,) = in_cluster(job("TFJob", {"Worker": 2}), domain="cluster.local")["j-worker-0"]
    assert "j-worker-1.ns.svc.cluster.local:2222" in variable[1]


@pytest.mark.parametrize(
    ("pod", "config"),
    [
        (
            "j-worker-1",
            '{"cluster":{"worker":{"1":"j-worker-1.ns.svc:2222"},"ps":["j-ps-0.ns.svc:2222"]},'
            '"task":{"type":"worker","index":1}}',
        ),
        ("j-ps-0", '{"cluster":{"worker":{},"ps":["j-ps-0.ns.svc:2222"]},"task":{"type":"ps","index":0}}'),
    ],
)
def test_dynamic_workers_get_the_sparse_form(pod: str, config: str) -> None:
    found = in_cluster(job("TFJob", {"PS": 1, "Worker": 2}, enableDynamicWorker=True))
    assert found[pod] == [("TF_CONFIG", config)]


def test_dynamic_workers_without_parameter_servers_get_null_as_go_writes_it() -> None:
    found = in_cluster(job("TFJob", {"Worker": 2}, enableDynamicWorker=True))
    assert '"ps":null' in found["j-worker-0"][0][1]


# --------------------------------------------------------------------------------------------- PyTorchJob


def test_a_pytorchjob_with_a_master() -> None:
    found = in_cluster(job("PyTorchJob", {"Master": 1, "Worker": 2}))
    shared = [
        ("PYTHONUNBUFFERED", "1"),
        ("MASTER_PORT", "23456"),
        ("PET_MASTER_PORT", "23456"),
        ("MASTER_ADDR", "j-master-0"),
        ("PET_MASTER_ADDR", "j-master-0"),
        ("WORLD_SIZE", "3"),
    ]
    rest = [("PET_NPROC_PER_NODE", "auto"), ("PET_NNODES", "3")]
    for pod, rank in (("j-master-0", "0"), ("j-worker-0", "1"), ("j-worker-1", "2")):
        assert found[pod] == [*shared, ("RANK", rank), ("PET_NODE_RANK", rank), *rest]


def test_locally_all_of_a_pytorchjob_meet_at_the_masters_port() -> None:
    found = {pod: dict(env) for pod, env in locally(job("PyTorchJob", {"Master": 1, "Worker": 1})).items()}
    for pod in ("j-master-0", "j-worker-0"):
        assert (found[pod]["MASTER_ADDR"], found[pod]["MASTER_PORT"]) == ("127.0.0.1", "20000")
        assert (found[pod]["PET_MASTER_ADDR"], found[pod]["PET_MASTER_PORT"]) == ("127.0.0.1", "20000")


@pytest.mark.parametrize(("processes", "world"), [("4", "8"), ("gpu", "2"), ("auto", "2")])
def test_processes_per_node_multiply_the_world_when_they_are_a_number(processes: str, world: str) -> None:
    found = dict(in_cluster(job("PyTorchJob", {"Master": 1, "Worker": 1}, nprocPerNode=processes))["j-worker-0"])
    assert (found["WORLD_SIZE"], found["PET_NPROC_PER_NODE"]) == (world, processes)


def test_without_a_master_there_is_no_rank_and_no_address() -> None:
    found = in_cluster(job("PyTorchJob", {"Worker": 2}))
    assert found["j-worker-1"] == [("PYTHONUNBUFFERED", "1"), ("PET_NPROC_PER_NODE", "auto"), ("PET_NNODES", "2")]


def test_elastic_workers_meet_at_the_first_of_them() -> None:
    policy = {
        "minReplicas": 1,
        "maxReplicas": 4,
        "maxRestarts": 7,
        "nProcPerNode": 2,
        "rdzvId": "run",
        "rdzvConf": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}],
        "standalone": True,
    }
    shape = job("PyTorchJob", {"Worker": 2}, elasticPolicy=policy)
    expected = [
        ("PYTHONUNBUFFERED", "1"),
        ("PET_RDZV_ENDPOINT", "j-worker-0:23456"),
        ("PET_RDZV_BACKEND", "c10d"),
        ("PET_NNODES", "1:4"),
        ("PET_MAX_RESTARTS", "7"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_RDZV_ID", "run"),
        ("PET_RDZV_CONF", "a=1,b=2"),
        ("PET_STANDALONE", ""),
    ]
    assert in_cluster(shape)["j-worker-1"] == expected
    expected[1] = ("PET_RDZV_ENDPOINT", "127.0.0.1:20000")
    assert locally(shape)["j-worker-1"] == expected


@pytest.mark.parametrize(("policy", "nnodes"), [({}, "3:3"), ({"minReplicas": 2}, "2:2"), ({"maxReplicas": 5}, "5:5")])
def test_what_an_elastic_policy_leaves_out_is_the_operators_default(policy: Manifest, nnodes: str) -> None:
    found = in_cluster(job("PyTorchJob", {"Worker": 3}, elasticPolicy=policy))["j-worker-0"]
    assert found == [
        ("PYTHONUNBUFFERED", "1"),
        ("PET_NPROC_PER_NODE", "auto"),
        ("PET_RDZV_ENDPOINT", "j-worker-0:23456"),
        ("PET_RDZV_BACKEND", "c10d"),
        ("PET_NNODES", nnodes),
    ]


@pytest.mark.parametrize(
    ("host", "cluster", "local"),
    [
        ("j-worker-0", "j-worker-0:29400", "127.0.0.1:20000"),
        ("etcd.example.org", "etcd.example.org:29400", "etcd.example.org:29400"),
    ],
)
def test_a_rendezvous_at_another_host_stays_there(host: str, cluster: str, local: str) -> None:
    shape = job("PyTorchJob", {"Worker": 1}, elasticPolicy={"rdzvHost": host, "rdzvPort": 29400})
    assert dict(in_cluster(shape)["j-worker-0"])["PET_RDZV_ENDPOINT"] == cluster
    assert dict(locally(shape)["j-worker-0"])["PET_RDZV_ENDPOINT"] == local


# -------------------------------------------------------------------------- XGBoostJob, JAXJob, PaddleJob


def test_an_xgboostjob() -> None:
    found = in_cluster(job("XGBoostJob", {"Master": 1, "Worker": 2}))
    assert found["j-worker-1"] == [
        ("MASTER_PORT", "9999"),
        ("MASTER_ADDR", "j-master-0"),
        ("WORLD_SIZE", "3"),
        ("RANK", "2"),
        ("PYTHONUNBUFFERED", "1"),
        ("WORKER_PORT", "9999"),
        ("WORKER_ADDRS", "j-worker-0,j-worker-1"),
    ]
    assert dict(found["j-master-0"])["RANK"] == "0"
    assert "WORKER_PORT" not in dict(in_cluster(job("XGBoostJob", {"Master": 1}))["j-master-0"])


def test_a_jaxjob() -> None:
    expected = [
        ("PYTHONUNBUFFERED", "1"),
        ("COORDINATOR_PORT", "6666"),
        ("COORDINATOR_ADDRESS", "j-worker-0"),
        ("NUM_PROCESSES", "2"),
        ("PROCESS_ID", "1"),
    ]
    assert in_cluster(job("JAXJob", {"Worker": 2}))["j-worker-1"] == expected


def test_a_paddlejob_with_a_master() -> None:
    found = in_cluster(job("PaddleJob", {"Master": 1, "Worker": 1}))
    start = [("PYTHONUNBUFFERED", "1"), ("PADDLE_JOB_ID", "j"), ("PADDLE_NNODES", "2")]
    assert found["j-master-0"] == [
        *start,
        ("POD_IP_DUMMY", "status.podIP"),
        ("PADDLE_MASTER", "$(POD_IP_DUMMY):36543"),
        ("PADDLE_SERVER_NUM", "1"),
    ]
    assert found["j-worker-0"] == [*start, ("PADDLE_MASTER", "j-master-0:36543"), ("PADDLE_TRAINER_NUM", "1")]


def test_a_paddlejob_of_workers_only() -> None:
    found = in_cluster(job("PaddleJob", {"Worker": 2}))
    start = [("PYTHONUNBUFFERED", "1"), ("PADDLE_JOB_ID", "j"), ("PADDLE_NNODES", "2")]
    own = [("POD_IP_DUMMY", "status.podIP"), ("PADDLE_MASTER", "$(POD_IP_DUMMY):36543")]
    assert found["j-worker-0"] == [*start, *own]
    assert found["j-worker-1"] == [*start, ("PADDLE_MASTER", "j-worker-0:36543")]


# ------------------------------------------------------------------------------------ what holds for all


def test_an_indexed_job_knows_its_index_unless_the_user_says_it() -> None:
    container: Manifest = {"name": "main", "command": ["true"], "env": [{"name": "A", "value": "1"}]}
    spec = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
    body = {
        "kind": "Job",
        "metadata": {"name": "j"},
        "spec": {**spec, "template": {"spec": {"containers": [container]}}},
    }
    field = "metadata.labels['batch.kubernetes.io/job-completion-index']"
    assert in_cluster(shape_of(body))["j-1"] == [("A", "1"), ("JOB_COMPLETION_INDEX", field)]
    container["env"] = [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]
    assert in_cluster(shape_of(body))["j-1"] == [("JOB_COMPLETION_INDEX", "mine")]


def test_the_users_own_variables_come_first() -> None:
    worker = replica("JAXJob", 1)
    worker["template"]["spec"]["containers"][0]["env"] = [{"name": "MINE", "value": "$(PROCESS_ID)"}]
    found = in_cluster(shape_of(manifest("JAXJob", {"Worker": worker})))["j-worker-0"]
    assert [name for name, _ in found][:2] == ["MINE", "PYTHONUNBUFFERED"]


def test_a_port_of_the_operators_name_is_taken_from_the_container() -> None:
    master = replica("PyTorchJob")
    master["template"]["spec"]["containers"][0]["ports"] = [
        {"name": "metrics", "containerPort": 1},
        {"name": "pytorchjob-port", "containerPort": 29500},
    ]
    found = in_cluster(shape_of(manifest("PyTorchJob", {"Master": master, "Worker": replica("PyTorchJob")})))
    assert dict(found["j-worker-0"])["MASTER_PORT"] == "29500"


def test_roles_are_known_in_any_case_and_have_one_replica_unless_they_say() -> None:
    roles = {"worker": replica("TFJob", None), "ps": replica("TFJob", None)}
    assert list(in_cluster(shape_of(manifest("TFJob", roles)))) == ["j-ps-0", "j-worker-0"]


@pytest.mark.parametrize(
    ("kind", "roles", "pod", "leads"),
    [
        ("TFJob", {"Chief": 1, "Worker": 1}, ("Chief", 0), True),
        ("TFJob", {"Chief": 1, "Worker": 1}, ("Worker", 0), False),
        ("TFJob", {"PS": 1, "Worker": 2}, ("Worker", 0), True),
        ("TFJob", {"PS": 1, "Worker": 2}, ("PS", 0), False),
        ("PyTorchJob", {"Worker": 2}, ("Worker", 0), True),
        ("PyTorchJob", {"Worker": 2}, ("Worker", 1), False),
        ("JAXJob", {"Worker": 2}, ("Worker", 0), True),
        ("XGBoostJob", {"Master": 1, "Worker": 1}, ("Worker", 0), False),
        ("PaddleJob", {"Worker": 1}, ("Worker", 0), False),
    ],
)
def test_the_label_of_the_master(kind: str, roles: dict[str, int], pod: tuple[str, int], leads: bool) -> None:
    found = labels(job(kind, roles), *pod)
    assert (found.get("training.kubeflow.org/job-role") == "master") is leads
    assert found["training.kubeflow.org/replica-type"] == pod[0].lower()
    assert found["training.kubeflow.org/replica-index"] == str(pod[1])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (manifest("TFJob", {"Chef": replica("TFJob")}), "spec.tfReplicaSpecs.Chef: a TFJob has no such role"),
        (manifest("TFJob", {"Worker": replica("TFJob", 0)}), "the TFJob has no replica at all"),
        (manifest("TFJob", {"PS": replica("TFJob")}), "a TFJob needs Chief or Master or Worker"),
        (
            manifest("PyTorchJob", {"Master": replica("PyTorchJob", 2)}),
            "spec.pytorchReplicaSpecs.Master.replicas: 2 is not 1",
        ),
        (
            manifest("TFJob", {"Chief": replica("TFJob", 0), "Worker": replica("TFJob")}),
            "without a Chief the TFJob never ends",
        ),
        (manifest("TFJob", {"Chief": replica("TFJob"), "Master": replica("TFJob")}), "Chief and Master cannot both"),
        (manifest("TFJob", {"Worker": replica("PyTorchJob")}), "wants a container named tensorflow"),
        (manifest("TFJob", {"Worker": replica("TFJob", restartPolicy="Often")}), "'Often' is none of Never, OnFailure"),
        (manifest("TFJob", {"Worker": {**replica("TFJob"), "replicas": "2"}}), "'2' is not a whole number"),
        (manifest("XGBoostJob", {"Worker": replica("XGBoostJob")}), "an XGBoostJob needs the role Master"),
        (
            manifest("PyTorchJob", {"Master": replica("PyTorchJob")}, elasticPolicy={}),
            "spec.elasticPolicy needs the role Worker",
        ),
        (
            manifest("JAXJob", {"Worker": replica("JAXJob")}, runPolicy={"suspend": True}),
            "spec.runPolicy.suspend: true means that the JAXJob never starts",
        ),
        (
            manifest("JAXJob", {"Worker": replica("JAXJob")}, runPolicy={"backoffLimit": -1}),
            "spec.runPolicy.backoffLimit: -1 is not a whole number",
        ),
        (
            {"kind": "Job", "spec": {"completionMode": "Indexed", "completions": 3, "parallelism": 2}},
            "spec.parallelism: 2 would run 3 indexes one after another",
        ),
        (
            {"kind": "Job", "spec": {"completionMode": "Indexed", "completions": 1, "successPolicy": {"rules": []}}},
            "spec.successPolicy is not known locally",
        ),
    ],
)
def test_what_no_controller_would_start_is_refused_with_its_path(body: Manifest, words: str) -> None:
    if "successPolicy" in body["spec"]:
        body["spec"]["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    with pytest.raises(LaunchError) as caught:
        shape_of(body)
    assert words in str(caught.value)
