"""What each rule of early stopping decides, by hand-made series, and beside Katib's arithmetic and Optuna's pruners."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import optuna
import pytest

from algorithms.settings import Rule
from algorithms.stoppers import registry
from evertune.domain.metrics import Objective, ObjectiveType
from evertune.domain.stopping import ListedPeers, Prefix
from evertune.errors import AlgorithmError
from evertune.protocols import EarlyStopper, JsonDict

DOWN = Objective(ObjectiveType.MINIMIZE, "loss", additional=("accuracy",))
UP = Objective(ObjectiveType.MAXIMIZE, "loss", additional=("accuracy",))


def made(name: str, settings: Mapping[str, str], objective: Objective = DOWN) -> EarlyStopper:
    assert list(registry.check(name, settings, objective)) == []
    return registry.create(name, settings, objective)


def rule(name: str, **settings: str) -> EarlyStopper:
    return made(name, settings)


class Experiment:
    """Trials one after the other, as the store sees them: marks of those that ended count."""

    def __init__(self, stopper: EarlyStopper) -> None:
        self.stopper = stopper
        self.marks: dict[int, list[float]] = {}

    def run(self, values: Sequence[float | None]) -> tuple[int, str] | None:
        """Where a trial with these values is stopped, and why; None when it runs to its end."""
        prefix, memory, mine = Prefix(metric="loss"), JsonDict(), dict[int, float]()
        stopped = None
        for value in values:
            prefix = prefix.then(value)
            if mark := self.stopper.mark(prefix, last=False):
                mine.setdefault(*mark)
            among = list(self.marks.get(prefix.step, ()))
            if self.stopper.peers == "all" and prefix.step in mine:
                among.append(mine[prefix.step])
            ruling = self.stopper.judge(prefix, ListedPeers(among), memory)
            memory = dict(ruling.memory)
            if ruling.reason:
                stopped = prefix.step, ruling.reason
                break
        if stopped is None and (mark := self.stopper.mark(prefix, last=True)):
            mine.setdefault(*mark)
        if stopped is None or self.stopper.peers == "all":
            for step, value in mine.items():
                self.marks.setdefault(step, []).append(value)
        return stopped


# ------------------------------------------------------------------------------------------------ Katib's median


def test_katibs_median_is_the_mean_of_the_averages_of_the_first_values() -> None:
    experiment = Experiment(rule("medianstop", min_trials_required="3", start_step="2"))
    for values in ([0.0, 2.0, 77.0], [2.0, 2.0], [9.0]):  # averages 1, 2 and, of fewer values, 9
        assert experiment.run(values) is None
    assert experiment.marks == {2: [1.0, 2.0, 9.0]}
    assert experiment.run([4.1, 4.2, 0.0]) == (
        2, "best loss 4.1 at step 2 is worse than 4, the mean of 3 earlier trials"
    )  # fmt: skip
    assert experiment.run([4.0, 99.0]) is None, "as good as the others is not worse"


@pytest.mark.parametrize(("value", "stopped"), [(3.9, False), (4.0, False), (4.1, True)])
def test_with_averages_1_2_and_9_the_limit_is_4_where_a_median_would_be_2(value: float, stopped: bool) -> None:
    def after_three(**settings: str) -> Experiment:
        rule = made("medianstop", {"min_trials_required": "3", "start_step": "1", **settings})
        experiment = Experiment(rule)
        assert [experiment.run([average]) for average in (1.0, 2.0, 9.0)] == [None] * 3
        return experiment

    assert (after_three().run([value]) is not None) is stopped
    assert after_three(statistic="median").run([value]) == (
        1, f"best loss {value:g} at step 1 is worse than 2, the median of 3 earlier trials"
    )  # fmt: skip


def test_katibs_median_waits_for_its_trials_and_looks_once() -> None:
    experiment = Experiment(rule("medianstop", min_trials_required="2", start_step="2"))
    assert experiment.run([1.0, 1.0]) is None
    assert experiment.run([50.0, 50.0, 50.0]) is None, "one trial is not enough"
    assert experiment.run([1.0, 90.0, 90.0, 90.0]) is None, "its best of the first two is good, and nobody looks again"
    assert experiment.run([90.0, 90.0]) is not None


def test_a_stopped_trial_is_no_part_of_katibs_average() -> None:
    experiment = Experiment(rule("medianstop", min_trials_required="1", start_step="1"))
    assert experiment.run([1.0]) is None
    assert [experiment.run([100.0]) is not None for _ in range(3)] == [True] * 3
    assert experiment.marks == {1: [1.0]}


def test_katibs_defaults_are_three_trials_and_step_four() -> None:
    experiment = Experiment(made("medianstop", {}, UP))
    for _ in range(3):
        assert experiment.run([0.5, 0.5, 0.5, 0.5]) is None
    assert experiment.run([0.1, 0.1, 0.1, 0.1]) == (
        4, "best loss 0.1 at step 4 is worse than 0.5, the mean of 3 earlier trials"
    )  # fmt: skip
    assert experiment.run([0.1, 0.1, 0.1]) is None


def test_a_trial_without_a_single_number_is_stopped_too() -> None:
    experiment = Experiment(rule("medianstop", min_trials_required="1", start_step="2"))
    assert experiment.run([1.0, 1.0]) is None
    assert experiment.run([None, None]) == (
        2, "loss without a number at step 2 is worse than 1, the mean of 1 earlier trial"
    )  # fmt: skip


def test_as_in_the_paper_each_step_is_compared_with_running_averages_at_that_step() -> None:
    experiment = Experiment(
        rule("medianstop", statistic="median", check="every", min_trials_required="1", start_step="2")
    )
    assert experiment.run([4.0, 2.0, 0.0]) is None  # running averages 4, 3, 2
    assert experiment.marks == {2: [3.0], 3: [2.0]}
    assert experiment.run([9.0, 2.5, 2.5]) == (
        3, "best loss 2.5 at step 3 is worse than 2, the median of 1 earlier trial"
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ Optuna's rules


def same_as_optuna(
    stopper: EarlyStopper,
    pruner: optuna.pruners.BasePruner,
    direction: Literal["minimize", "maximize"],
    *,
    seed: int,
    steps: int,
) -> int:
    """Run both over the same random series; where they stop must be the same. How many were stopped."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw = random.Random(seed)
    study = optuna.create_study(direction=direction, pruner=pruner)
    experiment = Experiment(stopper)
    stopped = 0
    for _ in range(60):
        level = draw.random()
        values = [level + draw.gauss(0, 0.3) for _ in range(steps)]
        theirs = None
        trial = study.ask()
        for step, value in enumerate(values, 1):
            trial.report(value, step)
            if trial.should_prune():
                theirs = step
                break
        state = optuna.trial.TrialState.PRUNED if theirs else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if theirs else values[-1], state=state)
        ours = experiment.run(values)
        assert (ours and ours[0]) == theirs
        stopped += ours is not None
    return stopped


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(("percentile", "start", "interval"), [(25.0, 1, 1), (60.0, 3, 2)])
def test_percentile_stops_where_optunas_pruner_does(
    direction: Literal["minimize", "maximize"], percentile: float, start: int, interval: int
) -> None:
    objective = Objective(ObjectiveType(direction), "loss")
    settings = {
        "percentile": str(percentile), "min_trials_required": "5", "start_step": str(start),
        "interval_steps": str(interval),
    }  # fmt: skip
    pruner = optuna.pruners.PercentilePruner(
        percentile, n_startup_trials=5, n_warmup_steps=start, interval_steps=interval
    )
    assert same_as_optuna(made("percentile", settings, objective), pruner, direction, seed=3, steps=9) > 10


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(("resource", "eta", "rate"), [(1, 4, 0), (2, 3, 0), (1, 2, 1)])
def test_asha_stops_where_optunas_pruner_does(
    direction: Literal["minimize", "maximize"], resource: int, eta: int, rate: int
) -> None:
    objective = Objective(ObjectiveType(direction), "loss")
    settings = {"min_resource": str(resource), "eta": str(eta), "min_early_stopping_rate": str(rate)}
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=resource, reduction_factor=eta, min_early_stopping_rate=rate
    )
    assert same_as_optuna(made("asha", settings, objective), pruner, direction, seed=5, steps=40) > 20


def test_asha_lets_the_first_at_a_rung_pass_and_then_one_of_eta() -> None:
    experiment = Experiment(rule("asha", min_resource="2", eta="2"))
    assert experiment.run([9.0, 9.0, 9.0]) is None
    assert experiment.run([0.0, 9.5]) == (
        2, "loss 9.5 at rung 0 (step 2) is worse than 9: not among the best 1 of 2 trials there"
    )  # fmt: skip
    assert experiment.run([9.9, 1.0, 99.0]) is None


# ------------------------------------------------------------------------------------------------ without others


@pytest.mark.parametrize(
    ("settings", "values", "stopped"),
    [
        ({"value": "10"}, [1.0, 10.0, 10.5], 3),
        ({"value": "10", "start_step": "3"}, [99.0, 99.0, 5.0, 11.0], 4),
        ({"value": "10", "comparison": "less"}, [99.0, 10.0, 9.0], 3),
        ({"value": "10", "comparison": "equal"}, [9.0, None, 10.0], 3),
        ({"value": "10"}, [None, 1e9], 2),
        # Katib's own: best so far, at that report only
        ({"rules": "loss;10;greater;2"}, [99.0, 11.0], 2),
        ({"rules": "loss;10;greater;2"}, [5.0, 99.0, 99.0], None),
        ({"rules": "loss;10;greater;2"}, [99.0, 5.0, 99.0], None),
        ({"rules": "loss;10;greater;0"}, [99.0], 1),
        ({"rules": "loss;10;greater;1 loss;5;greater;3"}, [11.0, 11.0, 6.0], 3),
        ({"rules": "loss;10;greater;1 loss;5;greater;3"}, [9.0, 9.0, 9.0], None),
    ],
)
def test_threshold_compares_with_a_fixed_value(
    settings: Mapping[str, str], values: Sequence[float | None], stopped: int | None
) -> None:
    found = Experiment(made("threshold", settings)).run(values)
    assert (found and found[0]) == stopped


def test_thresholds_default_is_to_stop_what_is_worse() -> None:
    assert Experiment(made("threshold", {"value": "0.5"}, UP)).run([0.6, 0.4]) == (
        2,
        "loss 0.4 at step 2 is less than 0.5",
    )


def test_katibs_rules_on_two_metrics_need_not_hold_at_the_same_moment() -> None:
    stopper = rule("threshold", rules="loss;10;greater;2 accuracy;0.1;less;0")
    assert tuple(stopper.metrics) == ("loss", "accuracy")
    loss, accuracy = Prefix(metric="loss").then(50.0).then(40.0), Prefix(metric="accuracy").then(0.9)
    held = stopper.judge(loss, ListedPeers([]), {})
    assert held.reason == ""
    still = stopper.judge(accuracy, ListedPeers([]), dict(held.memory))
    assert still == held
    both = stopper.judge(accuracy.then(0.05), ListedPeers([]), dict(still.memory))
    assert both.reason == "loss 40 at step 2 is greater than 10; accuracy 0.05 at step 2 is less than 0.1"


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({}, "spec.earlyStopping.algorithmSettings"),
        ({"rules": "loss;1;greater;1", "value": "1"}, "spec.earlyStopping.algorithmSettings[1].name"),
        ({"rules": "loss;1;above;1"}, "spec.earlyStopping.algorithmSettings[0].value"),
        ({"rules": "other;1;less;1"}, "spec.earlyStopping.algorithmSettings[0].value"),
    ],
)
def test_thresholds_settings_that_do_not_go_together_are_refused(settings: Mapping[str, str], wrong: str) -> None:
    assert [problem.path for problem in registry.check("threshold", settings, DOWN)] == [wrong]


@pytest.mark.parametrize(
    ("settings", "values", "stopped"),
    [
        ({"patience": "2"}, [3.0, 2.0, 2.0, 2.5], 4),
        ({"patience": "2"}, [3.0, 2.0, 2.0, 1.0, 0.5], None),
        ({"patience": "2", "min_delta": "1"}, [3.0, 2.5, 2.0], 3),
        ({"patience": "2", "min_delta": "0.4"}, [3.0, 2.5, 2.0], None),
        ({"patience": "2"}, [None, None], 2),
        ({"patience": "2", "start_step": "3"}, [3.0, 4.0, 4.0, 4.0, 4.0], 5),
        ({"patience": " 2 "}, [3.0, 2.0, 2.0, 2.5], 4),
    ],
)
def test_patience_ends_after_so_many_reports_without_an_improvement(
    settings: Mapping[str, str], values: Sequence[float | None], stopped: int | None
) -> None:
    found = Experiment(made("patience", settings)).run(values)
    assert (found and found[0]) == stopped


def test_no_report_is_about_time_alone() -> None:
    stopper = rule("no-report", seconds="90")
    assert stopper.silent_s == 90.0
    assert list(stopper.metrics) == []
    assert [problem.type for problem in registry.check("no-report", {}, DOWN)] == ["Required"]


# ------------------------------------------------------------------------------------------------ registry


def test_an_unknown_rule_is_refused_with_the_closest_name() -> None:
    (problem,) = registry.check("median_stop", {}, DOWN)
    assert problem.path == "spec.earlyStopping.algorithmName"
    assert 'did you mean "medianstop"?' in (problem.hint or "")
    with pytest.raises(AlgorithmError, match="known: medianstop, percentile"):
        registry.get("median_stop")


def test_a_setting_is_judged_without_the_blanks_around_it() -> None:
    given = {"value": " 3 ", "comparison": "less\n", "metric": " loss ", "start_step": " 1"}
    assert list(registry.check("threshold", given, DOWN)) == []
    assert Experiment(made("threshold", given)).run([4.0, 2.0]) == (2, "loss 2 at step 2 is less than 3")
    (problem,) = registry.check("threshold", {**given, "comparison": " below "}, DOWN)
    assert problem.path == "spec.earlyStopping.algorithmSettings[1].value"
    assert 'got "below"' in problem.message


def test_a_plugins_defect_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name = "broken"

        @classmethod
        def check(cls, settings: Mapping[str, str], objective: Objective) -> Sequence[object]:
            raise RuntimeError("out of order")

    get: Callable[[str], object] = lambda name: Broken  # noqa: E731
    monkeypatch.setattr(registry.PLUGINS, "names", lambda: ("broken",))
    monkeypatch.setattr(registry.PLUGINS, "get", get)
    (problem,) = registry.check("broken", {}, DOWN)
    assert problem.message == "broken cannot check this experiment: RuntimeError: out of order"


def test_the_page_about_early_stopping_names_every_rule_and_setting_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs/early-stopping.md").read_text()
    for name in registry.BUILT_IN:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        settings: Mapping[str, Rule] = getattr(registry.get(name), "settings")  # noqa: B009
        for setting, wanted in settings.items():
            default = wanted.default if (wanted.default or "").replace(".", "").isdigit() else None
            assert f"`{setting}`{f' {default}' if default else ''}" in row, (name, setting)


def test_a_rule_of_a_third_party_is_found_by_its_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "someone-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someone\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[evertune.stoppers]\nmine = algorithms.stoppers.patience:Patience\n")
    script = (
        "from algorithms.stoppers import registry; from algorithms.registry import Registry; "
        "print(registry.get('mine').__name__, *Registry().stoppers())"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.split() == ["Patience", *registry.BUILT_IN, "mine"]
