"""Two homes on one Temporal: their experiments never mix, and their workers say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from evertune.domain.states import ExperimentState
from tests.workflow.harness import House, a_house, manifest, until
from worker.neighbours import other_databases, warn_of_other_databases


@pytest.mark.slow
async def test_experiments_of_two_databases_on_one_temporal_each_stay_in_their_own(
    house: House, tmp_path: Path
) -> None:
    async with a_house(house.address, tmp_path / "other") as other:
        for home, name in ((house, "ours"), (other, "theirs")):
            record = await home.ended(await home.submit(manifest(name, maxTrialCount=2)), 60)
            assert (record.state, record.counts.succeeded) == (ExperimentState.SUCCEEDED, 2)
        assert [record.name for record in house.store.list_experiments()] == ["ours"]
        assert [record.name for record in other.store.list_experiments()] == ["theirs"]


async def test_a_worker_says_which_other_database_is_at_work(house: House, tmp_path: Path) -> None:
    async with a_house(house.address, tmp_path / "other") as other:

        async def seen() -> bool:  # a poller is known a moment after it began
            return other.store.database_id in await other_databases(house.temporal, house.store.database_id)

        await until(seen)
        assert house.store.database_id not in await other_databases(house.temporal, house.store.database_id)
        with structlog.testing.capture_logs() as lines:
            await warn_of_other_databases(house.temporal, house.store.database_id)
    said = [line for line in lines if "theirs" in line]  # the workers log as well
    assert other.store.database_id[:8] in [line["theirs"] for line in said]
    assert {line["log_level"] for line in said} == {"warning"}
