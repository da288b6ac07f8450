"""The contract of early stopping rules for each built-in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from algorithms.stoppers.asha import Asha
from algorithms.stoppers.medianstop import MedianStop
from algorithms.stoppers.no_report import NoReport
from algorithms.stoppers.patience import Patience
from algorithms.stoppers.percentile import Percentile
from algorithms.stoppers.registry import BUILT_IN, get
from algorithms.stoppers.threshold import Threshold
from evertune.testing.stoppers import StopperContract


class TestMedianStop(StopperContract):
    kind = MedianStop
    settings: ClassVar[Mapping[str, str]] = {"min_trials_required": "2", "start_step": "3"}
    wrong: ClassVar[Mapping[str, str]] = {"min_trials_required": "0", "start_step": "1.5", "statistic": "mode"}


class TestMedianStopAsInThePaper(StopperContract):
    kind = MedianStop
    settings: ClassVar[Mapping[str, str]] = {"statistic": "median", "check": "every"}
    wrong: ClassVar[Mapping[str, str]] = {"check": "sometimes"}


class TestPercentile(StopperContract):
    kind = Percentile
    settings: ClassVar[Mapping[str, str]] = {
        "percentile": "50", "min_trials_required": "2", "start_step": "2", "interval_steps": "3",
    }  # fmt: skip
    wrong: ClassVar[Mapping[str, str]] = {"percentile": "100", "interval_steps": "0"}


class TestAsha(StopperContract):
    kind = Asha
    settings: ClassVar[Mapping[str, str]] = {"min_resource": "2", "eta": "2", "min_early_stopping_rate": "1"}
    wrong: ClassVar[Mapping[str, str]] = {"min_resource": "0", "eta": "1", "min_early_stopping_rate": "-1"}


class TestThreshold(StopperContract):
    kind = Threshold
    settings: ClassVar[Mapping[str, str]] = {
        "metric": "loss", "value": "0.97", "comparison": "greater", "start_step": "2",
    }  # fmt: skip
    wrong: ClassVar[Mapping[str, str]] = {
        "metric": "no-such-metric", "value": "high", "comparison": "above", "start_step": "-1",
    }  # fmt: skip


class TestThresholdInKatibsFormat(StopperContract):
    kind = Threshold
    settings: ClassVar[Mapping[str, str]] = {"rules": "score;0.9;greater;4 loss;0;less;0"}
    wrong: ClassVar[Mapping[str, str]] = {"rules": "score;0.9;greater"}


class TestPatience(StopperContract):
    kind = Patience
    settings: ClassVar[Mapping[str, str]] = {"patience": "3", "min_delta": "0.01"}
    wrong: ClassVar[Mapping[str, str]] = {"patience": "0", "min_delta": "-1", "start_step": "few"}


class TestNoReport(StopperContract):
    kind = NoReport
    settings: ClassVar[Mapping[str, str]] = {"seconds": "30"}
    wrong: ClassVar[Mapping[str, str]] = {"seconds": "0"}


def test_every_built_in_rule_is_under_the_contract_and_has_its_name() -> None:
    tested = {value.kind.name for value in globals().values() if isinstance(value, type) and hasattr(value, "kind")}
    assert tested == set(BUILT_IN)
    assert all(get(name).name == name for name in BUILT_IN)
