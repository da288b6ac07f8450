"""The command against a stack of its own: Temporal, a worker, and trials that really run."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evertune.client import Client, ExperimentHandle
from evertune.contracts import Rereading
from evertune.errors import UnavailableError
from evertune.settings import Settings
from evertune.stack import status
from tests.cli.test_process import EVERTUNE, environment, evertune

pytestmark = pytest.mark.timeout(600)  # each is a dozen commands beside a stack, on a machine that may be busy


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("stack") / "home"
    yield home
    done = evertune(home, "down")
    assert done.returncode == 0
    assert not [line for line in _processes() if str(home) in line]


def _processes() -> list[str]:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def run(stack: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *words, **changes: evertune(stack, *words, timeout_s=200, **changes)


Run = Callable[..., subprocess.CompletedProcess[str]]


class Watch:
    """`evertune watch`, that says on standard error what it sees."""

    def __init__(self, home: Path, *words: str) -> None:
        self._process = subprocess.Popen(
            [*EVERTUNE, "watch", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(home),
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout, self._process.stderr
        self.said = ""

    def __enter__(self) -> Watch:
        """Once a trial has ended before its eyes: now it watches."""
        while not (line := self._err.readline()).startswith("["):
            assert line, "it ended without a line"
            self.said += line
        self.said += line
        return self

    def end(self) -> tuple[int, str]:
        """Its exit code and standard output, when the experiment has ended."""
        self.said += self._err.read()
        return self._process.wait(), self._out.read()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


SLOW = "sh -c 'for i in 1 2 3 4 5 6; do echo loss={x}; sleep 0.5; done'"


CONFIG_MAP_BESIDE = """
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {name: beside}
spec:
  objective: {type: minimize, objectiveMetricName: loss}
  algorithm: {algorithmName: random}
  parallelTrialCount: 1
  maxTrialCount: 2
  parameters:
    - {name: x, parameterType: double, feasibleSpace: {min: "0", max: "1"}}
  trialTemplate:
    primaryContainerName: main
    successCondition: status.conditions.#(type=="Complete")#|#(status=="True")#
    failureCondition: status.conditions.#(type=="Failed")#|#(status=="True")#
    trialParameters: [{name: x, reference: x}]
    configMap: {configMapName: templates, configMapNamespace: default, templatePath: job.yaml}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: templates}
data:
  job.yaml: |
    apiVersion: batch/v1
    kind: Job
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, command: [echo, "loss=${trialParameters.x}"]}]
"""


def test_a_run_prints_progress_on_stderr_and_only_the_result_on_stdout(
    run: Run, experiment_file: Callable[..., Path]
) -> None:
    path = experiment_file(name="first")
    done = run("run", str(path), "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "Succeeded"
    assert document["reason"] == "ExperimentMaxTrialsReached: 4 of 4 trials finished"
    assert document["trials"]["succeeded"] == 4
    lines = done.stderr.splitlines()
    assert sum(line.startswith("[") for line in lines) == 4
    assert any(line.startswith("first submitted: random, 4 trials, 2 parallel, http://127.0.0.1:") for line in lines)
    assert json.loads(run("get", "first", "-o", "json").stdout) == document

    trials = json.loads(run("trials", "first", "-o", "json").stdout)
    assert min(trial["objective"] for trial in trials) == document["best"]["objective"]["value"]
    first = run("render", str(path), "--trial", "0", "-o", "json").stdout
    assert f"loss={trials[0]['parameters']['x']!r}" in first

    replayed = run("replay", "first", "--verify", "-o", "json")
    assert replayed.returncode == 0
    assert json.loads(replayed.stdout)["identical"] is True

    taken = run("run", str(path))
    assert (taken.returncode, taken.stdout) == (2, "")
    assert "the name first is taken" in taken.stderr

    more = run("extend", "first", "+2")
    assert more.returncode == 0, more.stderr
    assert run("watch", "first", "--timeout", "60").returncode == 0
    assert json.loads(run("get", "first", "-o", "json").stdout)["trials"]["created"] == 6


def test_a_run_that_fails_says_why_and_is_exit_code_1(run: Run, experiment_file: Callable[..., Path]) -> None:
    done = run("run", str(experiment_file(name="broken", command="no-such-program {x}")))
    assert done.returncode == 1
    assert done.stdout.startswith("broken  ✘ Failed after ")
    assert "no-such-program" in done.stdout
    assert "evertune explain broken" in done.stderr
    assert run("watch", "broken").returncode == 1


@pytest.mark.slow
def test_a_template_in_a_config_map_of_the_file_goes_along_with_the_experiment(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(CONFIG_MAP_BESIDE)
    done = run("run", str(path), "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["succeeded"] == 2
    path.unlink()
    assert run("extend", "beside", "+1").returncode == 0  # the file is not asked again
    assert run("watch", "beside", "--timeout", "60").returncode == 0
    assert json.loads(run("get", "beside", "-o", "json").stdout)["trials"]["succeeded"] == 3


KATIB = Path(__file__).parents[2] / "examples" / "katib"


@pytest.mark.slow
def test_katibs_experiment_with_its_template_in_a_config_map_runs_with_that_in_a_file_of_its_own(
    run: Run, tmp_path: Path
) -> None:
    _, experiment, template = (KATIB / "corrected" / "trial-configmap-source.yaml").read_text().split("---\n")
    apart = tmp_path / "experiment.yaml", tmp_path / "trial-templates.yaml"
    for path, text in zip(apart, (experiment, template), strict=True):
        path.write_text(text)
    words = ("run", str(apart[0]), "--images", str(KATIB / "images.yaml"))
    refused = run(*words)
    assert (refused.returncode, refused.stdout, "--configmap FILE" in refused.stderr) == (2, "", True)
    done = run(*words, "--configmap", str(apart[1]), "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["trials"]["succeeded"]) == ("Succeeded", 10)
    assert document["best"]["objective"]["name"] == "loss"


@pytest.mark.slow
def test_a_running_experiment_can_be_paused_changed_and_stopped(run: Run, experiment_file: Callable[..., Path]) -> None:
    path = experiment_file(name="slow", command=f'"{SLOW}"', budget="{trials: 400, parallel: 2}")
    submitted = run("submit", str(path), "-o", "name")
    assert (submitted.returncode, submitted.stdout) == (0, "slow\n")

    assert "slow  ‖ Paused" in run("pause", "slow").stdout
    assert run("pause", "slow").returncode == 2
    assert "paused it" in run("explain", "slow").stdout
    assert "/300 trials, 3 parallel" in run("edit", "slow", "--parallel", "3", "--max-trials", "300").stdout
    assert run("edit", "slow", "--parallel", "301").returncode == 2
    assert "◐ Running" in run("resume", "slow").stdout

    # Paused as early as it was, it may have had no trial before.
    while not [one for one in json.loads(run("trials", "slow", "-o", "json").stdout) if one["started"]]:
        assert json.loads(run("get", "slow", "-o", "json").stdout)["state"] == "Running"
    logs = run("logs", "slow", "--trial", "0", "-f")
    assert logs.stdout.count("loss=") == 6
    assert run("stop", "slow", "--reason", "enough seen").returncode == 0
    assert run("watch", "slow", "--timeout", "60").returncode == 0
    document = json.loads(run("get", "slow", "-o", "json").stdout)
    assert document["reason"] == "ExperimentStopped: enough seen"
    assert document["trials"]["created"] < 300


@pytest.mark.slow
def test_tuning_needs_no_file_and_finds_a_free_name(run: Run) -> None:
    words = ("tune", "-p", "x=uniform(0,1)", "--minimize", "loss", "--trials", "2", "--algorithm", "random")
    for name in ("sh", "sh-2"):
        done = run(*words, "-o", "json", "--", "sh", "-c", "echo loss={x}")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == name


@pytest.mark.slow
def test_a_running_experiment_is_deleted_by_force_with_all_it_left(
    run: Run, stack: Path, experiment_file: Callable[..., Path]
) -> None:
    run("submit", str(experiment_file(name="gone", command=f'"{SLOW}"', budget="{trials: 400, parallel: 2}")))
    assert run("delete", "gone", "--yes").returncode == 2
    deleted = run("delete", "gone", "--yes", "--force")
    assert deleted.returncode == 0, deleted.stderr
    assert run("get", "gone").returncode == 3
    assert not [line for line in _processes() if "loss=" in line and str(stack) in line]


@pytest.mark.slow
def test_a_watch_survives_a_restart_of_the_stack(run: Run, stack: Path, experiment_file: Callable[..., Path]) -> None:
    # The first trial ends for the watch to see it, the others when the stack is there again.
    gate = stack.with_name("gate")
    waits = f"[ $EVERTUNE_TRIAL_NUMBER = 0 ] || until [ -e {gate} ]; do sleep 0.1; done"
    run("submit", str(experiment_file(name="tough", command=f"\"sh -c '{waits}; echo loss={{x}}'\"")))
    with Watch(stack, "tough", "-o", "json") as watching:
        assert run("down", "--keep-trials").returncode == 0
        assert run("up").returncode == 0
        gate.touch()
        code, out = watching.end()
    assert code == 0, watching.said
    document = json.loads(out)
    assert (document["state"], document["trials"]["succeeded"]) == ("Succeeded", 4)


def test_what_up_has_just_started_is_no_finding_of_doctors(run: Run, stack: Path) -> None:
    assert run("up").returncode == 0
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    for service in ("Temporal", "Worker", "Server"):
        assert f"✔ {service} " in done.stdout, done.stdout


def test_a_reparse_that_nobody_takes_does_not_wait_for_ever_nor_blame_the_logs(run: Run, stack: Path) -> None:
    assert run("up").returncode == 0
    settings = Settings.load({"EVERTUNE_HOME": str(stack), "HOME": str(stack)})

    async def impatient() -> None:
        async with Client.connect(settings, address=status(settings).temporal_address) as client:
            workflow = await client.temporal.start_workflow("Experiment", id="unheard", task_queue="nobody-polls-this")
            try:
                await ExperimentHandle(client, uid="", workflow_id="unheard").reparse(Rereading(), timeout_s=0.3)
            finally:
                await workflow.terminate()

    with pytest.raises(UnavailableError, match=r"no worker has taken it within 0\.3 s"):
        asyncio.run(impatient())


@pytest.mark.slow
def test_results_that_were_looked_for_under_another_name_are_found_after_all(
    run: Run, stack: Path, experiment_file: Callable[..., Path]
) -> None:
    # Six trials end, and two run until the gate opens, however long the commands take.
    gate = stack.with_name("missed-gate")
    waits = f"[ $EVERTUNE_TRIAL_NUMBER -lt 6 ] || until [ -e {gate} ]; do sleep 0.1; done"
    command = f"\"sh -c 'echo val_acc={{x}}; {waits}; sleep 0.3'\""
    changes = {"command": command, "objective": "minimize val_accuracy", "budget": "{trials: 900, parallel: 2}"}
    run("submit", str(experiment_file(name="missed", **changes)))

    def document() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("get", "missed", "-o", "json").stdout)
        return found

    while (now := document())["trials"]["metricsUnavailable"] < 6:
        assert now["state"] in ("Created", "Running")
        assert now["best"] is None
    (reparse,) = {
        line.strip() for line in run("get", "missed").stdout.splitlines() if "evertune metrics reparse" in line
    }
    words = reparse.split()[1:]
    assert words == ["metrics", "reparse", "missed", "--metric", "val_acc"]
    shown = run(*words)
    assert "would change. Nothing is changed yet." in shown.stderr
    assert document()["best"] is None

    with Watch(stack, "missed") as watching:
        applied = run(*words, "--apply")  # while it runs: its workflow does it
        assert applied.returncode == 0, applied.stderr
        assert "missed is Running, best val_accuracy 0." in applied.stderr
        known = document()
        assert known["best"] is not None
        assert known["trials"]["succeeded"] >= 4
        assert "reparse by" in run("explain", "missed").stdout

        run("stop", "missed")
        gate.touch()
        watching.end()
    said = watching.said
    assert said.count(" revised: val_accuracy 0.") >= 4, said
    counted = [line for line in said.splitlines() if line.startswith("[")]
    assert len(counted) == document()["trials"]["created"]
    ended = document()
    assert ended["trials"]["metricsUnavailable"] > 0  # its own rules are what they were

    applied = run(*words, "--apply")  # now that it has ended: the row is revised
    assert applied.returncode == 0, applied.stderr
    last = document()
    assert (last["trials"]["metricsUnavailable"], last["state"]) == (0, ended["state"])
    assert last["trials"]["created"] == ended["trials"]["created"]
    trials = json.loads(run("trials", "missed", "-o", "json").stdout)
    assert last["best"]["objective"]["value"] == min(trial["objective"] for trial in trials)
    assert all(trial["objective"] == trial["parameters"]["x"] for trial in trials)
    values = json.loads(run("metrics", "missed", "--trial", "0", "-o", "json").stdout)
    assert [(row["metric"], row["value"]) for row in values] == [("val_accuracy", trials[0]["parameters"]["x"])]

    (resume,) = [line.strip() for line in applied.stderr.splitlines() if line.strip().startswith("evertune resume")]
    assert run("resume", "missed").returncode == 0, resume
    while (now := document())["trials"]["created"] == last["trials"]["created"]:
        assert now["state"] in ("Running", "Restarting")
    assert now["best"] == last["best"]
    assert run("cancel", "missed").returncode == 0


@pytest.mark.slow
def test_doctor_names_a_namespace_that_temporal_does_not_have(run: Run, stack: Path, tmp_path: Path) -> None:
    assert run("up").returncode == 0
    address = status(Settings.load({"EVERTUNE_HOME": str(stack)})).temporal_address
    assert address is not None
    done = evertune(tmp_path / "other", "doctor", TEMPORAL_ADDRESS=address, TEMPORAL_NAMESPACE="research")

    assert done.returncode == 1
    assert "✘ Temporal     Temporal has no namespace research" in done.stdout
    assert "temporal operator namespace create --namespace research" in done.stdout
