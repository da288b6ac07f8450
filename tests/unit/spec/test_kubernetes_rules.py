"""What is said of an experiment before its trials run in a cluster: conditions, kinds, names, memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from algorithms.registry import Registry
from evertune.domain.space import Value
from evertune.spec import (
    check,
    load_experiment,
    memory_growth_of,
    parse_documents,
    render_trial,
    to_space,
    unsupported_here,
)
from evertune.spec.conditions import Condition
from evertune.spec.kinds import KINDS, condition
from tests.unit.spec.samples import COMPLETE, EXAMPLES, FAILED, REMOVED, base, found, judge
from tests.unit.spec.test_katib_examples import VALID

T = "spec.trialTemplate"
TEMPLATE = "spec__trialTemplate"
JOB = f"{TEMPLATE}__trialSpec"
CONTAINER = f"{JOB}__spec__template__spec__containers__0"
SUCCESS, FAILURE = f"{T}.successCondition", f"{T}.failureCondition"


def _kind(kind: str, **changes: Any) -> dict[str, Any]:
    """The base experiment with trials of another kind, in one replica of each primary role."""
    known = KINDS[kind]
    container = {**base()["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]}
    container["name"] = known.container or "step-train"
    pod = {"template": {"spec": {"containers": [container]}}, "restartPolicy": "Never"}
    return base(
        **{
            f"{TEMPLATE}__successCondition": known.success_condition,
            f"{TEMPLATE}__failureCondition": known.failure_condition,
            f"{TEMPLATE}__primaryContainerName": container["name"],
            f"{JOB}__apiVersion": f"{known.group}/{known.versions[0]}",
            f"{JOB}__kind": kind,
            f"{JOB}__spec": {known.replicas_field or "template": {known.primary_roles[0]: pod}}
            if known.trains
            else {"pods": [container]},
            **changes,
        }
    )


def _warnings(data: dict[str, Any]) -> list[str]:
    return [warning.path for warning in judge(data, backend="kubernetes").warnings if "istio" not in warning.message]


def _problems(data: dict[str, Any], backend: str = "kubernetes") -> list[tuple[str, str]]:
    return [(problem.type, problem.path) for problem in unsupported_here(load_experiment(data), backend)]


# ---------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("kind", "success", "failure", "expected"),
    [
        ("Job", COMPLETE, FAILED, []),
        ("Job", 'status.conditions.#(type=="Complete', FAILED, [("Invalid", SUCCESS)]),
        ("Job", "status..x", "a.*", [("Invalid", FAILURE), ("Invalid", SUCCESS)]),
        ("Job", FAILED, COMPLETE, [("Invalid", FAILURE), ("Invalid", SUCCESS)]),  # swapped
        ("Job", FAILED, 'status.conditions.#(type=="Nothing")#', [("Invalid", SUCCESS)]),
        ("Job", "metadata", FAILED, []),  # the template has none; the next line shows what does hold at once
        ("Job", "spec", FAILED, [("Invalid", SUCCESS)]),
        ("Job", COMPLETE, "spec.template", [("Invalid", FAILURE)]),
        ("Job", COMPLETE, 'status.conditions.#(status=="True")#', [("Invalid", FAILURE)]),
        ("TFJob", 'status.conditions.#(type=="Running")#', condition("Failed"), [("Invalid", SUCCESS)]),
        ("TFJob", condition("Succeeded"), condition("Restarting"), []),  # whoever wants no restart may say so
        ("TFJob", 'status.conditions.#(type!="Succeeded")#', FAILED, [("Invalid", SUCCESS)]),
        ("PipelineRun", 'status.conditions.#(type=="Succeeded")#', FAILED, [("Invalid", SUCCESS)]),
        ("Workflow", 'status.conditions.#(type=="Completed")#', 'status.[@this].#(phase=="Failed")#',
         [("Invalid", SUCCESS)]),  # an Error is completed as well, and Failed does not see it
        ("Workflow", 'status.conditions.#(type=="Completed")#', KINDS["Workflow"].failure_condition, []),
    ],
)  # fmt: skip
def test_a_condition_that_is_wrong_about_its_kind_is_an_error(
    kind: str, success: str, failure: str, expected: list[tuple[str, str]]
) -> None:
    changes = {f"{TEMPLATE}__successCondition": success, f"{TEMPLATE}__failureCondition": failure}
    assert found(base(**changes) if kind == "Job" else _kind(kind, **changes)) == expected


def test_the_errors_say_what_was_tried_and_what_would_do() -> None:
    text = 'status.conditions.#(type=="Complete)#'
    (problem,) = judge(base(**{f"{TEMPLATE}__successCondition": text})).problems
    assert "this quote is not closed at character 27" in problem.message
    assert (problem.hint or "").startswith("supported: a.b.c")
    (problem,) = judge(base(**{f"{TEMPLATE}__failureCondition": condition("Complete")})).problems
    assert "holds for a Job that succeeded, and is asked first: Complete is True" in problem.message
    assert problem.hint == f"for a Job: {FAILED}"


@pytest.mark.parametrize(
    ("success", "failure", "words"),
    [
        ("status.succeeded", FAILED, "gives 1, which never counts"),
        ('status.conditions.#(type=="Complete").status', FAILED, 'gives "True", which never counts'),
        ('status.conditions.#(type=="Done")#', FAILED, "holds for no Job that succeeded"),
        (COMPLETE, 'status.conditions.#(type=="Broken")#', "holds for no Job that failed"),
    ],
)
def test_a_condition_that_never_holds_is_warned_of(success: str, failure: str, words: str) -> None:
    verdict = judge(base(**{f"{TEMPLATE}__successCondition": success, f"{TEMPLATE}__failureCondition": failure}))
    assert verdict.valid
    assert words in verdict.warnings[0].message


def test_a_condition_that_misses_one_way_to_fail_is_warned_of() -> None:
    (warning,) = judge(
        _kind("Workflow", **{f"{TEMPLATE}__failureCondition": 'status.[@this].#(phase=="Failed")#'})
    ).warnings
    assert 'does not hold for every Workflow that failed: phase is "Error"' in warning.message


@pytest.mark.parametrize("kind", ["Job", "PipelineRun", "Workflow"])
@pytest.mark.parametrize("field", ["success", "failure"])
def test_a_slip_of_the_pen_is_told_or_changes_nothing(kind: str, field: str) -> None:
    """Every character left out, one at a time: what is neither an error nor a warning means what it meant before."""
    known = KINDS[kind]
    whole = known.success_condition if field == "success" else known.failure_condition
    ends = (*known.samples.succeeded, *known.samples.failed)
    for place in range(len(whole)):
        text = whole[:place] + whole[place + 1 :]
        changes = {f"{TEMPLATE}__{field}Condition": text}
        verdict = judge(base(**changes) if kind == "Job" else _kind(kind, **changes))
        path = f"{T}.{field}Condition"
        if path not in {problem.path for problem in (*verdict.problems, *verdict.warnings)}:
            for status in ends:
                held = Condition.parse(whole).holds({"status": status})
                assert Condition.parse(text).holds({"status": status}) == held, text


def test_a_kind_that_nobody_knows_is_warned_of_scalars_only() -> None:
    own = {f"{JOB}__apiVersion": "example.com/v1", f"{JOB}__kind": "Thing"}
    assert judge(base(**own)).warnings == []
    (warning,) = judge(base(**own, **{f"{TEMPLATE}__successCondition": "status.phase"})).warnings
    assert warning.path == SUCCESS
    assert "never counts" in warning.message
    assert judge(base(**own, **{f"{TEMPLATE}__successCondition": "status.mine.#(a==1)"})).warnings == []


# ------------------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize("name", VALID)
def test_every_valid_example_of_katibs_runs_in_a_cluster_and_renders(name: str) -> None:
    (document,) = parse_documents((EXAMPLES / f"{name}.yaml").read_bytes(), name)
    verdict = check(document, Registry(), backend="kubernetes")
    experiment = verdict.experiment
    assert experiment is not None
    left = {problem.path for problem in unsupported_here(experiment, "kubernetes")}
    assert left <= {"spec.algorithm.algorithmName"}  # of algorithms that no backend runs yet
    template = experiment.spec.trial_template if experiment.spec else None
    assert template is not None
    assert not {SUCCESS, FAILURE} & {warning.path for warning in verdict.warnings}
    values: dict[str, Value] = {
        item.name: item.low if item.numeric else item.values[0] for item in to_space(experiment)
    } or {item.reference or "": "{'a': 1}" for item in template.trial_parameters or ()}
    manifest = render_trial(experiment, trial_name="trial-x", parameters=values)
    assert manifest["kind"] in KINDS
    assert "trialParameters" not in str(manifest)


@pytest.mark.parametrize("kind", ["JAXJob", "PaddleJob", "TFJob", "PyTorchJob", "XGBoostJob", "MPIJob"])
def test_a_training_kind_without_conditions_gets_them(kind: str) -> None:
    data = _kind(kind, **{f"{TEMPLATE}__successCondition": REMOVED, f"{TEMPLATE}__failureCondition": REMOVED})
    template = load_experiment(data).manifest()["spec"]["trialTemplate"]
    assert template["successCondition"] == condition("Succeeded")
    assert template["failureCondition"] == condition("Failed")
    assert template["primaryPodLabels"] == {"training.kubeflow.org/job-role": "master"}
    assert _problems(data) == []


@pytest.mark.parametrize("kind", ["Workflow", "PipelineRun", "Thing"])
def test_a_kind_that_katib_has_no_conditions_for_must_give_its_own(kind: str) -> None:
    own = {f"{TEMPLATE}__successCondition": REMOVED, f"{JOB}__kind": kind, f"{JOB}__apiVersion": "example.com/v1"}
    (problem,) = judge(base(**own)).problems
    assert (problem.type, problem.path) == ("Required", T)
    assert "JAXJob, PaddleJob, TrainJob has them by default" in (problem.hint or "")


@pytest.mark.parametrize("kind", ["MPIJob", "TrainJob", "Workflow", "PipelineRun"])
def test_kinds_that_need_a_cluster_are_refused_locally_with_the_mend(kind: str) -> None:
    (problem,) = unsupported_here(load_experiment(_kind(kind)), "local")
    assert (problem.type, problem.path) == ("Forbidden", f"{T}.trialSpec.kind")
    assert problem.message.startswith(f"a {kind} (")
    assert "--backend kubernetes" in (problem.hint or "")
    assert _problems(_kind(kind)) == []


@pytest.mark.parametrize("kind", ["TFJob", "PyTorchJob", "XGBoostJob", "JAXJob", "PaddleJob"])
def test_training_kinds_run_locally_when_each_replica_has_a_command(kind: str) -> None:
    data = _kind(kind)
    assert _problems(data, "local") == []
    bare = copy.deepcopy(data)
    field, role = KINDS[kind].replicas_field, KINDS[kind].primary_roles[0]
    container = bare["spec"]["trialTemplate"]["trialSpec"]["spec"][field][role]["template"]["spec"]["containers"][0]
    container["args"] = container.pop("command")
    place = f"{T}.trialSpec.spec.{field}.{role}.template.spec.containers[0].command"
    assert _problems(bare, "local") == [("Forbidden", place)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (base(), []),
        (base(**{f"{CONTAINER}__image": REMOVED}),
         [("Required", f"{T}.trialSpec.spec.template.spec.containers[0].image")]),
        (base(**{f"{JOB}__spec__template__spec__restartPolicy": REMOVED}),
         [("Forbidden", f"{T}.trialSpec.spec.template.spec.restartPolicy")]),
        (base(metadata__name="a" * 40), []),
        (_kind("TFJob", metadata__name="a" * 31), []),
        (_kind("TFJob", metadata__name="a" * 32), [("Forbidden", "metadata.name")]),
        (_kind("TrainJob", metadata__name="a" * 32), [("Forbidden", "metadata.name")]),
        (_kind("PyTorchJob", **{f"{JOB}__spec": {"torchReplicaSpecs": _kind("PyTorchJob")["spec"]["trialTemplate"][
            "trialSpec"]["spec"]["pytorchReplicaSpecs"]}}), [("Required", f"{T}.trialSpec.spec.pytorchReplicaSpecs")]),
        (_kind("XGBoostJob", **{f"{JOB}__spec__xgbReplicaSpecs": {"Worker": _kind("XGBoostJob")["spec"][
            "trialTemplate"]["trialSpec"]["spec"]["xgbReplicaSpecs"]["Master"]}}),
         [("Required", f"{T}.trialSpec.spec.xgbReplicaSpecs")]),
    ],
)  # fmt: skip
def test_what_a_cluster_would_refuse_at_each_trial_is_refused_at_once(
    data: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert _problems(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (base(**{f"{JOB}__spec__ttlSecondsAfterFinished": 60}), [f"{T}.trialSpec.spec.ttlSecondsAfterFinished"]),
        (base(**{f"{JOB}__spec__ttlSecondsAfterFinished": 300}), []),
        (_kind("TFJob", **{f"{JOB}__spec__runPolicy": {"ttlSecondsAfterFinished": 0}}),
         [f"{T}.trialSpec.spec.runPolicy.ttlSecondsAfterFinished"]),
        (_kind("TFJob", **{f"{JOB}__spec__tfReplicaSpecs__Chief__restartPolicy": "OnFailure"}),
         [f"{T}.trialSpec.spec.runPolicy"]),
        (_kind("TFJob", **{f"{JOB}__spec__tfReplicaSpecs__Chief__restartPolicy": "OnFailure",
                           f"{JOB}__spec__runPolicy": {"backoffLimit": 2}}), []),
        (_kind("PyTorchJob", **{f"{JOB}__spec__pytorchReplicaSpecs__Master__restartPolicy": REMOVED}),
         [f"{T}.trialSpec.spec.runPolicy"]),
        (_kind("TFJob", **{f"{JOB}__spec__tfReplicaSpecs__Chief__restartPolicy": "Always"}),
         [f"{T}.trialSpec.spec.tfReplicaSpecs.Chief.restartPolicy"]),
        (_kind("TFJob", **{f"{JOB}__spec__tfReplicaSpecs__PS": {"restartPolicy": "Always"}}), []),
        (_kind("XGBoostJob", **{f"{JOB}__spec__xgbReplicaSpecs__Master__restartPolicy": "Always"}),
         [f"{T}.trialSpec.spec.xgbReplicaSpecs.Master.restartPolicy"]),
        (_kind("PipelineRun"), [f"{T}.primaryPodLabels"]),
        (_kind("PipelineRun", **{f"{TEMPLATE}__primaryPodLabels": {"a": "b"}}), []),
    ],
)  # fmt: skip
def test_what_a_cluster_takes_and_then_hurts_a_trial_is_warned_of(data: dict[str, Any], expected: list[str]) -> None:
    assert _warnings(data) == expected
    assert judge(data, backend="kubernetes").valid


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [("gpu-cluster", []), ("arn:aws:eks:eu:1:cluster/x", []),
     (" ", [("Invalid", "metadata.annotations[evertune.io/cluster]")])],
)  # fmt: skip
def test_a_cluster_is_named_by_its_context(cluster: str, expected: list[tuple[str, str]]) -> None:
    assert found(base(metadata__annotations={"evertune.io/cluster": cluster})) == expected


# ------------------------------------------------------------------------------------------------------ memory


ON_OOM = "spec.failurePolicy.onOOM"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"onOOM": {"memory": "x1.5", "max": "64Gi"}}, []),
        ({"onOOM": {"memory": "x10"}}, []),
        ({}, [("Required", "spec.failurePolicy")]),
        ({"onOOM": {}}, [("Required", f"{ON_OOM}.memory")]),
        ({"onOOM": {"memory": "x1"}}, [("Invalid", f"{ON_OOM}.memory")]),
        ({"onOOM": {"memory": "x10.5"}}, [("Invalid", f"{ON_OOM}.memory")]),
        (
            {"onOOM": {"memory": "double", "max": "64GB"}},
            [("Invalid", f"{ON_OOM}.max"), ("Invalid", f"{ON_OOM}.memory")],
        ),
        ({"onOOM": {"memory": "x2", "max": 0}}, [("Invalid", f"{ON_OOM}.max")]),
        ({"onOOM": ["x2"]}, [("Invalid", ON_OOM)]),
    ],
)
def test_a_failure_policy_has_rules_of_its_own(policy: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(base(spec__failurePolicy=policy)) == expected


def test_a_number_for_a_factor_is_told_how_to_write_it() -> None:
    (problem,) = judge(base(spec__failurePolicy={"onOOM": {"memory": 1.5}})).problems
    assert problem.hint == "write x1.5"


def test_more_memory_is_refused_where_nothing_would_get_any() -> None:
    policy = {"onOOM": {"memory": "x2", "max": "4Gi"}}
    limited = {"limits": {"memory": "2Gi"}}
    good = base(spec__failurePolicy=policy, **{f"{CONTAINER}__resources": limited})
    assert _problems(good) == []
    assert memory_growth_of(load_experiment(good)) == (2.0, "4Gi")
    assert _problems(good, "local") == [("Forbidden", ON_OOM)]
    assert _problems(base(spec__failurePolicy=policy)) == [("Forbidden", ON_OOM)]
    full = base(spec__failurePolicy=policy, **{f"{CONTAINER}__resources": {"limits": {"memory": "4Gi"}}})
    assert _problems(full) == [("Forbidden", f"{ON_OOM}.max")]
    assert _problems(_kind("PipelineRun", spec__failurePolicy=policy)) == [("Forbidden", ON_OOM)]
    varied = {"limits": {"memory": "${trialParameters.numLayers}Gi"}}
    assert _problems(base(spec__failurePolicy=policy, **{f"{CONTAINER}__resources": varied})) == []
