"""Which replica's end is the end of a distributed job, by the operator's rules and in the order of events."""

from __future__ import annotations

from typing import Any

import pytest

from activities.runners.local.outcome import ExitRecord, Why
from activities.runners.local.replicas import replicas_of
from activities.runners.local.verdict import Ended, Outcome, Rules, Verdict, decide
from tests.unit.runners.test_operator_env import manifest, replica


def rules(kind: str, roles: dict[str, int], **spec: Any) -> Rules:
    body = manifest(kind, {role: replica(kind, count) for role, count in roles.items()}, **spec)
    job = replicas_of(body, "x")
    return Rules(
        members=tuple(member.name for member in job.members),
        primary=next(member.name for member in job.members if member.primary),
        needed=frozenset(member.name for member in job.members if member.needed),
        fatal=frozenset(member.name for member in job.members if member.fatal),
        any_suffices=job.any_suffices,
    )


def ends(*events: tuple[str, int | Why]) -> dict[str, Ended]:
    """Each a little later than the one before it; a number is an exit status."""
    return {
        name: Ended(ExitRecord(how, Why.END, 1) if isinstance(how, int) else ExitRecord(None, how, 1), at)
        for at, (name, how) in enumerate(events)
    }


CHIEF = {"Chief": 1, "PS": 1, "Worker": 2}
WORKERS = {"PS": 1, "Worker": 2}
WITH_MASTER = {"Master": 1, "Worker": 2}
ALL: dict[str, Any] = {"successPolicy": "AllWorkers"}
ELASTIC: dict[str, Any] = {"elasticPolicy": {}}
DYNAMIC: dict[str, Any] = {"enableDynamicWorker": True}
NOTHING: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("kind", "roles", "spec", "events", "expected"),
    [
        ("TFJob", CHIEF, NOTHING, [("chief-0", 0)], "succeeded by chief-0"),
        ("TFJob", CHIEF, NOTHING, [("worker-0", 0), ("worker-1", 0), ("ps-0", 0)], "open"),
        ("TFJob", CHIEF, NOTHING, [("worker-1", 1)], "failed by worker-1"),
        ("TFJob", CHIEF, NOTHING, [("ps-0", 2)], "failed by ps-0"),
        ("TFJob", WORKERS, NOTHING, [("worker-0", 0)], "succeeded by worker-0"),
        ("TFJob", WORKERS, NOTHING, [("worker-1", 0)], "open"),
        ("TFJob", WORKERS, ALL, [("worker-0", 0)], "open"),
        ("TFJob", WORKERS, ALL, [("worker-1", 0), ("worker-0", 0)], "succeeded by worker-0"),
        ("TFJob", WORKERS, DYNAMIC, [("worker-1", 1)], "open"),
        ("TFJob", WORKERS, DYNAMIC, [("worker-1", 1), ("worker-0", 0)], "succeeded by worker-0"),
        ("TFJob", WORKERS, DYNAMIC, [("ps-0", 1)], "failed by ps-0"),
        ("TFJob", {"Worker": 2}, DYNAMIC, [("worker-1", 1), ("worker-0", 3)], "failed by worker-1"),
        ("PyTorchJob", WITH_MASTER, NOTHING, [("worker-0", 0), ("worker-1", 0)], "open"),
        ("PyTorchJob", WITH_MASTER, NOTHING, [("master-0", 0)], "succeeded by master-0"),
        ("PyTorchJob", WITH_MASTER, NOTHING, [("worker-1", 137)], "failed by worker-1"),
        ("PyTorchJob", {"Worker": 2}, NOTHING, [("worker-0", 0)], "open"),
        ("PyTorchJob", {"Worker": 2}, NOTHING, [("worker-0", 0), ("worker-1", 0)], "succeeded by worker-1"),
        ("PyTorchJob", {"Worker": 2}, ELASTIC, [("worker-1", 0)], "succeeded by worker-1"),
        ("XGBoostJob", WITH_MASTER, NOTHING, [("master-0", 0)], "succeeded by master-0"),
        ("XGBoostJob", WITH_MASTER, NOTHING, [("worker-0", 0), ("worker-1", 0)], "open"),
        ("JAXJob", {"Worker": 2}, NOTHING, [("worker-0", 0)], "open"),
        ("JAXJob", {"Worker": 2}, NOTHING, [("worker-0", 0), ("worker-1", 0)], "succeeded by worker-1"),
        ("JAXJob", {"Worker": 2}, NOTHING, [("worker-0", 0), ("worker-1", 1)], "failed by worker-1"),
        ("PaddleJob", WITH_MASTER, NOTHING, [("master-0", 0)], "succeeded by master-0"),
        ("PaddleJob", {"Worker": 2}, NOTHING, [("worker-1", 0), ("worker-0", 0)], "succeeded by worker-0"),
        ("JAXJob", {"Worker": 2}, NOTHING, [("worker-0", Why.LOST)], "lost by worker-0"),
        ("TFJob", WORKERS, DYNAMIC, [("worker-1", Why.DEADLINE)], "failed by worker-1"),
        ("JAXJob", {"Worker": 2}, NOTHING, [("worker-0", Why.OUT_OF_MEMORY)], "failed by worker-0"),
    ],
)
def test_the_rules_of_the_kinds(
    kind: str, roles: dict[str, int], spec: dict[str, Any], events: list[tuple[str, int | Why]], expected: str
) -> None:
    verdict = decide(rules(kind, roles, **spec), ends(*events))
    assert (f"{verdict.outcome} by {verdict.by}" if verdict else "open") == expected


def test_who_looks_late_finds_what_happened_first() -> None:
    found = rules("TFJob", {"Worker": 2})
    assert decide(found, ends(("worker-0", 0), ("worker-1", 1))) == Verdict(Outcome.SUCCEEDED, "worker-0")
    assert decide(found, ends(("worker-1", 1), ("worker-0", 0))) == Verdict(Outcome.FAILED, "worker-1")


def test_at_the_same_instant_the_failure_decides() -> None:
    same = {name: Ended(end.record, 7) for name, end in ends(("worker-0", 0), ("worker-1", 1)).items()}
    assert decide(rules("TFJob", {"Worker": 2}), same) == Verdict(Outcome.FAILED, "worker-1")


def test_what_happens_after_a_stop_decides_nothing() -> None:
    found = rules("TFJob", {"Worker": 2})
    after = ends(("worker-1", 1), ("worker-0", Why.STOP))
    assert decide(found, ends(("worker-1", 1)), stop_at=0) is None
    assert decide(found, after, stop_at=0) == Verdict(Outcome.STOPPED, "worker-0")
    assert decide(found, after, stop_at=1) == Verdict(Outcome.FAILED, "worker-1")


@pytest.mark.parametrize(
    ("labels", "primary"),
    [
        ({}, "chief-0"),
        ({"training.kubeflow.org/job-role": "master"}, "chief-0"),
        ({"training.kubeflow.org/replica-type": "worker"}, "worker-0"),
        ({"training.kubeflow.org/replica-type": "worker", "training.kubeflow.org/replica-index": "1"}, "worker-1"),
    ],
)
def test_the_replica_that_reports_is_the_one_with_the_primary_pod_labels(labels: dict[str, str], primary: str) -> None:
    body = manifest("TFJob", {role: replica("TFJob", count) for role, count in CHIEF.items()})
    job = replicas_of(body, "tensorflow", labels)
    assert [member.name for member in job.members if member.primary] == [primary]


@pytest.mark.parametrize(
    ("policy", "limit", "runs", "from_status"),
    [
        ("Never", None, 1, 1),
        ("OnFailure", None, 4, 1),
        ("Always", None, 4, 1),
        ("ExitCode", None, 4, 128),
        ("OnFailure", 0, 1, 1),
        ("OnFailure", 2, 3, 1),
        ("OnFailure", 50, 4, 1),
    ],
)
def test_how_often_a_replica_is_run_again(policy: str, limit: int | None, runs: int, from_status: int) -> None:
    run_policy = {} if limit is None else {"backoffLimit": limit}
    body = manifest("TFJob", {"Worker": replica("TFJob", 1, restartPolicy=policy)}, runPolicy=run_policy)
    (member,) = replicas_of(body, "tensorflow").members
    assert (member.runs, member.restarts_from) == (runs, from_status)
