"""Objects become experiments once, follow edits, show how they stand, and cancel when they go: without a cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evertune.domain.states import ExperimentState
from evertune.errors import UnavailableError
from evertune.kubectl.controller import Controller
from tests.operator.conftest import Thing
from tests.ports import free_port
from tests.workflow.harness import House, a_house, manifest, until

pytestmark = pytest.mark.timeout(300)
SLOW = "sleep 600; echo objective=$X"  # for longer than any test


@pytest.fixture
async def controller(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Controller]:
    """One that waits longer for a worker than an operator may, which has other objects to look at."""
    for patience in ("ADMIT_S", "CANCEL_S"):
        monkeypatch.setattr(f"evertune.kubectl.controller.{patience}", 60.0)
    opened = Controller(house.settings)
    yield opened
    await opened.close()


async def released(controller: Controller, thing: Thing) -> None:
    async def gone() -> bool:
        return await controller.release(thing.seen, thing.memory) is None

    await until(gone, timeout_s=60, what="release")


async def test_an_object_becomes_an_experiment_whose_end_its_status_shows(
    controller: Controller, house: House, experiment: dict[str, Any]
) -> None:
    thing = Thing.of(experiment)

    await thing.until(controller, "Succeeded")

    status = thing.status
    (record,) = house.store.list_experiments()
    assert record.best is not None
    assert (status["best"]["trial"], status["best"]["value"]) == (record.best.name, record.best.objective)
    assert (status["trials"], status["succeeded"], status["failed"], status["running"]) == ("4/4", 4, 0, 0)
    assert [pair["name"] for pair in status["best"]["assignments"]] == ["x"]
    assert status["workflowId"] == "experiment/default/from-kubectl"
    assert status["startTime"] <= status["completionTime"]
    assert {kind: thing.condition(kind)["status"] for kind in ("Accepted", "Synced", "Succeeded", "Running")} == {
        "Accepted": "True",
        "Synced": "True",
        "Succeeded": "True",
        "Running": "False",
    }
    assert [event.type for event in thing.events] == ["Normal"] * len(thing.events)


async def test_a_killed_operator_finds_its_experiment_again_although_the_status_was_never_written(
    controller: Controller, house: House
) -> None:
    thing = Thing.of(manifest("again", SLOW))
    await thing.look(controller)
    first = thing.status["experimentUid"]

    thing.body.pop("status")
    thing.forget()
    await thing.look(controller)

    assert thing.status["experimentUid"] == first
    assert len(house.store.list_experiments()) == 1
    await released(controller, thing)


async def test_every_problem_of_a_bad_spec_is_in_the_condition_and_it_is_tried_again_only_when_it_changes(
    controller: Controller, house: House, experiment: dict[str, Any]
) -> None:
    good = experiment["spec"]
    thing = Thing.of({**experiment, "spec": {**good, "maxTrialCount": -1, "algorithm": {"algorithmName": "nonsense"}}})

    await thing.look(controller)
    condition = thing.condition("Accepted")
    assert (condition["status"], condition["reason"], thing.status["state"]) == ("False", "InvalidSpec", "Refused")
    assert "spec.maxTrialCount" in condition["message"]
    assert "spec.algorithm.algorithmName" in condition["message"]
    assert [(event.type, event.reason) for event in thing.events] == [("Warning", "InvalidSpec")]

    run = await newest_run(house, "from-kubectl")
    thing.forget()
    await thing.look(controller)
    assert await newest_run(house, "from-kubectl") == run
    assert len(thing.events) == 1

    thing.edit(maxTrialCount=4, algorithm=good["algorithm"])
    await thing.until(controller, "Succeeded")


async def newest_run(house: House, name: str) -> str:
    return (await house.temporal.get_workflow_handle(f"experiment/default/{name}").describe()).run_id


async def test_budgets_follow_the_object_and_the_rest_of_the_spec_is_refused_by_name(
    controller: Controller, house: House
) -> None:
    thing = Thing.of(manifest("edited", SLOW))
    await thing.look(controller)

    thing.edit(maxTrialCount=9, parallelTrialCount=1)
    await thing.look(controller)
    record = await asyncio.to_thread(house.store.experiment, "default", "edited")
    assert (record.budget.max_trials, record.budget.parallel) == (9, 1)
    assert (thing.condition("Synced")["reason"], thing.status["trials"]) == ("Edited", "0/9")

    objective = thing.body["spec"]["objective"]
    thing.edit(objective={**objective, "type": "minimize"}, maxTrialCount=11)
    await thing.look(controller)
    condition = thing.condition("Synced")
    assert (condition["status"], condition["reason"]) == ("False", "ChangeRefused")
    assert condition["message"].startswith("objective cannot change")
    record = await asyncio.to_thread(house.store.experiment, "default", "edited")
    assert record.budget.max_trials == 9

    thing.edit(objective={**objective, "goal": 5.0}, maxTrialCount=9)
    await thing.look(controller)
    record = await asyncio.to_thread(house.store.experiment, "default", "edited")
    assert record.objective.goal == 5.0
    assert thing.condition("Synced")["status"] == "True"
    await released(controller, thing)


async def test_an_edit_of_what_has_ended_is_refused_with_the_way_on(
    controller: Controller, experiment: dict[str, Any]
) -> None:
    thing = Thing.of(experiment)
    await thing.until(controller, "Succeeded")

    thing.edit(maxTrialCount=8)
    await thing.look(controller)

    assert thing.condition("Synced")["reason"] == "EditRefused"
    assert "evertune extend" in thing.condition("Synced")["message"]


async def test_a_deletion_cancels_and_waits_for_the_end(controller: Controller, house: House) -> None:
    thing = Thing.of(manifest("deleted", SLOW))
    await thing.look(controller)

    await released(controller, thing)

    record = await asyncio.to_thread(house.store.experiment, "default", "deleted")
    assert record.state is ExperimentState.CANCELLED
    assert "Kubernetes object was deleted" in record.message


async def test_an_object_made_again_under_the_name_of_an_older_one_is_told_whose_the_name_is(
    controller: Controller, house: House
) -> None:
    older = Thing.of(manifest("twice", SLOW))
    await older.look(controller)
    newer = Thing.of(manifest("twice", SLOW))

    await newer.look(controller)
    condition = newer.condition("Accepted")
    assert (condition["status"], condition["reason"]) == ("False", "NameTaken")
    assert "evertune cancel twice" in condition["message"]

    assert await controller.release(newer.seen, newer.memory) is None  # it has nothing to cancel

    async def runs() -> bool:
        await older.look(controller)
        return bool(older.status["state"] == "Running")

    await until(runs, timeout_s=60, what="the older one goes on")
    await released(controller, older)
    await asyncio.to_thread(house.store.delete_experiment, older.status["experimentUid"])
    newer.forget()
    await newer.until(controller, "Running")  # free by now: nobody has to change the spec
    await released(controller, newer)


async def test_an_experiment_deleted_from_evertune_is_not_started_again(
    controller: Controller, house: House, experiment: dict[str, Any]
) -> None:
    thing = Thing.of(experiment)
    await thing.until(controller, "Succeeded")
    await asyncio.to_thread(house.store.delete_experiment, thing.status["experimentUid"])

    for _ in range(2):
        thing.forget()
        await thing.look(controller)

    assert thing.status["state"] == "Deleted"
    assert house.store.list_experiments() == []


async def test_what_no_worker_has_read_yet_is_waited_for_and_cancelled_with_its_object(
    controller: Controller, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evertune.kubectl.controller.ADMIT_S", 0.5)
    await house.stop_worker()
    thing = Thing.of(manifest("unread", SLOW))

    await thing.look(controller)
    assert (thing.condition("Accepted")["status"], thing.condition("Accepted")["reason"]) == ("Unknown", "Unavailable")
    await thing.look(controller)
    assert thing.condition("Accepted")["reason"] == "Starting"
    stranger = Thing.of(manifest("unread", SLOW))
    assert await controller.release(stranger.seen, stranger.memory) is None
    assert "asked to end" in (await controller.release(thing.seen, thing.memory) or "")

    await house.start_worker()
    await released(controller, thing)
    assert all(record.state.terminal for record in house.store.list_experiments())


async def test_while_temporal_is_away_the_object_says_so_and_its_deletion_waits(house: House) -> None:
    away = Controller(dataclasses.replace(house.settings, temporal_address="127.0.0.1:1"))
    thing = Thing.of(manifest("away"))

    await thing.look(away)

    condition = thing.condition("Accepted")
    assert (condition["status"], condition["reason"]) == ("Unknown", "Unavailable")
    assert "127.0.0.1:1" in condition["message"]
    assert thing.events == []
    with pytest.raises(UnavailableError):
        await away.release(thing.seen, thing.memory)
    await away.close()


async def test_what_had_ended_under_katib_before_it_was_adopted_is_left_as_it_is(
    controller: Controller, house: House, experiment: dict[str, Any]
) -> None:
    done = {"type": "Succeeded", "status": "True", "reason": "ExperimentGoalReached"}
    thing = Thing.of({**experiment, "status": {"completionTime": "2025-01-01T00:00:00Z", "conditions": [done]}})

    for _ in range(2):
        thing.forget()
        await thing.look(controller)

    assert thing.condition("Succeeded") == done
    assert thing.condition("Accepted")["reason"] == "EndedElsewhere"
    assert house.store.list_experiments() == []


async def test_what_ran_under_katib_when_it_was_adopted_starts_and_its_conditions_are_taken_over(
    controller: Controller, experiment: dict[str, Any]
) -> None:
    running = {"type": "Running", "status": "True", "reason": "ExperimentRunning"}
    thing = Thing.of({**experiment, "status": {"startTime": "2025-01-01T00:00:00Z", "conditions": [running]}})

    await thing.until(controller, "Succeeded")

    assert thing.condition("Running")["status"] == "False"


@pytest.mark.slow
async def test_a_temporal_that_went_away_costs_time_only(binary: str, tmp_path: Path) -> None:
    port = free_port()
    state = str(tmp_path / "temporal.db")
    words = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port), "--db-filename", state]

    def serve() -> subprocess.Popen[bytes]:
        return subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    server = serve()
    try:
        await until(answers, timeout_s=60, what="Temporal")
        async with a_house(f"127.0.0.1:{port}", tmp_path) as house:
            controller = Controller(house.settings)
            before, while_away = Thing.of(manifest("before", SLOW)), Thing.of(manifest("while-away"))
            await before.until(controller, "Running")
            server.kill()
            server.wait()

            await while_away.look(controller)
            assert while_away.condition("Accepted")["reason"] == "Unavailable"
            before.edit(maxTrialCount=7)
            await before.look(controller)
            assert (before.condition("Synced")["status"], before.status["state"]) == ("Unknown", "Running")

            server = serve()
            await while_away.until(controller, "Succeeded", timeout_s=100)
            await until(lambda: edited(before, controller), timeout_s=60, what="the edit")
            assert before.status["trials"] == "0/7"
            await released(controller, before)
            await controller.close()
    finally:
        server.kill()
        server.wait()


async def edited(thing: Thing, controller: Controller) -> bool:
    await thing.look(controller)
    return bool(thing.condition("Synced")["status"] == "True")


async def test_nothing_is_started_before_the_deletion_would_wait_for_us(controller: Controller, house: House) -> None:
    thing = Thing.of(manifest("unguarded"))
    thing.body["metadata"]["finalizers"] = []

    await thing.look(controller)

    assert (thing.status, house.store.list_experiments()) == ({}, [])


async def test_nothing_is_started_for_an_object_that_was_released(controller: Controller, house: House) -> None:
    thing = Thing.of(manifest("released"))
    starting = asyncio.ensure_future(thing.look(controller))
    await asyncio.sleep(0)

    await released(controller, thing)
    await starting
    await thing.look(controller)

    assert all(record.state.terminal for record in house.store.list_experiments())
