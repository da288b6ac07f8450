"""A file that grows, as whole lines with their place in everything that was ever written to it.

`lines.FileCollector` reads logs, metric files, pushed reports and the spool of scraped samples through `Tail`. The
place of a byte is its *cumulative* offset: what rotation or truncation took away still counts, so places never repeat.

- Rotation by rename: the rest of the renamed file, found by its inode in the same directory, comes first; then files
  that were rotated away meanwhile; then the new one. At the very first look, all that were rotated away before it.
- Truncation: seen by the size, or by the 64 bytes before the place that was reached. A file that is written anew with
  its oldest lines left out (as hypertune's last 100 metrics) goes on after those bytes, wherever they are now.
- Restart: a small note says where the current file begins and how it looked, so that a later reader gives the same
  places. It is written *before* lines are handed out. All of the current file is read again: whoever crashed may not
  have stored its points. Calling `blocks` again says that what it gave before is stored.

A truncation may skip places (`RESERVE`), so that the note need not be written at each read. What was in a truncated
file and never read is lost; nothing can read it. Compressed rotated files are not read. Of a file that is written anew
in the very moment it is read, lines may come twice, at different places.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

BLOCK = 1 << 20
LINE_LIMIT = 1 << 20  # bytes; a longer line is read as several, so that memory stays bounded
RESERVE = 1 << 20  # bytes that are handed out before the note is written again
PRINT = 64  # bytes that tell whether a file is still the one that was read
SLID_WITHIN = 4 << 20  # bytes at the start of a rewritten file in which its old end is looked for
SETTLE_S = 0.02  # a file that was just cut may be in the middle of being written anew
SETTLE_TIMES = 25

Block = list[tuple[int, bytes]]  # whole lines with their ends, or a piece of an overlong line; each with its place


class Tail:
    """Not for several threads at once. `notes` is a file of this reader's own; its directory must exist."""

    def __init__(self, path: Path, notes: Path) -> None:
        self.path = path
        self._notes = notes
        self._rotated_name = re.compile(re.escape(path.name) + r"[.-][0-9][0-9TZ:_.-]*\Z")
        self._base = 0  # the place of the current file's first byte
        self._inode: int | None = None
        self._seen = 0  # bytes of the current file that were handed out
        self._pending = b""  # the start of a line whose end is not there yet
        self._last = b""  # the PRINT bytes before `_position`
        self._reserved = 0  # of the current file: no place beyond this was handed out by anybody
        self._noted = -1  # `_seen` in the note on disk
        self._again = False  # the note is another reader's: read its file from the beginning
        self._rotated = False  # the file that is open was renamed, and another one has content
        self._quiet = False  # the last reading has gone past a rotation: the note must not
        self._load()

    @property
    def _position(self) -> int:
        return self._seen + len(self._pending)

    def has_more(self) -> bool:
        """Whether `blocks` may give something. One `stat`."""
        try:
            status = self.path.stat()
        except OSError:
            return self._inode is not None  # it may be there under another name
        if self._again or self._inode is None:
            return status.st_size > 0
        if status.st_ino != self._inode:
            return True
        return status.st_size not in (0, self._position)

    def blocks(self, *, last: bool = False) -> Iterator[Block]:
        """What is new. `last`: nothing will be written any more, so a line without an end is a line too."""
        handed = False
        while (file := self._open(last)) is not None:
            with file:
                for block in self._read(file):
                    handed = True
                    yield block
            if not self._rotated or self._again:
                break
            if self._pending:
                handed = True
                yield self._flush()
            if handed and not last:
                return  # the note moves on to the next file when these are stored
            self._quiet = self._quiet or last  # the rest of the old file is not stored yet
            self._switch()
        if last and self._pending:
            yield self._flush()

    # ------------------------------------------------------------------------------------------ lines of one file

    def _read(self, file: IO[bytes]) -> Iterator[Block]:
        data = self._first(file)
        while data:
            self._last = (self._last + data)[-PRINT:]
            block = self._whole_lines(self._pending + data)
            if self._position > self._reserved or self._noted < min(PRINT, self._position):
                self._reserved = max(self._reserved, self._position + RESERVE)
                self._note()
            if block:
                yield block
            data = file.read(min(BLOCK, LINE_LIMIT))

    def _first(self, file: IO[bytes]) -> bytes:
        """What stands behind the place that was reached, in one read with what stands before it.

        Empty when the file was written anew since it was opened: the next reading finds the place again.
        """
        size = min(BLOCK, LINE_LIMIT)
        before, at = self._last, self._position
        file.seek(0 if self._again else at - len(before))
        data = file.read(size if self._again else len(before) + size)
        if not self._again:
            return data[len(before) :] if data.startswith(before) else b""
        if data[max(0, at - len(before)) : at] != before if at <= len(data) else len(data) < size:
            return b""
        self._seen, self._pending, self._last, self._again = 0, b"", b"", False
        return data

    def _whole_lines(self, data: bytes) -> Block:
        """`data` is less than two LINE_LIMITs, so only its first line can be too long."""
        place, block, start = self._base + self._seen, Block(), 0
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) >= LINE_LIMIT:
            first = min((at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0), default=len(data))
            while first - start >= LINE_LIMIT:
                block.append((place + start, data[start : start + LINE_LIMIT]))
                start += LINE_LIMIT
        if cut > start:
            block.append((place + start, data[start:cut]))
            start = cut
        self._pending = data[start:]
        self._seen += start
        return block

    def _flush(self) -> Block:
        block = [(self._base + self._seen, self._pending)]
        self._seen, self._pending = self._position, b""
        return block

    # --------------------------------------------------------------------------------------------- which file it is

    def _open(self, last: bool) -> IO[bytes] | None:
        """The file to read on at `_position`: None when nothing is there, or nothing can be said yet."""
        self._rotated = False
        file = _regular(self.path)
        status = os.fstat(file.fileno()) if file else None
        if self._inode is None:
            self._inode = self._first_rotated() or (status.st_ino if status else None)
        if file and status and status.st_ino == self._inode:
            if self._still_there(file, last):
                return file
            file.close()
            return None
        if (renamed := self._renamed()) is not None:
            self._rotated = bool(status and status.st_size) or self._next_rotated() is not None
            if file:
                file.close()
            return renamed
        if file and status:
            if status.st_size:
                self._lose(status.st_ino)
                return file
            file.close()
        return None

    def _still_there(self, file: IO[bytes], last: bool) -> bool:
        """Find the place that was reached, or begin anew in a file that was cut. False: cut just now, look later.

        Whoever writes a file anew empties it first, so nothing is decided before it stands still.
        """
        for _ in range(SETTLE_TIMES):
            before = os.fstat(file.fileno())
            if self._continues(file):
                return True
            if not before.st_size:
                return False
            if self._slide(file):
                return True
            if not last:
                time.sleep(SETTLE_S)
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
                break
        self._lose(os.fstat(file.fileno()).st_ino)
        return True

    def _continues(self, file: IO[bytes]) -> bool:
        return os.pread(file.fileno(), len(self._last), self._position - len(self._last)) == self._last and (
            os.fstat(file.fileno()).st_size >= self._position
        )

    def _renamed(self) -> IO[bytes] | None:
        """The file that was read so far, under another name."""
        if self._inode is None:
            return None
        with suppress(FileNotFoundError), os.scandir(self.path.parent) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_ino != self._inode:  # `entry.inode()` differs on overlays
                    continue
                if (file := _regular(Path(entry.path))) is not None:
                    if self._continues(file):
                        return file
                    if self._rotated_name.match(entry.name):
                        # Cut, written to again and renamed since; a file of another name has only the same number.
                        if not self._slide(file):
                            self._lose(self._inode)
                        return file
                    file.close()
        return None

    def _first_rotated(self) -> int | None:
        """The oldest file that was rotated away before anybody looked: its inode."""
        found = self._all_rotated()
        return found[0][1] if found else None

    def _all_rotated(self) -> list[tuple[int, int, str]]:
        """(time, inode, path) of what was rotated away, and of the file that is read, the oldest first."""
        found: list[tuple[int, int, str]] = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path.parent) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_ino == self._inode or self._rotated_name.match(entry.name):
                    found.append((status.st_mtime_ns, status.st_ino, entry.path))
        return sorted(found)

    def _next_rotated(self) -> Path | None:
        """The file that was rotated away after the current one, when that happened several times unseen."""
        found = self._all_rotated()
        later = [inode for _, inode, _ in found]
        if self._inode not in later or (index := later.index(self._inode) + 1) == len(found):
            return None
        return Path(found[index][2])

    def _switch(self) -> None:
        """On to the file after this one, which was read to its end."""
        try:
            inode = (self._next_rotated() or self.path).stat().st_ino
        except FileNotFoundError:  # renamed again at this moment: seen at the next read
            self._rotated = False
            return
        self._begin(self._base + self._seen, inode)

    def _slide(self, file: IO[bytes]) -> bool:
        """Whether the file was written anew with old lines at its start; it is then read on behind them."""
        if len(self._last) < PRINT:
            return False
        at = os.pread(file.fileno(), SLID_WITHIN, 0).find(self._last)
        known = at + PRINT  # bytes of the file that were read before, at its old place
        if at < 0 or known < len(self._pending):
            return False
        moved = self._position - known
        if moved < 0:
            return False  # more stands before them than ever did: another file
        self._base += moved
        self._reserved = max(0, self._reserved - moved)
        self._seen -= moved
        self._note()
        return True

    def _lose(self, inode: int) -> None:
        """The file that was read is gone. Its places up to the reserved one may be taken."""
        self._begin(self._base + max(self._reserved, self._position), inode)

    def _begin(self, base: int, inode: int) -> None:
        self._base, self._inode = base, inode
        self._seen, self._pending, self._last, self._reserved, self._again = 0, b"", b"", 0, False
        self._note()

    # ------------------------------------------------------------------------------------------------------ the note

    def _note(self) -> None:
        if self._quiet:
            return
        self._noted = self._position
        note = {
            "base": self._base,
            "inode": self._inode,
            "seen": self._position,
            "reserved": self._reserved,
            "print": self._last.hex(),
        }
        new = self._notes.with_name(self._notes.name + ".new")
        new.write_text(json.dumps(note) + "\n", encoding="ascii")
        new.replace(self._notes)

    def _load(self) -> None:
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            note = _noted(self._notes)
            base, inode, seen, reserved = (int(note[key]) for key in ("base", "inode", "seen", "reserved"))
            last = bytes.fromhex(note["print"])
            self._base, self._inode, self._seen, self._last, self._reserved = base, inode, seen, last, reserved
            self._noted, self._again = seen, True


def first_place(notes: Path) -> int:
    """The first place that can be read again: what is before it was rotated away or cut. 0 without a note."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        return int(_noted(notes)["base"])
    return 0


def _noted(notes: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(notes.read_text(encoding="ascii"))
    return note


def end_of(path: Path, size: int) -> bytes:
    """The last `size` bytes of a file as it is now; empty without a plain file."""
    if (file := _regular(path)) is None:
        return b""
    with file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read(size)


def _regular(path: Path) -> IO[bytes] | None:
    """The file, open; None when there is none or it is not a plain file (a pipe would hold us for ever)."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        return None
    return os.fdopen(number, "rb", buffering=0)
