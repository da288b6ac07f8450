"""The archive of a log: the same bytes at the same offsets, bounded in size, whole after a kill at any point."""

from __future__ import annotations

import gzip
import os
import random
import signal
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evertune import archive

CAP = 256 << 10


def written(path: Path, lines: int, width: int = 40) -> bytes:
    data = b"".join(b"%08d %s\n" % (number, b"x" * (number * 7 % width)) for number in range(lines))
    path.write_bytes(data)
    return data


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def whole(path: Path) -> bytes:
    return b"".join(piece.data for piece in archive.read(path))


def assert_true_offsets(path: Path, original: bytes) -> list[archive.Piece]:
    """Every byte stands where it stood, head and tail are there, and what is missing is what the gap says."""
    pieces = list(archive.read(path))
    at, gaps = 0, []
    for piece in pieces:
        if piece.gap:
            gaps.append(piece)
            continue
        if piece.offset != at:
            assert gaps, "bytes are missing without a word"
            assert f"{piece.offset - at} bytes left out" in gaps[-1].data.decode()
        assert original[piece.offset : piece.end] == piece.data
        at = piece.end
    assert at == len(original)
    return gaps


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_short_log_stays_as_it_is(log: Path) -> None:
    log.write_bytes(b"accuracy=1\n" * 100)
    assert not archive.archive(log)
    assert whole(log) == b"accuracy=1\n" * 100
    assert names(log.parent) == ["log"]


def test_below_the_cap_every_byte_is_kept_and_zcat_shows_it(log: Path) -> None:
    original = written(log, 6000)
    assert len(original) < CAP
    assert archive.archive(log, cap=CAP)
    assert names(log.parent) == ["log.gz"]
    assert gzip.decompress(archive.archived(log).read_bytes()) == original
    assert assert_true_offsets(log, original) == []


def test_beyond_the_cap_head_and_tail_are_kept_at_ends_of_lines(log: Path) -> None:
    original = written(log, 50_000)
    assert archive.archive(log, cap=CAP)
    (gap,) = assert_true_offsets(log, original)
    shown = gzip.decompress(archive.archived(log).read_bytes())
    assert len(shown) <= CAP + 200
    head, _, tail = shown.partition(gap.data)
    assert head.endswith(b"\n")
    assert gap.data.endswith(b"\n")
    assert original.startswith(head)
    assert original.endswith(tail)
    assert original[len(original) - len(tail) - 1 : len(original) - len(tail)] == b"\n"
    assert len(head) > CAP // 5
    assert len(tail) > CAP // 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40_000), min_size=2, max_size=60),
    st.integers(70_000, 400_000),
    st.sampled_from([b"\n", b"\r"]),
    st.data(),
)
def test_whatever_the_lengths_of_lines_offsets_are_true(
    tmp_path_factory: pytest.TempPathFactory, widths: list[int], cap: int, end: bytes, data: st.DataObject
) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    original = end.join(bytes([97 + number % 26]) * width for number, width in enumerate(widths))
    log.write_bytes(original)
    done = archive.archive(log, cap=cap)
    assert done == (len(original) >= archive.SMALL)
    assert_true_offsets(log, original)
    assert archive.size(log) == len(original)
    start = data.draw(st.integers(0, len(original) + 5))
    for piece in archive.read(log, start):
        assert piece.gap or (piece.offset >= start and original[piece.offset : piece.end] == piece.data)
    for offset, line in archive.lines(log):
        assert original[offset : offset + len(line)] == line


def test_one_line_longer_than_everything_is_cut_where_it_must(log: Path) -> None:
    log.write_bytes(b"x" * (3 * CAP))
    archive.archive(log, cap=CAP)
    (gap,) = assert_true_offsets(log, b"x" * (3 * CAP))
    assert gap.data.startswith(b"\n[evertune: ")


def test_a_line_that_looks_like_a_gap_is_not_one(log: Path) -> None:
    false = b"[evertune: 5 bytes left out here; the log goes on at byte 999999999]\n"
    log.write_bytes(false + b"y" * archive.SMALL + b"\n" + false)
    original = log.read_bytes()
    archive.archive(log)
    assert assert_true_offsets(log, original) == []
    assert whole(log) == original


def test_the_last_lines_are_the_same_in_both_forms(log: Path) -> None:
    written(log, 6000)
    counts = (0, 1, 2, 10, 5999, 6000, 6001)
    before = [archive.tail(log, count) for count in counts]
    starts = [archive.tail_start(log, count) for count in counts]
    lines = list(archive.lines(log))
    last = archive.last_bytes(log, 1000)
    archive.archive(log)
    assert not log.exists()
    assert [archive.tail(log, count) for count in counts] == before
    assert [archive.tail_start(log, count) for count in counts] == starts
    assert list(archive.lines(log)) == lines
    assert archive.last_bytes(log, 1000) == last
    assert before[1] == [lines[-1][1]]
    assert [len(found) for found in before] == [0, 1, 2, 10, 5999, 6000, 6000]


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\n", b"a\n\n", b"a\nb", b"\n\nb\n"])
def test_the_last_lines_of_odd_logs(log: Path, text: bytes) -> None:
    log.write_bytes(text)
    every = text.removesuffix(b"\n").split(b"\n") if text else []
    for count in range(4):
        assert archive.tail(log, count) == (every[-count:] if count else [])


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 999, 1000, 5000])
@pytest.mark.parametrize("ending", ["\n", ""])
def test_the_tail_of_a_long_log_is_read_from_its_end(log: Path, lines: int, ending: str) -> None:
    written = [f"{number} {'x' * (number % 300)}" for number in range(1000)]
    log.write_text("\n".join(written) + ending)
    tail = log.read_bytes()[archive.tail_start(log, lines) :].decode()
    assert tail.splitlines() == (written[-lines:] if lines else [])


def test_archiving_again_changes_nothing(log: Path) -> None:
    written(log, 50_000)
    archive.archive(log, cap=CAP)
    before = archive.archived(log).read_bytes()
    assert archive.archive(log, cap=CAP)
    assert archive.archived(log).read_bytes() == before


def test_what_is_written_under_the_old_name_later_goes_on_where_the_archive_ends(log: Path) -> None:
    original = written(log, 6000)
    archive.archive(log)
    log.write_bytes(b"late=1\n")
    assert not archive.archive(log)
    assert assert_true_offsets(log, original + b"late=1\n") == []
    assert archive.tail(log, 1) == [b"late=1"]
    assert list(archive.lines(log))[-1] == (len(original), b"late=1")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_killed_at_any_system_call_nothing_is_lost_and_the_next_call_finishes(log: Path) -> None:
    original = written(log, 30_000)
    reference = log.with_name("reference")
    reference.write_bytes(original)
    archive.archive(reference, cap=CAP)
    expected = whole(reference)
    kills = 0
    while _archive_and_die_at(log, kills):
        seen = whole(log)
        assert seen in (original, expected), f"after being killed at event {kills}"
        assert log.exists() or archive.archived(log).exists()
        kills += 1
        assert archive.archive(log, cap=CAP)
        assert whole(log) == expected
        assert names(log.parent) == ["log.gz", "reference.gz"]
        archive.archived(log).unlink()
        log.write_bytes(original)
    assert kills >= 6


def _archive_and_die_at(log: Path, event: int) -> bool:
    """Archive in another process that kills itself at its n-th event; False when it had none left."""
    child = os.fork()
    if child == 0:
        seen = -1

        def die(name: str, _arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if name in ("open", "os.rename", "os.remove", "os.utime", "fcntl.flock"):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        archive.archive(log, cap=CAP)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def test_two_that_archive_and_many_that_read_at_the_same_moment_all_see_the_whole(log: Path) -> None:
    for _ in range(10):
        archive.archived(log).unlink(missing_ok=True)
        original = written(log, 8000)
        seen: list[bytes] = []
        threads = [threading.Thread(target=archive.archive, args=(log,)) for _ in range(3)]
        threads += [threading.Thread(target=lambda into=seen: into.append(whole(log))) for _ in range(6)]
        random.Random(4).shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [original] * 6
        assert names(log.parent) == ["log.gz"]


def test_an_archive_that_is_cut_or_spoiled_says_so_and_gives_what_it_can(log: Path) -> None:
    original = written(log, 30_000)
    archive.archive(log, cap=CAP)
    good = archive.archived(log).read_bytes()
    for cut in (1, 5, 100, len(good) // 2, len(good) - 1):
        archive.archived(log).write_bytes(good[:cut])
        pieces = list(archive.read(log))
        assert pieces[-1].gap
        assert b"damaged" in pieces[-1].data
        assert all(piece.gap or original[piece.offset : piece.end] == piece.data for piece in pieces)
    archive.archived(log).write_bytes(b"no gzip at all" * 1000)
    assert [piece.gap for piece in archive.read(log)] == [True]


def test_five_gigabytes_cost_no_memory(log: Path) -> None:
    with log.open("wb") as file:
        file.write(b"first=1\n" * 10_000)
        file.seek(5 << 30)
        file.write(b"\n" + b"last=2\n" * 10_000)
    size = log.stat().st_size
    tracemalloc.start()
    assert archive.archive(log)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert archive.size(log) == size
    assert archive.tail(log, 1) == [b"last=2"]
    assert archive.archived(log).stat().st_size < 1 << 20


def test_links_pipes_and_directories_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", 6000)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    assert not archive.archive(tmp_path / "link")
    assert not archive.archive(tmp_path / "pipe")
    assert not archive.archive(tmp_path / "directory")
    assert names(tmp_path) == ["directory", "elsewhere", "link", "pipe"]


def test_of_an_attempt_all_that_it_reported_through_is_kept_and_nothing_outside(tmp_path: Path) -> None:
    attempt = tmp_path / "trials/uid/0/0"
    files = ["log", "reports", "collector/log", "files/katib/mnist.log"]
    for name in (*files, "files/model.bin"):
        (attempt / name).parent.mkdir(parents=True, exist_ok=True)
        written(attempt / name, 6000)
    outside = tmp_path / "mnist.log"
    written(outside, 6000)
    assert archive.keep(attempt, outside) == []
    assert archive.keep(attempt, attempt / "../../../../mnist.log") == []
    assert archive.keep(attempt, attempt / "files/katib/mnist.log") == []
    assert outside.exists()
    assert (attempt / "files/model.bin").exists()
    for name in files:
        assert not (attempt / name).exists()
        assert (attempt / f"{name}.gz").exists()
    assert archive.forget(attempt, attempt / "files/katib/mnist.log") == 4
    assert archive.forget(attempt, outside) == 0
    assert outside.exists()


def test_what_cannot_be_archived_is_said_and_stays(tmp_path: Path) -> None:
    written(tmp_path / "log", 6000)
    (tmp_path / "log.gz.new").mkdir()
    (problem,) = archive.keep(tmp_path)
    assert problem == f"{tmp_path}/log was not archived: is a directory"
    assert (tmp_path / "log").exists()


def test_of_nothing_there_is_nothing_to_read(log: Path) -> None:
    assert not archive.archive(log)
    assert not archive.exists(log)
    assert list(archive.read(log)) == []
    assert archive.tail(log, 5) == []
    assert archive.size(log) == 0
    assert archive.keep(log.parent / "nowhere") == []


def test_the_logs_of_all_replicas_are_archived_and_forgotten(tmp_path: Path) -> None:
    for name in ("worker-1", "ps-0"):
        (tmp_path / "replicas" / name).mkdir(parents=True)
        written(tmp_path / "replicas" / name / "log", 4000)
    assert archive.keep(tmp_path) == []
    for name in ("worker-1", "ps-0"):
        assert names(tmp_path / "replicas" / name) == ["log.gz"]
    assert archive.forget(tmp_path) == 2
    assert names(tmp_path / "replicas" / "ps-0") == []
