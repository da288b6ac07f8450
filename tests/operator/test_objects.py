"""What is read from an object and written to it: the manifest, what changed, the status and its bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.records import Budget, Counts, ExperimentRecord, TrialRecord
from evertune.domain.space import SearchSpace
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import Problem
from evertune.kubectl import status as st
from evertune.kubectl.objects import Change, Object, change_of

SPEC: dict[str, Any] = {
    "objective": {"type": "maximize", "goal": 0.9, "objectiveMetricName": "accuracy"},
    "maxTrialCount": 12,
    "parallelTrialCount": 3,
    "trialTemplate": {"trialSpec": {"kind": "Job"}},
}


def an_object(**spec: Any) -> Object:
    metadata = {
        "name": "digits",
        "namespace": "team",
        "uid": "u-1",
        "generation": 2,
        "resourceVersion": "77",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{}],
        "finalizers": ["evertune.io/operator"],
        "labels": {"team": "vision"},
        "annotations": {
            "note": "mine",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "operator.evertune.io/release": "{}",
        },
    }
    body = {"apiVersion": "evertune.io/v1alpha1", "kind": "Experiment", "metadata": metadata, "status": {"state": "x"}}
    return Object({**body, "spec": {**SPEC, **spec}})


def test_the_manifest_is_the_object_without_what_servers_and_clients_wrote_into_it() -> None:
    assert an_object().manifest == {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {
            "name": "digits",
            "namespace": "team",
            "labels": {"team": "vision"},
            "annotations": {"note": "mine"},
        },
        "spec": SPEC,
    }


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        ({}, Change(budget={})),
        ({"maxTrialCount": 20, "parallelTrialCount": 1}, Change(budget={"maxTrialCount": 20, "parallelTrialCount": 1})),
        ({"objective": {**SPEC["objective"], "goal": 0.95}}, Change(budget={"goal": 0.95})),
        ({"maxFailedTrialCount": 2}, Change(budget={"maxFailedTrialCount": 2})),
        ({"maxTrialCount": None}, Change(budget={}, refused=("maxTrialCount (removed)",))),
        ({"seed": 4}, Change(budget={}, refused=("seed",))),
        (
            {"objective": {**SPEC["objective"], "type": "minimize"}, "trialTemplate": {}, "maxTrialCount": 5},
            Change(budget={"maxTrialCount": 5}, refused=("objective", "trialTemplate")),
        ),
    ],
)
def test_a_change_is_a_new_budget_or_has_the_names_of_what_cannot_change(spec: dict[str, Any], change: Change) -> None:
    admitted = an_object().origin

    assert change_of(an_object(**spec), admitted["fixed"], admitted["budget"]) == change


def test_what_is_kept_with_the_experiment_is_small_however_large_the_spec_is() -> None:
    assert len(json.dumps(an_object(trialTemplate={"trialSpec": {"x": "y" * 1_000_000}}).origin)) < 1000


@pytest.mark.parametrize("spec", [None, "text", [], {"objective": "text"}])
def test_a_spec_of_any_shape_is_handed_on_to_be_judged(spec: Any) -> None:
    seen = Object({"metadata": {"name": "x", "uid": "u"}, "spec": spec})

    assert seen.manifest["spec"] == spec
    assert json.dumps(seen.origin)


# ----------------------------------------------------------------------------------------------------- status


def a_trial(**over: Any) -> TrialRecord:
    trial = TrialRecord(
        number=3,
        name="digits-abcdefgh",
        state=TrialState.SUCCEEDED,
        parameters={"lr": 0.01, "layers": 2},
        objective="0.93",
        objective_value=0.93,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return replace(trial, **over)


def a_record(**over: Any) -> ExperimentRecord:
    record = ExperimentRecord(
        uid="a" * 32,
        namespace="team",
        name="digits",
        workflow_id="experiment/team/digits",
        state=ExperimentState.RUNNING,
        reason="ExperimentRunning",
        algorithm="random",
        seed=1,
        objective=Objective(type=ObjectiveType.MAXIMIZE, metric="accuracy"),
        space=SearchSpace(parameters=()),
        budget=Budget(parallel=3, max_trials=30),
        backend="kubernetes",
        manifest={},
        counts=Counts(created=16, running=3, succeeded=9, failed=1, early_stopped=1, metrics_unavailable=1),
        best=a_trial(),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        started=datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC),
    )
    return replace(record, **over)


def test_the_status_says_how_the_experiment_stands() -> None:
    assert st.of_record(a_record()) == {
        "state": "Running",
        "reason": "ExperimentRunning",
        "message": "",
        "experimentUid": "a" * 32,
        "workflowId": "experiment/team/digits",
        "trials": "12/30",
        "running": 3,
        "succeeded": 9,
        "earlyStopped": 1,
        "failed": 2,
        "best": {
            "trial": "digits-abcdefgh",
            "value": "0.93",
            "assignments": [{"name": "lr", "value": "0.01"}, {"name": "layers", "value": "2"}],
        },
        "startTime": "2026-01-01T00:00:05Z",
        "completionTime": None,
    }


def test_without_a_limit_trials_are_a_count() -> None:
    assert st.of_record(a_record(budget=Budget()))["trials"] == "12"


def test_a_status_stays_small_whatever_users_write() -> None:
    best = a_trial(parameters={f"p{i}" + "n" * 500: "v" * 5000 for i in range(500)}, objective="1" * 5000)
    status = st.of_record(a_record(best=best, message="m" * 100_000))
    problems = [Problem(path=f"spec.parameters[{i}]", type="Invalid", message="bad" * 20) for i in range(5000)]
    conditions = st.merge_conditions([], [st.invalid(problems), *st.state_conditions(a_record())], 1)

    assert len(json.dumps({**status, "conditions": conditions})) < 32_000


def test_every_problem_has_its_line_and_what_does_not_fit_is_counted() -> None:
    few = [Problem(path=f"spec.x[{i}]", type="Invalid", message="is wrong", hint="mend it") for i in range(40)]
    many = few * 100

    assert st.invalid(few).message.splitlines() == [str(problem) for problem in few]
    *lines, last = st.invalid(many).message.splitlines()
    assert lines == [str(problem) for problem in many[: len(lines)]]
    assert last.startswith(f"and {4000 - len(lines)} more")


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    first, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    old = st.merge_conditions([], [st.accepted()], 1, first)

    same = st.merge_conditions(old, [st.accepted(message="other words")], 2, later)
    turned = st.merge_conditions(old, [st.refused("NameTaken", "")], 2, later)

    assert same[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert (same[0]["message"], same[0]["observedGeneration"]) == ("other words", 2)
    assert turned[0]["lastTransitionTime"] == "2026-01-02T00:00:00Z"


def test_nothing_is_written_while_nothing_changes() -> None:
    news, conditions = st.of_record(a_record()), [st.accepted(), *st.state_conditions(a_record())]
    status = st.patch({}, news, conditions, 1)

    assert st.patch(status, st.of_record(a_record()), conditions, 1) == {}
    moved = a_record(counts=Counts(created=16, succeeded=13))
    assert set(st.patch(status, st.of_record(moved), conditions, 1)) == {
        "trials",
        "running",
        "succeeded",
        "earlyStopped",
        "failed",
    }


@pytest.mark.parametrize("state", list(ExperimentState))
def test_an_experiment_runs_until_it_has_ended_in_one_way(state: ExperimentState) -> None:
    true = {one.type for one in st.state_conditions(a_record(state=state)) if one.status == "True"}

    assert true == ({state.value} if state.terminal else {"Running"})


def test_times_are_whole_seconds_in_utc() -> None:
    east = datetime(2026, 1, 1, 5, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))

    assert st.of_record(a_record(ended=east))["completionTime"] == "2026-01-01T03:00:00Z"
