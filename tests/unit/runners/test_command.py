"""From a Job's container to argv: expansion, quotes, image directories, and what is refused with which words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from activities.runners.local.command import check_script, limitations, prepare
from activities.runners.local.variables import expand
from evertune.errors import LaunchError
from evertune.protocols import Launch
from tests.unit.runners.world import launch


def argv(of: Launch) -> list[str]:
    return list(prepare(of, of.manifest, {}).argv)


def environment(of: Launch) -> dict[str, str]:
    return dict(prepare(of, of.manifest, {}).environment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(LR)", "0.1"),
        ("--lr=$(LR),$(LR)", "--lr=0.1,0.1"),
        ("$$(LR)", "$(LR)"),
        ("$$$(LR)", "$0.1"),
        ("$$$$(LR)", "$$(LR)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$(LR", "$(LR"),
        ("$()", "$()"),
        ("$LR ${LR}", "$LR ${LR}"),
        ("$x$(LR)", "$x0.1"),
        ("cost: 5$", "cost: 5$"),
        ("$(a\nb)", "$(a\nb)"),
        ("$(MY.NAME-1)", "dotted"),
    ],
)
def test_variables_expand_as_in_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"LR": "0.1", "MY.NAME-1": "dotted"}) == expected


def test_a_value_may_use_the_variables_before_it() -> None:
    variables = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C)-$$(A)"},
        {"name": "C", "value": "3"},
        {"name": "E"},
    ]
    found = environment(launch("echo", env=variables))
    assert {name: found[name] for name in "ABCE"} == {"A": "1", "B": "1-$(C)-$(A)", "C": "3", "E": ""}


def test_command_and_args_use_the_containers_variables_and_the_trials_name() -> None:
    of = launch("echo", "$(A)", args=["$(KATIB_TRIAL_NAME)", "$(HOME)"], env=[{"name": "A", "value": "1"}])
    assert argv(of) == ["echo", "1", "experiment-00000000", "$(HOME)"]


def test_name_and_namespace_can_be_referred_to() -> None:
    fields = {"NAME": "metadata.name", "SPACE": "metadata.namespace"}
    of = launch("echo", env=[{"name": k, "valueFrom": {"fieldRef": {"fieldPath": v}}} for k, v in fields.items()])
    found = environment(of)
    assert (found["NAME"], found["SPACE"]) == ("experiment-00000000", "research")


def test_optional_references_are_left_out_as_in_kubernetes() -> None:
    secret = {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    of = launch("echo", env=[{"name": "S", "valueFrom": secret}], envFrom=[{"secretRef": {"optional": True}}])
    assert "S" not in environment(of)


@pytest.mark.parametrize(
    ("written", "executed"),
    [
        ("""--architecture="[[1], [0, 1]]\"""", "--architecture=[[1], [0, 1]]"),
        ("""--nn_config="{'num_layers': 1}\"""", "--nn_config={'num_layers': 1}"),
        ("""--text="say \\"hello\\" \\\\ \\n\"""", """--text=say "hello" \\ \\n"""),
        ('-x=""', "-x="),
        ('--pair="a"="b"', '--pair="a"="b"'),
        ('--open="a', '--open="a'),
        ('"whole"', '"whole"'),
        ("--single='a'", "--single='a'"),
        ('--json={"a": 1}', '--json={"a": 1}'),
        ("* ; $HOME `id` | cat", "* ; $HOME `id` | cat"),
    ],
)
def test_only_quotes_around_an_options_value_are_taken_off(written: str, executed: str) -> None:
    assert argv(launch("echo", "run.py", written)) == ["echo", "run.py", executed]


def test_behind_an_explicit_shell_nothing_is_changed() -> None:
    script = '--text="a"'
    assert argv(launch("sh", "-c", script, args=['--x="1"'])) == ["sh", "-c", script, '--x="1"']


def refusal(of: Launch) -> str:
    with pytest.raises(LaunchError) as caught:
        prepare(of, of.manifest, {})
    return f"{caught.value} / {caught.value.hint}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"job": {"parallelism": 2}}, "spec.parallelism: 2 needs several processes"),
        ({"job": {"completions": 3}}, "spec.completions: 3 needs several processes"),
        ({"job": {"suspend": True}}, "never starts"),
        ({"job": {"backoffLimit": -1}}, "spec.backoffLimit: -1 is not a whole number"),
        ({"job": {"activeDeadlineSeconds": "5"}}, "spec.activeDeadlineSeconds: '5' is not a whole number"),
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, "envFrom.configMapRef cannot be read on this machine"),
        (
            {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            "env KEY: valueFrom.secretKeyRef cannot be read on this machine / give it a literal `value:`",
        ),
        ({"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.qosClass"}}}]}, "status.qosClass"),
        ({"env": [{"value": "1"}]}, "None is not a name for a variable"),
        ({"args": [5]}, "args holds 5, which is not text / quote it"),
        ({"working_dir": "/no/such/place"}, "the working directory /no/such/place does not exist"),
        ({"workingDir": "nowhere"}, "workingDir /nowhere does not exist on this machine"),
        ({"image": "trainer:1", "image_roots": {"trainer": "/no/dir"}}, "the directory /no/dir for image trainer:1"),
        ({"resources": {"limits": {"nvidia.com/gpu": "all"}}}, "'all' is not a whole number"),
    ],
)
def test_what_cannot_run_here_is_refused_by_name_and_with_the_mend(options: dict[str, Any], words: str) -> None:
    assert words in refusal(launch("echo", **options))


def test_without_a_command_the_mend_is_to_write_it() -> None:
    assert "write the image's entrypoint as `command:`" in refusal(launch(image="trainer", args=["--lr=1"]))


def test_a_container_that_is_not_there_is_named_with_those_that_are() -> None:
    of = launch("echo")
    of.manifest["spec"]["template"]["spec"]["containers"][0]["name"] = "trainer"
    assert "no container main (primaryContainerName); its containers: trainer" in refusal(of)


def test_another_kind_is_refused() -> None:
    of = launch("echo")
    of.manifest["kind"] = "TFJob"
    assert "kind TFJob cannot run as local processes" in refusal(of)


def test_a_missing_command_is_refused_with_near_names(tmp_path: Path) -> None:
    for name, mode in (("train.py", 0o755), ("plain.py", 0o644), ("folder", 0)):
        path = tmp_path / name
        path.write_text("#!/usr/bin/no-such-python\n") if mode else path.mkdir()
        path.chmod(mode or 0o755)
    here: dict[str, Any] = {"working_dir": str(tmp_path), "environment": {"PATH": str(Path(sys.executable).parent)}}
    assert "'pyhton' is not on PATH / did you mean" in refusal(launch("pyhton", **here))
    assert "./trian.py does not exist / did you mean train.py" in refusal(launch("./trian.py", **here))
    assert "train.py is not on PATH / did you mean ./train.py?" in refusal(launch("train.py", **here))
    assert "is not executable / chmod +x it, or write `python3 ./plain.py`" in refusal(launch("./plain.py", **here))
    assert "./folder is a directory" in refusal(launch("./folder", **here))
    assert "wants the interpreter /usr/bin/no-such-python" in refusal(launch("./train.py", **here))
    assert "command '' is not on PATH" in refusal(launch("", **here))


def test_paths_of_the_image_are_found_below_its_directory(tmp_path: Path) -> None:
    (tmp_path / "opt/mnist").mkdir(parents=True)
    for name in ("opt/mnist/mnist.py", "RunTrial.py"):
        (tmp_path / name).write_text("")
    roots = {"ghcr.io/katib/mnist": str(tmp_path)}
    image = "ghcr.io/katib/mnist:v1"
    of = launch("python3", "/opt/mnist/mnist.py", "--data=/opt/mnist", "--log=/other", image=image, image_roots=roots)
    assert argv(of) == ["python3", f"{tmp_path}/opt/mnist/mnist.py", f"--data={tmp_path}/opt/mnist", "--log=/other"]
    of = launch("python3", "-u", "RunTrial.py", "opt", "/", image=image, image_roots=roots, workingDir="/opt/mnist")
    assert argv(of) == ["python3", "-u", f"{tmp_path}/RunTrial.py", "opt", "/"]
    assert prepare(of, of.manifest, {}).cwd == f"{tmp_path}/opt/mnist"


@pytest.mark.parametrize("image", ["a/b:1", "a/b", "localhost:5000/a/b:1", "a/b@sha256:" + "0" * 64])
def test_an_image_is_found_with_or_without_its_tag(image: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    roots = {"a/b": str(tmp_path), "localhost:5000/a/b": str(tmp_path)}
    assert argv(launch("python3", "train.py", image=image, image_roots=roots))[1] == f"{tmp_path}/train.py"


def test_a_script_of_an_image_without_directory_explains_its_failure() -> None:
    of = launch("python3", "/opt/mnist/mnist.py", image="mnist:1")
    with pytest.raises(LaunchError, match=r"/opt/mnist/mnist.py does not exist") as caught:
        prepare(of, of.manifest, {})
    assert caught.value.hint == (
        "/opt/mnist/mnist.py is not on this machine: images are not pulled, give --image-root mnist:1=DIR"
    )


def test_what_is_left_out_is_said() -> None:
    of = launch(
        "echo",
        volumeMounts=[{"name": "data", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/scratch"}],
        pod={
            "initContainers": [{"name": "download"}],
            "containers": [{"name": "proxy"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {}}, {"name": "scratch", "emptyDir": {}}],
        },
    )
    assert limitations(of.manifest, "main") == [
        "init container download is not run",
        "container proxy is not run, only main is",
        "persistentVolumeClaim data is not mounted, /data is this machine's",
    ]
    assert limitations(launch("echo").manifest, "main") == []


def test_a_script_that_is_not_there_is_refused_before_the_start_with_its_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    with pytest.raises(LaunchError, match=r"script trian.py does not exist") as caught:
        check_script(["python3.11", "trian.py", "--lr=1"], str(tmp_path))
    assert caught.value.hint == "did you mean train.py?"


@pytest.mark.parametrize(
    "argv", [["python", "-c", "x"], ["python", "-m", "no.such"], ["./tool", "no.such"], ["python"]]
)
def test_only_the_script_of_an_interpreter_is_looked_for(argv: list[str], tmp_path: Path) -> None:
    check_script(argv, str(tmp_path))
    check_script(["python", "train.py"], str(_with(tmp_path, "train.py")))


def _with(folder: Path, name: str) -> Path:
    (folder / name).touch()
    return folder


def test_what_a_distributed_job_lacks_here_is_said_of_each_role() -> None:
    template = {
        "spec": {
            "initContainers": [{"name": "wait"}],
            "containers": [{"name": "xgboost"}, {"name": "proxy"}],
        }
    }
    roles = {
        "Master": {"restartPolicy": "Always", "template": template},
        "Worker": {"replicas": 2, "template": {"spec": {"containers": [{"name": "xgboost"}]}}},
    }
    manifest = {"kind": "XGBoostJob", "apiVersion": "kubeflow.org/v1", "spec": {"xgbReplicaSpecs": roles}}
    assert limitations(manifest, "xgboost") == [
        "Master: init container wait is not run",
        "Master: container proxy is not run, only xgboost is",
        "Master: restartPolicy Always is OnFailure, a replica that has succeeded is not run again",
        "all workers are told the same WORKER_PORT, only one of them can listen there",
    ]


def test_what_no_processes_stand_for_is_refused_with_the_kinds_that_can() -> None:
    of = launch("echo")
    manifest = {**of.manifest, "kind": "MPIJob"}
    with pytest.raises(LaunchError, match="kind MPIJob cannot run as local processes") as caught:
        prepare(of, manifest, {})
    assert caught.value.hint == "those that can are Job, TFJob, PyTorchJob, XGBoostJob, JAXJob, PaddleJob"
