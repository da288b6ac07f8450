"""The table of kinds, and what it says of manifests, well made or not."""

from __future__ import annotations

from typing import Any

import pytest

from evertune.spec.conditions import Condition
from evertune.spec.kinds import (
    JOB_ROLE,
    KINDS,
    REPLICA_INDEX,
    REPLICA_TYPE,
    TRAINING_KINDS,
    container_names,
    kind_of,
    pod_templates,
    primary_pod_labels,
    primary_role,
)
from evertune.spec.memory import memory_of
from evertune.spec.quantity import parse_factor, parse_quantity


def training(kind: str, *roles: str, version: str = "kubeflow.org/v1", **container: Any) -> dict[str, Any]:
    replica = {"template": {"spec": {"containers": [{"name": KINDS[kind].container, "image": "i", **container}]}}}
    return {"apiVersion": version, "kind": kind, "spec": {KINDS[kind].replicas_field: dict.fromkeys(roles, replica)}}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_a_kinds_own_conditions_tell_its_ends_from_each_other_and_from_all_before(kind: Any) -> None:
    success, failure = Condition.parse(kind.success_condition), Condition.parse(kind.failure_condition)
    for status in kind.samples.succeeded:
        assert success.holds({"status": status})
        assert not failure.holds({"status": status})
    for status in kind.samples.failed:
        assert failure.holds({"status": status})
        assert not success.holds({"status": status})
    for status in ({}, *kind.samples.running):
        assert not success.holds({"status": status})
        assert not failure.holds({"status": status})


@pytest.mark.parametrize(
    ("kind", "roles", "primary"),
    [
        ("TFJob", ["Worker", "PS"], "Worker"),
        ("TFJob", ["Worker", "Chief"], "Chief"),
        ("TFJob", ["worker", "master"], "master"),
        ("TFJob", ["PS", "Evaluator"], None),
        ("PyTorchJob", ["Worker", "Master"], "Master"),
        ("PyTorchJob", ["Worker"], "Worker"),
        ("XGBoostJob", ["Worker", "Master"], "Master"),
        ("MPIJob", ["Worker", "Launcher"], "Launcher"),
        ("JAXJob", ["Worker"], "Worker"),
        ("PaddleJob", ["Worker", "Master"], "Master"),
    ],
)
def test_the_role_that_reports_is_the_operators_master(kind: str, roles: list[str], primary: str | None) -> None:
    manifest = training(kind, *roles)
    assert primary_role(manifest) == primary
    assert [role for _, role, _ in pod_templates(manifest)] == roles
    assert container_names(manifest) == [KINDS[kind].container]


def test_primary_pod_labels_are_katibs_where_those_find_a_pod() -> None:
    for kind in TRAINING_KINDS:
        assert primary_pod_labels(training(kind, *KINDS[kind].primary_roles)) == {JOB_ROLE: "master"}
    assert primary_pod_labels(training("MPIJob", "Launcher", version="kubeflow.org/v2beta1")) == {JOB_ROLE: "launcher"}
    assert primary_pod_labels(training("PaddleJob", "Worker")) == {REPLICA_TYPE: "worker", REPLICA_INDEX: "0"}
    assert primary_pod_labels({"apiVersion": "batch/v1", "kind": "Job"}) == {}


def test_a_kind_is_known_by_its_group_too() -> None:
    assert kind_of({"apiVersion": "batch/v1", "kind": "Job"}) is KINDS["Job"]
    assert kind_of({"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job"}) is None
    assert kind_of({"apiVersion": "kubeflow.org/v2beta1", "kind": "MPIJob"}) is KINDS["MPIJob"]
    assert kind_of({"apiVersion": "v1", "kind": "Pod"}) is None
    assert kind_of({"apiVersion": 1, "kind": []}) is None


@pytest.mark.parametrize("spec", [None, [], "x", {"template": []}, {"tfReplicaSpecs": {"Worker": 1, 2: {}}}, {1: {}}])
@pytest.mark.parametrize("kind", ["Job", "TFJob", "Workflow", "Other"])
def test_a_manifest_of_any_shape_has_templates_or_none(kind: str, spec: Any) -> None:
    manifest = {"apiVersion": "batch/v1", "kind": kind, "spec": spec}
    assert list(pod_templates(manifest)) == []
    assert container_names(manifest) == []
    assert primary_role(manifest) is None
    assert memory_of(manifest, "x") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("64Gi", 64 * 2**30), ("1.5G", 1.5e9), ("500m", 0.5), ("1e3", 1000), (128, 128), ("128974848", 128974848),
        (".5Ki", 512), ("1E", 1e18), ("+1k", 1000), ("1n", 1e-9),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_reads_them(text: str | int, number: float) -> None:
    assert parse_quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "Gi", "64GB", "64gi", "1 Gi", "1e", "nan", "1e9999", "١Gi", True, "1" * 40])
def test_what_is_no_quantity_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


def test_a_factor_is_written_with_an_x() -> None:
    assert parse_factor("x1.5") == 1.5
    for text in ("1.5", "1.5x", "x", "x-2", "x1e3", 1.5, None):
        with pytest.raises(ValueError, match="factor"):
            parse_factor(text)


def test_the_memory_of_a_trial_is_the_least_that_its_training_containers_are_given() -> None:
    def replica(**resources: Any) -> dict[str, Any]:
        helper = {"name": "helper", "resources": {"limits": {"memory": "1Mi"}}}
        return {"template": {"spec": {"containers": [helper, {"name": "pytorch", "resources": resources}]}}}

    master = replica(limits={"memory": "2Gi"}, requests={"memory": "1Gi"})
    roles = {"Master": master, "Worker": replica(requests={"memory": "4Gi"})}
    manifest = {"kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": roles}}
    assert memory_of(manifest, "pytorch") == 2 * 2**30
    assert memory_of(manifest, "other") == 2**20
