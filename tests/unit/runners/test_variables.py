"""What a trial's process is told by its environment: parameters, report file, checkpoint, gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from activities.runners.local import LocalRunner
from activities.runners.local.attempt import Attempt
from activities.runners.local.variables import LONGEST_PARAMETERS
from evertune.domain.space import Parameter, ParameterType, SearchSpace
from evertune.domain.states import AttemptState
from evertune.domain.trial import AttemptRef
from evertune.protocols import Checkpoints, Launch, Replicate
from tests.unit.runners.world import launch, ref, sh, until


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(tmp_path / "trials")
    yield runner
    runner.close()


async def printed(runner: LocalRunner, of: Launch) -> list[str]:
    await runner.create(of)
    end = await asyncio.wait_for(runner.wait(of.ref), 30)
    assert end.state is AttemptState.SUCCEEDED, end
    return runner.log_path(of.ref).read_text().splitlines()


def directory(runner: LocalRunner, of: AttemptRef) -> Path:
    return runner.log_path(of).parent


async def test_parameters_arrive_as_json_with_their_types(runner: LocalRunner) -> None:
    space = SearchSpace(
        (
            Parameter(name="lr", type=ParameterType.DOUBLE, low=0.0, high=1.0),
            Parameter(name="units", type=ParameterType.INT, low=1, high=64),
            Parameter(name="name", type=ParameterType.CATEGORICAL, values=("0.5", "1")),
            Parameter(name="batch", type=ParameterType.DISCRETE, values=("32", "64")),
            Parameter(name="rate", type=ParameterType.DISCRETE, values=("1e-3", "0.1")),
        )
    )
    parameters = space.typed({"lr": 0.1, "units": 32, "name": "0.5", "batch": "64", "rate": "1e-3"})
    (line,) = await printed(runner, sh('echo "$EVERTUNE_PARAMETERS"', parameters=parameters))
    assert json.loads(line) == {"lr": 0.1, "units": 32, "name": "0.5", "batch": 64, "rate": 0.001}


async def test_each_replicate_has_its_number_its_seed_and_a_checkpoint_of_its_own(runner: LocalRunner) -> None:
    told = "$EVERTUNE_REPLICATE $EVERTUNE_SEED ${EVERTUNE_RESUME_FROM-nothing}"
    program = f"echo {told}; echo x > $EVERTUNE_CHECKPOINT_DIR/x"
    lines = []
    for attempt, index in enumerate((0, 1, 1)):
        begun = replace(
            sh(program, of=ref(attempt=attempt)),
            replicate=Replicate(index, 70 + index),
            checkpoints=Checkpoints(own="checkpoint" + (f"-{index}" if index else "")),
        )
        lines += await printed(runner, begun)
    assert [line.split()[:2] for line in lines] == [["0", "70"], ["1", "71"], ["1", "71"]]
    assert [line.split()[2].rpartition("/")[2] for line in lines] == ["nothing", "nothing", "checkpoint-1"]


async def test_parameters_longer_than_a_variable_may_be_do_not_keep_a_trial_from_starting(runner: LocalRunner) -> None:
    lines = await printed(runner, sh("echo ${EVERTUNE_PARAMETERS-unset}", parameters={"net": "x" * LONGEST_PARAMETERS}))
    assert lines == ["unset"]


async def test_what_is_appended_to_the_report_file_is_where_the_worker_reads(runner: LocalRunner) -> None:
    of = sh("""echo '{"metrics": {"loss": 1}}' >>"$EVERTUNE_REPORT_FILE" """)
    await printed(runner, of)
    reports = runner.sources(of, None).reports
    assert reports is not None
    assert json.loads(reports.read_text()) == {"metrics": {"loss": 1}}


async def test_the_stop_file_holds_the_reason_when_the_signal_comes(runner: LocalRunner) -> None:
    of = sh("""trap 'cat "$EVERTUNE_STOP_FILE"; exit 0' TERM; echo ready; while :; do sleep 0.02; done""")
    await runner.create(of)
    await until(runner.log_path(of.ref).read_text)
    await runner.stop(of.ref, reason="MaxTrialsReached")
    assert runner.log_path(of.ref).read_text().endswith("MaxTrialsReached")


async def test_the_checkpoint_is_kept_for_the_next_attempt_and_only_then_resumed_from(runner: LocalRunner) -> None:
    script = (
        'echo "${EVERTUNE_RESUME_FROM-nothing} $(cat "$EVERTUNE_CHECKPOINT_DIR/epoch" 2>/dev/null) $EVERTUNE_ATTEMPT"'
        '; [ $EVERTUNE_ATTEMPT = 0 ] || echo 7 >"$EVERTUNE_CHECKPOINT_DIR/epoch"'
    )
    shared = directory(runner, ref()).parent / "checkpoint"
    assert await printed(runner, sh(script, of=ref())) == ["nothing  0"]
    assert await printed(runner, sh(script, of=ref(attempt=1))) == ["nothing  1"]
    assert await printed(runner, sh(script, of=ref(attempt=2))) == [f"{shared} 7 2"]
    assert await printed(runner, sh(script, of=ref(number=1))) == ["nothing  0"]


async def test_the_containers_own_variables_win_and_may_refer_to_ours(runner: LocalRunner) -> None:
    mine = [
        {"name": "EVERTUNE_REPORT_FILE", "value": "/mine"},
        {"name": "EVERTUNE_PARAMETERS", "value": "{}"},
        {"name": "SAVE_TO", "value": "$(EVERTUNE_CHECKPOINT_DIR)/model"},
    ]
    of = launch(
        "/bin/sh", "-c", 'echo "$EVERTUNE_REPORT_FILE $EVERTUNE_PARAMETERS $SAVE_TO"', env=mine, parameters={"a": 1}
    )
    saved = directory(runner, ref()).parent / "checkpoint/model"
    assert await printed(runner, of) == [f"/mine {{}} {saved}"]


async def test_the_token_reaches_the_process_and_no_file(runner: LocalRunner, tmp_path: Path) -> None:
    of = sh(
        'echo "${#EVERTUNE_TOKEN} $EVERTUNE_INGEST_URL"',
        token="et1.k.claims.mac",
        env=[{"name": "AUTH", "value": "Bearer $(EVERTUNE_TOKEN)"}],
    )
    assert await printed(runner, of) == ["16 http://127.0.0.1:8090"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert Attempt.of(tmp_path / "trials", ref()).directory / "plan" in files
    assert not [path for path in files if b"et1.k.claims.mac" in path.read_bytes()]


async def test_without_a_token_there_is_no_gateway(runner: LocalRunner) -> None:
    assert await printed(runner, sh('echo "${EVERTUNE_TOKEN-none} ${EVERTUNE_INGEST_URL-none}"')) == ["none none"]
