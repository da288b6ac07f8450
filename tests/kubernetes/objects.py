"""Objects and launches for the tests of what is rendered, and how to find one's way in what comes out."""

from __future__ import annotations

from typing import Any

from activities.runners.kubernetes.render import Rendered
from evertune.domain.metrics import CollectorSpec
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict, Launch
from evertune.spec.kinds import pod_templates
from tests.kubernetes.rendering import TOKEN, UID

STDOUT = CollectorSpec(kind="StdOut", metrics=("loss",))


def job(*, container: JsonDict | None = None, pod: JsonDict | None = None, **spec: Any) -> JsonDict:
    main = {"name": "main", "image": "example.io/train:1", "command": ["python", "train.py"], **(container or {})}
    template = {"spec": {"restartPolicy": "Never", "containers": [main], **(pod or {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "exp-1", "namespace": "team"},
        "spec": {"template": template, **spec},
    }


def training(kind: str, field: str, container: str, **roles: JsonDict) -> JsonDict:
    replicas = {
        role: {
            "template": {"spec": {"containers": [{"name": container, "image": "i:1", "command": ["train"]}]}},
            **given,
        }
        for role, given in roles.items()
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": "exp-1", "namespace": "team"},
        "spec": {field: replicas},
    }


def launched(manifest: JsonDict, **fields: Any) -> Launch:
    given = {
        "ref": AttemptRef(UID, 1, 0, "exp-1"),
        "primary_container": "main",
        "working_dir": "/",
        "parameters": {"lr": 0.1},
        "ingest_url": "https://gateway.example:8443",
        "token": TOKEN,
        "collector": STDOUT,
        "labels": {"katib.kubeflow.org/experiment": "exp", "katib.kubeflow.org/trial": "exp-1"},
        **fields,
    }
    return Launch(manifest=manifest, **given)


def pod(made: Rendered, role: str = "") -> JsonDict:
    (spec,) = [template["spec"] for _, named, template in pod_templates(made.manifest) if named == role]
    found: JsonDict = spec
    return found


def named(containers: list[JsonDict], name: str) -> JsonDict:
    (found,) = [each for each in containers if each["name"] == name]
    return found


def environment(container: JsonDict) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env", ())}


def collector(made: Rendered, role: str = "") -> JsonDict:
    spec = pod(made, role)
    return named([*spec["initContainers"], *spec["containers"]], "evertune-collector")
