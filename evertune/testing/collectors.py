"""The contract of `protocols.Collector` for sources that are a growing file, as a test suite.

A collector's author subclasses `CollectorContract`, says how to make a collector and gives a sample of its format.
"""

from __future__ import annotations

from pathlib import Path

from evertune.domain.metrics import Point
from evertune.protocols import Collector


class CollectorContract:
    """Subclass it as `Test…`. `sample` holds five points or more in a few hundred bytes, and ends without a newline."""

    sample: bytes

    def make_collector(self, source: Path) -> Collector:
        raise NotImplementedError

    def all_points(self, source: Path) -> list[Point]:
        source.write_bytes(self.sample)
        collector = self.make_collector(source)
        return [*collector.read(), *collector.finish()]

    def test_it_finds_points_each_with_a_place_of_its_own(self, tmp_path: Path) -> None:
        points = self.all_points(tmp_path / "source")
        assert len(points) >= 5
        assert len({(point.metric, point.seq) for point in points}) == len(points)

    def test_in_whatever_pieces_it_comes_the_points_are_the_same(self, tmp_path: Path) -> None:
        expected = self.all_points(tmp_path / "whole")
        for size in (1, 2, 3, 7, 64):
            source = tmp_path / f"by-{size}"
            collector = self.make_collector(source)
            points = list(collector.read())  # not there yet
            with source.open("ab", buffering=0) as growing:
                for start in range(0, len(self.sample), size):
                    growing.write(self.sample[start : start + size])
                    points += collector.read()
            points += collector.finish()
            assert points == expected, f"pieces of {size}"

    def test_killed_at_any_byte_and_begun_anew_it_gives_the_same_points(self, tmp_path: Path) -> None:
        expected = self.all_points(tmp_path / "whole")
        for cut in range(len(self.sample) + 1):
            source = tmp_path / "cut"
            source.write_bytes(self.sample[:cut])
            before = list(self.make_collector(source).read())
            assert before == expected[: len(before)], f"killed at byte {cut}"
            source.write_bytes(self.sample)
            again = self.make_collector(source)
            assert [*again.read(), *again.finish()] == expected

    def test_a_line_counts_only_when_it_is_whole(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(self.sample)
        collector = self.make_collector(source)
        early = list(collector.read())
        assert list(collector.finish()) == self.all_points(source)[len(early) :]
        assert list(collector.read()) == []

    def test_a_source_that_never_came_has_no_points_and_no_findings(self, tmp_path: Path) -> None:
        collector = self.make_collector(tmp_path / "nowhere")
        assert [*collector.read(), *collector.finish()] == []
        assert collector.findings().last_lines == ()

    def test_findings_end_with_the_last_lines(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(self.sample)
        collector = self.make_collector(source)
        collector.finish()
        findings = collector.findings()
        assert 0 < len(findings.last_lines) <= 20
        assert findings.names_seen
