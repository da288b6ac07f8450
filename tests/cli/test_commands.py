"""Verbs that need no Temporal, over a real database and real files, in this process."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from evertune.cli.commands import doctor
from evertune.cli.commands.best import environment, flags
from evertune.domain.records import ExperimentRecord
from evertune.domain.space import Value
from evertune.domain.states import ExperimentState
from evertune.settings import Settings
from evertune.stack import ServiceStatus, StackStatus
from evertune.store import Store
from evertune.testing.store.making import NOW, create
from tests.cli.conftest import Shell

Write = Callable[..., Path]
KATIB = Path(__file__).parents[1] / "data" / "katib"


# ------------------------------------------------------------------------------------------------------- reading


def test_a_home_where_nothing_happened_has_an_empty_list_and_stays_untouched(shell: Shell, home: Path) -> None:
    code, out, err = shell("list")
    assert (code, out) == (0, "")
    assert err.startswith("No experiments in namespace default.\n  evertune run ")
    assert shell("list", "-o", "json") == (0, "[]\n", "")
    assert not home.exists()


def test_list_shows_data_on_stdout_and_the_next_command_on_stderr(shell: Shell, digits: ExperimentRecord) -> None:
    code, out, err = shell("list")
    assert code == 0
    assert out.splitlines()[0].split() == ["NAME", "STATE", "TRIALS", "BEST", "AGE", "ETA"]
    assert out.splitlines()[1].startswith("digits  ✔ Succeeded     3/3  0.9000")
    assert "evertune best digits" in err
    assert shell("list", "-o", "name") == (0, "digits\n", "")
    assert shell("-q", "list")[2] == ""


def test_another_namespace_is_another_list(shell: Shell, digits: ExperimentRecord, store: Store) -> None:
    create(store, namespace="team", name="other")
    assert shell("list", "-n", "team", "-o", "name")[1] == "other\n"
    assert shell("list", "-A", "-o", "name")[1].split() == ["digits", "other"]
    assert "NAMESPACE" in shell("list", "-A")[1]
    code, _, err = shell("get", "other")
    assert code == 3
    assert "-n team" in err


def test_get_as_json_keeps_its_promise(shell: Shell, digits: ExperimentRecord) -> None:
    code, out, _ = shell("get", "digits", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["state"] == "Succeeded"
    assert document["trials"] == {
        "created": 3,
        "running": 0,
        "succeeded": 2,
        "failed": 1,
        "earlyStopped": 0,
        "metricsUnavailable": 0,
        "killed": 0,
    }
    assert document["best"]["trial"] == 2
    assert document["best"]["parameters"] == {"lr": 0.02, "layers": 3, "batch": 32, "optimizer": "adam"}
    assert document["best"]["objective"] == {"name": "accuracy", "value": 0.9}


def test_get_says_what_failed_and_what_to_do_next(shell: Shell, digits: ExperimentRecord) -> None:
    code, out, err = shell("get", "digits")
    assert code == 0
    assert "Trials       3 of 3    ✔ 2  ✘ 1    1 of 2 may fail" in out
    assert "✘ trial 1: exit 1: ValueError: boom" in out
    assert "evertune best digits -o flags" in err
    assert "Uid" in shell("get", "digits", "-o", "wide")[1]


def test_get_says_when_the_stack_that_should_move_it_is_down(shell: Shell, running: ExperimentRecord) -> None:
    out = " ".join(shell("get", running.name)[1].split())
    assert "nothing moves: Temporal does not answer, no worker of this home is running; next: evertune up" in out
    assert "nothing moves" not in shell("get", running.name, "-o", "yaml")[1]


def test_an_unknown_experiment_is_exit_code_3_with_a_suggestion(shell: Shell, digits: ExperimentRecord) -> None:
    for verb in ("get", "trials", "best", "logs", "explain", "watch", "delete", "pause"):
        code, out, err = shell(verb, "digit")
        assert (code, out) == (3, ""), verb
        assert err.startswith("error: there is no experiment 'digit'")
        assert "did you mean   digits" in err


def test_an_unknown_experiment_in_an_unused_home_is_exit_code_3_too(shell: Shell) -> None:
    code, _, err = shell("get", "digits")
    assert code == 3
    assert "nothing was run in" in err


def test_trials_can_be_sorted_filtered_and_limited(shell: Shell, digits: ExperimentRecord) -> None:
    assert [line.split()[0] for line in shell("trials", "digits")[1].splitlines()] == ["TRIAL", "0", "1", "2"]
    best = shell("trials", "digits", "--sort", "best", "--limit", "1", "--no-headers")[1]
    assert best.split()[:4] == ["2", "✔", "Succeeded", "0.9000"]
    failed = shell("trials", "digits", "--state", "failed,unavailable")[1].splitlines()
    assert failed[0].split() == ["TRIAL", "STATE", "ATTEMPTS", "TOOK", "CHARGED", "REASON"]
    assert failed[1].endswith("exit 1: ValueError: boom")
    narrow = shell("trials", "digits", "--columns", "layers")[1].splitlines()[0]
    assert narrow.split() == ["TRIAL", "STATE", "accuracy", "layers", "TOOK"]


def test_trials_as_json_are_typed(shell: Shell, digits: ExperimentRecord) -> None:
    trials = json.loads(shell("trials", "digits", "-o", "json")[1])
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert trials[2]["parameters"] == {"lr": 0.02, "layers": 3, "batch": 32, "optimizer": "adam"}
    assert [trial["objective"] for trial in trials] == [0.5, None, 0.9]
    assert trials[1]["reason"] == "exit 1: ValueError: boom"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--sort", "worst"), '--sort is "worst"'),
        (("--state", "broken"), '--state knows no "broken"'),
        (("--columns", "momentum"), 'there is no parameter or metric "momentum"'),
    ],
)
def test_a_wrong_choice_is_exit_code_2_and_says_what_is_known(
    shell: Shell, digits: ExperimentRecord, words: tuple[str, ...], sentence: str
) -> None:
    code, out, err = shell("trials", "digits", *words)
    assert (code, out) == (2, "")
    assert sentence in err


def test_best_is_ready_to_paste(shell: Shell, digits: ExperimentRecord) -> None:
    assert shell("best", "digits")[1].startswith("accuracy 0.9000  trial 2  (max)\n\nlr         0.02")
    assert shell("best", "digits", "-o", "flags") == (0, "--lr 0.02 --layers 3 --batch 32 --optimizer adam\n", "")
    assert shell("best", "digits", "-o", "env")[1].splitlines() == ["LR=0.02", "LAYERS=3", "BATCH=32", "OPTIMIZER=adam"]
    assert eval(shell("best", "digits", "-o", "python")[1])["batch"] == 32
    assert json.loads(shell("best", "digits", "-o", "json")[1])["trial"] == 2
    assert yaml.safe_load(shell("best", "digits", "-o", "yaml")[1])["parameters"]["lr"] == 0.02
    header, row = shell("best", "digits", "-o", "csv")[1].splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["parameters.lr"] == "0.02"
    assert "started" in shell("best", "digits", "-o", "wide")[1]


def test_values_survive_the_shell() -> None:
    parameters: dict[str, Value] = {"a-b": "two words; $(rm)", "lr": -1e-05, "x": 0.1}
    words = shlex.split(flags(parameters))
    assert words == ["--a-b", "two words; $(rm)", "--lr=-1e-05", "--x", "0.1"]
    assert shlex.split(environment(parameters)[0]) == ["A_B=two words; $(rm)"]


def test_best_of_an_experiment_without_results_is_not_found(shell: Shell, store: Store) -> None:
    create(store, namespace="default", name="young")
    code, _, err = shell("best", "young")
    assert code == 3
    assert "has no best trial yet" in err


# ---------------------------------------------------------------------------------------------------------- logs


def test_logs_print_what_the_trial_printed(shell: Shell, digits: ExperimentRecord) -> None:
    code, out, err = shell("logs", "digits", "--trial", "1")
    assert (code, out) == (0, "boom\n")
    assert "trial 1, attempt 0" in err
    assert shell("logs", "digits", "--trial", "failed")[1] == "boom\n"
    assert shell("logs", "digits", "--trial", "best", "--tail", "2")[1] == "accuracy=0.9\nlast line without end"
    assert shell("logs", "digits")[1].startswith("accuracy=0.7")
    name = json.loads(shell("trials", "digits", "-o", "json")[1])[0]["name"]
    assert shell("logs", "digits", "--trial", name)[1] == "accuracy=0.5\n"


def test_following_trials_that_have_ended_ends(shell: Shell, digits: ExperimentRecord) -> None:
    assert shell("logs", "digits", "--trial", "0", "-f")[:2] == (0, "accuracy=0.5\n")


@pytest.mark.parametrize("words", [("--trial", "7"), ("--trial", "nobody"), ("--trial", "0", "--attempt", "1")])
def test_a_log_that_is_not_there_is_not_found(shell: Shell, digits: ExperimentRecord, words: tuple[str, ...]) -> None:
    assert shell("logs", "digits", *words)[0] == 3


def test_logs_of_another_machine_are_elsewhere(shell: Shell, digits: ExperimentRecord, settings: Settings) -> None:
    (settings.home / "home_id").write_text("f" * 32 + "\n")
    code, _, err = shell("logs", "digits", "--trial", "0")
    assert code == 2
    assert "another home" in err


# ------------------------------------------------------------------------------------------- explain and delete


def test_explain_ends_with_a_command(shell: Shell, digits: ExperimentRecord) -> None:
    code, out, _ = shell("explain", "digits")
    assert code == 0
    assert out.startswith("digits is ✔ Succeeded since ")
    assert "trial 1  exit 1: ValueError: boom" in out
    assert out.splitlines()[-1].startswith("  evertune extend digits +24")
    trial = shell("explain", "digits", "1")[1]
    assert trial.startswith("trial 1 of digits is ✘ Failed: exit 1: ValueError: boom.")
    assert "attempt 0  Failed, exit 1: ValueError: boom, program failure, took 0.0s, charged" in trial


def test_delete_asks_first_and_takes_logs_along(
    shell: Shell, digits: ExperimentRecord, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert shell("delete", "digits")[0] == 2
    assert (settings.trials_dir / digits.uid).exists()
    code, _, err = shell("delete", "digits", "--yes")
    assert code == 0
    assert err.startswith("Deleted digits.")
    assert not (settings.trials_dir / digits.uid).exists()
    assert shell("get", "digits")[0] == 3


def test_a_running_experiment_is_not_deleted(shell: Shell, store: Store) -> None:
    uid = create(store, namespace="default", name="busy").uid
    store.set_state(uid, ExperimentState.RUNNING, key="start", at=NOW)
    code, _, err = shell("delete", "busy", "--yes")
    assert code == 2
    assert "evertune cancel busy first" in err


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel"])
def test_what_has_ended_cannot_be_changed_and_the_hint_says_how_to_go_on(
    shell: Shell, digits: ExperimentRecord, verb: str
) -> None:
    code, _, err = shell(verb, "digits")
    assert code == 2
    assert "digits has ended: Succeeded" in err
    assert "evertune extend digits +3" in err


@pytest.mark.parametrize("words", [("edit", "digits"), ("extend", "digits"), ("extend", "digits", "many")])
def test_a_change_that_says_nothing_is_refused(shell: Shell, digits: ExperimentRecord, words: tuple[str, ...]) -> None:
    assert shell(*words)[0] == 2


# ------------------------------------------------------------------------------------------ validate and render


def test_validate_tells_good_from_bad_and_says_what_is_next(shell: Shell, experiment_file: Write) -> None:
    good = experiment_file("good.yaml")
    code, out, err = shell("validate", str(good))
    assert (code, out) == (0, f"{good}: valid (random, 1 parameter, 4 trials)\n")
    assert err == f"Next: evertune run {good}\n"
    bad = experiment_file("bad.yaml", algorithm="randm")
    code, out, err = shell("validate", str(good), str(bad))
    assert code == 2
    assert 'did you mean "random"?' in out
    assert f"{bad}:6:12" in out
    assert err == f"Mend it, then: evertune validate {bad}\n"


def test_validate_as_json_has_one_element_per_document(shell: Shell, experiment_file: Write, tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    both.write_text(experiment_file().read_text() + "---\n" + experiment_file(objective="maximise loss").read_text())
    code, out, _ = shell("validate", "-o", "json", str(both), str(tmp_path / "absent.yaml"))
    documents = json.loads(out)
    assert code == 2
    assert [set(document) for document in documents] == [{"file", "valid", "errors", "warnings"}] * 3
    assert [document["valid"] for document in documents] == [True, False, False]
    assert set(documents[1]["errors"][0]) == {"path", "type", "message", "hint", "line", "column"}
    assert documents[1]["errors"][0]["line"] == 12
    assert "there is no file" in documents[2]["errors"][0]["message"]


def test_a_directory_stands_for_the_experiments_in_it(shell: Shell, experiment_file: Write, tmp_path: Path) -> None:
    experiment_file("one.yaml")
    (tmp_path / "images.yaml").write_text("image: directory\n")
    (tmp_path / "broken.yml").write_text("a: [\n")
    code, out, _ = shell("validate", str(tmp_path))
    assert code == 2
    assert "one.yaml: valid" in out
    assert "broken.yml: 1 error" in out
    assert "images.yaml" not in out
    assert shell("validate", str(experiment_file("sub.yaml").parent / "sub.yaml"))[0] == 0


def test_standard_input_can_be_validated(shell: Shell, experiment_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with experiment_file().open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert shell("validate", "-")[:2] == (0, "-: valid (random, 1 parameter, 4 trials)\n")


def test_render_shows_the_full_experiment_which_is_valid_again(
    shell: Shell, experiment_file: Write, tmp_path: Path
) -> None:
    code, out, _ = shell("render", str(experiment_file()))
    assert code == 0
    full = yaml.safe_load(out)
    assert full["spec"]["parallelTrialCount"] == 2
    again = tmp_path / "full.yaml"
    again.write_text(out)
    assert shell("validate", str(again))[0] == 0
    assert json.loads(shell("render", str(experiment_file()), "-o", "json")[1]) == full


def test_a_rendered_trial_has_the_values_of_its_number_and_seed(shell: Shell, experiment_file: Write) -> None:
    path = str(experiment_file())
    trials = [yaml.safe_load(shell("render", path, "--trial", str(number))[1]) for number in (0, 1, 0)]
    commands = [trial["spec"]["template"]["spec"]["containers"][0]["command"] for trial in trials]
    assert commands[0] == commands[2] != commands[1]
    assert commands[0][1].startswith("loss=0.")
    assert trials[1]["metadata"]["name"] == "short-00000001"


def test_a_rendered_trial_takes_given_values(shell: Shell, experiment_file: Write) -> None:
    path = str(experiment_file())
    container = yaml.safe_load(shell("render", path, "--set", "x=0.25")[1])["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["echo", "loss=0.25"]
    for given, sentence in (("y=1", 'no parameter "y"'), ("x=2", "lies between 0 and 1"), ("x=a", "is a number")):
        code, out, err = shell("render", path, "--set", given)
        assert (code, out) == (2, "")
        assert sentence in err


def test_a_rendered_trial_comes_from_the_config_map_beside_its_experiment(shell: Shell, tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    both.write_text(
        (KATIB / "trial-template" / "trial-configmap-source.yaml").read_text()
        + """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: trial-templates, namespace: kubeflow}
data:
  defaultTrialTemplate.yaml: |
    apiVersion: batch/v1
    kind: Job
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: training-container
            args: ["${trialParameters.learningRate}", "${trialParameters.numberLayers}", "${trialParameters.optimizer}"]
"""
    )
    code, out, err = shell(
        "render", str(both), "--trial", "0", "--set", "lr=0.02", "--set", "num-layers=3", "--set", "optimizer=adam"
    )
    assert code == 0, err
    job = yaml.safe_load(out)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["0.02", "3", "adam"]


def test_a_trial_can_be_seen_whatever_draws_it(shell: Shell) -> None:
    code, out, _ = shell("render", str(KATIB / "hp-tuning" / "sobol.yaml"), "--trial", "1")
    assert code == 0
    assert yaml.safe_load(out)["kind"] == "Job"
    code, out, _ = shell("render", str(KATIB / "nas" / "darts-cpu.yaml"), "--trial", "0")
    assert code == 0
    assert "max_pooling_3x3" in out


def test_a_trial_beyond_the_grid_says_so(shell: Shell) -> None:
    code, out, err = shell("render", str(KATIB / "hp-tuning" / "grid.yaml"), "--trial", "45")
    assert (code, out) == (2, "")
    assert "all 45 combinations were tried" in err


def test_what_only_matters_in_a_cluster_is_said_where_trials_go_there(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(KATIB / "hp-tuning" / "random.yaml")
    assert "istio" not in shell("validate", file)[1]
    assert "sidecar.istio.io/inject is not set" in shell("validate", file, "--backend", "kubernetes")[1]
    monkeypatch.setenv("EVERTUNE_BACKEND", "kubernetes")
    assert "sidecar.istio.io/inject is not set" in shell("validate", file)[1]
    assert "istio" not in shell("validate", file, "--backend", "local")[1]


def test_the_local_command_shows_argv_and_directory(shell: Shell, experiment_file: Write, tmp_path: Path) -> None:
    plan = json.loads(shell("render", str(experiment_file()), "--local", "--set", "x=0.5", "-o", "json")[1])
    assert plan["argv"] == ["echo", "loss=0.5"]
    assert plan["cwd"].rstrip("/") == str(tmp_path)
    assert plan["environment"]["PYTHONUNBUFFERED"] == "1"


def test_the_object_for_a_cluster_is_shown_with_the_collector_and_why_and_without_a_key(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERTUNE_INGEST_URL", "http://gateway.example:8090")
    file = str(KATIB / "kubeflow-training-operator" / "pytorchjob-mnist.yaml")

    code, out, err = shell("render", file, "--kubernetes", "--trial", "1")

    replicas = yaml.safe_load(out)["spec"]["pytorchReplicaSpecs"]
    collector = replicas["Master"]["template"]["spec"]["initContainers"][1]
    variables = {entry["name"]: entry.get("value") for entry in collector["env"]}
    assert code == 0
    assert collector["name"] == "evertune-collector"
    assert (variables["EVERTUNE_TOKEN"], variables["EVERTUNE_INGEST_URL"]) == ("<token>", "http://gateway.example:8090")
    assert "&id" not in out
    assert "native: A native sidecar collects" in err
    assert "Kubernetes 1.30 or newer is assumed" in err


def test_the_object_for_a_cluster_says_when_only_the_log_can_be_read(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, experiment_file: Write
) -> None:
    monkeypatch.setenv("EVERTUNE_INGEST_URL", "http://127.0.0.1:8090")

    code, _, err = shell("render", str(experiment_file()), "--kubernetes", "--set", "x=0.5")

    assert code == 0
    assert "logs: The worker reads the pod's log: pods cannot reach the gateway at http://127.0.0.1:8090." in err
    assert shell("render", str(experiment_file()), "--kubernetes", "--local")[0] == 2


# ------------------------------------------------------------------------------------------------ init and tune


INIT = ("--command", "python train.py --lr {lr}", "--param", "lr=loguniform(1e-5,1e-1)", "--maximize", "accuracy")


def test_init_writes_a_valid_commented_file_and_never_over_another(shell: Shell, tmp_path: Path) -> None:
    code, out, err = shell("init", "new.yaml", *INIT)
    assert (code, out) == (0, "")
    assert err.startswith("Wrote new.yaml.\n")
    text = (tmp_path / "new.yaml").read_text()
    assert "# What is searched." in text
    assert yaml.safe_load(text)["metadata"]["name"] == "new"
    assert shell("validate", "new.yaml")[0] == 0
    code, _, err = shell("init", "new.yaml", *INIT)
    assert code == 2
    assert "new.yaml exists" in err
    code, _, err = shell("init", "new.yaml", *INIT, "--force", "--trials", "5")
    assert code == 0
    said = (
        "spec.maxTrialCount: maxTrialCount is 5, and tpe draws its first 20 trials by chance: its model is never used"
    )
    assert err.startswith(f"warning: the command line: {said}\n  maxTrialCount above 20; or n_startup_jobs below 5\n")
    assert yaml.safe_load((tmp_path / "new.yaml").read_text())["spec"]["maxTrialCount"] == 5
    assert shell("init", "-", *INIT)[1].startswith("# evertune validate FILE")
    image = tmp_path / "image.yaml"
    assert shell("init", str(image), "--image", "img", "--param", "lr=uniform(0,1)", "--maximize", "a")[0] == 0
    assert shell("validate", str(image))[0] == 0
    assert '"--lr=${trialParameters.lr}"' in image.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("init", "--name", "x"), "--command or --image is missing"),
        (("init", "--image", "x", "--maximize", "a"), "--param is missing"),
        (("init", *INIT[:2], "--maximize", "accuracy"), "--param is missing"),
        (("init", *INIT, "--minimize", "loss"), "exclude each other"),
        (("init", *INIT[:2], "--param", "lr=loguniform(0,1)", "--maximize", "a"), "lr"),
        (("tune", "--maximize", "a"), "the command is missing"),
        (("tune", "--param", "lr=uniform(0,1)", "--", "train"), "what to optimize is missing"),
        (("tune", "--maximize", "a", "--", "train", "{lr}"), "there is nothing to search"),
        (("tune", "--maximize", "a", "-p", "lr=uniform(0,1)", "--", "train", "{lrr}"), "you wrote {lrr}"),
        (("tune", "--maximize", "a", "-p", "lr=uniform(0,1)", "--algorithm", "tpee", "--", "t", "{lr}"), '"tpe"'),
        (("tune", "--maximize", "a", "-p", "lr=uniform(0,1)", "--setting", "x", "--", "t", "{lr}"), "NAME=VALUE"),
    ],
)
def test_what_is_missing_or_wrong_is_named(shell: Shell, words: tuple[str, ...], sentence: str, home: Path) -> None:
    code, out, err = shell(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (home / "stack.json").exists()


# ------------------------------------------------------------------------------------------ before anything starts


@pytest.mark.parametrize(
    ("changes", "words", "sentence"),
    [
        ({"algorithm": "tpee"}, (), 'did you mean "tpe"?'),
        ({"annotations": "{evertune.io/backend: kubernetes}"}, (), "has no image"),
        ({"namespace": "one"}, ("-n", "two"), 'says namespace "one"'),
        ({}, ("--backend", "slurm"), "it must be local or kubernetes"),
        ({}, ("--image-root", "python"), "write IMAGE=DIR"),
        ({}, ("--image-root", "python=/not/there"), "there is no directory /not/there"),
        ({}, ("--name", "Not A Name"), "name"),
    ],
)
def test_a_run_that_cannot_work_starts_nothing(
    shell: Shell,
    home: Path,
    experiment_file: Write,
    changes: dict[str, str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    code, out, err = shell("run", str(experiment_file(**changes)), *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (home / "stack.json").exists()


def test_two_experiments_in_a_file_are_for_submit(shell: Shell, experiment_file: Write, tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    both.write_text(experiment_file().read_text() + "---\n" + experiment_file(name="other").read_text())
    code, _, err = shell("run", str(both))
    assert code == 2
    assert "holds 2 experiments (short, other)" in err
    assert f"evertune submit {both}" in err


# -------------------------------------------------------------------------------------------------------- doctor


def test_doctor_finds_a_machine_without_a_stack_in_order(shell: Shell) -> None:
    code, out, err = shell("doctor")
    assert code == 0
    assert out.startswith("✔ Python")
    assert "random, sobol, grid, tpe" in out
    assert "0 problems, 1 warning." in err or "Everything is in order." in err


def test_doctor_waits_for_a_server_that_is_starting_or_is_about_to_be_started_and_for_no_other() -> None:
    parent = ServiceStatus(name="parent", pid=7, ready=True, last_exit="", log=Path("log"))
    server = ServiceStatus(name="server", pid=None, ready=False, last_exit="", log=Path("log"))
    up = StackStatus(
        home=Path("home"), embedded=True, temporal_address="127.0.0.1:1", ui_url=None, server_url="http://127.0.0.1:2",
        reachable=True, services=(parent, server),
    )  # fmt: skip

    def starts(one: ServiceStatus, beside: ServiceStatus = parent, **changes: Any) -> bool:
        return doctor._server_starts(replace(up, services=(beside, one), **changes))

    assert starts(server), "the parent has the worker poll first"
    assert starts(replace(server, pid=8))
    assert not starts(replace(server, pid=8, ready=True))
    assert not starts(replace(server, last_exit="exit code 3"))
    assert not starts(server, replace(parent, pid=None, ready=False))
    assert not starts(server, problem="server cannot be started: port 2 on 127.0.0.1 is busy")
    assert not starts(parent), "a stack without a server"


def test_doctor_names_what_is_broken_and_still_checks_the_rest(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("EVERTUNE_HOME", str(in_the_way))
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    code, out, _ = shell("doctor")
    assert code == 1
    assert "✘ Home" in out
    assert "127.0.0.1:1, configured: nothing accepts connections there" in out
    assert "✔ Algorithms" in out


def test_doctor_tells_temporal_from_another_server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{server.server_port}")
        code, out, _ = shell("doctor")
        server.shutdown()
    assert code == 1
    assert f"127.0.0.1:{server.server_port}: what listens there does not answer as Temporal does (" in " ".join(
        out.split()
    )
    assert "Status {" not in out


def test_down_without_a_stack_is_no_mistake(shell: Shell) -> None:
    code, _, err = shell("down")
    assert code == 0
    assert "was running" in err


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tpe", "evertune init --algorithm tpe"),
        ("hyperband", "evertune init --algorithm hyperband --setting r_l=VALUE --setting resource_name=VALUE"),
        ("enas", "evertune run FILE"),  # init writes no network
        ("medianstop", "evertune run FILE"),
    ],
)
def test_the_page_of_an_algorithm_ends_with_a_command_that_has_all_it_needs(
    shell: Shell, name: str, command: str
) -> None:
    code, _, said = shell("algorithms", name)
    assert code == 0
    assert said.strip() == f"Next: {command}"
