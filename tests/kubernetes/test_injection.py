"""What a pod template gets with a collector: shared places, rights, resources; and what an object gets besides."""

from __future__ import annotations

from typing import Any

import pytest

from activities.runners.kubernetes.render import Features
from evertune.domain.metrics import CollectorSpec
from evertune.errors import LaunchError
from evertune.protocols import JsonDict, MemoryGrowth
from tests.kubernetes.objects import collector, environment, job, launched, named, pod, training
from tests.kubernetes.rendering import (
    MODERN,
    OLD,
    render,
)

# --------------------------------------------------------------------------------------------------- shared places


def test_the_file_that_is_collected_is_in_a_directory_of_both() -> None:
    wanted = CollectorSpec(kind="File", metrics=("loss",), path="/var/log/train/metrics.log", path_kind="File")
    made = render(launched(job(), collector=wanted))

    mount = {"name": "evertune-metrics", "mountPath": "/var/log/train"}
    assert mount in named(pod(made)["containers"], "main")["volumeMounts"]
    assert {**mount, "readOnly": True} in collector(made)["volumeMounts"]
    assert environment(collector(made))["EVERTUNE_METRICS_PATH"] == wanted.path


def test_a_volume_that_the_user_mounts_there_is_used() -> None:
    mounts = [
        {"name": "root", "mountPath": "/data"},
        {"name": "claim", "mountPath": "/data/out", "subPathExpr": "$(SUB)/x"},
    ]
    given = {"volumeMounts": mounts, "env": [{"name": "SUB", "value": "s"}, {"name": "OTHER", "value": "o"}]}
    wanted = CollectorSpec(kind="TensorFlowEvent", metrics=("loss",), path="/data/out/events", path_kind="Directory")
    made = render(launched(job(container=given), collector=wanted))

    assert "evertune-metrics" not in [each["name"] for each in pod(made)["volumes"]]
    assert {**mounts[1], "readOnly": True} in collector(made)["volumeMounts"]
    assert environment(collector(made))["SUB"] == "s"
    assert "OTHER" not in environment(collector(made))


def test_a_path_whose_directory_cannot_be_shared_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"/metrics\.log cannot be shared"):
        render(launched(job(), collector=CollectorSpec(kind="File", metrics=("a",), path="/metrics.log")))


@pytest.mark.parametrize(
    "given",
    [
        {"volumes": [{"name": "evertune", "emptyDir": {}}]},
        {"initContainers": [{"name": "evertune-init", "image": "x:1"}]},
    ],
)
def test_a_name_that_we_need_is_refused(given: JsonDict) -> None:
    with pytest.raises(LaunchError, match="a name that evertune needs itself"):
        render(launched(job(pod=given)))


@pytest.mark.parametrize(("features", "who"), [(MODERN, "stay"), (OLD, "beside")])
def test_the_users_own_collector_runs_beside_and_what_it_prints_is_read(features: Features, who: str) -> None:
    wanted = CollectorSpec(kind="Custom", metrics=("loss",), path="/out/metrics.log", path_kind="File")
    own = {
        "name": "own",
        "image": "own:1",
        "command": ["collect"],
        "args": ["-x"],
        "env": [{"name": "A", "value": "b"}],
    }
    made = render(launched(job(), collector=wanted, custom_collector=own), features)
    spec = pod(made)
    theirs = named([*spec["initContainers"], *spec["containers"]], "own")

    assert theirs["command"][:4] == ["/evertune/busybox", "sh", "/evertune/wrapper.sh", who]
    assert theirs["command"][6:] == ["collect"]
    assert {each["mountPath"] for each in theirs["volumeMounts"]} == {"/evertune", "/out"}
    assert environment(theirs)["EVERTUNE_REPORT_FILE"] == "/evertune/reports"
    assert environment(theirs)["A"] == "b"
    assert environment(collector(made))["EVERTUNE_PRINTED_FILE"] == "/evertune/collector/log"
    assert spec["shareProcessNamespace"] is True


@pytest.mark.parametrize("features", [MODERN, OLD], ids=["native", "classic"])
def test_an_own_collector_whose_image_starts_by_itself_is_an_ordinary_container_as_in_katib(features: Features) -> None:
    wanted = CollectorSpec(kind="Custom", metrics=("loss",), path="/out/metrics.log", path_kind="File")
    own = {"name": "own", "image": "own:1", "args": ["-x"]}
    spec = pod(render(launched(job(), collector=wanted, custom_collector=own), features))

    assert [each["name"] for each in spec["containers"]][-1] == "own"
    assert "own" not in [each["name"] for each in spec["initContainers"]]
    assert "restartPolicy" not in spec["containers"][-1]
    assert spec["shareProcessNamespace"] is True


# --------------------------------------------------------------------------------------------- rights and resources


def restricted(container: JsonDict, pods: JsonDict) -> bool:
    """Kubernetes' restricted profile, for a container that nobody else makes safe."""
    security = container["securityContext"]
    return (
        security["allowPrivilegeEscalation"] is False
        and security["capabilities"] == {"drop": ["ALL"]}
        and security["seccompProfile"]["type"] == "RuntimeDefault"
        and security["runAsNonRoot"] is True
        and security.get("runAsUser", (pods.get("securityContext") or {}).get("runAsUser", 1)) != 0
    )


@pytest.mark.parametrize("user", [None, 0, 1000])
@pytest.mark.parametrize("features", [MODERN, OLD], ids=["native", "classic"])
def test_our_containers_pass_the_restricted_profile_whoever_the_pods_user_is(
    user: int | None, features: Features
) -> None:
    given = {} if user is None else {"securityContext": {"runAsUser": user}}
    spec = pod(render(launched(job(pod=given)), features))
    ours = [each for each in [*spec["initContainers"], *spec["containers"]] if each["name"].startswith("evertune-")]

    assert len(ours) == 2
    assert all(restricted(each, spec) for each in ours)
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in ours)


def test_the_collector_is_the_user_that_the_training_container_is() -> None:
    given = {"securityContext": {"runAsUser": 1234, "runAsGroup": 99, "privileged": True}}
    security = collector(render(launched(job(container=given))))["securityContext"]

    assert (security["runAsUser"], security["runAsGroup"]) == (1234, 99)
    assert "privileged" not in security


def test_a_guaranteed_pod_stays_guaranteed() -> None:
    given = {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}}
    for resources, fixed in ((given, True), ({}, False)):
        own = collector(render(launched(job(container=resources))))["resources"]
        assert (own["requests"] == own["limits"]) is fixed


def test_the_program_keeps_its_grace_while_the_collector_may_wait_for_a_gateway() -> None:
    made = render(launched(job(pod={"terminationGracePeriodSeconds": 60})))

    assert pod(made)["terminationGracePeriodSeconds"] == 360
    assert named(pod(made)["containers"], "main")["command"][4] == "60"
    assert float(environment(collector(made))["EVERTUNE_GRACE_S"]) == 355


# -------------------------------------------------------------------------------------- memory, deadline, the Job


@pytest.mark.parametrize(
    ("given", "factor", "maximum", "expected"),
    [
        ("1Gi", 1.5, None, "1536Mi"),
        ("1Gi", 2.25, "2Gi", "2Gi"),
        ("3Gi", 1.5, "2Gi", "3Gi"),
        ("1G", 1.5, None, "1500000000"),
        ("100M", 1.1, None, "110000000"),
        (1000, 1.5, None, "1500"),
        ("0.5Gi", 1.1, None, "590558004"),
        ("1e3", 2, None, "2000"),
        ("1E", 2, "2E", "1953125000000000Ki"),
    ],
)
def test_memory_grows_exactly_up_to_its_maximum(given: Any, factor: float, maximum: str | None, expected: Any) -> None:
    resources = {"resources": {"limits": {"memory": given, "cpu": "1"}, "requests": {"memory": given}}}
    growth = MemoryGrowth(factor=factor, maximum=maximum)
    main = named(pod(render(launched(job(container=resources), memory=growth)))["containers"], "main")

    assert main["resources"]["limits"] == {"memory": expected, "cpu": "1"}
    assert main["resources"]["requests"] == {"memory": expected}


def test_memory_that_is_no_quantity_is_said_where() -> None:
    resources = {"resources": {"limits": {"memory": "lots"}}}

    with pytest.raises(LaunchError, match=r"container main: resources\.limits\.memory: 'lots' is not a quantity"):
        render(launched(job(container=resources), memory=MemoryGrowth(factor=2)))


@pytest.mark.parametrize(("own", "expected"), [(None, 91), (60, 60), (600, 91)])
def test_the_shorter_deadline_counts(own: int | None, expected: int) -> None:
    given: dict[str, Any] = {} if own is None else {"activeDeadlineSeconds": own}

    assert render(launched(job(**given), deadline_s=90.5)).manifest["spec"]["activeDeadlineSeconds"] == expected


def test_a_training_jobs_deadline_is_in_its_run_policy() -> None:
    manifest = training("TFJob", "tfReplicaSpecs", "tensorflow", Worker={})
    made = render(launched(manifest, primary_container="tensorflow", deadline_s=5)).manifest

    assert made["spec"]["runPolicy"] == {"activeDeadlineSeconds": 5}


def test_evictions_do_not_use_up_a_jobs_backoff_limit_unless_the_user_decides() -> None:
    policy = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}
    own = render(launched(job(podFailurePolicy=policy))).manifest["spec"]
    ours = render(launched(job())).manifest["spec"]

    assert own["podFailurePolicy"] == policy
    assert ours["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    assert "backoffLimit" not in ours
    for made in (
        render(launched(job(pod={"restartPolicy": "OnFailure"}))),
        render(launched(job(podReplacementPolicy="TerminatingOrFailed"))),
        render(launched(job()), Features(server_version=(1, 25))),
    ):
        assert "podFailurePolicy" not in made.manifest["spec"]
