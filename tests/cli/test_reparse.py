"""`evertune metrics reparse` on a finished experiment, and how a missed objective is told: real rows, real logs."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from evertune.cli.views.unavailable import Missed
from evertune.domain.records import ExperimentRecord
from evertune.domain.states import ExperimentState, TrialState
from evertune.settings import Settings
from evertune.store import Store
from tests.cli import build
from tests.cli.conftest import Shell
from tests.cli.missed import SHORT, log_of, missed
from tests.cli.test_process import EVERTUNE, environment

COLON = "epoch 1 val_accuracy: {}\nloss=0.1\n"
OTHER = "val_acc={}\nloss=0.1\n"


@pytest.fixture
def three(store: Store, settings: Settings) -> ExperimentRecord:
    return missed(store, settings, *(OTHER.format(value) for value in ("0.5", "0.9", "0.7")))


def test_get_and_explain_name_what_was_seen_and_the_command_that_takes_it(
    shell: Shell, three: ExperimentRecord
) -> None:
    command = "evertune metrics reparse missed --metric val_acc"
    _, out, _ = shell("get", "missed")
    assert f"◇ trials 0, 1, 2 ended without val_accuracy; val_acc was seen\n    {command}\n" in out
    assert command in shell("explain", "missed")[1]
    assert command in shell("explain", "missed", "1")[1]


def test_get_gives_the_filter_that_would_have_found_the_objective(
    shell: Shell, store: Store, settings: Settings
) -> None:
    missed(store, settings, COLON.format("0.5"), "nothing\n", "boom\n", failed=(2,))
    _, out, _ = shell("get", "missed")
    (command,) = [line.strip() for line in out.splitlines() if "reparse missed --filter" in line]
    assert "◇ trial 0 ended without val_accuracy; its filter does not fit what was printed" in out
    assert "◇ trial 1 ended without val_accuracy; no metric was seen" in out
    assert "evertune logs missed --trial 1 | evertune metrics test - --metric val_accuracy" in out
    assert "✘ trial 2: " in out
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(EVERTUNE)} {command.removeprefix('evertune ')} -o json"],
        env=environment(settings.home),
        capture_output=True,
        check=True,
    )
    rows = json.loads(done.stdout)
    assert [(row["trial"], row["after"], row["value"]) for row in rows if row["changes"]] == [(0, "Succeeded", 0.5)]


FILE = """\
metricsCollectorSpec:
  collector: {kind: File}
  source: {fileSystemPath: {kind: File, format: %s, path: /var/log/trial/metrics}}
"""


def test_what_was_searched_is_shown_to_its_last_line_also_when_it_is_a_file(
    shell: Shell, store: Store, settings: Settings
) -> None:
    lines = [f"line {number} " + "x" * 600 for number in range(30)]
    missed(store, settings, "\n".join(lines), short=SHORT + FILE % "TEXT")
    out = shell("explain", "missed", "0")[1]
    shown = [line.split()[2] for line in out.splitlines() if line.startswith("  log ")]
    assert shown == [str(number) for number in range(10, 30)]
    assert "  message " not in out
    command = "evertune logs missed --trial 0 --file | evertune metrics test - --metric val_accuracy"
    assert command in out
    assert shell("logs", "missed", "--trial", "0", "--file")[:2] == (0, "\n".join(lines))


def test_where_no_filter_has_a_say_a_name_that_was_seen_is_offered(
    shell: Shell, store: Store, settings: Settings
) -> None:
    missed(store, settings, '{"loss": 1, "auc": 0.5}\n', short=SHORT + FILE % "JSON")
    out = shell("explain", "missed", "0")[1]
    assert "evertune metrics reparse missed --metric loss    take loss for val_accuracy, or another one" in out
    shell("metrics", "reparse", "missed", "--metric", "auc", "--apply")
    assert "val_accuracy 0.5" in shell("best", "missed")[1]


def test_words_about_what_was_not_there_are_never_taken_for_a_metric(
    shell: Shell, store: Store, settings: Settings
) -> None:
    missed(store, settings, "oops\n", short=SHORT + FILE % "JSON")
    out = shell("explain", "missed", "0")[1]
    assert "1 line is not a JSON object and was left out (line 1: oops); seen: no metric at all" in out
    assert "reparse" not in out
    old = "the trial ended without loss; seen: no metric at all; /a/b was never written"  # as older versions wrote it
    assert Missed.of(build.trial(3, TrialState.METRICS_UNAVAILABLE, message=old)).seen == ""


def test_an_objective_without_a_value_is_not_said_to_be_unseen(shell: Shell, store: Store, settings: Settings) -> None:
    missed(store, settings, "val_accuracy=nan\n", "val_accuracy=nan\nother=1\n")
    assert shell("explain", "missed", "0")[1].startswith(
        "trial 0 of missed is ◇ MetricsUnavailable: the trial reported val_accuracy without a value."
    )
    assert "without a value; seen: other" in shell("explain", "missed", "1")[1]


def test_a_name_of_any_length_is_named_in_one_sentence(shell: Shell, store: Store, settings: Settings) -> None:
    missed(store, settings, "a" * 100_000 + "=1\n")
    head = shell("explain", "missed", "0")[1].splitlines()[0]
    assert "seen: " + "a" * 59 + "…." in head


def test_what_a_collector_left_out_is_told_of_a_trial_that_succeeded(
    shell: Shell, store: Store, settings: Settings
) -> None:
    record = missed(store, settings, '{"val_accuracy": 0.5}\noops\n', short=SHORT + FILE % "JSON")
    assert store.trial(record.uid, 0).state is TrialState.SUCCEEDED
    assert (
        "  warning    1 line is not a JSON object and was left out (line 2: oops)\n"
        in shell("explain", "missed", "0")[1]
    )


def test_without_apply_it_shows_what_would_change_and_changes_nothing(
    shell: Shell, store: Store, three: ExperimentRecord
) -> None:
    before = store.trials(three.uid)
    code, out, err = shell("metrics", "reparse", "missed", "--metric", "val_acc")
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split() == ["TRIAL", "BEFORE", "AFTER", "val_accuracy"]
    assert rows[1].split() == ["1", "◇", "MetricsUnavailable", "✔", "Succeeded", "0.9000"]
    assert len(rows) == 3
    assert "3 trials would change. Nothing is changed yet." in err
    assert "evertune metrics reparse missed --metric val_acc --apply" in err
    assert store.trials(three.uid) == before
    assert [entry for entry in store.audit(three.uid) if entry.action == "reparse"] == []


def test_apply_revises_verdicts_counters_and_best_and_starts_nothing(
    shell: Shell, store: Store, three: ExperimentRecord
) -> None:
    code, out, err = shell("metrics", "reparse", "missed", "--metric", "val_acc", "--apply")
    assert code == 0
    assert len(out.splitlines()) == 4
    record = store.experiment_by_uid(three.uid)
    assert (record.state, record.counts.succeeded, record.counts.metrics_unavailable) == (ExperimentState.FAILED, 3, 0)
    assert record.best is not None
    assert (record.best.number, record.best.objective_value) == (1, 0.9)
    assert record.counts.created == 3
    assert "3 trials revised; missed is Failed, best val_accuracy 0.9 at trial 1." in err
    assert "New trials are read by the experiment's own rules: once they end, give this command again." in err
    assert "evertune resume missed" in err
    entry = store.audit(three.uid)[-1]
    assert entry.action == "reparse"
    assert entry.actor
    assert entry.detail == {"metric": "val_acc", "trials": [0, 1, 2], "changed": 3}
    assert "reparse by" in shell("explain", "missed")[1]


def test_applied_twice_it_changes_nothing_the_second_time(shell: Shell, store: Store, three: ExperimentRecord) -> None:
    words = ("metrics", "reparse", "missed", "--metric", "val_acc", "--apply")
    shell(*words)
    trials, audit = store.trials(three.uid), store.audit(three.uid)
    code, out, err = shell(*words)
    assert (code, out) == (0, "")
    assert "Nothing changes: 3 trials read, the same verdicts." in err
    assert (store.trials(three.uid), store.audit(three.uid)) == (trials, audit)


def test_json_tells_every_trial_before_and_after(shell: Shell, three: ExperimentRecord) -> None:
    words = ("metrics", "reparse", "missed", "--metric", "val_acc", "--trial", "1", "-o", "json")
    expected = {
        "trial": 1,
        "before": "MetricsUnavailable",
        "after": "Succeeded",
        "was": None,
        "value": 0.9,
        "changes": True,
        "skipped": None,
        "applied": False,
    }
    assert json.loads(shell(*words)[1]) == [expected]
    assert json.loads(shell(*words, "--apply")[1]) == [expected | {"applied": True}]


def test_a_value_may_also_change_or_get_lost_and_the_best_with_it(
    shell: Shell, store: Store, settings: Settings
) -> None:
    logs = [f"val_accuracy={first}\nfinal_accuracy={last}\n" for first, last in (("0.9", "0.1"), ("0.8", "0.2"))]
    record = missed(store, settings, *logs, "val_accuracy=0.3\n", state=ExperimentState.SUCCEEDED)
    assert record.best is not None
    assert record.best.number == 0
    words = ("metrics", "reparse", "missed", "--metric", "final_accuracy", "--apply", "--allow-loss")
    _, out, _ = shell(*words)
    assert out.splitlines()[0].split() == ["TRIAL", "BEFORE", "AFTER", "val_accuracy", "WAS"]
    assert out.splitlines()[3].split() == ["2", "✔", "Succeeded", "◇", "MetricsUnavailable", "–", "0.3000"]
    best = store.best(record.uid)
    assert best is not None
    assert (best.number, best.objective) == (1, "0.2")


def test_a_value_is_not_lost_by_a_typing_error(shell: Shell, store: Store, settings: Settings) -> None:
    logs = ("val_accuracy=0.9\n", "val_accuracy=0.8\nval_acc=0.85\n")
    record = missed(store, settings, *logs, state=ExperimentState.SUCCEEDED)
    before = store.trials(record.uid)
    code, out, _ = shell("metrics", "reparse", "missed", "--metric", "val_acccuracy", "--apply")
    assert code == 0
    assert out.count("it would lose its value: --allow-loss") == 2
    assert store.trials(record.uid) == before
    _, out, _ = shell("metrics", "reparse", "missed", "--metric", "val_acc", "--apply", "-o", "json")
    assert [(row["applied"], row["value"]) for row in json.loads(out)] == [(False, None), (True, 0.85)]
    assert [trial.objective for trial in store.trials(record.uid)] == ["0.9", "0.85"]


def test_a_trial_that_cannot_be_judged_is_left_alone_with_the_reason(
    shell: Shell, store: Store, settings: Settings
) -> None:
    record = missed(store, settings, OTHER.format(0.5), OTHER.format(0.6), "boom\n", failed=(2,))
    log_of(settings, record, 1).unlink()
    words = ("metrics", "reparse", "missed", "--metric", "val_acc")
    code, out, _ = shell(*words, "--trial", "0", "--trial", "1", "--trial", "failed", "--trial", "2")
    rows = out.splitlines()
    assert code == 0
    assert "LEFT ALONE BECAUSE" in rows[0]
    assert "its log is not kept any more" in rows[2]
    assert "it failed, and what a failed trial printed has no say" in rows[3]


@pytest.mark.parametrize(
    ("metric", "sentence"), [(" ", "--metric is empty"), ("m" * 501, "--metric is longer than 500 characters")]
)
def test_a_name_that_cannot_be_one_is_refused(
    metric: str, sentence: str, shell: Shell, three: ExperimentRecord
) -> None:
    code, out, err = shell("metrics", "reparse", "missed", "--metric", metric)
    assert (code, out) == (2, "")
    assert sentence in err


def test_nothing_that_was_typed_or_printed_moves_the_cursor(shell: Shell, store: Store, settings: Settings) -> None:
    missed(store, settings, "val_acc\x07\x1b]0;x\x07=0.5\nval_\x08accuracy_=0.5\n", "val_acc=0.5\n")
    for words in (
        ("get", "missed"),
        ("explain", "missed"),
        ("metrics", "reparse", "missed", "--metric", "a\x1b[2J\nb"),
    ):
        _, out, err = shell(*words)
        assert all(line.isprintable() for line in (out + err).splitlines()), words


def test_filters_are_checked_before_anything_else(shell: Shell) -> None:
    code, out, err = shell("metrics", "reparse", "nobody", "-f", "(a)(?=b)", "-f", "x")
    assert (code, out) == (2, "")
    assert err.count("--filter cannot be used") == 2
    assert shell("metrics", "reparse", "nobody", "-f", "(a)=(b)")[0] == 3


def test_a_filter_where_it_has_no_meaning_is_refused(shell: Shell, store: Store, settings: Settings) -> None:
    full = """\
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {name: pushed}
spec:
  objective: {type: maximize, objectiveMetricName: val_accuracy}
  algorithm: {algorithmName: random}
  parallelTrialCount: 1
  maxTrialCount: 2
  metricsCollectorSpec: {collector: {kind: Push}}
  parameters:
    - {name: x, parameterType: double, feasibleSpace: {min: "0", max: "1"}}
  trialTemplate:
    primaryContainerName: main
    trialParameters: [{name: x, reference: x}]
    trialSpec:
      apiVersion: batch/v1
      kind: Job
      spec:
        template:
          spec:
            containers: [{name: main, image: any, command: [echo, "${trialParameters.x}"]}]
            restartPolicy: Never
"""
    missed(store, settings, short=full)
    code, _, err = shell("metrics", "reparse", "pushed", "-f", "(a)=(b)")
    assert code == 2
    assert "pushed collects with Push, where a filter has no meaning" in err


@pytest.mark.parametrize(
    ("budget", "command"),
    [
        ("{trials: 400, parallel: 2}", "evertune resume missed "),
        ("{trials: 3, parallel: 2}", "evertune extend missed +3 "),
        ("{trials: 400, parallel: 2, failures: 1}", "evertune extend missed --max-failed 4 "),
    ],
)
def test_the_command_that_goes_on_is_one_that_the_experiment_allows(
    budget: str, command: str, shell: Shell, store: Store, settings: Settings
) -> None:
    short = SHORT.replace("{trials: 400, parallel: 2, failures: 3}", budget)
    missed(store, settings, OTHER.format(0.5), OTHER.format(0.6), "boom\n", short=short, failed=(2,))
    _, _, err = shell("metrics", "reparse", "missed", "--metric", "val_acc", "--apply")
    assert command in err


def test_a_run_without_any_result_says_how_to_find_out_why(shell: Shell, store: Store, settings: Settings) -> None:
    missed(store, settings, OTHER.format(0.5), state=ExperimentState.SUCCEEDED)
    _, _, err = shell("get", "missed")
    assert "evertune explain missed" in err
    assert "why no trial has a value of val_accuracy" in err


def test_rules_that_find_nothing_either_say_what_they_saw(shell: Shell, three: ExperimentRecord) -> None:
    code, _, err = shell("metrics", "reparse", "missed", "--metric", "f1")
    assert code == 0
    assert "Nothing changes: 3 trials read, the same verdicts." in err
    assert "trial 0: the trial ended without val_accuracy; seen: val_acc, loss" in err


# Some 50 ms of work for each trial that is revised, so that nobody is through before somebody else has looked.
SLOWED = """
CREATE TRIGGER slowed AFTER UPDATE ON evertune_trials BEGIN
  SELECT count(*) FROM evertune_trials a, evertune_trials b, evertune_trials c
  WHERE c.number < 40 AND a.number + b.number + c.number > 9;
END
"""


def execute(settings: Settings, statement: str) -> None:
    with closing(sqlite3.connect(settings.home / "evertune.db", timeout=60)) as connection:
        connection.execute(statement)


@pytest.mark.chaos
def test_killed_between_two_trials_the_same_command_does_the_rest(store: Store, settings: Settings) -> None:
    count = 150
    record = missed(store, settings, *(OTHER.format(number / 1000) for number in range(count)))
    execute(settings, SLOWED)
    words = [*EVERTUNE, "metrics", "reparse", "missed", "--metric", "val_acc", "--apply"]
    process = subprocess.Popen(words, env=environment(settings.home), stderr=subprocess.DEVNULL)
    while store.counts(record.uid).succeeded < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    execute(settings, "DROP TRIGGER slowed")
    revised = store.counts(record.uid).succeeded
    assert 0 < revised < count
    assert [entry.detail["changed"] for entry in store.audit(record.uid) if entry.action == "reparse"] == [count]

    done = subprocess.run(words, env=environment(settings.home), capture_output=True, check=True)

    assert len(done.stdout.splitlines()) == count - revised + 1
    assert store.counts(record.uid).succeeded == count
    trials = store.trials(record.uid)
    assert sorted(trial.told_seq or 0 for trial in trials) == list(range(count + 1, 2 * count + 1))
    assert [trial.objective_value for trial in trials] == [number / 1000 for number in range(count)]
    changed = [entry.detail["changed"] for entry in store.audit(record.uid) if entry.action == "reparse"]
    assert changed == [count, count - revised]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (OTHER.format("0.5"), Missed("ended without val_accuracy", "val_acc, loss", "val_acc")),
        ("loss=1\n", Missed("ended without val_accuracy", "loss")),
        ("nothing\n", Missed("ended without val_accuracy")),
        ("", Missed("ended without val_accuracy")),
    ],
)
def test_the_message_of_a_trial_is_understood_as_it_is_written(
    log: str, expected: Missed, store: Store, settings: Settings
) -> None:
    record = missed(store, settings, log)
    trial = store.trial(record.uid, 0)
    assert trial.state is TrialState.METRICS_UNAVAILABLE
    assert Missed.of(trial) == expected


def test_a_suggested_filter_is_understood_with_all_its_signs(store: Store, settings: Settings) -> None:
    record = missed(store, settings, COLON.format("0.5"))
    found = Missed.of(store.trial(record.uid, 0))
    assert found.filter.startswith("(val_accuracy)")
    assert found.filter.endswith(")")
