"""The command as a process: exit codes, streams, no tracebacks, and how quickly it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evertune.cli.verbs import VERBS
from evertune.domain.records import ExperimentRecord

Write = Callable[..., Path]
EVERTUNE = [sys.executable, "-m", "evertune.cli"]
ROOT = Path(__file__).parents[2]


def environment(home: Path, **changes: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "EVERTUNE_HOME": str(home), "PYTHONUTF8": "1", **changes}


def evertune(
    home: Path, *words: str, stdin: bytes = b"", timeout_s: float = 90, **changes: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EVERTUNE, *words],
        input=stdin,
        capture_output=True,
        env=environment(home, **changes),
        timeout=timeout_s,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_help_lists_every_verb_on_stdout(home: Path) -> None:
    for words in ((), ("--help",), ("-h",), ("help",)):
        done = evertune(home, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"\n  {verb} " in done.stdout for verb in VERBS if " " not in verb)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_of_its_own(verb: str, home: Path) -> None:
    for words in ((*verb.split(), "--help"), ("help", *verb.split())):
        done = evertune(home, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: evertune {verb}")
    assert not home.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("gett", "digits"), 'there is no command "gett"\n  did you mean   evertune get'),
        (("--vrbose",), 'there is no option "--vrbose"'),
        (("get", "digits", "--namespce", "x"), "there is no option --namespce\n  did you mean   --namespace"),
        (("get",), "missing argument 'NAME'"),
        (("get", "digits", "-o", "xml"), "'-o' / '--output': 'xml' is not one of 'table', 'wide'"),
        (("get", "a", "b"), "unexpected extra argument"),
        (("run", "x.yaml", "--timeout", "soon"), "'--timeout'"),
        (("replay", "digits"), "--verify"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_suggestion(words: tuple[str, ...], sentence: str, home: Path) -> None:
    done = evertune(home, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr


@pytest.mark.slow
def test_a_watch_that_nobody_can_serve_says_so_instead_of_waiting_in_silence(
    home: Path, running: ExperimentRecord
) -> None:
    words = [*EVERTUNE, "watch", running.name, "--timeout", "60"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment(home), text=True) as process:
        assert process.stderr is not None
        said = "connection to Temporal lost, trials go on; next: evertune up"
        assert any(said in line for line in process.stderr)
        process.kill()


def test_bad_files_are_one_sentence_and_exit_code_2(home: Path, tmp_path: Path, experiment_file: Write) -> None:
    (tmp_path / "junk.yaml").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "kind.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n")
    (tmp_path / "empty.yaml").write_text("")
    unknown = experiment_file("unknown.yaml", algorithm="simulated-annealing")
    for verb in ("run", "submit", "validate", "render"):
        for path, sentence in (
            (tmp_path / "absent.yaml", "there is no file"),
            (tmp_path / "junk.yaml", "not UTF-8 text"),
            (tmp_path / "kind.yaml", "Experiment"),
            (tmp_path / "empty.yaml", "empty"),
            (unknown, '"simulated-annealing" is not an algorithm'),
        ):
            done = evertune(home, verb, str(path))
            assert done.returncode == 2, (verb, path)
            assert sentence in done.stdout + done.stderr, (verb, path)
    done = evertune(home, "run", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path} is a directory" in done.stderr
    assert not home.exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without an end")
def test_a_file_without_an_end_is_read_no_further_than_the_limit(home: Path) -> None:
    for verb in ("validate", "run"):
        done = evertune(home, verb, "/dev/zero")
        assert done.returncode == 2
        assert "larger than 1 MB" in done.stdout + done.stderr
    with Path("/dev/zero").open("rb") as endless:
        piped = subprocess.run(
            [*EVERTUNE, "validate", "-"],
            stdin=endless,
            capture_output=True,
            env=environment(home),
            timeout=90,
            check=False,
        )
    assert piped.returncode == 2
    assert b"larger than 1 MB" in piped.stdout


def test_a_home_that_cannot_be_used_is_one_sentence(tmp_path: Path, experiment_file: Write) -> None:
    (tmp_path / "file").write_text("")
    done = evertune(tmp_path / "file", "run", str(experiment_file()))
    assert done.returncode == 1
    assert "cannot be a directory" in done.stderr
    done = evertune(tmp_path / "home", "list", EVERTUNE_DATABASE_URL="oracle://x")
    assert done.returncode == 2
    assert 'EVERTUNE_DATABASE_URL is "oracle://x"' in done.stderr


def test_an_unreachable_temporal_is_exit_code_4_and_nobody_waits_for_it(home: Path, experiment_file: Write) -> None:
    done = evertune(home, "run", str(experiment_file()), timeout_s=60, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert done.returncode == 4
    assert done.stderr.startswith("error: cannot reach Temporal at 127.0.0.1:1")
    assert done.stdout == ""


def test_a_change_that_cannot_reach_temporal_is_exit_code_4(home: Path, running: ExperimentRecord) -> None:
    done = evertune(home, "pause", running.name, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert done.returncode == 4
    assert "cannot reach Temporal at 127.0.0.1:1: connection refused" in done.stderr
    assert "address from   TEMPORAL_ADDRESS" in done.stderr
    assert "next           evertune doctor" in done.stderr
    stopped = evertune(home, "pause", running.name)
    assert stopped.returncode == 4
    assert "is not running\n" in stopped.stderr
    assert "next           evertune up" in stopped.stderr


def test_a_watch_that_takes_too_long_is_exit_code_4(home: Path, running: ExperimentRecord) -> None:
    done = evertune(home, "watch", running.name, "--timeout", "0.5", "-o", "json")
    assert (done.returncode, done.stdout) == (4, "")
    assert "is still Running after 0.5 s; it goes on" in done.stderr


def test_ctrl_c_detaches_says_how_to_return_and_is_exit_code_130(home: Path, running: ExperimentRecord) -> None:
    process = subprocess.Popen(
        [*EVERTUNE, "watch", running.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("[ 1/24]")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert f"Detached. {running.name} goes on: 1 of 24 trials, best 0.5000." in err.splitlines()
    assert f"evertune watch {running.name}" in err


def test_a_reader_that_leaves_early_is_no_error(home: Path, digits: ExperimentRecord) -> None:
    script = f"{' '.join(EVERTUNE)} trials {digits.name} -o json; echo code=$? >&2"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        ["sh", "-c", script], stdout=writer, stderr=subprocess.PIPE, env=environment(home), text=True, check=False
    )
    os.close(writer)
    assert done.stderr == "code=141\n"


def test_output_in_a_locale_without_unicode_is_ascii(home: Path, digits: ExperimentRecord) -> None:
    in_ascii = evertune(home, "get", digits.name, PYTHONUTF8="0", LC_ALL="C", PYTHONIOENCODING="ascii")
    for done in (in_ascii, evertune(home, "get", digits.name, EVERTUNE_ASCII="1")):
        assert done.returncode == 0
        assert done.stdout.isascii()
        assert "+ Succeeded" in done.stdout


def test_verbose_shows_where_an_error_came_from(home: Path) -> None:
    done = subprocess.run(
        [*EVERTUNE, "get", "x", "-v"], capture_output=True, env=environment(home), text=True, timeout=90, check=False
    )
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert "\nerror: no experiment" in done.stderr


def test_what_help_and_reading_import_stays_small(home: Path, digits: ExperimentRecord) -> None:
    heavy = {"temporalio", "sqlalchemy", "alembic", "pydantic", "yaml", "rich", "typer", "numpy", "hyperopt", "optuna"}
    assert imported(home, "--help") & heavy == set()
    assert imported(home, "version") & (heavy - {"typer", "pydantic"}) == set()  # typer brings pydantic
    assert imported(home, "list") & {"temporalio", "rich", "numpy", "hyperopt", "optuna", "kubernetes"} == set()


def imported(home: Path, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "evertune.cli", *words],
        capture_output=True,
        env=environment(home),
        text=True,
        timeout=30,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
