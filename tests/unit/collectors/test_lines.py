"""Collectors over a growing file as programs write them: torn, coloured, huge, truncated, replaced."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import collectors
from collectors import tail
from evertune.domain.metrics import CollectorSpec, Point
from evertune.errors import LaunchError
from evertune.protocols import Collector, Sources

SPEC = CollectorSpec(kind="StdOut", metrics=("loss", "accuracy"), filters=())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def collector(log: Path) -> Collector:
    return collectors.create(SPEC, Sources(log=log, notes=log.parent))


def values(points: list[Point]) -> list[str]:
    return [point.value for point in points]


def everything(log: Path) -> list[Point]:
    reader = collector(log)
    return [*reader.read(), *reader.finish()]


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"loss=", b"0.5", b"\n", b"\r", b"\r\n", b" ", b"accuracy = .9\n", b"\x1b[31m", b"\xff", "✔".encode(),
             b"2024-05-01T10:00:00Z ", b"loss=nan\n", b"loss=1e-3 loss=2\n", b"=", b"x" * 40]
        ),
        st.binary(max_size=6),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(pieces=PIECES, kill_after=st.integers(0, 40), data=st.data())
def test_any_pieces_and_a_restart_at_any_of_them_give_the_same_points(
    pieces: list[bytes], kill_after: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, log = Path(folder, "whole", "log"), Path(folder, "pieces", "log")
        for file in (whole, log):
            file.parent.mkdir()
        whole.write_bytes(b"".join(pieces))
        expected = everything(whole)
        reader, points = collector(log), list[Point]()
        with log.open("ab", buffering=0) as growing:
            for index, piece in enumerate(pieces):
                if index == kill_after:
                    assert points == expected[: len(points)]
                    reader, points = collector(log), []
                growing.write(piece)
                if data.draw(st.booleans()):
                    points += reader.read()
        assert [*points, *reader.finish()] == expected
        assert len({(point.metric, point.seq) for point in expected}) == len(expected)


def test_the_place_of_a_value_is_its_offset_in_the_log(log: Path) -> None:
    log.write_bytes("größe\nloss=0.5\r\nloss=0.25\n".encode())
    points = everything(log)
    assert [point.value for point in points] == ["0.5", "0.25"]
    for point in points:
        assert log.read_bytes()[point.seq :].startswith(point.value.encode())


def test_a_half_written_line_waits_for_its_end(log: Path) -> None:
    reader = collector(log)
    log.write_bytes(b"loss=0.1")
    assert reader.read() == []
    with log.open("ab") as growing:
        growing.write(b"25\n")
    assert values(list(reader.read())) == ["0.125"]


def test_a_progress_bar_reports_at_each_carriage_return(log: Path) -> None:
    log.write_bytes(b"10% loss=3\r20% loss=2\r30% loss=1")
    reader = collector(log)
    assert values(list(reader.read())) == ["3", "2"]
    assert values(list(reader.finish())) == ["1"]


def test_a_line_of_a_megabyte_is_read(log: Path) -> None:
    log.write_bytes(b"x" * 1_000_000 + b" loss=0.5\nloss=0.4\n")
    assert values(everything(log)) == ["0.5", "0.4"]


def test_a_line_without_end_needs_no_memory_without_end(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "LINE_LIMIT", 100)
    for block in (7, 1 << 20):
        monkeypatch.setattr(tail, "BLOCK", block)
        log.write_bytes(b" " * 95 + b"loss=0.123 " + b" " * 300 + b"loss=7\nloss=8\n")
        assert values(everything(log)) == ["", "7", "8"], "cut at the same places whatever the blocks"


def test_a_truncated_log_goes_on_where_it_was(log: Path) -> None:
    log.write_bytes(b"loss=1\nloss=2\n")
    reader = collector(log)
    before = list(reader.read())
    log.write_bytes(b"loss=3\n")
    after = list(reader.read())
    assert values(before + after) == ["1", "2", "3"]
    assert after[0].seq > before[-1].seq
    with log.open("ab") as growing:
        growing.write(b"loss=4\n")
    restarted = everything(log)
    assert values(restarted) == ["3", "4"]
    assert restarted[0] == after[0]


def test_a_replaced_log_is_read_from_its_beginning(log: Path) -> None:
    log.write_bytes(b"loss=1\n")
    reader = collector(log)
    before = list(reader.read())
    other = log.with_name("other")
    other.write_bytes(b"loss=2\nloss=3\n")
    other.replace(log)
    after = list(reader.read())
    assert values(before + after) == ["1", "2", "3"]
    assert len({point.seq for point in before + after}) == 3


def test_reading_again_without_news_gives_nothing(log: Path) -> None:
    log.write_bytes(b"loss=1\nloss=")
    reader = collector(log)
    assert len(reader.read()) == 1
    assert reader.read() == []
    assert values(list(reader.finish())) == [""]


def test_findings_name_what_was_there_instead(log: Path) -> None:
    lines = [f"step {number} acc={number}" for number in range(30)]
    log.write_text("\n".join([*lines, "", "  ", "\x1b[31mvalidation_loss = 3\x1b[0m"]))
    reader = collector(log)
    assert [*reader.read(), *reader.finish()] == []
    findings = reader.findings()
    assert findings.last_lines == (*lines[11:], "validation_loss = 3")
    assert findings.names_seen == ("acc", "validation_loss")


def test_another_kind_is_refused_in_a_sentence(log: Path) -> None:
    with pytest.raises(LaunchError, match="collector kind Telepathy cannot be collected"):
        collectors.create(CollectorSpec(kind="Telepathy", metrics=("loss",)), Sources(log=log, notes=log.parent))


def test_an_unusable_filter_is_refused_in_a_sentence(log: Path) -> None:
    with pytest.raises(LaunchError, match=r"metricsFormat: '\(x' is not a regular expression of RE2"):
        collectors.create(
            CollectorSpec(kind="StdOut", metrics=("loss",), filters=("(x",)), Sources(log=log, notes=log.parent)
        )


def test_lines_without_a_wanted_name_cost_next_to_nothing(log: Path) -> None:
    line = b"2024-05-01T10:00:00Z INFO Train Epoch: 1 [640/60000 (1%%)]\t%s=0.5 and some words to fill it up...\n"
    log.write_bytes(line % b"loss" * 10_000)
    begun = time.process_time()
    assert len(everything(log)) == 10_000
    wanted = time.process_time() - begun
    log.write_bytes(line % b"xoss" * 10_000)
    begun = time.process_time()
    assert everything(log) == []
    unwanted = time.process_time() - begun
    print(f"a megabyte of 10,000 lines: {wanted * 1000:.0f} ms with a point each, {unwanted * 1000:.0f} ms without")
    assert unwanted < wanted / 2


def test_what_was_rotated_away_is_before_the_first_place_that_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "metrics"
    sources = Sources(log=tmp_path / "log", notes=tmp_path, path=file)
    spec = CollectorSpec(kind="File", metrics=("loss",))
    assert collectors.first_place_left(sources) == 0
    reader, points = collectors.create(spec, sources), list[Point]()
    for number in range(3):
        file.write_text(f"loss={number}\n")
        points += [*reader.read(), *reader.read()]
        assert collectors.first_place_left(sources) == 7 * number
        file.rename(tmp_path / f"metrics.{9 - number}")
    file.write_text("loss=3\n")
    points += [*reader.read(), *reader.read()]
    left = collectors.first_place_left(sources)
    assert values(points) == ["0", "1", "2", "3"]
    again = collectors.create(spec, sources).finish()
    assert list(again) == [point for point in points if point.seq >= left]
