"""`evertune metrics NAME`: what trials reported, as a table, as rows, and however much it is."""

from __future__ import annotations

import csv
import io
import json

import pytest

from evertune.cli.commands.metrics import POINTS_READ
from evertune.domain.metrics import Point
from evertune.domain.records import ExperimentRecord
from evertune.domain.trial import Assignment
from evertune.store import Store
from evertune.testing.store.making import NOW, create, finish, lose, suggest
from tests.cli.conftest import Shell

TIME = 1732620000.123456


@pytest.fixture
def reported(store: Store) -> ExperimentRecord:
    """Trial 0: an attempt that was lost, and one with numbers, a text and a step; 1: nothing; 2: not started."""
    uid = create(store, namespace="default", name="digits").uid
    suggest(store, uid, 0, [Assignment({"layers": number}) for number in range(3)])
    store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
    store.add_points(uid, 0, 0, [Point("accuracy", "0.1", 1)])
    lose(store, uid, 0, 0)
    store.open_attempt(uid, 0, 1, home_id="home-1", at=NOW)
    series = [Point("accuracy", f"{step / 200:.3f}", 10 * step, TIME + step, step) for step in range(1, 201)]
    others = [Point("genotype", "Genotype(normal=[…])", 3001), Point("loss", "nan", 3002), Point("loss", "0.10", 3003)]
    store.add_points(uid, 0, 1, [*series, *others])
    finish(store, uid, 0, 1.0, attempt=1)
    store.open_attempt(uid, 1, 0, home_id="home-1", at=NOW)
    return store.experiment_by_uid(uid)


def test_the_table_has_a_row_for_each_metric_of_each_trial(shell: Shell, reported: ExperimentRecord) -> None:
    code, out, err = shell("metrics", "digits")
    assert code == 0
    header, *rows = (line.split() for line in out.splitlines())
    assert header == ["TRIAL", "ATTEMPT", "METRIC", "COUNT", "MIN", "MAX", "LATEST", "STEPS", "CURVE"]
    assert rows[0] == ["0", "1", "accuracy", "200", "0.005", "1.000", "1.000", "1–200", "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██"]
    assert rows[1][:7] == ["0", "1", "genotype", "1", "–", "–", "Genotype(normal=[…])"]
    assert rows[2][:7] == ["0", "1", "loss", "2", "0.1000", "0.1000", "0.1000"]
    assert len(rows) == 3
    assert "--attempt N" in err


def test_json_gives_every_value_with_its_type_its_step_and_its_time(shell: Shell, reported: ExperimentRecord) -> None:
    code, out, _ = shell("metrics", "digits", "-o", "json")
    assert code == 0
    rows = json.loads(out)
    assert len(rows) == 203
    expected = {"trial": 0, "attempt": 1, "metric": "accuracy", "step": 1, "value": 0.005, "timestamp": TIME + 1}
    assert rows[0] == expected
    assert list(rows[0]) == list(expected)
    assert [row["value"] for row in rows[200:]] == ["Genotype(normal=[…])", "nan", 0.1]
    assert rows[-1]["step"] is None
    assert rows[-1]["timestamp"] is None
    assert len(out.splitlines()) == 205  # a line each, for whoever reads it by lines


def test_csv_has_the_same_columns_and_the_text_as_it_was_reported(shell: Shell, reported: ExperimentRecord) -> None:
    rows = list(csv.DictReader(io.StringIO(shell("metrics", "digits", "--metric", "loss", "-o", "csv")[1])))
    assert list(rows[0]) == ["trial", "attempt", "metric", "step", "value", "timestamp"]
    assert [(row["value"], row["step"], row["timestamp"]) for row in rows] == [("nan", "", ""), ("0.10", "", "")]


def test_an_attempt_a_metric_and_the_newest_values_can_be_asked_for(shell: Shell, reported: ExperimentRecord) -> None:
    first = json.loads(shell("metrics", "digits", "--attempt", "0", "-o", "json")[1])
    assert [(row["attempt"], row["value"]) for row in first] == [(0, 0.1)]
    words = ("--trial", "best", "--metric", "accuracy", "--newest", "3")
    newest = json.loads(shell("metrics", "digits", *words, "-o", "json")[1])
    assert [row["step"] for row in newest] == [198, 199, 200]
    row = shell("metrics", "digits", *words)[1].splitlines()[1].split()
    assert row[3:8] == ["3", "0.990", "1.000", "1.000", "198–200"]
    assert shell("metrics", "digits", "-o", "name") == (0, "accuracy\ngenotype\nloss\n", "")


def test_what_was_never_reported_is_an_error_with_a_suggestion_and_no_half_document(
    shell: Shell, reported: ExperimentRecord
) -> None:
    for form in ("table", "json", "csv", "name"):
        code, out, err = shell("metrics", "digits", "--metric", "acuracy", "-o", form)
        assert (code, out) == (3, ""), form
        assert "has reported no metric acuracy" in err
        assert "did you mean   accuracy" in err


def test_nothing_reported_yet_is_an_empty_document_and_not_an_error(shell: Shell, store: Store) -> None:
    create(store, namespace="default", name="new")
    assert shell("metrics", "new", "-o", "json") == (0, "[]\n", "")
    assert shell("metrics", "new", "-o", "csv") == (0, "trial,attempt,metric,step,value,timestamp\n", "")
    code, out, err = shell("metrics", "new")
    assert (code, out) == (0, "")
    assert "evertune explain new" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--trial", "9"), 'digits has no trial "9"'),
        (("--trial", "2"), "trial 2 of digits was not started yet"),
        (("--trial", "9" * 40), "digits has no trial"),
        (("--trial", "failed"), "digits has no trial that failed"),
        (("--trial", "nobody"), 'digits has no trial "nobody"'),
        (("--trial", "0", "--attempt", "2"), "trial 0 has 2 attempts, counted from 0: there is no 2"),
    ],
)
def test_a_trial_or_attempt_that_is_not_there_is_exit_code_3(
    words: tuple[str, ...], sentence: str, shell: Shell, reported: ExperimentRecord
) -> None:
    code, out, err = shell("metrics", "digits", *words)
    assert (code, out) == (3, "")
    assert sentence in err


def test_the_table_of_many_trials_shows_the_last_ones_and_says_so(shell: Shell, store: Store) -> None:
    uid = create(store, namespace="default", name="many").uid
    suggest(store, uid, 0, [Assignment({"layers": number}) for number in range(120)])
    for number in range(120):
        store.open_attempt(uid, number, 0, home_id="home-1", at=NOW)
        store.add_points(uid, number, 0, [Point("accuracy", "0.5", 1)])
    _, out, err = shell("metrics", "many")
    assert [int(line.split()[0]) for line in out.splitlines()[1:]] == list(range(70, 120))
    assert "the last 50 of 120 trials" in err
    assert len(shell("metrics", "many", "--limit", "90")[1].splitlines()) == 91
    assert len(json.loads(shell("metrics", "many", "-o", "json")[1])) == 120


def test_a_long_series_is_written_whole_and_in_order(shell: Shell, store: Store) -> None:
    uid = create(store, namespace="default", name="long").uid
    suggest(store, uid, 0, [Assignment({"layers": 1})])
    store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
    count = 2 * POINTS_READ + 1
    store.add_points(uid, 0, 0, [Point("loss", str(step), 3 * step, step=step) for step in range(count)])
    rows = json.loads(shell("metrics", "long", "-o", "json")[1])
    assert [row["step"] for row in rows] == list(range(count))


def test_an_experiment_that_is_called_test_can_be_read(shell: Shell, store: Store) -> None:
    uid = create(store, namespace="default", name="test").uid
    suggest(store, uid, 0, [Assignment({"layers": 1})])
    store.open_attempt(uid, 0, 0, home_id="home-1", at=NOW)
    store.add_points(uid, 0, 0, [Point("accuracy", "0.5", 1)])
    for words in (("show", "test"), ("--", "test"), ("-o", "name", "test")):
        assert shell("metrics", *words)[0] == 0, words
    assert shell("metrics", "show", "test", "-o", "name") == (0, "accuracy\n", "")
