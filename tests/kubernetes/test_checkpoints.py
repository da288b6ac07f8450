"""Checkpoints of trials in clusters: what the annotation says, what a pod is given, and who is warned."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from activities.checkpoints import MOUNT, PARENT_MOUNT, checkpoints_of
from activities.runners.kubernetes.checkpoints import COPY
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState
from evertune.errors import LaunchError
from evertune.protocols import Checkpoints, JsonDict
from evertune.spec import check, load_stored
from evertune.spec.checkpoints import parse_root
from evertune.spec.document import Document
from evertune.testing.store.making import new_experiment
from tests.kubernetes.objects import environment, job, launched, named, pod
from tests.kubernetes.rendering import render
from tests.workflow.harness import manifest

ANNOTATION = "evertune.io/checkpoints"


def asked(algorithm: str, place: str | None, **settings: str) -> dict[str, Any]:
    made = manifest("exp", maxTrialCount=9)
    given = [{"name": key, "value": value} for key, value in settings.items()]
    made["spec"]["algorithm"] = {"algorithmName": algorithm, "algorithmSettings": given}
    annotations = {"evertune.io/backend": "kubernetes"} | ({} if place is None else {ANNOTATION: place})
    made["metadata"]["annotations"] = annotations
    return made


def of_trial(place: str | None, parent: int | None, *, algorithm: str = "hyperband", **settings: str) -> Checkpoints:
    new = new_experiment()
    record = ExperimentRecord(
        uid="0" * 32, namespace="team", name="exp", workflow_id="w", state=ExperimentState.RUNNING, seed=1,
        algorithm=algorithm,
        objective=new.objective, space=new.space, budget=new.budget, backend="kubernetes", manifest={},
        created=new.created,
    )  # fmt: skip
    labels = {} if parent is None else {"parent": str(parent)}
    return checkpoints_of(record, load_stored(asked(algorithm, place, **settings)), 7, labels, None)


@pytest.mark.parametrize("text", ["pvc://claim/a/b", "pvc://claim", "s3://bucket/x", "gs://b", "/mnt/shared/"])
def test_a_place_is_a_claim_a_uri_or_a_path(text: str) -> None:
    assert parse_root(text).path is not None


@pytest.mark.parametrize("text", ["", "pvc://", "pvc://UPPER/x", "relative/x", "/", "s3://", "/a/../b", "pvc:claim"])
def test_anything_else_is_refused_where_it_stands(text: str) -> None:
    verdict = check(Document(source="", data=asked("random", text)))
    (problem,) = verdict.problems
    assert problem.path == f"metadata.annotations[{ANNOTATION}]"
    assert "pvc://CLAIM/PATH" in (problem.hint or "")


def test_who_goes_on_from_checkpoints_without_a_place_for_them_is_warned() -> None:
    warned = [
        [warning.path for warning in check(Document(source="", data=asked(name, place))).warnings].count(
            f"metadata.annotations[{ANNOTATION}]"
        )
        for name, place in (("hyperband", None), ("hyperband", "s3://b/x"), ("random", None))
    ]
    assert warned == [1, 0, 0]


def test_a_uri_gets_a_directory_for_each_experiment_and_trial() -> None:
    given = of_trial("s3://bucket/x/", 3)
    assert given.own is not None
    assert given.own.startswith("s3://bucket/x/exp-")
    assert given.own.endswith("/7")
    assert given.parent == given.own[:-1] + "3"
    assert of_trial("s3://bucket/x/", None).parent is None
    made = environment(named(pod(render(launched(job(), checkpoints=given)))["containers"], "main"))
    assert made["EVERTUNE_CHECKPOINT_DIR"] == given.own
    assert made["EVERTUNE_PARENT_CHECKPOINT_DIR"] == given.parent


def mounts(spec: JsonDict, name: str = "containers", container: str = "main") -> dict[str, tuple[str, bool]]:
    return {
        mount["mountPath"]: (mount["subPath"], bool(mount.get("readOnly")))
        for mount in named(spec[name], container)["volumeMounts"]
        if mount["name"] == "evertune-checkpoints"
    }


def test_a_claim_is_mounted_for_writing_at_the_trials_own_directory_and_for_reading_at_its_parents() -> None:
    given = of_trial("pvc://shared/runs", 3)
    assert (given.own, given.parent) == (MOUNT, PARENT_MOUNT)
    spec = pod(render(launched(job(), checkpoints=given)))
    claims = [volume for volume in spec["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"name": "evertune-checkpoints", "persistentVolumeClaim": {"claimName": "shared"}}]
    own, parent = given.below
    assert parent is not None
    assert own.startswith("runs/exp-")
    assert mounts(spec) == {MOUNT: (own, False), PARENT_MOUNT: (parent, True)}
    assert "evertune-checkpoint" not in [volume["name"] for volume in spec["volumes"]], "nothing that ends with the pod"


def test_a_child_of_pbt_begins_with_a_copy_where_katibs_container_looks_for_it() -> None:
    settings = {"suggestion_trial_dir": "/opt/ckpt/", "n_population": "5", "truncation_threshold": "0.2"}
    given = of_trial("pvc://shared", 3, algorithm="pbt", **settings)
    spec = pod(render(launched(job(), checkpoints=given)))
    assert mounts(spec)["/opt/ckpt"] == mounts(spec)[MOUNT]
    assert mounts(spec, "initContainers", "evertune-inherit").keys() == {MOUNT, PARENT_MOUNT}
    first = pod(render(launched(job(), checkpoints=of_trial("pvc://shared", None, algorithm="pbt", **settings))))
    assert "evertune-inherit" not in [each["name"] for each in first["initContainers"]]


def test_a_volume_of_our_name_is_refused_in_one_sentence() -> None:
    manifest = job()
    manifest["spec"]["template"]["spec"]["volumes"] = [{"name": "evertune-checkpoints", "emptyDir": {}}]
    with pytest.raises(LaunchError, match="the pod has a volume evertune-checkpoints"):
        render(launched(manifest, checkpoints=of_trial("pvc://shared", None)))


def test_the_copy_is_made_once_and_again_when_it_was_killed_half_way(tmp_path: Path) -> None:
    own, parent = tmp_path / "own", tmp_path / "parent"
    own.mkdir()
    parent.mkdir()
    (parent / "state").write_text("old")
    (parent / ".evertune-inherited-3").touch()
    (own / "half").write_text("of an earlier try")
    script = COPY.replace(PARENT_MOUNT, str(parent)).replace(MOUNT, str(own))
    busybox = tmp_path / "busybox"
    busybox.write_text('#!/bin/sh\nexec "$@"\n')
    busybox.chmod(0o755)

    def run() -> None:
        subprocess.run(["/bin/sh", "-c", script, str(busybox), "7"], check=True)

    run()
    assert {each.name for each in own.iterdir()} == {"state", ".evertune-inherited-3", ".evertune-inherited-7"}
    (own / "state").write_text("new")
    run()
    assert (own / "state").read_text() == "new"
