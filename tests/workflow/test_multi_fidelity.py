"""Trials that go on from one another: each finds its parent's checkpoint, and no crash makes it begin anew."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.launch import LaunchPlans
from activities.revising import Reviser
from evertune.contracts import ReopenCommand, Rereading, StartContext
from evertune.domain import labels
from evertune.domain.records import TrialRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import ConflictError
from tests.workflow.harness import House, manifest, until

ROOT = Path(__file__).parents[2]
# What it finds is what an earlier trial has left: the epochs until then, and whose number that was.
STEP = """
read before number < "${EVERTUNE_RESUME_FROM:-/nowhere}/state" || before=0
echo "$EPOCHS $EVERTUNE_TRIAL_NUMBER" > "$EVERTUNE_CHECKPOINT_DIR/state.new"
mv "$EVERTUNE_CHECKPOINT_DIR/state.new" "$EVERTUNE_CHECKPOINT_DIR/state"
echo "resumed=${before:-0} whose=${number:--1} objective=$X"
"""


def document(name: str, command: str = STEP, settings: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    given = {"r_l": "4", "eta": "2", "resource_name": "epochs", "random_state": "1", **(settings or {})}
    made = manifest(name, command, maxTrialCount=100, parallelTrialCount=3, **spec)
    body = made["spec"]
    body["algorithm"] = {
        "algorithmName": body.get("algorithm", {}).get("algorithmName", "hyperband"),
        "algorithmSettings": [{"name": key, "value": value} for key, value in given.items()],
    }
    if "algorithm" not in spec:
        body["algorithm"]["algorithmName"] = "hyperband"
    body["objective"]["additionalMetricNames"] = ["resumed", "whose"]
    body["parameters"].append(
        {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}},
    )
    template = body["trialTemplate"]
    template["trialParameters"].append({"name": "epochs", "reference": "epochs"})
    container = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "EPOCHS", "value": "${trialParameters.epochs}"})
    return made


def check_resumed(trials: list[TrialRecord]) -> None:
    by_number = {trial.number: trial for trial in trials}
    for trial in trials:
        parent = labels.parent(trial.labels)
        if parent is None:
            assert (trial.metrics["resumed"], trial.metrics["whose"]) == ("0", "-1")
        else:
            found = (trial.metrics["resumed"], trial.metrics["whose"])
            assert found == (str(by_number[parent].parameters["epochs"]), str(parent))


async def test_promoted_trials_go_on_from_their_parents_and_the_end_of_the_plan_ends_the_experiment(
    house: House,
) -> None:
    record = await house.ended(await house.submit(document("halving")))
    assert record.state is ExperimentState.SUCCEEDED
    assert (record.reason, record.message) == ("ExperimentSuggestionEndReached", "all 3 brackets are done")
    trials = house.store.trials(record.uid)
    assert len(trials) == 4 + 2 + 1 + 3 + 1 + 3
    check_resumed(trials)
    full = [trial for trial in trials if trial.parameters["epochs"] == 4]
    assert record.best is not None
    assert record.best.objective_value == max(trial.objective_value or 0.0 for trial in full)


async def test_a_plan_that_has_ended_is_not_extended_unless_a_verdict_was_revised(house: House) -> None:
    """No trial is promoted, as none reports the objective; read again by another name, the best may go on."""
    handle = await house.submit(document("over", "echo result=$X", {"r_l": "2"}))
    record = await house.ended(handle)
    assert (record.reason, record.counts.metrics_unavailable) == ("ExperimentSuggestionEndReached", 4)
    extend = ReopenCommand(uid=record.uid, max_trials=200)
    with pytest.raises(ConflictError, match="nothing more to try, whatever its budget: all 2 brackets are done"):
        await house.client.reopen(extend)
    assert house.parts is not None
    reviser = Reviser(house.store, LaunchPlans(house.store), house.parts.runner, house.settings.home_id)
    for trial in list(reviser.finished(record.uid, numbers=None)):
        assert reviser.apply(record.uid, trial, Rereading(metric="result"))
    record = await house.ended(await house.client.reopen(extend))
    assert (record.reason, record.counts.created) == ("ExperimentSuggestionEndReached", 5)


async def test_a_worker_that_is_away_between_two_rungs_loses_nothing(house: House) -> None:
    slow = f"{STEP}\n[ $EPOCHS = 1 ] && sleep 1; exit 0"
    handle = await house.submit(document("away", slow))
    await until(lambda: house.store.counts(handle.uid).succeeded > 0)
    await house.stop_worker()
    await house.start_worker()
    await until(lambda: any(trial.labels[labels.RUNG] == "1" for trial in house.store.trials(handle.uid)))
    await house.stop_worker()
    await house.start_worker()
    record = await house.ended(handle)
    trials = house.store.trials(record.uid)
    assert (record.state, len(trials)) == (ExperimentState.SUCCEEDED, 14)
    assert {trial.attempts for trial in trials} == {1}
    check_resumed(trials)


async def test_only_a_trial_with_the_full_resource_reaches_the_goal(house: House) -> None:
    asked = document("goal")
    asked["spec"]["objective"]["goal"] = 0.0  # every trial has it
    record = await house.ended(await house.submit(asked))
    assert record.reason == "ExperimentGoalReached"
    assert record.best is not None
    assert record.best.labels[labels.RESOURCE] == "4"


async def test_a_retried_trial_goes_on_from_its_own_checkpoint_and_not_from_its_parents(house: House) -> None:
    """Killed, by nobody that we know, after it has written."""
    killed = f"{STEP}\n[ $EPOCHS = 4 ] && [ $EVERTUNE_ATTEMPT = 0 ] && sh -c 'kill -9 $PPID'; exit 0"
    record = await house.ended(await house.submit(document("retried", killed, {"r_l": "4", "r_min": "2"})))
    promoted = [trial for trial in house.store.trials(record.uid) if trial.labels[labels.RUNG] == "1"]
    assert promoted
    for trial in promoted:
        assert trial.attempts == 2
        assert (trial.metrics["resumed"], trial.metrics["whose"]) == ("4", str(trial.number))


async def test_pbt_finds_its_parents_checkpoint_where_katibs_container_would_and_never_changes_it(house: House) -> None:
    command = """
    read before number < /var/ckpt/state || before=0
    echo "$((${before:-0} + 1)) $EVERTUNE_TRIAL_NUMBER" > /var/ckpt/state
    echo "resumed=${before:-0} whose=${number:--1} objective=$X"
    """
    settings = {
        "suggestion_trial_dir": "/var/ckpt/",
        "n_population": "5",
        "truncation_threshold": "0.2",
        "generations": "3",
    }
    asked = manifest("population", command, maxTrialCount=100, parallelTrialCount=3)
    asked["spec"]["algorithm"] = {
        "algorithmName": "pbt",
        "algorithmSettings": [{"name": key, "value": value} for key, value in settings.items()],
    }
    asked["spec"]["objective"]["additionalMetricNames"] = ["resumed", "whose"]
    record = await house.ended(await house.submit(asked))
    assert record.message == "all 3 generations are done"
    trials = house.store.trials(record.uid)
    assert len(trials) == 15
    for trial in trials:
        parent = labels.parent(trial.labels)
        generation = trial.labels[labels.GENERATION]
        expected = (generation, "-1" if parent is None else str(parent))
        assert (trial.metrics["resumed"], trial.metrics["whose"]) == expected
        state = house.settings.trials_dir / record.uid / str(trial.number) / "checkpoint" / "state"
        assert state.read_text().split() == [str(int(generation) + 1), str(trial.number)]


async def test_the_directories_can_be_written_into_the_template(house: House) -> None:
    command = """
    echo objective=1
    test "$OWN" = "$EVERTUNE_CHECKPOINT_DIR" && test "$PARENT" = "$EVERTUNE_PARENT_CHECKPOINT_DIR"
    """
    asked = document("named", command, {"r_l": "2"})
    template = asked["spec"]["trialTemplate"]
    container = template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    for name, reference in (("OWN", "CheckpointDir"), ("PARENT", "ParentCheckpointDir")):
        template["trialParameters"].append({"name": name, "reference": f"${{trialSpec.{reference}}}"})
        container["env"].append({"name": name, "value": f"${{trialParameters.{name}}}"})
    record = await house.ended(await house.submit(asked))
    trials = house.store.trials(record.uid)
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    assert any(labels.parent(trial.labels) is not None for trial in trials)


EPOCH = re.compile(r"epoch=(\d+) loss=(\S+) accuracy=\S+")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("hyperband", {"r_l": "3"}),
        ("asha", {"r_l": "3"}),
        ("pbt", {"n_population": "5", "generations": "2"}),
    ],
)
async def test_the_example_goes_on_from_the_very_weights_of_the_parent(
    house: House, name: str, changes: dict[str, str]
) -> None:
    asked = yaml.safe_load((ROOT / "examples" / "multi-fidelity" / f"{name}.yaml").read_text())
    for setting in asked["spec"]["algorithm"]["algorithmSettings"]:
        setting["value"] = changes.get(setting["name"], setting["value"])
    asked["spec"] |= {"maxTrialCount": 10, "parallelTrialCount": 2}
    container = asked["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["command"] = [sys.executable, str(ROOT / container["command"][1]), *container["command"][2:]]
    record = await house.ended(await house.submit(asked), 100)
    assert record.state is ExperimentState.SUCCEEDED, record.message
    trials = house.store.trials(record.uid)
    curves = {}
    for trial in trials:
        log = (house.settings.trials_dir / record.uid / str(trial.number) / "0" / "log").read_text()
        curves[trial.number] = [(int(epoch), loss) for epoch, loss in EPOCH.findall(log)]
    resumed = {trial.number: labels.parent(trial.labels) for trial in trials}
    assert any(parent is not None for parent in resumed.values())
    for number, parent in resumed.items():
        first = curves[number][0]
        assert first == (curves[parent][-1] if parent is not None else (0, first[1]))
        assert len(curves[number]) > 1


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "most"),
    [
        ("tests/data/katib/hp-tuning/hyperband.yaml", None),
        ("tests/data/katib/hp-tuning/hyperband.yaml", 10),
        ("examples/katib/corrected/simple-pbt.yaml", None),
        ("examples/katib/corrected/simple-pbt.yaml", 12),
    ],
)
async def test_katibs_own_files_run_to_their_end(house: House, file: str, most: int | None) -> None:
    asked = yaml.safe_load((ROOT / file).read_text())
    if most is not None:
        asked["spec"]["maxTrialCount"] = most
        for setting in asked["spec"]["algorithm"]["algorithmSettings"]:
            setting["value"] = "5" if setting["name"] == "n_population" else setting["value"]
    images = ROOT / "examples" / "katib"
    context = StartContext(
        working_dir=str(house.workdir),
        backend="local",
        environment={"PATH": os.environ["PATH"], "STAND_IN_SECONDS": "0"},
        image_roots={
            "ghcr.io/kubeflow/katib/pytorch-mnist-cpu": str(images / "pytorch-mnist"),
            "ghcr.io/kubeflow/katib/simple-pbt": str(images / "simple-pbt"),
        },
    )
    record = await house.ended(await house.client.submit(asked, context=context), 90)
    assert record.state is ExperimentState.SUCCEEDED, record.message
    trials = house.store.trials(record.uid)
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    if most is None:
        assert (len(trials), record.reason) == (2, "ExperimentMaxTrialsReached")
    elif asked["spec"]["algorithm"]["algorithmName"] == "hyperband":
        assert (len(trials), record.reason) == (5, "ExperimentSuggestionEndReached")
    else:
        assert [int(trial.labels[labels.GENERATION]) for trial in trials] == [0] * 5 + [1] * 5 + [2] * 2
        for trial in trials:
            kept = house.settings.trials_dir / record.uid / str(trial.number) / "checkpoint" / "training.ckpt"
            step = 20 * (1 + int(trial.labels[labels.GENERATION])) + 1
            assert int(kept.read_text().split()[0]) == step
