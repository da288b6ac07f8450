"""Code written against Katib's `report_metrics` works with another import, its errors included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.report.programs import beside_a_reader, clean, metrics, run

KATIB = "from evertune.report import report_metrics\nimport evertune.katib as katib\n"


def test_metrics_arrive_whatever_form_the_call_has(tmp_path: Path) -> None:
    file = tmp_path / "reports"
    program = """
report_metrics({"accuracy": 0.9, "loss": "0.10", "epochs": 3})
katib.report_metrics(metrics={"accuracy": 1}, db_manager_address="katib-db-manager.kubeflow:6789", timeout=120)
report_metrics({"loss": float("nan")}, "127.0.0.1:1", 1)
import numpy
report_metrics({"loss": numpy.float64(0.5), "array": numpy.ones(1, dtype="float32")[0], "flag": True})
"""
    _, err = run(KATIB + program, beside_a_reader(file, KATIB_TRIAL_NAME="short-1"))
    assert metrics(file) == [
        {"accuracy": 0.9, "loss": "0.10", "epochs": 3.0},
        {"accuracy": 1.0},
        {"loss": "nan"},
        {"loss": 0.5, "array": 1.0, "flag": 1.0},
    ]
    assert err == ""


@pytest.mark.parametrize("value", ["'high'", "None", "[1]", "{}", "''"])
def test_a_value_that_float_refuses_is_a_value_error_and_nothing_is_reported(value: str, tmp_path: Path) -> None:
    file = tmp_path / "reports"
    program = f"try: report_metrics({{'good': 1, 'bad': {value}}})\nexcept ValueError as problem: print(problem)"
    out, _ = run(KATIB + program, beside_a_reader(file, KATIB_TRIAL_NAME="short-1"))
    assert out.startswith("metric 'bad' is ")
    assert not file.exists()


def test_outside_a_trial_it_is_a_value_error() -> None:
    program = "try: report_metrics({'loss': 1})\nexcept ValueError as problem: print(problem)"
    assert "KATIB_TRIAL_NAME is not set" in run(KATIB + program, clean())[0]


def test_a_disk_that_is_full_is_no_exception(tmp_path: Path) -> None:
    environment = beside_a_reader(Path("/dev/full"), KATIB_TRIAL_NAME="short-1")
    assert run(KATIB + "report_metrics({'loss': 1}); print('goes on')", environment)[0] == "goes on\n"
