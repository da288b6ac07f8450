"""The checked Experiment as values for algorithms, workflows and collectors."""

from __future__ import annotations

import pytest

from evertune.domain.metrics import CollectorSpec, ObjectiveType, Scrape, Strategy
from evertune.domain.records import Budget
from evertune.domain.space import Distribution, Parameter, ParameterType
from evertune.spec import (
    algorithm_of,
    backend_of,
    collector_spec,
    deadline_of,
    load_experiment,
    on_completion_of,
    search_problem,
    seed_of,
    settings_of,
    to_budget,
    to_objective,
    to_space,
    trial_deadline_of,
    working_dir_of,
)
from evertune.spec.convert import parse_duration
from tests.unit.spec.samples import REMOVED, base


def test_the_space_has_numbers_and_the_lists_own_text() -> None:
    data = base(
        spec__parameters__0={
            "name": "layers",
            "parameterType": "int",
            "feasibleSpace": {"min": "1", "max": "64", "step": "2", "distribution": "logUniform"},
        }
    )
    assert to_space(load_experiment(data)).parameters == (
        Parameter(
            name="layers",
            type=ParameterType.INT,
            low=1,
            high=64,
            step=2,
            distribution=Distribution.LOG_UNIFORM,
        ),
        Parameter(name="opt", type=ParameterType.CATEGORICAL, values=("sgd", "adam", "ftrl")),
    )


def test_equal_bounds_are_a_constant() -> None:
    space = to_space(load_experiment(base(spec__parameters__0__feasibleSpace={"min": "4", "max": "4"})))
    assert (space.parameters[0].low, space.parameters[0].high) == (4, 4)


def test_the_objective_has_katibs_strategies() -> None:
    data = base(
        spec__objective={
            "type": "minimize",
            "objectiveMetricName": "loss",
            "additionalMetricNames": ["acc"],
            "metricStrategies": [{"name": "acc", "value": "latest"}],
            "goal": 0,
        }
    )
    objective = to_objective(load_experiment(data))
    assert objective.type is ObjectiveType.MINIMIZE
    assert objective.goal == 0
    assert objective.metrics == ("loss", "acc")
    assert objective.strategies == {"acc": Strategy.LATEST, "loss": Strategy.MIN}


def test_the_search_problem_carries_budget_seed_and_settings() -> None:
    data = base(spec__algorithm={"algorithmName": "tpe", "algorithmSettings": [{"name": "gamma", "value": "0.2"}]})
    experiment = load_experiment(data)
    problem = search_problem(experiment, seed=5)
    assert (problem.seed, problem.settings, problem.max_trials, problem.parallel) == (5, {"gamma": "0.2"}, 6, 3)
    assert problem.direction is ObjectiveType.MAXIMIZE
    assert algorithm_of(experiment) == "tpe"
    assert settings_of(experiment) == {"gamma": "0.2"}
    assert to_budget(experiment) == Budget(parallel=3, max_trials=6, max_failed=None)


@pytest.mark.parametrize(
    ("settings", "seed", "expected"),
    [([], None, None), ([("random_state", "7")], None, 7), ([("random_state", "x")], None, None), ([], 3, 3)],
)
def test_the_seed_is_the_users_or_none(settings: list[tuple[str, str]], seed: int | None, expected: int | None) -> None:
    pairs = [{"name": name, "value": value} for name, value in settings]
    data = base(spec__algorithm__algorithmSettings=pairs)
    if seed is not None:
        data["spec"]["seed"] = seed
    assert seed_of(load_experiment(data)) == expected


def test_the_collector_knows_its_metrics_and_filters() -> None:
    data = base(
        spec__metricsCollectorSpec={
            "collector": {"kind": "File"},
            "source": {"filter": {"metricsFormat": ["(a)(b)"]}},
        }
    )
    assert collector_spec(load_experiment(data)) == CollectorSpec(
        kind="File",
        metrics=("accuracy",),
        filters=("(a)(b)",),
        path="/var/log/katib/metrics.log",
        path_kind="File",
        format="TEXT",
    )
    plain = collector_spec(load_experiment(base(spec__metricsCollectorSpec=REMOVED)))
    assert plain == CollectorSpec(kind="StdOut", metrics=("accuracy",))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("2h30m", 9000), ("1.5d", 129600), ("500ms", 0.5), ("1h 5s", 3605), (90, 90), (0.5, 0.5)],
)
def test_time_spans(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1s", "1h-2m", "0s", -1, 0, "9" * 400 + "d"])
def test_what_is_no_time_span(text: str | float) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_our_own_fields() -> None:
    data = base(
        spec__deadline="1h", spec__trialDeadline=30, spec__onCompletion="drain", spec__workingDir="sub",
        metadata__annotations={"evertune.io/backend": "local"},
    )  # fmt: skip
    experiment = load_experiment(data)
    assert (deadline_of(experiment), trial_deadline_of(experiment)) == (3600, 30)
    assert (on_completion_of(experiment), working_dir_of(experiment)) == ("drain", "sub")
    assert backend_of(experiment) == "local"
    silent = load_experiment(base())
    assert (deadline_of(silent), on_completion_of(silent), working_dir_of(silent)) == (None, "cancel", None)


def test_a_scrape_is_known_with_everything_that_an_http_get_action_says() -> None:
    get = {
        "port": 9090,
        "path": "/m",
        "host": "10.0.0.1",
        "scheme": "HTTPS",
        "httpHeaders": [{"name": "X", "value": "y"}],
    }
    data = base(spec__metricsCollectorSpec={"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": get}})
    assert collector_spec(load_experiment(data)).scrape == Scrape(
        port=9090, path="/m", host="10.0.0.1", scheme="HTTPS", headers=(("X", "y"),)
    )
    data = base(spec__metricsCollectorSpec={"collector": {"kind": "PrometheusMetric"}})
    assert collector_spec(load_experiment(data)).scrape == Scrape(port=8080, path="/metrics")
