"""Temporal's own client and buttons: start with anything, cancel, terminate, reset, delete."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evertune.domain.states import ExperimentState, TrialState
from evertune.errors import ConflictError
from tests.workflow.harness import House, gated, manifest, until


async def _start(house: House, binary: str, *inputs: str, workflow_id: str) -> None:
    words = ["workflow", "start", "--type", "Experiment", "--task-queue", "evertune", "--workflow-id", workflow_id]
    done = await house.temporal_cli(binary, *words, *inputs)
    assert done.returncode == 0, done.stderr


async def _result(house: House, binary: str, workflow_id: str) -> dict[str, Any]:
    done = await house.temporal_cli(binary, "workflow", "result", "-w", workflow_id, "-o", "json")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _failure(answer: dict[str, Any]) -> str:
    return json.dumps(answer.get("closeEvent", answer))


async def test_the_plain_temporal_client_starts_an_experiment_from_a_file(house: House, binary: str) -> None:
    path = house.write("experiment.json", manifest("by-cli", maxTrialCount=2))
    await _start(house, binary, "--input-file", path, workflow_id="any-id-at-all")
    answer = await _result(house, binary, "any-id-at-all")
    assert answer["status"] == "COMPLETED"
    record = house.store.experiment("default", "by-cli")
    assert (record.state, record.counts.succeeded, record.workflow_id) == (
        ExperimentState.SUCCEEDED,
        2,
        "any-id-at-all",
    )


BAD_INPUTS: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "no input was given"),
    "a-list": (["--input", "[1, 2]"], "is a list"),
    "a-text": (["--input", '"hello"'], "is a text"),
    "null": (["--input", "null"], "is null"),
    "a-number": (["--input", "17"], "is a number"),
    "half-a-character": (
        ["--input", r'{"metadata": {"name": "\ud800"}}'],
        "cannot be read as JSON",
    ),
    "endless-number": (["--input", '{"spec": {"maxTrialCount": %s}}' % ("9" * 5000)], "cannot be read as JSON"),
    "two": (["--input", "{}", "--input", "{}"], "got 2"),
    "empty": (["--input", "{}"], "Required"),
    "wrong-kind": (["--input", '{"kind": "Trial", "apiVersion": "v1", "metadata": {"name": "x"}}'], "kind"),
    "binary": (["--input", "AAECAwQ=", "--input-meta", "encoding=binary/plain", "--input-base64"], "JSON is wanted"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
async def test_a_bad_start_fails_at_once_with_a_sentence(house: House, binary: str, case: str) -> None:
    inputs, sentence = BAD_INPUTS[case]
    await _start(house, binary, *inputs, workflow_id=f"bad-{case}-{os.getpid()}")
    answer = await _result(house, binary, f"bad-{case}-{os.getpid()}")
    assert answer["status"] == "FAILED"
    assert sentence in _failure(answer)


async def test_an_input_near_temporals_limit_fails_at_once_with_a_sentence(house: House, binary: str) -> None:
    document = manifest("huge")
    document["metadata"]["annotations"] = {"blob": "x" * 1_990_000}
    path = house.write("huge.json", document)
    await _start(house, binary, "--input-file", path, workflow_id="huge")
    answer = await _result(house, binary, "huge")
    assert answer["status"] == "FAILED"
    assert "1 MiB" in _failure(answer)


async def test_a_wrong_workflow_type_is_named(house: House, binary: str) -> None:
    words = ["workflow", "start", "--type", "Experimnet", "--task-queue", "evertune", "--workflow-id", "typo"]
    await house.temporal_cli(binary, *words)
    assert "Experimnet" in _failure(await _result(house, binary, "typo"))


async def test_a_taken_name_is_refused_whatever_the_workflow_id(house: House, binary: str) -> None:
    handle = await house.submit(manifest("mine", gated(), maxTrialCount=1, parallelTrialCount=1))
    path = house.write("mine.json", manifest("mine"))
    await _start(house, binary, "--input-file", path, workflow_id="other-id")
    answer = await _result(house, binary, "other-id")
    assert answer["status"] == "FAILED"
    assert "taken" in _failure(answer)
    (house.workdir / "go").touch()
    assert (await house.ended(handle)).counts.succeeded == 1


async def test_all_problems_of_a_manifest_reach_the_failure(house: House, binary: str) -> None:
    document = manifest("wrong", parallelTrialCount=9, maxTrialCount=4)
    document["spec"]["objective"]["type"] = "best"
    document["spec"]["algorithm"]["algorithmName"] = "tpee"
    await _start(house, binary, "--input-file", house.write("wrong.json", document), workflow_id="wrong")
    failure = _failure(await _result(house, binary, "wrong"))
    for path in ("spec.parallelTrialCount", "spec.objective.type", "spec.algorithm.algorithmName"):
        assert path in failure


async def test_temporals_cancel_is_our_cancel(house: House, binary: str) -> None:
    handle = await house.submit(manifest("ui-cancel", "echo objective=0.4; sleep 60"))
    await until(lambda: house.store.counts(handle.uid).running == 2)
    await until(lambda: all(house.store.points(handle.uid, number) for number in (0, 1)))
    await house.temporal_cli(binary, "workflow", "cancel", "-w", handle.workflow_id)
    record = await house.ended(handle)
    assert record.state is ExperimentState.CANCELLED
    assert record.counts.killed == 2
    assert record.best is not None
    assert not house.store.running_attempts(handle.uid)


async def test_updates_need_no_input_where_they_need_no_words(house: House, binary: str) -> None:
    handle = await house.submit(manifest("by-hand", "echo objective=0.4; sleep 60"))
    await until(lambda: house.store.counts(handle.uid).running == 2)  # a stop with nothing running ends at once

    async def update(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return await house.temporal_cli(
            binary, "workflow", "update", "execute", "-w", handle.workflow_id, "--name", name, *words
        )

    assert "nothing to change: give parallel" in (await update("edit")).stderr
    for verb, state in (("pause", ExperimentState.PAUSED), ("resume", ExperimentState.RUNNING)):
        done = await update(verb)
        assert done.returncode == 0, done.stderr
        assert house.store.experiment_by_uid(handle.uid).state is state
    assert (await update("stop")).returncode == 0
    assert (await update("cancel")).returncode == 0
    assert (await house.ended(handle)).state is ExperimentState.CANCELLED


@pytest.mark.parametrize("verb", ["terminate", "delete"])
async def test_a_workflow_closed_behind_our_back_leaves_no_process_and_no_running_row(
    house: House, binary: str, verb: str
) -> None:
    handle = await house.submit(manifest(f"ui-{verb}", "echo $$$$ >> pids; exec sleep 60"))
    pids = house.workdir / "pids"
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    because = ["--reason", "test"] if verb == "terminate" else ["--yes"]
    done = await house.temporal_cli(binary, "workflow", verb, "-w", handle.workflow_id, *because)
    assert done.returncode == 0, done.stderr
    if verb == "terminate":
        with pytest.raises(ConflictError, match="was closed behind its back"):
            await handle.pause()

    async def swept() -> bool:
        await house.sweep()
        return (await handle.record()).state is ExperimentState.CANCELLED

    await until(swept)
    record = await handle.record()
    assert record.reason == "WorkflowClosed"
    assert record.counts.killed == 2
    for pid in pids.read_text().split():
        assert not _alive(int(pid))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["FirstWorkflowTask", "LastWorkflowTask"])
async def test_a_reset_runs_no_finished_trial_again(house: House, binary: str, how: str) -> None:
    name = f"reset-{how.lower()}"
    command = (
        "echo $EVERTUNE_TRIAL >> starts; [ $EVERTUNE_TRIAL_NUMBER -lt 4 ] || until [ -e go ]; do sleep 0.05; done; "
        "echo objective=1"
    )
    handle = await house.submit(manifest(name, command, maxTrialCount=8))
    starts = house.workdir / "starts"
    await until(lambda: starts.exists() and len(starts.read_text().split()) == 6)
    done = await house.temporal_cli(
        binary, "workflow", "reset", "-w", handle.workflow_id, "--type", how, "--reason", "test"
    )
    assert done.returncode == 0, done.stderr
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert record.counts.succeeded == 8
    names = starts.read_text().split()
    assert len(names) == len(set(names)) == 8
    assert {trial.state for trial in house.store.trials(record.uid)} == {TrialState.SUCCEEDED}
