"""`evertune manifest rbac`: what an administrator applies, and for which kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.spec import rights
from tests.workflow.harness import manifest

Shell = Callable[..., tuple[int, str, str]]
WHOLE = list(rights.WHOLE)


def resources(role: dict[str, Any]) -> set[str]:
    return {
        f"{name}.{group}".rstrip(".")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
    }


def experiment(tmp_path: Path, api_version: str, kind: str) -> str:
    document = manifest(kind.lower())
    trial = document["spec"]["trialTemplate"]["trialSpec"]
    if kind != "Job":
        trial["spec"] = {"tasks": [trial["spec"]]}
        document["spec"]["trialTemplate"] |= {
            "successCondition": 'status.conditions.#(type=="Done")#',
            "failureCondition": 'status.conditions.#(type=="Broken")#',
            "primaryPodLabels": {"role": "main"},
        }
    trial |= {"apiVersion": api_version, "kind": kind}
    path = tmp_path / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_role_and_its_binding_are_printed_and_each_right_is_explained_beside_them(shell: Shell) -> None:
    code, out, err = shell("manifest", "rbac", "-n", "team-vision", "--worker-namespace", "tuning")
    role, binding = yaml.safe_load_all(out)
    assert (code, role["kind"], binding["kind"]) == (0, "Role", "RoleBinding")
    assert role["metadata"] == binding["metadata"] == {"name": "evertune-trials", "namespace": "team-vision"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "evertune-worker", "namespace": "tuning"}]
    assert {"jobs.batch", "tfjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org"} <= resources(role)
    for line in err.splitlines():
        name, _, reason = line.partition(" ")
        assert name in resources(role)
        assert reason.strip()
    assert len(err.splitlines()) == len(resources(role))


def test_with_files_only_the_kinds_of_their_trials_are_asked_for(shell: Shell, tmp_path: Path) -> None:
    files = [experiment(tmp_path, "batch/v1", "Job"), experiment(tmp_path, "argoproj.io/v1alpha1", "Workflow")]
    code, out, _ = shell("manifest", "rbac", "-f", files[0], "-f", files[1])
    role, _ = yaml.safe_load_all(out)
    assert code == 0
    assert [rule for rule in role["rules"] if rule["verbs"] == WHOLE] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": WHOLE},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": WHOLE},
    ]
    assert {"pods", "pods/log", "events", "configmaps"} <= resources(role)


def test_a_file_with_problems_gets_them_named_and_no_role(shell: Shell, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(experiment(tmp_path, "batch/v1", "Job")).read_text().replace("grid", "gridd"))
    code, out, err = shell("manifest", "rbac", "-f", str(bad))
    assert (code, out) == (2, "")
    assert "gridd" in err


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("Job", "jobs"),
        ("PyTorchJob", "pytorchjobs"),
        ("PipelineRun", "pipelineruns"),
        ("Policy", "policies"),
        ("Gateway", "gateways"),
        ("Mesh", "meshes"),
        ("Sandbox", "sandboxes"),
    ],
)
def test_a_resource_is_called_as_authors_of_kinds_call_theirs(kind: str, plural: str) -> None:
    assert rights.resource_of({"apiVersion": "g.io/v1", "kind": kind}) == ("g.io", plural)


def test_what_has_no_kind_has_no_resource() -> None:
    assert rights.resource_of({"apiVersion": "v1"}) is None
    assert rights.resource_of({"apiVersion": "v1", "kind": "Pod"}) == ("", "pods")
