"""What was archived is read anew with every point at its old place; what is not kept keeps the points it had."""

from __future__ import annotations

from pathlib import Path

import pytest

import collectors
import evertune.archive as archive
from activities.rereading import places_of, readable
from evertune.domain.metrics import PUSHED, CollectorSpec, Point, place
from evertune.protocols import Sources

SPEC = CollectorSpec(kind="StdOut", metrics=("loss",))
CAP = 1 << 20


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(log=tmp_path / "log", notes=tmp_path, reports=tmp_path / "reports")


def everything(sources: Sources) -> list[Point]:
    collector = collectors.create(SPEC, sources)
    return [*collector.read(), *collector.finish()]


def test_a_log_that_was_never_archived_is_read_where_it_is(sources: Sources) -> None:
    sources.log.write_text("loss=1\nloss=2\n")
    before = everything(sources)
    with readable(sources) as (there, gaps):
        assert there.log == sources.log
        assert everything(there) == before
        assert (places_of(SPEC, there, gaps), gaps) == ([(0, place(1, 0))], {})


def test_an_archived_log_gives_every_point_at_its_place(sources: Sources) -> None:
    sources.log.write_text("".join(f"loss=0.{n} some words that fill the line\n" for n in range(4000)))
    assert sources.reports is not None
    sources.reports.write_text('{"metrics": {"loss": 7}, "step": 1, "time": 1732620000}\n')
    before = everything(sources)
    assert archive.keep(sources.notes) == []
    assert not sources.log.exists()
    with readable(sources) as (there, _):
        assert everything(there) == before
        assert before[-1].seq == place(PUSHED, 0)
        left = there.notes
    assert not left.exists()


def test_what_the_archive_left_out_keeps_the_points_that_it_had(sources: Sources) -> None:
    sources.log.write_text("".join(f"loss={n} {'x' * 200}\n" for n in range(20_000)))  # 4 MB
    before = everything(sources)
    archive.keep(sources.notes, cap=CAP)
    with readable(sources) as (there, gaps):
        again = everything(there)
        ranges = places_of(SPEC, there, gaps)
    assert 1000 < len(again) < len(before)
    assert set(again) < set(before)
    left_out = {point.seq for point in before} - {point.seq for point in again}
    assert len(ranges) == 2
    for point in before:
        assert any(low <= point.seq < high for low, high in ranges) == (point.seq not in left_out)


def test_a_log_that_was_cut_before_keeps_what_was_read_of_it_then(sources: Sources) -> None:
    sources.log.write_text("loss=1\nloss=2\n" * 10)
    collector = collectors.create(SPEC, sources)
    before = list(collector.read())
    sources.log.write_text("loss=3\n" + "a line without any of it\n" * 4000)
    before += [*collector.read(), *collector.finish()]
    assert [point.value for point in before[-2:]] == ["2", "3"]
    archive.keep(sources.notes)
    with readable(sources) as (there, gaps):
        again = everything(there)
        ((first, _),) = places_of(SPEC, there, gaps)
    assert again == before[-1:]
    assert before[-2].seq < first <= again[0].seq
