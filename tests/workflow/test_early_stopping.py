"""Early stopping from a trial's report to its end, with real processes, a real Temporal and every path of reports."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.stop import Stopping
from evertune.contracts import StartContext
from evertune.domain.metrics import Point
from evertune.domain.records import ExperimentRecord, TrialRecord
from evertune.domain.states import ExperimentState, TrialState
from tests.ports import free_port
from tests.server.conftest import in_thread
from tests.workflow.harness import House, manifest, until
from tests.workflow.test_gateway import WAITS, Way, attempt_of, seen_from_the_gateway, send, waiting

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "examples/katib"

# Trial 0 is good and ends; the others are bad and would run for a minute. What SIGTERM did to them is in a file.
BAD = (
    'if [ "$EVERTUNE_TRIAL_NUMBER" = 0 ]; then for v in 1 2 9; do echo objective=$v; done; exit; fi; '
    "trap 'date +%s.%N > $EVERTUNE_TRIAL_NUMBER.stopped; exit 143' TERM; "
    "for v in 3 3; do echo objective=$v; done; date +%s.%N > $EVERTUNE_TRIAL_NUMBER.reported; echo objective=3; "
    "for i in $(seq 600); do sleep 0.1; done"
)


def stopping(name: str, **settings: str) -> dict[str, Any]:
    return {
        "algorithmName": name,
        "algorithmSettings": [{"name": key, "value": value} for key, value in settings.items()],
    }


def by_state(house: House, record: ExperimentRecord, state: TrialState) -> list[TrialRecord]:
    return house.store.trials(record.uid, states={state})


async def test_a_trial_below_katibs_average_is_stopped_and_counts_as_finished_but_not_as_failed(house: House) -> None:
    rule = stopping("medianstop", min_trials_required="1", start_step="3")
    document = manifest("median", BAD, earlyStopping=rule, parallelTrialCount=1, maxTrialCount=3, maxFailedTrialCount=1)
    record = await house.ended(await house.submit(document), 60)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentMaxTrialsReached")
    counts = record.counts
    assert (counts.succeeded, counts.early_stopped, counts.failed, counts.killed) == (1, 2, 0, 0)
    stopped = by_state(house, record, TrialState.EARLY_STOPPED)
    assert [trial.number for trial in stopped] == [1, 2]
    for trial in stopped:
        sentence = "medianstop: best objective 3 at step 3 is worse than 4, the mean of 1 earlier trial"
        assert trial.reason == f"EarlyStopped: {sentence}"
        assert (trial.objective, trial.metrics) == ("3", {"objective": "3"}), "it keeps what it had reached"
        assert [attempt.stop for attempt in house.store.attempts(record.uid, trial.number)] == [trial.reason]
        reported, ended = (
            float((house.workdir / f"{trial.number}.{what}").read_text()) for what in ("reported", "stopped")
        )
        assert ended - reported < 40, "SIGTERM reaches it soon after the report that decided"
    assert [(each.number, each.step) for each in house.store.stop_decisions(record.uid)] == [(1, 3), (2, 3)]
    noted = [entry for entry in house.store.audit(record.uid) if entry.action == "early-stop"]
    assert [(entry.actor, entry.detail["trial"]) for entry in noted] == [("medianstop", 1), ("medianstop", 2)]


BELOW_HALF = stopping("threshold", value="0.5", comparison="less", start_step="1")
HANGS = "import sys, time; sys.path.insert(0, {folder!r}); import train; {does}; time.sleep(120)"
FILE = {"fileSystemPath": {"kind": "File", "path": "/var/log/trial/metrics"}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "StdOut": ("[train.text(e, 0.2, 0.8) for e in (1, 2)]", {}),
    "File": ("r = train.lines_to(train.Path('/var/log/trial/metrics')); r(1, 0.2, 0.8)", {"source": FILE}),
    "Push": ("train.push(1, 0.2, 0.8)", {}),
    "TensorFlowEvent": (
        "r = train.events_to(train.Path('/var/log/trial/events')); r(1, 0.2, 0.8); r(10, 0.2, 0.8)",
        {"source": {"fileSystemPath": {"kind": "Directory", "path": "/var/log/trial/events"}}},
    ),
    "PrometheusMetric": (
        "r = train.scraped_at(int(sys.argv[1])); r(1, 0.2, 0.8)",
        {"source": {"httpGet": {"port": 0, "path": "/metrics"}}},
    ),
    "Custom": (
        "pass",
        {
            "collector": {
                "kind": "Custom",
                "customCollector": {
                    "name": "mine",
                    "command": ["sh", "-c"],
                    "args": [
                        """echo '{"metrics": {"val_accuracy": 0.2}}'; """
                        'while [ ! -e "$EVERTUNE_EXIT_FILE" ]; do sleep 0.1; done'
                    ],
                },
            },
            "source": {"fileSystemPath": {"kind": "File", "path": "/var/log/trial/metrics"}},
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_trial_is_stopped_by_what_it_reports_in_whatever_way(house: House, kind: str) -> None:
    does, collecting = KINDS[kind]
    collecting = {"collector": {"kind": kind}, **collecting}
    port = free_port()
    if "httpGet" in collecting.get("source", {}):
        collecting["source"]["httpGet"]["port"] = port
    script = HANGS.format(folder=str(ROOT / "examples/metrics"), does=does)
    document = manifest(
        f"by-{kind.lower()}",
        objective={"type": "maximize", "objectiveMetricName": "val_accuracy", "additionalMetricNames": ["loss"]},
        metricsCollectorSpec=collecting,
        earlyStopping=BELOW_HALF,
        maxTrialCount=1,
        parallelTrialCount=1,
    )
    container = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["command"] = [sys.executable, "-c", script, str(port)]
    container["env"].append({"name": "PYTHONPATH", "value": str(ROOT)})
    record = await house.ended(await house.submit(document), 60)
    trial = house.store.trial(record.uid, 0)
    assert trial.state is TrialState.EARLY_STOPPED, (trial.state, trial.reason, trial.message)
    assert trial.reason.startswith("EarlyStopped: threshold: val_accuracy 0.2 at step 1 is less than 0.5")
    assert trial.objective_value == pytest.approx(0.2)
    assert record.counts.early_stopped == 1


async def test_what_comes_through_the_gateway_is_judged_there_and_its_sender_is_told_to_stop(house: House) -> None:
    settings = seen_from_the_gateway(house, house.address)
    rule = stopping("threshold", value="0.5", comparison="less")
    async with waiting(house, "gateway", earlyStopping=rule) as handle:
        with in_thread(settings):
            good, bad = (attempt_of(house, handle.uid, number) for number in (0, 1))
            assert (await send(settings, good, 0.9, 1))[0] == 200
            assert (await send(settings, bad, 0.6, 1))[0] == 200
            assert (await send(settings, bad, 0.4, 2))[0] == 200
            await until(lambda: house.store.trial(handle.uid, 1).state is TrialState.EARLY_STOPPED)
            assert (await send(settings, bad, 0.4, 3))[1]["stop"] is True
            assert (await send(settings, good, 0.9, 2))[1]["stop"] is False
        assert house.store.trial(handle.uid, 1).objective_value == 0.6, "its best so far, by the strategy"
    assert house.store.trial(handle.uid, 0).state is TrialState.SUCCEEDED


async def test_a_decision_that_falls_while_temporal_is_away_is_told_when_it_is_back(house: House) -> None:
    way = Way(house.address)
    settings = seen_from_the_gateway(house, way.address)
    rule = stopping("threshold", value="0.5", comparison="less")
    async with waiting(house, "away-early", earlyStopping=rule) as handle:
        await house.stop_worker()  # it would tell as well
        with in_thread(settings):
            assert (await send(settings, attempt_of(house, handle.uid, 0), 0.1, 1))[0] == 200
            await until(lambda: len(house.store.stop_decisions(handle.uid)) == 1)
            await way.up()
            workflow = house.temporal.get_workflow_handle(handle.workflow_id)

            async def told() -> bool:
                events = (await workflow.fetch_history()).events
                signals = [event.workflow_execution_signaled_event_attributes for event in events]
                return any(b"is less than" in load.data for signal in signals for load in signal.input.payloads)

            await until(told)
        await way.down()
        await house.start_worker()
        await until(lambda: house.store.trial(handle.uid, 0).state is TrialState.EARLY_STOPPED)


async def test_a_decision_whose_process_died_before_it_told_anybody_is_carried_out_by_the_next_worker(
    house: House,
) -> None:
    rule = stopping("threshold", value="0.5", comparison="less")
    document = manifest("restart", WAITS, earlyStopping=rule, maxTrialCount=1, parallelTrialCount=1)
    handle = await house.submit(document)
    await until(lambda: house.store.counts(handle.uid).running == 1)
    await house.stop_worker()

    async def dies(uid: str, decisions: object) -> None:
        raise AssertionError("nobody is told")

    house.store.add_points(handle.uid, 0, 0, [Point("objective", "0.1", 7)])
    decisions, _ = Stopping(house.store, dies)._weighed(handle.uid, [(0, 0)])
    assert [decision.number for decision in decisions] == [0]
    await house.start_worker()
    record = await house.ended(handle)
    trial = house.store.trial(record.uid, 0)
    assert (trial.state, trial.objective) == (TrialState.EARLY_STOPPED, "0.1")
    assert len(house.store.stop_decisions(record.uid)) == 1
    assert len([entry for entry in house.store.audit(record.uid) if entry.action == "early-stop"]) == 1


async def test_points_that_were_stored_by_a_process_that_died_are_judged_with_the_next_report(house: House) -> None:
    rule = stopping("threshold", rules="objective;0.5;less;2")
    command = f"echo it begins; {WAITS}; for i in 1 2; do echo objective=0.9; done; exec sleep 120"
    document = manifest("caught-up", command, earlyStopping=rule, maxTrialCount=1, parallelTrialCount=1)
    handle = await house.submit(document)
    await until(lambda: house.store.counts(handle.uid).running == 1)
    house.store.add_points(handle.uid, 0, 0, [Point("objective", value, at) for at, value in enumerate("00")])
    (house.workdir / "go").touch()
    record = await house.ended(handle)
    assert house.store.trial(record.uid, 0).reason == (
        "EarlyStopped: threshold: objective 0 at step 2 is less than 0.5"
    )  # fmt: skip


async def test_a_silent_trial_is_stopped_by_time_and_one_that_reports_anything_is_not(house: House) -> None:
    command = (
        """[ "$EVERTUNE_TRIAL_NUMBER" = 1 ] || { trap 'touch stopped; exit 143' TERM; sleep 120 & wait; }; """
        "until [ -e stopped ]; do echo loss=1; sleep 0.2; done; echo objective=1"
    )
    document = manifest(
        "silent",
        command,
        earlyStopping=stopping("no-report", seconds="5"),
        maxTrialCount=2,
        objective={"type": "maximize", "objectiveMetricName": "objective", "additionalMetricNames": ["loss"]},
    )
    record = await house.ended(await house.submit(document), 60)
    silent, talks = house.store.trials(record.uid)
    assert silent.state is TrialState.EARLY_STOPPED
    assert silent.reason.startswith("EarlyStopped: no-report: it has reported nothing for ")
    assert silent.objective is None
    assert (talks.state, talks.objective) == (TrialState.SUCCEEDED, "1")


@pytest.mark.slow
async def test_a_trial_that_does_not_heed_sigterm_is_killed_after_its_grace_period(house: House) -> None:
    command = "trap '' TERM; echo objective=0.1; while :; do sleep 0.2; done"
    rule = stopping("threshold", value="0.5", comparison="less")
    document = manifest("deaf", command, earlyStopping=rule, maxTrialCount=1, parallelTrialCount=1)
    record = await house.ended(await house.submit(document), 90)
    trial = house.store.trial(record.uid, 0)
    assert (trial.state, trial.objective) == (TrialState.EARLY_STOPPED, "0.1")
    assert house.store.attempts(record.uid, 0)[0].signal == signal.SIGKILL


def katib(name: str, document: dict[str, Any], seed: int) -> dict[str, Any]:
    """Its trainer takes a while, so that there is something to stop, and good trials come before bad ones."""
    template = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    template["containers"][0]["env"] = [{"name": "STAND_IN_SECONDS", "value": "5"}]
    settings = [{"name": "random_state", "value": str(seed)}]
    document["spec"]["algorithm"] = {"algorithmName": "random", "algorithmSettings": settings}
    document["metadata"]["name"] = name
    return document


def json_median_stop() -> dict[str, Any]:
    """Katib's median-stop-with-json-format: the JSON file of hypertune, judged by the accuracy after each epoch."""
    folder = ROOT / "tests/data/katib"
    document = yaml.safe_load((folder / "metrics-collector/file-metrics-collector-with-json-format.yaml").read_text())
    median = yaml.safe_load((folder / "early-stopping/median-stop.yaml").read_text())
    document["spec"].update({key: median["spec"][key] for key in ("earlyStopping", "parallelTrialCount")})
    document["spec"]["maxTrialCount"] = 8
    container = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["command"] = [word.replace("--epochs=1", "--epochs=8") for word in container["command"]]
    return katib("median-stop-json", document, 13)


def median_stop() -> dict[str, Any]:
    path = ROOT / "tests/data/katib/early-stopping/median-stop.yaml"
    return katib("median-stop", yaml.safe_load(path.read_text()), 5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [median_stop, json_median_stop])
async def test_katibs_early_stopping_examples_really_stop_trials(
    house: House, make: Callable[[], dict[str, Any]]
) -> None:
    document = make()
    images = yaml.safe_load((STAND_INS / "images.yaml").read_text())
    context = StartContext(
        working_dir=str(house.workdir),
        backend="local",
        environment={"PATH": os.environ["PATH"]},
        image_roots={image: str(STAND_INS / folder) for image, folder in images.items()},
    )
    record = await house.ended(await house.client.submit(document, context=context), 110)
    assert record.state is ExperimentState.SUCCEEDED, record.message
    counts = record.counts
    assert counts.early_stopped > 0
    assert counts.succeeded > 0
    assert counts.early_stopped + counts.succeeded == document["spec"]["maxTrialCount"]
    objective = record.objective
    for trial in by_state(house, record, TrialState.EARLY_STOPPED):
        best, limit = trial.reason.split(" at step 2 is worse than ")
        number, mean = float(best.rpartition(" ")[2]), float(limit.partition(",")[0])
        assert objective.better(mean, number)
        assert trial.objective is not None
        assert not objective.better(number, float(trial.objective)), "what it reported until it ended is kept"
