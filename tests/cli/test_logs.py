"""`evertune logs` reads an archived log as it read the log, and follows through the moment when it is archived."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from evertune import archive
from evertune.cli.commands import logs
from evertune.domain.records import ExperimentRecord
from evertune.settings import Settings
from evertune.store import Store
from evertune.testing.store.making import NOW, finish, lose
from tests.cli.conftest import Shell
from tests.cli.missed import missed

LONG = "".join(f"epoch={number} accuracy=0.{number:06d}\n" for number in range(8000))


def directory(settings: Settings, record: ExperimentRecord, trial: int, attempt: int = 0) -> Path:
    made = settings.trials_dir / record.uid / str(trial) / str(attempt)
    made.mkdir(parents=True, exist_ok=True)
    return made


def test_an_archived_log_is_shown_as_it_was(shell: Shell, digits: ExperimentRecord, settings: Settings) -> None:
    log = directory(settings, digits, 0) / "log"
    log.write_text(LONG)
    assert archive.archive(log)
    assert not log.exists()
    assert shell("logs", "digits", "--trial", "0")[:2] == (0, LONG)
    assert shell("logs", "digits", "--trial", "0", "-f")[:2] == (0, LONG)
    assert shell("logs", "digits", "--trial", "0", "--tail", "3")[1] == "".join(LONG.splitlines(keepends=True)[-3:])
    assert "is gone" not in shell("logs", "digits", "--trial", "0")[2]


def test_what_was_left_out_is_said_where_it_was(shell: Shell, digits: ExperimentRecord, settings: Settings) -> None:
    log = directory(settings, digits, 0) / "log"
    log.write_text(LONG)
    archive.archive(log, cap=archive.SMALL)
    out = shell("logs", "digits", "--trial", "0")[1]
    (gap,) = [line for line in out.splitlines() if line.startswith("[evertune: ")]
    head, _, tail = out.partition(f"{gap}\n")
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert gap.startswith(f"[evertune: {len(LONG) - len(head) - len(tail)} bytes left out here")


def test_explain_shows_the_end_of_an_archived_log(shell: Shell, digits: ExperimentRecord, settings: Settings) -> None:
    log = directory(settings, digits, 1) / "log"
    log.write_text(LONG + "and then it broke\n")
    before = shell("explain", "digits", "1")[1]
    archive.archive(log)
    assert shell("explain", "digits", "1")[1] == before
    assert "and then it broke" in before


def test_the_collectors_own_log_is_asked_for_by_name(
    shell: Shell, digits: ExperimentRecord, settings: Settings
) -> None:
    log = directory(settings, digits, 0) / "collector/log"
    log.parent.mkdir()
    log.write_text("reading mnist.log\n")
    assert shell("logs", "digits", "--trial", "0", "--collector")[:2] == (0, "reading mnist.log\n")
    code, out, err = shell("logs", "digits", "--trial", "2", "--collector")
    assert (code, out) == (0, "")
    assert "it had no collector of its own" in err


def test_a_log_that_is_archived_while_it_is_followed_is_shown_once_and_whole(
    shell: Shell, running: ExperimentRecord, settings: Settings, store: Store
) -> None:
    log = directory(settings, running, 1) / "log"
    lines = LONG.splitlines(keepends=True)

    def live() -> None:
        with log.open("w") as file:
            for start in range(0, len(lines), 1000):
                file.writelines(lines[start : start + 1000])
                file.flush()
                time.sleep(0.1)
        archive.archive(log)
        time.sleep(0.3)  # a few polls of the archive before the trial's end is recorded
        finish(store, running.uid, 1, 0.5)

    thread = threading.Thread(target=live)
    thread.start()
    code, out, _ = shell("logs", "slow", "--trial", "1", "-f")
    thread.join()
    assert not log.exists()
    assert (code, out) == (0, LONG)


def test_attempts_that_come_and_go_between_two_looks_are_all_shown_and_their_lines_stay_apart(
    shell: Shell,
    running: ExperimentRecord,
    settings: Settings,
    store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for attempt in range(4):
        (directory(settings, running, 1, attempt) / "log").write_text(f"begins\nthis is {attempt}")
        if attempt < 3:
            lose(store, running.uid, 1, attempt)
            store.open_attempt(running.uid, 1, attempt + 1, home_id=settings.home_id, at=NOW)
    finish(store, running.uid, 1, 0.5, attempt=3)
    code, out, _ = shell("logs", "slow", "--trial", "1", "--attempt", "0", "-f")
    assert (code, out) == (0, "".join(f"begins\nthis is {attempt}" for attempt in range(4)))

    source = logs.Source(store.trial(running.uid, 1), 0, settings.trials_dir / running.uid / "1", "log")
    logs._follow(store, running, [source], digits=2)  # as among several trials
    assert capsys.readouterr().out == "".join(f" 1 | begins\n 1 | this is {attempt}\n" for attempt in range(4))


def test_the_replicas_of_a_distributed_job_are_named_and_shown_by_name(
    shell: Shell, digits: ExperimentRecord, settings: Settings
) -> None:
    made = directory(settings, digits, 0)
    names = ("ps-0", "worker-0", "worker-1")
    plan = {"primary": "worker-0", "replicas": [{"name": name} for name in names]}
    (made / "plan").write_text(json.dumps(plan))
    (made / "log").write_text("accuracy=1\n")
    for name in ("ps-0", "worker-1"):
        (made / "replicas" / name).mkdir(parents=True)
        (made / "replicas" / name / "log").write_text(f"{name} is here\n")
    code, out, err = shell("logs", "digits", "--trial", "0")
    assert (code, out) == (0, "accuracy=1\n")
    assert "--replica ps-0, worker-1 shows another process than worker-0" in err
    assert shell("logs", "digits", "--trial", "0", "--replica", "worker-1")[:2] == (0, "worker-1 is here\n")
    assert shell("logs", "digits", "--trial", "0", "--replica", "worker-0")[:2] == (0, "accuracy=1\n")
    code, _, err = shell("logs", "digits", "--trial", "0", "--replica", "worker-2")
    assert (code, err.splitlines()[0]) == (3, "error: trial 0 has no replica worker-2")
    assert "its replicas are worker-0, ps-0, worker-1" in err
    code, _, err = shell("logs", "digits", "--trial", "2", "--replica", "../../etc")
    assert code == 3
    assert "it is one process" in err
    assert shell("logs", "digits", "--trial", "0", "--replica", "ps-0", "--file")[0] == 2


TFJOB = Path(__file__).parents[1] / "data/katib/kubeflow-training-operator/tfjob-mnist-with-summaries.yaml"


def test_render_shows_every_replica_with_its_own_paths_and_address(shell: Shell) -> None:
    code, out, err = shell("render", str(TFJOB), "--local", "--images", str(IMAGES), "-o", "json")
    assert code == 0, err
    shown = json.loads(out)
    assert (shown["primary"], list(shown["replicas"])) == ("worker-0", ["worker-0", "worker-1"])
    tasks = [json.loads(plan["environment"]["TF_CONFIG"])["task"] for plan in shown["replicas"].values()]
    assert tasks == [{"type": "worker", "index": 0}, {"type": "worker", "index": 1}]
    paths = [plan["argv"][-1] for plan in shown["replicas"].values()]
    assert paths[0].endswith("/0/0/files/mnist-with-summaries-logs")
    assert paths[1].endswith("/0/0/replicas/worker-1/files/mnist-with-summaries-logs")
    assert "metrics are read from worker-0" in err


CUSTOM = Path(__file__).parents[1] / "data/katib/metrics-collector/custom-metrics-collector.yaml"
IMAGES = Path(__file__).parents[2] / "examples/katib/images.yaml"


def test_render_shows_what_the_collector_beside_a_trial_would_run(shell: Shell) -> None:
    code, out, err = shell("render", str(CUSTOM), "--local", "--images", str(IMAGES), "-o", "json")
    assert code == 0, err
    argv = json.loads(out)["collector"]["argv"]
    assert argv[0] == str(IMAGES.parent / "custom-metrics-collector/entrypoint")
    assert argv[-1].endswith("/0/0/files/katib/mnist.log")


def test_render_says_when_it_would_not_be_run(shell: Shell, tmp_path: Path) -> None:
    without = tmp_path / "images.yaml"
    without.write_text(f"ghcr.io/kubeflow/katib/pytorch-mnist-cpu: {IMAGES.parent}/pytorch-mnist\n")
    code, out, err = shell("render", str(CUSTOM), "--local", "--images", str(without), "-o", "json")
    assert code == 0, err
    assert "collector" not in json.loads(out)
    assert "the custom collector is not run: container custom-metrics-logger-and-collector has no command" in err


def test_deleted_logs_are_said_to_be_gone(shell: Shell, digits: ExperimentRecord, settings: Settings) -> None:
    archive.forget(directory(settings, digits, 0))
    code, out, err = shell("logs", "digits", "--trial", "0")
    assert (code, out) == (0, "")
    assert "is gone" in err


def test_a_trial_that_is_not_there_is_named(shell: Shell, digits: ExperimentRecord) -> None:
    code, _, err = shell("logs", "digits", "--trial", "999")
    assert (code, err.splitlines()[0]) == (3, 'error: digits has no trial "999"')


def test_a_file_is_shown_only_where_a_collector_reads_one(shell: Shell, store: Store, settings: Settings) -> None:
    missed(store, settings, "nothing\n")
    code, _, err = shell("logs", "missed", "--trial", "0", "--file")
    assert (code, err.splitlines()[0]) == (2, "error: missed collects with StdOut, which reads no file")
