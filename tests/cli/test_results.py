"""What is shown of experiments with several objectives, constraints, replicates and rules of their own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from activities.ending import record_end
from evertune.cli.follow.snapshot import Ended, Follower, RunningTrial
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import Decimals
from evertune.cli.output.text import Line, line_width, plain
from evertune.cli.views.details import best_lines, details
from evertune.cli.views.explain import explain_experiment, explain_trial
from evertune.cli.views.front import front_lines, picture
from evertune.cli.views.live import event_words, live_lines
from evertune.cli.views.progress import ProgressLines
from evertune.cli.views.summary import summary_lines
from evertune.cli.views.trials import trials_table
from evertune.domain.labels import REUSED_FROM
from evertune.domain.metrics import Constraint, Further, Objective, ObjectiveType, Point
from evertune.domain.pareto import front
from evertune.domain.records import AttemptRecord, ExperimentRecord, TrialRecord
from evertune.domain.space import Parameter, ParameterType, SearchSpace
from evertune.domain.states import AttemptState, ExperimentState, TrialState
from evertune.domain.trial import REUSED, Assignment, AttemptEnd, AttemptRef
from evertune.store import Store
from evertune.testing.store.making import NOW, create, suggest
from tests.cli.build import at, experiment, snapshot, trial
from tests.cli.conftest import Shell

MARKS, ASCII = Marks(), Marks(ascii=True)
LATENCY = Further("latency_ms", ObjectiveType.MINIMIZE)
BOTH = Objective(ObjectiveType.MAXIMIZE, "accuracy", further=(LATENCY,), constraints=(Constraint("memory", le=100.0),))
LIMITED = Objective(ObjectiveType.MAXIMIZE, "accuracy", goal=0.9, constraints=(Constraint("latency_ms", le=20.0),))
SPACE = SearchSpace((Parameter(name="layers", type=ParameterType.INT, low=1, high=8),))
VALUES = [(0.9, 30.0, 50), (0.8, 10.0, 50), (0.8, 20.0, 50), (0.95, 5.0, 200), (0.7, 8.0, 60)]


def joined(lines: list[Line]) -> str:
    return "\n".join(plain(line) for line in lines)


def measured(
    number: int, violation: float = 0.0, spread: dict[str, float] | None = None, **metrics: Any
) -> TrialRecord:
    texts = {name: str(value) for name, value in metrics.items()}
    ended = trial(number, value=float(metrics["accuracy"]), ended=10.0 + number)
    return dataclasses.replace(ended, metrics=texts, violation=violation, spread=spread or {})


@pytest.fixture
def trade(store: Store) -> ExperimentRecord:
    """Five trials: 0, 1 and 4 are on the front, 2 is dominated, 3 is infeasible."""
    uid = create(store, namespace="default", name="trade", objective=BOTH, space=SPACE).uid
    suggest(store, uid, 0, [Assignment({"layers": number + 1}) for number in range(len(VALUES))])
    for number, (accuracy, latency, memory) in enumerate(VALUES):
        store.open_attempt(uid, number, 0, home_id=None, at=NOW)
        points = [
            Point("accuracy", str(accuracy), 1),
            Point("latency_ms", str(latency), 2),
            Point("memory", str(memory), 3),
        ]
        ref = AttemptRef(uid, number, 0, "trade")
        record_end(store, ref, BOTH, AttemptEnd(AttemptState.SUCCEEDED, "Succeeded"), points=points)
    return store.experiment_by_uid(uid)


def test_best_of_several_objectives_is_the_front_in_every_form(shell: Shell, trade: ExperimentRecord) -> None:
    code, out, err = shell("best", "trade", "--reference", "0.5,40")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "Pareto front  3 of 4 feasible trials: maximize accuracy, minimize latency_ms; memory <= 100"
    assert [line.split() for line in lines[2:6]] == [
        ["TRIAL", "accuracy", "latency_ms", "layers"],
        ["0", "0.9000", "30.00", "1"],
        ["1", "0.8000", "10.00", "2"],
        ["4", "0.7000", "8.00", "5"],
    ]
    assert "hypervolume 10.400  up to accuracy 0.5000, latency_ms 40.00" in out
    assert out.count("●") == 3
    assert out.count("·") == 1
    assert "evertune best trade -o flags" in err
    document = json.loads(shell("best", "trade", "-o", "json", "--reference", "0.5,40")[1])
    assert (document["trial"], document["feasible"]) == (0, True)
    assert [entry["trial"] for entry in document["front"]] == [0, 1, 4]
    assert document["front"][1]["objectives"] == {"accuracy": 0.8, "latency_ms": 10.0}
    assert document["hypervolume"]["value"] == pytest.approx(0.4 * 10 + 0.3 * 20 + 0.2 * 2)
    assert document["hypervolume"]["reference"] == {"accuracy": 0.5, "latency_ms": 40.0}
    assert shell("best", "trade", "-o", "flags")[1] == "--layers 1\n--layers 2\n--layers 5\n"
    assert shell("best", "trade", "-o", "env")[1].startswith("# trial 0\nLAYERS=1\n\n# trial 1\n")
    assert len(shell("best", "trade", "-o", "csv")[1].splitlines()) == 4
    assert shell("best", "trade", "-o", "python")[1].splitlines()[2] == "{'layers': 5}"
    assert len(shell("best", "trade", "-o", "name")[1].split()) == 3


@pytest.mark.parametrize("text", ["0.5", "0.5,x", "1,2,3", "nan,1"])
def test_a_reference_point_has_a_number_for_each_objective(shell: Shell, trade: ExperimentRecord, text: str) -> None:
    code, out, err = shell("best", "trade", "--reference", text)
    assert (code, out) == (2, "")
    assert "it must be 2 numbers" in err
    assert "accuracy, latency_ms" in err


def test_a_reference_point_of_one_objective_is_refused(shell: Shell, digits: ExperimentRecord) -> None:
    code, _, err = shell("best", "digits", "--reference", "1")
    assert code == 2
    assert "for several objectives" in err


def test_trials_have_a_column_for_each_objective_and_say_which_are_feasible(
    shell: Shell, trade: ExperimentRecord
) -> None:
    lines = shell("trials", "trade")[1].splitlines()
    assert lines[0].split()[:6] == ["TRIAL", "STATE", "accuracy", "latency_ms", "memory", "FEASIBLE"]
    assert [line.split()[6] for line in lines[1:]] == ["yes", "yes", "yes", "no", "yes"]
    rows = json.loads(shell("trials", "trade", "-o", "json")[1])
    assert rows[3]["feasible"] is False
    assert rows[1]["objectives"] == {"accuracy": 0.8, "latency_ms": 10.0}
    explained = shell("explain", "trade", "3")[1]
    assert "memory is 200, not <= 100" in explained
    shown = shell("get", "trade")[1]
    assert "accuracy 0.9000 latency_ms 30.00 at trial 0" in shown
    assert "evertune best trade shows the Pareto front" in shown


def test_a_reader_that_follows_takes_the_feasible_one_for_the_best(store: Store, trade: ExperimentRecord) -> None:
    follower = Follower(store, trade.uid)
    last = follower.poll()
    assert [event.best.number for event in last.events if event.best] == [0, 0, 0, 0, 0]
    said = [plain(event_words(event, Decimals([0.9]), BOTH)) for event in last.events]
    assert said[0] == "0.9000  latency_ms 30.00  new best"
    assert said[3] == "0.9500  latency_ms 5.000  infeasible: memory is 200, not <= 100"
    line = plain(ProgressLines(MARKS).ended(last.events[3], trade))
    assert "accuracy 0.9500  latency_ms 5.000  infeasible: memory is 200, not <= 100" in line


def test_before_any_trial_is_feasible_the_nearest_one_is_shown_as_that_everywhere() -> None:
    nearest = measured(7, 14.2, accuracy=0.95, latency_ms=34.2)
    record = experiment(objective=LIMITED, best=nearest, manifest={})
    sentence = "latency_ms is 34.2, not <= 20"
    shown = joined(details(record, now=at(60), marks=MARKS))
    assert "no feasible trial yet; the nearest: accuracy 0.9500 at trial 7" in shown
    assert sentence in shown
    assert "goal 0.9 reached" not in shown
    assert sentence in joined(best_lines(record, nearest, MARKS))
    live = joined(live_lines(snapshot(record), width=100, height=30, marks=MARKS))
    assert "nearest accuracy  0.9500" in live
    assert f"no feasible trial yet: {sentence}" in live
    assert "goal 0.9 reached" not in live
    ended = dataclasses.replace(record, state=ExperimentState.SUCCEEDED, ended=at(60))
    assert f"no feasible trial: {sentence}" in joined(summary_lines(snapshot(ended), marks=MARKS))
    why = joined(explain_experiment(record, now=at(60), marks=MARKS, audit=[], failed=[]))
    assert f"no feasible trial yet: of the nearest one, trial 7, {sentence}" in why


def test_a_script_that_takes_an_infeasible_best_is_warned(shell: Shell, store: Store) -> None:
    uid = create(store, namespace="default", name="near", objective=LIMITED, space=SPACE).uid
    suggest(store, uid, 0, [Assignment({"layers": 3})])
    store.open_attempt(uid, 0, 0, home_id=None, at=NOW)
    end = AttemptEnd(AttemptState.SUCCEEDED, "Succeeded")
    record_end(store, AttemptRef(uid, 0, 0, "near"), LIMITED, end, points=[Point("accuracy", "0.5", 1)])
    code, out, err = shell("best", "near", "-o", "flags")
    assert (code, out) == (0, "--layers 3\n")
    assert "no feasible trial yet" in err
    assert "latency_ms was not reported as a number" in err


def test_the_log_of_a_reused_outcome_says_that_nothing_ran(shell: Shell, store: Store) -> None:
    uid = create(store, namespace="default", name="same", space=SPACE, home_id=None).uid
    suggest(store, uid, 0, [Assignment({"layers": 3}), Assignment({"layers": 3}, labels={REUSED_FROM: "0"})])
    for number, (reason, message) in enumerate(
        [("Succeeded", ""), (REUSED, "the outcome of trial 0, which has the same parameters")]
    ):
        store.open_attempt(uid, number, 0, home_id=None, at=NOW)
        end = AttemptEnd(AttemptState.SUCCEEDED, reason, message)
        ref = AttemptRef(uid, number, 0, "same")
        record_end(store, ref, Objective(ObjectiveType.MAXIMIZE, "accuracy"), end, points=[Point("accuracy", "1", 1)])
    code, out, err = shell("logs", "same", "--trial", "1")
    assert (code, out) == (0, "")
    assert "nothing ran: it has the outcome of trial 0" in err


def test_the_spread_of_replicates_stands_beside_their_mean() -> None:
    one = measured(3, spread={"accuracy": 0.0123}, accuracy=0.91)
    record = experiment(best=one, manifest={"spec": {"replicates": {"count": 3, "aggregate": "median"}}})
    table = joined(trials_table(record, [one], now=at(60), marks=MARKS).lines)
    assert "0.9100 ± 0.0123" in table
    between = dataclasses.replace(one, state=TrialState.RUNNING, objective=None, objective_value=None)
    assert "±" not in joined(trials_table(record, [between], now=at(60), marks=MARKS).lines)
    shown = joined(details(record, now=at(60), marks=MARKS))
    assert "accuracy 0.9100 ± 0.0123 at trial 3" in shown
    assert "each trial is the median of 3 runs" in shown
    assert "± 0.0123" in joined(best_lines(record, one, MARKS))
    runs = [
        AttemptRecord(number=3, attempt=index, state=AttemptState.SUCCEEDED, again=index < 2, started=at(0))
        for index in range(3)
    ]
    why = joined(explain_trial(record, one, runs, now=at(60), marks=MARKS))
    assert "of 3 runs together: accuracy 0.91 ± 0.0123" in why
    assert why.count("the next replicate followed") == 2


def test_between_two_replicates_a_trial_is_not_said_to_be_lost() -> None:
    waiting = trial(2, TrialState.CREATED, reason="Replicate: 1 of 3 runs have ended", attempts=1)
    record = experiment(manifest={})
    why = joined(explain_experiment(record, now=at(60), marks=MARKS, audit=[], failed=[], waiting=[waiting]))
    assert "Replicate: 1 of 3 runs have ended; the next one waits for its turn" in why
    assert "without a result" not in why


def test_get_and_explain_tell_the_rules_of_the_search() -> None:
    spec = {
        "initialTrials": [{"lr": 0.1}, {"lr": 0.2}],
        "warmStart": {"from": ["exp-a"], "mode": "transfer"},
        "parameterConstraints": ["layers * width <= 4096", "layers < 3 or width < 9"],
        "onDuplicate": "reuse",
        "onFailure": "worst",
    }
    record = experiment(manifest={"spec": spec})
    rules = (
        "2 initial trials; warm start from exp-a (transfer); layers * width <= 4096; layers < 3 or width < 9;"
        " a duplicate has the first one's outcome; a failure counts as the worst value so far"
    )
    assert rules in joined(details(record, now=at(60), marks=MARKS))
    assert "seed 20" in joined(details(record, now=at(60), marks=MARKS))
    assert rules in joined(explain_experiment(record, now=at(60), marks=MARKS, audit=[], failed=[]))
    failed = trial(4, TrialState.FAILED, reason="exit 1: boom")
    assert "counts it as the worst value so far" in joined(explain_trial(record, failed, [], now=at(60), marks=MARKS))
    reused = trial(5, value=0.5, reason="Reused", message="the outcome of trial 2, which has the same parameters")
    assert "accuracy 0.5, the outcome of trial 2, which has the same parameters." in joined(
        explain_trial(record, reused, [], now=at(60), marks=MARKS)
    )


def test_a_further_objective_that_is_missing_is_looked_for_in_the_log_and_never_taken_for_the_first() -> None:
    message = (
        "the trial ended without latency_ms; seen: accuracy, latency; did you mean latency?; last lines:\nlatency=3"
    )
    lost = trial(2, TrialState.METRICS_UNAVAILABLE, reason="MetricsUnavailable", message=message)
    record = experiment(objective=BOTH, manifest={})
    told = joined(explain_trial(record, lost, [], now=at(60), marks=MARKS))
    assert "evertune logs digits --trial 2 | evertune metrics test - --metric latency_ms" in told
    assert "reparse" not in told
    first = dataclasses.replace(lost, message=message.replace("latency_ms", "accuracy", 1))
    told = joined(explain_trial(record, first, [], now=at(60), marks=MARKS))
    assert "evertune metrics reparse digits --metric latency" in told


def test_running_trials_show_the_last_values_of_all_objectives() -> None:
    running = RunningTrial(trial(16, TrialState.RUNNING, started=30), 3, "0.96", {"latency_ms": "12.345"})
    record = experiment(objective=BOTH, best=measured(1, accuracy=0.9, latency_ms=30, memory=1), manifest={})
    shown = snapshot(record, events=[Ended(record.best, record.best)] if record.best else [])
    lines = live_lines(dataclasses.replace(shown, running=[running]), width=100, height=30, marks=MARKS)
    table = joined(lines)
    assert "latency_ms" in table
    assert "12.35" in table or "12.34" in table
    assert "best accuracy  0.9000  latency_ms 30.00" in table


@pytest.mark.parametrize("width", [40, 80, 200, None])
@pytest.mark.parametrize("marks", [MARKS, ASCII])
def test_a_front_of_any_shape_fits_its_terminal(width: int | None, marks: Marks) -> None:
    for values in (
        [(0.5, 3.0)],
        [(0.5, 3.0)] * 2,
        VALUES,
        [(-1e308, 1e-300), (1e308, 1e308)],
        [(0.0, -0.0), (1.0, 1.0)],
    ):
        trials = {
            number: measured(number, accuracy=value[0], latency_ms=value[1], memory=1)
            for number, value in enumerate(values)
        }
        found = front(BOTH, {number: each.metrics for number, each in trials.items()})
        lines = front_lines(experiment(objective=BOTH, space=SPACE), found, trials, marks, width=width)
        drawn = picture(BOTH, found, marks, width)
        assert all(line_width(line) <= (width or 80) for line in drawn)
        assert joined(lines)
        assert not marks.ascii or joined(drawn).isascii()


def test_what_has_one_objective_is_shown_as_ever(shell: Shell, digits: ExperimentRecord, tmp_path: Path) -> None:
    shown = shell("get", "digits")[1]
    for word in ("Wanted", "Rules", "FEASIBLE", "Missed", "Pareto"):
        assert word not in shown + shell("trials", "digits")[1] + shell("best", "digits")[1]
    assert "feasible" not in shell("trials", "digits", "-o", "json")[1]
