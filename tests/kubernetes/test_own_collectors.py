"""A collector of the user's own that nothing of ours stands before: one that ends by itself, fails, or never ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.runners.kubernetes.classify import Case, Limits, Look, Rules
from evertune.domain.metrics import CollectorSpec
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptRef
from evertune.protocols import JsonDict, Launch
from evertune.testing.scripts import FOR_EVER, Script, attempt_ref
from tests.kubernetes.test_classify import AT, COMPLETE, FAILED, NAME, RUNNING, pod
from tests.kubernetes.test_classify import ended as over_with
from tests.kubernetes.test_runner import ended
from tests.kubernetes.world import World, a_world, job, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


def with_own_collector(ref: AttemptRef) -> Launch:
    return job(
        ref,
        collector=CollectorSpec(kind="Custom", metrics=("loss",), path="/out/metrics.log", path_kind="File"),
        custom_collector={"name": "own", "image": "own:1"},
        ingest_url="http://gateway.example:8080",
        token="key",
    )


async def test_a_collector_that_ends_by_itself_ends_with_its_job_and_does_not_run_twice(world: World) -> None:
    runner, ref = world.runner(mode="native"), attempt_ref()
    world.fates[ref.key] = Script(beside_s=0.5)
    await runner.create(with_own_collector(ref))
    end = await ended(runner, ref)
    assert (end.state, end.warnings) == (AttemptState.SUCCEEDED, ()), end
    assert [each["type"] for each in world.jobs()[0]["status"]["conditions"]][-1] == "Complete"
    own = next(each for each in world.pods()[0]["status"]["containerStatuses"] if each["name"] == "own")
    assert own["restartCount"] == 0


@pytest.mark.parametrize("code", [0, 3])
async def test_a_collector_that_never_ends_is_ended_some_time_after_the_training_whose_end_counts(
    tmp_path: Path, code: int
) -> None:
    async with a_world(tmp_path, limits=Limits(collector_s=1.0)) as world:
        runner, ref = world.runner(mode="native"), attempt_ref()
        world.fates[ref.key] = Script(lines=("no data",), exit_code=code, beside_s=FOR_EVER)
        await runner.create(with_own_collector(ref))
        waiting = asyncio.create_task(ended(runner, ref))
        await until(lambda: runner.phase(ref) == "Ended, its collector own has not")
        end = await waiting
        assert end.state is (AttemptState.FAILED if code else AttemptState.SUCCEEDED)
        assert end.exit_code == code
        assert end.warnings == ("the collector's container own went on for 1 s, and was ended",)
        await until(lambda: not world.jobs() and not world.pods(), "its Job stays")


@pytest.mark.parametrize("retries", [0, 3])
async def test_a_collector_that_fails_fails_no_trial_and_has_none_run_again(world: World, retries: int) -> None:
    runner, ref = world.runner(mode="native"), attempt_ref()
    world.fates[ref.key] = Script(beside_s=0.2, beside_exit_code=2)
    launch = with_own_collector(ref)
    launch.manifest["spec"]["backoffLimit"] = retries
    await runner.create(launch)
    end = await ended(runner, ref)
    assert (end.state, end.exit_code) == (AttemptState.SUCCEEDED, 0), end
    assert end.warnings == ("the collector's container own ended with 2",)


async def test_another_worker_knows_the_collector_that_need_not_end(tmp_path: Path) -> None:
    async with a_world(tmp_path, limits=Limits(collector_s=1.0)) as world:
        ref = attempt_ref()
        world.fates[ref.key] = Script(beside_s=FOR_EVER)
        first = world.runner(mode="native")
        await first.create(with_own_collector(ref))
        await until(lambda: bool(world.pods()))
        await first.close()
        assert (await ended(world.runner(mode="native"), ref)).state is AttemptState.SUCCEEDED


# ------------------------------------------------------------------------------------ by its pod's status

OWN = Rules(success=COMPLETE, failure=FAILED, container="trial", collector="own")


def held(reason: str, text: str, name: str) -> JsonDict:
    return {"name": name, "state": {"waiting": {"reason": reason, "message": text}}, "restartCount": 9}


def goes_on(name: str) -> JsonDict:
    return {"name": name, "state": {"running": {"startedAt": AT["startedAt"]}}, "restartCount": 0}


@pytest.mark.parametrize(
    ("own", "how"),
    [
        (goes_on("own"), "went on for 30 s, and was ended"),
        (held("ErrImagePull", "not found", "own"), "never started: ErrImagePull not found"),
        (held("CrashLoopBackOff", "back-off 10s", "own"), "never started: CrashLoopBackOff back-off 10s"),
    ],
    ids=["runs", "no-image", "crashes"],
)
def test_whatever_becomes_of_an_own_collector_it_neither_holds_up_the_training_nor_fails_it(
    own: JsonDict, how: str
) -> None:
    case = Case(NAME, OWN)
    assert case.look(RUNNING, [pod(goes_on("trial"), own)], 0.0) == Look()
    waits = case.look(RUNNING, [pod(over_with(0, "Completed"), own)], 10.0)
    assert waits.end is None
    assert waits.again_s == 30.0
    over = case.look(RUNNING, [pod(over_with(0, "Completed"), own)], 40.0)
    assert over.end is not None
    assert (over.end.state, over.end.warnings) == (
        AttemptState.SUCCEEDED,
        (f"the collector's container own {how}",),
    )


def test_a_pod_that_failed_before_does_not_speak_for_the_one_whose_collector_goes_on() -> None:
    before = pod(over_with(1), over_with(0, name="own"), name="first", phase="Failed")
    last = pod(over_with(0, "Completed"), goes_on("own"), name="second")
    case = Case(NAME, OWN)
    case.look(RUNNING, [before, last], 0.0)
    end = case.look(RUNNING, [before, last], 30.0).end
    assert end is not None
    assert (end.state, end.exit_code) == (AttemptState.SUCCEEDED, 0)


def test_the_training_that_is_started_again_gives_its_collector_all_its_time_anew() -> None:
    case = Case(NAME, OWN)
    case.look(RUNNING, [pod(over_with(1), goes_on("own"))], 0.0)
    case.look(RUNNING, [pod(goes_on("trial"), goes_on("own"))], 20.0)
    assert case.look(RUNNING, [pod(over_with(0, "Completed"), goes_on("own"))], 40.0).again_s == 30.0
