"""Screens and reports of known records, at 80 and 120 columns, in colour, without, and in ASCII."""

from __future__ import annotations

import dataclasses

import pytest

from evertune.cli.follow.snapshot import Ended, RunningTrial
from evertune.cli.output.documents import experiment_document
from evertune.cli.output.marks import Marks
from evertune.cli.output.text import STYLES, Line, line_width, plain
from evertune.cli.views.details import best_lines, details
from evertune.cli.views.explain import explain_experiment, explain_trial
from evertune.cli.views.listing import attention, listing
from evertune.cli.views.live import detached_lines, live_lines
from evertune.cli.views.progress import ProgressLines
from evertune.cli.views.sentences import group_failures, next_commands, numbers_words, over_defaults, trial_sentence
from evertune.cli.views.summary import next_lines, summary_lines
from evertune.cli.views.trials import hidden_line, phases_of, reasons_table, trials_table
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.records import AttemptRecord, AuditRecord, Budget, Counts
from evertune.domain.space import SearchSpace
from evertune.domain.states import AttemptState, ExperimentState, FailureClass, TrialState
from tests.cli.build import at, experiment, snapshot, trial

MARKS, ASCII = Marks(), Marks(ascii=True)
KEYS = ["p pause", "s stop", "Ctrl-C detach"]


def texts(lines: list[Line]) -> list[str]:
    assert {style for line in lines for _, style in line} <= set(STYLES)
    return [plain(line).rstrip() for line in lines]


# ------------------------------------------------------------------------------------------------- live screen


def test_the_live_screen_at_80_columns() -> None:
    assert texts(live_lines(snapshot(), width=80, height=30, marks=MARKS, keys=KEYS)) == [
        "evertune run digits.yaml                                   http://127.0.0.1:8233",
        "digits  ◐ Running 00:41  tpe, 4 parallel, this machine",
        "",
        "  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━━━  15/24   ETA 00:25",
        "  ✔ 12   ⇥ 1   ✘ 2   ◐ 4   5 to go                             2 of 3 may fail",
        "",
        "  best accuracy  0.9778  ▁▃▃▆▆▇██  ↑ trial 11, 9s ago               goal 0.985",
        "  C=12.4  gamma=0.00106  kernel=rbf  batch=32",
        "",
        "  TRIAL  STEP  accuracy     C    gamma  kernel  batch  TOOK",
        "     16     8    0.9601  12.4  0.00106  rbf        32    9s",
        "     17     7    0.9611  12.4  0.00106  rbf        32    8s",
        "     18     6    0.9621  12.4  0.00106  rbf        32    7s",
        "     19     5    0.9631  12.4  0.00106  rbf        32    6s",
        "",
        "  00:32  ✔  11  0.9778  new best, was 0.9694",
        "  00:35  ⇥  13  0.6111  stopped at step 3: below the median 0.8917",
        "  00:38  ✘  14  exit 1: ValueError: degree must be at least 1",
        "  00:40  ✔  15  0.9667",
        "",
        "  p pause   s stop   Ctrl-C detach",
    ]


def test_in_ascii_nothing_else_is_printed() -> None:
    lines = texts(live_lines(snapshot(), width=120, height=40, marks=ASCII, keys=KEYS))
    assert all(line.isascii() for line in lines)
    assert lines[1].startswith("digits  > Running 00:41")


def test_at_120_columns_the_whole_link_is_there() -> None:
    lines = texts(live_lines(snapshot(), width=120, height=40, marks=MARKS, keys=KEYS))
    assert lines[0].endswith("/namespaces/default/workflows/experiment%2Fdefault%2Fdigits")
    assert len(lines[0]) == 120


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [3, 10, 15, 16, 20, 24, 60])
@pytest.mark.parametrize("running", [0, 1, 40])
def test_no_screen_is_larger_than_its_terminal(width: int, height: int, running: int) -> None:
    lines = live_lines(snapshot(running=running), width=width, height=height, marks=MARKS, keys=KEYS)
    assert len(lines) < max(height, 2)
    assert all(line_width(line) <= width for line in lines)


GPU = "Pending: 0/5 nodes are available: 5 Insufficient nvidia.com/gpu."


def test_what_running_trials_wait_for_is_on_the_live_screen_once_for_all_of_them() -> None:
    running = [RunningTrial(trial(number, TrialState.RUNNING, reason=GPU)) for number in (16, 17, 18, 19)]
    lines = texts(live_lines(dataclasses.replace(snapshot(), running=running), width=120, height=24, marks=MARKS))
    assert f"  trials 16, 17, 18 and 1 more: {GPU}" in lines
    assert len(lines) < 24
    assert any(line.strip().startswith("TRIAL") for line in lines)


def test_what_running_trials_wait_for_is_told_by_get_trials_and_explain() -> None:
    waiting = {3: GPU, 4: GPU, 7: "Pending: ErrImagePull x:1"}
    lines = texts(details(experiment(), now=at(41), marks=MARKS, waiting=waiting))
    assert any(line.startswith("Waiting") and line.endswith(f"trials 3, 4: {GPU}") for line in lines)
    assert any(line.endswith("trial 7: Pending: ErrImagePull x:1") for line in lines)
    listed = [trial(3, TrialState.RUNNING, reason=GPU), trial(4, TrialState.RUNNING), trial(5, value=0.5)]
    assert phases_of(listed) == {3: GPU}
    attempt = AttemptRecord(number=3, attempt=0, state=AttemptState.RUNNING, phase=GPU)
    told = texts(explain_trial(experiment(), listed[0], [attempt], now=at(41), marks=MARKS))
    assert told[0].endswith(f"but waits: {GPU}.")


def test_many_running_trials_are_counted_not_all_shown() -> None:
    lines = texts(live_lines(snapshot(running=12), width=100, height=50, marks=MARKS, keys=KEYS))
    assert "  … and 4 more" in lines


def test_below_sixteen_lines_the_events_go_first_then_the_trials() -> None:
    short = "\n".join(texts(live_lines(snapshot(), width=80, height=15, marks=MARKS, keys=KEYS)))
    assert "TRIAL" not in short or "new best" not in short
    assert "ValueError" not in short
    assert "best accuracy  0.9778" in short
    assert "p pause" in short


def test_a_pause_says_who_and_what_still_runs() -> None:
    paused = experiment(ExperimentState.PAUSED)
    audit = [AuditRecord(at=at(20), actor="mira", action="pause")]
    line = texts(live_lines(snapshot(paused, now=140, audit=audit), width=80, height=30, marks=MARKS))[1]
    assert line == "digits  ‖ Paused by you 2m ago, 4 trials finishing"
    somebody = dataclasses.replace(snapshot(paused, now=140, audit=audit), you="")
    assert "by mira 2m ago" in texts(live_lines(somebody, width=80, height=30, marks=MARKS))[1]


def test_trouble_takes_the_place_of_the_search() -> None:
    troubled = snapshot(trouble="connection to Temporal lost 6s ago, trials go on")
    line = texts(live_lines(troubled, width=80, height=30, marks=MARKS))[1]
    assert line == "digits  ◐ Running 00:41, connection to Temporal lost 6s ago, trials go on"


def test_before_the_first_value_the_screen_says_so() -> None:
    empty = experiment(best=None, counts=Counts(created=4, running=4))
    lines = texts(live_lines(snapshot(empty, events=[], curve=[]), width=80, height=30, marks=MARKS))
    assert any(line.startswith("  no accuracy yet") for line in lines)


def test_an_experiment_without_a_budget_has_no_bar_and_no_estimate() -> None:
    endless = experiment(budget=Budget(parallel=4))
    lines = texts(live_lines(snapshot(endless, eta_s=None), width=80, height=30, marks=MARKS))
    assert lines[3] == "  15 trials"
    assert "to go" not in lines[4]


def test_near_the_goal_what_is_missing_is_said() -> None:
    near = experiment(best=trial(11, value=0.9844, ended=32))
    assert any(
        "0.0006 to goal 0.985" in line for line in texts(live_lines(snapshot(near), width=80, height=30, marks=MARKS))
    )


def test_detaching_says_how_it_stands_and_how_to_come_back() -> None:
    assert texts(detached_lines(snapshot())) == [
        "Detached. digits goes on: 15 of 24 trials, best 0.9778.",
        "  evertune watch digits     return to this view",
        "  evertune stop digits      finish what runs, then end",
    ]
    elsewhere = texts(detached_lines(snapshot(experiment(namespace="team"))))
    assert elsewhere[1].startswith("  evertune watch digits -n team ")


# ------------------------------------------------------------------------------------------------ plain lines


def test_what_trials_wait_for_is_told_once_when_it_lasts() -> None:
    lines = ProgressLines(MARKS)
    moment, no_room = "Pending: its containers are being made", "Pending: 0/5 nodes are available"
    assert lines.waiting({0: moment, 1: no_room}, at(0)) == []
    assert lines.waiting({0: no_room, 1: no_room}, at(1)) == []
    assert [plain(line) for line in lines.waiting({0: no_room, 1: no_room, 2: moment}, at(2))] == [
        "trials 0, 1: Pending: 0/5 nodes are available"
    ]
    assert lines.waiting({0: no_room, 2: no_room}, at(9)) == []
    assert lines.waiting({}, at(10)) == []
    assert lines.waiting({3: no_room}, at(11)) == []
    assert len(lines.waiting({3: no_room}, at(13))) == 1


def test_without_a_terminal_each_finished_trial_is_one_line() -> None:
    record, lines = experiment(), ProgressLines(MARKS)
    first = trial(2, value=0.925, started=0, ended=3.1)
    assert plain(lines.submitted(record, "http://127.0.0.1:8233")) == (
        "digits submitted: tpe, 24 trials, 4 parallel, http://127.0.0.1:8233"
    )
    assert plain(lines.ended(Ended(first, first, new_best=True), record)) == (
        "[ 1/24] ✔ trial  2  accuracy 0.9250  best 0.9250 *  C=12.4 gamma=0.00106 kernel=rbf batch=32   3.1s"
    )
    second = trial(1, value=0.8917, started=0, ended=3.4)
    assert plain(lines.ended(Ended(second, first), record)) == (
        "[ 2/24] ✔ trial  1  accuracy 0.8917  best 0.9250    C=12.4 gamma=0.00106 kernel=rbf batch=32   3.4s"
    )
    failed = trial(4, TrialState.FAILED, reason="exit 1: ValueError: degree must be at least 1", ended=0.8)
    line = plain(lines.ended(Ended(failed, first), record))
    assert line.startswith("[ 3/24] ✘ trial  4  exit 1: ValueError: degree must be at least 1   ")
    assert line.endswith("   0.8s")


def test_without_a_terminal_what_holds_an_experiment_up_is_said_once_with_what_moves_it() -> None:
    record, lines = experiment(), ProgressLines(MARKS)
    assert lines.held(record, "", "") == []
    (line,) = lines.held(record, "", "no worker of this home, trials go on")
    assert plain(line) == "digits: no worker of this home, trials go on; next: evertune up"
    assert lines.held(record, "", "no worker of this home, trials go on") == []
    assert [plain(line) for line in lines.held(record, "", "")] == ["digits: it goes on"]
    (line,) = lines.held(experiment(ExperimentState.PAUSED))
    assert plain(line) == "digits: it is paused; next: evertune resume digits"


# ---------------------------------------------------------------------------------------------------- summary


def _succeeded(**changes: object) -> object:
    return experiment(
        ExperimentState.SUCCEEDED,
        reason="ExperimentGoalReached",
        message="goal 0.985 reached by trial 11",
        best=trial(11, value=0.9889, ended=58),
        ended=at(58),
        **changes,
    )


def test_the_summary_says_what_came_out_and_by_how_much() -> None:
    done = snapshot(_succeeded(), busy_s=4 * 58 * 0.994)  # type: ignore[arg-type]
    assert texts(summary_lines(done, marks=MARKS)) == [
        "digits  ✔ Succeeded after 00:58: goal 0.985 reached by trial 11",
        "",
        "  best accuracy   0.9889   trial 11   +0.0278 over the defaults' 0.9611",
        "  C               12.4",
        "  gamma           0.00106",
        "  kernel          rbf",
        "  batch           32",
        "",
        "  15 trials   ✔ 12  ⇥ 1  ✘ 2",
        "  slots       idle 0.6 % of the time",
    ]


def test_a_failure_says_so_first_with_its_reasons() -> None:
    record = experiment(
        ExperimentState.FAILED,
        reason="ExperimentFailed",
        message="3 trials failed, 3 may; the last one: exit 2: no such file",
        counts=Counts(created=3, failed=3),
        best=None,
        ended=at(4),
    )
    failed = [trial(n, TrialState.FAILED, reason="exit 2: no such file", ended=1) for n in (1, 2, 3)]
    assert texts(summary_lines(snapshot(record), marks=MARKS, failed=failed)) == [
        "digits  ✘ Failed after 00:04: 3 trials failed, 3 may",
        "",
        "  trials 1, 2, 3   exit 2: no such file",
        "",
        "  3 trials   ✘ 3",
    ]


@pytest.mark.parametrize(
    ("direction", "value", "words"),
    [
        (ObjectiveType.MAXIMIZE, 0.9889, "+0.0278 over the defaults' 0.9611"),
        (ObjectiveType.MINIMIZE, 0.5, "-0.4611 below the defaults' 0.9611"),
        (ObjectiveType.MAXIMIZE, 0.9611, "the same as the defaults' 0.9611"),
        (ObjectiveType.MAXIMIZE, 0.95, "0.0111 below the defaults' 0.9611: no improvement"),
    ],
)
def test_the_gain_over_the_defaults_is_honest(direction: ObjectiveType, value: float, words: str) -> None:
    record = experiment(best=trial(1, value=value), objective=Objective(direction, "accuracy"))
    assert over_defaults(record) == words
    assert over_defaults(dataclasses.replace(record, manifest={"metadata": {}})) == ""


# ------------------------------------------------------------------------------------------------------- list


def _experiments() -> list[object]:
    return [
        experiment(ExperimentState.PAUSED, name="bert-base-mrpc-finetune-sweep-2", created=at(-2 * 86400 - 100)),
        experiment(ExperimentState.FAILED, name="xgb-churn-nightly", best=None, counts=Counts(created=3, failed=3)),
        experiment(name="unet"),
    ]


def test_the_list_fits_80_columns_and_names_lose_their_middle() -> None:
    lines = texts(listing(_experiments(), now=at(60), marks=MARKS, width=60))  # type: ignore[arg-type]
    assert lines == [
        "NAME                   STATE      TRIALS    BEST  AGE    ETA",
        "bert-base-…ne-sweep-2  ‖ Paused    15/24  0.9778   2d      –",
        "xgb-churn-nightly      ✘ Failed     3/24       –   1m      –",
        "unet                   ◐ Running   15/24  0.9778   1m  00:36",
    ]


def test_without_a_terminal_names_are_whole() -> None:
    lines = texts(listing(_experiments(), now=at(60), marks=MARKS, headers=False))  # type: ignore[arg-type]
    assert lines[0].startswith("bert-base-mrpc-finetune-sweep-2  ")
    assert len(lines) == 3


def test_the_wide_list_adds_counters_objective_and_algorithm() -> None:
    lines = texts(listing(_experiments(), now=at(60), marks=MARKS, wide=True, namespaces=True))  # type: ignore[arg-type]
    assert lines[0].split() == [
        "NAMESPACE", "NAME", "STATE", "TRIALS", "✔", "⇥", "✘", "BEST", "OBJECTIVE", "ALGORITHM",
        "AGE", "ETA", "CREATED",
    ]  # fmt: skip
    assert "↑ accuracy" in lines[1]


def test_the_list_ends_with_what_needs_a_person() -> None:
    assert plain(attention(_experiments())) == "2 need you. Next: evertune explain xgb-churn-nightly"  # type: ignore[arg-type]
    assert plain(attention([experiment(ExperimentState.SUCCEEDED)])) == "Next: evertune best digits"


# -------------------------------------------------------------------------------------------- get, best, trials


def test_get_shows_state_reason_and_where_it_runs() -> None:
    lines = texts(details(experiment(), now=at(41), marks=MARKS, width=80))
    assert lines[:7] == [
        "Name         digits   (default)",
        "State        ◐ Running for 41s",
        "Why          4 of 4 slots busy, a trial ends every 2.7s",
        "Best         accuracy 0.9778 at trial 11, 9s ago; goal 0.985; +0.0167 over the",
        "             defaults' 0.9611",
        "Trials       15 of 24    ✔ 12  ⇥ 1  ✘ 2  ◐ 4    2 of 3 may fail",
        "Search       tpe, 4 parameters, 4 parallel, seed 20",
    ]
    assert "Environment  PATH=/venv/bin:…" in lines
    assert lines[-3:] == ["Best parameters", "  C      12.4     kernel  rbf", "  gamma  0.00106  batch   32"]


def test_get_shows_what_was_to_be_minded_with_its_mend() -> None:
    warning = {"path": "spec.maxTrialCount", "type": "Invalid", "message": "it is few", "hint": "more of it"}
    record = experiment(context={"warnings": [{**warning, "line": None, "of_a_later_version": 1}]})
    lines = texts(details(record, now=at(41), marks=MARKS, width=100))
    assert "Warning   spec.maxTrialCount: it is few; more of it" in lines
    assert experiment_document(record)["warnings"] == [
        {"path": "spec.maxTrialCount", "message": "it is few", "hint": "more of it"}
    ]


def test_get_groups_what_failed() -> None:
    failed = [trial(n, TrialState.FAILED, reason="out of memory", ended=1) for n in range(7)]
    lines = texts(details(experiment(), now=at(41), marks=MARKS, failed=failed))
    assert lines[-2:] == [
        "  ✘ trials 0, 1, 2, 3, 4 and 2 more: out of memory",
        "    evertune logs digits --trial 6",
    ]


def test_best_has_five_digits() -> None:
    record = experiment()
    assert record.best is not None
    assert texts(best_lines(record, record.best, MARKS)) == [
        "accuracy 0.9778  trial 11  (max)",
        "",
        "C       12.431",
        "gamma   0.0010634",
        "kernel  rbf",
        "batch   32",
    ]


def test_trials_show_as_many_parameters_as_fit_and_count_the_rest() -> None:
    trials = [trial(1, value=0.9, ended=21), trial(2, value=0.85, ended=7.5, attempts=2)]
    rendered = trials_table(experiment(), trials, now=at(60), marks=MARKS, width=54)
    assert texts(rendered.lines) == [
        "TRIAL  STATE           accuracy     C    gamma  TOOK",
        "    1  ✔ Succeeded       0.9000  12.4  0.00106   21s",
        "    2  ✔ Succeeded ×2    0.8500  12.4  0.00106  7.5s",
    ]
    assert rendered.hidden == ["kernel", "batch"]
    words = plain(hidden_line(2, 155, rendered.hidden, "digits"))
    assert words == "2 of 155, 2 more columns: -o wide or --columns kernel,batch"
    wide = trials_table(experiment(), trials, now=at(60), marks=MARKS, width=50, wide=True)
    assert wide.hidden == []
    assert "2026-03-01 12:00:21Z" in plain(wide.lines[1])


def test_named_columns_are_shown_whether_they_fit_or_not() -> None:
    rendered = trials_table(experiment(), [trial(1, value=0.9)], now=at(1), marks=MARKS, width=20, columns=["gamma"])
    assert "gamma" in plain(rendered.lines[0])
    assert "kernel" not in plain(rendered.lines[0])


def test_for_failures_the_reason_takes_the_place_of_parameters() -> None:
    trials = [
        trial(
            58,
            TrialState.METRICS_UNAVAILABLE,
            message="the trial ended without accuracy; seen: acc; last lines:\nx=1",
            ended=5,
        ),
        trial(60, TrialState.FAILED, reason="CannotStart", message="command 'pithon' is not on PATH", ended=0),
    ]
    assert texts(reasons_table(trials, now=at(60), marks=MARKS).lines) == [
        "TRIAL  STATE                 ATTEMPTS  TOOK  CHARGED  REASON",
        "   58  ◇ MetricsUnavailable         1  5.0s  yes      the trial ended without accuracy; seen: acc",
        "   60  ✘ Failed                     1  0.0s  yes      command 'pithon' is not on PATH",
    ]


# ------------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("state", "reason", "message", "sentence"),
    [
        (TrialState.FAILED, "exit 1: boom", "whole\nlog", "exit 1: boom"),
        (TrialState.KILLED, "ExperimentGoalReached", "", "stopped: the goal was reached"),
        (TrialState.KILLED, "StoppedByUser: too slow", "", "stopped: too slow"),
        (TrialState.EARLY_STOPPED, "EarlyStopped: below the median", "", "below the median"),
        (TrialState.METRICS_UNAVAILABLE, "MetricsUnavailable", "no accuracy; seen: acc", "no accuracy; seen: acc"),
    ],
)
def test_a_trial_says_in_one_line_why_it_ended(state: TrialState, reason: str, message: str, sentence: str) -> None:
    assert trial_sentence(trial(1, state, reason=reason, message=message)) == sentence


def test_failures_are_grouped_the_most_frequent_first() -> None:
    trials = [trial(n, TrialState.FAILED, reason="a" if n % 3 else "b") for n in range(9)]
    assert group_failures([*trials, trial(9)]) == [("a", [1, 2, 4, 5, 7, 8]), ("b", [0, 3, 6])]
    assert numbers_words([1]) == "trial 1"


# ---------------------------------------------------------------------------------------------------- explain


def test_explain_is_one_sentence_the_evidence_and_the_command() -> None:
    failed = [
        trial(n, TrialState.FAILED, reason="out of memory", parameters={"batch": "64", "C": 1.0}) for n in (31, 33, 34)
    ]
    good = [trial(n, value=0.9, parameters={"batch": "32", "C": 1.0}) for n in range(3)]
    record = experiment(
        ExperimentState.FAILED, message="3 trials failed, 3 may", counts=Counts(created=6, failed=3), ended=at(20)
    )
    lines = texts(
        explain_experiment(record, now=at(41), marks=MARKS, audit=[], failed=failed, succeeded=good, width=100)
    )
    assert lines == [
        "digits is ✘ Failed since 21s: 3 trials failed, 3 may.",
        "",
        "Evidence",
        "  trials 31, 33, 34  out of memory",
        "  all failed         batch=64; the 3 trials that succeeded have others",
        "  budget             3 of 24 trials finished",
        "  rule               maxFailedTrialCount: 3 failed, 3 may",
        "  goal               accuracy 0.985; best 0.9778 at trial 11",
        "",
        "To go on",
        "  evertune logs digits --trial 34          its whole log",
        "  evertune extend digits --max-failed 7    once it is mended: go on, more may fail",
        "  evertune delete digits                   or begin anew",
    ]


def test_trials_that_are_lost_again_and_again_explain_the_wait() -> None:
    lost = trial(0, TrialState.CREATED, attempts=7)
    record = experiment(counts=Counts(created=1))
    lines = [
        plain(line)
        for line in explain_experiment(
            record, now=at(41), marks=MARKS, audit=[], failed=[], polling=True, waiting=[lost]
        )
    ]
    assert lines[0] == "digits is ◐ Running since 41s: 1 trial between two attempts; none runs at this moment."
    words = "trial 0 7 attempts ended without a result, not charged; the next one waits for its turn"
    assert " ".join(lines[3].split()) == words


def test_an_experiment_that_nobody_moves_says_that_and_how() -> None:
    lines = texts(
        explain_experiment(
            experiment(), now=at(41), marks=MARKS, audit=[], failed=[], polling=False, stack="Temporal does not answer"
        )
    )
    assert lines[0] == "digits is ◐ Running since 41s, but nothing moves: no worker of this home is running."
    assert "  stack   Temporal does not answer" in lines
    assert lines[-1].startswith("  evertune up")


@pytest.mark.parametrize("state", list(ExperimentState))
@pytest.mark.parametrize("polling", [None, True, False])
def test_every_state_explains_itself(state: ExperimentState, polling: bool | None) -> None:
    record = experiment(state, message="because", ended=at(30) if state.terminal else None)
    lines = texts(explain_experiment(record, now=at(41), marks=MARKS, audit=[], failed=[], polling=polling))
    assert lines[0].startswith("digits is ")
    assert lines[0].endswith(".")
    assert lines[-1].startswith("  evertune ")


def test_explaining_a_trial_shows_each_attempt_and_the_end_of_its_log() -> None:
    attempts = [
        AttemptRecord(
            number=3, attempt=0, state=AttemptState.LOST, reason="Lost", failure=FailureClass.INFRASTRUCTURE,
            again=True, started=at(0), ended=at(4),
        ),
        AttemptRecord(
            number=3, attempt=1, state=AttemptState.SUCCEEDED, reason="Succeeded", started=at(5), ended=at(9)
        ),
    ]  # fmt: skip
    lines = texts(
        explain_trial(
            experiment(),
            trial(3, value=0.9, attempts=2),
            attempts,
            now=at(60),
            marks=MARKS,
            log=["accuracy=0.9"],
        )
    )
    assert lines == [
        "trial 3 of digits is ✔ Succeeded: accuracy 0.9.",
        "",
        "Evidence",
        "  attempt 0  Lost, infrastructure failure, took 4.0s, another attempt followed, not charged",
        "  attempt 1  Succeeded, took 4.0s",
        "  metrics    accuracy 0.9",
        "  log        accuracy=0.9",
        "",
        "Next",
        "  evertune logs digits --trial 3    its whole log",
    ]


def test_a_command_with_two_purposes_is_shown_once() -> None:
    message = "the trial ended without accuracy; seen: no metric at all"
    lost = trial(3, TrialState.METRICS_UNAVAILABLE, reason="MetricsUnavailable", message=message)
    record = experiment(manifest={"spec": {"metricsCollectorSpec": {"collector": {"kind": "TensorFlowEvent"}}}})
    lines = texts(explain_trial(record, lost, [], now=at(60), marks=MARKS, log=[]))
    assert lines[-2:] == ["Next", "  evertune logs digits --trial 3    what it printed"]


def test_a_long_command_does_not_move_the_purpose_of_the_others_off_the_screen() -> None:
    lines = texts(next_lines([("evertune reparse " + "x" * 100, "read"), ("evertune logs a", "its log")]))
    assert lines == ["  evertune reparse " + "x" * 100 + "    read", "  evertune logs a    its log"]


def test_early_stopping_is_told_by_get_trials_and_explain_without_pushing_peoples_deeds_aside() -> None:
    settings = [{"name": "start_step", "value": "2"}]
    rule = {"algorithmName": "medianstop", "algorithmSettings": settings}
    record = experiment(manifest={"spec": {"earlyStopping": rule}}, counts=Counts(created=20, early_stopped=6))
    lines = texts(details(record, now=at(41), marks=MARKS))
    assert any(" ".join(line.split()) == "Early stop medianstop, start_step=2" for line in lines)

    sentence = "medianstop: best loss 9 at step 2 is worse than 4, the mean of 3 earlier trials"
    audit = [AuditRecord(at=at(1), actor="mira", action="edit", detail={"parallel": 8})]
    audit += [
        AuditRecord(at=at(n), actor="medianstop", action="early-stop", detail={"trial": n, "reason": sentence})
        for n in range(2, 8)
    ]
    told = texts(explain_experiment(record, now=at(41), marks=MARKS, audit=audit, failed=[]))
    assert any("early stop" in line and "medianstop, start_step=2: 6 trials stopped" in line for line in told)
    assert any(f"the last one, trial 7: {sentence}" in line for line in told)
    assert any("edit by mira: parallel=8" in line for line in told)
    assert not any("early-stop by" in line for line in told)

    ended = trial(7, TrialState.EARLY_STOPPED, 9.0, reason=f"EarlyStopped: {sentence}")
    assert trial_sentence(ended) == sentence
    asked = AttemptRecord(number=7, attempt=0, state=AttemptState.RUNNING, stop=f"EarlyStopped: {sentence}")
    running = texts(explain_trial(record, trial(7, TrialState.RUNNING), [asked], now=at(41), marks=MARKS))
    assert any(f"asked to end: EarlyStopped: {sentence}" in line for line in running)


@pytest.mark.parametrize(
    ("reason", "offered"), [("ExperimentSuggestionEndReached", False), ("ExperimentMaxTrialsReached", True)]
)
def test_more_trials_are_offered_only_where_the_algorithm_has_more_to_suggest(reason: str, *, offered: bool) -> None:
    record = experiment(ExperimentState.SUCCEEDED, reason=reason)
    commands = [command for command, _ in next_commands(record)]
    assert any(command.startswith("evertune extend") for command in commands) is offered
    assert commands  # there is always a next one


def test_a_search_of_networks_has_architectures_where_others_have_parameters() -> None:
    lines = texts(details(experiment(algorithm="enas", space=SearchSpace(())), now=at(41), marks=MARKS, width=80))
    assert "Search       enas, architectures, 4 parallel, seed 20" in lines
