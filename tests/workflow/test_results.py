"""Constraints, several objectives, replicates and reused outcomes, in experiments that really run."""

from __future__ import annotations

from functools import partial

import pytest

import evertune.contracts as c
from evertune.domain.states import ExperimentState, TrialState
from tests.workflow.harness import House, manifest, until


async def test_each_trial_runs_as_often_as_wanted_and_has_the_mean(house: House) -> None:
    command = (
        "echo $EVERTUNE_TRIAL_NUMBER $EVERTUNE_REPLICATE $EVERTUNE_SEED >> runs; echo objective=$EVERTUNE_REPLICATE"
    )
    document = manifest("replicates", command, maxTrialCount=2, maxFailedTrialCount=1, replicates=3)
    handle = await house.submit(document)
    record = await house.ended(handle)
    assert (record.state, record.counts.succeeded, record.counts.created) == (ExperimentState.SUCCEEDED, 2, 2)
    for trial in house.store.trials(record.uid):
        assert (trial.objective_value, trial.spread, trial.attempts) == (1.0, {"objective": 1.0}, 3)
    ran = sorted(line.split() for line in (house.workdir / "runs").read_text().splitlines())
    assert [line[:2] for line in ran] == [[str(trial), str(run)] for trial in range(2) for run in range(3)]
    assert len({line[2] for line in ran}) == 6
    status = await handle.status()
    assert status.best is not None
    assert status.best.value == 1.0


async def test_no_run_of_a_trial_is_lost_or_run_twice_when_the_worker_goes_away_between(house: House) -> None:
    command = (
        "echo $EVERTUNE_REPLICATE >> runs; until [ -e go-$EVERTUNE_REPLICATE ]; do sleep 0.05; done;"
        " ls -A $EVERTUNE_CHECKPOINT_DIR > kept-$EVERTUNE_REPLICATE; touch $EVERTUNE_CHECKPOINT_DIR/weights;"
        " echo objective=$EVERTUNE_REPLICATE"
    )
    document = manifest(
        "killed", command, maxTrialCount=1, parallelTrialCount=1, replicates={"count": 3, "aggregate": "median"}
    )
    handle = await house.submit(document)
    runs = house.workdir / "runs"

    def began(run: int) -> bool:
        return runs.exists() and len(runs.read_text().split()) == run + 1

    for run in range(3):
        await until(partial(began, run), what=f"run {run}")
        await house.stop_worker()
        house.write(f"go-{run}", "")  # it ends while nobody looks
        await house.start_worker()
    record = await house.ended(handle)
    (trial,) = house.store.trials(record.uid)
    assert (trial.state, trial.objective_value, trial.attempts) == (TrialState.SUCCEEDED, 1.0, 3)
    assert runs.read_text().split() == ["0", "1", "2"]
    kept = [(house.workdir / f"kept-{run}").read_text() for run in range(3)]
    assert kept == ["", "", ""], "a run has gone on from another one's checkpoint"


async def test_an_infeasible_trial_is_best_only_while_there_is_no_other_and_never_reaches_the_goal(
    house: House,
) -> None:
    # Objective and latency fall from trial to trial: 9 with 40 ms, 8 with 30, 7 with 20, 6 with 10.
    command = "n=$EVERTUNE_TRIAL_NUMBER; echo objective=$((9 - n)); echo latency_ms=$((40 - 10 * n))"
    document = manifest(
        "constrained",
        command,
        parallelTrialCount=1,
        objective={"type": "maximize", "goal": 8, "objectiveMetricName": "objective"},
        constraints=[{"metric": "latency_ms", "le": 20}],
    )
    handle = await house.submit(document)
    record = await house.ended(handle)
    assert (record.state, record.reason) == (ExperimentState.SUCCEEDED, "ExperimentMaxTrialsReached")
    assert record.best is not None
    assert (record.best.number, record.best.violation) == (2, 0.0)
    trials = house.store.trials(record.uid)
    assert [trial.violation for trial in trials] == [20.0, 10.0, 0.0, 0.0]
    assert trials[0].message == "latency_ms is 40, not <= 20"
    status = await handle.status()
    assert status.best is not None
    assert (status.best.number, status.best.violation) == (2, 0.0)


async def test_the_least_infeasible_trial_stands_for_the_best_until_one_is_feasible(house: House) -> None:
    command = "n=$EVERTUNE_TRIAL_NUMBER; echo objective=$((9 - n)); echo latency_ms=$((90 - 10 * n))"
    document = manifest(
        "infeasible", command, parallelTrialCount=1, maxTrialCount=3, constraints=[{"metric": "latency_ms", "le": 20}]
    )
    record = await house.ended(await house.submit(document))
    assert record.best is not None
    assert (record.best.number, record.best.violation) == (2, 50.0)
    assert record.message == "3 of 3 trials finished, none of them feasible"


async def test_a_trial_has_all_its_objectives_or_says_which_one_is_missing(house: House) -> None:
    command = "n=$EVERTUNE_TRIAL_NUMBER; echo objective=$n; [ $n = 1 ] || echo latency_ms=$n"
    document = manifest(
        "several",
        command,
        maxTrialCount=2,
        parallelTrialCount=1,
        objectives=[{"type": "minimize", "metric": "latency_ms"}],
    )
    record = await house.ended(await house.submit(document))
    first, second = house.store.trials(record.uid)
    assert (first.state, first.metrics) == (TrialState.SUCCEEDED, {"objective": "0", "latency_ms": "0"})
    assert second.state is TrialState.METRICS_UNAVAILABLE
    assert "the trial ended without latency_ms; seen: objective" in second.message


@pytest.mark.parametrize("on_duplicate", ["run", "reuse"])
async def test_a_trial_with_the_parameters_of_another_has_its_outcome_where_that_is_wanted(
    house: House, on_duplicate: str
) -> None:
    document = manifest(
        f"again-{on_duplicate}",
        "echo x >> runs; echo objective=$X",
        maxTrialCount=3,
        parallelTrialCount=1,
        onDuplicate=on_duplicate,
        initialTrials=[{"x": 0.5}, {"x": 0.25}, {"x": 0.5}],
    )
    record = await house.ended(await house.submit(document))
    trials = house.store.trials(record.uid)
    assert [trial.objective_value for trial in trials] == [0.5, 0.25, 0.5]
    runs = (house.workdir / "runs").read_text().split()
    assert len(runs) == (2 if on_duplicate == "reuse" else 3)
    assert trials[2].reason == ("Reused" if on_duplicate == "reuse" else "Succeeded")
    assert record.counts.succeeded == 3


async def test_logs_read_by_other_rules_may_make_a_trial_feasible_and_the_best(house: House) -> None:
    # The default filter finds no latency in "latency_ms: 10". A run prints 90 or 91, 80 or 81, 70 or 71.
    command = (
        "n=$EVERTUNE_TRIAL_NUMBER; echo objective=$((9 - n))$EVERTUNE_REPLICATE; echo latency_ms: $((10 + 20 * n));"
        " [ $n -lt 2 ] || until [ -e go ]; do sleep 0.05; done"
    )
    limits = [{"metric": "latency_ms", "le": 20}]
    document = manifest("reread", command, parallelTrialCount=1, maxTrialCount=3, constraints=limits, replicates=2)
    handle = await house.submit(document)
    uid = handle.uid

    async def two_have_ended() -> bool:
        return (await handle.status()).counts == {TrialState.SUCCEEDED: 2}

    await until(two_have_ended)
    status = await handle.status()
    assert status.best is not None
    assert status.best.violation > 0
    both = c.Rereading(filters=[r"(objective|latency_ms)[:=] ?([\d.]+)"])
    workflow = house.temporal.get_workflow_handle(handle.workflow_id)
    for changed in ([0, 1], []):
        update = c.ReparseUpdate(rereading=both)
        revised = await workflow.execute_update(c.UPDATE_REPARSE, update, result_type=c.Revised)
        assert sorted(revised.changed) == changed
        assert revised.best is not None
        assert (revised.best.number, revised.best.value, revised.best.violation) == (0, 90.5, 0.0)
    first, second = house.store.trials(uid, limit=2)
    assert (first.objective_value, first.feasible, first.message) == (90.5, True, "")
    assert (second.objective_value, second.violation, second.message) == (80.5, 10.0, "latency_ms is 30, not <= 20")
    house.write("go", "")
    record = await house.ended(handle)
    assert record.best is not None
    assert record.best.number == 0
