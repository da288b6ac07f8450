"""The contract of `protocols.Collector` for sources that are a growing file, as test suites.

A collector's author subclasses `CollectorContract`, says how to make a collector and gives a sample of its format; for
a file that may be rotated away or cut, `RotatedFileContract` as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evertune.domain.metrics import Point
from evertune.protocols import Collector


class CollectorContract:
    """Subclass it as `Test…`. `sample` holds five points or more in a few hundred bytes.

    If it consists of lines it ends without a newline; `pieces` are the sizes in which it is written.
    """

    sample: bytes
    pieces: tuple[int, ...] = (1, 2, 3, 7, 64)
    cut_every = 1  # bytes between the places at which a reader is killed

    def make_collector(self, folder: Path) -> Collector:
        """A collector with its notes below `folder`, reading `self.source(folder)`. Called again: a restart."""
        raise NotImplementedError

    def source(self, folder: Path) -> Path:
        """The file that grows. Its directory exists when this returns."""
        return folder / "source"

    def new(self, parent: Path, name: str) -> Path:
        folder = parent / name
        folder.mkdir()
        return folder

    def all_points(self, folder: Path) -> list[Point]:
        self.source(folder).write_bytes(self.sample)
        collector = self.make_collector(folder)
        return [*collector.read(), *collector.finish()]

    def test_it_finds_points_each_with_a_place_of_its_own(self, tmp_path: Path) -> None:
        points = self.all_points(tmp_path)
        assert len(points) >= 5
        assert len({(point.metric, point.seq) for point in points}) == len(points)

    def test_in_whatever_pieces_it_comes_the_points_are_the_same(self, tmp_path: Path) -> None:
        expected = self.all_points(self.new(tmp_path, "whole"))
        for size in self.pieces:
            folder = self.new(tmp_path, f"by-{size}")
            collector = self.make_collector(folder)
            points = list(collector.read())  # not there yet
            with self.source(folder).open("ab", buffering=0) as growing:
                for start in range(0, len(self.sample), size):
                    growing.write(self.sample[start : start + size])
                    points += collector.read()
            points += collector.finish()
            assert points == expected, f"pieces of {size}"

    def test_killed_at_any_byte_and_begun_anew_it_gives_the_same_points(self, tmp_path: Path) -> None:
        expected = self.all_points(self.new(tmp_path, "whole"))
        for cut in range(0, len(self.sample) + 1, self.cut_every):
            folder = self.new(tmp_path, f"cut-{cut}")
            source = self.source(folder)
            source.write_bytes(self.sample[:cut])
            before = list(self.make_collector(folder).read())
            assert before == expected[: len(before)], f"killed at byte {cut}"
            with source.open("ab") as growing:
                growing.write(self.sample[cut:])
            again = self.make_collector(folder)
            assert [*again.read(), *again.finish()] == expected, f"killed at byte {cut}"

    def test_has_more_is_true_whenever_there_is_something_to_read(self, tmp_path: Path) -> None:
        collector = self.make_collector(tmp_path)
        with self.source(tmp_path).open("ab", buffering=0) as growing:
            for start in range(0, len(self.sample), 16):
                growing.write(self.sample[start : start + 16])
                asked = collector.has_more()
                assert asked or not collector.read()

    def test_a_finished_collector_has_said_everything(self, tmp_path: Path) -> None:
        expected = self.all_points(self.new(tmp_path, "whole"))
        folder = self.new(tmp_path, "twice")
        self.source(folder).write_bytes(self.sample)
        collector = self.make_collector(folder)
        early = list(collector.read())
        assert early == expected[: len(early)]
        assert list(collector.finish()) == expected[len(early) :]
        assert list(collector.read()) == []

    def test_a_source_that_never_came_has_no_points_and_no_findings(self, tmp_path: Path) -> None:
        collector = self.make_collector(tmp_path)
        assert not self.source(tmp_path).exists()
        assert [*collector.read(), *collector.finish()] == []
        assert collector.findings().last_lines == ()

    def test_findings_name_what_was_seen(self, tmp_path: Path) -> None:
        self.source(tmp_path).write_bytes(self.sample)
        collector = self.make_collector(tmp_path)
        collector.finish()
        findings = collector.findings()
        assert len(findings.last_lines) <= 20
        assert findings.names_seen


class RotatedFileContract(CollectorContract):
    """For a file of lines. `numbered` writes one with the metric `loss` and the given value, a whole number."""

    def numbered(self, number: int) -> bytes:
        return b"loss=%d\n" % number

    def _values(self, points: list[Point]) -> list[str]:
        return [point.value for point in points if point.metric == "loss"]

    def _numbers(self, count: int) -> Iterator[tuple[int, bytes]]:
        for number in range(count):
            yield number, self.numbered(1_000_000 + number)

    def test_lines_are_found_once_across_rotations(self, tmp_path: Path) -> None:
        collector, source, points = self.make_collector(tmp_path), self.source(tmp_path), list[Point]()
        for number, line in self._numbers(60):
            if number % 10 == 5:
                source.rename(source.with_name(f"{source.name}.{100 - number}"))
            with source.open("ab") as growing:
                growing.write(line)
            if number % 3 == 0:
                points += collector.read()
            if number % 20 == 18:
                points += collector.read()  # says that the last ones are stored
                collector = self.make_collector(tmp_path)
        points += [*collector.read(), *collector.finish()]
        places = {point.seq: point.value for point in points}
        assert sorted(places.values()) == [str(1_000_000 + number) for number in range(60)]

    def test_a_truncated_file_goes_on_at_places_of_its_own(self, tmp_path: Path) -> None:
        source, points = self.source(tmp_path), list[Point]()
        for number, line in self._numbers(30):
            if number % 10 == 0:
                source.write_bytes(b"")
            with source.open("ab") as growing:
                growing.write(line)
            points += self.make_collector(tmp_path).read()  # a new one for each line
        places = {point.seq: point.value for point in points}
        assert sorted(places.values()) == [str(1_000_000 + number) for number in range(30)]
