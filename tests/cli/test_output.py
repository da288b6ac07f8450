"""Numbers, shapes, tables and cuts as a person reads them."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evertune.cli.output.documents import experiment_document, trial_document
from evertune.cli.output.forms import Form, text_of
from evertune.cli.output.marks import Marks
from evertune.cli.output.numbers import (
    Decimals,
    age,
    clock,
    interval,
    number_or_text,
    parameter_text,
    utc,
)
from evertune.cli.output.table import Column, table
from evertune.cli.output.text import (
    between,
    clean,
    cut_end,
    cut_middle,
    fit,
    line_width,
    plain,
    width_of,
    wrapped,
    wrapped_line,
)
from evertune.domain.states import ExperimentState, TrialState
from tests.cli.build import SPACE, experiment, trial

MARKS, ASCII = Marks(), Marks(ascii=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (9, "9s"), (61 * 60, "61m"), (2 * 3600 + 240, "2h04m"), (3 * 86400, "3d"), (5 * 3600 + 2400, "5h40m")],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_durations_of_the_header_are_clocks_below_an_hour() -> None:
    assert (clock(41), clock(5 * 3600 + 40 * 60), clock(50 * 3600)) == ("00:41", "5h40m", "2d02h")


def test_how_long_a_trial_took_keeps_a_decimal_below_ten_seconds() -> None:
    assert [interval(s) for s in (0.84, 3.1, 42, 134)] == ["0.8s", "3.1s", "42s", "2m14s"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.021517, "0.0215"),
        (8.7123e-4, "8.71e-4"),
        (12.4312, "12.4"),
        (0.1, "0.100"),
        (128.0, "128"),
        (2.0, "2.00"),
        (123456.7, "1.23e5"),
        (-0.00012, "-1.20e-4"),
        (0.0, "0"),
        (64, "64"),
        ("sgd", "sgd"),
    ],
)
def test_parameters_have_three_digits(value: float | int | str, text: str) -> None:
    assert parameter_text(value) == text


def test_objectives_of_a_column_share_their_decimals() -> None:
    column = Decimals([0.9778, 0.5, None])
    assert [column.text(value) for value in (0.9778, 0.5, 0.96666)] == ["0.9778", "0.5000", "0.9667"]
    assert Decimals([1.842]).text(1.842) == "1.842"
    assert Decimals([1234.5]).text(1234.5) == "1234"
    assert Decimals([3.2e-7]).text(3.2e-7) == "3.200e-7"


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(1, 6))
def test_every_float_can_be_written(value: float, digits: int) -> None:
    assert parameter_text(value, digits)
    assert Decimals([value]).text(value)


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: 1e-300 < abs(value) < 1e300))
def test_a_written_parameter_is_close_to_its_value(value: float) -> None:
    assert float(parameter_text(value, 3)) == pytest.approx(value, rel=0.0051)


def test_discrete_numbers_are_numbers_and_the_order_is_that_of_the_space() -> None:
    typed = SPACE.typed({"batch": "0.5", "kernel": "rbf", "C": 1.5, "gamma": 0.1})
    assert typed == {"C": 1.5, "gamma": 0.1, "kernel": "rbf", "batch": 0.5}
    assert list(typed) == ["C", "gamma", "kernel", "batch"]


def test_reported_text_becomes_a_number_only_where_json_can_hold_it() -> None:
    assert [number_or_text(text) for text in ("3", "0.97", "nan", "Genotype(x)", None)] == [
        3,
        0.97,
        "nan",
        "Genotype(x)",
        None,
    ]


def test_a_name_loses_its_middle_never_its_end() -> None:
    assert cut_middle("resnet50-cifar100-augment", 20) == "resnet50-c…0-augment"
    assert cut_middle("short", 20) == "short"
    assert cut_middle("resnet50-cifar100-augment", 19, "...") == "resnet50...-augment"


@given(st.text(), st.integers(0, 40))
def test_what_is_cut_fits(text: str, width: int) -> None:
    text = clean(text)
    assert width_of(cut_middle(text, width)) <= max(width, 1)
    assert width_of(cut_end(text, width)) <= width
    assert line_width(fit([(text, "bold"), (text, "")], width)) <= width


def test_wide_characters_count_two_columns() -> None:
    assert width_of("数据") == 4
    assert cut_end("数据数据", 5) == "数据…"


def test_text_from_a_trial_cannot_move_the_cursor() -> None:
    assert clean("boom\x1b[2J\r\nnext\x07\tline") == "boom[2J next line"


def test_the_right_part_of_a_line_goes_when_both_do_not_fit() -> None:
    assert plain(between([("left", "")], [("right", "")], 12)) == "left   right"
    assert plain(between([("left", "")], [("right", "")], 10)) == "left"


def test_a_sentence_wraps_at_words_and_keeps_long_ones_whole() -> None:
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("/a/very/long/path is not there", 10) == ["/a/very/long/path", "is not", "there"]
    assert wrapped("no width at all", None) == ["no width at all"]


def test_every_state_has_its_shape_and_in_ascii_another_one_each() -> None:
    states = [*ExperimentState, *TrialState]
    shapes = {str(state): MARKS.shape(state)[0] for state in states}
    ascii_shapes = {str(state): ASCII.shape(state)[0] for state in states}
    assert shapes["Succeeded"] == "✔"
    assert ascii_shapes["MetricsUnavailable"] == "?"
    assert len(set(shapes.values())) == len(shapes)
    assert all(shape.isascii() for shape in ascii_shapes.values())
    assert len(set(ascii_shapes.values())) == len(ascii_shapes)


def test_a_sparkline_rises_with_its_values_and_fits() -> None:
    assert MARKS.spark([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert len(MARKS.spark(list(range(1000)), 9)) == 9
    assert ASCII.spark([1, 2, 3], 9) == "_-^"
    assert MARKS.spark([5, 5], 9) == "▁▁"
    assert MARKS.spark([], 9) == ""


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50), st.integers(0, 20))
def test_a_sparkline_of_anything_has_at_most_its_width(values: list[float], width: int) -> None:
    assert len(MARKS.spark(values, width)) <= width


def test_a_bar_is_as_wide_as_asked_whatever_the_part() -> None:
    for part in (-1.0, 0.0, 0.31, 0.999, 1.0, 7.0):
        assert line_width(MARKS.bar(part, 30)) == 30
    assert plain(ASCII.bar(0.5, 10)) == "######----"


def _columns() -> list[Column]:
    name, count = Column("NAME", shrinks=True), Column("N", right=True)
    first, second = Column("first", optional=True), Column("second", optional=True)
    for row in (("bert-base-mrpc-sweep", "3", "a", "b"), ("x", "120", "aa", "bbbbbbbb")):
        for column, cell in zip((name, count, first, second), row, strict=True):
            column.add(cell)
    return [name, count, first, second]


def test_a_table_has_no_borders_and_numbers_stand_right() -> None:
    lines = [plain(line) for line in table(_columns()).lines]
    assert lines == [
        "NAME                    N  first  second",
        "bert-base-mrpc-sweep    3  a      b",
        "x                     120  aa     bbbbbbbb",
    ]


def test_a_sentence_in_a_table_goes_on_below_and_loses_no_word() -> None:
    name, about = Column("NAME"), Column("ABOUT", wraps=True)
    for row in (("tpe", "densities of good and bad trials"), ("grid", "every one")):
        name.add(row[0])
        about.add(row[1])
    assert [plain(line) for line in table([name, about], width=24).lines] == [
        "NAME  ABOUT",
        "tpe   densities of good",
        "      and bad trials",
        "grid  every one",
    ]
    assert len(table([name, about]).lines) == 3


def test_what_does_not_fit_goes_from_the_last_optional_column_on_then_names_lose_their_middle() -> None:
    narrow = table(_columns(), width=33)
    assert narrow.hidden == ["second"]
    narrower = table(_columns(), width=20)
    assert narrower.hidden == ["first", "second"]
    assert [plain(line) for line in narrower.lines][1] == "bert-ba…c-sweep    3"
    assert all(line_width(line) <= 20 for line in narrower.lines)


def test_the_json_of_an_experiment_has_the_promised_keys() -> None:
    document = experiment_document(
        experiment(ExperimentState.SUCCEEDED, reason="ExperimentGoalReached", message="goal 0.985 reached by trial 11")
    )
    assert list(document) == [
        "name", "namespace", "state", "reason", "algorithm", "backend", "warnings", "trials", "best", "started",
        "ended",
    ]  # fmt: skip
    assert list(document["trials"]) == [
        "created", "running", "succeeded", "failed", "earlyStopped", "metricsUnavailable", "killed",
    ]  # fmt: skip
    assert document["reason"] == "ExperimentGoalReached: goal 0.985 reached by trial 11"
    assert document["best"] == {
        "trial": 11,
        "parameters": {"C": 12.4312, "gamma": 0.0010634, "kernel": "rbf", "batch": 32},
        "metrics": {"accuracy": 0.9778},
        "objective": {"name": "accuracy", "value": 0.9778},
    }
    assert document["started"] == "2026-03-01T12:00:00.000Z"
    assert document["ended"] is None


def test_the_json_of_a_trial_has_the_promised_keys_and_typed_parameters() -> None:
    document = trial_document(trial(3, value=0.5, ended=9), SPACE)
    assert list(document) == [
        "number", "name", "state", "reason", "parameters", "metrics", "objective", "attempts", "started", "ended",
    ]  # fmt: skip
    assert document["parameters"]["batch"] == 32
    assert document["objective"] == 0.5


def test_an_experiment_without_a_best_trial_says_null() -> None:
    assert experiment_document(experiment(best=None))["best"] is None


def test_every_form_gives_what_its_readers_read() -> None:
    documents = [trial_document(trial(n, value=0.1 * n, ended=9), SPACE) for n in range(3)]
    assert json.loads(text_of(Form.JSON, documents)) == documents
    assert yaml.safe_load(text_of(Form.YAML, documents)) == documents
    rows = list(csv.DictReader(io.StringIO(text_of(Form.CSV, documents))))
    assert [row["number"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["parameters.kernel"] == "rbf"
    assert rows[2]["metrics.accuracy"] == "0.2"
    assert text_of(Form.NAME, documents) == "digits-00000000\ndigits-00000001\ndigits-00000002\n"


def test_csv_of_experiments_with_and_without_best_has_one_row_each() -> None:
    documents = [experiment_document(experiment()), experiment_document(experiment(best=None))]
    rows = list(csv.DictReader(io.StringIO(text_of(Form.CSV, documents))))
    assert rows[0]["best.objective.value"] == "0.9778"
    assert rows[1]["best.objective.value"] == ""
    assert "best" not in rows[0]


def test_a_list_in_csv_is_one_cell_of_json() -> None:
    (row,) = csv.DictReader(io.StringIO(text_of(Form.CSV, {"name": "tpe", "types": ["double", "int"], "of": ()})))
    assert json.loads(row["types"]) == ["double", "int"]
    assert json.loads(row["of"]) == []


def test_times_are_utc_with_a_z() -> None:
    assert utc(None) is None
    assert utc(experiment().created) == "2026-03-01T12:00:00.000Z"


@given(st.lists(st.tuples(st.text("ab c数", max_size=30), st.sampled_from(["", "bold"])), max_size=5))
def test_a_styled_sentence_wraps_without_losing_a_word(line: list[tuple[str, str]]) -> None:
    lines = wrapped_line(line, 12, indent=2)
    assert " ".join(map(plain, lines)).replace(" ", "") == plain(line).replace(" ", "")
    assert all(width_of(plain(part).rstrip()) <= 12 or len(plain(part).split()) <= 1 for part in lines[1:])
