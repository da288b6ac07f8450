"""A tail gives every line that it could see exactly once, whatever happens to the file or to the reader."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collectors import tail
from collectors.tail import Tail


def lines_of(reader: Tail, *, last: bool = False) -> dict[int, bytes]:
    """Every line by its place; calls as a collector does, until there is nothing more."""
    found: dict[int, bytes] = {}
    for block in reader.blocks(last=last):
        for place, data in block:
            for line in data.splitlines(keepends=True):
                found[place] = line.rstrip(b"\r\n")
                place += len(line)
    return found


class Life(RuleBasedStateMachine):
    """A program writes numbered lines; its file is rotated and cut; the reader is killed at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "log")
        self.notes = Path(self.folder.name, "seen")
        self.stored: dict[int, bytes] = {}
        self.must: set[bytes] = set()  # lines that existed, whole, when the reader had read all and all was stored
        self.written = 0
        self.rotations = 0
        self.half = b""

    def teardown(self) -> None:
        try:
            self.read_everything(last=True)
            self.exactly_once()
        finally:
            self.folder.cleanup()

    def on_disk(self) -> set[bytes]:
        files = [file for file in Path(self.folder.name).iterdir() if file.name.startswith("log")]
        return {line for file in files for line in file.read_bytes().split(b"\n")[:-1]}

    def read_everything(self, *, last: bool = False) -> None:
        for _ in range(20):
            self.stored |= lines_of(self.reader)
            if not self.reader.has_more():
                break
        if last:
            self.stored |= lines_of(self.reader, last=True)
        self.must |= self.on_disk()

    @initialize()
    def begin(self) -> None:
        self.reader = Tail(self.path, self.notes)
        self.write(3)
        self.read_everything()

    @rule(count=st.integers(1, 5))
    def write(self, count: int) -> None:
        with self.path.open("ab", buffering=0) as file:
            for _ in range(count):
                self.written += 1
                line = b"" if self.half else b"%09d of many lines\n" % self.written
                file.write(self.half[9:] + b"\n" if self.half else line)
                self.half = b""

    @precondition(lambda self: not self.half)
    @rule()
    def write_half_a_line(self) -> None:
        self.written += 1
        self.half = b"%09d half and half" % self.written
        with self.path.open("ab", buffering=0) as file:
            file.write(self.half[:9])

    @precondition(lambda self: not self.half)
    @rule(empty=st.booleans())
    def rotate(self, empty: bool) -> None:
        if self.path.exists():
            self.rotations += 1
            self.path.rename(self.path.with_name(f"log.{1000 - self.rotations}"))
            if empty:
                self.path.touch()

    @precondition(lambda self: not self.half)
    @rule()
    def truncate(self) -> None:
        self.path.write_bytes(b"")

    @rule()
    def read(self) -> None:
        self.read_everything()

    @rule()
    def read_and_be_killed_before_it_is_stored(self) -> None:
        lost = lines_of(self.reader)
        self.reader = Tail(self.path, self.notes)
        again = {place: line for place, line in lost.items() if self.stored.get(place, line) != line}
        assert again == {}, "a place that was taken by another line"

    @rule()
    def be_killed(self) -> None:
        self.reader = Tail(self.path, self.notes)

    @invariant()
    def exactly_once(self) -> None:
        lines = list(self.stored.values())
        assert len(set(lines)) == len(lines)
        assert self.must <= set(lines)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def reader(path: Path) -> Tail:
    return Tail(path, path.with_name("seen"))


def test_the_rest_of_a_renamed_file_comes_before_the_new_one_also_after_a_restart(path: Path) -> None:
    path.write_bytes(b"first\n")
    assert lines_of(reader(path)) == {0: b"first"}
    with path.open("ab") as file:
        file.write(b"second\nno end")
    path.rename(path.with_name("log-20261126"))
    path.write_bytes(b"third\n")
    again = reader(path)
    assert lines_of(again) == {0: b"first", 6: b"second", 13: b"no end"}
    assert again.has_more()
    assert lines_of(again) == {19: b"third"}
    assert not again.has_more()


def test_what_was_rotated_away_before_the_first_look_comes_first(path: Path) -> None:
    for number, name in enumerate(("log.2", "log.1", "log", "log.bak", "log.1.gz")):
        path.with_name(name).write_bytes(b"%d\n" % number)
        os.utime(path.with_name(name), (number, number))
    made = reader(path)
    found = lines_of(made)
    while made.has_more():
        found |= lines_of(made)
    assert found == {0: b"0", 2: b"1", 4: b"2"}
    assert lines_of(reader(path), last=True) == {4: b"2"}, "the note says that the others are stored"


def test_points_of_a_renamed_file_are_given_again_until_the_next_read_says_they_are_stored(path: Path) -> None:
    path.write_bytes(b"first\n")
    lines_of(reader(path))
    path.rename(path.with_name("log.1"))
    path.write_bytes(b"second\n")
    killed = reader(path)
    assert lines_of(killed) == {0: b"first"}
    assert lines_of(reader(path)) == {0: b"first"}


def test_a_program_that_still_writes_to_the_renamed_file_is_followed(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(b"first\n")
        tailing = reader(path)
        lines_of(tailing)
        path.rename(path.with_name("log.1"))
        path.touch()
        assert lines_of(tailing) == {}
        file.write(b"second\n")
        assert lines_of(tailing) == {6: b"second"}
    path.write_bytes(b"third\n")
    assert lines_of(tailing) == {13: b"third"}


def test_a_file_cut_and_grown_beyond_its_old_size_while_nobody_looked_is_noticed(path: Path) -> None:
    path.write_bytes(b"".join(b"old line %d\n" % number for number in range(20)))
    old = lines_of(reader(path))
    path.write_bytes(b"".join(b"new line %d\n" % number for number in range(40)))
    new = lines_of(reader(path))
    assert len(new) == 40
    assert not old.keys() & new.keys()


def test_a_file_that_keeps_its_last_lines_only_gives_each_line_once(path: Path) -> None:
    """As cloudml-hypertune: the last 100 metrics are written anew each time."""
    tailing, stored, entries = reader(path), dict[int, bytes](), list[bytes]()
    for number in range(150):
        entries.append(
            b'{"loss": "%d", "timestamp": 1700000000.%d, "trial": "0", "checkpoint_path": ""}\n' % (number, number)
        )
        with path.open("wb") as file:
            file.write(b"".join(entries[-100:]))
        stored |= lines_of(tailing)
        if number % 40 == 39:
            tailing = reader(path)
    assert list(stored.values()) == [entry.rstrip() for entry in entries]


@pytest.mark.slow
def test_of_a_window_that_is_written_anew_all_the_time_no_line_is_lost(path: Path) -> None:
    """Some may come twice: nothing keeps a program from writing while a reader reads."""
    entry = b'{"loss": "%d", "timestamp": 1700000000.%d, "trial": "0", "checkpoint_path": ""}\n'
    entries = [entry % (number, number) for number in range(130)]

    number_of = {line.rstrip(): number for number, line in enumerate(entries)}
    newest = 0  # of what was read

    def write() -> None:
        for number in range(len(entries)):
            while number - newest > 50:  # what leaves the window before the reader has had a turn is lost, of course
                time.sleep(0.01)
            path.write_bytes(b"".join(entries[max(0, number - 99) : number + 1]))
            time.sleep(0.03)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    tailing, stored, reads = reader(path), dict[int, bytes](), 0
    while writer.is_alive():
        found = lines_of(tailing)
        stored |= found
        newest = max((number_of[line] for line in found.values() if line in number_of), default=newest)
        reads += 1
        if reads % 10 == 9:
            tailing = reader(path)
    stored |= lines_of(tailing, last=True)
    assert {line.rstrip() for line in entries} <= set(stored.values())


def test_a_file_that_is_being_written_anew_is_not_taken_for_an_empty_one(path: Path) -> None:
    path.write_bytes(b"first line\n")
    tailing = reader(path)
    before = lines_of(tailing)
    path.write_bytes(b"")
    assert lines_of(tailing) == {}
    path.write_bytes(b"first line\nsecond line\n")
    assert before | lines_of(tailing) == {0: b"first line", 11: b"second line"}


@pytest.mark.parametrize("size", [1, 99, 100, 101, 250, 300])
def test_a_line_is_cut_at_the_same_places_whatever_the_blocks(
    path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "LINE_LIMIT", 100)
    path.write_bytes(b"x" * size + b"\n" + b"y" * 20 + b"\n")
    pieces = {place: b"x" * min(100, size - place) for place in range(0, size, 100)}
    for block in (7, 64, 1000):
        monkeypatch.setattr(tail, "BLOCK", block)
        found = lines_of(Tail(path, path.with_name(f"seen-{block}")), last=True)
        assert {place: line for place, line in found.items() if line} == {**pieces, size + 1: b"y" * 20}


@given(pieces=st.lists(st.sampled_from([b"a", b"bb\n", b"\r", b"\n", b"c" * 30]), max_size=60))
@settings(max_examples=60, deadline=None)
def test_places_are_offsets(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_bytes(b"".join(pieces))
        whole = path.read_bytes()
        for place, line in lines_of(reader(path), last=True).items():
            assert whole[place : place + len(line)] == line


def test_a_pipe_in_place_of_the_file_holds_nobody(path: Path) -> None:
    os.mkfifo(path)
    assert lines_of(reader(path)) == {}


def test_a_torn_note_is_no_note(path: Path) -> None:
    path.write_bytes(b"a line\n")
    path.with_name("seen").write_text('{"base": 7, "ino')
    assert lines_of(reader(path)) == {0: b"a line"}


def test_an_ordinary_log_costs_one_note_a_megabyte(path: Path) -> None:
    tailing, inode, notes = reader(path), 0, 0
    with path.open("ab", buffering=0) as file:
        for _ in range(300):
            file.write(b"a line of some fifty bytes or a little more than it\n" * 200)
            lines_of(tailing)
            now = path.with_name("seen").stat().st_ino
            notes += now != inode
            inode = now
    assert notes <= path.stat().st_size / tail.RESERVE + 2
