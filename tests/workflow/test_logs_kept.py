"""A trial's log is archived once its end is recorded, whichever way it ended."""

from __future__ import annotations

from pathlib import Path

from evertune import archive
from evertune.domain.states import TrialState
from tests.workflow.harness import House, manifest, until

NOISY = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo step $i of this trial; done; "


def log_of(house: House, uid: str, number: int) -> Path:
    return house.settings.trials_dir / uid / str(number) / "0" / "log"


async def gone(log: Path) -> None:
    await until(lambda: not log.exists(), what=f"{log} archived")


async def test_logs_are_archived_after_the_end_and_still_read_in_full(house: House) -> None:
    handle = await house.submit(manifest("noisy", f"{NOISY}echo objective=$X", maxTrialCount=2))
    record = await house.ended(handle)
    for number in range(2):
        log = log_of(house, record.uid, number)
        await gone(log)
        lines = [line for _, line in archive.lines(log)]
        assert lines[:4000] == [f"step {number} of this trial".encode() for number in range(1, 4001)]
        trial = house.store.trial(record.uid, number)
        assert trial.objective is not None
        assert lines[4000] == f"objective={trial.objective}".encode()


async def test_a_failed_trials_log_is_archived_as_well(house: House) -> None:
    handle = await house.submit(
        manifest("broken", f"{NOISY}exit 3", maxTrialCount=1, maxFailedTrialCount=0, parallelTrialCount=1)
    )
    record = await house.ended(handle)
    assert house.store.trial(record.uid, 0).state is TrialState.FAILED
    await gone(log_of(house, record.uid, 0))
    assert archive.tail(log_of(house, record.uid, 0), 1) == [b"step 4000 of this trial"]
