"""Lines of a file or of standard input as a collector takes them: however long the input is, whatever it holds.

A newline ends a line, and so does the carriage return of a progress bar; a line beyond `LINE_LIMIT` is taken as several
pieces. `number` is that of the line in the file, as an editor counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from evertune.errors import UsageError

STDIN = "-"
BLOCK = 1 << 16
LINE_LIMIT = 1 << 20  # as the collectors have it


class Lines:
    """Iterate once. `before_wait` is called each time before more is read: whoever shows lines shows them by then."""

    def __init__(self, path: Path, before_wait: Callable[[], None]) -> None:
        self.number = 0  # of the line that was given last, from 1
        self.continued = False  # whether that was a later piece of a line
        self._path, self._before_wait = path, before_wait

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        self._next, self._piece = 1, False
        for block in self._blocks():
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield from self._pieces(line.removesuffix(b"\r"))
                self._next, self._piece = self._next + 1, False
            while len(rest) > LINE_LIMIT:
                yield self._given(rest[:LINE_LIMIT])
                rest = rest[LINE_LIMIT:]
        if rest:
            yield from self._pieces(rest)

    def _pieces(self, line: bytes) -> Iterator[bytes]:
        for part in line.split(b"\r") if b"\r" in line else (line,):
            for start in range(0, max(len(part), 1), LINE_LIMIT):
                yield self._given(part[start : start + LINE_LIMIT])

    def _given(self, piece: bytes) -> bytes:
        self.number, self.continued, self._piece = self._next, self._piece, True
        return piece

    def _blocks(self) -> Iterator[bytes]:
        if str(self._path) == STDIN:
            yield from self._read(sys.stdin.buffer)
            return
        try:
            if self._path.is_dir():
                raise UsageError(f"{self._path} is a directory", hint="give one file of it")
            with self._path.open("rb", buffering=0) as file:
                yield from self._read(file)
        except FileNotFoundError:
            raise UsageError(f"there is no file {self._path}") from None
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {(error.strerror or str(error)).lower()}") from error

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        read = getattr(file, "read1", file.read)  # what is there, without waiting for a whole block
        while True:
            self._before_wait()
            block = read(BLOCK)
            if not block:
                return
            yield block
