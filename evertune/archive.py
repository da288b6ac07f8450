"""Keeps what a trial printed and reported after it is gone: `log` becomes `log.gz`, head and tail of what was long.

Called by whoever ends a trial (`keep`), by the worker's housekeeping (`keep`, `forget`), and by everybody who reads a
log (`read`, `lines`, `tail`), for whom both forms look the same. Standard library only.

An archive is an ordinary gzip file that zcat shows. It has one member, or three when the log was longer than the cap:
the head, one line that says how much is left out and at which byte the log goes on, and the tail. Both cuts are at ends
of lines. A reader gets every byte with its offset in the log as it was, so metrics that are read again get the same
`seq`. The line about the gap is told from a look-alike in the log by its being a member of its own.

Safe to kill at any point: the archive is complete and synced before it gets its name, and only then does the log go.
When both are there, the archive of that very log waits for the log to be removed; another log under the same name (who
still held the file, wrote on) counts as its continuation. Never touches a symbolic link, a pipe or a directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CAP = 16 << 20  # bytes kept of a log: a quarter from its head, the rest from its end
SMALL = 64 << 10  # bytes; a shorter log stays as it is
BLOCK = 1 << 18
LINE_LIMIT = 1 << 20  # of `lines`: a longer line comes in pieces

# What an attempt reports through, in its directory; the file that a File collector reads is named by the spec.
REPORTED = ("log", "reports", "collector/log")
REPLICAS = "replicas/*"  # directories with a log each: what the other replicas of a distributed job printed

_GZIP = 31  # zlib's number for a gzip header and the largest window
_GOES_ON = re.compile(rb"the log goes on at byte (\d+)\]\s*\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a log and where they stood in it. `gap`: `data` is our own line about what is missing from there on."""

    offset: int
    data: bytes
    gap: bool = False

    @property
    def end(self) -> int:
        return self.offset if self.gap else self.offset + len(self.data)


# ------------------------------------------------------------------------------------------------- attempts


def keep(directory: Path, file: Path | None = None, *, cap: int = CAP) -> list[str]:
    """Archive what the attempt in `directory` reported through; `file` is its collector's, if it reads one.

    For an attempt that has ended and whose end is recorded: whoever reads before finds everything, not head and tail.
    Returns what could not be archived, a sentence each; that stays as it was, for the next call.
    """
    problems = []
    for path in reported(directory, file):
        try:
            archive(path, cap=cap)
        except OSError as error:
            problems.append(f"{path} was not archived: {(error.strerror or str(error)).lower()}")
    return problems


def forget(directory: Path, file: Path | None = None) -> int:
    """Delete the same files, archived or not; returns how many there were."""
    gone = 0
    for path in reported(directory, file):
        for form in (path, archived(path)):
            with suppress(FileNotFoundError, NotADirectoryError):
                form.unlink()
                gone += 1
    return gone


def reported(directory: Path, file: Path | None = None) -> list[Path]:
    """Never a file that lies elsewhere on this machine, whatever the spec says."""
    paths = [directory / name for name in REPORTED]
    paths += [replica / "log" for replica in sorted(directory.glob(REPLICAS))]
    if file is not None and directory in Path(os.path.normpath(file)).parents and not file.is_dir():
        paths.append(file)
    return paths


# ------------------------------------------------------------------------------------------------- writing


def archived(log: Path) -> Path:
    """Where the archive of `log` is, or will be."""
    return log.with_name(log.name + ".gz")


def archive(log: Path, *, cap: int = CAP) -> bool:
    """Turn `log` into its archive; True when that was done, now or before. OSError leaves the log as it is."""
    try:
        if not stat.S_ISREG(log.stat(follow_symlinks=False).st_mode):
            return False
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return archived(log).exists()
    with os.fdopen(descriptor, "rb") as source:
        fcntl.flock(source, fcntl.LOCK_EX)  # one at a time; the other finds it done
        status = os.fstat(descriptor)
        if not _is_still(log, status):
            return archived(log).exists()
        if archived(log).exists():
            if not _stands_for(archived(log), status):
                return False
        elif status.st_size < SMALL:
            return False
        else:
            _write(source, log, status, cap)
        log.unlink()
    return True


def _write(source: BinaryIO, log: Path, status: os.stat_result, cap: int) -> None:
    new = log.with_name(log.name + ".gz.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        if status.st_size <= cap:
            _member(source, status.st_size, target)
        else:
            head, goes_on = _cuts(source, status.st_size, cap)
            source.seek(0)
            last = _member(source, head, target)
            words = f"[evertune: {goes_on - head} bytes left out here; the log goes on at byte {goes_on}]\n"
            target.write(_compressed(("" if last.endswith(b"\n") else "\n").encode() + words.encode()))
            source.seek(goes_on)
            _member(source, status.st_size - goes_on, target)
        target.flush()
        os.utime(target.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))  # by which `_stands_for` knows it
        os.fsync(target.fileno())
    new.replace(archived(log))
    directory = os.open(log.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the name must be durable before the log goes
    finally:
        os.close(directory)


def _member(source: BinaryIO, size: int, target: BinaryIO) -> bytes:
    """Compress `size` bytes, or what is there of them; returns the last block."""
    deflate, last = zlib.compressobj(wbits=_GZIP), b""
    while size > 0 and (block := source.read(min(size, BLOCK))):
        target.write(deflate.compress(block))
        size -= len(block)
        last = block
    target.write(deflate.flush())
    return last


def _compressed(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=_GZIP)
    return deflate.compress(data) + deflate.flush()


def _cuts(source: BinaryIO, size: int, cap: int) -> tuple[int, int]:
    """Where the head ends and the tail begins: at ends of lines, unless there is none in half of either."""
    head = cap // 4
    tail = size - (cap - head)
    at = head
    while at > head // 2:
        low = max(head // 2, at - BLOCK)
        source.seek(low)
        block = source.read(at - low)
        found = max(block.rfind(b"\n"), block.rfind(b"\r"))
        if found >= 0:
            head = low + found + 1
            break
        at = low
    source.seek(tail - 1)  # a tail that begins right after a line's end is not cut
    at, limit = tail - 1, tail + (size - tail) // 2
    while at < limit and (block := source.read(min(BLOCK, limit - at))):
        if (match := re.search(rb"[\r\n]", block)) is not None:
            return head, at + match.end()
        at += len(block)
    return head, tail


def _is_still(log: Path, status: os.stat_result) -> bool:
    try:
        found = log.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)


def _stands_for(path: Path, status: os.stat_result) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime_ns != status.st_mtime_ns:
                return False
            return max((piece.end for piece in _pieces(file)), default=0) == status.st_size
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------- reading


def exists(log: Path) -> bool:
    return log.exists() or archived(log).exists()


def read(log: Path, start: int = 0) -> Iterator[Piece]:
    """The log from byte `start` on, in blocks, whichever form it has; nothing when there is none. OSError propagates.

    Goes on through the moment when it is archived. An archive that is damaged ends with a gap that says so.
    """
    plain = _open(log)
    if plain is None:
        packed = _open(archived(log))
        plain = _open(log) if packed is None else None
    else:
        packed = _open(archived(log))
        if packed is not None and _stands_for(archived(log), os.fstat(plain.fileno())):
            packed.close()
            packed = None
    base = 0
    if packed is not None:
        with packed:
            for piece in _pieces(packed):
                base = piece.end
                if piece.gap:
                    if start <= piece.offset:
                        yield piece
                elif piece.end > start:
                    yield Piece(max(piece.offset, start), piece.data[max(0, start - piece.offset) :])
    if plain is not None:
        with plain:
            at = max(0, start - base)
            plain.seek(at)
            while data := plain.read(BLOCK):
                yield Piece(base + at, data)
                at += len(data)


def size(log: Path) -> int:
    """Bytes that the log had, left out ones included; 0 when there is none."""
    return max((piece.end for piece in read(log)), default=0)


def lines(log: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its newline), gaps left out; a line longer than `LINE_LIMIT` in pieces of that length."""
    at, rest = 0, b""
    for piece in read(log):
        if piece.gap or piece.offset != at + len(rest):
            if rest:
                yield at, rest
            at, rest = piece.offset, b""
            if piece.gap:
                continue
        *whole, rest = (rest + piece.data).split(b"\n")
        for line in whole:
            yield at, line
            at += len(line) + 1
        while len(rest) >= LINE_LIMIT:
            yield at, rest[:LINE_LIMIT]
            at, rest = at + LINE_LIMIT, rest[LINE_LIMIT:]
    if rest:
        yield at, rest


def tail(log: Path, count: int) -> list[bytes]:
    """The last `count` lines, without their newlines."""
    pieces = b"".join(piece.data for piece in read(log, tail_start(log, count)))
    return pieces.removesuffix(b"\n").split(b"\n") if count and pieces else []


def tail_start(log: Path, count: int) -> int:
    """Where the last `count` lines begin. What is not archived is read from its end, so a long log costs nothing."""
    plain = _open(log)
    if plain is not None:
        with plain:
            if not archived(log).exists():
                return _tail_of_file(plain, count)
    starts: deque[int] = deque(maxlen=count + 1)
    begins, end = True, 0
    for piece in read(log):
        if piece.gap:
            begins = True
            continue
        if begins:
            starts.append(piece.offset)
        starts.extend(piece.offset + match.end() for match in re.finditer(rb"\n", piece.data[:-1]))
        begins, end = piece.data.endswith(b"\n"), piece.end
    if count == 0:
        return end
    return starts[-count] if len(starts) >= count else 0


def last_bytes(log: Path, count: int) -> bytes:
    """At most the last `count` bytes, lines about gaps not included."""
    plain = _open(log)
    if plain is not None:
        with plain:
            plain.seek(max(0, plain.seek(0, os.SEEK_END) - count))
            return plain.read()
    data = bytearray()
    for piece in read(log):
        if not piece.gap:
            data += piece.data
            del data[:-count]
    return bytes(data)


def _tail_of_file(file: BinaryIO, count: int) -> int:
    end = at = file.seek(0, os.SEEK_END)
    if count == 0 or end == 0:
        return end
    file.seek(end - 1)
    if file.read(1) == b"\n":  # it ends the last line and begins none
        at -= 1
    while at > 0:
        low = max(0, at - BLOCK)
        file.seek(low)
        block = file.read(at - low)
        found = len(block)
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            count -= 1
            if count == 0:
                return low + found + 1
        at = low
    return 0


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _pieces(file: BinaryIO) -> Iterator[Piece]:
    """All of an archive: head, gap, tail."""
    offset, words = 0, b""
    try:
        for member, data in _members(file):
            if member == 1:
                words += data
                continue
            if words:
                match = _GOES_ON.search(words)
                if match is None:
                    raise zlib.error("the second member is not a gap")
                yield Piece(offset, words, gap=True)
                offset, words = int(match[1]), b""
            yield Piece(offset, data)
            offset += len(data)
    except zlib.error:
        yield Piece(offset, b"[evertune: the archive is damaged; nothing after this can be read]\n", gap=True)


def _members(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number of the gzip member, data): never more than a block in memory. zlib.error for what is not gzip, or cut."""
    member, inflate, rest, inside = 0, zlib.decompressobj(_GZIP), b"", False
    while True:
        chunk = rest or file.read(BLOCK)
        data = inflate.decompress(chunk, BLOCK)
        if data:
            yield member, data
        elif not chunk:
            if inside:
                raise zlib.error("cut short")
            return
        inside = not inflate.eof
        rest = inflate.unconsumed_tail if inside else inflate.unused_data
        if inflate.eof:
            member, inflate = member + 1, zlib.decompressobj(_GZIP)
