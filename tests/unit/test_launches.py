"""What a launch says for a cluster, and trials that get more memory after each attempt that ran out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

import evertune.contracts as c
from activities.launch import LaunchPlans, shared_paths
from activities.observing import Observer
from activities.trial import TrialActivities
from evertune import spec
from evertune.domain.records import Budget
from evertune.domain.retry import MAX_MEMORY_RETRIES, MemoryPolicy, retry_again
from evertune.domain.states import FailureClass, TrialState
from evertune.domain.trial import Assignment, AttemptEnd, AttemptRef
from evertune.errors import SpecError
from evertune.protocols import MemoryGrowth
from evertune.store import Store, open_store
from evertune.testing.fake_runner import FakeRunner
from evertune.testing.scripts import Script
from evertune.testing.store.making import create, suggest
from tests.unit.spec.samples import COMPLETE, FAILED, base

GI = 2**30
CONTAINER = "spec__trialTemplate__trialSpec__spec__template__spec__containers__0"
GROWING: dict[str, Any] = {
    "spec__failurePolicy": {"onOOM": {"memory": "x2", "max": "6Gi"}},
    f"{CONTAINER}__resources": {"limits": {"memory": "2Gi"}},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/evertune.db") as store:
        yield store


def started(store: Store, *, backend: str = "kubernetes", **changes: Any) -> str:
    """The uid of an experiment with one suggested trial."""
    experiment = spec.load_experiment(base(**changes))
    uid = create(
        store,
        name="fake",
        namespace="default",
        manifest=experiment.manifest(),
        backend=backend,
        objective=spec.to_objective(experiment),
        space=spec.to_space(experiment),
        budget=Budget(parallel=1),
    ).uid
    suggest(store, uid, 0, [Assignment({"layers": 2, "opt": "sgd"}, labels={"generation": "3"})])
    return uid


def test_a_launch_for_a_cluster_carries_what_only_a_cluster_asks_for(store: Store) -> None:
    uid = started(
        store,
        metadata__labels={"team": "vision"},
        metadata__annotations={"evertune.io/cluster": "gpu"},
        spec__trialTemplate__retain=True,
        spec__trialTemplate__primaryPodLabels={"role": "first"},
    )
    launch = LaunchPlans(store).of(uid, 0, 0).launch
    assert (launch.cluster, launch.retain, launch.memory) == ("gpu", True, None)
    assert (launch.success_condition, launch.failure_condition) == (COMPLETE, FAILED)
    assert launch.primary_pod_labels == {"role": "first"}
    assert launch.labels == {
        "team": "vision",
        "katib.kubeflow.org/experiment": "fake",
        "katib.kubeflow.org/trial": launch.ref.trial_name,
        "generation": "3",
    }
    assert launch.collector is not None
    assert launch.collector.metrics == ("accuracy",)


@pytest.mark.parametrize(
    ("changes", "injected"),
    [
        ({}, True),
        ({"spec__metricsCollectorSpec__collector__kind": "Push"}, True),
        ({"spec__metricsCollectorSpec__collector__kind": "None"}, False),
    ],
)
def test_only_the_collector_none_injects_nothing(store: Store, changes: dict[str, Any], injected: bool) -> None:
    launch = LaunchPlans(store).of(started(store, **changes), 0, 0).launch
    assert (launch.collector is not None) == injected


def test_a_local_launch_has_none_of_it(store: Store) -> None:
    launch = LaunchPlans(store).of(started(store, backend="local"), 0, 0).launch
    assert (launch.collector, launch.labels, launch.success_condition) == (None, {}, "")


def test_what_an_older_version_admitted_is_launched_whatever_has_become_a_mistake_since(store: Store) -> None:
    manifest = spec.load_experiment(base()).manifest()
    manifest["spec"]["trialTemplate"]["successCondition"] = "status..succeeded"
    manifest["spec"]["parallelTrialCount"] = 5000
    with pytest.raises(SpecError):
        spec.load_experiment(manifest)
    uid = create(store, name="old", namespace="default", manifest=manifest).uid
    suggest(store, uid, 0, [Assignment({"layers": 2, "opt": "sgd"})])
    assert LaunchPlans(store).of(uid, 0, 0).launch.manifest["kind"] == "Job"


@pytest.mark.parametrize(
    ("pod", "paths"),
    [
        ({}, ()),
        ({"spec": []}, ()),
        ({"spec": {"volumes": "x", "containers": [{"volumeMounts": "y"}]}}, ()),
        ({"spec": {"volumes": [{"name": ["a"], "emptyDir": {}}, "b"], "containers": [{"volumeMounts": [1]}, 2]}}, ()),
        (
            {
                "spec": {
                    "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {}}],
                    "containers": [
                        {
                            "volumeMounts": [
                                {"name": "a", "mountPath": "/a"},
                                {"name": "b", "mountPath": "/b"},
                                {"name": "a"},
                            ]
                        }
                    ],
                }
            },
            ("/a",),
        ),
    ],
)
def test_the_private_paths_of_any_training_kind_are_its_empty_directories(pod: Any, paths: tuple[str, ...]) -> None:
    experiment = spec.load_experiment(base())
    template = experiment.spec.trial_template if experiment.spec else None
    assert template is not None
    template.trial_spec = {"kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": {"Worker": {"template": pod}}}}
    assert shared_paths(experiment) == paths


# ------------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    ("policy", "retries"),
    [
        (None, 0),
        (MemoryPolicy(2, None), 0),
        (MemoryPolicy(2, 2 * GI, 2 * GI), 0),
        (MemoryPolicy(2, 2 * GI, 3 * GI), 1),  # to 3Gi, and no further
        (MemoryPolicy(2, 2 * GI, 8 * GI), 2),
        (MemoryPolicy(2, 2 * GI, 9 * GI), 3),
        (MemoryPolicy(1.5, 2 * GI), MAX_MEMORY_RETRIES),
        (MemoryPolicy(1, 2 * GI), 0),
    ],
)
def test_a_trial_is_retried_for_as_long_as_it_would_get_more_memory(policy: MemoryPolicy | None, retries: int) -> None:
    def again(earlier: int, failure: FailureClass = FailureClass.OUT_OF_MEMORY) -> bool:
        return retry_again(
            reason="OOMKilled",
            failure=failure,
            signal_retries=0,
            infrastructure_retries=0,
            memory_retries=earlier,
            on_oom=policy,
        )

    assert [again(earlier) for earlier in range(12)] == [True] * retries + [False] * (12 - retries)
    assert not again(0, FailureClass.PROGRAM)


class Hungry(FakeRunner):
    """Every attempt ends for want of memory, except those with at least `needs` times the first one's."""

    needs = 1000.0

    async def wait(self, ref: AttemptRef) -> AttemptEnd:
        end = await super().wait(ref)
        launch = next(launch for launch in self.launches if launch.ref == ref)
        if (launch.memory.factor if launch.memory else 1.0) >= self.needs:
            return end
        return dataclasses.replace(end, reason="OOMKilled", failure=FailureClass.OUT_OF_MEMORY, signal=9)


def activities(store: Store, runner: Hungry) -> TrialActivities:
    nobody = Client.__new__(Client)  # nothing is printed, so nobody is told
    return TrialActivities(store, runner, LaunchPlans(store), Observer(nobody, store), "home-1")


async def attempts(store: Store, runner: Hungry, uid: str) -> list[c.TrialOutcome]:
    """Attempt after attempt, each in activities that know of the earlier ones by the database alone."""
    outcomes: list[c.TrialOutcome] = []
    while not outcomes or outcomes[-1].again:
        request = c.RunTrialRequest(uid=uid, database_id=store.database_id, number=0, attempt=len(outcomes))
        outcome = await ActivityEnvironment().run(activities(store, runner).run_trial, request)
        assert outcome == await ActivityEnvironment().run(activities(store, runner).run_trial, request)
        outcomes.append(outcome)
    return outcomes


async def test_attempts_get_more_memory_uncharged_and_the_last_one_is_charged(store: Store, tmp_path: Path) -> None:
    uid = started(store, **GROWING)
    runner = Hungry(tmp_path / "trials", lambda launch: Script(exit_code=137))
    outcomes = await attempts(store, runner, uid)
    assert [outcome.again for outcome in outcomes] == [True, True, False]
    assert outcomes[-1].trial_state is TrialState.FAILED
    assert [launch.memory for launch in runner.launches] == [
        None,
        MemoryGrowth(factor=2.0, maximum="6Gi"),
        MemoryGrowth(factor=4.0, maximum="6Gi"),
    ]
    assert [record.charged for record in store.attempts(uid, 0)] == [False, False, True]
    assert store.experiment_by_uid(uid).counts.charged == 1


async def test_a_trial_that_has_memory_enough_in_the_end_succeeds_uncharged(store: Store, tmp_path: Path) -> None:
    uid = started(store, **GROWING)
    runner = Hungry(tmp_path / "trials", lambda launch: Script(lines=("accuracy=0.5",)))
    runner.needs = 2.0
    outcomes = await attempts(store, runner, uid)
    assert [outcome.again for outcome in outcomes] == [True, False]
    assert outcomes[-1].trial_state is TrialState.SUCCEEDED
    assert store.experiment_by_uid(uid).counts.charged == 0


async def test_without_a_policy_want_of_memory_is_the_programs_failure(store: Store, tmp_path: Path) -> None:
    uid = started(store)
    (outcome,) = await attempts(store, Hungry(tmp_path / "trials", lambda launch: Script(exit_code=137)), uid)
    assert (outcome.again, outcome.trial_state) == (False, TrialState.FAILED)
