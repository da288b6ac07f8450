"""What a training program may ask of its trial: parameters, whether to stop, where checkpoints are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.report.programs import beside_a_reader, clean, run


def test_parameters_have_their_types(tmp_path: Path) -> None:
    given = {"lr": 0.1, "layers": 3, "activation": "relu", "shape": [1, 2]}
    program = "first = params(); first['lr'] = 0; import json; print(json.dumps(params()))"
    out, _ = run(program, {**clean(), "EVERTUNE_PARAMETERS": json.dumps(given)})
    assert json.loads(out) == given


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_parameters_that_are_no_object_are_empty_with_a_warning(text: str) -> None:
    out, err = run("print(params())", {**clean(), "EVERTUNE_PARAMETERS": text})
    assert (out, err.count("\n")) == ("{}\n", 1)
    assert "EVERTUNE_PARAMETERS is not a JSON object" in err


def test_a_trial_should_stop_once_its_stop_file_is_there(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    program = f"print(should_stop()); open({str(stop)!r}, 'w').write('goal reached'); print(should_stop())"
    assert run(program, beside_a_reader(tmp_path / "r", EVERTUNE_STOP_FILE=str(stop)))[0] == "False\nTrue\n"


def test_the_checkpoint_directory_is_made_and_a_first_attempt_resumes_from_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    program = "d = checkpoint_dir(); (d / 'x').write_text('1'); print(d, resume_from())"
    out, err = run(program, beside_a_reader(tmp_path / "r", EVERTUNE_CHECKPOINT_DIR=str(folder)))
    assert (out, err) == (f"{folder} None\n", "")
    assert (
        run("print(resume_from())", beside_a_reader(tmp_path / "r", EVERTUNE_CHECKPOINT_DIR=str(folder)))[0]
        == f"{folder}\n"
    )


def test_a_fresh_volume_is_nothing_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    environment = beside_a_reader(tmp_path / "r", EVERTUNE_CHECKPOINT_DIR=str(tmp_path))
    assert run("print(resume_from())", environment)[0] == "None\n"


def test_a_promoted_trial_resumes_from_its_parent_until_it_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    own, parent = tmp_path / "own", tmp_path / "parent"
    parent.mkdir()
    given = {"EVERTUNE_CHECKPOINT_DIR": str(own), "EVERTUNE_PARENT_CHECKPOINT_DIR": str(parent)}
    environment = beside_a_reader(tmp_path / "r", **given)
    program = "print(parent_checkpoint_dir(), resume_from())"
    assert run(program, environment)[0] == f"{parent} None\n"
    (parent / "state").touch()
    assert run(program, environment)[0] == f"{parent} {parent}\n"
    own.mkdir()
    (own / "state").touch()
    assert run(program, environment)[0] == f"{parent} {own}\n"
    assert run("print(parent_checkpoint_dir())", beside_a_reader(tmp_path / "r"))[0] == "None\n"


def test_what_to_resume_from_may_be_given_and_must_be_there(tmp_path: Path) -> None:
    environment = beside_a_reader(tmp_path / "r", EVERTUNE_RESUME_FROM=str(tmp_path))
    assert run("print(resume_from())", environment) == (f"{tmp_path}\n", "")
    out, err = run("print(resume_from())", {**environment, "EVERTUNE_RESUME_FROM": str(tmp_path / "gone")})
    assert out == "None\n"
    assert "there is no directory" in err


def test_outside_a_trial_checkpoints_go_to_one_temporary_directory_that_no_second_run_resumes_from() -> None:
    program = """
import subprocess
d = checkpoint_dir(); (d / "x").write_text("1")
ask = "from evertune.report import *; print(checkpoint_dir(), resume_from())"
print(d); print(subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout, end="")
"""
    out, err = run(program, clean())
    mine, its = out.splitlines()
    assert its == f"{mine} None"
    assert f"checkpoints go to {mine}" in err
    second = run("print(checkpoint_dir(), resume_from())", clean())[0].split()
    assert second[0] != mine
    assert second[1] == "None"
    for folder in (mine, second[0]):
        shutil.rmtree(folder)
