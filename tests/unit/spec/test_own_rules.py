"""Rules beyond Katib's: what would hang or fail each trial there is an error here, with the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from algorithms.registry import Registry
from evertune.domain.space import SearchProblem
from evertune.errors import Problem, SpecError
from evertune.spec import check, load_judged, parse_documents
from tests.unit.spec.samples import REMOVED, SomeAlgorithms, base, found, judge

LR = "spec.parameters[0].feasibleSpace"
SPACE = "spec__parameters__0__feasibleSpace"
T = "spec.trialTemplate"
JOB = "spec__trialTemplate__trialSpec"
POD = f"{JOB}__spec__template"
SOURCE = "spec.metricsCollectorSpec.source"
SETTINGS = "spec.algorithm.algorithmSettings"
FILTER = {"source": {"filter": {"metricsFormat": ["(?=a)(b)(c)"]}}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({f"{SPACE}__min": "6"}, [("Invalid", LR)]),
        ({f"{SPACE}__min": "5"}, []),
        ({f"{SPACE}__min": "one"}, [("Invalid", f"{LR}.min")]),
        ({f"{SPACE}__max": "nan"}, [("Invalid", f"{LR}.max")]),
        ({f"{SPACE}__max": "1e400"}, [("Invalid", f"{LR}.max")]),
        ({f"{SPACE}__max": "5.5"}, [("Invalid", f"{LR}.max")]),
        ({f"{SPACE}__max": "1e1"}, []),
        ({f"{SPACE}__step": "0"}, [("Invalid", f"{LR}.step")]),
        ({f"{SPACE}__step": "-1"}, [("Invalid", f"{LR}.step")]),
        ({f"{SPACE}__step": "x"}, [("Invalid", f"{LR}.step")]),
        ({f"{SPACE}__min": "0", f"{SPACE}__distribution": "logUniform"}, [("Invalid", f"{LR}.min")]),
        ({f"{SPACE}__min": "-1", f"{SPACE}__distribution": "logNormal"}, [("Invalid", f"{LR}.min")]),
        ({f"{SPACE}__min": "-1", f"{SPACE}__distribution": "normal"}, []),
        ({"spec__parameters__0__parameterType": "unknown"}, [("Invalid", "spec.parameters[0].parameterType")]),
        (
            {"spec__parameters__1__feasibleSpace__list": []},
            [("Required", "spec.parameters[1].feasibleSpace.list")],
        ),
        (
            {"spec__parameters__1__feasibleSpace__list": ['say "hi"']},
            [("Invalid", "spec.parameters[1].feasibleSpace.list[0]")],
        ),
        (
            {"spec__parameters__1__parameterType": "discrete"},
            [("Invalid", f"spec.parameters[1].feasibleSpace.list[{i}]") for i in range(3)],
        ),
        (
            {"spec__parameters__1__name": "layers", "spec__trialTemplate__trialParameters__1__reference": "layers2"},
            [("Duplicate", "spec.parameters[1].name"), ("Invalid", f"{T}.trialParameters[1].reference")],
        ),
        (
            {
                "spec__parameters__2": {
                    "name": "lr",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0", "max": "1"},
                }
            },
            [("Invalid", "spec.parameters[2].name")],
        ),
        ({"spec__trialTemplate__primaryContainerName": "trainng"}, [("Invalid", f"{T}.primaryContainerName")]),
        ({"spec__metricsCollectorSpec": FILTER}, [("Invalid", f"{SOURCE}.filter.metricsFormat")]),
        ({"spec__parallelTrialCount": 1001, "spec__maxTrialCount": 2000}, [("Invalid", "spec.parallelTrialCount")]),
        ({"spec__parallelTrialCount": 1000, "spec__maxTrialCount": 2000}, []),
        ({"metadata__name": "a.b"}, [("Invalid", "metadata.name")]),
        ({"metadata__name": REMOVED, "metadata__generateName": "a-"}, [("Invalid", "metadata.name")]),
        ({"metadata__namespace": "Team"}, [("Invalid", "metadata.namespace")]),
        (
            {"metadata__annotations": {"evertune.io/backend": "kubernets"}},
            [("Invalid", "metadata.annotations[evertune.io/backend]")],
        ),
        (
            {
                "spec__trialTemplate__trialParameters__2": {"name": "team", "reference": "${trialSpec.Labels[team]}"},
                f"{POD}__spec__containers__0__args": ["${trialParameters.team}"],
                f"{JOB}__metadata": {"labels": {"teem": "a"}, "annotations": {"team": "a"}},
            },
            [("Invalid", f"{T}.trialParameters[2].reference")],
        ),
        ({"kind": "Experimnt"}, [("Invalid", "kind")]),
        ({"apiVersion": "kubeflow.org/v1alpha3"}, [("Invalid", "apiVersion")]),
        (
            {"spec__objective__metricStrategies": [{"name": "accuracy", "value": "best"}]},
            [("Invalid", "spec.objective.metricStrategies[0].value")],
        ),
        ({"spec__algorithm__algorithmSettings": [{"name": "a"}]}, [("Required", f"{SETTINGS}[0].value")]),
        (
            {"spec__algorithm__algorithmSettings": [{"name": "a", "value": "1"}, {"name": "a", "value": "1"}]},
            [("Duplicate", "spec.algorithm.algorithmSettings[1].name")],
        ),
    ],
)  # fmt: skip
def test_what_would_hang_in_katib_is_an_error(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(base(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"spec__seed": -1}, "spec.seed"),
        ({"spec__seed": 2**31}, "spec.seed"),
        ({"spec__seed": "1"}, "spec.seed"),
        ({"spec__deadline": "soon"}, "spec.deadline"),
        ({"spec__trialDeadline": -5}, "spec.trialDeadline"),
        ({"spec__workingDir": ""}, "spec.workingDir"),
        ({"spec__onCompletion": "wait"}, "spec.onCompletion"),
    ],
)
def test_our_own_fields_have_rules_too(changes: dict[str, Any], path: str) -> None:
    assert found(base(**changes)) == [("Invalid", path)]


def test_our_own_fields_that_work_are_accepted() -> None:
    own: dict[str, Any] = {
        "seed": 7,
        "deadline": "2h30m",
        "trialDeadline": 90,
        "workingDir": "runs",
        "onCompletion": "drain",
    }
    assert found(base(**{f"spec__{key}": value for key, value in own.items()})) == []


def test_two_seeds_that_differ_are_refused() -> None:
    settings = [{"name": "random_state", "value": "2"}]
    data = base(spec__seed=1, spec__algorithm__algorithmSettings=settings)
    assert found(data) == [("Invalid", "spec.algorithm.algorithmSettings[0].value")]


@pytest.mark.parametrize(
    ("setting", "value", "path"),
    [
        ("min_trials_required", "0", "value"),
        ("min_trials_required", "1.5", "value"),
        ("start_step", "0", "value"),
        ("start_step", "four", "value"),
        ("start_stp", "4", "name"),
    ],
)
def test_median_stops_settings_are_checked(setting: str, value: str, path: str) -> None:
    stopping = {"algorithmName": "medianstop", "algorithmSettings": [{"name": setting, "value": value}]}
    assert found(base(spec__earlyStopping=stopping)) == [("Invalid", f"spec.earlyStopping.algorithmSettings[0].{path}")]


def test_medianstop_is_accepted_without_a_word() -> None:
    verdict = judge(base(spec__earlyStopping={"algorithmName": "medianstop"}))
    assert verdict.valid
    assert verdict.warnings == []


@pytest.mark.parametrize(
    ("stopping", "hint"),
    [
        ({"algorithmName": "median-stop"}, 'did you mean "medianstop"?'),
        ({"algorithmName": "noreport"}, 'did you mean "no-report"?'),
        (
            {"algorithmName": "medianstop", "algorithmSettings": [{"name": "startstep", "value": "2"}]},
            'did you mean "start_step"?',
        ),
    ],
)
def test_a_misspelled_rule_of_early_stopping_is_refused_with_what_was_meant(
    stopping: dict[str, object], hint: str
) -> None:
    (problem,) = judge(base(spec__earlyStopping=stopping)).problems
    assert hint in (problem.hint or "")


def test_early_stopping_is_not_judged_where_no_catalog_is_at_hand() -> None:
    assert found(base(spec__earlyStopping={"algorithmName": "anything"}), catalog=None) == []


def test_a_misspelled_reference_is_one_mistake_and_not_an_unused_parameter_too() -> None:
    (problem,) = judge(base(spec__trialTemplate__trialParameters__0__reference="layrs")).problems
    assert problem.hint == 'did you mean "layers"?; parameters: layers opt'


def test_problems_of_the_algorithm_come_through_and_those_of_a_broken_space_do_not() -> None:
    settings = [{"name": "gama", "value": "1"}]
    changes: dict[str, Any] = {
        "spec__algorithm": {"algorithmName": "picky", "algorithmSettings": settings},
    }
    setting = ("Invalid", "spec.algorithm.algorithmSettings[0].name")
    assert found(base(**changes)) == [setting, ("Invalid", "spec.parameters[0]")]
    assert found(base(**changes, **{f"{SPACE}__min": "9"})) == [setting, ("Invalid", LR)]


def test_a_parameter_with_another_mistake_can_still_be_named_by_a_setting() -> None:
    settings = [{"name": "r_l", "value": "3"}, {"name": "resource_name", "value": "layers"}]
    algorithm = {"algorithmName": "hyperband", "algorithmSettings": settings}
    data = base(spec__algorithm=algorithm, **{f"{SPACE}__min": "9"})
    assert found(data, catalog=Registry()) == [("Invalid", LR)]


def test_all_problems_are_told_at_once() -> None:
    data = base(
        metadata__name="Upper",
        spec__maxTrialCount=0,
        spec__objective=REMOVED,
        spec__algorithm__algorithmName="tpee",
        spec__resumePolicy="Sometimes",
        **{f"{SPACE}__min": "9", "spec__trialTemplate__primaryContainerName": "x"},
    )
    assert len(found(data)) == 7


def test_none_as_a_collector_is_accepted_with_one_warning() -> None:
    verdict = judge(base(spec__metricsCollectorSpec={"collector": {"kind": "None"}}))
    assert verdict.valid
    assert [problem.path for problem in verdict.warnings] == ["spec.metricsCollectorSpec.collector.kind"]


def test_a_metric_that_the_default_filter_cannot_find_gets_a_warning() -> None:
    verdict = judge(base(spec__objective__objectiveMetricName="val/acc"))
    assert verdict.valid
    assert [problem.path for problem in verdict.warnings] == ["spec.objective.objectiveMetricName"]


@pytest.mark.parametrize(
    ("metadata", "backend", "warned"),
    [
        ({"annotations": {"sidecar.istio.io/inject": "true"}}, None, True),
        ({"labels": {"sidecar.istio.io/inject": "true"}}, "kubernetes", True),
        ({"annotations": {"sidecar.istio.io/inject": "true"}}, "local", False),
        ({"annotations": {"sidecar.istio.io/inject": "false"}}, "kubernetes", False),
        ({}, "kubernetes", True),
        ({}, None, False),
        ({}, "local", False),
    ],
)
def test_istios_proxy_is_named_where_it_would_keep_a_trial_alive(
    metadata: dict[str, Any], backend: str | None, warned: bool
) -> None:
    verdict = judge(base(**{f"{POD}__metadata": metadata}), backend=backend)
    assert verdict.valid
    assert [("sidecar.istio.io/inject" in problem.message) for problem in verdict.warnings] == [True] * warned


def test_the_annotation_decides_the_backend_for_warnings() -> None:
    verdict = judge(base(metadata__annotations={"evertune.io/backend": "kubernetes"}))
    assert any("sidecar.istio.io/inject" in problem.message for problem in verdict.warnings)


def test_no_budget_and_no_goal_is_pointed_out() -> None:
    verdict = judge(base(spec__maxTrialCount=REMOVED, spec__objective__goal=REMOVED))
    assert [problem.path for problem in verdict.warnings] == ["spec.maxTrialCount"]


def test_an_integer_field_of_the_job_cannot_be_a_parameter_and_that_is_said() -> None:
    data = base(**{f"{JOB}__spec__backoffLimit": "${trialParameters.numLayers}"})
    (problem,) = judge(data).problems
    assert problem.path == T
    assert "spec.backoffLimit must be a whole number" in problem.message


def test_at_most_a_hundred_problems_are_told() -> None:
    parameters = [{"name": f"p{i}", "parameterType": "dubble"} for i in range(500)]
    assert len(found(base(spec__parameters=parameters))) == 100


def test_a_setting_that_katibs_service_lets_pass_is_told_of_where_nobody_knows_it() -> None:
    settings = [{"name": "restart_stategy", "value": "ipop"}, {"name": "sigma", "value": "0.1"}]
    data = base(
        spec__algorithm={"algorithmName": "cmaes", "algorithmSettings": settings},
        spec__parameters__1={"name": "opt", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "3"}},
    )
    verdict = judge(data, catalog=Registry())
    assert verdict.valid
    (warning,) = verdict.warnings
    assert warning.path == f"{SETTINGS}[0].name"
    assert warning.message == '"restart_stategy" is not a setting that cmaes knows'
    assert (warning.hint or "").startswith('did you mean "restart_strategy"?')


@pytest.mark.parametrize("version", [float("nan"), ["batch/v1"], {"a": 1}, 1, True])
def test_an_api_version_that_is_no_text_is_refused(version: Any) -> None:
    assert found(base(**{f"{JOB}__apiVersion": version})) == [("Invalid", T)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused_anywhere_in_a_job(value: float) -> None:
    assert found(base(**{f"{JOB}__spec__backoffLimit": value})) == [("Invalid", T)]
    assert found(base(**{f"{POD}__spec__containers__0__image": value})) == [("Invalid", T)]


def test_a_name_that_no_placeholder_can_have_is_refused_with_its_length() -> None:
    name = "x" * 300
    data = base(**{f"{JOB}__spec__template__spec__containers__0__args": [f"${{trialParameters.{name}}}"]})
    data["spec"]["trialTemplate"]["trialParameters"][0]["name"] = name
    problem = next(p for p in judge(data).problems if p.path == f"{T}.trialParameters[0].name")
    assert "300 characters, at most 253" in problem.message
    assert len(problem.message) < 150


STRATEGIES = "spec__objective__metricStrategies"


@pytest.mark.parametrize(
    ("strategies", "expected"),
    [
        ([{"name": "accuracy", "value": "max"}, {"name": "accuracy", "value": "max"}], []),
        ([{"name": "accuracy", "value": "max"}, {"name": "accuracy", "value": "min"}], [("Duplicate", "[1].name")]),
        ([{"value": "max"}], [("Required", "[0].name")]),
        ([{"name": "accuracy", "value": "mean"}], [("Invalid", "[0].value")]),
    ],
)
def test_a_metric_has_one_strategy_that_is_known(strategies: list[Any], expected: list[tuple[str, str]]) -> None:
    where = STRATEGIES.replace("__", ".")
    assert found(base(**{STRATEGIES: strategies})) == [(type_, where + place) for type_, place in expected]


@pytest.mark.parametrize("goal", [10**400, -(10**400), float("inf"), float("nan"), "1e999"])
def test_a_goal_that_no_number_can_reach_is_one_sentence(goal: Any) -> None:
    assert found(base(spec__objective__goal=goal)) == [("Invalid", "spec.objective.goal")]


COLLECTING = "spec__metricsCollectorSpec"
FILE_PATH = f"{SOURCE}.fileSystemPath.path"


@pytest.mark.parametrize(
    ("kind", "place", "expected"),
    [
        ("File", "/metrics", []),
        ("File", "/a/./metrics", []),
        ("File", "/a/", [("Invalid", FILE_PATH)]),
        ("File", "/", [("Invalid", FILE_PATH)]),
        ("File", "/a/../../etc/passwd", [("Invalid", FILE_PATH)]),
        ("TensorFlowEvent", "/logs/", []),
        ("TensorFlowEvent", "/logs/..", [("Invalid", FILE_PATH)]),
        ("TensorFlowEvent", "//", [("Invalid", FILE_PATH)]),
    ],
)
def test_what_is_collected_has_a_place_of_its_own(kind: str, place: str, expected: list[tuple[str, str]]) -> None:
    collecting = {"collector": {"kind": kind}, "source": {"fileSystemPath": {"path": place}}}
    assert found(base(**{COLLECTING: collecting})) == expected


def test_a_port_is_asked_by_a_scheme_that_is_one() -> None:
    def refused(scheme: str) -> list[tuple[str, str]]:
        source = {"httpGet": {"port": 8080, "scheme": scheme}}
        return found(base(**{COLLECTING: {"collector": {"kind": "PrometheusMetric"}, "source": source}}))

    assert refused("ftp") == [("Invalid", f"{SOURCE}.httpGet.scheme")]
    assert refused("https") == refused("HTTP") == []


def test_what_is_known_about_a_trial_is_no_name_of_a_parameter() -> None:
    name = "${trialSpec.Name}"
    data = base(spec__parameters__0__name=name, spec__trialTemplate__trialParameters__0__reference=name)
    assert found(data) == [("Invalid", "spec.parameters[0].name")]


def test_a_value_that_would_be_replaced_in_its_turn_is_warned_of() -> None:
    verdict = judge(base(spec__parameters__1__feasibleSpace__list=["${trialParameters.numLayers}", "sgd"]))
    assert [problem.path for problem in verdict.warnings] == ["spec.parameters[1].feasibleSpace.list[0]"]


@pytest.mark.parametrize("template", ["Job", [], 3, False])
def test_a_template_of_a_wrong_type_is_one_mistake(template: Any) -> None:
    assert found(base(**{JOB: template})) == [("Invalid", f"{T}.trialSpec")]


def test_an_additional_metric_without_a_name_is_told_where_it_stands() -> None:
    verdict = judge(base(spec__objective__additionalMetricNames=["loss", ""]))
    assert verdict.valid
    assert [problem.path for problem in verdict.warnings] == ["spec.objective.additionalMetricNames[1]"]


class Minding(SomeAlgorithms):
    """Whatever is searched with, it has something to say."""

    def warnings(self, name: str, problem: SearchProblem) -> Sequence[Problem]:
        said = Problem(
            path="spec.maxTrialCount", type="Invalid", message=f"{name} minds {problem.max_trials}", hint="x"
        )
        return [said, said]


def test_what_an_algorithm_warns_of_comes_once_with_its_place_and_refuses_nothing() -> None:
    text = "name: few\ncommand: echo {x}\nparameters: {x: 'uniform(0, 1)'}\nobjective: minimize y\n"
    (document,) = parse_documents(text + "budget: {trials: 7}\n", "few.yaml")
    verdict = check(document, Minding())
    assert verdict.valid
    (warning,) = verdict.warnings
    assert (warning.path, warning.message, warning.hint) == ("budget.trials", "tpe minds 7", "x")
    assert (warning.line, warning.column) == (5, 18)


def test_an_algorithm_is_not_asked_for_warnings_about_what_is_wrong_anyway() -> None:
    assert judge(base(spec__maxTrialCount=0), catalog=Minding()).warnings == []
    assert judge(base(spec__parallelTrialCount=9), catalog=Minding()).warnings == []
    assert judge(base(spec__parameters__0__feasibleSpace__min="9"), catalog=Minding()).warnings == []
    picky = base(spec__algorithm={"algorithmName": "picky", "algorithmSettings": [{"name": "a", "value": "1"}]})
    assert judge(picky, catalog=Minding()).warnings == []


def test_a_stopping_rule_that_can_stop_nobody_is_a_warning() -> None:
    setting = {"name": "min_trials_required", "value": "6"}
    stopping = {"algorithmName": "medianstop", "algorithmSettings": [setting]}
    verdict = judge(base(spec__earlyStopping=stopping))
    assert [(warning.path, verdict.valid) for warning in verdict.warnings] == [("spec.maxTrialCount", True)]
    stopping["algorithmSettings"] = [{**setting, "value": "5"}]
    assert judge(base(spec__earlyStopping=stopping)).warnings == []


def test_plain_data_gives_the_experiment_and_what_to_mind_of_it() -> None:
    experiment, warnings = load_judged(base(), Minding())
    assert (experiment.name, [warning.message for warning in warnings]) == ("fake", ["random minds 6"])
    with pytest.raises(SpecError):
        load_judged(base(spec__maxTrialCount=0), Minding())
