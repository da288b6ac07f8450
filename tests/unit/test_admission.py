"""Admission to a cluster: where a template in a ConfigMap comes from, what is kept of it, where trials go."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

import evertune.contracts as c
from activities.admit import AdmitActivities
from activities.launch import LaunchPlans
from evertune import spec
from evertune.domain.trial import Assignment
from evertune.errors import Problem, SpecError, UnavailableError
from evertune.store import Store, open_store
from evertune.testing.store.making import suggest
from tests.unit.spec.samples import REMOVED, base

KEY = ("team", "templates", "job.yaml")
CONFIG_MAP = {"configMapNamespace": "team", "configMapName": "templates", "templatePath": "job.yaml"}
TEMPLATE = """
apiVersion: batch/v1
kind: Job
spec:
  template:
    spec:
      restartPolicy: Never
      volumes: [{name: scratch, emptyDir: {}}]
      containers:
        - name: training
          image: mnist
          command: [python, train.py, "--layers=${trialParameters.numLayers}", "--opt=${trialParameters.optimizer}"]
          volumeMounts: [{name: scratch, mountPath: /scratch}]
"""


class Cluster:
    """ConfigMaps by their keys. Counts how often it is asked."""

    def __init__(self, texts: dict[tuple[str, str, str], str], problem: Exception | None = None) -> None:
        self.texts, self.problem = texts, problem
        self.asked: list[str | None] = []

    async def fetch(self, cluster: str | None, namespace: str, name: str, key: str) -> str:
        self.asked.append(cluster)
        if self.problem is not None:
            raise self.problem
        try:
            return self.texts[namespace, name, key]
        except KeyError:
            message = f"there is no ConfigMap {namespace}/{name} in the cluster"
            problem = Problem(path="spec.trialTemplate.configMap", type="NotFound", message=message, hint="make one")
            raise SpecError.of([problem]) from None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/evertune.db") as store:
        yield store


def with_config_map(**changes: Any) -> dict[str, Any]:
    return base(
        **{"spec__trialTemplate__trialSpec": REMOVED, "spec__trialTemplate__configMap": dict(CONFIG_MAP), **changes}
    )


def request(document: dict[str, Any], run: str = "run-1", **context: Any) -> c.AdmitRequest:
    data = base64.b64encode(json.dumps(document).encode()).decode()
    return c.AdmitRequest(
        inputs=[c.RawInput(encoding="json/plain", data=data)],
        context=c.StartContext(**context).model_dump(mode="json"),
        workflow_id="experiment/default/fake",
        run_id=run,
        first_run_id=run,
    )


def admission(store: Store, cluster: Cluster | None = None) -> AdmitActivities:
    return AdmitActivities(store, "home-1", "local", False, "temporal", cluster)


def problems_of(error: ApplicationError) -> list[tuple[str, str]]:
    return sorted((problem["type"], problem["path"]) for problem in error.details[0])


async def test_trials_of_a_cluster_go_to_its_queue_and_are_looked_after_as_often_as_local_ones(store: Store) -> None:
    admitted = await admission(store).admit(request(base(), backend="kubernetes"))
    assert (admitted.backend, admitted.queue, admitted.heartbeat_s) == ("kubernetes", c.CLUSTER_QUEUE, 5.0)
    assert store.experiment("default", "fake").home_id is None


async def test_a_template_is_read_once_and_kept_whatever_becomes_of_the_configmap(store: Store) -> None:
    cluster = Cluster({KEY: TEMPLATE})
    annotations = {"evertune.io/backend": "kubernetes", "evertune.io/cluster": "gpu"}
    admit = admission(store, cluster)
    wanted = request(with_config_map(metadata__annotations=annotations))
    first = await admit.admit(wanted)
    assert cluster.asked == ["gpu"]
    cluster.texts.clear()
    assert await admit.admit(wanted) == first  # tried again: its worker died after the commit
    assert cluster.asked == ["gpu"]

    record = store.experiment("default", "fake")
    assert "trialSpec" not in record.manifest["spec"]["trialTemplate"]  # it stays the user's
    suggest(store, record.uid, 0, [Assignment({"layers": 3, "opt": "adam"})])
    plan = LaunchPlans(store).of(record.uid, 0, 0)
    assert "'--layers=3', '--opt=adam'" in str(plan.launch.manifest["spec"])
    assert plan.launch.manifest["metadata"] == {"name": store.trial(record.uid, 0).name, "namespace": "default"}
    assert (plan.launch.cluster, plan.launch.shared_paths) == ("gpu", ("/scratch",))


async def test_a_template_beside_the_experiment_goes_before_the_clusters_and_runs_locally_too(store: Store) -> None:
    cluster = Cluster({KEY: "kind: Nothing"})
    mine = [c.TemplateText(namespace="team", name="templates", key="job.yaml", text=TEMPLATE)]
    mine.append(c.TemplateText(namespace="team", name="templates", key="other.yaml", text="kind: Other"))
    admitted = await admission(store, cluster).admit(request(with_config_map(), templates=mine))
    assert admitted.backend == "local"
    kept = spec.stored_templates(store.experiment("default", "fake").context)
    assert kept == {KEY: TEMPLATE}
    again = with_config_map(metadata__name="two")
    assert (await admission(store, cluster).admit(request(again, "run-2", backend="kubernetes", templates=mine))).uid
    assert cluster.asked == []


async def test_a_template_that_is_not_there_is_told_with_all_else_that_is_wrong(store: Store) -> None:
    wrong = with_config_map(spec__objective__objectiveMetricName="")
    with pytest.raises(ApplicationError) as caught:
        await admission(store, Cluster({})).admit(request(wrong, backend="kubernetes"))
    assert problems_of(caught.value) == [
        ("Invalid", "spec.trialTemplate"),
        ("Required", "spec.objective.objectiveMetricName"),
    ]
    assert "there is no ConfigMap team/templates in the cluster" in str(caught.value.details[0])
    assert "make one" in str(caught.value.details[0])


@pytest.mark.parametrize("backend", ["local", "kubernetes"])
async def test_without_a_cluster_to_read_from_the_template_is_wanted_in_the_file(store: Store, backend: str) -> None:
    annotations = {"evertune.io/backend": backend}
    with pytest.raises(ApplicationError) as caught:
        await admission(store).admit(request(with_config_map(metadata__annotations=annotations)))
    assert problems_of(caught.value) == [("Invalid", "spec.trialTemplate")]
    assert "into the same file" in str(caught.value.details[0])


async def test_what_comes_from_the_cluster_is_judged_as_if_it_stood_in_the_file(store: Store) -> None:
    bad = TEMPLATE.replace("${trialParameters.optimizer}", "${trialParameters.optimiser}").replace("image: mnist", "")
    with pytest.raises(ApplicationError) as caught:
        await admission(store, Cluster({KEY: bad})).admit(request(with_config_map(), backend="kubernetes"))
    assert ("Invalid", "spec.trialTemplate.trialParameters[1].name") in problems_of(caught.value)
    bare = TEMPLATE.replace("image: mnist", "imagePullPolicy: Always")
    with pytest.raises(ApplicationError) as caught:
        await admission(store, Cluster({KEY: bare})).admit(request(with_config_map(), backend="kubernetes"))
    assert problems_of(caught.value) == [("Required", "spec.trialTemplate.configMap")]


async def test_a_cluster_that_does_not_answer_is_asked_again_later(store: Store) -> None:
    away = Cluster({}, UnavailableError("the cluster does not answer"))
    with pytest.raises(ApplicationError) as caught:
        await admission(store, away).admit(request(with_config_map(), backend="kubernetes"))
    assert not caught.value.non_retryable


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"spec": []}, "spec"),
        ({"metadata": 1, "spec": {"trialTemplate": {"configMap": CONFIG_MAP}}}, "metadata"),
        (with_config_map(metadata__annotations=["a"]), "metadata.annotations"),
        (with_config_map(spec__trialTemplate__configMap={"configMapName": 7}), "spec.trialTemplate.configMap"),
    ],
)
async def test_a_document_of_any_shape_gets_its_problems(store: Store, document: dict[str, Any], words: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        await admission(store, Cluster({KEY: TEMPLATE})).admit(request(document, backend="kubernetes"))
    assert caught.value.type == "SpecError"
    assert any(path.startswith(words) for _, path in problems_of(caught.value))


async def test_what_is_to_be_minded_is_kept_with_the_experiment(store: Store) -> None:
    few = base(
        spec__algorithm={"algorithmName": "tpe", "algorithmSettings": [{"name": "n_startup_jobs", "value": "6"}]}
    )
    admitted = await admission(store).admit(request(few))
    (warning,) = store.experiment_by_uid(admitted.uid).warnings
    assert (warning.path, warning.line) == ("spec.maxTrialCount", None)
    assert "its model is never used" in warning.message
    assert warning.hint
    assert (await admission(store).admit(request(few))).uid == admitted.uid, "tried again"


async def test_of_a_cluster_is_minded_what_hurts_in_a_cluster(store: Store) -> None:
    document = base(metadata__name="here")
    here = await admission(store).admit(request(document, run="run-2", backend="local"))
    there = await admission(store).admit(request(base(metadata__name="there"), run="run-3", backend="kubernetes"))
    found = [{warning.path for warning in store.experiment_by_uid(each.uid).warnings} for each in (here, there)]
    assert found[0] == set()
    assert [path.endswith("annotations[sidecar.istio.io/inject]") for path in found[1]] == [True]
